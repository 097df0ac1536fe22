/* SPDX-License-Identifier: Apache-2.0 */
/* threads_case.h: random numbers for the tests of threads. TERSE_SEED starts elsewhere, TERSE_LONG makes more rounds.
 */
#ifndef TERSE_TESTS_THREADS_CASE_H
#define TERSE_TESTS_THREADS_CASE_H

#include "common/bytes.h"
#include "common/graph/plan.h"
#include "common/graph/split_parts.h"
#include "tests/unit/graph_maker.h"

static uint64_t state;

static inline uint64_t random_bits(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

static inline int64_t random_in(int64_t low, int64_t high)
{
    return low + (int64_t)((random_bits() >> 20) % (uint64_t)(high - low + 1));
}

/* From TERSE_SEED, else from the clock; says which. */
static inline void random_begin(void)
{
    const char *seed = getenv("TERSE_SEED");
    state = seed ? strtoull(seed, NULL, 10) : terse_now_ns();
    state = state ? state : 1;
    printf("# TERSE_SEED=%llu\n", (unsigned long long)state);
}

#endif
