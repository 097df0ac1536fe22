/* SPDX-License-Identifier: Apache-2.0 */
/* Channels-last regions and the Transposes that are left: every network here is answered by the engine before and after
 * the passes. */
#include "tests/unit/passes_case.h"

static void fire_modules_stay_channels_last_to_the_end(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_input(g, "x", DIMS(BATCH, 3, 12, 12));
    x = make_relu(g, make_conv(g, x, 3, 16, 3, 1, 1, 1));
    for (int i = 0; i < 2; i++) {
        const int squeezed = make_relu(g, make_conv(g, x, i ? 32 : 16, 8, 1, 1, 0, 1));
        const int left = make_relu(g, make_conv(g, squeezed, 8, 16, 1, 1, 0, 1));
        const int right = make_relu(g, make_conv(g, squeezed, 8, 16, 3, 1, 1, 1));
        x = make_node(g, TERSE_OP_CONCAT, INPUTS(left, right));
        terse_node_set_int(g, last_node(g), "axis", 1);
    }
    x = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(x));
    x = make_node(g, TERSE_OP_FLATTEN, INPUTS(x));
    make_output(g, make_node(g, TERSE_OP_SOFTMAX, INPUTS(x)));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 1);
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == TERSE_OP_CONCAT)
            assert_int_equal(terse_node_int(&g->nodes[i], "axis", -9), 3);
    terse_graph_free(g);
}

static void a_flatten_before_a_gemm_moves_weights_instead(void **state)
{
    (void)state;
    for (int form = 0; form < 3; form++) {
        terse_graph *g = start();
        int x = make_input(g, "x", DIMS(BATCH, 2, 8, 8));
        x = make_relu(g, make_conv(g, x, 2, 6, 3, 1, 0, 1));
        x = make_node(g, TERSE_OP_MAX_POOL, INPUTS(x));
        terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){2, 2}, 2);
        terse_node_set_ints(g, last_node(g), "strides", (int64_t[]){2, 2}, 2);
        x = form == 0 ? make_node(g, TERSE_OP_FLATTEN, INPUTS(x))
                      : make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 2, (int64_t[]){0, -1})));
        if (form == 2) {
            x = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 1, DIMS(54, 5))));
            x = make_node(g, TERSE_OP_ADD, INPUTS(x, make_weights(g, 0, 1, DIMS(1, 5))));
        } else {
            x = make_node(g, TERSE_OP_GEMM,
                          INPUTS(x, make_weights(g, 0, 1, DIMS(5, 54)), make_weights(g, 0, 1, DIMS(1, 5))));
            terse_node_set_int(g, last_node(g), "transB", 1);
            terse_node_set_float(g, last_node(g), "alpha", 0.5);
            terse_node_set_float(g, last_node(g), "beta", 2.0);
        }
        make_output(g, x);
        check_passes(g);
        assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 1); /* of the input */
        assert_int_equal(count_ops(g, TERSE_OP_ADD), 0);
        terse_graph_free(g);
    }
}

static int make_transpose(terse_graph *g, int x, int rank, const int64_t *perm)
{
    const int y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "perm", perm, rank);
    return y;
}

static void a_network_with_channels_last_ends_has_no_transposes_left(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_transpose(g, make_input(g, "x", DIMS(BATCH, 6, 5, 3)), DIMS(0, 3, 1, 2));
    x = make_relu(g, make_conv(g, x, 3, 8, 3, 1, 1, 1));
    x = make_transpose(g, x, DIMS(0, 2, 3, 1));
    make_output(g, x);
    make_output(g, make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 3, (int64_t[]){0, -1, 4}))));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 0);
    terse_graph_free(g);
}

static void squeeze_and_excitation_stays_in_its_region(void **state)
{
    (void)state;
    terse_graph *g = start();
    int x = make_relu(g, make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 6, 6)), 3, 16, 3, 1, 1, 1));
    int s = make_node(g, TERSE_OP_REDUCE_MEAN, INPUTS(x, make_ints(g, 2, (int64_t[]){2, 3})));
    s = make_relu(g, make_conv(g, s, 16, 4, 1, 1, 0, 1));
    s = make_node(g, TERSE_OP_HARD_SIGMOID, INPUTS(make_conv(g, s, 4, 16, 1, 1, 0, 1)));
    x = make_conv(g, make_node(g, TERSE_OP_MUL, INPUTS(x, s)), 16, 5, 1, 1, 0, 1);
    make_output(g, make_node(g, TERSE_OP_GLOBAL_MAX_POOL, INPUTS(x)));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 1);
    assert_int_equal(count_ops(g, TERSE_OP_HARD_SIGMOID), 0);
    terse_graph_free(g);
}

