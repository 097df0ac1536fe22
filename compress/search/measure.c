/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "compress/search/search_steps.h"

static const double noise = 1.02; /* times differ that much from run to run */

void terse_search_tell(const search *s, const char *format, ...)
{
    char text[256], what[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const uint64_t now = terse_now_ns();
    const int left = now < s->deadline ? (int)((s->deadline - now) / 1000000000u) : 0;
    snprintf(text, sizeof text, "%d:%02d left, network %d: %s", left / 60, left % 60, s->n_builds + 1, what);
    if (s->hooks->progress)
        s->hooks->progress(s->hooks->context, text);
}

bool terse_search_has_time(const search *s)
{
    return !(s->hooks->stopped && s->hooks->stopped(s->hooks->context)) &&
           terse_now_ns() + (uint64_t)(1.2 * s->build_seconds * 1e9) <= s->deadline;
}

bool terse_search_is_over(const search *s)
{
    if (s->hooks->stopped && s->hooks->stopped(s->hooks->context))
        return true;
    /* one that will not be ready is not begun, but where nothing reaches the goal yet, the time is used up */
    const bool reached = s->has_best && terse_search_meets(s, &s->book.measured[s->best_index]);
    return reached || s->in_part ? !terse_search_has_time(s) : terse_now_ns() > s->deadline;
}

/* --- what is better
 * --------------------------------------------------------------------------------------------------- */

/* How far from the goal, as a sum of shares; 0: there. Times that miss it by as many percent are as far: what loses
 * less is nearer then. */
static double short_of(const search *s, const terse_measured *m)
{
    double far = s->goal->target_speedup > 0 && !s->dense_known ? 1000 : 0; /* beside what, is not known yet */
    if (s->goal->max_drop >= 0 && m->drop > s->goal->max_drop)
        far += (m->drop - s->goal->max_drop) / fmax(s->goal->max_drop, 0.1);
    far += 0.1 * terse_aim_missed(m->us, terse_search_target_us(s));
    if (s->goal->target_bytes > 0 && m->bytes > s->goal->target_bytes)
        far += 10 * ((double)m->bytes / (double)s->goal->target_bytes - 1);
    return far;
}

/* No network that is compressed layer by layer may be slower than the dense one, where time is what counts. */
static bool is_slow(const search *s, const terse_measured *m)
{
    return !terse_goal_by_size(s->goal) && !m->dense && s->dense_us > 0 && m->us > noise * s->dense_us;
}

bool terse_search_meets(const search *s, const terse_measured *m)
{
    return short_of(s, m) == 0 && !is_slow(s, m);
}

bool terse_search_better(const search *s, const terse_measured *a, const terse_measured *b)
{
    const bool meets_a = terse_search_meets(s, a), meets_b = terse_search_meets(s, b);
    if (meets_a != meets_b)
        return meets_a;
    if (!meets_a && short_of(s, a) != short_of(s, b))
        return short_of(s, a) < short_of(s, b);
    if (terse_search_target(s) > 0 && a->drop != b->drop)
        return a->drop < b->drop;
    if (terse_goal_by_size(s->goal) && a->bytes != b->bytes)
        return a->bytes < b->bytes;
    return a->us < b->us;
}

void terse_search_mark_pareto(terse_search_plan *plan)
{
    for (int i = 0; i < plan->n_measured; i++) {
        terse_measured *a = &plan->measured[i];
        a->pareto = true;
        for (int j = 0; j < plan->n_measured && a->pareto; j++) {
            const terse_measured *b = &plan->measured[j];
            const bool no_worse = b->drop <= a->drop && b->us <= a->us && b->bytes <= a->bytes;
            const bool is_better = b->drop < a->drop || b->us < a->us || b->bytes < a->bytes;
            a->pareto = !(no_worse && (is_better || j < i));
        }
    }
}

/* --- building
 * ---------------------------------------------------------------------------------------------------------- */

static int find(const terse_search_plan *book, const char *key)
{
    for (int i = 0; i < book->n_measured; i++)
        if (strcmp(book->measured[i].key, key) == 0)
            return i;
    return -1;
}

static int time_graph(const search *s, const terse_graph *graph, double *ret_us, terse_error *error)
{
    double us, beside;
    const int status =
        terse_judge_time(s->judge, graph, s->dense, s->goal->batch, s->goal->threads, &us, &beside, error);
    if (status == TERSE_OK)
        *ret_us = s->dense && beside > 0 ? us / beside * s->dense_us : us;
    return status;
}

static int build(search *s, terse_search_plan *plan, terse_measured *m, terse_error *error)
{
    const uint64_t from = terse_now_ns();
    const terse_graph *graph;
    terse_verdict v;
    /* the first one without channels puts them in order, which takes as long again and is done once */
    double ignored;
    const bool orders =
        plan->channels > 0 && s->hooks->foresee && !s->hooks->foresee(s->hooks->context, plan->channels, &ignored);
    int status = s->hooks->build(s->hooks->context, plan, &graph, error);
    if (status == TERSE_OK)
        status = terse_judge_run(s->judge, graph, &v, error);
    if (status == TERSE_OK)
        status = s->hooks->size(s->hooks->context, &m->bytes, &m->memory, error);
    if (status == TERSE_OK)
        status = time_graph(s, graph, &m->us, error);
    if (status != TERSE_OK)
        return status;
    m->drop = terse_search_plan_number(v.drop);
    m->low = terse_search_plan_number(v.low);
    m->high = terse_search_plan_number(v.high);
    m->agreement = terse_search_plan_number(v.agreement);
    m->kl = terse_search_plan_number(v.kl);
    m->us = terse_search_plan_number(m->us);
    const double seconds = (double)(terse_now_ns() - from) / 1e9;
    /* a dense one is built sooner; machines become slower and faster */
    if (plan->recover_epochs == 0 && !orders)
        s->build_seconds = fmax(seconds, 0.5 * (s->build_seconds + seconds));
    return TERSE_OK;
}

/* The best plan with everything that was measured so far. */
static int keep_best(search *s, const terse_search_plan *plan, int index, terse_error *error)
{
    terse_search_plan copy;
    int status = terse_search_plan_copy(plan, &copy, error);
    if (status != TERSE_OK)
        return status;
    terse_search_plan_done(&s->best);
    s->best = copy;
    s->has_best = true;
    s->best_index = index;
    terse_search_find_culprit(s);
    status = s->hooks->keep(s->hooks->context, error);
    return status == TERSE_OK ? terse_search_write(s, error) : status;
}

int terse_search_write(search *s, terse_error *error)
{
    terse_search_plan *best = &s->best;
    best->n_measured = 0;
    for (int i = 0; i < s->book.n_measured; i++) {
        terse_measured *to = terse_search_plan_add_measured(best);
        if (!to)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
        *to = s->book.measured[i];
        to->chosen = i == s->best_index;
        to->meets = terse_search_meets(s, to);
    }
    best->dense_us = s->dense_us;
    terse_search_say_spent(s, terse_now_ns(), best->spent);
    snprintf(best->trained, sizeof best->trained, "%s", s->trained);
    if (best->recover_epochs == 0)
        snprintf(best->recovered, sizeof best->recovered, "%s", s->untrained);
    terse_search_mark_pareto(best);
    return s->hooks->write(s->hooks->context, best, best->measured[s->best_index].meets, error);
}

int terse_search_take(search *s, terse_search_plan *plan, int index, terse_error *error)
{
    terse_measured again = {0};
    const int status = build(s, plan, &again, error);
    return status == TERSE_OK ? keep_best(s, plan, index, error) : status;
}

int terse_search_measure(search *s, terse_search_plan *plan, const char *label, unsigned flags, int *ret_index,
                         terse_error *error)
{
    char key[TERSE_PLAN_TEXT];
    terse_search_plan_key(plan, key);
    const int seen = find(&s->book, key);
    if (seen >= 0) {
        s->book.measured[seen].single = s->book.measured[seen].single || flags & OF_ONE_TECHNIQUE;
        *ret_index = seen;
        return TERSE_OK;
    }
    terse_search_tell(s, "%s", label);
    terse_measured m = {0};
    /* dense ones are built in any case: others are timed beside them */
    const bool untrained = plan->recover_epochs > 0 && !plan->recover_done[0] && !plan->recover_done[1];
    const int known = s->in->known && !(flags & OF_DENSE_LAYERS) && !untrained ? find(s->in->known, key) : -1;
    int status = TERSE_OK;
    if (known >= 0) {
        m = s->in->known->measured[known];
        if (s->in->known->dense_us > 0)
            m.us = terse_search_plan_number(m.us / s->in->known->dense_us * s->dense_us);
    } else
        status = build(s, plan, &m, error);
    if (status != TERSE_OK)
        return status;
    s->n_builds += known < 0;
    int namesakes = 0;
    for (int i = 0; i < s->book.n_measured; i++)
        namesakes += strncmp(s->book.measured[i].label, label, strlen(label)) == 0 && !(flags & OF_DENSE_LAYERS);
    snprintf(m.label, sizeof m.label, namesakes ? "%s (%d)" : "%s", label, namesakes + 1);
    snprintf(m.key, sizeof m.key, "%s", key);
    m.single = flags & OF_ONE_TECHNIQUE;
    m.dense = flags & OF_DENSE_LAYERS;
    m.chosen = false;
    terse_measured *to = terse_search_plan_add_measured(&s->book);
    if (!to)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for what was measured");
    *to = m;
    *ret_index = s->book.n_measured - 1;
    status = terse_search_pool_offer(s, plan, *ret_index, error);
    if (status != TERSE_OK)
        return status;
    if (s->has_best && !terse_search_better(s, to, &s->book.measured[s->best_index]))
        return TERSE_OK;
    if (known < 0)
        return keep_best(s, plan, *ret_index, error);
    /* measured in an earlier search: what is written must be built */
    s->n_builds++;
    return terse_search_take(s, plan, *ret_index, error);
}
