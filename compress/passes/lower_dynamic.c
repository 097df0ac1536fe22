/* SPDX-License-Identifier: Apache-2.0 */
/* Dynamic quantization: x becomes bytes with a scale and a zero point that are known only when it is there.
 *
 * Exporters write DynamicQuantizeLinear -> MatMulInteger or ConvInteger -> Cast -> Mul by both scales. The first pass
 * turns that into the form that all quantized networks have, DequantizeLinear -> MatMul or Conv by dequantized weights,
 * one DynamicQuantizeLinear for all that read the same x, so that biases, residuals and activations are folded and
 * fused as everywhere. The second pass gives such products to QGemm and QConv, which complete multiplier and bias at
 * run time.
 */
#include "compress/passes/lower.h"
#include "compress/passes/passes.h"

#include <stdlib.h>
#include <string.h>

/* --- the form of all quantized networks --------------------------------------------------------------------------- */

typedef struct chain {
    int product; /* the MatMulInteger or ConvInteger */
    bool conv;
    int quantize;       /* the DynamicQuantizeLinear */
    int weights, zeros; /* constants; zeros may be TERSE_NO_VALUE */
    int scale;          /* FP32 constant, one number or one for each column (filter) */
} chain;

/* Does `value` come out of slot `slot` of that node? */
static bool is_output(const terse_edit *edit, int value, int node, int slot)
{
    const terse_node *n = &edit->graph->nodes[node];
    return value >= 0 && slot < n->n_outputs && n->outputs[slot] == value;
}

static bool read_product(const terse_edit *edit, int sums, chain *c)
{
    if (sums < 0 || edit->uses[sums] != 1)
        return false;
    c->product = terse_edit_maker(edit, sums, TERSE_OP_MATMUL_INTEGER);
    c->conv = c->product < 0;
    if (c->conv)
        c->product = terse_edit_maker(edit, sums, TERSE_OP_CONV_INTEGER);
    if (c->product < 0)
        return false;
    const int x = terse_edit_input(edit, c->product, 0);
    c->quantize = x < 0 ? -1 : terse_edit_maker(edit, x, TERSE_OP_DYNAMIC_QUANTIZE_LINEAR);
    c->weights = terse_edit_input(edit, c->product, 1);
    c->zeros = terse_edit_input(edit, c->product, 3);
    if (c->quantize < 0 || !is_output(edit, x, c->quantize, 0) ||
        !is_output(edit, terse_edit_input(edit, c->product, 2), c->quantize, 2) ||
        !terse_edit_is_constant(edit, c->weights) || (c->zeros >= 0 && !terse_edit_is_constant(edit, c->zeros)))
        return false;
    const terse_value *w = &edit->graph->values[c->weights];
    const int rank = edit->graph->values[x].rank;
    return w->layout == TERSE_LAYOUT_PLAIN && (c->conv ? w->rank >= 3 && rank == w->rank : w->rank == 2 && rank >= 1);
}

static int64_t columns_of(const terse_edit *edit, const chain *c)
{
    return edit->graph->values[c->weights].dims[c->conv ? 0 : 1];
}

/* One number, or one for each of n columns. */
static bool is_of_columns(const terse_edit *edit, int value, int64_t n)
{
    const terse_value *v = &edit->graph->values[value];
    return terse_dims_count(v->dims, v->rank) == 1 || (v->rank == 1 && v->dims[0] == n);
}

/* One number, or one for each column as it lies over the sums: behind a convolution as [M,1,1] or [1,M,1,1]. */
static bool scales_sums(const terse_edit *edit, const chain *c, int value)
{
    const terse_value *v = &edit->graph->values[value];
    const int64_t columns = columns_of(edit, c), count = terse_dims_count(v->dims, v->rank);
    if (!c->conv || count == 1)
        return is_of_columns(edit, value, columns);
    const int axis = v->rank - (edit->graph->values[c->weights].rank - 1);
    return count == columns && axis >= 0 && v->dims[axis] == columns;
}

