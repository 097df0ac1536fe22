/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/lower.h"
#include "compress/passes/passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

terse_form terse_lower_form(const terse_lower *lower, int value)
{
    return value >= 0 && value < lower->n ? lower->forms[value] : (terse_form){.bytes = -1};
}

int32_t terse_lower_byte(double number, double scale, int32_t zero_point)
{
    const double q = rint((double)((float)number / (float)scale)) + zero_point;
    return q != q ? zero_point : q < 0 ? 0 : q > 255 ? 255 : (int32_t)q;
}

bool terse_lower_scale(const terse_lower *lower, int node, double *ret_scale, int32_t *ret_zero_point)
{
    const terse_edit *edit = &lower->edit;
    const terse_node *n = &edit->graph->nodes[node];
    const int scale = terse_edit_input(edit, node, 1), zero_point = terse_edit_input(edit, node, 2);
    double s;
    if (terse_node_int(n, "block_size", 0) != 0 || !terse_edit_scalar(edit, scale, &s) || !(s > 0) || !(s < 1e30) ||
        edit->graph->values[scale].rank > 1)
        return false;
    *ret_zero_point = 0;
    if (zero_point >= 0) {
        const terse_value *z = &edit->graph->values[zero_point];
        if (!z->data || z->dtype != TERSE_UINT8 || z->bytes != 1 || z->rank > 1)
            return false;
        *ret_zero_point = *(const uint8_t *)z->data;
    } else if (n->op == TERSE_OP_QUANTIZE_LINEAR &&
               terse_node_int(n, "output_dtype", TERSE_UINT8) != (int64_t)TERSE_UINT8) {
        return false;
    }
    *ret_scale = s;
    return true;
}

bool terse_lower_number(const terse_lower *lower, int value, float *ret_number)
{
    const terse_edit *edit = &lower->edit;
    const terse_form form = terse_lower_form(lower, value);
    double number;
    if (terse_edit_scalar(edit, value, &number)) {
        *ret_number = (float)number;
        return true;
    }
    if (!terse_edit_is_constant(edit, form.bytes) || edit->graph->values[form.bytes].bytes != 1)
        return false;
    *ret_number = (float)(*(const uint8_t *)edit->graph->values[form.bytes].data - form.z) * (float)form.s;
    return true;
}

void terse_lower_copy_attributes(terse_lower *lower, int from, int to, const char *const *names, int n)
{
    terse_graph *graph = lower->edit.graph;
    for (int i = 0; i < n && !lower->edit.failed; i++) {
        const terse_attr *attr = terse_node_attr(&graph->nodes[from], names[i]);
        terse_node *node = &graph->nodes[to];
        if (attr &&
            !(attr->kind == TERSE_ATTR_INT     ? terse_node_set_int(graph, node, attr->name, attr->i)
              : attr->kind == TERSE_ATTR_FLOAT ? terse_node_set_float(graph, node, attr->name, attr->f)
              : attr->kind == TERSE_ATTR_TEXT  ? terse_node_set_text(graph, node, attr->name, attr->text)
              : attr->kind == TERSE_ATTR_INTS  ? terse_node_set_ints(graph, node, attr->name, attr->ints, attr->n)
                                               : true))
            lower->edit.failed = true;
    }
}

void terse_lower_set_int(terse_lower *lower, int node, const char *name, int64_t value)
{
    terse_graph *graph = lower->edit.graph;
    if (node < 0 || !terse_node_set_int(graph, &graph->nodes[node], name, value))
        lower->edit.failed = true;
}

void terse_lower_set_float(terse_lower *lower, int node, const char *name, double value)
{
    terse_graph *graph = lower->edit.graph;
    if (node < 0 || !terse_node_set_float(graph, &graph->nodes[node], name, value))
        lower->edit.failed = true;
}

void terse_lower_set_text(terse_lower *lower, int node, const char *name, const char *value)
{
    terse_graph *graph = lower->edit.graph;
    if (node < 0 || !terse_node_set_text(graph, &graph->nodes[node], name, value))
        lower->edit.failed = true;
}

void terse_lower_set_target(terse_lower *lower, int node, const terse_target *target)
{
    terse_lower_set_int(lower, node, "y_zero_point", target->z);
    terse_lower_set_int(lower, node, "low", target->low);
    terse_lower_set_int(lower, node, "high", target->high);
}

int terse_lower_add_bytes(terse_lower *lower, int like)
{
    const int made = terse_edit_add_like(&lower->edit, like, "/u8");
    if (made >= 0)
        lower->edit.graph->values[made].dtype = TERSE_UINT8;
    return made;
}

