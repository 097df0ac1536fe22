/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of ONNX that are made of others: no kernel, no rule of any pass knows them. The node itself becomes the
 * last operator or the one with the attributes; what is needed around it is added. */
#include "compress/onnx/internal.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>

enum { MOST_BLOCKS = 16 }; /* of SpaceToDepth, along one axis */

/* What a rewrite works on; a failure (memory) sticks. */
typedef struct composer {
    terse_onnx_builder *builder;
    terse_graph *graph;
    int index;
    const char *name; /* of the node */
    bool failed;
} composer;

static int done(const composer *c, terse_error *error)
{
    return c->failed ? terse_onnx_no_memory(error) : TERSE_OK;
}

static terse_node *self(const composer *c)
{
    return &c->graph->nodes[c->index];
}

static int input(const composer *c, int position)
{
    return position < self(c)->n_inputs ? self(c)->inputs[position] : TERSE_NO_VALUE;
}

static void set_input(composer *c, int position, int value)
{
    c->failed = c->failed || value < 0 || !terse_onnx_set_input(c->graph, c->index, position, value);
}

static void set_int(composer *c, terse_node *node, const char *name, int64_t value)
{
    c->failed = c->failed || !node || !terse_node_set_int(c->graph, node, name, value);
}

static int new_value(composer *c)
{
    const int value = terse_graph_add_value(c->graph, "composed");
    c->failed = c->failed || value < 0;
    return value;
}

/* A new node's output; -1 when memory is out. */
static int make(composer *c, terse_op op, const int *inputs, int n)
{
    const int value = new_value(c);
    if (c->failed || !terse_graph_add_node(c->graph, op, c->name, inputs, n, &value, 1)) {
        c->failed = true;
        return -1;
    }
    return value;
}

static int one(composer *c, terse_op op, int x)
{
    return make(c, op, &x, 1);
}

static int two(composer *c, terse_op op, int a, int b)
{
    return make(c, op, (int[]){a, b}, 2);
}

static int number(composer *c, double x)
{
    float *data = terse_arena_alloc(c->graph->arena, sizeof *data);
    if (!data) {
        c->failed = true;
        return -1;
    }
    *data = (float)x;
    return terse_graph_add_constant(c->graph, "composed.number", TERSE_FP32, 0, NULL, data);
}

static int integer(composer *c, int64_t x)
{
    int64_t *data = terse_arena_alloc(c->graph->arena, sizeof *data);
    if (!data) {
        c->failed = true;
        return -1;
    }
    *data = x;
    return terse_graph_add_constant(c->graph, "composed.integer", TERSE_INT64, 0, NULL, data);
}

static int integers(composer *c, const int64_t *x, int n)
{
    const int value = terse_graph_add_ints(c->graph, "composed.integers", x, n);
    c->failed = c->failed || value < 0;
    return value;
}

/* The node that was added last; NULL when memory is out. */
static terse_node *last_node(const composer *c)
{
    return c->failed ? NULL : &c->graph->nodes[c->graph->n_nodes - 1];
}

/* The node's output becomes `op` of what the node gives (with `other` as second operand, or alone). */
static void behind(composer *c, terse_op op, int other)
{
    const int given = new_value(c), output = self(c)->n_outputs > 0 ? self(c)->outputs[0] : TERSE_NO_VALUE;
    if (c->failed || output < 0)
        return;
    self(c)->outputs[0] = given;
    c->failed = !terse_graph_add_node(c->graph, op, c->name, (int[]){given, other}, other < 0 ? 1 : 2, &output, 1);
}

/* Fails where one of the first `n` inputs is missing: they will be read. */
static int begin(terse_onnx_builder *builder, int index, int n, composer *ret_composer, terse_error *error)
{
    *ret_composer = (composer){builder, builder->graph, index, builder->graph->nodes[index].name, false};
    for (int i = 0; i < n; i++)
        if (input(ret_composer, i) < 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "lacks input %d", i);
    return TERSE_OK;
}

/* --- any number of operands --------------------------------------------------------------------------------------- */

/* All operands but the last added up; the node adds that one. One operand alone is handed on. */
static int add_up(terse_onnx_builder *builder, int index, terse_error *error)
{
    const int n = builder->graph->nodes[index].n_inputs;
    composer c;
    const int status = begin(builder, index, n > 0 ? n : 1, &c, error);
    if (status != TERSE_OK)
        return status;
    if (n == 1) {
        self(&c)->op = TERSE_OP_IDENTITY;
        return TERSE_OK;
    }
    int sum = input(&c, 0);
    for (int i = 1; i < n - 1 && !c.failed; i++)
        sum = two(&c, TERSE_OP_ADD, sum, input(&c, i));
    set_input(&c, 1, input(&c, n - 1));
    set_input(&c, 0, sum);
    self(&c)->n_inputs = 2;
    return done(&c, error);
}

