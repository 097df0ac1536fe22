/* SPDX-License-Identifier: Apache-2.0 */
/* Exporters write Gelu, HardSwish and LayerNormalization out in small operators, in many orders. A product is flattened
 * to coefficient * factor * factor ..., so that the order and where the numbers stand do not matter. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <math.h>

enum { MAX_FACTORS = 4, MAX_TREE = 6 };

typedef struct product {
    double coefficient;
    int factors[MAX_FACTORS], n;
    int nodes[MAX_TREE], n_nodes; /* Mul and Div nodes that make it up, the root first */
} product;

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-4 * fabs(b);
}

/* Flattens Mul and Div by a number from `value` on; inner nodes must have no other reader. */
static bool collect(const terse_edit *edit, int value, bool root, product *p)
{
    double number;
    if (value < 0)
        return false;
    if (terse_edit_scalar(edit, value, &number)) {
        p->coefficient *= number;
        return true;
    }
    const int node = edit->producer[value];
    const terse_op op = node < 0 ? TERSE_OP_COUNT : edit->graph->nodes[node].op;
    const bool inner = (root || edit->uses[value] == 1) && p->n_nodes < MAX_TREE;
    if (op == TERSE_OP_MUL && inner) {
        p->nodes[p->n_nodes++] = node;
        return collect(edit, terse_edit_input(edit, node, 0), false, p) &&
               collect(edit, terse_edit_input(edit, node, 1), false, p);
    }
    if (op == TERSE_OP_DIV && inner && terse_edit_scalar(edit, terse_edit_input(edit, node, 1), &number) &&
        number != 0) {
        p->nodes[p->n_nodes++] = node;
        p->coefficient /= number;
        return collect(edit, terse_edit_input(edit, node, 0), false, p);
    }
    if (p->n == MAX_FACTORS)
        return false;
    p->factors[p->n++] = value;
    return true;
}

static bool collect_root(const terse_edit *edit, int value, product *ret_product)
{
    *ret_product = (product){.coefficient = 1.0};
    return collect(edit, value, true, ret_product) && ret_product->n_nodes > 0;
}

/* The other operand of a single-use Add of `number`, or -1. */
static int added_to(const terse_edit *edit, int value, double number)
{
    const int add = terse_edit_maker(edit, value, TERSE_OP_ADD);
    if (add < 0 || edit->uses[value] != 1)
        return -1;
    for (int side = 0; side < 2; side++) {
        double found;
        if (terse_edit_scalar(edit, terse_edit_input(edit, add, side), &found) && near(found, number))
            return terse_edit_input(edit, add, 1 - side);
    }
    return -1;
}

/* x when `value` is x * number, -1 otherwise. */
static int scaled(const terse_edit *edit, int value, double number)
{
    product p;
    const bool good = value >= 0 && edit->uses[value] == 1 && collect_root(edit, value, &p);
    return good && p.n == 1 && near(p.coefficient, number) ? p.factors[0] : -1;
}

/* x^3: Pow(x, 3) or x * x * x. */
static bool is_cube(const terse_edit *edit, int value, int x, double coefficient)
{
    product p;
    if (!collect_root(edit, value, &p) || !near(p.coefficient, coefficient))
        return false;
    if (p.n == 3)
        return p.factors[0] == x && p.factors[1] == x && p.factors[2] == x;
    double exponent;
    const int pow = p.n == 1 ? terse_edit_maker(edit, p.factors[0], TERSE_OP_POW) : -1;
    if (pow >= 0)
        return terse_edit_input(edit, pow, 0) == x &&
               terse_edit_scalar(edit, terse_edit_input(edit, pow, 1), &exponent) && exponent == 3.0;
    return false;
}

/* Is `value` erf(x / sqrt 2) or tanh(sqrt(2/pi) (x + 0.044715 x^3))? */
static bool is_gelu_inner(const terse_edit *edit, int value, int x, const char **ret_approximate)
{
    const int erf = terse_edit_maker(edit, value, TERSE_OP_ERF), tanh = terse_edit_maker(edit, value, TERSE_OP_TANH);
    if (erf >= 0 && edit->uses[value] == 1) {
        *ret_approximate = "none";
        return scaled(edit, terse_edit_input(edit, erf, 0), sqrt(0.5)) == x;
    }
    if (tanh < 0 || edit->uses[value] != 1)
        return false;
    *ret_approximate = "tanh";
    const int sum = scaled(edit, terse_edit_input(edit, tanh, 0), sqrt(2.0 / acos(-1.0)));
    const int add = sum < 0 ? -1 : terse_edit_maker(edit, sum, TERSE_OP_ADD);
    for (int side = 0; add >= 0 && side < 2; side++)
        if (terse_edit_input(edit, add, side) == x && is_cube(edit, terse_edit_input(edit, add, 1 - side), x, 0.044715))
            return true;
    return false;
}

