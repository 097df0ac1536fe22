/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/graph_maker.h"

#include "compress/low_rank/steps.h"
#include "compress/passes/passes.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

/* Random [rows, columns] (first axis first) of exactly this rank, as a constant with these dims. */
static int make_of_rank(terse_graph *g, int64_t rows, int64_t columns, int64_t rank, int n_dims, const int64_t *dims)
{
    float *data = terse_arena_alloc(g->arena, (size_t)(rows * columns) * sizeof *data);
    float *left = calloc((size_t)(rows * rank), sizeof *left), *right = calloc((size_t)(rank * columns), sizeof *right);
    for (int64_t i = 0; i < rows * rank; i++)
        left[i] = random_number();
    for (int64_t i = 0; i < rank * columns; i++)
        right[i] = random_number();
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            for (int64_t r = 0; r < rank; r++)
                data[i * columns + j] += left[i * rank + r] * right[r * columns + j];
    free(left);
    free(right);
    return terse_graph_add_constant(g, "w", TERSE_FP32, n_dims, dims, data);
}

static terse_low_rank_report factor(terse_graph *g, double energy)
{
    terse_low_rank_report report = {0};
    terse_error error = {0};
    const terse_low_rank_options options = {.target = TERSE_LOW_RANK_ENERGY, .amount = energy};
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_low_rank_run(g, &options, &report, &error) != TERSE_OK ||
        terse_passes_run(g, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return report;
}

/* Gemm, MatMul with three axes, and 1x1 convolutions with stride and padding, all of rank 5. */
static terse_graph *network_of_rank_5(int kind)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    int y;
    random_state = 99;
    if (kind == 0) {
        const int x = make_input(g, "x", DIMS(BATCH, 40));
        y = make_node(g, TERSE_OP_GEMM,
                      INPUTS(x, make_of_rank(g, 30, 40, 5, DIMS(30, 40)), make_weights(g, 0, 1, DIMS(30))));
        terse_node_set_int(g, last_node(g), "transB", 1);
        y = make_relu(g, y);
    } else if (kind == 1) {
        const int x = make_input(g, "x", DIMS(BATCH, 3, 40));
        y = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_of_rank(g, 40, 30, 5, DIMS(40, 30))));
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(30))));
    } else {
        const int x = make_input(g, "x", DIMS(BATCH, 40, 6, 7));
        const int w = make_of_rank(g, 30, 40, 5, DIMS(30, 40, 1, 1));
        y = make_node(g, TERSE_OP_CONV, INPUTS(x, w, make_weights(g, 0, 1, DIMS(30))));
        terse_node_set_ints(g, last_node(g), "strides", (int64_t[]){2, 1}, 2);
        terse_node_set_ints(g, last_node(g), "pads", (int64_t[]){1, 0, 0, 2}, 4);
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(30, 4, 9))));
    }
    make_output(g, y);
    state_values(g);
    return g;
}

static void full_energy_finds_the_true_rank_and_the_same_answer(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        terse_graph *g = network_of_rank_5(kind);
        answers before = answer(g, 2, 3);
        terse_low_rank_report report = factor(g, 1.0);
        answers after = answer(g, 2, 3);
        assert_int_equal(report.n, 1);
        assert_int_equal(report.layers[0].rank, 5);
        assert_int_equal(report.layers[0].full, 30);
        assert_string_equal(report.layers[0].reason, "factored");
        assert_true(report.layers[0].macs_after * 1200 == report.layers[0].macs_before * 350);
        assert_true(report.layers[0].energy > 0.999999);
        assert_true(apart(&before, &after) < 1e-5);
        int n_factored = 0;
        for (int i = 0; i < g->n_nodes; i++)
            n_factored += strcmp(g->nodes[i].compression, "low-rank 5 of 30") == 0;
        assert_int_equal(n_factored, 2);
        terse_low_rank_report_done(&report);
        answers_done(&before);
        answers_done(&after);
        terse_graph_free(g);
    }
}

static terse_graph *dense_network(void)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 5;
    const int x = make_input(g, "x", DIMS(BATCH, 64));
    const int w = make_weights(g, 0, 1, DIMS(64, 96));
    for (int64_t i = 0; i < 64; i++) /* singular values that fall */
        for (int64_t j = 0; j < 96; j++)
            ((float *)(uintptr_t)g->values[w].data)[i * 96 + j] /= (float)(1 + i);
    make_output(g, make_node(g, TERSE_OP_MATMUL, INPUTS(x, w)));
    state_values(g);
    return g;
}

static void more_energy_means_more_rank_and_less_error(void **state)
{
    (void)state;
    static const double energies[] = {0.5, 0.8, 0.95, 0.99};
    double last_error = (double)INFINITY;
    int64_t last_rank = 0;
    for (int i = 0; i < COUNT(energies); i++) {
        terse_graph *g = dense_network();
        answers before = answer(g, 8, 3);
        terse_low_rank_report report = factor(g, energies[i]);
        answers after = answer(g, 8, 3);
        const double error = apart(&before, &after);
        assert_true(report.layers[0].rank > last_rank);
        assert_true(report.layers[0].energy >= energies[i]);
        assert_true(error < last_error && error > 1e-6);
        last_error = error;
        last_rank = report.layers[0].rank;
        terse_low_rank_report_done(&report);
        answers_done(&before);
        answers_done(&after);
        terse_graph_free(g);
    }
}

