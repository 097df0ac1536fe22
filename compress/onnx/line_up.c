/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <inttypes.h>

/* B of A (op) B starts at axis `at` of A: B gets as many axes of 1 at its end as A has behind it. */
static int line_up(terse_graph *graph, terse_onnx_report *report, int index, terse_error *error)
{
    terse_node *node = &graph->nodes[index];
    int64_t at = terse_node_int(node, TERSE_ONNX_BROADCAST_AXIS, 0);
    terse_onnx_attribute_drop(node, TERSE_ONNX_BROADCAST_AXIS);
    if (node->n_inputs != 2 || node->inputs[0] < 0 || node->inputs[1] < 0)
        return TERSE_OK; /* refused by its count of inputs */
    const terse_value *a = &graph->values[node->inputs[0]], *b = &graph->values[node->inputs[1]];
    if (a->rank < 0 || b->rank < 0) {
        terse_onnx_unsupported(report, node->name, "attribute 'axis' of op '%s' on a tensor of unknown rank",
                               terse_op_name(node->op));
        return TERSE_OK;
    }
    if (node->op == TERSE_OP_PRELU && (b->rank != 1 || b->dims[0] == 1 || a->rank < 2))
        return TERSE_OK; /* one slope for all, or a slope that has A's shape */
    at = at < 0 ? at + a->rank : at;
    const int64_t behind = a->rank - at - b->rank;
    if (at < 0 || behind < 0) {
        terse_fail(error, TERSE_INVALID_ARGUMENT, "operand of rank %d at axis %" PRId64 " of rank %d", b->rank, at,
                   a->rank);
        return terse_error_prefix(error, "node '%.200s' (%s)", node->name, terse_op_name(node->op));
    }
    if (behind == 0 || b->rank == 0)
        return TERSE_OK;
    int64_t axes[TERSE_MAX_RANK];
    for (int i = 0; i < behind; i++)
        axes[i] = b->rank + i;
    const char *name = node->name;
    const int from = node->inputs[1];
    const int list = terse_graph_add_ints(graph, "axes", axes, (int)behind);
    const int lined_up = terse_graph_add_value(graph, "broadcast.operand");
    if (list < 0 || lined_up < 0 ||
        !terse_graph_add_node(graph, TERSE_OP_UNSQUEEZE, name, (int[]){from, list}, 2, &lined_up, 1))
        return terse_onnx_no_memory(error);
    graph->nodes[index].inputs[1] = lined_up;
    return TERSE_OK;
}

int terse_onnx_line_up(terse_graph *graph, terse_onnx_report *report, terse_error *error)
{
    bool any = false;
    for (int n = 0; n < graph->n_nodes && !any; n++)
        any = terse_node_attr(&graph->nodes[n], TERSE_ONNX_BROADCAST_AXIS) != NULL;
    if (!any)
        return TERSE_OK;
    int status = terse_onnx_infer(graph, NULL, error);
    const int n_nodes = graph->n_nodes;
    for (int n = 0; n < n_nodes && status == TERSE_OK; n++)
        if (terse_node_attr(&graph->nodes[n], TERSE_ONNX_BROADCAST_AXIS))
            status = line_up(graph, report, n, error);
    return status == TERSE_OK ? terse_graph_sort(graph, error) : status;
}
