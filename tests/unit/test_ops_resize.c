/* SPDX-License-Identifier: Apache-2.0 */
/* Resize against values by hand, ConvTranspose against loops in double. */
#include <time.h>

#include "op_case.h"

static op_case resize_case(const char *mode, const char *coordinates, int64_t in, const float *x, int64_t out)
{
    op_case c = case_new(TERSE_OP_RESIZE, 1);
    case_constant(&c, 0, TERSE_FP32, 1, &in, x);
    CASE_INTS(&c, 3, out);
    terse_node_set_text(c.graph, c.node, "mode", mode);
    terse_node_set_text(c.graph, c.node, "coordinate_transformation_mode", coordinates);
    return c;
}

static void check(const char *mode, const char *coordinates, int64_t in, const float *x, int64_t out, const float *want)
{
    op_case c = resize_case(mode, coordinates, in, x, out);
    case_ok(&c);
    assert_int_equal(c.outputs[0].dims[0], out);
    case_close(c.outputs[0].data, want, out, 1e-6);
    case_free(&c);
}

static void test_linear_in_every_coordinate_mode(void **state)
{
    (void)state;
    const float x[] = {0, 4, 8};
    check("linear", "half_pixel", 3, x, 6, (float[]){0, 1, 3, 5, 7, 8});
    check("linear", "half_pixel_symmetric", 3, x, 6, (float[]){0, 1, 3, 5, 7, 8});
    check("linear", "align_corners", 3, x, 5, (float[]){0, 2, 4, 6, 8});
    check("linear", "asymmetric", 3, x, 6, (float[]){0, 2, 4, 6, 8, 8});
    check("linear", "half_pixel", 3, x, 1, (float[]){4});
    check("linear", "pytorch_half_pixel", 3, x, 1, (float[]){0});
    check("linear", "align_corners", 3, x, 1, (float[]){0});
}

static void test_linear_of_bytes_is_cut_off_or_rounded(void **state)
{
    (void)state;
    static const uint8_t x[] = {0, 2, 7}, cut[] = {0, 0, 1, 3, 5, 7}, rounded[] = {0, 0, 2, 3, 6, 7};
    static const int8_t negative[] = {0, -2, -7}, cut_negative[] = {0, 0, -1, -3, -5, -7};
    for (int form = 0; form < 3; form++) { /* exact: 0 0.5 1.5 3.25 5.75 7 */
        op_case c = case_new(TERSE_OP_RESIZE, 1);
        case_constant(&c, 0, form < 2 ? TERSE_UINT8 : TERSE_INT8, 1, (int64_t[]){3},
                      form < 2 ? (const void *)x : negative);
        CASE_INTS(&c, 3, 6);
        terse_node_set_text(c.graph, c.node, "mode", "linear");
        terse_node_set_int(c.graph, c.node, "rounds", form == 1);
        case_ok(&c);
        assert_memory_equal(c.outputs[0].data,
                            form == 0   ? (const void *)cut
                            : form == 1 ? rounded
                                        : (const void *)cut_negative,
                            6);
        case_free(&c);
    }
}

