/* SPDX-License-Identifier: Apache-2.0 */
/* Dynamic quantization: x becomes bytes with a scale and a zero point that are known only when it is there.
 *
 * Exporters write DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul by both scales. The first pass turns that into
 * the form that all quantized networks have, DequantizeLinear -> MatMul by dequantized weights, one
 * DynamicQuantizeLinear for all that read the same x, so that biases, residuals and activations are folded and fused as
 * everywhere. The second pass gives such products to QGemm, which completes multiplier and bias at run time. */
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the form of all quantized networks --------------------------------------------------------------------------- */

typedef struct chain {
    int product;        /* the MatMulInteger */
    int quantize;       /* the DynamicQuantizeLinear */
    int weights, zeros; /* constants; zeros may be TERSE_NO_VALUE */
    int scale;          /* FP32 constant, one number or [N] */
} chain;

/* Does `value` come out of slot `slot` of that node? */
static bool is_output(const terse_edit *edit, int value, int node, int slot)
{
    const terse_node *n = &edit->graph->nodes[node];
    return value >= 0 && slot < n->n_outputs && n->outputs[slot] == value;
}

static bool read_product(const terse_edit *edit, int sums, chain *c)
{
    c->product = sums < 0 || edit->uses[sums] != 1 ? -1 : terse_edit_maker(edit, sums, TERSE_OP_MATMUL_INTEGER);
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
    return w->rank == 2 && w->layout == TERSE_LAYOUT_PLAIN && edit->graph->values[x].rank >= 1;
}

/* One number, or one for each of n columns: what DequantizeLinear takes as it is. */
static bool is_of_columns(const terse_edit *edit, int value, int64_t n)
{
    const terse_value *v = &edit->graph->values[value];
    return terse_dims_count(v->dims, v->rank) == 1 || (v->rank == 1 && v->dims[0] == n);
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
        const int64_t columns = edit->graph->values[c.weights].dims[1];
        if (terse_edit_same_shape(edit, factors[i], edit->graph->nodes[root].outputs[0]) &&
            (first || is_output(edit, b, c.quantize, 1)) && terse_edit_floats(edit, c.scale) &&
            is_of_columns(edit, c.scale, columns) && (c.zeros < 0 || is_of_columns(edit, c.zeros, columns))) {
            *ret_chain = c;
            return true;
        }
    }
    return false;
}

