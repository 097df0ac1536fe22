/* SPDX-License-Identifier: Apache-2.0 */
/* Weights in 8 and 4 bits: the operator against its definition, the rounding, and networks before and after. */
#include "tests/unit/graph_maker.h"

#include "compress/passes/passes.h"
#include "compress/quantize/gptq.h"
#include "compress/quantize/weights.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

static double error_of(const float *w, const int8_t *q, double scale, int n)
{
    double error = 0.0;
    for (int i = 0; i < n; i++)
        error += ((double)w[i] - q[i] * scale) * ((double)w[i] - q[i] * scale);
    return error;
}

static void rounding_is_better_than_the_scale_of_the_largest(void **state)
{
    (void)state;
    double ours = 0.0, plain = 0.0;
    random_state = 17;
    for (int round = 0; round < 300; round++) {
        float w[32];
        int8_t q[32], rough[32];
        float most = 0.0f;
        for (int i = 0; i < 32; i++) {
            w[i] = random_number() * random_number() * random_number();
            most = fmaxf(most, fabsf(w[i]));
        }
        const float scale = terse_quantize_round(w, 32, 1, -8, 7, q);
        for (int i = 0; i < 32; i++) {
            assert_in_range(q[i] + 8, 0, 15);
            rough[i] = (int8_t)nearbyintf(w[i] / (most / 7.0f));
            /* no integer beside the chosen one fits better */
            const double there = fabs((double)w[i] - (double)scale * q[i]);
            assert_true(there <= fabs((double)w[i] - (double)scale * (q[i] + (q[i] < 7))) + 1e-7);
            assert_true(there <= fabs((double)w[i] - (double)scale * (q[i] - (q[i] > -8))) + 1e-7);
        }
        const double mine = error_of(w, q, (double)scale, 32), theirs = error_of(w, rough, (double)(most / 7.0f), 32);
        assert_true(mine <= theirs * 1.0001);
        ours += mine;
        plain += theirs;
    }
    assert_true(ours < 0.85 * plain);
}

static void rounding_keeps_what_can_be_kept(void **state)
{
    (void)state;
    int8_t q[16];
    float w[16] = {0};
    assert_true(terse_quantize_round(w, 16, 1, -127, 127, q) == 0.0f);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(q[i], 0);
        w[i] = 0.25f * (float)(i - 8); /* -8..7: exact in 4 bits */
    }
    const float scale = terse_quantize_round(w, 16, 1, -8, 7, q);
    for (int i = 0; i < 16; i++)
        assert_true(fabsf(scale * (float)q[i] - w[i]) < 1e-6f);
    for (int i = 0; i < 16; i++) {
        w[i] = -w[i]; /* -7..8: exact with a negative scale only */
        q[i] = 99;
    }
    const float turned = terse_quantize_round(w, 16, 1, -8, 7, q);
    for (int i = 0; i < 16; i++)
        assert_true(fabsf(turned * (float)q[i] - w[i]) < 1e-6f);
    const float tiny[2] = {1e-44f, -1e-44f}, huge[2] = {3e38f, -3e38f};
    assert_true(isfinite(terse_quantize_round(tiny, 2, 1, -127, 127, q)));
    const float wide = terse_quantize_round(huge, 2, 1, -127, 127, q);
    assert_true(isfinite(wide) && fabsf(wide * (float)q[0] - huge[0]) < 2e36f);
}

/* Gemm with activation and residual, MatMul of three axes, 1x1 and 3x3 convolutions. */
static terse_graph *network(int kind)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 41;
    int y;
    if (kind == 0) {
        const int x = make_input(g, "x", DIMS(BATCH, 75));
        y = make_node(g, TERSE_OP_GEMM,
                      INPUTS(x, make_weights(g, 0, 0.3f, DIMS(75, 75)), make_weights(g, 0, 1, DIMS(75))));
        y = make_relu(g, make_node(g, TERSE_OP_ADD, INPUTS(y, x)));
    } else if (kind == 1) {
        const int x = make_input(g, "x", DIMS(BATCH, 3, 40));
        const int w = make_weights(g, 0, 0.3f, DIMS(40, 40));
        y = make_node(g, TERSE_OP_MATMUL, INPUTS(x, w));
        y = make_node(g, TERSE_OP_TANH, INPUTS(make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(40))))));
        y = make_node(g, TERSE_OP_MATMUL, INPUTS(y, w)); /* the same weights again */
    } else {
        const int x = make_input(g, "x", DIMS(BATCH, 8, 7, 5));
        y = make_conv(g, make_relu(g, make_conv(g, x, 8, 24, 1, 1, 0, 1)), 24, 10, 3, 1, 1, 1);
        y = make_conv(g, y, 10, 12, 1, 2, 0, 1);
    }
    make_output(g, y);
    state_values(g);
    return g;
}

