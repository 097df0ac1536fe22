/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Quantized networks get one form: DequantizeLinear -> a float operator -> QuantizeLinear, or, where the
 * scale is known only when it runs, DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul. Products whose weights,
 * scales or zero points are computed (QLinearConv, QLinearMatMul) stay what they are. What is quantized is UINT8, INT8
 * and INT32; all else has an error by its name.
 *
 * A rewrite turns its node into the float operator, in place, and appends the others: the graph is sorted later. */
#include "compress/onnx/internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A quantized operand as QLinear operators have it: three inputs in a row. */
typedef struct quantized {
    int x, scale, zero;
} quantized;

/* What the helpers below share. The first failure stays, later calls do nothing. */
typedef struct rewriting {
    terse_onnx_builder *builder;
    terse_graph *graph;
    const char *name;
    bool failed; /* memory is out */
} rewriting;

static rewriting start(terse_onnx_builder *builder, int index)
{
    return (rewriting){.builder = builder, .graph = builder->graph, .name = builder->graph->nodes[index].name};
}

static int finish(const rewriting *to, terse_error *error)
{
    return to->failed ? terse_onnx_no_memory(error) : TERSE_OK;
}

static int input_of(const terse_node *node, int slot)
{
    return slot < node->n_inputs ? node->inputs[slot] : TERSE_NO_VALUE;
}

/* Fails unless there are that many inputs and all whose bit is set are present. */
static int need_inputs(const terse_node *node, int min, int max, unsigned present, terse_error *error)
{
    if (node->n_inputs < min || node->n_inputs > max)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, %d to %d are allowed", node->n_inputs, min,
                          max);
    for (int i = 0; i < max && i < 32; i++)
        if (present >> i & 1u && input_of(node, i) == TERSE_NO_VALUE)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks input %d", i);
    if (node->n_outputs != 1 || node->outputs[0] == TERSE_NO_VALUE)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d outputs, 1 is needed", node->n_outputs);
    return TERSE_OK;
}

static const terse_value *constant_of(const terse_graph *graph, int value)
{
    return value >= 0 && graph->values[value].data ? &graph->values[value] : NULL;
}

/* Elements of a constant, -1 when it is none. */
static int64_t constant_count(const terse_graph *graph, int value)
{
    const terse_value *v = constant_of(graph, value);
    return v ? terse_dims_count(v->dims, v->rank) : -1;
}

static int new_value(rewriting *to, const char *name)
{
    const int value = to->failed ? -1 : terse_graph_add_value(to->graph, name);
    to->failed = value < 0;
    return value;
}

/* A node with one new output, whose number is returned; -1 when memory is out. */
static int add_node(rewriting *to, terse_op op, const int *inputs, int n_inputs, int *ret_node)
{
    const int value = new_value(to, to->name);
    *ret_node = to->graph->n_nodes;
    to->failed = to->failed || !terse_graph_add_node(to->graph, op, to->name, inputs, n_inputs, &value, 1);
    return to->failed ? -1 : value;
}

/* A zero point that is one for all where there are many scales, or the other way round: `value` n times. */
static int repeated(rewriting *to, int value, int64_t n)
{
    const terse_value old = to->graph->values[value];
    const size_t size = terse_dtype_size(old.dtype);
    char *data = n > TERSE_MAX_TENSOR_BYTES / 8 ? NULL : terse_arena_alloc(to->graph->arena, (size_t)n * size + 1);
    for (int64_t i = 0; data && i < n; i++)
        memcpy(data + (size_t)i * size, old.data, size);
    const int made = data ? terse_graph_add_constant(to->graph, old.name, old.dtype, 1, &n, data) : -1;
    to->failed = to->failed || made < 0;
    return made;
}

/* Both constants get the same shape where one of them is one number. */
static void match(rewriting *to, int *scale, int *zero)
{
    const int64_t n = constant_count(to->graph, *scale), m = constant_count(to->graph, *zero);
    if (n == 1 && m > 1 && to->graph->values[*zero].rank == 1)
        *scale = repeated(to, *scale, m);
    else if (m == 1 && n > 1 && to->graph->values[*scale].rank == 1)
        *zero = repeated(to, *zero, n);
}

