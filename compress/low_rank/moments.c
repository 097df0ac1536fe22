/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "common/ops/window.h"
#include "compress/low_rank/steps.h"

enum { BLOCK = 256 }; /* rows that are summed up in one product */

void terse_moments_done(terse_moments *m)
{
    free(m->hat);
    free(m->cross);
    free(m->residual);
    free(m->mean);
    free(m->mean_hat);
    free(m->mean_residual);
    *m = (terse_moments){0};
}

int terse_moments_init(const terse_low_rank_product *p, bool residual, double expected_rows, terse_moments *ret_moments,
                       terse_error *error)
{
    const size_t k = (size_t)p->k, o = (size_t)p->o;
    terse_moments m = {.o = p->o, .k = p->k};
    m.hat = calloc(k * k, sizeof *m.hat);
    m.cross = calloc(k * k, sizeof *m.cross);
    m.mean = calloc(k, sizeof *m.mean);
    m.mean_hat = calloc(k, sizeof *m.mean_hat);
    m.residual = residual ? calloc(o * k, sizeof *m.residual) : NULL;
    m.mean_residual = residual ? calloc(o, sizeof *m.mean_residual) : NULL;
    if (!m.hat || !m.cross || !m.mean || !m.mean_hat || (residual && (!m.residual || !m.mean_residual))) {
        terse_moments_done(&m);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRId64 " x %" PRId64 " moments", p->k,
                          p->k);
    }
    /* more rows than the moments have unknowns, but no more work than a second or two */
    const double enough = fmin(fmax(2e11 / ((double)k * (double)k), 4.0 * (double)k), 65536.0);
    m.stride = expected_rows > enough ? (int64_t)ceil(expected_rows / enough) : 1;
    openblas_set_num_threads(1); /* the same bits on every machine of this kind, however many cores are free */
    *ret_moments = m;
    return TERSE_OK;
}

/* One chunk's input as rows: where row `index` takes its numbers from. */
typedef struct source {
    const terse_low_rank_product *product;
    const float *x;
    int64_t row_stride;
    terse_window window; /* of a convolution */
    int64_t rows;
} source;

static int open_source(const terse_graph *graph, const terse_low_rank_product *p, const terse_numbers *numbers,
                       source *ret_source, terse_error *error)
{
    const terse_node *node = &graph->nodes[p->node];
    const terse_tensor *x = terse_numbers_value(numbers, node->inputs[0]);
    if (!x || x->dtype != TERSE_FP32)
        return terse_fail(error, TERSE_INTERNAL, "node '%s': no numbers for its input", node->name);
    source s = {.product = p, .x = x->data, .row_stride = x->row_stride};
    if (!p->conv) {
        s.rows = terse_dims_count(x->dims, x->rank - 1);
        *ret_source = s;
        return TERSE_OK;
    }
    const terse_value *w = &graph->values[node->inputs[1]];
    const terse_tensor weights = terse_tensor_view((void *)(uintptr_t)w->data, w->dtype, w->rank, w->dims);
    const terse_tensor *inputs[2] = {x, &weights};
    const terse_op_plan plan = {.node = node, .n_inputs = 2, .inputs = inputs};
    int status = terse_window_read(&plan, w->dims + 2, &s.window, error);
    if (status == TERSE_OK)
        status = terse_window_slide(node, false, &s.window, error);
    s.rows = s.window.n * terse_window_pixels_out(&s.window);
    *ret_source = s;
    return status;
}

/* im2col of one output pixel: (channel, tap) in ONNX's order, zeros outside of the image. */
static void convolution_row(const source *s, int64_t index, double *row)
{
    const terse_window *w = &s->window;
    const int64_t pixels = terse_window_pixels_in(w), out = terse_window_pixels_out(w);
    const int64_t image = index / out, at = index % out;
    const int64_t first[3] = {at / (w->out[1] * w->out[2]) * w->stride[0] - w->pad[0],
                              at / w->out[2] % w->out[1] * w->stride[1] - w->pad[1],
                              at % w->out[2] * w->stride[2] - w->pad[2]};
    const int64_t taps = s->product->taps;
    int64_t tap = 0;
    for (int64_t a = 0; a < w->kernel[0]; a++)
        for (int64_t b = 0; b < w->kernel[1]; b++)
            for (int64_t c = 0; c < w->kernel[2]; c++, tap++) {
                const int64_t z = first[0] + a * w->dilation[0], y = first[1] + b * w->dilation[1],
                              x = first[2] + c * w->dilation[2];
                const bool inside = z >= 0 && z < w->in[0] && y >= 0 && y < w->in[1] && x >= 0 && x < w->in[2];
                const float *from = s->x + image * w->channels * pixels + (z * w->in[1] + y) * w->in[2] + x;
                for (int64_t channel = 0; channel < w->channels; channel++)
                    row[channel * taps + tap] = inside ? (double)from[channel * pixels] : 0.0;
            }
}

