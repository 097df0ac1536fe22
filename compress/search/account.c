/* SPDX-License-Identifier: Apache-2.0 */
/* What a search did: where its time went, and which of its networks are worth training. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "compress/search/search_steps.h"

/* --- time ------------------------------------------------------------------------------------------------------------
 */

void terse_search_enter(search *s, search_stage stage, uint64_t now)
{
    s->spent[s->stage] += (double)(now - s->entered) / 1e9;
    s->entered = now;
    s->stage = stage;
}

const char *terse_search_say_spent(const search *s, uint64_t now, char text[TERSE_PLAN_TEXT])
{
    static const char *const names[SEARCH_STAGES] = {"dense networks",    "channels alone", "the table of choices",
                                                     "single techniques", "all together",   "variants",
                                                     "training",          "the rest"};
    int n = snprintf(text, TERSE_PLAN_TEXT, "%d networks built", s->n_builds);
    if (s->n_trained > 0)
        n += snprintf(text + n, (size_t)(TERSE_PLAN_TEXT - n), ", %d of them trained", s->n_trained);
    for (int i = 0; i < SEARCH_STAGES; i++) {
        const double here = s->stage == (search_stage)i ? (double)(now - s->entered) / 1e9 : 0;
        if (s->spent[i] + here >= 0.5 && n < TERSE_PLAN_TEXT)
            n += snprintf(text + n, (size_t)(TERSE_PLAN_TEXT - n), ", %.0f s for %s", s->spent[i] + here, names[i]);
    }
    return text;
}

void terse_search_note(search *s, const char *format, ...)
{
    char text[TERSE_PLAN_TEXT];
    const size_t used = strlen(s->trained);
    const char *between = used > 0 ? "; " : "";
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n >= 0 && used + strlen(between) + (size_t)n < sizeof s->trained)
        snprintf(s->trained + used, sizeof s->trained - used, "%s%s", between, text);
}

/* --- what could be trained -------------------------------------------------------------------------------------------
 */

static bool is_before(const search *s, int a, int b)
{
    const terse_measured *x = &s->book.measured[a], *y = &s->book.measured[b];
    return terse_aim_is_more_promising(x->us, x->drop, y->us, y->drop, terse_search_target_us(s));
}

int terse_search_pool_offer(search *s, const terse_search_plan *plan, int index, terse_error *error)
{
    const terse_measured *m = &s->book.measured[index];
    if (m->dense || plan->recover_epochs > 0 || !terse_aim_is_near(m->us, terse_search_target_us(s)) || !(m->drop > 0))
        return TERSE_OK;
    int at = s->n_pool;
    while (at > 0 && is_before(s, index, s->pool[at - 1].index))
        at--;
    if (at == SEARCH_POOL)
        return TERSE_OK;
    search_candidate c = {.index = index};
    const int status = terse_search_plan_copy(plan, &c.plan, error);
    if (status != TERSE_OK)
        return status;
    if (s->n_pool == SEARCH_POOL)
        terse_search_plan_done(&s->pool[--s->n_pool].plan);
    memmove(&s->pool[at + 1], &s->pool[at], (size_t)(s->n_pool - at) * sizeof *s->pool);
    s->pool[at] = c;
    s->n_pool++;
    return TERSE_OK;
}

int terse_search_pool_turns(const search *s)
{
    const double target = terse_search_target_us(s);
    int n = 0;
    while (n < s->n_pool && s->book.measured[s->pool[n].index].us <= target)
        n++;
    return n > 0 ? n : s->n_pool;
}

void terse_search_pool_done(search *s)
{
    for (int i = 0; i < s->n_pool; i++)
        terse_search_plan_done(&s->pool[i].plan);
    s->n_pool = 0;
}