static int dequantized(rewriting *to, quantized from, int64_t axis)
{
    int node;
    match(to, &from.scale, &from.zero);
    const int value = add_node(to, TERSE_OP_DEQUANTIZE_LINEAR, (int[]){from.x, from.scale, from.zero},
                               from.zero == TERSE_NO_VALUE ? 2 : 3, &node);
    to->failed = to->failed || !terse_node_set_int(to->graph, &to->graph->nodes[node], "axis", axis);
    return value;
}

/* The product of two scales: a constant where both are, else computed. One of two constants has one element. */
static int scale_product(rewriting *to, int a, int b)
{
    terse_graph *graph = to->graph;
    const int64_t n_a = constant_count(graph, a), n_b = constant_count(graph, b);
    int node;
    if (n_a < 1 || n_b < 1 || (n_a > 1 && n_b > 1) || graph->values[a].dtype != TERSE_FP32 ||
        graph->values[b].dtype != TERSE_FP32)
        return add_node(to, TERSE_OP_MUL, (int[]){a, b}, 2, &node);
    const terse_value one = graph->values[n_a == 1 ? a : b], many = graph->values[n_a == 1 ? b : a];
    const int64_t n = n_a > n_b ? n_a : n_b;
    float *data = terse_arena_alloc(graph->arena, (size_t)n * sizeof *data);
    for (int64_t i = 0; data && i < n; i++)
        data[i] = (float)((double)*(const float *)one.data * (double)((const float *)many.data)[i]);
    const int made = data ? terse_graph_add_constant(graph, many.name, TERSE_FP32, many.rank, many.dims, data) : -1;
    to->failed = to->failed || made < 0;
    return made;
}

/* Node `index` becomes `op` over these inputs and makes a new value, which is returned; attributes stay. */
static int become(rewriting *to, int index, terse_op op, const int *inputs, int n)
{
    const int value = new_value(to, to->name);
    int *copy = terse_arena_alloc(to->graph->arena, ((size_t)n + 1) * sizeof *copy);
    to->failed = to->failed || !copy;
    if (to->failed)
        return -1;
    memcpy(copy, inputs, (size_t)n * sizeof *copy);
    terse_node *node = &to->graph->nodes[index];
    node->op = op;
    node->inputs = copy;
    node->n_inputs = n;
    node->outputs[0] = value;
    return value;
}

/* The dtype of an integer tensor as far as it is known before shapes are. */
static terse_dtype bytes_of(const terse_graph *graph, quantized from)
{
    if (from.zero != TERSE_NO_VALUE && graph->values[from.zero].dtype != TERSE_DTYPE_NONE)
        return graph->values[from.zero].dtype;
    return graph->values[from.x].dtype == TERSE_INT8 ? TERSE_INT8 : TERSE_UINT8;
}

/* `made` (FP32) quantized is what the operator made before, `output`. */
static void quantize(rewriting *to, int made, int scale, int zero, terse_dtype dtype, int output)
{
    const int inputs[] = {made, scale, zero};
    if (to->failed)
        return;
    terse_node *node = terse_graph_add_node(to->graph, TERSE_OP_QUANTIZE_LINEAR, to->name, inputs,
                                            zero == TERSE_NO_VALUE ? 2 : 3, &output, 1);
    to->failed =
        !node || (zero == TERSE_NO_VALUE && !terse_node_set_int(to->graph, node, "output_dtype", (int64_t)dtype));
    /* Readers further down ask for it (bytes_of) before shapes are inferred, which then states it for good. */
    terse_value *value = &to->graph->values[output];
    if (value->dtype == TERSE_DTYPE_NONE)
        value->dtype = zero == TERSE_NO_VALUE ? dtype : to->graph->values[zero].dtype;
}