/* One operator between two convolutions: it must not cost a Transpose, and it must not change the answer. */
static void operators_that_follow_cost_no_transpose(void **state)
{
    (void)state;
    for (int form = 0; form < 22; form++) {
        terse_graph *g = start();
        int x = make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 6, 5)), 3, 4, 3, 1, 1, 1), y = -1;
        int channels = 4;
        switch (form) {
        case 0: /* Pad with another number */
            y = make_node(g, TERSE_OP_PAD,
                          INPUTS(x, make_ints(g, 8, (int64_t[]){0, 1, 0, 2, 0, 0, 1, 0}), make_number(g, 3)));
            channels = 5;
            break;
        case 1:
            y = make_node(
                g, TERSE_OP_PAD,
                INPUTS(x, make_ints(g, 2, (int64_t[]){1, 2}), make_number(g, 3), make_ints(g, 1, (int64_t[]){-1})));
            break;
        case 2:
            y = make_node(g, TERSE_OP_SLICE,
                          INPUTS(x, make_ints(g, 2, (int64_t[]){1, 0}), make_ints(g, 2, (int64_t[]){4, 9}),
                                 make_ints(g, 2, (int64_t[]){1, -1}), make_ints(g, 2, (int64_t[]){1, 2})));
            channels = 3;
            break;
        case 3:
            y = make_node(g, TERSE_OP_SLICE,
                          INPUTS(x, make_ints(g, 3, (int64_t[]){0, 1, 1}), make_ints(g, 3, (int64_t[]){9, 3, 4})));
            channels = 2;
            break;
        case 4: {
            const int scales = make_weights(g, 0, 0, DIMS(4));
            const float numbers[4] = {1, 1, 2, 3};
            memcpy((void *)(uintptr_t)g->values[scales].data, numbers, sizeof numbers);
            y = make_node(g, TERSE_OP_RESIZE, INPUTS(x, TERSE_NO_VALUE, scales));
            terse_node_set_text(g, last_node(g), "mode", "nearest");
            terse_node_set_text(g, last_node(g), "coordinate_transformation_mode", "asymmetric");
            terse_node_set_text(g, last_node(g), "nearest_mode", "floor");
            break;
        }
        case 5:
            y = make_node(g, TERSE_OP_SOFTMAX, INPUTS(x));
            terse_node_set_int(g, last_node(g), "axis", 1);
            break;
        case 6:
            y = make_node(g, TERSE_OP_SOFTMAX, INPUTS(x));
            break;
        case 7:
            y = make_node(g, TERSE_OP_REDUCE_MAX, INPUTS(x, make_ints(g, 1, (int64_t[]){2})));
            break;
        case 8:
            y = make_node(g, TERSE_OP_REDUCE_SUM, INPUTS(x, make_ints(g, 1, (int64_t[]){1})));
            channels = 1;
            break;
        case 9: {
            const int parts[2] = {terse_graph_add_value(g, "p0"), terse_graph_add_value(g, "p1")};
            terse_graph_add_node(g, TERSE_OP_SPLIT, "split", INPUTS(x, make_ints(g, 2, (int64_t[]){1, 3})), parts, 2);
            terse_node_set_int(g, last_node(g), "axis", 1);
            y = make_node(g, TERSE_OP_CONCAT, INPUTS(parts[1], parts[0]));
            terse_node_set_int(g, last_node(g), "axis", -3);
            break;
        }
        case 10:
            y = make_node(g, TERSE_OP_PRELU, INPUTS(x, make_weights(g, 0, 1, DIMS(4, 1, 1))));
            break;
        case 11:
            y = make_node(g, TERSE_OP_MAX, INPUTS(make_weights(g, 0, 1, DIMS(6, 1)), x, make_number(g, 0.1f)));
            break;
        case 12:
            y = make_node(g, TERSE_OP_WHERE,
                          INPUTS(make_node(g, TERSE_OP_LESS, INPUTS(x, make_weights(g, 0, 1, DIMS(1, 4, 6, 5)))), x,
                                 make_node(g, TERSE_OP_EXP, INPUTS(x))));
            break;
        case 13:
            y = make_node(g, TERSE_OP_AVERAGE_POOL, INPUTS(x));
            terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){3, 2}, 2);
            terse_node_set_ints(g, last_node(g), "pads", (int64_t[]){1, 0, 0, 1}, 4);
            break;
        case 14:
            y = make_node(g, TERSE_OP_UNSQUEEZE, INPUTS(x, make_ints(g, 1, (int64_t[]){3})));
            y = make_node(g, TERSE_OP_SQUEEZE, INPUTS(make_relu(g, y), make_ints(g, 1, (int64_t[]){-2})));
            break;
        case 15: /* the shape of x decides over a Resize */
        {
            const int shape = make_node(g, TERSE_OP_SHAPE, INPUTS(x));
            const int twice = make_node(g, TERSE_OP_MUL, INPUTS(shape, make_ints(g, 4, (int64_t[]){1, 1, 2, 3})));
            y = make_node(g, TERSE_OP_RESIZE, INPUTS(x, TERSE_NO_VALUE, TERSE_NO_VALUE, twice));
            terse_node_set_text(g, last_node(g), "mode", "linear");
            break;
        }
        case 16: /* zeros that the convolution can pad itself */
            y = make_node(g, TERSE_OP_PAD, INPUTS(x, make_ints(g, 8, (int64_t[]){0, 0, 1, 2, 0, 0, 0, 1})));
            break;
        case 17:
            y = make_node(g, TERSE_OP_MUL, INPUTS(x, make_number(g, -2)));
            break;
        case 18:
            y = make_node(g, TERSE_OP_SUB, INPUTS(make_weights(g, 0, 1, DIMS(4, 1, 1)), x));
            break;
        case 19:
            y = make_node(g, TERSE_OP_DIV, INPUTS(x, make_weights(g, 3, 1, DIMS(1, 4, 1, 1))));
            break;
        case 20: /* a constant that no channel vector can replace */
            y = make_node(g, TERSE_OP_ADD, INPUTS(x, make_weights(g, 0, 1, DIMS(4, 6, 5))));
            break;
        case 21:
            y = make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(x))));
            break;
        }
        make_output(g, make_conv(g, y, channels, 6, 1, 1, 0, 1));
        check_passes(g);
        if (count_ops(g, TERSE_OP_TRANSPOSE) != 2)
            fail_msg("form %d has %d Transposes", form, count_ops(g, TERSE_OP_TRANSPOSE));
        if (form >= 16 && form <= 19)
            assert_int_equal(g->n_nodes, 4);
        terse_graph_free(g);
    }
}

