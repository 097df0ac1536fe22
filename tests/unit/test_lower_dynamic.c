/* SPDX-License-Identifier: Apache-2.0 */
/* Dynamic quantization as exporters write it, before and after the passes: one QGemm or QConv a product, the same
 * numbers. */
#include "tests/unit/graph_maker.h"

#include "compress/passes/passes.h"

enum { K = 21, N = 19 };

typedef struct form {
    int order; /* of the factors */
    int zeros; /* of the weights: 0 none, 1 one of 0, 2 per column 0, 3 UINT8 around 128, 4 that do not fit a byte */
    bool one_scale; /* for all columns */
    bool bias, gelu, residual;
    bool other_zero; /* the zero point of x is another one: no chain */
} form;

static int make_bytes(terse_graph *g, terse_dtype dtype, int64_t around, int64_t spread, int rank, const int64_t *dims)
{
    const int64_t count = terse_dims_count(dims, rank);
    int8_t *data = terse_arena_alloc(g->arena, (size_t)count);
    for (int64_t i = 0; i < count; i++)
        data[i] = (int8_t)(around + (int64_t)((float)spread * random_number()));
    return terse_graph_add_constant(g, "w", dtype, rank, dims, data);
}

/* A node with three outputs; the first one's value. */
static int make_dynamic(terse_graph *g, int x)
{
    const int y[3] = {terse_graph_add_value(g, "y"), terse_graph_add_value(g, "scale"),
                      terse_graph_add_value(g, "zero")};
    assert_non_null(terse_graph_add_node(g, TERSE_OP_DYNAMIC_QUANTIZE_LINEAR, "quantize", &x, 1, y, 3));
    return y[0];
}

static int times(terse_graph *g, int a, int b)
{
    return make_node(g, TERSE_OP_MUL, INPUTS(a, b));
}

static int dynamic_product(terse_graph *g, int x, const form *f, int64_t k, int64_t n)
{
    const bool unsigned_weights = f->zeros >= 3;
    const terse_dtype dtype = unsigned_weights ? TERSE_UINT8 : TERSE_INT8;
    const int w = make_bytes(g, dtype, unsigned_weights ? 128 : 0, 100, DIMS(k, n));
    const int zeros = f->zeros == 0   ? TERSE_NO_VALUE
                      : f->zeros == 2 ? make_bytes(g, dtype, 0, 0, DIMS(n))
                                      : make_bytes(g, dtype, f->zeros == 3 ? 128 : 0, 0, 0, NULL);
    const int scale = f->one_scale ? make_number(g, 0.01f) : make_weights(g, 0.01f, 0.005f, DIMS(n));
    const int q = make_dynamic(g, x), zero = f->other_zero ? make_dynamic(g, make_relu(g, x)) + 2 : q + 2;
    const int sums = make_node(g, TERSE_OP_MATMUL_INTEGER, INPUTS(q, w, zero, zeros));
    const int cast = make_node(g, TERSE_OP_CAST, INPUTS(sums));
    terse_node_set_int(g, last_node(g), "to", TERSE_FP32);
    int y = f->order == 0   ? times(g, cast, times(g, q + 1, scale))
            : f->order == 1 ? times(g, times(g, scale, q + 1), cast)
            : f->order == 2 ? times(g, times(g, cast, scale), q + 1)
                            : times(g, scale, times(g, q + 1, cast));
    if (f->bias)
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(n))));
    return y;
}

static terse_graph *network(const form *f)
{
    terse_graph *g = terse_graph_new();
    random_state = 31;
    const int x = make_input(g, "x", DIMS(2, 5, K));
    int y = dynamic_product(g, x, f, K, N);
    if (f->residual)
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, dynamic_product(g, x, f, K, N)));
    if (f->gelu)
        y = make_node(g, TERSE_OP_GELU, INPUTS(y));
    make_output(g, y);
    state_values(g);
    return g;
}

static void run_passes(terse_graph *g)
{
    terse_error error = {0};
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_passes_run(g, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("%s", error.message);
}

static void check(const form *f, int products, int quantizations)
{
    terse_graph *g = network(f);
    answers before = answer(g, 2, 5);
    run_passes(g);
    answers after = answer(g, 2, 5);
    assert_true(apart(&before, &after) < 1e-6);
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), products);
    assert_int_equal(count_ops(g, TERSE_OP_DYNAMIC_QUANTIZE_LINEAR), quantizations);
    if (products > 0)
        assert_int_equal(g->n_nodes, products + quantizations); /* all else went into them */
    answers_done(&before);
    answers_done(&after);
    terse_graph_free(g);
}