/* Keeps of `precision` that the quotient is asked for in double; FP32 is what all other floats are. */
static bool keep_precision(terse_onnx_builder *builder, int index)
{
    terse_node *node = &builder->graph->nodes[index];
    const int64_t stated = terse_node_int(node, "precision", 0);
    const terse_dtype dtype = stated < 0 || stated > INT32_MAX ? TERSE_DTYPE_NONE : terse_onnx_dtype((int32_t)stated);
    terse_onnx_attribute_drop(node, "precision");
    if (dtype == TERSE_FP64)
        return terse_node_set_int(builder->graph, node, "precision", TERSE_FP64);
    if (stated != 0 && dtype != TERSE_FP32 && dtype != TERSE_FP16 && dtype != TERSE_BF16)
        terse_onnx_unsupported(builder->report, node->name, "precision %" PRId64 " of op '%s'", stated,
                               terse_op_name(node->op));
    return true;
}

/* `output_dtype` becomes terse's number. */
int terse_onnx_rewrite_quantize(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = &builder->graph->nodes[index];
    const terse_attr *stated = terse_node_attr(node, "output_dtype");
    const int32_t number = !stated ? 0 : stated->i < 0 || stated->i > INT32_MAX ? -1 : (int32_t)stated->i;
    const terse_dtype dtype = terse_onnx_dtype(number);
    terse_onnx_attribute_drop(node, "output_dtype");
    terse_onnx_attribute_drop(node, "saturate"); /* of FP8, which is refused */
    if (!keep_precision(builder, index))
        return terse_onnx_no_memory(error);
    node = &builder->graph->nodes[index];
    const bool is_float = dtype == TERSE_FP32 || dtype == TERSE_FP16 || dtype == TERSE_BF16;
    const bool is_byte = dtype == TERSE_UINT8 || dtype == TERSE_INT8;
    if (number != 0 && !(node->op == TERSE_OP_DEQUANTIZE_LINEAR ? is_float : is_byte)) {
        terse_onnx_unsupported(builder->report, node->name, "output_dtype %s of op '%s'", terse_onnx_dtype_name(number),
                               terse_op_name(node->op));
        return TERSE_OK;
    }
    rewriting to = start(builder, index);
    if (number != 0 && node->op == TERSE_OP_QUANTIZE_LINEAR)
        to.failed = !terse_node_set_int(builder->graph, node, "output_dtype", dtype);
    if (node->n_inputs == 3) {
        int scale = node->inputs[1], zero = node->inputs[2];
        match(&to, &scale, &zero);
        node = &builder->graph->nodes[index];
        node->inputs[1] = scale;
        node->inputs[2] = zero;
    }
    return finish(&to, error);
}

/* A constant of one element at each of these inputs. */
static bool all_one(const terse_graph *graph, const terse_node *node, int n, const int *slots)
{
    for (int i = 0; i < n; i++)
        if (constant_count(graph, input_of(node, slots[i])) != 1)
            return false;
    return true;
}

/* Constants of one element or one axis at both inputs. */
static bool per_axis(const terse_graph *graph, const terse_node *node, int scale, int zero)
{
    const terse_value *s = constant_of(graph, input_of(node, scale)), *z = constant_of(graph, input_of(node, zero));
    return s && z && s->rank <= 1 && z->rank <= 1 && s->dtype == TERSE_FP32;
}

/* Inputs x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B. */
int terse_onnx_rewrite_qlinear_conv(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    int status = terse_onnx_rewrite_windows(builder, index, error);
    if (status == TERSE_OK)
        status = need_inputs(&graph->nodes[index], 8, 9, 0xff, error);
    if (status != TERSE_OK)
        return status;
    const terse_node old = graph->nodes[index];
    const int bias = input_of(&old, 8), output = old.outputs[0];
    if (!all_one(graph, &old, 4, (int[]){1, 2, 6, 7}) || !per_axis(graph, &old, 4, 5) ||
        !constant_of(graph, old.inputs[3]) || (bias != TERSE_NO_VALUE && !constant_of(graph, bias)))
        return TERSE_OK;
    rewriting to = start(builder, index);
    const int *in = old.inputs;
    int floats[3] = {dequantized(&to, (quantized){in[0], in[1], in[2]}, 1),
                     dequantized(&to, (quantized){in[3], in[4], in[5]}, 0), TERSE_NO_VALUE};
    if (bias != TERSE_NO_VALUE && !to.failed)
        floats[2] = dequantized(&to, (quantized){bias, scale_product(&to, in[1], in[4]), TERSE_NO_VALUE}, 0);
    const int made = become(&to, index, TERSE_OP_CONV, floats, bias == TERSE_NO_VALUE ? 2 : 3);
    quantize(&to, made, in[6], in[7], TERSE_UINT8, output);
    return finish(&to, error);
}

