/* SPDX-License-Identifier: Apache-2.0 */
/* Moving bytes instead of floats: a DequantizeLinear goes behind whatever only moves (or selects) elements, a
 * QuantizeLinear in front of it. */
#include "compress/passes/lower.h"

#include <string.h>

/* Padding and other new elements must be bytes too. */
static bool new_elements_fit(terse_lower *lower, int node, const terse_form *form)
{
    terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const int fill = terse_edit_input(edit, node, 2);
    float number = 0;
    if (strcmp(terse_node_text(n, "mode", "constant"), "constant") != 0)
        return true;
    if (fill >= 0 && !terse_lower_number(lower, fill, &number))
        return false;
    const int32_t byte = terse_lower_byte((double)number, form->s, form->z);
    if ((float)(byte - form->z) * (float)form->s != number)
        return false;
    uint8_t *data = terse_edit_alloc(edit, 1);
    if (!data)
        return false;
    *data = (uint8_t)byte;
    const int operand = terse_edit_add_constant(edit, "pad", TERSE_UINT8, 0, NULL, data);
    terse_edit_set_input(edit, node, 2, operand);
    return !edit->failed;
}

static bool moves(terse_lower *lower, int node, const terse_form *form)
{
    const terse_node *n = &lower->edit.graph->nodes[node];
    switch (n->op) {
    case TERSE_OP_RESHAPE:
    case TERSE_OP_FLATTEN:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_TRANSPOSE:
    case TERSE_OP_EXPAND:
    case TERSE_OP_TILE:
    case TERSE_OP_IDENTITY:
    case TERSE_OP_SLICE:
    case TERSE_OP_SPLIT:
    case TERSE_OP_DEPTH_TO_SPACE:
    case TERSE_OP_GATHER:
        return true;
    case TERSE_OP_MAX_POOL: /* scales are positive */
        return n->n_outputs == 1 || n->outputs[1] < 0;
    case TERSE_OP_RESIZE:
        return strcmp(terse_node_text(n, "mode", "nearest"), "nearest") == 0 &&
               strcmp(terse_node_text(n, "coordinate_transformation_mode", "half_pixel"), "tf_crop_and_resize") != 0;
    case TERSE_OP_PAD:
        return new_elements_fit(lower, node, form);
    default:
        return false;
    }
}

/* Output `slot` becomes bytes, and what it was is their DequantizeLinear. */
static void dequantize_behind(terse_lower *lower, int node, int slot, const terse_form *form)
{
    terse_edit *edit = &lower->edit;
    const int y = edit->graph->nodes[node].outputs[slot];
    const int bytes = terse_lower_add_bytes(lower, y);
    if (bytes < 0)
        return;
    terse_edit_set_output(edit, node, slot, bytes);
    int inputs[3] = {bytes, form->scale, form->zero_point};
    const int made = terse_edit_add_node(edit, TERSE_OP_DEQUANTIZE_LINEAR, edit->graph->nodes[node].name, inputs,
                                         form->zero_point < 0 ? 2 : 3, &y, 1);
    if (made < 0 || y >= lower->n)
        return;
    terse_form after = *form;
    float *image = terse_edit_alloc(edit, 256 * sizeof *image);
    after.bytes = bytes;
    for (int b = 0; image && b < 256; b++)
        image[b] = (float)(b - form->z) * (float)form->s;
    lower->forms[y] = after;
    lower->images[y] = image;
    lower->roots[y] = bytes;
}

static bool outputs_known(const terse_edit *edit, int node)
{
    for (int i = 0; i < edit->graph->nodes[node].n_outputs; i++) {
        const int y = edit->graph->nodes[node].outputs[i];
        if (y >= 0 && (edit->graph->values[y].rank < 0 || edit->graph->values[y].dtype != TERSE_FP32))
            return false;
    }
    return true;
}

/* All inputs of a Concat are bytes of one scale. */
static bool one_form(const terse_lower *lower, int node, terse_form *ret_form)
{
    const terse_node *n = &lower->edit.graph->nodes[node];
    for (int i = 0; i < n->n_inputs; i++) {
        const terse_form form = terse_lower_form(lower, n->inputs[i]);
        if (form.bytes < 0 || (i && (form.s != ret_form->s || form.z != ret_form->z)))
            return false;
        *ret_form = form;
    }
    return n->n_inputs > 0;
}

