/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/tell.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t interrupted;
static struct sigaction before_int, before_term;

static void interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

void terse_tell_catch(void)
{
    const struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    interrupted = 0;
    sigaction(SIGINT, &action, &before_int);
    sigaction(SIGTERM, &action, &before_term);
}

bool terse_tell_was_interrupted(void)
{
    return interrupted;
}

void terse_tell_off(void)
{
    sigaction(SIGINT, &before_int, NULL);
    sigaction(SIGTERM, &before_term, NULL);
}

static void time_text(double seconds, char *text, size_t size)
{
    if (seconds < 0)
        snprintf(text, size, "?");
    else if (seconds < 90)
        snprintf(text, size, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(text, size, "%.1f min", seconds / 60);
    else
        snprintf(text, size, "%.1f h", seconds / 3600);
}

/* Without a terminal: at most twenty lines, and the last epoch's. */
static bool is_due(terse_tell *tell, const terse_train_progress *p)
{
    const double share = p->left >= 0 ? p->seconds / (p->seconds + p->left + 1e-9) : 0;
    if (!p->evaluated || (share < tell->told + 0.05 && p->epoch != p->epochs))
        return false;
    tell->told = share;
    return true;
}

bool terse_tell_progress(void *context, const terse_train_progress *p)
{
    terse_tell *tell = context;
    if (tell->quiet)
        return !interrupted;
    char left[32], so_far[32];
    time_text(p->left, left, sizeof left);
    time_text(p->seconds, so_far, sizeof so_far);
    if (p->step == 0 && !p->evaluated) {
        tell->told = 0;
        fprintf(stderr,
                "%s%s on %" PRId64 " samples, %" PRId64 " held out, %.1f MB of memory, held-out agreement %.2f %%\n",
                tell->terminal ? "\r\033[K" : "", tell->what, p->samples, p->held_out, (double)p->bytes / 1e6,
                100 * p->best_agreement);
    } else if (tell->terminal) {
        fprintf(stderr,
                "\r\033[Kepoch %" PRId64 "%s%.0" PRId64
                ", loss %.4f, held-out agreement %.2f %%, %.0f samples/s, %s, %s left",
                p->epoch + !p->evaluated, p->epochs ? " of " : "", p->epochs, p->loss, 100 * p->best_agreement,
                p->samples_per_second, so_far, left);
    } else if (is_due(tell, p)) {
        fprintf(stderr,
                "epoch %" PRId64
                ": loss %.4f, held-out agreement %.2f %% (best %.2f %%), %.0f samples/s, %s, %s left\n",
                p->epoch, p->loss, 100 * p->agreement, 100 * p->best_agreement, p->samples_per_second, so_far, left);
    }
    return !interrupted;
}