static void every_form_becomes_one_product(void **state)
{
    (void)state;
    for (int order = 0; order < 4; order++)
        for (int zeros = 0; zeros < 4; zeros++)
            for (int more = 0; more < 4; more++)
                check(&(form){.order = order, .zeros = zeros, .one_scale = more & 1, .bias = more & 2}, 1, 1);
}

static void what_follows_is_fused(void **state)
{
    (void)state;
    check(&(form){.bias = true, .gelu = true}, 1, 1);
    check(&(form){.bias = true, .residual = true}, 2, 1); /* both read the same bytes of x */
    check(&(form){.bias = true, .residual = true, .gelu = true}, 2, 1);
}

static void weights_of_nine_bits_are_two_that_fit(void **state)
{
    (void)state;
    terse_graph *g = network(&(form){.zeros = 4, .bias = true}); /* 228 - 0 is no signed byte */
    answers before = answer(g, 2, 5);
    run_passes(g);
    answers after = answer(g, 2, 5);
    assert_true(apart(&before, &after) < 1e-6);
    assert_int_equal(count_ops(g, TERSE_OP_QGEMM), 1);
    assert_int_equal(count_ops(g, TERSE_OP_CONCAT), 1);
    assert_int_equal(g->n_nodes, 3);
    answers_done(&before);
    answers_done(&after);
    terse_graph_free(g);
}

static void what_does_not_fit_stays_as_it_was(void **state)
{
    (void)state;
    check(&(form){.other_zero = true}, 0, 2);
}

/* --- convolutions ------------------------------------------------------------------------------------------------- */

enum { CHANNELS = 12, FILTERS = 24, SIDE = 9 };

typedef struct window_form {
    int64_t groups, side, stride, dilation;
    int64_t pads[4];
    int zeros; /* of the weights, as above; 2 with different ones */
    int scale; /* 0 one, 1 [M,1,1], 2 [1,M,1,1] */
    bool bias, relu, residual;
} window_form;

/* The sums in FP32. */
static int convolution_of_bytes(terse_graph *g, int q, const window_form *f)
{
    const bool unsigned_weights = f->zeros >= 3;
    const terse_dtype dtype = unsigned_weights ? TERSE_UINT8 : TERSE_INT8;
    const int64_t filters = f->groups == CHANNELS ? CHANNELS : FILTERS;
    const int w =
        make_bytes(g, dtype, unsigned_weights ? 128 : 0, 90, DIMS(filters, CHANNELS / f->groups, f->side, f->side));
    const int zeros = f->zeros == 0   ? TERSE_NO_VALUE
                      : f->zeros == 2 ? make_bytes(g, dtype, 3, 9, DIMS(filters))
                                      : make_bytes(g, dtype, f->zeros == 3 ? 128 : 0, 0, 0, NULL);
    const int sums = make_node(g, TERSE_OP_CONV_INTEGER, INPUTS(q, w, q + 2, zeros));
    terse_node *node = last_node(g);
    terse_node_set_int(g, node, "group", f->groups);
    terse_node_set_ints(g, node, "pads", f->pads, 4);
    terse_node_set_ints(g, node, "strides", (int64_t[]){f->stride, f->stride}, 2);
    terse_node_set_ints(g, node, "dilations", (int64_t[]){f->dilation, f->dilation}, 2);
    const int cast = make_node(g, TERSE_OP_CAST, INPUTS(sums));
    terse_node_set_int(g, last_node(g), "to", TERSE_FP32);
    return cast;
}

static int dynamic_convolution(terse_graph *g, int x, const window_form *f)
{
    const int64_t filters = f->groups == CHANNELS ? CHANNELS : FILTERS;
    const int q = make_dynamic(g, x), cast = convolution_of_bytes(g, q, f);
    const int scale = f->scale == 0   ? make_number(g, 0.01f)
                      : f->scale == 1 ? make_weights(g, 0.01f, 0.005f, DIMS(filters, 1, 1))
                                      : make_weights(g, 0.01f, 0.005f, DIMS(1, filters, 1, 1));
    int y = times(g, cast, times(g, q + 1, scale));
    if (f->bias)
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_weights(g, 0, 1, DIMS(1, filters, 1, 1))));
    return y;
}

