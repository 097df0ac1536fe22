/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. INT8 activations become UINT8: each number is 128 higher, that is, its top bit is turned, and so is its
 * zero point, so that what it stands for stays exactly as it is. A value that a QuantizeLinear (or a product of bytes)
 * makes gets a *twin* made in its place; operators that only move elements go on with twins; whoever dequantizes or
 * multiplies reads them. The INT8 value itself is made from its twin where a graph output or anybody else wants it, by
 * Add 128 and Cast, which wrap around; likewise the twin of an INT8 graph input. Constants that are operands of
 * anything but a product are turned too; unsign_weights.c sees to weights. */
#include "compress/passes/passes.h"
#include "compress/passes/unsign.h"

#include <stdlib.h>
#include <string.h>

typedef struct unsigning {
    terse_edit edit;
    int n;       /* values before the pass: those may have a twin */
    int *twin;   /* the UINT8 value, or -1 */
    char *plain; /* whether the INT8 value is made */
    int *weight_uses;
} unsigning;

static bool is_signed(const unsigning *u, int value)
{
    return value >= 0 && value < u->n && u->edit.graph->values[value].dtype == TERSE_INT8 &&
           u->edit.graph->values[value].rank >= 0;
}

/* A UINT8 value with the name and dims of `value`. */
static int add_twin(unsigning *u, int value)
{
    const int twin = terse_edit_add_like(&u->edit, value, "/u8");
    if (twin >= 0)
        u->edit.graph->values[twin].dtype = TERSE_UINT8;
    return twin;
}

static int turned_constant(unsigning *u, int value)
{
    const terse_value old = u->edit.graph->values[value];
    uint8_t *data = terse_edit_alloc(&u->edit, old.bytes + 1);
    for (size_t i = 0; data && i < old.bytes; i++)
        data[i] = ((const uint8_t *)old.data)[i] ^ 0x80;
    return data ? terse_edit_add_constant(&u->edit, old.name, TERSE_UINT8, old.rank, old.dims, data) : -1;
}

static int number_128(unsigning *u)
{
    uint8_t *data = terse_edit_alloc(&u->edit, 1);
    if (data)
        *data = 128;
    return data ? terse_edit_add_constant(&u->edit, "128", TERSE_UINT8, 0, NULL, data) : -1;
}

/* to = from + 128, both UINT8. */
static void add_turn(unsigning *u, int from, int to)
{
    const int operand = number_128(u);
    if (operand >= 0 && from >= 0 && to >= 0)
        terse_edit_add_node(&u->edit, TERSE_OP_ADD, u->edit.graph->values[to].name, (int[]){from, operand}, 2, &to, 1);
}

static void add_cast(unsigning *u, int from, int to, terse_dtype dtype)
{
    const int node = from < 0 || to < 0 ? -1
                                        : terse_edit_add_node(&u->edit, TERSE_OP_CAST, u->edit.graph->values[to].name,
                                                              &from, 1, &to, 1);
    if (node >= 0 && !terse_node_set_int(u->edit.graph, &u->edit.graph->nodes[node], "to", dtype))
        u->edit.failed = true;
}

/* The UINT8 form of a value that may be a constant, an input, or what some operator makes. */
static int twin_of(unsigning *u, int value)
{
    if (u->twin[value] >= 0)
        return u->twin[value];
    int twin;
    if (terse_edit_is_constant(&u->edit, value)) {
        twin = turned_constant(u, value);
    } else {
        const int same_bits = add_twin(u, value);
        twin = add_twin(u, value);
        add_cast(u, value, same_bits, TERSE_UINT8);
        add_turn(u, same_bits, twin);
    }
    if (twin < 0)
        u->edit.failed = true;
    return u->twin[value] = twin;
}

/* Makes the INT8 value where only its twin is made so far. */
static void make_plain(unsigning *u, int value)
{
    if (value < 0 || value >= u->n || u->plain[value])
        return;
    u->plain[value] = 1;
    const int same_bits = add_twin(u, value);
    add_turn(u, u->twin[value], same_bits);
    add_cast(u, same_bits, value, TERSE_INT8);
}