static bool fill_row(const source *s, int64_t index, double *row)
{
    if (s->product->conv)
        convolution_row(s, index, row);
    else
        for (int64_t i = 0; i < s->product->k; i++)
            row[i] = (double)s->x[index * s->row_stride + i];
    double sum = 0;
    for (int64_t i = 0; i < s->product->k; i++)
        sum += row[i];
    return isfinite(sum);
}

/* What is added behind the product, of one row: exact minus found. */
static bool fill_residual(const terse_low_rank_product *p, const source *s, const terse_tensor *exact,
                          const terse_tensor *found, int64_t index, double *row)
{
    const float *a = exact->data, *b = found->data;
    const int64_t pixels = p->conv ? terse_window_pixels_out(&s->window) : 1;
    double sum = 0;
    for (int64_t o = 0; o < p->o; o++) {
        const int64_t at = p->conv ? (index / pixels * p->o + o) * pixels + index % pixels : index * p->o + o;
        row[o] = (double)a[at] - (double)b[at];
        sum += row[o];
    }
    return isfinite(sum);
}

typedef struct block {
    double *exact, *found, *residual;
    int64_t n;
} block;

static void add_block(terse_moments *m, block *b)
{
    const int k = (int)m->k, n = (int)b->n, o = (int)m->o;
    if (n == 0)
        return;
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, k, n, 1.0, b->found, k, 1.0, m->hat, k);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, k, k, n, 1.0, b->exact, k, b->found, k, 1.0, m->cross, k);
    if (m->residual)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, o, k, n, 1.0, b->residual, o, b->found, k, 1.0,
                    m->residual, k);
    for (int r = 0; r < n; r++) {
        for (int64_t i = 0; i < m->k; i++) {
            m->mean[i] += b->exact[r * m->k + i];
            m->mean_hat[i] += b->found[r * m->k + i];
        }
        for (int64_t i = 0; m->residual && i < m->o; i++)
            m->mean_residual[i] += b->residual[r * m->o + i];
    }
    m->rows += (double)n;
    b->n = 0;
}

int terse_moments_add(const terse_graph *graph, const terse_low_rank_product *p, const terse_numbers *exact,
                      const terse_numbers *found, terse_moments *m, terse_error *error)
{
    source a, b;
    int status = open_source(graph, p, exact, &a, error);
    if (status == TERSE_OK)
        status = open_source(graph, p, found, &b, error);
    if (status != TERSE_OK)
        return status;
    const terse_node *node = &graph->nodes[p->node];
    const terse_tensor *r = m->residual ? terse_numbers_value(exact, node->inputs[3]) : NULL,
                       *r_hat = m->residual ? terse_numbers_value(found, node->inputs[3]) : NULL;
    TERSE_AUTO(terse_freep) double *room = malloc((size_t)BLOCK * (size_t)(2 * p->k + p->o) * sizeof *room);
    if (!room)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for rows of a layer");
    block rows = {.exact = room, .found = room + BLOCK * p->k, .residual = room + 2 * BLOCK * p->k};
    for (int64_t i = 0; i < a.rows; i++) {
        if (m->position++ % m->stride != 0)
            continue;
        if (!fill_row(&a, i, rows.exact + rows.n * p->k) || !fill_row(&b, i, rows.found + rows.n * p->k))
            continue;
        double *difference = rows.residual + rows.n * p->o;
        if (m->residual && r && r_hat && !fill_residual(p, &a, r, r_hat, i, difference))
            continue;
        if (m->residual && (!r || !r_hat))
            memset(difference, 0, (size_t)p->o * sizeof *difference);
        if (++rows.n == BLOCK)
            add_block(m, &rows);
    }
    add_block(m, &rows);
    terse_numbers_rest(exact, p->node);
    terse_numbers_rest(found, p->node);
    return TERSE_OK;
}

void terse_moments_finish(terse_moments *m)
{
    const int64_t k = m->k;
    const double n = m->rows > 0 ? m->rows : 1;
    for (int64_t i = 0; i < k; i++) {
        m->mean[i] /= n;
        m->mean_hat[i] /= n;
    }
    for (int64_t i = 0; m->residual && i < m->o; i++)
        m->mean_residual[i] /= n;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) {
            if (j >= i)
                m->hat[i * k + j] = m->hat[i * k + j] / n - m->mean_hat[i] * m->mean_hat[j];
            m->cross[i * k + j] = m->cross[i * k + j] / n - m->mean[i] * m->mean_hat[j];
        }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < i; j++)
            m->hat[i * k + j] = m->hat[j * k + i];
    for (int64_t i = 0; m->residual && i < m->o; i++)
        for (int64_t j = 0; j < k; j++)
            m->residual[i * k + j] = m->residual[i * k + j] / n - m->mean_residual[i] * m->mean_hat[j];
}
