/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/cost.h"

#include <math.h>

/* Times what was usual, as a mean takes it. */
#define MOST_JUMP 4.0

static unsigned step_of(uint32_t rows)
{
    const unsigned step = rows <= 1 ? 0 : 32u - (unsigned)__builtin_clz(rows - 1);
    return step < TERSE_COST_STEPS ? step : TERSE_COST_STEPS - 1;
}

/* What one size learns, the others follow. Most that makes batches slower (other processes, a lower clock) makes all of
 * them slower; were it learnt by those in use only, the others would look cheap and be tried in turn while time is
 * short. By the square root of what it moved, so that the shape of the curve is learnt as well (all moving alike would
 * keep it), and that noise, up and down, adds up to nothing. */
static void follow(terse_cost *cost, unsigned learnt, double ratio)
{
    const double root = sqrt(ratio);
    for (unsigned i = 0; i < TERSE_COST_STEPS; i++)
        if (i != learnt)
            cost->steps[i].ns *= root;
}

void terse_cost_learn(terse_cost *cost, uint32_t rows, uint64_t ns)
{
    const unsigned i = step_of(rows);
    const double now = (double)ns;
    if (cost->steps[i].samples++ == 0) {
        cost->steps[i].rows = rows;
        cost->steps[i].ns = now;
        cost->steps[i].peak_ns = now;
        return;
    }
    /* Means over about the last 16 batches. The peak sinks by a 64th per batch towards what is usual. */
    const double share = cost->steps[i].samples < 16 ? 1.0 / (double)cost->steps[i].samples : 1.0 / 16;
    cost->steps[i].rows += (rows - cost->steps[i].rows) * share;
    /* One batch that was interrupted must not make all that follow look late: a jump is followed step by step. */
    const double most = MOST_JUMP * cost->steps[i].ns;
    const double before = cost->steps[i].ns;
    cost->steps[i].ns += ((now < most ? now : most) - before) * share;
    if (before > 0 && cost->steps[i].ns > 0)
        follow(cost, i, cost->steps[i].ns / before);
    const double sunk = cost->steps[i].peak_ns - (cost->steps[i].peak_ns - cost->steps[i].ns) / 64;
    cost->steps[i].peak_ns = now > sunk ? now : sunk;
}

bool terse_cost_known(const terse_cost *cost)
{
    for (unsigned i = 0; i < TERSE_COST_STEPS; i++)
        if (cost->steps[i].samples)
            return true;
    return false;
}

uint64_t terse_cost_samples(const terse_cost *cost, uint32_t rows)
{
    return cost->steps[step_of(rows)].samples;
}

uint64_t terse_cost_of(const terse_cost *cost, uint32_t rows)
{
    int below = -1, above = -1;
    const double wanted = rows;
    for (int i = 0; i < TERSE_COST_STEPS; i++) {
        if (!cost->steps[i].samples)
            continue;
        if (cost->steps[i].rows <= wanted) {
            below = i;
        } else {
            above = i;
            break;
        }
    }
    if (below < 0 && above < 0)
        return 0;
    if (below < 0)
        return (uint64_t)(cost->steps[above].ns * wanted / cost->steps[above].rows);
    if (above < 0)
        return (uint64_t)(cost->steps[below].ns * wanted / cost->steps[below].rows);
    const double span = cost->steps[above].rows - cost->steps[below].rows;
    const double part = (wanted - cost->steps[below].rows) / span;
    return (uint64_t)(cost->steps[below].ns + part * (cost->steps[above].ns - cost->steps[below].ns));
}

uint64_t terse_cost_peak(const terse_cost *cost, uint32_t rows)
{
    const unsigned i = step_of(rows);
    const uint64_t expected = terse_cost_of(cost, rows);
    const double usual = cost->steps[i].ns;
    if (!cost->steps[i].samples || usual <= 0)
        return expected;
    const double peak = cost->steps[i].peak_ns * ((double)expected / usual);
    return peak > (double)expected ? (uint64_t)peak : expected;
}

uint32_t terse_cost_limit(const terse_cost *cost, uint32_t most, double near)
{
    double best = 0;
    unsigned last = TERSE_COST_STEPS;
    const unsigned end = step_of(most) + 1;
    for (unsigned i = 0; i < end; i++) {
        if (!cost->steps[i].samples)
            continue;
        const double per_row = cost->steps[i].ns / cost->steps[i].rows;
        if (last == TERSE_COST_STEPS || per_row < best)
            best = per_row;
        last = i;
    }
    if (last == TERSE_COST_STEPS)
        return most;
    unsigned step = 0;
    while (!cost->steps[step].samples || cost->steps[step].ns / cost->steps[step].rows > best * near)
        step++;
    if (step == last)
        step++;
    return 1u << step < most ? 1u << step : most;
}