/* Reductions that drop axes, and operators that only know the plain form, behind a convolution. */
static void plain_forms_come_back_where_they_are_needed(void **state)
{
    (void)state;
    for (int form = 0; form < 9; form++) {
        terse_graph *g = start();
        const int x = make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 4, 5)), 3, 6, 3, 1, 1, 1);
        int y = -1;
        static const int64_t axes[][3] = {{2, 3}, {1, -1}, {3, -1}, {1, 2}};
        if (form < 4) {
            y = make_node(g, form & 1 ? TERSE_OP_REDUCE_SUM : TERSE_OP_REDUCE_MEAN,
                          INPUTS(x, make_ints(g, form == 1 || form == 2 ? 1 : 2, axes[form])));
            terse_node_set_int(g, last_node(g), "keepdims", 0);
        } else if (form == 4) {
            y = make_node(g, TERSE_OP_ARG_MAX, INPUTS(x));
            terse_node_set_int(g, last_node(g), "axis", 1);
            terse_node_set_int(g, last_node(g), "keepdims", 0);
        } else if (form == 5) {
            y = make_node(g, TERSE_OP_DEPTH_TO_SPACE, INPUTS(make_conv(g, x, 6, 8, 1, 1, 0, 1)));
            terse_node_set_int(g, last_node(g), "blocksize", 2);
        } else if (form == 6) {
            y = make_node(g, TERSE_OP_LRN, INPUTS(x));
            terse_node_set_int(g, last_node(g), "size", 3);
        } else if (form == 7) {
            y = make_transpose(g, x, DIMS(3, 0, 1, 2));
        } else {
            y = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 3, (int64_t[]){0, 6, -1})));
            y = make_transpose(g, y, DIMS(0, 2, 1));
        }
        make_output(g, y);
        make_output(g, x);
        check_passes(g);
        terse_graph_free(g);
    }
}

