/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "compress/low_rank/steps.h"

void terse_select_done(terse_low_rank_product *product)
{
    free(product->w);
    *product = (terse_low_rank_product){0};
}

/* A sample's elements per channel, symbols and axis 0 of a batch counting as 1. */
static int64_t positions(const terse_value *value, int channel)
{
    int64_t count = 1;
    for (int i = 0; i < value->rank; i++)
        if (i != channel && value->dims[i] > 0 && __builtin_mul_overflow(count, value->dims[i], &count))
            return INT64_MAX;
    return count;
}

static int64_t dim_or_one(const terse_value *value, int axis)
{
    return axis < value->rank && value->dims[axis] > 0 ? value->dims[axis] : 1;
}

/* Weights as doubles [o][k]; false when they are not finite or memory is out. */
static bool copy_weights(const terse_value *w, terse_low_rank_product *p)
{
    const float *from = w->data;
    p->w = malloc((size_t)(p->o * p->k) * sizeof *p->w);
    bool finite = p->w != NULL;
    for (int64_t o = 0; o < p->o && p->w; o++)
        for (int64_t k = 0; k < p->k; k++) {
            const double number = (double)(p->conv ? from[o * p->k + k] : from[k * p->o + o]);
            finite = finite && isfinite(number);
            p->w[o * p->k + k] = number;
        }
    return finite;
}

bool terse_select_product(const terse_edit *edit, int node, terse_low_rank_product *ret_product, char *reason,
                          size_t size)
{
    const terse_node *n = &edit->graph->nodes[node];
    const terse_value *w = &edit->graph->values[n->inputs[1]], *x = &edit->graph->values[n->inputs[0]],
                      *y = &edit->graph->values[n->outputs[0]];
    terse_low_rank_product p = {.node = node, .taps = 1, .kernel = {1, 1, 1}};
    if (n->op == TERSE_OP_GEMM || n->op == TERSE_OP_MATMUL) {
        p.o = w->dims[1];
        p.c = w->dims[0];
        p.positions_out = positions(y, y->rank - 1);
        p.positions_in = p.positions_mid = p.positions_out;
        p.transposed = terse_node_int(n, "transA", 0) != 0;
    } else if (n->op == TERSE_OP_CONV) {
        const int64_t group = terse_node_int(n, "group", 1);
        if (group != 1) {
            snprintf(reason, size, "%" PRId64 " groups", group);
            return false;
        }
        p.conv = true;
        p.o = w->dims[0];
        p.c = w->dims[1];
        p.spatial = w->rank - 2;
        p.taps = terse_dims_count(w->dims + 2, p.spatial);
        for (int i = 0; i < p.spatial; i++)
            p.kernel[i] = w->dims[2 + i];
        p.positions_out = positions(y, 1);
        p.positions_in = positions(x, 1);
        p.positions_mid = p.spatial == 2 ? dim_or_one(y, 2) * dim_or_one(x, 3) : p.positions_out;
    } else {
        snprintf(reason, size, "%s is left as it is", terse_op_name(n->op));
        return false;
    }
    p.k = p.c * p.taps;
    if (!copy_weights(w, &p)) {
        snprintf(reason, size, p.w ? "weights are not finite" : "out of memory");
        terse_select_done(&p);
        return false;
    }
    *ret_product = p;
    return true;
}

bool terse_select_allows(const terse_low_rank_product *p, terse_low_rank_form form)
{
    if (form == TERSE_FORM_SPATIAL)
        return p->spatial == 2 && p->kernel[0] > 1 && p->kernel[1] > 1;
    return form == TERSE_FORM_SVD ? p->taps == 1 : p->taps > 1;
}

int64_t terse_select_rank(const double *values, int64_t n, double noise, double energy, double *ret_kept)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += values[i] > noise ? values[i] : 0.0;
    /* from the small end: the tail that may go is summed without cancellation */
    double tail = 0;
    int64_t rank = n;
    while (rank > 1) {
        const double next = tail + (values[rank - 1] > noise ? values[rank - 1] : 0.0);
        if (next > (1.0 - energy) * total)
            break;
        tail = next;
        rank--;
    }
    *ret_kept = total > 0 ? 1.0 - tail / total : 1.0;
    return rank;
}

static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

int64_t terse_select_macs(const terse_low_rank_product *p, terse_low_rank_form form, int64_t rank, int64_t rank_in,
                          bool panels)
{
    const int64_t o = panels ? (p->o + 15) / 16 * 16 : p->o, r = panels ? (rank + 15) / 16 * 16 : rank;
    const int64_t r_in = panels ? (rank_in + 15) / 16 * 16 : rank_in;
    if (rank == 0)
        return times(p->positions_out, times(o, p->k));
    const int64_t last = times(p->positions_out, times(rank, o));
    if (form == TERSE_FORM_TUCKER)
        return plus(
            plus(times(p->positions_in, times(p->c, r_in)), times(p->positions_out, times(times(rank_in, p->taps), r))),
            last);
    if (form == TERSE_FORM_SPATIAL)
        return plus(times(p->positions_mid, times(times(p->c, p->kernel[0]), r)), times(last, p->kernel[1]));
    return plus(times(p->positions_out, times(p->k, r)), last);
}

double *terse_select_bias(const terse_graph *graph, const terse_low_rank_product *product)
{
    const terse_node *n = &graph->nodes[product->node];
    const terse_value *b = n->n_inputs > 2 && n->inputs[2] >= 0 ? &graph->values[n->inputs[2]] : NULL;
    if (!b || !b->data || b->dtype != TERSE_FP32 || b->rank != 1 || b->dims[0] != product->o)
        return NULL;
    double *bias = malloc((size_t)product->o * sizeof *bias);
    for (int64_t i = 0; bias && i < product->o; i++)
        bias[i] = (double)((const float *)b->data)[i];
    return bias;
}

bool terse_select_has_residual(const terse_graph *graph, int node)
{
    const terse_node *n = &graph->nodes[node];
    return n->n_inputs > 3 && n->inputs[3] >= 0 && !graph->values[n->inputs[3]].data &&
           graph->values[n->inputs[3]].dtype == TERSE_FP32;
}