/* Inputs a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point. */
int terse_onnx_rewrite_qlinear_matmul(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const int status = need_inputs(&graph->nodes[index], 8, 8, 0xff, error);
    if (status != TERSE_OK)
        return status;
    const terse_node old = graph->nodes[index];
    const int *in = old.inputs, output = old.outputs[0];
    const terse_value *b = constant_of(graph, in[3]);
    if (!all_one(graph, &old, 4, (int[]){1, 2, 6, 7}) || !per_axis(graph, &old, 4, 5) || !b || b->rank < 2)
        return TERSE_OK;
    rewriting to = start(builder, index);
    const int floats[2] = {dequantized(&to, (quantized){in[0], in[1], in[2]}, 1),
                           dequantized(&to, (quantized){in[3], in[4], in[5]}, -1)};
    const int made = become(&to, index, TERSE_OP_MATMUL, floats, 2);
    quantize(&to, made, in[6], in[7], TERSE_UINT8, output);
    return finish(&to, error);
}

/* QLinearAdd, QLinearMul: inputs A, A_scale, A_zero_point, B, B_scale, B_zero_point, C_scale, C_zero_point. */
int terse_onnx_rewrite_qlinear_binary(terse_onnx_builder *builder, int index, terse_error *error)
{
    const int status = need_inputs(&builder->graph->nodes[index], 7, 8, 0x5b, error);
    if (status != TERSE_OK)
        return status;
    rewriting to = start(builder, index);
    const terse_node old = builder->graph->nodes[index];
    const quantized a = {old.inputs[0], old.inputs[1], old.inputs[2]},
                    b = {old.inputs[3], old.inputs[4], old.inputs[5]};
    const int output = old.outputs[0], floats[2] = {dequantized(&to, a, 1), dequantized(&to, b, 1)};
    const int made = become(&to, index, old.op, floats, 2);
    quantize(&to, made, old.inputs[6], input_of(&old, 7), bytes_of(builder->graph, a), output);
    return finish(&to, error);
}

/* QLinearWhere: inputs condition, X, x_scale, x_zero_point, Y, y_scale, y_zero_point, z_scale, z_zero_point. */
int terse_onnx_rewrite_qlinear_where(terse_onnx_builder *builder, int index, terse_error *error)
{
    const int status = need_inputs(&builder->graph->nodes[index], 9, 9, 0x1ff, error);
    if (status != TERSE_OK)
        return status;
    rewriting to = start(builder, index);
    const terse_node old = builder->graph->nodes[index];
    const int *in = old.inputs, output = old.outputs[0];
    const quantized x = {in[1], in[2], in[3]}, y = {in[4], in[5], in[6]};
    const int operands[3] = {in[0], dequantized(&to, x, 1), dequantized(&to, y, 1)};
    const int made = become(&to, index, old.op, operands, 3);
    quantize(&to, made, in[7], in[8], TERSE_UINT8, output);
    return finish(&to, error);
}