int terse_onnx_compose_sum(terse_onnx_builder *builder, int index, terse_error *error)
{
    return add_up(builder, index, error);
}

int terse_onnx_compose_mean(terse_onnx_builder *builder, int index, terse_error *error)
{
    const int n = builder->graph->nodes[index].n_inputs;
    composer c;
    int status = add_up(builder, index, error);
    if (status == TERSE_OK)
        status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    behind(&c, TERSE_OP_DIV, number(&c, (double)n));
    return done(&c, error);
}

/* --- reductions --------------------------------------------------------------------------------------------------- */

/* The axes of all of them but ReduceSum moved to an input in opset 18. */
static int reduce_around(terse_onnx_builder *builder, int index, terse_op before, terse_op after, terse_error *error)
{
    composer c;
    int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    status = terse_onnx_reduce_axes(builder, index, 18, error);
    if (status != TERSE_OK)
        return status;
    const int x = input(&c, 0);
    if (before == TERSE_OP_MUL)
        set_input(&c, 0, two(&c, before, x, x));
    else if (before != TERSE_OP_COUNT)
        set_input(&c, 0, one(&c, before, x));
    if (after != TERSE_OP_COUNT)
        behind(&c, after, TERSE_NO_VALUE);
    return done(&c, error);
}

int terse_onnx_compose_reduce_l1(terse_onnx_builder *builder, int index, terse_error *error)
{
    return reduce_around(builder, index, TERSE_OP_ABS, TERSE_OP_COUNT, error);
}

int terse_onnx_compose_reduce_l2(terse_onnx_builder *builder, int index, terse_error *error)
{
    return reduce_around(builder, index, TERSE_OP_MUL, TERSE_OP_SQRT, error);
}

int terse_onnx_compose_reduce_sum_square(terse_onnx_builder *builder, int index, terse_error *error)
{
    return reduce_around(builder, index, TERSE_OP_MUL, TERSE_OP_COUNT, error);
}

int terse_onnx_compose_reduce_log_sum(terse_onnx_builder *builder, int index, terse_error *error)
{
    return reduce_around(builder, index, TERSE_OP_COUNT, TERSE_OP_LOG, error);
}

int terse_onnx_compose_reduce_min(terse_onnx_builder *builder, int index, terse_error *error)
{
    return reduce_around(builder, index, TERSE_OP_NEG, TERSE_OP_NEG, error);
}

/* A ReduceMax like the node, of the same input. */
static int same_maximum(composer *c, int64_t keepdims)
{
    const int64_t noop = terse_node_int(self(c), "noop_with_empty_axes", 0);
    const int value = new_value(c), inputs[] = {input(c, 0), input(c, 1)};
    if (c->failed)
        return -1;
    terse_node *node =
        terse_graph_add_node(c->graph, TERSE_OP_REDUCE_MAX, c->name, inputs, inputs[1] < 0 ? 1 : 2, &value, 1);
    set_int(c, node, "keepdims", keepdims);
    if (!c->failed)
        set_int(c, node, "noop_with_empty_axes", noop);
    return value;
}

/* log(sum(exp(x - max))) + max: no exponential overflows. */
int terse_onnx_compose_reduce_log_sum_exp(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    status = terse_onnx_reduce_axes(builder, index, 18, error);
    if (status != TERSE_OK)
        return status;
    const int wide = same_maximum(&c, 1), last = same_maximum(&c, terse_node_int(self(&c), "keepdims", 1));
    set_input(&c, 0, one(&c, TERSE_OP_EXP, two(&c, TERSE_OP_SUB, input(&c, 0), wide)));
    behind(&c, TERSE_OP_ADD, last);
    if (c.failed)
        return terse_onnx_no_memory(error);
    /* behind() gave the sum to the Add; its logarithm goes between */
    terse_node *add = &c.graph->nodes[c.graph->n_nodes - 1];
    const int add_index = c.graph->n_nodes - 1, logarithm = one(&c, TERSE_OP_LOG, add->inputs[0]);
    c.failed = c.failed || !terse_onnx_set_input(c.graph, add_index, 0, logarithm);
    return done(&c, error);
}