static void test_nearest_rounds_as_its_mode_says(void **state)
{
    (void)state;
    const float x[] = {1, 2, 3, 4};
    static const struct {
        const char *mode;
        float want[2];
    } cases[] = {/* half_pixel from 4 to 2: coordinates 0.5 and 2.5 */
                 {"round_prefer_floor", {1, 3}},
                 {"round_prefer_ceil", {2, 4}},
                 {"floor", {1, 3}},
                 {"ceil", {2, 4}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        op_case c = resize_case("nearest", "half_pixel", 4, x, 2);
        terse_node_set_text(c.graph, c.node, "nearest_mode", cases[i].mode);
        case_ok(&c);
        case_close(c.outputs[0].data, cases[i].want, 2, 0);
        case_free(&c);
    }
}

static void test_nearest_moves_any_dtype_and_two_axes(void **state)
{
    (void)state;
    op_case c = case_new(TERSE_OP_RESIZE, 1);
    case_constant(&c, 0, TERSE_INT64, 3, (int64_t[]){1, 2, 2}, (int64_t[]){1, 2, 3, 4});
    CASE_FLOATS(&c, 2, CASE_DIMS(2), 3, 2); /* axes 2 and 1 */
    CASE_ATTR_INTS(&c, "axes", -1, 1);
    case_ok(&c);
    const int64_t want[] = {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4};
    assert_int_equal(terse_tensor_bytes(&c.outputs[0]), sizeof want);
    assert_memory_equal(c.outputs[0].data, want, sizeof want);
    case_free(&c);
}

static void test_cubic_keeps_constants_and_reproduces_its_kernel(void **state)
{
    (void)state;
    const float flat[] = {3, 3, 3, 3, 3}, point[] = {0, 0, 1, 0, 0};
    check("cubic", "half_pixel", 5, flat, 9, (float[]){3, 3, 3, 3, 3, 3, 3, 3, 3});
    /* a = -0.75 at distances 1.5 and 0.5 */
    const float far = -0.09375f, near = 0.59375f;
    check("cubic", "align_corners", 5, point, 9, (float[]){0, far, 0, near, 1, near, 0, far, 0});
    op_case c = resize_case("cubic", "asymmetric", 2, (float[]){1, 1}, 4);
    terse_node_set_int(c.graph, c.node, "exclude_outside", 1);
    terse_node_set_float(c.graph, c.node, "cubic_coeff_a", -0.5);
    case_ok(&c);
    CASE_WANT(&c, 0, 1e-6, 1, 1, 1, 1);
    case_free(&c);
}

static void test_antialias_averages_what_it_leaves_out(void **state)
{
    (void)state;
    op_case c = resize_case("linear", "half_pixel", 4, (float[]){8, 0, 0, 8}, 2);
    terse_node_set_int(c.graph, c.node, "antialias", 1);
    case_ok(&c); /* weights 1/8 3/8 3/8 1/8 around 0.5 and 2.5, the edge repeated */
    CASE_WANT(&c, 0, 1e-6, 4, 4);
    case_free(&c);
}

static void test_crop_takes_its_region_and_fills_the_outside(void **state)
{
    (void)state;
    op_case c = resize_case("linear", "tf_crop_and_resize", 5, (float[]){0, 1, 2, 3, 4}, 3);
    CASE_FLOATS(&c, 1, CASE_DIMS(2), 0.5f, 1.5f);
    terse_node_set_float(c.graph, c.node, "extrapolation_value", -7);
    case_ok(&c); /* coordinates 2, 4, 6 */
    CASE_WANT(&c, 0, 1e-6, 2, 4, -7);
    case_free(&c);
}

static void test_policies_keep_the_aspect_ratio(void **state)
{
    (void)state;
    for (int larger = 0; larger < 2; larger++) {
        op_case c = case_new(TERSE_OP_RESIZE, 1);
        case_input(&c, 0, CASE_DIMS(1, 4, 6));
        CASE_INTS(&c, 3, 2, 6);
        CASE_ATTR_INTS(&c, "axes", 1, 2);
        terse_node_set_text(c.graph, c.node, "keep_aspect_ratio_policy", larger ? "not_smaller" : "not_larger");
        case_ok(&c);
        assert_int_equal(c.outputs[0].dims[1], larger ? 4 : 2);
        assert_int_equal(c.outputs[0].dims[2], larger ? 6 : 3);
        case_free(&c);
    }
}

static void refuse_scale(float scale, const char *text)
{
    op_case c = case_new(TERSE_OP_RESIZE, 1);
    case_input(&c, 0, CASE_DIMS(4));
    case_constant(&c, 2, TERSE_FP32, 1, (int64_t[]){1}, &scale);
    terse_node_set_text(c.graph, c.node, "mode", "linear");
    case_refused(&c, text);
    case_free(&c);
}

static void test_hostile_targets_are_refused(void **state)
{
    (void)state;
    refuse_scale(0, "a positive size is needed");
    refuse_scale(-1, "a positive size is needed");
    refuse_scale(NAN, "a positive size is needed");
    refuse_scale(INFINITY, "a positive size is needed");
    refuse_scale(1e30f, "a positive size is needed");
    refuse_scale(1e9f, "too large a table");
    refuse_scale((1 << 20) + 1, "resizing an axis from 4 to 4194308 needs too large a table");
    refuse_scale(0.1f, "axis 0 goes from 4 to 0");
    op_case c = resize_case("linear", "half_pixel", 4, (float[]){1, 2, 3, 4}, INT64_MAX);
    case_refused(&c, "sizes");
    case_free(&c);
    c = resize_case("sinc", "half_pixel", 4, (float[]){1, 2, 3, 4}, 2);
    case_refused(&c, "attribute mode is 'sinc', allowed: nearest, linear, cubic");
    case_free(&c);
    c = case_new(TERSE_OP_RESIZE, 1);
    case_input(&c, 0, CASE_DIMS(4));
    case_refused(&c, "none of the inputs scales and sizes is given");
    case_free(&c);
}

/* ConvTranspose, 2-D, with groups: every input pixel spreads its weights. */
static void check_transpose(void)
{
    const int64_t n = case_pick(1, 2), g = case_pick(1, 3), ci = case_pick(1, 4), co = case_pick(1, 19);
    int64_t in[2], k[2], s[2], d[2], pads[4], extra[2], out[2];
    op_case c = case_new(TERSE_OP_CONV_TRANSPOSE, 1);
    for (int i = 0; i < 2; i++) {
        in[i] = case_pick(2, 5);
        k[i] = case_pick(1, 3);
        s[i] = case_pick(1, 3);
        d[i] = case_pick(1, 2);
        pads[i] = case_pick(0, 1);
        pads[2 + i] = case_pick(0, 1);
        extra[i] = case_pick(0, s[i] - 1);
        out[i] = s[i] * (in[i] - 1) + extra[i] + (k[i] - 1) * d[i] + 1 - pads[i] - pads[2 + i];
        if (out[i] < 1) {
            pads[i] = pads[2 + i] = 0;
            out[i] = s[i] * (in[i] - 1) + extra[i] + (k[i] - 1) * d[i] + 1;
        }
    }
    const float *x = case_input(&c, 0, 4, (int64_t[]){n, g * ci, in[0], in[1]});
    const float *w = case_input(&c, 1, 4, (int64_t[]){g * ci, co, k[0], k[1]});
    const float *bias = case_input(&c, 2, 1, (int64_t[]){g * co});
    case_set_ints(&c, "strides", 2, s);
    case_set_ints(&c, "dilations", 2, d);
    case_set_ints(&c, "pads", 4, pads);
    case_set_ints(&c, "output_padding", 2, extra);
    terse_node_set_int(c.graph, c.node, "group", g);
    case_ok(&c);
    const int64_t count = n * g * co * out[0] * out[1];
    assert_int_equal(terse_tensor_count(&c.outputs[0]), count);
    double *want = calloc((size_t)count, sizeof *want);
    for (int64_t i = 0; i < count; i++)
        want[i] = (double)bias[i / (out[0] * out[1]) % (g * co)];
    for (int64_t i = 0; i < n * g * ci * in[0] * in[1]; i++)
        for (int64_t j = 0; j < co * k[0] * k[1]; j++) {
            const int64_t channel = i / (in[0] * in[1]) % (g * ci), image = i / (in[0] * in[1] * g * ci);
            const int64_t row = i / in[1] % in[0] * s[0] - pads[0] + j / k[1] % k[0] * d[0];
            const int64_t column = i % in[1] * s[1] - pads[1] + j % k[1] * d[1];
            const int64_t filter = channel / ci * co + j / (k[0] * k[1]);
            if (row >= 0 && column >= 0 && row < out[0] && column < out[1])
                want[((image * g * co + filter) * out[0] + row) * out[1] + column] +=
                    (double)x[i] * (double)w[channel * co * k[0] * k[1] + j];
        }
    for (int64_t i = 0; i < count; i++) {
        const float value = (float)want[i];
        case_close((float *)c.outputs[0].data + i, &value, 1, 1e-5);
    }
    free(want);
    case_free(&c);
}

static void test_conv_transpose_spreads_every_pixel(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        check_transpose();
}

static void test_conv_transpose_to_a_wanted_shape(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        float want[4];
    } cases[] = {{"SAME_UPPER", {1, 3, 2, 0}}, {"SAME_LOWER", {1, 3, 2, 0}}, {"NOTSET", {1, 3, 2, 0}}};
    for (size_t i = 0; i < 3; i++) {
        op_case c = case_new(TERSE_OP_CONV_TRANSPOSE, 1);
        CASE_FLOATS(&c, 0, CASE_DIMS(1, 1, 2), 1, 2);
        CASE_FLOATS(&c, 1, CASE_DIMS(1, 1, 2), 1, 1);
        CASE_ATTR_INTS(&c, "output_shape", 4);
        terse_node_set_text(c.graph, c.node, "auto_pad", cases[i].mode);
        case_ok(&c);
        CASE_WANT(&c, 0, 0, cases[i].want[0], cases[i].want[1], cases[i].want[2], cases[i].want[3]);
        case_free(&c);
    }
    op_case c = case_new(TERSE_OP_CONV_TRANSPOSE, 1); /* 1 3 2 cut to two: the odd one where the mode says */
    CASE_FLOATS(&c, 0, CASE_DIMS(1, 1, 2), 1, 2);
    CASE_FLOATS(&c, 1, CASE_DIMS(1, 1, 2), 1, 1);
    terse_node_set_text(c.graph, c.node, "auto_pad", "SAME_UPPER");
    case_ok(&c);
    CASE_WANT(&c, 0, 0, 1, 3);
    case_free(&c);
    c = case_new(TERSE_OP_CONV_TRANSPOSE, 1);
    CASE_FLOATS(&c, 0, CASE_DIMS(1, 1, 2), 1, 2);
    CASE_FLOATS(&c, 1, CASE_DIMS(1, 1, 2), 1, 1);
    CASE_ATTR_INTS(&c, "pads", 2, 2);
    case_refused(&c, "the output's size is -1");
    case_free(&c);
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_in_every_coordinate_mode),
        cmocka_unit_test(test_linear_of_bytes_is_cut_off_or_rounded),
        cmocka_unit_test(test_nearest_rounds_as_its_mode_says),
        cmocka_unit_test(test_nearest_moves_any_dtype_and_two_axes),
        cmocka_unit_test(test_cubic_keeps_constants_and_reproduces_its_kernel),
        cmocka_unit_test(test_antialias_averages_what_it_leaves_out),
        cmocka_unit_test(test_crop_takes_its_region_and_fills_the_outside),
        cmocka_unit_test(test_policies_keep_the_aspect_ratio),
        cmocka_unit_test(test_hostile_targets_are_refused),
        cmocka_unit_test(test_conv_transpose_spreads_every_pixel),
        cmocka_unit_test(test_conv_transpose_to_a_wanted_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
