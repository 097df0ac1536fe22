/* SPDX-License-Identifier: Apache-2.0 */
/* Attention as exporters write it, one head beside the other: q, k and v [B,T,H,D] are transposed to [B,H,...],
 * multiplied, scaled, masked, put through Softmax, multiplied again and transposed back. HeadAttention does it head by
 * head without moving anything. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <math.h>
#include <string.h>

typedef struct attention {
    int q, k, v, mask;
    double scale;
} attention;

/* x when `value` is x [B,T,H,D] as [B,H,T,D] or, `turned`, as [B,H,D,T]; else -1. */
static int heads_of(const terse_edit *edit, int value, bool turned)
{
    static const int64_t orders[2][4] = {{0, 2, 1, 3}, {0, 2, 3, 1}};
    const int node = value < 0 ? -1 : terse_edit_maker(edit, value, TERSE_OP_TRANSPOSE);
    const terse_attr *perm = node < 0 ? NULL : terse_node_attr(&edit->graph->nodes[node], "perm");
    if (!perm || perm->kind != TERSE_ATTR_INTS || perm->n != 4 ||
        memcmp(perm->ints, orders[turned], sizeof orders[turned]) != 0)
        return -1;
    const int x = terse_edit_input(edit, node, 0);
    return x >= 0 && edit->graph->values[x].dtype == TERSE_FP32 && edit->graph->values[x].rank == 4 ? x : -1;
}

/* The same behind a factor, which exporters put on q and k, each its root: *scale is multiplied by it. */
static int scaled_heads_of(const terse_edit *edit, int value, bool turned, double *scale)
{
    for (int op = 0; op < 2 && value >= 0 && edit->uses[value] == 1; op++) {
        const int node = terse_edit_maker(edit, value, op ? TERSE_OP_DIV : TERSE_OP_MUL);
        for (int side = 0; node >= 0 && side < 2 - op; side++) {
            double number;
            const int x = terse_edit_input(edit, node, side);
            if (x < 0 || !terse_edit_scalar(edit, terse_edit_input(edit, node, 1 - side), &number) ||
                !isfinite(number) || number == 0.0 || !terse_edit_same_shape(edit, x, value))
                continue;
            *scale *= op ? 1.0 / number : number;
            return heads_of(edit, x, turned);
        }
    }
    return heads_of(edit, value, turned);
}

/* A MatMul of two FP32 values of rank 4 and nothing else; -1 otherwise. */
static int plain_product(const terse_edit *edit, int value)
{
    const int node = value < 0 || edit->uses[value] != 1 ? -1 : terse_edit_maker(edit, value, TERSE_OP_MATMUL);
    if (node < 0 || edit->graph->values[value].dtype != TERSE_FP32 || edit->graph->values[value].rank != 4)
        return -1;
    return edit->graph->nodes[node].n_inputs == 2 && !terse_node_attr(&edit->graph->nodes[node], "activation") ? node
                                                                                                               : -1;
}

/* Is `mask` something that broadcasts to the scores without repeating along their last axis? */
static bool is_mask(const terse_edit *edit, int mask, int scores)
{
    const terse_value *m = &edit->graph->values[mask], *s = &edit->graph->values[scores];
    if (m->dtype != TERSE_FP32 || m->rank < 1 || m->rank > 4 || s->rank != 4)
        return false;
    for (int i = 0; i < m->rank; i++) {
        const int64_t dim = m->dims[m->rank - 1 - i];
        if (dim != s->dims[3 - i] && (i == 0 || dim != 1))
            return false;
    }
    return true;
}

/* `value` is product, product * number, or one of them + mask. */
static int scores_of(const terse_edit *edit, int value, attention *a)
{
    if (value < 0 || edit->graph->values[value].rank != 4)
        return -1;
    const int add = edit->uses[value] == 1 ? terse_edit_maker(edit, value, TERSE_OP_ADD) : -1;
    a->mask = TERSE_NO_VALUE;
    for (int side = 0; add >= 0 && side < 2; side++) {
        const int scores = terse_edit_input(edit, add, side), mask = terse_edit_input(edit, add, 1 - side);
        attention inner = *a;
        const int product =
            scores < 0 || mask < 0 || !is_mask(edit, mask, scores) || terse_edit_maker(edit, scores, TERSE_OP_ADD) >= 0
                ? -1
                : scores_of(edit, scores, &inner);
        if (product >= 0) {
            *a = inner;
            a->mask = mask;
            return product;
        }
    }
    a->scale = 1.0;
    for (int op = 0; op < 2; op++) {
        const int node = edit->uses[value] == 1 ? terse_edit_maker(edit, value, op ? TERSE_OP_DIV : TERSE_OP_MUL) : -1;
        for (int side = 0; node >= 0 && side < 2 - op; side++) {
            double number;
            if (!terse_edit_scalar(edit, terse_edit_input(edit, node, 1 - side), &number) || !isfinite(number) ||
                number == 0.0)
                continue;
            a->scale = op ? 1.0 / number : number;
            return plain_product(edit, terse_edit_input(edit, node, side));
        }
    }
    return plain_product(edit, value);
}

/* The attention whose result, heads first, is `value`. */
static bool find(const terse_edit *edit, int value, attention *ret_attention)
{
    const int outer = plain_product(edit, value);
    const int weights = outer < 0 ? -1 : terse_edit_input(edit, outer, 0);
    const int softmax =
        weights < 0 || edit->uses[weights] != 1 ? -1 : terse_edit_maker(edit, weights, TERSE_OP_SOFTMAX);
    if (softmax < 0 || terse_edit_axis(edit, softmax, "axis", -1, 4) != 3)
        return false;
    attention a;
    const int inner = scores_of(edit, terse_edit_input(edit, softmax, 0), &a);
    if (inner < 0)
        return false;
    a.q = scaled_heads_of(edit, terse_edit_input(edit, inner, 0), false, &a.scale);
    a.k = scaled_heads_of(edit, terse_edit_input(edit, inner, 1), true, &a.scale);
    a.v = heads_of(edit, terse_edit_input(edit, outer, 1), false);
    if (a.q < 0 || a.k < 0 || a.v < 0)
        return false;
    const int64_t *q = edit->graph->values[a.q].dims, *k = edit->graph->values[a.k].dims,
                  *v = edit->graph->values[a.v].dims;
    *ret_attention = a;
    /* Nothing is broadcast between the products' operands. */
    return q[0] == k[0] && q[0] == v[0] && q[2] == k[2] && q[2] == v[2];
}

int terse_pass_attention(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        attention a;
        if (graph->nodes[node].op != TERSE_OP_TRANSPOSE || graph->nodes[node].outputs[0] < 0)
            continue;
        const int y = graph->nodes[node].outputs[0], heads = heads_of(&edit, y, false);
        if (heads < 0 || !find(&edit, heads, &a))
            continue;
        const int inputs[4] = {a.q, a.k, a.v, a.mask};
        const char *name = graph->nodes[edit.producer[heads]].name;
        terse_edit_remove(&edit, node);
        const int made = terse_edit_add_node(&edit, TERSE_OP_HEAD_ATTENTION, name, inputs, a.mask >= 0 ? 4 : 3, &y, 1);
        if (made >= 0 && a.scale != 1.0 && !terse_node_set_float(graph, &graph->nodes[made], "scale", a.scale))
            edit.failed = true;
    }
    return terse_edit_close(&edit, error);
}