static terse_graph *passed(int kind)
{
    terse_graph *g = network(kind);
    terse_error error = {0};
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_passes_run(g, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return g;
}

static void check_network(int kind, int group, int layers, double tolerance)
{
    terse_error error = {0};
    terse_graph *exact = passed(kind), *small = passed(kind);
    int changed = -1;
    assert_int_equal(terse_quantize_weights(small, group, TERSE_ROUNDING_DEFAULT, NULL, NULL, NULL, &changed, &error),
                     TERSE_OK);
    assert_int_equal(changed, layers);
    assert_int_equal(count_ops(small, TERSE_OP_WGEMM), layers);
    answers before = answer(exact, 4, 3), after = answer(small, 4, 3);
    const double error_seen = apart(&before, &after);
    assert_true(error_seen < tolerance);
    assert_true(layers == 0 ? error_seen == 0.0 : error_seen > 1e-6);
    answers_done(&before);
    answers_done(&after);
    terse_graph_free(exact);
    terse_graph_free(small);
}

static void networks_with_small_weights_answer_nearly_the_same(void **state)
{
    (void)state;
    check_network(0, 0, 1, 0.01);
    check_network(1, 0, 2, 0.01);
    check_network(2, 0, 1, 0.01); /* of the convolutions the one with kernel and stride 1 */
    check_network(0, 32, 1, 0.12);
    check_network(0, 8, 1, 0.12);
    check_network(1, 24, 2, 0.12);
    check_network(2, 32, 0, 1e-9);
}

/* All rows at once and each alone: the same bits. */
static void a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    (void)state;
    terse_error error = {0};
    for (int group = 0; group <= 16; group += 16) {
        terse_graph *g = passed(0);
        assert_int_equal(terse_quantize_weights(g, group, TERSE_ROUNDING_DEFAULT, NULL, NULL, NULL, NULL, &error),
                         TERSE_OK);
        answers all = answer(g, 9, 7), one = answer(g, 1, 7); /* the first row of both is the same */
        assert_memory_equal(all.tensors[0].data, one.tensors[0].data, 75 * sizeof(float));
        answers_done(&all);
        answers_done(&one);
        terse_graph_free(g);
    }
}

static void weights_that_are_not_finite_stay(void **state)
{
    (void)state;
    terse_error error = {0};
    terse_graph *g = passed(0);
    for (int v = 0; v < g->n_values; v++)
        if (g->values[v].layout == TERSE_LAYOUT_F32_N16)
            ((float *)(uintptr_t)g->values[v].data)[5] = INFINITY;
    int changed = -1;
    assert_int_equal(terse_quantize_weights(g, 32, TERSE_ROUNDING_DEFAULT, NULL, NULL, NULL, &changed, &error),
                     TERSE_OK);
    assert_int_equal(changed, 0);
    terse_graph_free(g);
}

