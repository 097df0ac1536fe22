/* SPDX-License-Identifier: Apache-2.0 */
/* Symmetric weights: w is integer times scale. In 8 bits a column has one scale. In 4 bits, `group` rows of a column
 * share one (the last group may be shorter). */
#include "compress/quantize/weights.h"

#include "compress/quantize/gptq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PANEL = 16, CANDIDATES = 24 };

/* Integers for one scale; returns sum(w q) and sum(q q), from which the best scale for these integers follows. */
static void round_to(const float *w, int64_t n, int64_t stride, double scale, int low, int high, double *ret_wq,
                     double *ret_qq)
{
    double wq = 0.0, qq = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double value = (double)w[i * stride];
        const double q = fmin(fmax(nearbyint(value / scale), low), high);
        wq += value * q;
        qq += q * q;
    }
    *ret_wq = wq;
    *ret_qq = qq;
}

float terse_quantize_round(const float *weights, int64_t n, int64_t stride, int low, int high, int8_t *ret_integers)
{
    double least = 0.0, most = 0.0, best = 0.0, best_gain = -1.0;
    for (int64_t i = 0; i < n; i++) {
        least = fmin(least, (double)weights[i * stride]);
        most = fmax(most, (double)weights[i * stride]);
    }
    const double reach = fmax(most, -least);
    /* The error is sum(w w) - wq^2 / qq once the scale is the best one for its integers: the largest gain wins. */
    for (int i = 0; i < 2 * CANDIDATES && reach > 0.0; i++) {
        const double clip = 1.05 - 0.025 * (i / 2), sign = i % 2 ? -1.0 : 1.0;
        double scale = sign * clip * (i % 2 ? fmax(most / -low, -least / high) : fmax(most / high, least / low));
        double wq = 0.0, qq = 0.0;
        for (int round = 0; round < 3 && scale != 0.0; round++) {
            round_to(weights, n, stride, scale, low, high, &wq, &qq);
            if (!(qq > 0.0))
                break;
            if (wq * wq / qq > best_gain) {
                best_gain = wq * wq / qq;
                best = wq / qq;
            }
            scale = wq / qq;
        }
    }
    /* A scale too small for a float: the weights are 0 for every purpose. */
    const float scale = fabs(best) < (double)1e-37f ? 0.0f : (float)best;
    for (int64_t i = 0; i < n; i++)
        ret_integers[i] =
            scale == 0.0f ? 0 : (int8_t)fmin(fmax(nearbyint((double)weights[i * stride] / (double)scale), low), high);
    return scale;
}

/* Weights that are multiples of a scale within low..high already (trained so, or from another tool) keep both. Weights
 * at random are that with next to no probability, and then they lose nothing. */
static bool lie_on_grid(const float *w, int64_t n, int64_t stride, int low, int high, int8_t *ret_integers,
                        float *ret_scale)
{
    float reach = 0;
    for (int64_t i = 0; i < n; i++)
        reach = fabsf(w[i * stride]) > fabsf(reach) ? w[i * stride] : reach;
    for (int most = 1; most <= -low; most++) {
        /* the largest is `most` or -most times the scale */
        const double scale = (double)reach / (most > high ? -most : most);
        bool good = true;
        for (int64_t i = 0; i < n && good && reach != 0; i++) {
            const double q = (double)w[i * stride] / scale, r = nearbyint(q);
            good = fabs(q - r) < 1e-4 && r >= low && r <= high;
            ret_integers[i] = (int8_t)r;
        }
        if (!good)
            continue;
        if (reach == 0)
            memset(ret_integers, 0, (size_t)n);
        *ret_scale = (float)scale;
        return true;
    }
    return false;
}

/* What the two forms make of one matrix. */
typedef struct quantized {
    int weights, scales; /* values; -1: none */
} quantized;

static int add_packed(terse_edit *edit, const terse_value *old, int64_t k, int64_t n, terse_dtype dtype,
                      terse_layout layout, const void *data)
{
    const int made = terse_edit_add_constant(edit, old->name, dtype, 2, (int64_t[]){k, n}, data);
    if (made >= 0) {
        edit->graph->values[made].layout = layout;
        edit->graph->values[made].bytes = (size_t)terse_layout_bytes(layout, dtype, 2, (int64_t[]){k, n}, 1);
    }
    return made;
}