int terse_lower_rescale(terse_lower *lower, const terse_form *form, double scale, int32_t zero_point)
{
    if (form->s == scale && form->z == zero_point)
        return form->bytes;
    uint8_t *table = terse_edit_alloc(&lower->edit, 256);
    const int y = terse_lower_add_bytes(lower, form->bytes);
    if (!table || y < 0)
        return -1;
    for (int b = 0; b < 256; b++)
        table[b] = (uint8_t)terse_lower_byte((double)((float)(b - form->z) * (float)form->s), scale, zero_point);
    const int operand = terse_edit_add_constant(&lower->edit, "table", TERSE_UINT8, 1, &(int64_t){256}, table);
    const char *name = lower->edit.graph->values[form->bytes].name;
    terse_edit_add_node(&lower->edit, TERSE_OP_QTABLE, name, (int[]){form->bytes, operand}, 2, &y, 1);
    return y;
}

void terse_lower_alias(terse_lower *lower, int value, int other)
{
    lower->alias[value] = other;
}

static int resolved(const terse_lower *lower, int value)
{
    while (value >= 0 && value < lower->n && lower->alias[value] != value)
        value = lower->alias[value];
    return value;
}

static void read_aliases(terse_lower *lower, int node)
{
    for (int i = 0; i < lower->edit.graph->nodes[node].n_inputs; i++) {
        const int value = lower->edit.graph->nodes[node].inputs[i], other = resolved(lower, value);
        if (other != value)
            terse_edit_set_input(&lower->edit, node, i, other);
    }
}

/* Two QuantizeLinears of one value by the same numbers are one. */
static void merge_twins(terse_lower *lower)
{
    terse_graph *graph = lower->edit.graph;
    TERSE_AUTO(terse_freep) int *first = malloc((size_t)(lower->n + 1) * sizeof *first);
    if (!first) {
        lower->edit.failed = true;
        return;
    }
    for (int v = 0; v < lower->n; v++)
        first[v] = -1;
    for (int node = 0; node < graph->n_nodes; node++) {
        double s[2];
        int32_t z[2];
        const terse_node *n = &graph->nodes[node];
        if (n->op != TERSE_OP_QUANTIZE_LINEAR || n->inputs[0] < 0 || n->outputs[0] < 0)
            continue;
        int *before = &first[n->inputs[0]];
        if (*before < 0)
            *before = node;
        else if (terse_lower_scale(lower, node, &s[0], &z[0]) && terse_lower_scale(lower, *before, &s[1], &z[1]) &&
                 s[0] == s[1] && z[0] == z[1]) {
            terse_lower_alias(lower, n->outputs[0], graph->nodes[*before].outputs[0]);
            terse_edit_remove(&lower->edit, node);
        }
    }
}

static void visit_dequantize(terse_lower *lower, int node)
{
    terse_edit *edit = &lower->edit;
    const int x = terse_edit_input(edit, node, 0), y = edit->graph->nodes[node].outputs[0];
    terse_form form = {
        .bytes = x, .scale = terse_edit_input(edit, node, 1), .zero_point = terse_edit_input(edit, node, 2)};
    if (x < 0 || y < 0 || y >= lower->n || edit->graph->values[x].dtype != TERSE_UINT8 ||
        edit->graph->values[x].rank < 0 || !terse_lower_scale(lower, node, &form.s, &form.z))
        return;
    lower->forms[y] = form;
    float *image = terse_edit_is_constant(edit, x) ? NULL : terse_edit_alloc(edit, 256 * sizeof *image);
    if (!image)
        return;
    for (int b = 0; b < 256; b++)
        image[b] = (float)(b - form.z) * (float)form.s;
    lower->images[y] = image;
    lower->roots[y] = x;
}

/* The limits that a Clip or Relu in front of a QuantizeLinear sets, when nobody else reads what it makes; the value in
 * front of it. */
static int look_through_clip(terse_lower *lower, int value, terse_target *target)
{
    const terse_edit *edit = &lower->edit;
    const int node = value < 0 ? -1 : edit->producer[value];
    float low = 0, high = INFINITY;
    if (node < 0 || edit->uses[value] != 1)
        return value;
    if (edit->graph->nodes[node].op == TERSE_OP_CLIP) {
        const int a = terse_edit_input(edit, node, 1), b = terse_edit_input(edit, node, 2);
        low = -INFINITY;
        if ((a >= 0 && !terse_lower_number(lower, a, &low)) || (b >= 0 && !terse_lower_number(lower, b, &high)) ||
            !(low <= high))
            return value;
    } else if (edit->graph->nodes[node].op != TERSE_OP_RELU) {
        return value;
    }
    target->low = terse_lower_byte((double)low, target->s, target->z);
    target->high = terse_lower_byte((double)high, target->s, target->z);
    return terse_edit_input(edit, node, 0);
}