/* value = cast(sums) * scale of x * scale of the weights, in any order. */
static bool find_chain(const terse_edit *edit, int root, chain *ret_chain)
{
    int factors[3] = {-1, -1, -1}, n = 0;
    for (int side = 0; side < 2; side++) { /* the root has two operands, one of which is a product again */
        const int x = terse_edit_input(edit, root, side);
        const int inner = x < 0 || n > 1 ? -1 : terse_edit_maker(edit, x, TERSE_OP_MUL);
        factors[n++] = inner < 0 ? x : terse_edit_input(edit, inner, 0);
        if (inner >= 0)
            factors[n++] = terse_edit_input(edit, inner, 1);
    }
    chain c = {.product = -1, .scale = -1};
    for (int i = 0; i < n && n == 3; i++) {
        const int cast = factors[i] < 0 ? -1 : terse_edit_maker(edit, factors[i], TERSE_OP_CAST);
        if (cast < 0 || edit->uses[factors[i]] != 1 || !read_product(edit, terse_edit_input(edit, cast, 0), &c))
            continue;
        const int a = factors[(i + 1) % 3], b = factors[(i + 2) % 3];
        const bool first = is_output(edit, a, c.quantize, 1);
        c.scale = first ? b : a;
        if (terse_edit_same_shape(edit, factors[i], edit->graph->nodes[root].outputs[0]) &&
            (first || is_output(edit, b, c.quantize, 1)) && terse_edit_floats(edit, c.scale) &&
            scales_sums(edit, &c, c.scale) && (c.zeros < 0 || is_of_columns(edit, c.zeros, columns_of(edit, &c)))) {
            *ret_chain = c;
            return true;
        }
    }
    return false;
}

/* A number for each column, in the same form for scale and zero point. */
static int spread(terse_edit *edit, int value, int64_t n)
{
    const terse_value old = edit->graph->values[value];
    const size_t size = terse_dtype_size(old.dtype);
    if (old.rank == 1 && old.dims[0] == n)
        return value;
    char *to = terse_edit_alloc(edit, size * (size_t)n);
    const bool many = terse_dims_count(old.dims, old.rank) == n;
    for (int64_t i = 0; to && i < n; i++)
        memcpy(to + size * (size_t)i, (const char *)old.data + (many ? size * (size_t)i : 0), size);
    return to ? terse_edit_add_constant(edit, old.name, old.dtype, 1, &n, to) : -1;
}

/* DequantizeLinear of these values, like `shape`; along an axis when it is not negative. */
static int add_dequantize(terse_edit *edit, int shape, const int *inputs, int axis)
{
    const terse_value like = edit->graph->values[shape];
    const int y = terse_edit_add_value(edit, like.name, TERSE_FP32, like.rank, like.dims);
    const int node =
        y < 0 ? -1
              : terse_edit_add_node(edit, TERSE_OP_DEQUANTIZE_LINEAR, like.name, inputs, inputs[2] >= 0 ? 3 : 2, &y, 1);
    if (node >= 0 && axis >= 0 && !terse_node_set_int(edit->graph, &edit->graph->nodes[node], "axis", axis))
        edit->failed = true;
    return y;
}

/* The dequantized x of a DynamicQuantizeLinear; all of one x share the first one's. */
static int dequantized(terse_edit *edit, int *known, int quantize)
{
    const int x = terse_edit_input(edit, quantize, 0);
    if (known[x] < 0) {
        const int *outputs = edit->graph->nodes[quantize].outputs;
        const int inputs[3] = {outputs[0], outputs[1], outputs[2]};
        known[x] = add_dequantize(edit, inputs[0], inputs, -1);
    }
    return known[x];
}