/* The node makes the twin of its output from now on. */
static void make_twin(unsigning *u, int node, int slot)
{
    const int value = u->edit.graph->nodes[node].outputs[slot];
    const int twin = value < 0 ? -1 : add_twin(u, value);
    if (twin < 0)
        return;
    terse_edit_set_output(&u->edit, node, slot, twin);
    u->twin[value] = twin;
    u->plain[value] = 0;
}

/* The zero point at `slot` (of the dtype of the tensor beside it); an absent one is 0. */
static void turn_zero_point(unsigning *u, int node, int slot, int scale)
{
    const int zero = terse_edit_input(&u->edit, node, slot);
    if (zero >= 0) {
        terse_edit_set_input(&u->edit, node, slot, twin_of(u, zero));
        return;
    }
    const terse_value *like = scale < 0 ? NULL : &u->edit.graph->values[scale];
    const int64_t n = like ? terse_dims_count(like->dims, like->rank) : 1;
    uint8_t *data = n < 0 ? NULL : terse_edit_alloc(&u->edit, (size_t)n + 1);
    if (!data) {
        u->edit.failed = true;
        return;
    }
    memset(data, 128, (size_t)n);
    const int made = terse_edit_add_constant(&u->edit, "zero_point", TERSE_UINT8, like ? like->rank : 0,
                                             like ? like->dims : NULL, data);
    if (made >= 0)
        terse_edit_set_input(&u->edit, node, slot, made);
}

/* Whether a zero point is there, or its shape is known. */
static bool can_turn(const unsigning *u, int node, int slot, int scale)
{
    const terse_value *like = scale < 0 ? NULL : &u->edit.graph->values[scale];
    if (terse_edit_input(&u->edit, node, slot) >= 0 || !like)
        return true;
    for (int i = 0; i < like->rank; i++)
        if (like->dims[i] < 0)
            return false;
    return like->rank >= 0;
}

static void visit_quantize(unsigning *u, int node)
{
    const int scale = terse_edit_input(&u->edit, node, 1);
    if (!is_signed(u, u->edit.graph->nodes[node].outputs[0]) || !can_turn(u, node, 2, scale))
        return;
    turn_zero_point(u, node, 2, scale);
    terse_node *n = &u->edit.graph->nodes[node];
    if (terse_node_attr(n, "output_dtype") && !terse_node_set_int(u->edit.graph, n, "output_dtype", TERSE_UINT8))
        u->edit.failed = true;
    make_twin(u, node, 0);
}

/* Input `slot` and its zero point; weights stay INT8. */
static void turn_operand(unsigning *u, int node, int slot, int zero_point, int scale)
{
    const int value = terse_edit_input(&u->edit, node, slot);
    if (!is_signed(u, value) || !can_turn(u, node, zero_point, scale))
        return;
    terse_edit_set_input(&u->edit, node, slot, twin_of(u, value));
    turn_zero_point(u, node, zero_point, scale);
}

static void visit_dequantize(unsigning *u, int node)
{
    const int y = u->edit.graph->nodes[node].outputs[0];
    if (terse_edit_is_constant(&u->edit, terse_edit_input(&u->edit, node, 0)) && y >= 0 && u->weight_uses[y] > 0)
        return;
    turn_operand(u, node, 0, 2, terse_edit_input(&u->edit, node, 1));
}

static bool has_twin(const unsigning *u, int value)
{
    return value >= 0 && value < u->n && u->twin[value] >= 0 && !terse_edit_is_constant(&u->edit, value);
}

static void move_twins(unsigning *u, int node, int n_inputs)
{
    for (int i = 0; i < n_inputs; i++)
        if (terse_edit_input(&u->edit, node, i) >= 0)
            terse_edit_set_input(&u->edit, node, i, twin_of(u, u->edit.graph->nodes[node].inputs[i]));
    for (int i = 0; i < u->edit.graph->nodes[node].n_outputs && !u->edit.failed; i++)
        make_twin(u, node, i);
}