int terse_onnx_compose_arg_min(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    set_input(&c, 0, one(&c, TERSE_OP_NEG, input(&c, 0)));
    return done(&c, error);
}

int terse_onnx_compose_size(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    set_input(&c, 0, one(&c, TERSE_OP_SHAPE, input(&c, 0)));
    set_int(&c, self(&c), "keepdims", 0);
    return done(&c, error);
}

/* --- norms -------------------------------------------------------------------------------------------------------- */

int terse_onnx_compose_lp_normalization(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const int64_t axis = terse_node_int(self(&c), "axis", -1), p = terse_node_int(self(&c), "p", 2);
    if (p != 1 && p != 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "p is %" PRId64 ", allowed are 1 and 2", p);
    terse_onnx_attribute_drop(self(&c), "axis");
    terse_onnx_attribute_drop(self(&c), "p");
    const int x = input(&c, 0), axes = terse_graph_add_ints(c.graph, "composed.axes", &axis, 1);
    const int terms = p == 1 ? one(&c, TERSE_OP_ABS, x) : two(&c, TERSE_OP_MUL, x, x);
    const int sum = two(&c, TERSE_OP_REDUCE_SUM, terms, axes);
    const int norm = p == 1 ? sum : one(&c, TERSE_OP_SQRT, sum);
    set_input(&c, 1, two(&c, TERSE_OP_MAX, norm, number(&c, FLT_MIN))); /* nothing but zeros stays so */
    return done(&c, error);
}

/* The numbers first, first + 1 ... rank of x - 1 + more: known as soon as the rank is. */
static int up_to_rank(composer *c, int64_t first, int x, int64_t more)
{
    const int rank = one(c, TERSE_OP_REDUCE_PROD, one(c, TERSE_OP_SHAPE, one(c, TERSE_OP_SHAPE, x)));
    set_int(c, last_node(c), "keepdims", 0);
    const int end = two(c, TERSE_OP_ADD, rank, integer(c, more));
    return make(c, TERSE_OP_RANGE, (int[]){integer(c, first), end, integer(c, 1)}, 3);
}

/* x / sqrt(mean(x^2) + epsilon) * scale, the mean over everything from `axis` on. */
int terse_onnx_compose_rms_normalization(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 2, &c, error);
    if (status != TERSE_OK)
        return status;
    const int64_t axis = terse_node_int(self(&c), "axis", -1);
    const double epsilon = terse_node_float(self(&c), "epsilon", 1e-5);
    if (axis >= TERSE_MAX_RANK || axis < -TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis is %" PRId64 ", allowed is %d to %d", axis,
                          -TERSE_MAX_RANK, TERSE_MAX_RANK - 1);
    terse_onnx_attribute_drop(self(&c), "axis");
    terse_onnx_attribute_drop(self(&c), "epsilon");
    terse_onnx_attribute_drop(self(&c), "stash_type"); /* all is computed in FP32 */
    int64_t from_end[TERSE_MAX_RANK];
    for (int64_t i = axis; i < 0; i++)
        from_end[i - axis] = i;
    const int x = input(&c, 0);
    const int axes =
        axis < 0 ? terse_graph_add_ints(c.graph, "composed.axes", from_end, (int)-axis) : up_to_rank(&c, axis, x, 0);
    const int mean = two(&c, TERSE_OP_REDUCE_MEAN, two(&c, TERSE_OP_MUL, x, x), axes);
    const int root = one(&c, TERSE_OP_SQRT, two(&c, TERSE_OP_ADD, mean, number(&c, epsilon)));
    set_input(&c, 0, two(&c, TERSE_OP_DIV, x, root));
    return done(&c, error);
}

/* Statistics of the batch instead of those that were learned: over all axes but the channels', on [N, C, rest]. What is
 * learned next of both (outputs 1 and 2) is old * momentum + new * (1 - momentum). */