/* A scalar for each column where scale and zero point have different forms. */
static int spread(terse_edit *edit, int value, int64_t n)
{
    const terse_value old = edit->graph->values[value];
    const size_t size = terse_dtype_size(old.dtype);
    if (old.rank == 1 && old.dims[0] == n)
        return value;
    char *to = terse_edit_alloc(edit, size * (size_t)n);
    for (int64_t i = 0; to && i < n; i++)
        memcpy(to + size * (size_t)i, old.data, size);
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
    const terse_graph *graph = edit->graph;
    const int64_t columns = graph->values[c->weights].dims[1];
    int of_weights[3] = {c->weights, spread(edit, c->scale, columns), TERSE_NO_VALUE};
    if (c->zeros >= 0)
        of_weights[2] = spread(edit, c->zeros, columns);
    const int x = dequantized(edit, known, c->quantize), w = add_dequantize(edit, c->weights, of_weights, 1);
    const int y = graph->nodes[root].outputs[0];
    const char *name = graph->nodes[c->product].name;
    if (x < 0 || w < 0 || (c->zeros >= 0 && of_weights[2] < 0)) {
        edit->failed = true;
        return;
    }
    terse_edit_remove(edit, root);
    terse_edit_add_node(edit, TERSE_OP_MATMUL, name, (int[]){x, w}, 2, &y, 1);
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

/* --- QGemm -------------------------------------------------------------------------------------------------------- */

/* Weights [K,N] less their zero points, packed, with what QGemm needs beside them. */
typedef struct numbers {
    int weights, multiplier, sums; /* constants */
} numbers;

/* The zero point of a column. */
static int zero_of(const terse_value *zeros, int64_t column)
{
    if (!zeros)
        return 0;
    const size_t at = terse_dims_count(zeros->dims, zeros->rank) == 1 ? 0 : (size_t)column;
    return zeros->dtype == TERSE_INT8 ? ((const int8_t *)zeros->data)[at] : ((const uint8_t *)zeros->data)[at];
}

/* False when a weight does not fit a signed byte once its zero point is taken off. */
static bool pack(terse_edit *edit, const terse_value *w, const terse_value *zeros, int8_t *to, int32_t *sums)
{
    const int64_t k = w->dims[0], n = w->dims[1], deep = (k + 3) / 4 * 4;
    for (int64_t i = 0; i < k && !edit->failed; i++)
        for (int64_t j = 0; j < n; j++) {
            const size_t at = (size_t)(i * n + j);
            const int number = w->dtype == TERSE_INT8 ? ((const int8_t *)w->data)[at] : ((const uint8_t *)w->data)[at];
            const int less = number - zero_of(zeros, j);
            if (less < -128 || less > 127)
                return false;
            to[j / 16 * deep * 16 + i / 4 * 64 + j % 16 * 4 + i % 4] = (int8_t)less;
            sums[j] += less;
        }
    return true;
}

static bool make_numbers(terse_edit *edit, int dequantize, numbers *ret_numbers)
{
    const int in = terse_edit_input(edit, dequantize, 0), scale = terse_edit_input(edit, dequantize, 1);
    const int zero = terse_edit_input(edit, dequantize, 2);
    const terse_value w = edit->graph->values[in], s = edit->graph->values[scale];
    const terse_value zeros = zero < 0 ? (terse_value){0} : edit->graph->values[zero];
    const int64_t n = w.dims[1], scales = terse_dims_count(s.dims, s.rank);
    const int64_t bytes = terse_layout_bytes(TERSE_LAYOUT_S8_N16K4, TERSE_INT8, 2, w.dims, 1);
    int8_t *packed = bytes < 0 ? NULL : terse_edit_alloc(edit, (size_t)bytes);
    int32_t *sums = terse_edit_alloc(edit, (size_t)n * sizeof *sums);
    float *multiplier = terse_edit_alloc(edit, 2 * (size_t)n * sizeof *multiplier);
    if (!packed || !sums || !multiplier || (scales != 1 && scales != n) ||
        !pack(edit, &w, zero < 0 ? NULL : &zeros, packed, sums))
        return false;
    for (int64_t j = 0; j < n; j++) {
        multiplier[j] = ((const float *)s.data)[scales == 1 ? 0 : j];
        if (!(fabsf(multiplier[j]) <= 1e30f))
            return false;
    }
    numbers made = {.weights = terse_edit_add_constant(edit, w.name, TERSE_INT8, 2, w.dims, packed),
                    .multiplier =
                        terse_edit_add_constant(edit, "multiplier", TERSE_FP32, 2, (int64_t[]){2, n}, multiplier),
                    .sums = terse_edit_add_constant(edit, "sums", TERSE_INT32, 1, &n, sums)};
    if (made.weights < 0 || made.multiplier < 0 || made.sums < 0)
        return false;
    edit->graph->values[made.weights].layout = TERSE_LAYOUT_S8_N16K4;
    edit->graph->values[made.weights].bytes = (size_t)bytes;
    *ret_numbers = made;
    return true;
}

/* The DequantizeLinear from UINT8 whose scale is known at run time only, as a whole tensor's; -1 for others. */
static int find_dynamic(const terse_edit *edit, int value)
{
    const int node = value < 0 ? -1 : terse_edit_maker(edit, value, TERSE_OP_DEQUANTIZE_LINEAR);
    const int bytes = node < 0 ? -1 : terse_edit_input(edit, node, 0);
    const int scale = node < 0 ? -1 : terse_edit_input(edit, node, 1),
              zero = node < 0 ? -1 : terse_edit_input(edit, node, 2);
    if (bytes < 0 || scale < 0 || terse_edit_is_constant(edit, scale) || terse_edit_is_constant(edit, bytes))
        return -1;
    const terse_value *values = edit->graph->values;
    return values[bytes].dtype == TERSE_UINT8 && values[scale].rank == 0 && values[scale].dtype == TERSE_FP32 &&
                   (zero < 0 || (values[zero].rank == 0 && values[zero].dtype == TERSE_UINT8))
               ? node
               : -1;
}

/* A MatMul in whose place a QGemm can be: bias [N] constant, weights per column. */
static bool fits(const terse_edit *edit, int node, int dequantize)
{
    const int in = terse_edit_input(edit, dequantize, 0), scale = terse_edit_input(edit, dequantize, 1);
    const int bias = terse_edit_input(edit, node, 2);
    const terse_value *w = &edit->graph->values[in], *s = &edit->graph->values[scale];
    const bool columns =
        terse_dims_count(s->dims, s->rank) == 1 ||
        (s->rank == 1 && s->dims[0] == w->dims[1] && terse_edit_axis(edit, dequantize, "axis", 1, w->rank) == 1 &&
         terse_node_int(&edit->graph->nodes[dequantize], "block_size", 0) == 0);
    return w->rank == 2 && w->dims[0] > 0 && w->dims[1] > 0 && columns &&
           (bias < 0 || (terse_edit_floats(edit, bias) && edit->graph->values[bias].rank == 1 &&
                         edit->graph->values[bias].dims[0] == w->dims[1]));
}

static void lower(terse_edit *edit, int node)
{
    const int x = find_dynamic(edit, terse_edit_input(edit, node, 0));
    const int w = x < 0 ? -1 : terse_edit_bytes(edit, terse_edit_input(edit, node, 1));
    numbers made;
    if (w < 0 || !fits(edit, node, w) || !make_numbers(edit, w, &made))
        return;
    terse_graph *graph = edit->graph;
    const int zero = terse_edit_input(edit, x, 2), y = graph->nodes[node].outputs[0];
    const int inputs[9] = {terse_edit_input(edit, x, 0),
                           made.weights,
                           made.multiplier,
                           TERSE_NO_VALUE,
                           terse_edit_input(edit, node, 3),
                           terse_edit_input(edit, node, 2),
                           terse_edit_input(edit, x, 1),
                           zero,
                           zero < 0 ? TERSE_NO_VALUE : made.sums};
    const terse_node old = graph->nodes[node];
    terse_edit_remove(edit, node);
    const int qgemm = terse_edit_add_node(edit, TERSE_OP_QGEMM, old.name, inputs, 9, &y, 1);
    if (qgemm < 0)
        return;
    graph->nodes[qgemm].compression = old.compression;
    graph->nodes[qgemm].attrs = old.attrs;
    graph->nodes[qgemm].n_attrs = old.n_attrs;
    if (!terse_node_set_text(graph, &graph->nodes[qgemm], "to", "f32"))
        edit->failed = true;
}

int terse_pass_lower_dynamic(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const int status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++)
        if (graph->nodes[node].op == TERSE_OP_MATMUL && graph->nodes[node].outputs[0] >= 0)
            lower(&edit, node);
    return terse_edit_close(&edit, error);
}