static quantized to_8_bits(terse_edit *edit, const terse_value *old, int64_t k, int64_t n)
{
    const int64_t panels = (n + PANEL - 1) / PANEL;
    int8_t *bytes = terse_edit_alloc(edit, (size_t)(panels * k * PANEL)); /* zeroed */
    float *scales = terse_edit_alloc(edit, (size_t)n * sizeof *scales);
    TERSE_AUTO(terse_freep) int8_t *column = malloc((size_t)k + 1);
    edit->failed = edit->failed || !column;
    for (int64_t j = 0; j < n && !edit->failed; j++) {
        const int64_t at = j / PANEL * k * PANEL + j % PANEL;
        if (!lie_on_grid((const float *)old->data + at, k, PANEL, -127, 127, column, &scales[j]))
            scales[j] = terse_quantize_round((const float *)old->data + at, k, PANEL, -127, 127, column);
        for (int64_t i = 0; i < k; i++)
            bytes[at + i * PANEL] = column[i];
    }
    if (edit->failed)
        return (quantized){-1, -1};
    return (quantized){add_packed(edit, old, k, n, TERSE_INT8, TERSE_LAYOUT_S8_N16, bytes),
                       terse_edit_add_constant(edit, "scales", TERSE_FP32, 1, &n, scales)};
}

/* Integers [k][n] and scales [groups][n] of 4 bits. */
typedef struct rounded {
    int8_t *integers;
    float *scales;
} rounded;

static void rounded_done(rounded *r)
{
    free(r->integers);
    free(r->scales);
}

/* The matrix [k][n] of a packed constant; NULL when memory is out. */
static float *unpacked(const terse_value *old, int64_t k, int64_t n)
{
    float *w = malloc((size_t)(k * n) * sizeof *w);
    for (int64_t i = 0; w && i < k; i++)
        for (int64_t j = 0; j < n; j++)
            w[i * n + j] = ((const float *)old->data)[(j / PANEL * k + i) * PANEL + j % PANEL];
    return w;
}

/* All groups of all columns lie on grids. */
static bool take_grids(const float *w, int64_t k, int64_t n, int64_t group, int8_t *column, rounded *r)
{
    for (int64_t g = 0; g * group < k; g++)
        for (int64_t j = 0; j < n; j++) {
            const int64_t first = g * group, count = k - first < group ? k - first : group;
            if (!lie_on_grid(w + first * n + j, count, n, -8, 7, column, &r->scales[g * n + j]))
                return false;
            for (int64_t i = 0; i < count; i++)
                r->integers[(first + i) * n + j] = column[i];
        }
    return true;
}

/* What is asked of 4 bits. */
typedef struct asked {
    int64_t group;
    terse_rounding how;
    const double *fit, *judge; /* moments of what the product reads, or NULL */
    terse_rounding_report *report;
    const terse_mixed *mixed;
} asked;

static bool round_matrix(const terse_value *old, int64_t k, int64_t n, const asked *a, rounded *r)
{
    TERSE_AUTO(terse_freep) float *w = unpacked(old, k, n);
    TERSE_AUTO(terse_freep) int8_t *column = malloc((size_t)a->group);
    const int64_t groups = (k + a->group - 1) / a->group;
    r->integers = malloc((size_t)(k * n));
    r->scales = malloc((size_t)(groups * n) * sizeof *r->scales);
    if (!w || !column || !r->integers || !r->scales)
        return false;
    return take_grids(w, k, n, a->group, column, r) ||
           terse_round_int4(w, k, n, a->group, a->how, a->fit, a->judge, r->integers, r->scales, a->report);
}