/* Removes a product's nodes and puts one node in their place. */
static int replace(terse_edit *edit, const product *p, terse_op op, int x)
{
    const int y = edit->graph->nodes[p->nodes[0]].outputs[0];
    const char *name = edit->graph->nodes[p->nodes[0]].name;
    for (int i = 0; i < p->n_nodes; i++)
        terse_edit_remove(edit, p->nodes[i]);
    return terse_edit_add_node(edit, op, name, &x, 1, &y, 1);
}

static bool fuse_gelu(terse_edit *edit, const product *p)
{
    if (p->n != 2 || !near(p->coefficient, 0.5))
        return false;
    for (int i = 0; i < 2; i++) {
        const char *approximate;
        const int x = p->factors[i], inner = added_to(edit, p->factors[1 - i], 1.0);
        if (inner < 0 || !is_gelu_inner(edit, inner, x, &approximate))
            continue;
        const int gelu = replace(edit, p, TERSE_OP_GELU, x);
        if (gelu >= 0 && !terse_node_set_text(edit->graph, &edit->graph->nodes[gelu], "approximate", approximate))
            edit->failed = true;
        return true;
    }
    return false;
}

/* x when `value` is Clip(x + 3, 0, 6) with no other reader, -1 otherwise. */
static int hard_gate(const terse_edit *edit, int value)
{
    const int clip = terse_edit_maker(edit, value, TERSE_OP_CLIP);
    double low, high;
    if (clip < 0 || edit->uses[value] != 1 || !terse_edit_scalar(edit, terse_edit_input(edit, clip, 1), &low) ||
        !terse_edit_scalar(edit, terse_edit_input(edit, clip, 2), &high) || low != 0.0 || high != 6.0)
        return -1;
    return added_to(edit, terse_edit_input(edit, clip, 0), 3.0);
}

static bool is_hard_sigmoid_of(const terse_edit *edit, int value, int x)
{
    const int node = terse_edit_maker(edit, value, TERSE_OP_HARD_SIGMOID);
    if (node < 0 || edit->uses[value] != 1 || terse_edit_input(edit, node, 0) != x)
        return false;
    const terse_node *n = &edit->graph->nodes[node];
    return near(terse_node_float(n, "alpha", 0.2), 1.0 / 6.0) && near(terse_node_float(n, "beta", 0.5), 0.5);
}

static bool fuse_hard(terse_edit *edit, const product *p)
{
    if (p->n == 1 && near(p->coefficient, 1.0 / 6.0)) {
        const int x = hard_gate(edit, p->factors[0]);
        if (x < 0)
            return false;
        const int node = replace(edit, p, TERSE_OP_HARD_SIGMOID, x);
        if (node >= 0 && (!terse_node_set_float(edit->graph, &edit->graph->nodes[node], "alpha", 1.0 / 6.0) ||
                          !terse_node_set_float(edit->graph, &edit->graph->nodes[node], "beta", 0.5)))
            edit->failed = true;
        return true;
    }
    for (int i = 0; p->n == 2 && i < 2; i++) {
        const int x = p->factors[i], gate = p->factors[1 - i];
        if ((near(p->coefficient, 1.0 / 6.0) && hard_gate(edit, gate) == x) ||
            (p->coefficient == 1.0 && is_hard_sigmoid_of(edit, gate, x))) {
            replace(edit, p, TERSE_OP_HARD_SWISH, x);
            return true;
        }
    }
    return false;
}

/* The input of a ReduceMean over the last axis that keeps it, or -1. */
static int mean_of(const terse_edit *edit, int value)
{
    const int node = terse_edit_maker(edit, value, TERSE_OP_REDUCE_MEAN);
    if (node < 0 || terse_node_int(&edit->graph->nodes[node], "keepdims", 1) != 1)
        return -1;
    const int x = terse_edit_input(edit, node, 0);
    int64_t axis;
    if (x < 0 || terse_edit_ints(edit, terse_edit_input(edit, node, 1), &axis, 1) != 1)
        return -1;
    return axis == -1 || axis == edit->graph->values[x].rank - 1 ? x : -1;
}

/* Is `value` d^2, as Pow(d, 2) or Mul(d, d)? */
static int square_of(const terse_edit *edit, int value)
{
    const int pow = terse_edit_maker(edit, value, TERSE_OP_POW), mul = terse_edit_maker(edit, value, TERSE_OP_MUL);
    double exponent;
    if (pow >= 0 && terse_edit_scalar(edit, terse_edit_input(edit, pow, 1), &exponent) && exponent == 2.0)
        return terse_edit_input(edit, pow, 0);
    if (mul >= 0 && terse_edit_input(edit, mul, 0) == terse_edit_input(edit, mul, 1))
        return terse_edit_input(edit, mul, 0);
    return -1;
}