int terse_onnx_compose_batch_statistics(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 5, &c, error);
    if (status != TERSE_OK)
        return status;
    const double epsilon = terse_node_float(self(&c), "epsilon", 1e-5);
    const double momentum = terse_node_float(self(&c), "momentum", 0.9);
    const int x = input(&c, 0), scale = input(&c, 1), bias = input(&c, 2), inner = integers(&c, (int64_t[]){1}, 1);
    const int around = integers(&c, (int64_t[]){0, 2}, 2);
    const int flat = two(&c, TERSE_OP_RESHAPE, x, integers(&c, (int64_t[]){0, 0, -1}, 3));
    const int mean = two(&c, TERSE_OP_REDUCE_MEAN, flat, around), centred = two(&c, TERSE_OP_SUB, flat, mean);
    const int variance = two(&c, TERSE_OP_REDUCE_MEAN, two(&c, TERSE_OP_MUL, centred, centred), around);
    const int root = one(&c, TERSE_OP_SQRT, two(&c, TERSE_OP_ADD, variance, number(&c, epsilon)));
    const int scaled =
        two(&c, TERSE_OP_MUL, two(&c, TERSE_OP_DIV, centred, root), two(&c, TERSE_OP_UNSQUEEZE, scale, inner));
    const int moved = two(&c, TERSE_OP_ADD, scaled, two(&c, TERSE_OP_UNSQUEEZE, bias, inner));
    for (int i = 1; i < self(&c)->n_outputs && i < 3 && !c.failed; i++) {
        if (self(&c)->outputs[i] < 0)
            continue;
        const int seen = two(&c, TERSE_OP_MUL, two(&c, TERSE_OP_SQUEEZE, i == 1 ? mean : variance, around),
                             number(&c, 1 - momentum));
        const int kept = two(&c, TERSE_OP_MUL, input(&c, 2 + i), number(&c, momentum));
        c.failed = c.failed || !terse_graph_add_node(c.graph, TERSE_OP_ADD, c.name, (int[]){kept, seen}, 2,
                                                     &self(&c)->outputs[i], 1);
    }
    const int shape = one(&c, TERSE_OP_SHAPE, x);
    terse_node *node = self(&c);
    terse_onnx_attribute_drop(node, "epsilon");
    terse_onnx_attribute_drop(node, "momentum");
    node->op = TERSE_OP_RESHAPE;
    node->n_outputs = 1;
    set_input(&c, 0, moved);
    set_input(&c, 1, shape);
    node->n_inputs = 2;
    return done(&c, error);
}

/* --- element by element ------------------------------------------------------------------------------------------- */

int terse_onnx_compose_mish(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    set_input(&c, 1, one(&c, TERSE_OP_TANH, one(&c, TERSE_OP_SOFTPLUS, input(&c, 0))));
    return done(&c, error);
}

/* x * sigmoid(alpha * x) */
int terse_onnx_compose_swish(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const double alpha = terse_node_float(self(&c), "alpha", 1.0);
    terse_onnx_attribute_drop(self(&c), "alpha");
    const int x = input(&c, 0), scaled = alpha == 1.0 ? x : two(&c, TERSE_OP_MUL, x, number(&c, alpha));
    set_input(&c, 1, one(&c, TERSE_OP_SIGMOID, scaled));
    return done(&c, error);
}

/* max(0, x) + min(0, alpha * (exp(x / alpha) - 1)) is alpha * Elu(x / alpha) with Elu's alpha 1. */
int terse_onnx_compose_celu(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const double alpha = terse_node_float(self(&c), "alpha", 1.0);
    terse_onnx_attribute_drop(self(&c), "alpha");
    const int scaled = alpha == 1.0 ? input(&c, 0) : two(&c, TERSE_OP_DIV, input(&c, 0), number(&c, alpha));
    set_input(&c, 0, one(&c, TERSE_OP_ELU, scaled));
    set_input(&c, 1, number(&c, alpha));
    return done(&c, error);
}

/* x where it is above alpha, else 0 */
int terse_onnx_compose_thresholded_relu(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const double alpha = terse_node_float(self(&c), "alpha", 1.0);
    terse_onnx_attribute_drop(self(&c), "alpha");
    const int x = input(&c, 0);
    set_input(&c, 2, number(&c, 0.0));
    set_input(&c, 1, x);
    set_input(&c, 0, two(&c, TERSE_OP_GREATER, x, number(&c, alpha)));
    return done(&c, error);
}

int terse_onnx_compose_tan(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const int x = input(&c, 0);
    set_input(&c, 1, one(&c, TERSE_OP_COS, x));
    set_input(&c, 0, one(&c, TERSE_OP_SIN, x));
    return done(&c, error);
}

/* Only NaN is not what it is. */
int terse_onnx_compose_is_nan(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const int x = input(&c, 0);
    set_input(&c, 0, two(&c, TERSE_OP_EQUAL, x, x));
    return done(&c, error);
}

int terse_onnx_compose_xor(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 2, &c, error);
    if (status != TERSE_OK)
        return status;
    set_input(&c, 0, two(&c, TERSE_OP_EQUAL, input(&c, 0), input(&c, 1)));
    self(&c)->n_inputs = 1;
    return done(&c, error);
}