static void check_convolution(const window_form *f)
{
    terse_graph *g = terse_graph_new();
    random_state = 77;
    const int x = make_input(g, "x", DIMS(2, CHANNELS, SIDE, SIDE));
    int y = dynamic_convolution(g, x, f);
    if (f->residual)
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, dynamic_convolution(g, x, f)));
    if (f->relu)
        y = make_relu(g, y);
    make_output(g, y);
    state_values(g);
    answers before = answer(g, 2, SIDE);
    run_passes(g);
    answers after = answer(g, 2, SIDE);
    const double far = apart(&before, &after);
    const bool ok = far < 1e-6 && count_ops(g, TERSE_OP_QCONV) == (f->residual ? 2 : 1) &&
                    count_ops(g, TERSE_OP_CONV_INTEGER) == 0 && count_ops(g, TERSE_OP_CONV) == 0 &&
                    count_ops(g, TERSE_OP_ADD) == 0 && count_ops(g, TERSE_OP_MUL) == 0;
    if (!ok)
        fail_msg("groups %d side %d zeros %d scale %d: apart %g, %d QConv of %d nodes", (int)f->groups, (int)f->side,
                 f->zeros, f->scale, far, count_ops(g, TERSE_OP_QCONV), g->n_nodes);
    answers_done(&before);
    answers_done(&after);
    terse_graph_free(g);
}

static void convolutions_become_one_product(void **state)
{
    (void)state;
    for (int zeros = 0; zeros < 5; zeros++)
        for (int scale = 0; scale < 3; scale++)
            for (int more = 0; more < 2; more++) {
                window_form f = {.groups = 1,
                                 .side = 3,
                                 .stride = 1,
                                 .dilation = 1,
                                 .zeros = zeros,
                                 .scale = scale,
                                 .bias = more,
                                 .relu = more};
                check_convolution(&f);
                check_convolution(&(window_form){.groups = 1,
                                                 .side = 1,
                                                 .stride = 1,
                                                 .dilation = 1,
                                                 .zeros = zeros,
                                                 .scale = scale,
                                                 .bias = true,
                                                 .residual = more,
                                                 .relu = true});
                f.groups = 3; /* padded on all sides by another width: what is there is the zero point of x */
                memcpy(f.pads, (int64_t[4]){2, 0, 1, 1}, sizeof f.pads);
                check_convolution(&f);
                f.groups = CHANNELS;
                f.stride = 2;
                check_convolution(&f);
                f.groups = 2;
                f.dilation = 2;
                check_convolution(&f);
            }
}

static void sums_by_themselves_read_packed_weights(void **state)
{
    (void)state;
    for (int zeros = 0; zeros < 5; zeros++)
        for (int64_t groups = 1; groups <= CHANNELS; groups *= groups == 1 ? 3 : 4) {
            const window_form f = {
                .groups = groups, .side = 3, .stride = 2, .dilation = 1, .pads = {1, 2, 0, 1}, .zeros = zeros};
            terse_graph *g = terse_graph_new();
            random_state = 5;
            const int x = make_input(g, "x", DIMS(2, CHANNELS, SIDE, SIDE));
            make_output(g, convolution_of_bytes(g, make_dynamic(g, x), &f));
            state_values(g);
            answers before = answer(g, 2, SIDE);
            run_passes(g);
            answers after = answer(g, 2, SIDE);
            assert_true(apart(&before, &after) == 0);
            for (int n = 0; n < g->n_nodes; n++)
                if (g->nodes[n].op == TERSE_OP_CONV_INTEGER)
                    assert_int_equal(g->values[g->nodes[n].inputs[1]].layout, TERSE_LAYOUT_S8_N16K4);
            assert_int_equal(count_ops(g, TERSE_OP_CONV_INTEGER), 1);
            answers_done(&before);
            answers_done(&after);
            terse_graph_free(g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_becomes_one_product),         cmocka_unit_test(what_follows_is_fused),
        cmocka_unit_test(weights_of_nine_bits_are_two_that_fit),  cmocka_unit_test(convolutions_become_one_product),
        cmocka_unit_test(sums_by_themselves_read_packed_weights), cmocka_unit_test(what_does_not_fit_stays_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
