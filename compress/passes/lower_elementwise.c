/* SPDX-License-Identifier: Apache-2.0 */
/* What works element by element on bytes. A function of one byte has 256 values: it is computed for all of them by the
 * operators themselves and becomes a table, however many operators it is made of. */
#include "compress/passes/lower.h"

#include <math.h>
#include <string.h>

enum { MAX_OPERANDS = 4 };

/* The operands of a node for all 256 bytes: images of one root, or single numbers. False when it is no such node. */
static bool find_operands(const terse_lower *lower, int node, terse_tensor *views, float *numbers, int *ret_root)
{
    const terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const int y = n->outputs[0];
    *ret_root = -1;
    if (n->n_inputs > MAX_OPERANDS || n->n_outputs != 1 || y < 0 || y >= lower->n ||
        edit->graph->values[y].dtype != TERSE_FP32)
        return false;
    for (int i = 0; i < n->n_inputs; i++) {
        const int x = n->inputs[i];
        if (x < 0)
            continue;
        if (x < lower->n && lower->images[x] && terse_edit_same_shape(edit, x, y)) {
            if (*ret_root >= 0 && *ret_root != lower->roots[x])
                return false;
            *ret_root = lower->roots[x];
            views[i] = terse_tensor_view((void *)(uintptr_t)lower->images[x], TERSE_FP32, 1, &(int64_t){256});
        } else if (terse_lower_number(lower, x, &numbers[i])) {
            views[i] = terse_tensor_view(&numbers[i], TERSE_FP32, 0, NULL);
        } else {
            return false;
        }
    }
    return *ret_root >= 0;
}

void terse_lower_image(terse_lower *lower, int node)
{
    const terse_node *n = &lower->edit.graph->nodes[node];
    terse_tensor views[MAX_OPERANDS], made;
    const terse_tensor *inputs[MAX_OPERANDS];
    float numbers[MAX_OPERANDS];
    int root;
    if (!terse_op_is_arithmetic(n->op) || !find_operands(lower, node, views, numbers, &root))
        return;
    for (int i = 0; i < n->n_inputs; i++)
        inputs[i] = n->inputs[i] < 0 ? NULL : &views[i];
    const int y = n->outputs[0];
    if (terse_node_evaluate(n, lower->kernels, inputs, lower->edit.graph->arena, (size_t)1 << 20, &made, NULL) !=
            TERSE_OK ||
        made.dtype != TERSE_FP32 || terse_tensor_count(&made) != 256)
        return;
    lower->images[y] = made.data;
    lower->roots[y] = root;
}

void terse_lower_table(terse_lower *lower, int value, const terse_target *target)
{
    terse_edit *edit = &lower->edit;
    uint8_t *table = terse_edit_alloc(edit, 256);
    bool same = true;
    if (!table)
        return;
    for (int b = 0; b < 256; b++) {
        table[b] = (uint8_t)terse_lower_byte((double)lower->images[value][b], target->s, target->z);
        same = same && table[b] == b;
    }
    const int root = lower->roots[value];
    const char *name = edit->graph->nodes[target->node].name;
    terse_edit_remove(edit, target->node);
    if (same && target->y < lower->n) {
        terse_lower_alias(lower, target->y, root);
        return;
    }
    const int operand = terse_edit_add_constant(edit, "table", TERSE_UINT8, 1, &(int64_t){256}, table);
    terse_edit_add_node(edit, TERSE_OP_QTABLE, name, (int[]){root, operand}, 2, &target->y, 1);
}