static void rewrite(terse_edit *edit, int *known, int root, const chain *c)
{
    terse_graph *graph = edit->graph;
    const int64_t columns = columns_of(edit, c);
    int of_weights[3] = {c->weights, spread(edit, c->scale, columns), TERSE_NO_VALUE};
    if (c->zeros >= 0)
        of_weights[2] = spread(edit, c->zeros, columns);
    const int x = dequantized(edit, known, c->quantize),
              w = add_dequantize(edit, c->weights, of_weights, c->conv ? 0 : 1);
    const int y = graph->nodes[root].outputs[0];
    const char *name = graph->nodes[c->product].name;
    if (x < 0 || w < 0 || (c->zeros >= 0 && of_weights[2] < 0)) {
        edit->failed = true;
        return;
    }
    terse_edit_remove(edit, root);
    const int made =
        terse_edit_add_node(edit, c->conv ? TERSE_OP_CONV : TERSE_OP_MATMUL, name, (int[]){x, w}, 2, &y, 1);
    if (made < 0)
        return;
    graph->nodes[made].attrs = graph->nodes[c->product].attrs; /* ConvInteger's are those of Conv */
    graph->nodes[made].n_attrs = graph->nodes[c->product].n_attrs;
}

int terse_pass_dynamic(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    const int n_values = graph->n_values;
    TERSE_AUTO(terse_freep) int *known = malloc(((size_t)n_values + 1) * sizeof *known);
    edit.failed = !known;
    for (int v = 0; known && v < n_values; v++)
        known[v] = -1;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++) {
        chain c;
        if (graph->nodes[node].op == TERSE_OP_MUL && graph->nodes[node].outputs[0] >= 0 && find_chain(&edit, node, &c))
            rewrite(&edit, known, node, &c);
    }
    return terse_edit_close(&edit, error);
}

/* --- QGemm and QConv ---------------------------------------------------------------------------------------------- */

/* x of a product: the node that dequantizes it, and, where bytes could be moved instead, a move behind that; else -1.
 */
typedef struct dynamic_operand {
    int dequantize, move;
} dynamic_operand;

/* A DequantizeLinear from UINT8 whose scale is known at run time only, as a whole tensor's. */
static bool find_dynamic(const terse_edit *edit, int value, dynamic_operand *ret_operand)
{
    dynamic_operand x = {.dequantize = -1, .move = terse_edit_maker(edit, value, TERSE_OP_TRANSPOSE)};
    if (value >= 0 && x.move < 0)
        x.move = terse_edit_maker(edit, value, TERSE_OP_RESHAPE);
    const int from = x.move < 0 ? value : terse_edit_input(edit, x.move, 0);
    x.dequantize = from < 0 ? -1 : terse_edit_maker(edit, from, TERSE_OP_DEQUANTIZE_LINEAR);
    const int bytes = x.dequantize < 0 ? -1 : terse_edit_input(edit, x.dequantize, 0);
    const int scale = x.dequantize < 0 ? -1 : terse_edit_input(edit, x.dequantize, 1),
              zero = x.dequantize < 0 ? -1 : terse_edit_input(edit, x.dequantize, 2);
    if (bytes < 0 || scale < 0 || terse_edit_is_constant(edit, scale) || terse_edit_is_constant(edit, bytes))
        return false;
    const terse_value *values = edit->graph->values;
    *ret_operand = x;
    return values[bytes].dtype == TERSE_UINT8 && values[scale].rank == 0 && values[scale].dtype == TERSE_FP32 &&
           (zero < 0 || (values[zero].rank == 0 && values[zero].dtype == TERSE_UINT8));
}

/* The bytes that the product reads, `value` being what it reads now. */
static int bytes_of(terse_edit *edit, int value, dynamic_operand x)
{
    const int bytes = terse_edit_input(edit, x.dequantize, 0);
    const terse_node move = x.move < 0 ? (terse_node){0} : edit->graph->nodes[x.move];
    const int moved = x.move < 0 ? -1 : terse_edit_add_like(edit, value, "/u8");
    if (moved < 0)
        return bytes;
    edit->graph->values[moved].dtype = TERSE_UINT8;
    const int inputs[2] = {bytes, move.n_inputs > 1 ? move.inputs[1] : TERSE_NO_VALUE};
    const int node = terse_edit_add_node(edit, move.op, move.name, inputs, move.n_inputs, &moved, 1);
    if (node >= 0) {
        edit->graph->nodes[node].attrs = move.attrs;
        edit->graph->nodes[node].n_attrs = move.n_attrs;
    }
    return moved;
}