/* Operators that move elements, or pick the largest: the order of numbers stays. */
static void visit_move(unsigning *u, int node)
{
    const terse_node *n = &u->edit.graph->nodes[node];
    const int x = terse_edit_input(&u->edit, node, 0);
    switch (n->op) {
    case TERSE_OP_MAX_POOL:
        if (n->n_outputs > 1)
            return;
        break;
    case TERSE_OP_PAD: { /* what is padded with is 0 unless it is said */
        const int fill = terse_edit_input(&u->edit, node, 2);
        if (!has_twin(u, x) || (fill >= 0 && !is_signed(u, fill)))
            return;
        if (fill >= 0 || strcmp(terse_node_text(n, "mode", "constant"), "constant") == 0)
            terse_edit_set_input(&u->edit, node, 2, fill >= 0 ? twin_of(u, fill) : number_128(u));
        break;
    }
    case TERSE_OP_CONCAT: {
        bool any = false;
        for (int i = 0; i < n->n_inputs; i++)
            any = any || has_twin(u, n->inputs[i]);
        if (any)
            move_twins(u, node, n->n_inputs);
        return;
    }
    case TERSE_OP_RESIZE: /* only the nearest neighbour works on bytes */
    case TERSE_OP_RESHAPE:
    case TERSE_OP_FLATTEN:
    case TERSE_OP_SQUEEZE:
    case TERSE_OP_UNSQUEEZE:
    case TERSE_OP_TRANSPOSE:
    case TERSE_OP_EXPAND:
    case TERSE_OP_TILE:
    case TERSE_OP_DEPTH_TO_SPACE:
    case TERSE_OP_GATHER:
    case TERSE_OP_GATHER_ELEMENTS:
    case TERSE_OP_GATHER_ND:
    case TERSE_OP_SLICE:
    case TERSE_OP_SPLIT:
    case TERSE_OP_IDENTITY:
        break;
    default:
        return;
    }
    if (has_twin(u, x))
        move_twins(u, node, 1);
}

static void visit(unsigning *u, int node)
{
    switch (u->edit.graph->nodes[node].op) {
    case TERSE_OP_COUNT:
        return;
    case TERSE_OP_QUANTIZE_LINEAR:
        visit_quantize(u, node);
        break;
    case TERSE_OP_DEQUANTIZE_LINEAR:
        visit_dequantize(u, node);
        break;
    case TERSE_OP_MATMUL_INTEGER:
    case TERSE_OP_CONV_INTEGER:
        turn_operand(u, node, 0, 2, -1);
        break;
    case TERSE_OP_QLINEAR_MATMUL:
    case TERSE_OP_QLINEAR_CONV:
        turn_operand(u, node, 0, 2, -1);
        if (is_signed(u, u->edit.graph->nodes[node].outputs[0])) {
            turn_zero_point(u, node, 7, -1);
            make_twin(u, node, 0);
        }
        break;
    default:
        visit_move(u, node);
    }
    for (int i = 0; i < u->edit.graph->nodes[node].n_inputs && !u->edit.failed; i++)
        make_plain(u, u->edit.graph->nodes[node].inputs[i]);
}

static int unsign_activations(terse_graph *graph, terse_error *error)
{
    unsigning u = {.n = graph->n_values};
    const int status = terse_edit_open(graph, &u.edit, error);
    if (status != TERSE_OK)
        return status;
    u.twin = malloc(((size_t)u.n + 1) * sizeof *u.twin);
    u.plain = malloc((size_t)u.n + 1);
    u.weight_uses = terse_unsign_weight_uses(&u.edit);
    u.edit.failed = !u.twin || !u.plain || !u.weight_uses;
    for (int v = 0; v < u.n && !u.edit.failed; v++) {
        u.twin[v] = -1;
        u.plain[v] = 1;
    }
    for (int node = 0, n = graph->n_nodes; node < n && !u.edit.failed; node++)
        visit(&u, node);
    for (int i = 0; i < graph->n_outputs && !u.edit.failed; i++)
        make_plain(&u, graph->outputs[i]);
    free(u.twin);
    free(u.plain);
    free(u.weight_uses);
    return terse_edit_close(&u.edit, error);
}

int terse_pass_unsign(terse_graph *graph, terse_error *error)
{
    const int status = terse_unsign_weights(graph, error);
    return status == TERSE_OK ? unsign_activations(graph, error) : status;
}