/* x when `value` is x - mean(x), -1 otherwise. */
static int centred(const terse_edit *edit, int value)
{
    const int sub = terse_edit_maker(edit, value, TERSE_OP_SUB);
    if (sub < 0)
        return -1;
    const int x = terse_edit_input(edit, sub, 0), mean = terse_edit_input(edit, sub, 1);
    return mean >= 0 && mean_of(edit, mean) == x ? x : -1;
}

/* x and epsilon when `value` is (x - mean) / sqrt(mean((x - mean)^2) + epsilon). */
static int normalized(const terse_edit *edit, int value, double *ret_epsilon)
{
    const int div = terse_edit_maker(edit, value, TERSE_OP_DIV);
    if (div < 0 || edit->uses[value] != 1)
        return -1;
    const int x = centred(edit, terse_edit_input(edit, div, 0));
    const int root = terse_edit_maker(edit, terse_edit_input(edit, div, 1), TERSE_OP_SQRT);
    const int add = root < 0 ? -1 : terse_edit_maker(edit, terse_edit_input(edit, root, 0), TERSE_OP_ADD);
    if (x < 0 || add < 0)
        return -1;
    for (int side = 0; side < 2; side++) {
        if (!terse_edit_scalar(edit, terse_edit_input(edit, add, side), ret_epsilon))
            continue;
        const int variance = terse_edit_input(edit, add, 1 - side);
        const int square = variance < 0 ? -1 : mean_of(edit, variance);
        const int inner = square < 0 ? -1 : square_of(edit, square);
        if (inner >= 0 && centred(edit, inner) == x)
            return x;
    }
    return -1;
}

/* A constant vector of the last dimension of `x`. */
static bool is_row_vector(const terse_edit *edit, int value, int x)
{
    const terse_value *v = value < 0 ? NULL : &edit->graph->values[value], *like = &edit->graph->values[x];
    return v && terse_edit_floats(edit, value) && v->rank == 1 && like->rank >= 1 &&
           v->dims[0] == like->dims[like->rank - 1];
}

/* Add(Mul(normalized x, scale), bias) in either order of the operands. */
static void fuse_layer_norm(terse_edit *edit, int add)
{
    if (edit->graph->nodes[add].n_inputs != 2 || edit->graph->nodes[add].outputs[0] < 0)
        return;
    for (int side = 0; side < 4; side++) {
        const int scaled_value = terse_edit_input(edit, add, side & 1),
                  bias = terse_edit_input(edit, add, 1 - (side & 1));
        const int mul = scaled_value < 0 ? -1 : terse_edit_maker(edit, scaled_value, TERSE_OP_MUL);
        if (mul < 0 || edit->uses[scaled_value] != 1)
            continue;
        double epsilon = 0;
        const int inner = terse_edit_input(edit, mul, side >> 1), scale = terse_edit_input(edit, mul, 1 - (side >> 1));
        const int x = inner < 0 ? -1 : normalized(edit, inner, &epsilon);
        if (x < 0 || edit->graph->values[x].dtype != TERSE_FP32 || !is_row_vector(edit, scale, x) ||
            !is_row_vector(edit, bias, x))
            continue;
        const int y = edit->graph->nodes[add].outputs[0];
        const char *name = edit->graph->nodes[add].name;
        terse_edit_remove(edit, add);
        const int node =
            terse_edit_add_node(edit, TERSE_OP_LAYER_NORMALIZATION, name, (int[]){x, scale, bias}, 3, &y, 1);
        if (node >= 0 && (!terse_node_set_int(edit->graph, &edit->graph->nodes[node], "axis", -1) ||
                          !terse_node_set_float(edit->graph, &edit->graph->nodes[node], "epsilon", epsilon)))
            edit->failed = true;
        return;
    }
}

int terse_pass_patterns(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        const terse_op op = graph->nodes[node].op;
        const int y = graph->nodes[node].n_outputs ? graph->nodes[node].outputs[0] : -1;
        product p;
        if (op == TERSE_OP_ADD)
            fuse_layer_norm(&edit, node);
        else if ((op == TERSE_OP_MUL || op == TERSE_OP_DIV) && y >= 0 && graph->values[y].dtype == TERSE_FP32 &&
                 collect_root(&edit, y, &p) && p.n >= 1 && terse_edit_same_shape(&edit, p.factors[0], y) &&
                 !fuse_gelu(&edit, &p))
            fuse_hard(&edit, &p);
    }
    return terse_edit_close(&edit, error);
}
