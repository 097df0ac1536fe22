/* SPDX-License-Identifier: Apache-2.0 */
/* Constants behind DequantizeLinear that nobody could use as bytes become FP32, and the products that read them get
 * their normal form. */
#include "common/graph/engine.h"
#include "compress/passes/edit.h"
#include "compress/passes/passes.h"

enum { N_INPUTS = 3 };

static void dequantize(terse_edit *edit, int node, const terse_kernels *kernels)
{
    const terse_node *n = &edit->graph->nodes[node];
    terse_tensor views[N_INPUTS], made;
    const terse_tensor *inputs[N_INPUTS] = {NULL};
    const int y = n->n_outputs == 1 ? n->outputs[0] : TERSE_NO_VALUE;
    if (y < 0 || n->n_inputs > N_INPUTS)
        return;
    for (int i = 0; i < n->n_inputs; i++) {
        if (n->inputs[i] < 0)
            continue;
        const terse_value *value = &edit->graph->values[n->inputs[i]];
        if (!value->data || value->layout != TERSE_LAYOUT_PLAIN)
            return;
        views[i] = terse_tensor_view((void *)(uintptr_t)value->data, value->dtype, value->rank, value->dims);
        inputs[i] = &views[i];
    }
    if (terse_node_evaluate(n, kernels, inputs, edit->graph->arena, (size_t)1 << 40, &made, NULL) != TERSE_OK)
        return; /* left for the run to report */
    terse_value *value = &edit->graph->values[y];
    value->dtype = made.dtype;
    value->rank = made.rank;
    for (int i = 0; i < made.rank; i++)
        value->dims[i] = made.dims[i];
    value->data = made.data;
    value->bytes = (size_t)terse_tensor_bytes(&made);
    terse_edit_remove(edit, node);
}

int terse_pass_dequantize(terse_graph *graph, terse_error *error)
{
    terse_edit edit;
    const terse_kernels *kernels;
    int status = terse_kernels_get(&kernels, error);
    if (status == TERSE_OK)
        status = terse_edit_open(graph, &edit, error);
    if (status != TERSE_OK)
        return status;
    for (int node = 0, n = graph->n_nodes; node < n && !edit.failed; node++)
        if (graph->nodes[node].op == TERSE_OP_DEQUANTIZE_LINEAR)
            dequantize(&edit, node, kernels);
    status = terse_edit_close(&edit, error);
    return status == TERSE_OK ? terse_pass_products(graph, error) : status;
}