static void what_saves_nothing_stays_dense_with_its_reason(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    int x = make_input(g, "x", DIMS(BATCH, 8, 5, 5));
    x = make_conv(g, x, 8, 8, 3, 1, 1, 1); /* full rank */
    x = make_conv(g, x, 8, 8, 1, 1, 0, 2); /* groups */
    x = make_conv(g, x, 8, 8, 1, 1, 0, 1); /* full rank */
    const int w = make_weights(g, 0, 1, DIMS(8, 8, 1, 1));
    ((float *)(uintptr_t)g->values[w].data)[3] = NAN;
    const int y = make_node(g, TERSE_OP_CONV, INPUTS(x, w));
    make_output(g, y);
    state_values(g);
    const int n_nodes = g->n_nodes;
    terse_low_rank_report report = {0};
    terse_error error = {0};
    const terse_low_rank_options options = {.target = TERSE_LOW_RANK_ENERGY, .amount = 1};
    assert_int_equal(terse_low_rank_run(g, &options, &report, &error), TERSE_OK);
    static const char *const reasons[] = {"rank 8 saves nothing, up to 7 would", "2 groups",
                                          "rank 8 saves nothing, up to 3 would", "weights are not finite"};
    assert_int_equal(report.n, 4);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(report.layers[i].reason, reasons[i]);
        assert_int_equal(report.layers[i].rank, 0);
        assert_true(report.layers[i].macs_after == report.layers[i].macs_before);
    }
    assert_int_equal(g->n_nodes, n_nodes);
    terse_low_rank_report_done(&report);
    terse_graph_free(g);
}

static void the_rank_is_the_smallest_that_keeps_the_energy(void **state)
{
    (void)state;
    const double squares[4] = {4, 1, 1, 1e-9};
    double kept;
    assert_int_equal(terse_select_rank(squares, 4, 1e-8, 0.5, &kept), 1);
    assert_true(fabs(kept - 4.0 / 6) < 1e-12);
    assert_int_equal(terse_select_rank(squares, 4, 1e-8, 0.8, &kept), 2);
    assert_int_equal(terse_select_rank(squares, 4, 1e-8, 0.9, &kept), 3);
    assert_int_equal(terse_select_rank(squares, 4, 1e-8, 1.0, &kept), 3);
    assert_true(kept == 1.0);
    const double zero[2] = {0, 0};
    assert_int_equal(terse_select_rank(zero, 2, 0, 1.0, &kept), 1);
}

static void work_is_counted_as_kernels_do_it(void **state)
{
    (void)state;
    const terse_low_rank_product p = {.o = 20,
                                      .c = 10,
                                      .taps = 9,
                                      .k = 90,
                                      .kernel = {3, 3, 1},
                                      .conv = true,
                                      .spatial = 2,
                                      .positions_in = 400,
                                      .positions_mid = 200,
                                      .positions_out = 100};
    assert_int_equal(terse_select_macs(&p, TERSE_FORM_CHANNEL, 0, 0, false), 100 * 20 * 90);
    assert_int_equal(terse_select_macs(&p, TERSE_FORM_CHANNEL, 4, 0, false), 100 * (90 * 4 + 4 * 20));
    assert_int_equal(terse_select_macs(&p, TERSE_FORM_CHANNEL, 4, 0, true), 100 * (90 * 16 + 4 * 32));
    assert_int_equal(terse_select_macs(&p, TERSE_FORM_TUCKER, 4, 3, false), 400 * 10 * 3 + 100 * (3 * 9 * 4 + 4 * 20));
    assert_int_equal(terse_select_macs(&p, TERSE_FORM_SPATIAL, 4, 0, false), 200 * 10 * 3 * 4 + 100 * 4 * 20 * 3);
}

/* Second moments of samples that hardly differ are mostly rounding, and need not be a sum of squares. */
static void moments_that_rounding_has_bent_are_damped_more(void **state)
{
    double factor[4], x[2] = {1, -1};
    (void)state;
    assert_true(terse_metric_solve((double[]){2, 0, 0, 4}, 0, 2, factor, 1, x));
    assert_float_equal(x[0], 0.5, 1e-12);
    assert_float_equal(x[1], -0.25, 1e-12);
    x[0] = 1, x[1] = -1; /* along the value of -0.05: with 0.1, which is the third trial */
    assert_true(terse_metric_solve((double[]){1, 1.05, 1.05, 1}, 1e-3, 2, factor, 1, x));
    assert_float_equal(x[0], 1 / (0.1 - 0.05), 1e-9);
    assert_false(terse_metric_solve((double[]){1, 9, 9, 1}, 1e-3, 2, factor, 1, x));
    assert_false(terse_metric_solve((double[]){NAN, 0, 0, 1}, 1e-3, 2, factor, 1, x));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_that_rounding_has_bent_are_damped_more),
        cmocka_unit_test(full_energy_finds_the_true_rank_and_the_same_answer),
        cmocka_unit_test(more_energy_means_more_rank_and_less_error),
        cmocka_unit_test(what_saves_nothing_stays_dense_with_its_reason),
        cmocka_unit_test(the_rank_is_the_smallest_that_keeps_the_energy),
        cmocka_unit_test(work_is_counted_as_kernels_do_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