/* Inputs X, X_scale, X_zero_point, Y_scale, Y_zero_point. */
int terse_onnx_rewrite_qlinear_unary(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = &builder->graph->nodes[index];
    int status = need_inputs(node, 4, 5, 0x0b, error);
    if (status == TERSE_OK && node->op == TERSE_OP_AVERAGE_POOL)
        status = terse_onnx_rewrite_windows(builder, index, error);
    if (status != TERSE_OK)
        return status;
    rewriting to = start(builder, index);
    if (terse_node_int(node, "channels_last", 0) != 0)
        terse_onnx_unsupported(builder->report, node->name, "attribute 'channels_last' of op 'com.microsoft.QLinear%s'",
                               terse_op_name(node->op));
    terse_onnx_attribute_drop(node, "channels_last");
    if (node->op == TERSE_OP_SOFTMAX) {
        const bool old_form = terse_node_int(node, "opset", 13) < 13;
        terse_onnx_attribute_drop(node, "opset");
        to.failed = !terse_node_set_int(builder->graph, node, "axis", terse_node_int(node, "axis", -1)) ||
                    (old_form && !terse_node_set_int(builder->graph, node, "coerce_2d", 1));
    }
    const terse_node old = *node;
    const quantized x = {old.inputs[0], old.inputs[1], old.inputs[2]};
    const int output = old.outputs[0], from = dequantized(&to, x, 1);
    const int made = become(&to, index, old.op, &from, 1);
    quantize(&to, made, old.inputs[3], input_of(&old, 4), bytes_of(builder->graph, x), output);
    return finish(&to, error);
}

/* Inputs Y_scale, Y_zero_point, then X, X_scale, X_zero_point of each operand. */
int terse_onnx_rewrite_qlinear_concat(terse_onnx_builder *builder, int index, terse_error *error)
{
    const int status = need_inputs(&builder->graph->nodes[index], 5, TERSE_MAX_NODE_IO, 0x1f, error);
    if (status != TERSE_OK)
        return status;
    const terse_node old = builder->graph->nodes[index];
    if (!terse_node_attr(&old, "axis"))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks attribute 'axis'");
    if (old.n_inputs % 3 != 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %d inputs, 2 and 3 for each operand are needed",
                          old.n_inputs);
    rewriting to = start(builder, index);
    const int n = (old.n_inputs - 2) / 3, output = old.outputs[0];
    int floats[TERSE_MAX_NODE_IO / 3 + 1];
    for (int i = 0; i < n; i++) {
        const int *in = &old.inputs[2 + 3 * i];
        if (in[0] == TERSE_NO_VALUE || in[1] == TERSE_NO_VALUE)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks input %d", 2 + 3 * i);
        floats[i] = dequantized(&to, (quantized){in[0], in[1], in[2]}, 1);
    }
    const int made = become(&to, index, TERSE_OP_CONCAT, floats, n);
    quantize(&to, made, old.inputs[0], old.inputs[1], TERSE_UINT8, output);
    return finish(&to, error);
}

/* A scale times a number. */
static int scale_times(rewriting *to, int scale, double number)
{
    float *data = number == 1 ? NULL : terse_arena_alloc(to->graph->arena, sizeof *data);
    if (number == 1)
        return scale;
    if (data)
        *data = (float)number;
    const int factor = data ? terse_graph_add_constant(to->graph, "alpha", TERSE_FP32, 0, NULL, data) : -1;
    to->failed = to->failed || factor < 0;
    return to->failed ? -1 : scale_product(to, scale, factor);
}

/* Inputs A, a_scale, a_zero_point, B, b_scale, b_zero_point, C, y_scale, y_zero_point: C (INT32) is added to the sums;
 * without y_scale the output is FP32. */