/* --- what moves elements ------------------------------------------------------------------------------------------ */

static int every(composer *c, int x, int64_t row, int64_t column, int64_t step)
{
    const int starts = terse_graph_add_ints(c->graph, "composed.starts", (int64_t[]){row, column}, 2);
    const int ends = terse_graph_add_ints(c->graph, "composed.ends", (int64_t[]){INT64_MAX, INT64_MAX}, 2);
    const int axes = terse_graph_add_ints(c->graph, "composed.axes", (int64_t[]){2, 3}, 2);
    const int steps = terse_graph_add_ints(c->graph, "composed.steps", (int64_t[]){step, step}, 2);
    return make(c, TERSE_OP_SLICE, (int[]){x, starts, ends, axes, steps}, 5);
}

/* Each pixel of a block is an image of its own; they lie behind one another in the channels. */
int terse_onnx_compose_space_to_depth(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 1, &c, error);
    if (status != TERSE_OK)
        return status;
    const int64_t size = terse_node_int(self(&c), "blocksize", 0);
    if (size < 1 || size > MOST_BLOCKS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "blocksize is %" PRId64 ", allowed is 1 to %d", size,
                          MOST_BLOCKS);
    terse_onnx_attribute_drop(self(&c), "blocksize");
    const int x = input(&c, 0);
    for (int64_t i = size * size - 1; i >= 0 && !c.failed; i--)
        set_input(&c, (int)i, every(&c, x, i / size, i % size, size));
    set_int(&c, self(&c), "axis", 1);
    return done(&c, error);
}

/* 0 .. depth - 1 as they lie along `axis` of the output: axes of size 1 behind them where others follow. */
static int places_along(composer *c, int64_t axis, int indices, int depth)
{
    const int places = make(c, TERSE_OP_RANGE, (int[]){integer(c, 0), depth, integer(c, 1)}, 3);
    if (axis == -1)
        return places;
    int64_t behind_it[TERSE_MAX_RANK];
    for (int64_t i = 0; i < -1 - axis; i++)
        behind_it[i] = i + 1;
    const int axes = axis < 0 ? terse_graph_add_ints(c->graph, "composed.axes", behind_it, (int)(-1 - axis))
                              : up_to_rank(c, 1, indices, 1 - axis);
    return two(c, TERSE_OP_UNSQUEEZE, places, axes);
}

/* Indices count from 0 to depth - 1, negative ones from the end; one that is neither has no place. */
int terse_onnx_compose_one_hot(terse_onnx_builder *builder, int index, terse_error *error)
{
    composer c;
    const int status = begin(builder, index, 3, &c, error);
    if (status != TERSE_OK)
        return status;
    const int64_t axis = terse_node_int(self(&c), "axis", -1);
    if (axis >= TERSE_MAX_RANK || axis < -TERSE_MAX_RANK)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "axis is %" PRId64 ", allowed is %d to %d", axis,
                          -TERSE_MAX_RANK, TERSE_MAX_RANK - 1);
    terse_onnx_attribute_drop(self(&c), "axis");
    const int values = input(&c, 2), indices = one(&c, TERSE_OP_CAST, input(&c, 0));
    set_int(&c, last_node(&c), "to", TERSE_INT64);
    const int wide = one(&c, TERSE_OP_CAST, input(&c, 1));
    set_int(&c, last_node(&c), "to", TERSE_INT64);
    const int depth = one(&c, TERSE_OP_REDUCE_SUM, wide); /* a number, also when it comes as a list of one */
    set_int(&c, last_node(&c), "keepdims", 0);
    const int zero = integer(&c, 0), places = places_along(&c, axis, indices, depth);
    const int negative = two(&c, TERSE_OP_LESS, indices, zero), from_end = two(&c, TERSE_OP_ADD, indices, depth);
    const int wrapped = make(&c, TERSE_OP_WHERE, (int[]){negative, from_end, indices}, 3);
    const int along = terse_graph_add_ints(c.graph, "composed.axes", &axis, 1);
    set_input(&c, 0, two(&c, TERSE_OP_EQUAL, two(&c, TERSE_OP_UNSQUEEZE, wrapped, along), places));
    set_input(&c, 1, two(&c, TERSE_OP_GATHER, values, integer(&c, 1)));
    set_input(&c, 2, two(&c, TERSE_OP_GATHER, values, zero));
    return done(&c, error);
}