/* A bias for each column, constant, or none; nothing else that a product of bytes does not have. */
static bool fits(const terse_edit *edit, int node, int64_t columns)
{
    const terse_node *n = &edit->graph->nodes[node];
    const int bias = terse_edit_input(edit, node, 2);
    return (n->op == TERSE_OP_MATMUL || terse_node_int(n, "channels_last", 0) != 0) &&
           (bias < 0 || (terse_edit_floats(edit, bias) && edit->graph->values[bias].rank == 1 &&
                         edit->graph->values[bias].dims[0] == columns));
}

/* Multiplier and sums of the weights; false when memory is out. */
static bool add_numbers(terse_edit *edit, const terse_lower_weights *w, int *ret_multiplier, int *ret_sums)
{
    float *multiplier = terse_edit_alloc(edit, 2 * (size_t)w->n * sizeof *multiplier);
    int32_t *sums = terse_edit_alloc(edit, (size_t)w->n * sizeof *sums);
    if (!multiplier || !sums)
        return false;
    for (int64_t n = 0; n < w->n; n++) {
        int64_t sum = 0;
        for (int64_t k = 0; k < w->k; k++)
            sum += w->numbers[n * w->k + k];
        sums[n] = (int32_t)(uint32_t)sum;
        multiplier[n] = (float)w->scales[n];
    }
    *ret_multiplier = terse_edit_add_constant(edit, "multiplier", TERSE_FP32, 2, (int64_t[]){2, w->n}, multiplier);
    *ret_sums = terse_edit_add_constant(edit, "sums", TERSE_INT32, 1, &w->n, sums);
    return *ret_multiplier >= 0 && *ret_sums >= 0;
}

static void lower(terse_lower *lower, int node)
{
    terse_edit *edit = &lower->edit;
    const int value = terse_edit_input(edit, node, 0);
    dynamic_operand x;
    terse_lower_weights w;
    int multiplier, sums;
    if (!find_dynamic(edit, value, &x) || !terse_lower_read_weights(lower, node, &(terse_form){.s = 1}, &w) ||
        !fits(edit, node, w.n) || !add_numbers(edit, &w, &multiplier, &sums))
        return;
    terse_graph *graph = edit->graph;
    const int zero = terse_edit_input(edit, x.dequantize, 2), y = graph->nodes[node].outputs[0];
    const int inputs[9] = {bytes_of(edit, value, x),
                           terse_lower_pack_weights(lower, &w),
                           multiplier,
                           TERSE_NO_VALUE,
                           terse_edit_input(edit, node, 3),
                           terse_edit_input(edit, node, 2),
                           terse_edit_input(edit, x.dequantize, 1),
                           zero,
                           zero < 0 ? TERSE_NO_VALUE : sums};
    const terse_node old = graph->nodes[node];
    if (edit->failed)
        return;
    terse_edit_remove(edit, node);
    const int made = terse_edit_add_node(edit, w.matrix ? TERSE_OP_QGEMM : TERSE_OP_QCONV, old.name, inputs, 9, &y, 1);
    if (made < 0)
        return;
    graph->nodes[made].compression = old.compression;
    graph->nodes[made].attrs = old.attrs;
    graph->nodes[made].n_attrs = old.n_attrs;
    if (!terse_node_set_text(graph, &graph->nodes[made], "to", "f32"))
        edit->failed = true;
}

int terse_pass_lower_dynamic(terse_graph *graph, terse_error *error)
{
    terse_lower lowering = {0}; /* forms are those of the other pass: its weights are what is shared */
    const int status = terse_edit_open(graph, &lowering.edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !lowering.edit.failed; node++)
        if ((graph->nodes[node].op == TERSE_OP_MATMUL || graph->nodes[node].op == TERSE_OP_CONV) &&
            graph->nodes[node].outputs[0] >= 0)
            lower(&lowering, node);
        else if (graph->nodes[node].op == TERSE_OP_CONV_INTEGER && graph->nodes[node].outputs[0] >= 0)
            terse_lower_conv_integer(&lowering, node);
    return terse_edit_close(&lowering.edit, error);
}