/* A WGemm as a hostile file could have it: every wrong fact is refused by name. */
static void wrong_operands_are_refused(void **state)
{
    (void)state;
    static const struct {
        int64_t group, k, scales[3];
        int scales_rank;
        bool half;
        const char *text;
    } cases[] = {{0, 40, {40}, 1, false, NULL},
                 {0, 40, {39}, 1, false, "input 4 (scales) has shape [39]"},
                 {0, 41, {40}, 1, false, "do not multiply"},
                 {32, 40, {3, 2, 16}, 3, true, NULL},
                 {32, 40, {3, 1, 16}, 3, true, "input 4 (scales) has shape [3,1,16]"},
                 {12, 40, {3, 4, 16}, 3, true, "multiples of 8"},
                 {0, 40, {3, 2, 16}, 3, true, "k_group"},
                 {8192, 40, {3, 1, 16}, 3, true, "k_group"}};
    for (int i = 0; i < COUNT(cases); i++) {
        terse_graph *g = terse_graph_new();
        terse_graph_symbol(g, "N");
        const int x = make_input(g, "x", DIMS(BATCH, 40));
        const int64_t dims[2] = {cases[i].k, 40};
        const terse_dtype dtype = cases[i].half ? TERSE_UINT8 : TERSE_INT8;
        const terse_layout layout = cases[i].half ? TERSE_LAYOUT_S4_N16K8 : TERSE_LAYOUT_S8_N16;
        const int64_t bytes = terse_layout_bytes(layout, dtype, 2, dims, 1);
        const int w = terse_graph_add_constant(g, "w", dtype, 2, dims, terse_arena_alloc(g->arena, (size_t)bytes));
        g->values[w].layout = layout;
        g->values[w].bytes = (size_t)bytes;
        const int scales = make_weights(g, 1, 0, cases[i].scales_rank, cases[i].scales);
        make_output(g, make_node(g, TERSE_OP_WGEMM, INPUTS(x, w, TERSE_NO_VALUE, TERSE_NO_VALUE, scales)));
        if (cases[i].half)
            terse_node_set_int(g, last_node(g), "k_group", cases[i].group);
        const terse_kernels *kernels;
        terse_engine *engine = NULL;
        terse_plan *plan;
        terse_error error = {0};
        terse_tensor input;
        assert_int_equal(terse_kernels_get(&kernels, &error), TERSE_OK);
        random_inputs(g, 2, 1, &input);
        int status = terse_engine_new(g, kernels, 2, 0, &engine, &error);
        if (status == TERSE_OK)
            status = terse_engine_plan(engine, &input, &plan, &error);
        if (cases[i].text && (status == TERSE_OK || !strstr(error.message, cases[i].text)))
            fail_msg("case %d: '%s', '%s' is missed", i, error.message, cases[i].text);
        if (!cases[i].text && status != TERSE_OK)
            fail_msg("case %d: %s", i, error.message);
        free(input.data);
        terse_engine_free(engine);
        terse_graph_free(g);
    }
}

enum { ROWS = 200, K = 48, N = 12, GROUP = 16 };

/* Sum over samples and columns of (x (w - scale q))^2. */
static double product_error(const float *x, const float *w, const int8_t *q, const float *scales)
{
    double error = 0.0;
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < N; j++) {
            double sum = 0.0;
            for (int i = 0; i < K; i++)
                sum += (double)x[r * K + i] * ((double)w[i * N + j] - (double)scales[i / GROUP * N + j] * q[i * N + j]);
            error += sum * sum;
        }
    return error;
}

static void samples_make_the_product_better_not_the_weights(void **state)
{
    (void)state;
    static float x[ROWS * K], w[K * N], copy[K * N], scales[K / GROUP * N];
    static double moments[K * K];
    static int8_t q[K * N], column[GROUP];
    random_state = 3;
    for (int r = 0; r < ROWS; r++) { /* neighbours look alike */
        float last = 0.0f;
        for (int i = 0; i < K; i++)
            x[r * K + i] = last = 0.9f * last + 0.4f * random_number();
    }
    for (int i = 0; i < K * N; i++)
        copy[i] = w[i] = random_number();
    for (int i = 0; i < K; i++)
        for (int j = i; j < K; j++) {
            moments[i * K + j] = 0.0;
            for (int r = 0; r < ROWS; r++)
                moments[i * K + j] += (double)x[r * K + i] * (double)x[r * K + j];
        }
    for (int g = 0; g < K / GROUP; g++)
        for (int j = 0; j < N; j++) {
            scales[g * N + j] = terse_quantize_round(w + g * GROUP * N + j, GROUP, N, -8, 7, column);
            for (int i = 0; i < GROUP; i++)
                q[(g * GROUP + i) * N + j] = column[i];
        }
    const double plain = product_error(x, w, q, scales);
    assert_true(terse_gptq_round(copy, K, N, GROUP, moments, q, scales));
    for (int i = 0; i < K * N; i++)
        assert_in_range(q[i] + 8, 0, 15);
    const double ours = product_error(x, w, q, scales);
    assert_true(ours < 0.6 * plain);
    memset(moments, 0, sizeof moments); /* nothing seen: the caller rounds for the weights alone */
    assert_false(terse_gptq_round(copy, K, N, GROUP, moments, q, scales));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_is_better_than_the_scale_of_the_largest),
        cmocka_unit_test(rounding_keeps_what_can_be_kept),
        cmocka_unit_test(networks_with_small_weights_answer_nearly_the_same),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_among_others),
        cmocka_unit_test(weights_that_are_not_finite_stay),
        cmocka_unit_test(wrong_operands_are_refused),
        cmocka_unit_test(samples_make_the_product_better_not_the_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