void terse_lower_move(terse_lower *lower, int node)
{
    terse_edit *edit = &lower->edit;
    terse_form form = terse_lower_form(lower, terse_edit_input(edit, node, 0));
    const bool concat = edit->graph->nodes[node].op == TERSE_OP_CONCAT;
    if (form.bytes < 0 || !outputs_known(edit, node))
        return;
    if (concat ? !one_form(lower, node, &form) : terse_edit_is_constant(edit, form.bytes) || !moves(lower, node, &form))
        return;
    const int n_inputs = concat ? edit->graph->nodes[node].n_inputs : 1;
    for (int i = 0; i < n_inputs; i++)
        terse_edit_set_input(edit, node, i, terse_lower_form(lower, terse_edit_input(edit, node, i)).bytes);
    for (int i = 0; i < edit->graph->nodes[node].n_outputs && !edit->failed; i++)
        if (edit->graph->nodes[node].outputs[i] >= 0)
            dequantize_behind(lower, node, i, &form);
}

bool terse_lower_concat(terse_lower *lower, int node, const terse_target *target)
{
    static const char *const attributes[] = {"axis"};
    terse_edit *edit = &lower->edit;
    const int n_inputs = edit->graph->nodes[node].n_inputs;
    int *inputs = terse_edit_alloc(edit, (size_t)n_inputs * sizeof *inputs);
    for (int i = 0; inputs && i < n_inputs; i++) {
        const terse_form form = terse_lower_form(lower, terse_edit_input(edit, node, i));
        if (form.bytes < 0)
            return false;
    }
    for (int i = 0; inputs && i < n_inputs; i++) {
        const terse_form form = terse_lower_form(lower, terse_edit_input(edit, node, i));
        inputs[i] = terse_lower_rescale(lower, &form, target->s, target->z);
    }
    if (edit->failed)
        return false;
    terse_edit_remove(edit, target->node);
    const int made =
        terse_edit_add_node(edit, TERSE_OP_CONCAT, edit->graph->nodes[node].name, inputs, n_inputs, &target->y, 1);
    terse_lower_copy_attributes(lower, node, made, attributes, 1);
    return true;
}

/* Weights of a Resize add up to 1: bytes of one scale are resized as they are, then rounded. */
bool terse_lower_resize(terse_lower *lower, int node, const terse_target *target)
{
    terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const terse_form form = terse_lower_form(lower, terse_edit_input(edit, node, 0));
    if (form.bytes < 0 || form.s != target->s || form.z != target->z || edit->uses[n->outputs[0]] != 1 ||
        strcmp(terse_node_text(n, "coordinate_transformation_mode", "half_pixel"), "tf_crop_and_resize") == 0)
        return false;
    terse_edit_remove(edit, target->node);
    terse_lower_set_int(lower, node, "rounds", 1);
    terse_lower_set_int(lower, node, "y_zero_point", target->z);
    terse_edit_set_input(edit, node, 0, form.bytes);
    terse_edit_set_output(edit, node, 0, target->y);
    return true;
}

/* Moves one QuantizeLinear in front of the node that makes its input. */
static bool pull_up(terse_lower *lower, int node)
{
    terse_edit *edit = &lower->edit;
    terse_graph *graph = edit->graph;
    const int v = terse_edit_input(edit, node, 0), y = graph->nodes[node].outputs[0];
    const int mover = v < 0 ? -1 : edit->producer[v];
    const int x = mover < 0 ? TERSE_NO_VALUE : terse_edit_input(edit, mover, 0);
    double s;
    int32_t z;
    if (x < 0 || y < 0 || edit->uses[v] != 1 || graph->values[x].dtype != TERSE_FP32 || graph->values[x].rank < 0 ||
        terse_edit_is_constant(edit, x) || terse_edit_maker(edit, x, TERSE_OP_DEQUANTIZE_LINEAR) >= 0)
        return false;
    const terse_op op = graph->nodes[mover].op;
    if ((op != TERSE_OP_RESHAPE && op != TERSE_OP_FLATTEN && op != TERSE_OP_SQUEEZE && op != TERSE_OP_UNSQUEEZE &&
         op != TERSE_OP_TRANSPOSE && op != TERSE_OP_IDENTITY) ||
        !terse_lower_scale(lower, node, &s, &z))
        return false;
    const int bytes = terse_lower_add_bytes(lower, x);
    if (bytes < 0)
        return false;
    terse_edit_set_input(edit, node, 0, x);
    terse_edit_set_input(edit, mover, 0, bytes);
    terse_edit_set_output(edit, node, 0, bytes);
    terse_edit_set_output(edit, mover, 0, y);
    return true;
}

void terse_lower_pull_up(terse_lower *lower)
{
    for (int node = 0, n = lower->edit.graph->n_nodes; node < n && !lower->edit.failed; node++)
        while (lower->edit.graph->nodes[node].op == TERSE_OP_QUANTIZE_LINEAR && pull_up(lower, node))
            ;
}
