/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/lower.h"

#include <math.h>
#include <string.h>

/* What goes behind a product: limits of a fused Clip, or an activation that only an FP32 output can have. */
static bool limit_target(const terse_node *node, terse_target *target)
{
    const char *activation = terse_node_text(node, "activation", "");
    if (!*activation)
        return true;
    if (strcmp(activation, "Clip") != 0)
        return false;
    const double low = terse_node_float(node, "activation_alpha", 0),
                 high = terse_node_float(node, "activation_beta", 0);
    if (!(low <= high))
        return false;
    int32_t a = terse_lower_byte(low, target->s, target->z), b = terse_lower_byte(high, target->s, target->z);
    a = a > target->low ? a : target->low; /* the product's own limits, then those behind it */
    b = b > target->low ? b : target->low;
    target->low = a < target->high ? a : target->high;
    target->high = b < target->high ? b : target->high;
    return true;
}

/* [2,n]: float of each multiplier, and what that rounding lost. */
static int add_multipliers(terse_lower *lower, const terse_lower_weights *w, double y_scale)
{
    float *numbers = terse_edit_alloc(&lower->edit, 2 * (size_t)w->n * sizeof *numbers);
    if (!numbers)
        return -1;
    for (int64_t n = 0; n < w->n; n++) {
        const double multiplier = w->scales[n] / y_scale;
        numbers[n] = (float)multiplier;
        numbers[w->n + n] = (float)(multiplier - (double)numbers[n]);
    }
    return terse_edit_add_constant(&lower->edit, "multiplier", TERSE_FP32, 2, (int64_t[]){2, w->n}, numbers);
}

static bool multipliers_fit(const terse_lower_weights *w, double y_scale)
{
    for (int64_t n = 0; n < w->n; n++)
        if (!(w->scales[n] / y_scale < 1e30))
            return false;
    return true;
}

static void copy_attributes(terse_lower *lower, int from, int to, bool floats)
{
    static const char *const window[] = {"strides", "dilations",    "pads",         "auto_pad",
                                         "group",   "kernel_shape", "channels_last"};
    static const char *const behind[] = {"activation", "activation_alpha", "activation_beta"};
    if (lower->edit.graph->nodes[from].op == TERSE_OP_CONV)
        terse_lower_copy_attributes(lower, from, to, window, (int)(sizeof window / sizeof window[0]));
    if (floats)
        terse_lower_copy_attributes(lower, from, to, behind, (int)(sizeof behind / sizeof behind[0]));
}

/* Everything about the product is known to fit: it makes `y`. */
static int add_product(terse_lower *lower, int node, const terse_form *x, const terse_lower_weights *w,
                       const terse_lower_bias *bias, int residual, int y, double y_scale)
{
    terse_edit *edit = &lower->edit;
    const bool conv = edit->graph->nodes[node].op == TERSE_OP_CONV;
    int inputs[6] = {x->bytes, -1, -1, -1, residual, -1}, n_inputs = residual < 0 ? 4 : 5;
    inputs[1] = terse_lower_pack_weights(lower, w);
    inputs[2] = add_multipliers(lower, w, y_scale);
    inputs[3] = terse_edit_add_constant(edit, "bias", TERSE_INT32, 1, &w->n, bias->sums);
    if (bias->floats) {
        inputs[5] = terse_edit_add_constant(edit, "bias_f32", TERSE_FP32, 1, &w->n, bias->floats);
        n_inputs = 6;
    }
    const char *name = edit->graph->nodes[node].name;
    return terse_edit_add_node(edit, conv ? TERSE_OP_QCONV : TERSE_OP_QGEMM, name, inputs, n_inputs, &y, 1);
}

static bool product_to_bytes(terse_lower *lower, int node, const terse_form *x, terse_lower_weights *w,
                             const terse_target *wanted)
{
    terse_edit *edit = &lower->edit;
    terse_target target = *wanted;
    terse_lower_bias bias;
    const int residual = terse_edit_input(edit, node, 3);
    const terse_form added = terse_lower_form(lower, residual);
    if (!limit_target(&edit->graph->nodes[node], &target) || (residual >= 0 && added.bytes < 0) ||
        (residual >= 0 && !(added.s / target.s < 1e30)) || !terse_lower_read_bias(lower, node, x->z, false, w, &bias) ||
        !multipliers_fit(w, target.s))
        return false;
    terse_edit_remove(edit, target.node);
    const int made = add_product(lower, node, x, w, &bias, residual < 0 ? -1 : added.bytes, target.y, target.s);
    if (made < 0)
        return true;
    copy_attributes(lower, node, made, false);
    terse_lower_set_text(lower, made, "to", "u8");
    terse_lower_set_int(lower, made, "x_zero_point", x->z);
    terse_lower_set_target(lower, made, &target);
    if (residual >= 0) {
        terse_lower_set_float(lower, made, "residual_scale", added.s / target.s);
        terse_lower_set_int(lower, made, "residual_zero_point", added.z);
    }
    terse_edit_remove(edit, node);
    return true;
}

static bool product_to_floats(terse_lower *lower, int node, const terse_form *x, terse_lower_weights *w)
{
    terse_edit *edit = &lower->edit;
    terse_lower_bias bias;
    const int residual = terse_edit_input(edit, node, 3), y = edit->graph->nodes[node].outputs[0];
    if (!terse_lower_read_bias(lower, node, x->z, true, w, &bias) || !multipliers_fit(w, 1))
        return false;
    const int made = add_product(lower, node, x, w, &bias, residual, y, 1);
    if (made < 0)
        return true;
    copy_attributes(lower, node, made, true);
    terse_lower_set_text(lower, made, "to", "f32");
    terse_lower_set_int(lower, made, "x_zero_point", x->z);
    terse_edit_remove(edit, node);
    edit->producer[y] = made;
    return true;
}

bool terse_lower_product(terse_lower *lower, int node, const terse_target *target)
{
    const terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const terse_form x = terse_lower_form(lower, terse_edit_input(edit, node, 0));
    terse_lower_weights w;
    if (x.bytes < 0 || (n->op == TERSE_OP_CONV && terse_node_int(n, "channels_last", 0) == 0) ||
        (n->op == TERSE_OP_GEMM && terse_node_int(n, "transA", 0) != 0) || edit->graph->values[x.bytes].rank < 1 ||
        !terse_lower_read_weights(lower, node, &x, &w))
        return false;
    return target ? product_to_bytes(lower, node, &x, &w, target) : product_to_floats(lower, node, &x, &w);
}