bool terse_lower_binary(terse_lower *lower, int node, const terse_target *target)
{
    terse_edit *edit = &lower->edit;
    const terse_op op = edit->graph->nodes[node].op;
    const terse_form a = terse_lower_form(lower, terse_edit_input(edit, node, 0));
    const terse_form b = terse_lower_form(lower, terse_edit_input(edit, node, 1));
    if (a.bytes < 0 || b.bytes < 0)
        return false;
    const double a_scale = op == TERSE_OP_MUL ? a.s * b.s / target->s : a.s / target->s;
    const double b_scale = (op == TERSE_OP_SUB ? -b.s : b.s) / target->s;
    if (!(a_scale < 1e30) || !(fabs(b_scale) < 1e30))
        return false;
    terse_edit_remove(edit, target->node);
    const int made = terse_edit_add_node(edit, op == TERSE_OP_MUL ? TERSE_OP_QMUL : TERSE_OP_QADD,
                                         edit->graph->nodes[node].name, (int[]){a.bytes, b.bytes}, 2, &target->y, 1);
    terse_lower_set_float(lower, made, "a_scale", a_scale);
    if (op != TERSE_OP_MUL)
        terse_lower_set_float(lower, made, "b_scale", b_scale);
    terse_lower_set_int(lower, made, "a_zero_point", a.z);
    terse_lower_set_int(lower, made, "b_zero_point", b.z);
    terse_lower_set_target(lower, made, target);
    return true;
}

/* A ReduceMean over all axes between the first and the last of a tensor that is channels-last by now. */
static bool reduces_image(const terse_edit *edit, int node, int rank)
{
    int64_t axes[TERSE_MAX_RANK];
    const int n = terse_edit_ints(edit, terse_edit_input(edit, node, 1), axes, TERSE_MAX_RANK);
    unsigned mask = 0;
    if (rank < 3 || rank > 5 || n != rank - 2)
        return false;
    for (int i = 0; i < n; i++) {
        const int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i];
        if (axis < 1 || axis > rank - 2)
            return false;
        mask |= 1u << axis;
    }
    return mask == (1u << (rank - 1)) - 2;
}

/* What the pool makes: the target itself, or [N,1..,C] in front of a Reshape to it. */
static int pool_output(terse_lower *lower, int node, const terse_form *x, const terse_target *target)
{
    terse_edit *edit = &lower->edit;
    const terse_graph *graph = edit->graph;
    const int y = graph->nodes[node].outputs[0], rank = graph->values[x->bytes].rank;
    if (graph->nodes[node].op != TERSE_OP_REDUCE_MEAN || graph->values[y].rank == rank)
        return target->y;
    const int made = terse_lower_add_bytes(lower, x->bytes);
    if (made < 0)
        return -1;
    for (int i = 1; i < rank - 1; i++)
        graph->values[made].dims[i] = 1;
    const int axes = terse_edit_input(edit, node, 1);
    terse_edit_add_node(edit, TERSE_OP_SQUEEZE, graph->nodes[node].name, (int[]){made, axes}, 2, &target->y, 1);
    return made;
}

bool terse_lower_average(terse_lower *lower, int node, const terse_target *target)
{
    static const char *const window[] = {"strides",   "dilations",        "pads", "auto_pad", "kernel_shape",
                                         "ceil_mode", "count_include_pad"};
    terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const terse_op op = n->op;
    const terse_form x = terse_lower_form(lower, terse_edit_input(edit, node, 0));
    if (x.bytes < 0 || !(x.s / target->s < 1e30) ||
        (op == TERSE_OP_REDUCE_MEAN ? !reduces_image(edit, node, edit->graph->values[x.bytes].rank)
                                    : terse_node_int(n, "channels_last", 0) == 0))
        return false;
    terse_edit_remove(edit, target->node);
    const int y = pool_output(lower, node, &x, target);
    const int made =
        terse_edit_add_node(edit, op == TERSE_OP_AVERAGE_POOL ? TERSE_OP_QAVERAGE_POOL : TERSE_OP_QGLOBAL_AVERAGE_POOL,
                            edit->graph->nodes[node].name, &x.bytes, 1, &y, 1);
    if (made < 0)
        return true;
    if (op == TERSE_OP_AVERAGE_POOL)
        terse_lower_copy_attributes(lower, node, made, window, (int)(sizeof window / sizeof window[0]));
    terse_lower_set_int(lower, made, "channels_last", 1);
    terse_lower_set_float(lower, made, "scale", x.s / target->s);
    terse_lower_set_int(lower, made, "x_zero_point", x.z);
    terse_lower_set_int(lower, made, "y_zero_point", target->z);
    return true;
}
