/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/low_rank/low_rank.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>

bool terse_select_matrix(const terse_edit *edit, int node, terse_low_rank_matrix *ret_matrix, char *reason, size_t size)
{
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]];
    if (n->op == TERSE_OP_GEMM || n->op == TERSE_OP_MATMUL) {
        *ret_matrix = (terse_low_rank_matrix){
            .weights = w->data, .k = w->dims[0], .n = w->dims[1], .stride_k = w->dims[1], .stride_n = 1};
        return true;
    }
    if (n->op != TERSE_OP_CONV) {
        snprintf(reason, size, "%s is left as it is", terse_op_name(n->op));
        return false;
    }
    const int64_t group = terse_node_int(n, "group", 1);
    if (group != 1) {
        snprintf(reason, size, "%" PRId64 " groups", group);
        return false;
    }
    if (terse_dims_count(w->dims + 2, w->rank - 2) != 1) {
        int at = snprintf(reason, size, "%" PRId64, w->dims[2]);
        for (int i = 3; i < w->rank && at > 0 && (size_t)at < size; i++)
            at += snprintf(reason + at, size - (size_t)at, "x%" PRId64, w->dims[i]);
        if (at > 0 && (size_t)at < size)
            snprintf(reason + at, size - (size_t)at, " kernel");
        return false;
    }
    *ret_matrix = (terse_low_rank_matrix){
        .weights = w->data, .k = w->dims[1], .n = w->dims[0], .stride_k = 1, .stride_n = w->dims[1]};
    return true;
}

int64_t terse_select_rank(const float *s, int64_t n, int64_t larger_side, double energy, double *ret_kept)
{
    const double noise = n > 0 ? (double)larger_side * (double)FLT_EPSILON * (double)s[0] : 0;
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += (double)s[i] > noise ? (double)s[i] * (double)s[i] : 0.0;
    /* from the small end: the tail that may go is summed without cancellation */
    double tail = 0;
    int64_t rank = n;
    while (rank > 1) {
        const double last = (double)s[rank - 1];
        const double next = tail + (last > noise ? last * last : 0.0);
        if (next > (1.0 - energy) * total)
            break;
        tail = next;
        rank--;
    }
    *ret_kept = total > 0 ? 1.0 - tail / total : 1.0;
    return rank;
}

int64_t terse_select_rank_limit(int64_t k, int64_t n)
{
    return (k * n - 1) / (k + n);
}

bool terse_select_saves_panels(int64_t k, int64_t n, int64_t rank)
{
    const int64_t wide_n = (n + 15) / 16 * 16, wide_rank = (rank + 15) / 16 * 16;
    return k * wide_rank + rank * wide_n < k * wide_n;
}