static quantized to_4_bits(terse_edit *edit, const terse_value *old, int64_t k, int64_t n, const asked *a)
{
    const int64_t group = a->group;
    const int64_t panels = (n + PANEL - 1) / PANEL, blocks = (k + 7) / 8, groups = (k + group - 1) / group;
    uint8_t *halves = terse_edit_alloc(edit, (size_t)(panels * blocks * 64));
    float *scales = terse_edit_alloc(edit, (size_t)(panels * groups * PANEL) * sizeof *scales);
    rounded r = {0};
    edit->failed = edit->failed || !round_matrix(old, k, n, a, &r);
    for (int64_t i = 0; i < panels * blocks * 64 && !edit->failed; i++)
        halves[i] = 0x88; /* zeros */
    for (int64_t i = 0; i < k && !edit->failed; i++)
        for (int64_t j = 0; j < n; j++) {
            uint8_t *pair = &halves[(j / PANEL * blocks + i / 8) * 64 + j % PANEL * 4 + i % 4];
            const int shift = i % 8 < 4 ? 0 : 4;
            *pair = (uint8_t)((*pair & (0xf0 >> shift)) | (r.integers[i * n + j] + 8) << shift);
            scales[(j / PANEL * groups + i / group) * PANEL + j % PANEL] = r.scales[i / group * n + j];
        }
    rounded_done(&r);
    if (edit->failed)
        return (quantized){-1, -1};
    return (quantized){
        add_packed(edit, old, k, n, TERSE_UINT8, TERSE_LAYOUT_S4_N16K8, halves),
        terse_edit_add_constant(edit, "scales", TERSE_FP32, 3, (int64_t[]){panels, groups, PANEL}, scales)};
}

/* A convolution whose pixels are rows of a product. */
static bool is_pointwise(const terse_node *node, const terse_value *w)
{
    static const char *const lists[] = {"strides", "pads"};
    bool good = w->rank >= 3 && terse_node_int(node, "group", 1) == 1 && terse_node_int(node, "channels_last", 0) != 0;
    for (int i = 2; i < w->rank; i++)
        good = good && w->dims[i] == 1;
    for (int l = 0; l < 2; l++) {
        const terse_attr *list = terse_node_attr(node, lists[l]);
        for (int i = 0; list && i < list->n; i++)
            good = good && list->ints && list->ints[i] == (l == 0 ? 1 : 0);
    }
    const char *automatic = terse_node_text(node, "auto_pad", "NOTSET");
    return good && automatic[0] != 0; /* with a kernel and strides of 1 every kind of padding is none */
}

/* Does a node multiply by a packed matrix [K,N] in a way that WGemm does too? */
static bool takes(const terse_edit *edit, int index, int group, int64_t *ret_k, int64_t *ret_n)
{
    const terse_node *node = &edit->graph->nodes[index];
    const int weights = terse_edit_input(edit, index, 1), bias = terse_edit_input(edit, index, 2);
    const bool product = node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL;
    if ((!product && node->op != TERSE_OP_CONV) || !terse_edit_is_constant(edit, weights))
        return false;
    const terse_value *w = &edit->graph->values[weights];
    if (w->layout != TERSE_LAYOUT_F32_N16 || w->groups != 1 || (product && w->rank != 2) ||
        (!product && (group > 0 || !is_pointwise(node, w))))
        return false;
    *ret_k = w->dims[product ? 0 : 1];
    *ret_n = w->dims[product ? 1 : 0];
    return bias < 0 || (edit->graph->values[bias].rank == 1 && edit->graph->values[bias].dims[0] == *ret_n);
}

static bool all_finite(const terse_value *w)
{
    const float *data = w->data;
    for (size_t i = 0; i < w->bytes / sizeof *data; i++)
        if (!isfinite(data[i]))
            return false;
    return true;
}

static void change(terse_edit *edit, int index, quantized q, int group)
{
    terse_graph *graph = edit->graph;
    terse_edit_set_input(edit, index, 1, q.weights);
    terse_edit_set_input(edit, index, 4, q.scales);
    terse_node *node = &graph->nodes[index];
    node->op = TERSE_OP_WGEMM;
    int kept = 0; /* attributes that WGemm has */
    for (int i = 0; i < node->n_attrs; i++)
        if (strncmp(node->attrs[i].name, "activation", 10) == 0)
            node->attrs[kept++] = node->attrs[i];
    node->n_attrs = kept;
    if (group > 0 && !terse_node_set_int(graph, node, "k_group", group))
        edit->failed = true;
    char text[TERSE_MAX_NAME];
    const char *before = node->compression ? node->compression : "";
    if (group > 0)
        snprintf(text, sizeof text, "%.900s%sint4 weights, groups of %d", before, *before ? ", " : "", group);
    else
        snprintf(text, sizeof text, "%.900s%sint8 weights", before, *before ? ", " : "");
    node->compression = terse_arena_text(graph->arena, text, strlen(text));
    edit->failed = edit->failed || !node->compression;
}