int terse_onnx_rewrite_qgemm(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = &builder->graph->nodes[index];
    const int status = need_inputs(node, 6, 9, 0x1b, error);
    if (status != TERSE_OK)
        return status;
    rewriting to = start(builder, index);
    const double alpha = terse_node_float(node, "alpha", 1);
    terse_onnx_attribute_drop(node, "alpha");
    const terse_node old = *node;
    const int *in = old.inputs, output = old.outputs[0], c = input_of(&old, 6), y_scale = input_of(&old, 7);
    const int b_scale = scale_times(&to, in[4], alpha);
    int floats[3] = {
        dequantized(&to, (quantized){in[0], in[1], in[2]}, 1),
        to.failed ? -1
                  : dequantized(&to, (quantized){in[3], b_scale, in[5]}, terse_node_int(&old, "transB", 0) ? 0 : 1),
        TERSE_NO_VALUE};
    if (c != TERSE_NO_VALUE && !to.failed)
        floats[2] = dequantized(&to, (quantized){c, scale_product(&to, in[1], b_scale), TERSE_NO_VALUE}, -1);
    const int made = become(&to, index, TERSE_OP_GEMM, floats, c == TERSE_NO_VALUE ? 2 : 3);
    if (y_scale != TERSE_NO_VALUE)
        quantize(&to, made, y_scale, input_of(&old, 8), bytes_of(builder->graph, (quantized){in[0], in[1], in[2]}),
                 output);
    else if (!to.failed)
        to.graph->nodes[index].outputs[0] = output;
    return finish(&to, error);
}

/* sums (INT32, made by node `index`) -> Cast -> Mul by the scales -> Add of the bias, if any -> output. */
static void scale_sums(rewriting *to, int sums, int scale, int bias, int output)
{
    int node;
    const int casted = add_node(to, TERSE_OP_CAST, &sums, 1, &node);
    to->failed = to->failed || !terse_node_set_int(to->graph, &to->graph->nodes[node], "to", TERSE_FP32);
    const int scaled = to->failed ? -1 : add_node(to, TERSE_OP_MUL, (int[]){casted, scale}, 2, &node);
    if (to->failed)
        return;
    if (bias != TERSE_NO_VALUE)
        to->failed = !terse_graph_add_node(to->graph, TERSE_OP_ADD, to->name, (int[]){scaled, bias}, 2, &output, 1);
    else
        to->graph->nodes[node].outputs[0] = output;
}

/* Inputs A (FP32), B, b_scale, b_zero_point, bias. */
int terse_onnx_rewrite_dynamic_quantize_matmul(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const int status = need_inputs(&graph->nodes[index], 3, 5, 0x07, error);
    if (status != TERSE_OK)
        return status;
    rewriting to = start(builder, index);
    const terse_node old = graph->nodes[index];
    const int output = old.outputs[0], zero = input_of(&old, 3);
    const int made[3] = {new_value(&to, to.name), new_value(&to, to.name), new_value(&to, to.name)};
    to.failed = to.failed ||
                !terse_graph_add_node(graph, TERSE_OP_DYNAMIC_QUANTIZE_LINEAR, to.name, &old.inputs[0], 1, made, 3);
    const int inputs[4] = {made[0], old.inputs[1], made[2], zero};
    const int sums = become(&to, index, TERSE_OP_MATMUL_INTEGER, inputs, zero == TERSE_NO_VALUE ? 3 : 4);
    const int scale = to.failed ? -1 : scale_product(&to, made[1], old.inputs[2]);
    scale_sums(&to, sums, scale, input_of(&old, 4), output);
    return finish(&to, error);
}

/* Inputs A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias. */
int terse_onnx_rewrite_matmul_integer_to_float(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_graph *graph = builder->graph;
    const int status = need_inputs(&graph->nodes[index], 4, 7, 0x0f, error);
    if (status != TERSE_OK)
        return status;
    rewriting to = start(builder, index);
    const terse_node old = graph->nodes[index];
    const int *in = old.inputs, output = old.outputs[0], a_zero = input_of(&old, 4), b_zero = input_of(&old, 5);
    const int inputs[4] = {in[0], in[1], a_zero, b_zero};
    const int sums = become(&to, index, TERSE_OP_MATMUL_INTEGER, inputs,
                            b_zero != TERSE_NO_VALUE   ? 4
                            : a_zero != TERSE_NO_VALUE ? 3
                                                       : 2);
    const int scale = to.failed ? -1 : scale_product(&to, in[2], in[3]);
    scale_sums(&to, sums, scale, input_of(&old, 6), output);
    return finish(&to, error);
}