static void one_and_three_dimensional_convolutions_move_too(void **state)
{
    (void)state;
    for (int spatial = 1; spatial <= 3; spatial += 2) {
        terse_graph *g = start();
        const int64_t dims[] = {BATCH, 3, 5, 4, 6}, filters[] = {7, 3, 3, 2, 1}, again[] = {7, 1, 3, 3, 3};
        const int64_t pads[6] = {1, 1, 1, 1, 1, 1};
        int x = make_input(g, "x", spatial + 2, dims);
        x = make_relu(g, make_node(g, TERSE_OP_CONV, INPUTS(x, make_weights(g, 0, 1, spatial + 2, filters))));
        terse_node_set_ints(g, &g->nodes[0], "pads", pads, 2 * spatial);
        x = make_node(g, TERSE_OP_CONV, INPUTS(x, make_weights(g, 0, 1, spatial + 2, again)));
        terse_node_set_int(g, last_node(g), "group", 7);
        terse_node_set_ints(g, last_node(g), "pads", pads, 2 * spatial);
        make_output(g, x);
        check_passes(g);
        assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 2);
        terse_graph_free(g);
    }
}

/* As exporters write it: with 0 for the batch, and with -1 where a 0 would be none. */
static void a_channel_shuffle_moves_its_elements_once(void **state)
{
    (void)state;
    for (int allowzero = 0; allowzero < 2; allowzero++) {
        terse_graph *g = start();
        const int64_t batch = allowzero ? -1 : 0, channels = allowzero ? 12 : -1;
        int x = make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 6, 5)), 3, 12, 3, 1, 1, 1);
        x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 5, (int64_t[]){batch, 3, 4, 6, 5})));
        terse_node_set_int(g, last_node(g), "allowzero", allowzero);
        x = make_transpose(g, x, DIMS(0, 2, 1, 3, 4));
        x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 4, (int64_t[]){batch, channels, 6, 5})));
        terse_node_set_int(g, last_node(g), "allowzero", allowzero);
        x = make_node(g, TERSE_OP_SLICE,
                      INPUTS(x, make_ints(g, 1, (int64_t[]){2}), make_ints(g, 1, (int64_t[]){12}),
                             make_ints(g, 1, (int64_t[]){1})));
        make_output(g, make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(make_conv(g, x, 10, 6, 1, 1, 0, 1))));
        check_passes(g);
        assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 2); /* of the input and of the shuffle */
        terse_graph_free(g);
    }
}

static void heads_and_patches_move_their_elements_once(void **state)
{
    (void)state;
    for (int form = 0; form < 2; form++) {
        terse_graph *g = start();
        int x = make_conv(g, make_input(g, "x", DIMS(BATCH, 3, 6, 5)), 3, 12, 3, 1, 1, 1);
        if (form == 0) { /* a detector: anchors out of channels */
            x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 5, (int64_t[]){-1, 3, 4, 6, 5})));
            x = make_transpose(g, x, DIMS(0, 1, 3, 4, 2));
        } else { /* patches: pixels to one axis */
            x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 3, (int64_t[]){0, 12, -1})));
            x = make_transpose(g, x, DIMS(0, 2, 1));
        }
        make_output(g, x);
        check_passes(g);
        assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), form == 0 ? 2 : 1);
        terse_graph_free(g);
    }
}

static void transposes_without_convolutions_make_no_region(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_transpose(g, make_input(g, "x", DIMS(BATCH, 6, 5)), DIMS(0, 2, 1));
    const int other = make_input(g, "z", DIMS(BATCH, 5, 6));
    make_output(g, make_node(g, TERSE_OP_ADD, INPUTS(x, other)));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 1);
    terse_graph_free(g);
}

static void an_image_with_one_channel_is_only_viewed(void **state)
{
    (void)state;
    terse_graph *g = start();
    const int x = make_input(g, "x", DIMS(BATCH, 1, 6, 6));
    const int y = make_conv(g, x, 1, 4, 3, 1, 1, 1);
    make_output(g, make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(y)));
    check_passes(g);
    assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 0);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fire_modules_stay_channels_last_to_the_end),
        cmocka_unit_test(a_flatten_before_a_gemm_moves_weights_instead),
        cmocka_unit_test(a_network_with_channels_last_ends_has_no_transposes_left),
        cmocka_unit_test(squeeze_and_excitation_stays_in_its_region),
        cmocka_unit_test(operators_that_follow_cost_no_transpose),
        cmocka_unit_test(plain_forms_come_back_where_they_are_needed),
        cmocka_unit_test(one_and_three_dimensional_convolutions_move_too),
        cmocka_unit_test(a_channel_shuffle_moves_its_elements_once),
        cmocka_unit_test(heads_and_patches_move_their_elements_once),
        cmocka_unit_test(transposes_without_convolutions_make_no_region),
        cmocka_unit_test(an_image_with_one_channel_is_only_viewed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
