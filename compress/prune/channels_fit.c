/* SPDX-License-Identifier: Apache-2.0 */
/* What layers become once it is chosen which channels go, and what is said about them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <lapacke.h>

#include "compress/prune/channels.h"

#define DAMPING 0.01 /* of the mean diagonal, as in rank.c */

int64_t terse_channels_keep(const terse_channels_choice *choice, const terse_low_rank_product *product, bool *keep)
{
    const terse_node *n = &choice->edit.graph->nodes[product->node];
    const terse_channels *x = &choice->couple.values[n->inputs[0]];
    int64_t gone = 0;
    for (int64_t i = 0; i < product->k; i++) {
        keep[i] = x->axis < 0 || x->n * product->taps != product->k ||
                  !choice->gone[terse_couple_unit(&choice->couple, x->labels[i / product->taps])];
        gone += !keep[i];
    }
    return gone;
}

static int out_of_memory(terse_error *error)
{
    return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for what is left of a layer");
}

/* w[S] = (H_SS)^-1 H_S: target^T for the inputs S that stay; what is kept of the energy is <w, target H>. */
int terse_channels_fit(const double *target, const double *cov, int64_t o, int64_t k, const bool *keep, double *ret_w,
                       double *ret_lost, terse_error *error)
{
    int64_t n = 0;
    *ret_lost = -1;
    TERSE_AUTO(terse_freep) int64_t *ids = malloc((size_t)k * sizeof *ids + 1);
    if (!ids)
        return out_of_memory(error);
    for (int64_t i = 0; i < k; i++)
        if (keep[i])
            ids[n++] = i;
    for (int64_t i = 0; i < o * k; i++)
        ret_w[i] = keep[i % k] ? target[i] : 0;
    if (!cov)
        return TERSE_OK;
    TERSE_AUTO(terse_freep) double *a = malloc((size_t)(n * n) * sizeof *a + 1);
    TERSE_AUTO(terse_freep) double *b = malloc((size_t)(o * n) * sizeof *b + 1);
    TERSE_AUTO(terse_freep) double *wanted = malloc((size_t)(o * k) * sizeof *wanted + 1);
    if (!a || !b || !wanted)
        return out_of_memory(error);
    double mean = 0;
    for (int64_t i = 0; i < k; i++)
        mean += cov[i * k + i] / (double)k;
    const double damping = DAMPING * mean + 1e-30;
    openblas_set_num_threads(1); /* the same bits whatever the machine */
    memcpy(wanted, target, (size_t)(o * k) * sizeof *wanted);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)o, (int)k, (int)k, 1.0, target, (int)k, cov, (int)k,
                damping, wanted, (int)k);
    const double total = cblas_ddot((int)(o * k), wanted, 1, target, 1);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++)
            a[i * n + j] = cov[ids[i] * k + ids[j]] + (i == j ? damping : 0);
        for (int64_t r = 0; r < o; r++)
            b[r * n + i] = wanted[r * k + ids[i]];
    }
    if (n > 0 &&
        LAPACKE_dposv(LAPACK_COL_MAJOR, 'U', (lapack_int)n, (lapack_int)o, a, (lapack_int)n, b, (lapack_int)n) != 0)
        return TERSE_OK; /* no factor: without what is gone, as it was */
    double left = 0;
    for (int64_t r = 0; r < o; r++)
        for (int64_t i = 0; i < n; i++) {
            ret_w[r * k + ids[i]] = b[r * n + i];
            left += b[r * n + i] * wanted[r * k + ids[i]];
        }
    *ret_lost = total > 0 && left < total ? 1 - left / total : 0;
    return TERSE_OK;
}

int terse_channels_disguise(const terse_channels_choice *choice, terse_arena *arena, float **weights,
                            terse_error *error)
{
    const terse_graph *graph = choice->edit.graph;
    for (int node = 0; node < graph->n_nodes; node++) {
        const terse_node *n = &graph->nodes[node];
        terse_couple_role role;
        if (!terse_couple_role_of(&choice->edit, node, &role) || role.in_axis < 0 ||
            (role.groups == 1 && n->op != TERSE_OP_CONV_TRANSPOSE))
            continue;
        const terse_channels *x = &choice->couple.values[n->inputs[0]];
        const terse_value *w = &graph->values[n->inputs[1]];
        const int64_t count = terse_dims_count(w->dims, w->rank);
        const int64_t inner = terse_dims_count(w->dims + role.in_axis + 1, w->rank - role.in_axis - 1);
        float *to = x->axis < 0 ? NULL : terse_arena_alloc(arena, (size_t)count * sizeof *to);
        if (x->axis >= 0 && !to)
            return out_of_memory(error);
        for (int64_t i = 0; to && i < count; i++) {
            const int32_t label = x->labels[i / inner % w->dims[role.in_axis]];
            to[i] = choice->gone[terse_couple_unit(&choice->couple, label)] ? 0 : ((const float *)w->data)[i];
        }
        weights[node] = to;
    }
    return TERSE_OK;
}