/* Changes every node that can be; returns how many. `done` and `wide` (it became 8 bits) by value. */
static int change_all(terse_edit *edit, const asked *how, const terse_gptq_moments *seen, quantized *done, bool *wide)
{
    terse_graph *graph = edit->graph;
    const int group = (int)how->group;
    int layers = 0;
    for (int node = 0; node < graph->n_nodes && !edit->failed; node++) {
        int64_t k, n;
        if (!takes(edit, node, group, &k, &n))
            continue;
        const int weights = terse_edit_input(edit, node, 1);
        const terse_value old = graph->values[weights];
        if (done[weights].weights < 0) { /* weights that several nodes share are rounded once */
            if (!all_finite(&old))
                continue;
            asked a = *how;
            a.fit = seen->moments ? seen->moments[weights] : NULL;
            a.judge = seen->judged ? seen->judged[weights] : NULL;
            wide[weights] = group == 0 || terse_mixed_keeps(how->mixed, graph->nodes[node].name);
            done[weights] = wide[weights] ? to_8_bits(edit, &old, k, n) : to_4_bits(edit, &old, k, n, &a);
            terse_gptq_moments_rest(seen, weights);
        }
        if (edit->failed || done[weights].weights < 0 || done[weights].scales < 0)
            continue;
        change(edit, node, done[weights], wide[weights] ? 0 : group);
        layers++;
    }
    return layers;
}

/* What the products that will change see of the samples. */
static int watch(const terse_edit *edit, int group, const terse_mixed *mixed, const terse_npz *samples,
                 terse_gptq_moments *ret_seen, terse_error *error)
{
    const terse_graph *graph = edit->graph;
    TERSE_AUTO(terse_freep) bool *wanted = calloc((size_t)graph->n_nodes + 1, sizeof *wanted);
    if (!wanted)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d nodes", graph->n_nodes);
    for (int node = 0; node < graph->n_nodes; node++) {
        int64_t k, n;
        wanted[node] = takes(edit, node, group, &k, &n) && !terse_mixed_keeps(mixed, graph->nodes[node].name);
    }
    return terse_gptq_watch(graph, wanted, samples, ret_seen, error);
}

int terse_quantize_weights(terse_graph *graph, int group, terse_rounding how, const terse_npz *samples,
                           const terse_mixed *mixed, terse_rounding_report *ret_report, int *ret_layers,
                           terse_error *error)
{
    terse_rounding_report report = {0};
    const asked a = {.group = group,
                     .how = how == TERSE_ROUNDING_DEFAULT ? TERSE_ROUNDING_AUTO : how,
                     .report = &report,
                     .mixed = mixed};
    terse_edit edit;
    int status = terse_edit_open(graph, &edit, error), layers = 0;
    if (status != TERSE_OK)
        return status;
    const int n_values = graph->n_values;
    terse_gptq_moments seen = {0};
    if (group > 0 && samples)
        status = watch(&edit, group, mixed, samples, &seen, error);
    TERSE_AUTO(terse_freep) quantized *done = malloc(((size_t)n_values + 1) * sizeof *done);
    TERSE_AUTO(terse_freep) bool *wide = calloc((size_t)n_values + 1, sizeof *wide);
    edit.failed = !done || !wide;
    for (int v = 0; done && v < n_values; v++)
        done[v] = (quantized){-1, -1};
    if (status == TERSE_OK)
        layers = change_all(&edit, &a, &seen, done, wide);
    terse_gptq_moments_done(&seen);
    const int closed = terse_edit_close(&edit, status == TERSE_OK ? error : NULL);
    status = status == TERSE_OK ? closed : status;
    if (status == TERSE_OK && ret_layers)
        *ret_layers = layers;
    if (status == TERSE_OK && ret_report)
        *ret_report = report;
    return status;
}
