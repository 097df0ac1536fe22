/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/goal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/threads.h"

enum { MAX_BATCH = 4096 };

bool terse_goal_is_set(const terse_search_goal *goal)
{
    return goal->max_drop >= 0 || goal->target_ms > 0 || goal->target_speedup > 0 || goal->target_bytes > 0;
}

bool terse_goal_by_size(const terse_search_goal *goal)
{
    return goal->target_bytes > 0 || (goal->smallest && !(goal->target_ms > 0) && !(goal->target_speedup > 0));
}

const char *terse_goal_text(const terse_search_goal *g, char *text, unsigned long size)
{
    char of[96] = "", within[64] = "";
    if (g->target_bytes > 0)
        snprintf(of, sizeof of, "at most %lld bytes", (long long)g->target_bytes);
    else if (g->target_ms > 0)
        snprintf(of, sizeof of, "at most %.6g ms", g->target_ms);
    else if (g->target_speedup > 0)
        snprintf(of, sizeof of, "%.6g times the speed of the fastest dense network", g->target_speedup);
    if (g->max_drop >= 0)
        snprintf(within, sizeof within, "a drop of at most %.6g", g->max_drop);
    if (*of)
        snprintf(text, size, "%s%s%s, with the least drop", of, *within ? " and " : "", within);
    else
        snprintf(text, size, "the %s with %s", g->smallest ? "smallest file" : "fastest network", within);
    return text;
}

/* A number from `low` to `high` with one of the units behind it (the first one is 1); -1: it is something else. */
static double number(const char *text, const char *const *units, const double *factors, int n_units, double low,
                     double high)
{
    char *end;
    /* strtod takes blanks, signs, words, and numbers to the base of 16 */
    if (*text < '0' || *text > '9' || (strspn(text + 1, "xX") > 0 && text[2]))
        return -1;
    const double found = strtod(text, &end);
    for (int i = 0; i < n_units; i++)
        if (strcmp(end, units[i]) == 0)
            return found * factors[i] >= low && found * factors[i] <= high ? found * factors[i] : -1;
    return -1;
}

static const char *const percent[] = {"", "%"};
static const double one[] = {1, 1};

int terse_goal_set_max_drop(terse_search_goal *goal, const char *argument, terse_error *error)
{
    goal->max_drop = number(argument, percent, one, 2, 0, 100);
    return goal->max_drop >= 0 ? TERSE_OK
                               : terse_fail(error, TERSE_INVALID_ARGUMENT,
                                            "--max-drop is '%.100s', allowed are 0 to 100: points of top-1", argument);
}

int terse_goal_set_target_ms(terse_search_goal *goal, const char *argument, terse_error *error)
{
    static const char *const units[] = {"", "ms", "us", "s"};
    static const double factors[] = {1, 1, 1e-3, 1e3};
    goal->target_ms = number(argument, units, factors, 4, 1e-6, 1e9);
    return goal->target_ms > 0 ? TERSE_OK
                               : terse_fail(error, TERSE_INVALID_ARGUMENT,
                                            "--target-ms is '%.100s', allowed are milliseconds above 0", argument);
}

int terse_goal_set_target_speedup(terse_search_goal *goal, const char *argument, terse_error *error)
{
    static const char *const units[] = {"", "x"};
    goal->target_speedup = number(argument, units, one, 2, 1, 1000);
    return goal->target_speedup > 0
               ? TERSE_OK
               : terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "--target-speedup is '%.100s', allowed are 1 to 1000: times the speed of the fastest dense "
                            "network",
                            argument);
}

int terse_goal_set_target_size(terse_search_goal *goal, const char *argument, terse_error *error)
{
    static const char *const units[] = {"", "k", "K", "M", "G", "kB", "MB", "GB", "KiB", "MiB", "GiB"};
    static const double factors[] = {1, 1e3, 1e3, 1e6, 1e9, 1e3, 1e6, 1e9, 1024, 1048576, 1073741824};
    const double bytes = number(argument, units, factors, 11, 1, 1e15);
    goal->target_bytes = (int64_t)bytes;
    return bytes > 0
               ? TERSE_OK
               : terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "--target-size is '%.100s', allowed are bytes above 0, also as 800k, 0.8M, 1MiB", argument);
}

int terse_goal_set_time(terse_search_goal *goal, const char *argument, terse_error *error)
{
    static const char *const units[] = {"s", "m", "h", ""};
    static const double factors[] = {1, 60, 3600, 1};
    goal->seconds = number(argument, units, factors, 4, 1, 86400.0 * 7);
    return goal->seconds > 0 ? TERSE_OK
                             : terse_fail(error, TERSE_INVALID_ARGUMENT,
                                          "--time is '%.100s', allowed are 1s to 168h, as in 90s, 10m, 2h", argument);
}

static int whole(const char *name, const char *argument, long low, long high, long *ret_number, terse_error *error)
{
    char *end;
    errno = 0;
    const long found = strtol(argument, &end, 10);
    if (*argument < '0' || *argument > '9' || *end || errno || found < low || found > high)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s is '%.100s', allowed are %ld to %ld", name, argument, low,
                          high);
    *ret_number = found;
    return TERSE_OK;
}

int terse_goal_set_threads(terse_search_goal *goal, const char *argument, terse_error *error)
{
    long found = 0;
    const int status = whole("--threads", argument, 1, TERSE_MAX_THREADS, &found, error);
    goal->threads = (int)found;
    goal->stray = "--threads";
    return status;
}

int terse_goal_set_batch(terse_search_goal *goal, const char *argument, terse_error *error)
{
    long found = 0;
    const int status = whole("--batch", argument, 1, MAX_BATCH, &found, error);
    goal->batch = found;
    goal->stray = "--batch";
    return status;
}

int terse_goal_set_seed(terse_search_goal *goal, const char *argument, terse_error *error)
{
    long found = 0;
    const int status = whole("--seed", argument, 0, 2147483647, &found, error);
    goal->seed = (uint64_t)found;
    goal->stray = "--seed";
    return status;
}

void terse_goal_init(terse_search_goal *goal)
{
    *goal = (terse_search_goal){.max_drop = -1};
}

int terse_goal_check(const terse_search_goal *g, terse_error *error)
{
    const int targets = (g->target_ms > 0) + (g->target_speedup > 0) + (g->target_bytes > 0);
    if (targets > 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "one of --target-ms, --target-size and --target-speedup is allowed, found %d", targets);
    if (!terse_goal_is_set(g) && (g->stray || g->seconds > 0))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s goes with a search only: --max-drop, --target-ms, --target-size or --target-speedup",
                          g->stray ? g->stray : "--time");
    return TERSE_OK;
}
