/* SPDX-License-Identifier: Apache-2.0 */
/* passes_case.h: a network answered by the engine before and after each of the passes. */
#ifndef TERSE_TESTS_PASSES_CASE_H
#define TERSE_TESTS_PASSES_CASE_H

#include "compress/passes/passes.h"
#include "tests/unit/graph_maker.h"

/* Runs all passes and compares; the transformed graph is left in `g`. */
static inline void check_passes(terse_graph *g)
{
    terse_error error = {0};
    state_values(g);
    if (terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("before: %s", error.message);
    answers before = answer(g, 2, 7), before_larger = answer(g, 5, 9);
    for (int i = 0; i < terse_passes_n; i++) {
        if (terse_passes_list[i].run(g, &error) != TERSE_OK)
            fail_msg("%s: %s", terse_passes_list[i].name, error.message);
        answers after = answer(g, 2, 7);
        const double difference = apart(&before, &after);
        if (!(difference < 2e-5))
            fail_msg("pass '%s' changes the answer by %g", terse_passes_list[i].name, difference);
        answers_done(&after);
    }
    answers after_larger = answer(g, 5, 9);
    assert_true(apart(&before_larger, &after_larger) < 2e-5);
    answers_done(&after_larger);
    answers_done(&before_larger);
    answers_done(&before);
}

static inline terse_graph *start(void)
{
    terse_graph *g = terse_graph_new();
    assert_non_null(g);
    assert_int_equal(terse_graph_symbol(g, "N"), 0);
    return g;
}

#define BATCH TERSE_DIM_OF_SYMBOL(0)

#endif
