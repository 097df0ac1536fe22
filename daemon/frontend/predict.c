/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/predict.h"

#include <math.h>

#define FOLD_NS UINT64_C(50000000)
#define FRESH_NS (4 * FOLD_NS)
#define FADES_NS 500000000.0 /* until a correction that nothing renewed is the root of what it was */
#define KEPT 0.9             /* of the old sums at each fold: half of them after a third of a second */
#define CERTAIN_NS 200000.0  /* what a wake-up costs more or less says nothing about a queue */
#define FEW 4.0              /* requests that say half of what they seem to */
#define LEAST_FACTOR 0.5
#define MOST_FACTOR 8.0

unsigned terse_predict_class(uint64_t time_ns)
{
    const uint64_t ms = time_ns / 1000000;
    const unsigned class = ms < 2 ? 0 : 63u - (unsigned)__builtin_clzll(ms);
    return class < TERSE_PREDICT_TIMES ? class : TERSE_PREDICT_TIMES - 1;
}

uint64_t terse_predict_wait(const terse_predict_input *in)
{
    return in->workers ? (in->running_ns + in->ahead_ns + in->others_ns) / in->workers : 0;
}

void terse_predict_learn(terse_predict *predict, uint64_t reckoned_ns, uint64_t waited_ns, uint64_t now_ns)
{
    predict->fresh.n++;
    predict->fresh.reckoned_ns += (double)reckoned_ns;
    predict->fresh.waited_ns += (double)waited_ns;
    if (now_ns - predict->folded_ns < FOLD_NS)
        return;
    predict->folded_ns = now_ns;
    predict->late.n = KEPT * predict->late.n + predict->fresh.n;
    predict->late.reckoned_ns = KEPT * predict->late.reckoned_ns + predict->fresh.reckoned_ns;
    predict->late.waited_ns = KEPT * predict->late.waited_ns + predict->fresh.waited_ns;
    predict->fresh.n = predict->fresh.reckoned_ns = predict->fresh.waited_ns = 0;
    const double certain = CERTAIN_NS * predict->late.n;
    const double ratio = (predict->late.waited_ns + certain) / (predict->late.reckoned_ns + certain);
    const double bounded = ratio < LEAST_FACTOR ? LEAST_FACTOR : ratio > MOST_FACTOR ? MOST_FACTOR : ratio;
    predict->factor = 1 + (bounded - 1) * predict->late.n / (predict->late.n + FEW);
}

uint64_t terse_predict_correct(const terse_predict *predict, uint64_t reckoned_ns, uint64_t now_ns)
{
    if (predict->factor <= 0)
        return reckoned_ns;
    const uint64_t age_ns = now_ns - predict->folded_ns;
    double factor = predict->factor;
    if (age_ns > FRESH_NS)
        factor = pow(factor, exp2(-(double)(age_ns - FRESH_NS) / FADES_NS));
    return (uint64_t)((double)reckoned_ns * factor);
}