static void visit_quantize(terse_lower *lower, int node)
{
    const terse_edit *edit = &lower->edit;
    const int x = terse_edit_input(edit, node, 0);
    terse_target target = {.node = node, .y = edit->graph->nodes[node].outputs[0], .high = 255};
    if (x < 0 || target.y < 0 || edit->graph->values[x].dtype != TERSE_FP32 ||
        !terse_lower_scale(lower, node, &target.s, &target.z))
        return;
    if (x < lower->n && lower->images[x]) {
        terse_lower_table(lower, x, &target);
        return;
    }
    const int value = look_through_clip(lower, x, &target), maker = value < 0 ? -1 : edit->producer[value];
    if (maker < 0)
        return;
    switch (edit->graph->nodes[maker].op) {
    case TERSE_OP_CONV:
    case TERSE_OP_GEMM:
    case TERSE_OP_MATMUL:
        if (edit->uses[value] == 1)
            terse_lower_product(lower, maker, &target);
        return;
    case TERSE_OP_ADD:
    case TERSE_OP_SUB:
    case TERSE_OP_MUL:
        terse_lower_binary(lower, maker, &target);
        return;
    case TERSE_OP_AVERAGE_POOL:
    case TERSE_OP_GLOBAL_AVERAGE_POOL:
    case TERSE_OP_REDUCE_MEAN:
        if (value == x)
            terse_lower_average(lower, maker, &target);
        return;
    case TERSE_OP_CONCAT:
        if (value == x)
            terse_lower_concat(lower, maker, &target);
        return;
    case TERSE_OP_RESIZE:
        if (value == x)
            terse_lower_resize(lower, maker, &target);
        return;
    default:
        return;
    }
}

static void visit(terse_lower *lower, int node)
{
    const terse_node *n = &lower->edit.graph->nodes[node];
    if (n->op == TERSE_OP_COUNT || n->n_inputs < 1 || n->n_outputs < 1)
        return;
    read_aliases(lower, node);
    if (n->op == TERSE_OP_DEQUANTIZE_LINEAR)
        visit_dequantize(lower, node);
    else if (n->op == TERSE_OP_QUANTIZE_LINEAR)
        visit_quantize(lower, node);
    else {
        terse_lower_image(lower, node);
        if (!lower->edit.failed)
            terse_lower_move(lower, node);
    }
}

/* What is left of the products reads bytes and makes floats. */
static void visit_float_product(terse_lower *lower, int node)
{
    const terse_node *n = &lower->edit.graph->nodes[node];
    if (n->op != TERSE_OP_CONV && n->op != TERSE_OP_GEMM && n->op != TERSE_OP_MATMUL)
        return;
    const int y = n->outputs[0];
    if (y >= 0 && lower->edit.uses[y] > 0)
        terse_lower_product(lower, node, NULL);
}

static bool allocate(terse_lower *lower)
{
    const size_t n = (size_t)lower->n + 1;
    lower->forms = malloc(n * sizeof *lower->forms);
    lower->images = calloc(n, sizeof *lower->images);
    lower->roots = malloc(n * sizeof *lower->roots);
    lower->alias = malloc(n * sizeof *lower->alias);
    if (!lower->forms || !lower->images || !lower->roots || !lower->alias)
        return false;
    for (int v = 0; v < lower->n; v++) {
        lower->forms[v] = (terse_form){.bytes = -1};
        lower->roots[v] = -1;
        lower->alias[v] = v;
    }
    return true;
}

static void release(terse_lower *lower)
{
    free(lower->forms);
    free(lower->images);
    free(lower->roots);
    free(lower->alias);
}

/* Graph outputs keep their names. */
static void finish_aliases(terse_lower *lower)
{
    terse_graph *graph = lower->edit.graph;
    for (int node = 0, n = graph->n_nodes; node < n; node++)
        if (graph->nodes[node].op != TERSE_OP_COUNT)
            read_aliases(lower, node);
    for (int i = 0; i < graph->n_outputs && !lower->edit.failed; i++) {
        const int value = graph->outputs[i], other = resolved(lower, value);
        if (other != value)
            terse_edit_add_node(&lower->edit, TERSE_OP_IDENTITY, graph->values[value].name, &other, 1, &value, 1);
    }
}

int terse_pass_lower(terse_graph *graph, terse_error *error)
{
    terse_lower lower = {0};
    int status = terse_kernels_get(&lower.kernels, error);
    if (status == TERSE_OK)
        status = terse_edit_open(graph, &lower.edit, error);
    if (status != TERSE_OK)
        return status;
    terse_edit *edit = &lower.edit;
    terse_lower_pull_up(&lower);
    lower.n = graph->n_values;
    const int n_nodes = graph->n_nodes;
    edit->failed = edit->failed || !allocate(&lower);
    if (!edit->failed)
        merge_twins(&lower);
    for (int node = 0; node < n_nodes && !edit->failed; node++)
        visit(&lower, node);
    for (int node = 0; node < n_nodes && !edit->failed; node++)
        visit_float_product(&lower, node);
    if (!edit->failed)
        finish_aliases(&lower);
    release(&lower);
    return terse_edit_close(edit, error);
}