static bool keep_value(const terse_channels_choice *choice, int value, terse_kept_value *to)
{
    const terse_channels *c = &choice->couple.values[value];
    *to = (terse_kept_value){.name = strdup(choice->edit.graph->values[value].name),
                             .axis = c->axis,
                             .before = c->n,
                             .channels = malloc((size_t)c->n * sizeof *to->channels + 1)};
    for (int64_t i = 0; i < c->n && to->channels; i++)
        if (!choice->gone[terse_couple_unit(&choice->couple, c->labels[i])])
            to->channels[to->n++] = (int32_t)i;
    return to->name && to->channels;
}

int terse_channels_kept(const terse_channels_choice *choice, terse_kept *ret_kept, terse_error *error)
{
    const terse_couple *couple = &choice->couple;
    terse_kept kept = {.list = calloc((size_t)couple->n_values + 1, sizeof *kept.list)};
    bool good = kept.list != NULL;
    for (int v = 0; v < couple->n_values && good; v++) {
        const terse_value *value = &choice->edit.graph->values[v];
        if (couple->values[v].axis >= 1 && !value->data && *value->name &&
            terse_couple_left(couple, choice->gone, v) < couple->values[v].n)
            good = keep_value(choice, v, &kept.list[kept.n++]);
    }
    if (!good) {
        terse_kept_done(&kept);
        return out_of_memory(error);
    }
    *ret_kept = kept;
    return TERSE_OK;
}

static const char *why_it_stays(const terse_channels_choice *choice, int value)
{
    const terse_channels *c = &choice->couple.values[value];
    const char *why = c->axis < 0 ? "its channels are not known" : NULL;
    for (int64_t i = 0; c->axis >= 0 && i < c->n && !why; i++)
        why = terse_couple_pin(&choice->couple, terse_couple_unit(&choice->couple, c->labels[i]));
    return why ? why : "all are worth more than others";
}

bool terse_channels_line(const terse_channels_choice *choice, int node, terse_prune_layer *line)
{
    const terse_graph *graph = choice->edit.graph;
    const terse_node *n = &graph->nodes[node];
    const int x = n->inputs[0], y = n->outputs[0];
    terse_couple_role role;
    if (!terse_couple_role_of(&choice->edit, node, &role)) {
        snprintf(line->reason, sizeof line->reason, "its weights are another layer's too, or of grouped columns");
        return false;
    }
    const terse_value *w = &graph->values[n->inputs[1]];
    const terse_channels *in = &choice->couple.values[x], *out = &choice->couple.values[y];
    const int64_t all_in = role.in_axis < 0 || in->axis < 0 ? 1 : in->n;
    const int64_t all_out = out->axis < 0 ? w->dims[role.out_axis] : out->n;
    const int64_t left_in = all_in == 1 ? 1 : terse_couple_left(&choice->couple, choice->gone, x);
    const int64_t left_out = out->axis < 0 ? all_out : terse_couple_left(&choice->couple, choice->gone, y);
    line->kept = (double)left_in / (double)all_in * ((double)left_out / (double)all_out);
    const size_t room = sizeof line->reason;
    char *text = line->reason;
    if (left_out < all_out && left_in < all_in)
        snprintf(text, room, "%" PRId64 " of %" PRId64 " outputs, %" PRId64 " of %" PRId64 " inputs left", left_out,
                 all_out, left_in, all_in);
    else if (left_out < all_out)
        snprintf(text, room, "%" PRId64 " of %" PRId64 " outputs left", left_out, all_out);
    else if (left_in < all_in)
        snprintf(text, room, "%" PRId64 " of %" PRId64 " inputs left; outputs: %.90s", left_in, all_in,
                 why_it_stays(choice, y));
    else
        snprintf(text, room, "%.120s", why_it_stays(choice, y));
    return left_out < all_out || left_in < all_in;
}
