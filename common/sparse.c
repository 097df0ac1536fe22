/* SPDX-License-Identifier: Apache-2.0 */
#include "common/sparse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

enum { PANEL = TERSE_SPARSE_PANEL, GROUPS = TERSE_SPARSE_GROUPS, HEAD = 16 };
/* Windows begin at multiples of this where they can: every second one of bytes then lies within a line of the cache. */
enum { EVEN = 32 };

bool terse_sparse_sides(int rank, const int64_t *dims, int64_t *ret_k, int64_t *ret_n)
{
    const int64_t count = rank >= 2 ? terse_dims_count(dims, rank) : -1;
    if (count < 1)
        return false;
    *ret_n = rank == 2 ? dims[1] : dims[0];
    *ret_k = count / *ret_n;
    return true;
}

/* Where the four parts begin, and behind the last one. */
typedef struct parts {
    size_t starts, advance, index, weights, end;
} parts;

static bool find_parts(terse_layout layout, int64_t n, int64_t steps, parts *ret_parts)
{
    if (n < 1 || n > TERSE_MAX_TENSOR_BYTES || steps < 0 || steps > UINT32_MAX)
        return false;
    const size_t panels = (size_t)terse_sparse_panels(n), s = (size_t)steps;
    parts p = {.starts = HEAD};
    p.advance = terse_align(p.starts + (panels + 1) * sizeof(uint32_t), 64);
    p.index = terse_align(p.advance + s, 64);
    p.weights = terse_align(p.index + s * GROUPS * (size_t)terse_sparse_quad(layout), 64);
    p.end = p.weights + s * TERSE_SPARSE_STEP_BYTES;
    *ret_parts = p;
    return p.end <= (size_t)TERSE_MAX_TENSOR_BYTES;
}

int64_t terse_sparse_bytes(terse_layout layout, int64_t n, int64_t steps)
{
    parts p;
    return find_parts(layout, n, steps, &p) ? (int64_t)p.end : -1;
}

terse_sparse terse_sparse_view(terse_layout layout, int64_t n, const void *data)
{
    const uint8_t *bytes = data;
    parts p = {0};
    find_parts(layout, n, ((const uint32_t *)data)[0], &p);
    return (terse_sparse){.starts = (const uint32_t *)(const void *)(bytes + p.starts),
                          .advance = bytes + p.advance,
                          .index = bytes + p.index,
                          .weights = bytes + p.weights};
}

/* --- checking ------------------------------------------------------------------------------------------------- */

static int check_panel(terse_layout layout, const terse_sparse *s, int64_t panel, int64_t k, terse_error *error)
{
    const int64_t window = terse_sparse_window(layout), last = k > window ? k - window : 0;
    const int each = GROUPS * terse_sparse_quad(layout);
    int64_t base = 0;
    for (int64_t step = s->starts[panel]; step < s->starts[panel + 1]; step++) {
        base += s->advance[step];
        if (base > last)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "step %" PRId64 " of the sparse weights looks at row %" PRId64 ", at most %" PRId64
                              " is allowed",
                              step, base, last);
        for (int i = 0; i < each; i++) {
            const int64_t index = s->index[step * each + i];
            if (index >= window || base + index >= k)
                return terse_fail(error, TERSE_INVALID_ARGUMENT,
                                  "step %" PRId64 " of the sparse weights has index %" PRId64 " behind row %" PRId64
                                  ", the window has %" PRId64 " rows and the matrix %" PRId64,
                                  step, index, base, window, k);
        }
    }
    return TERSE_OK;
}

int terse_sparse_check(terse_layout layout, terse_dtype dtype, int rank, const int64_t *dims, const void *data,
                       size_t bytes, terse_error *error)
{
    const terse_dtype needed = layout == TERSE_LAYOUT_S8_4X1 ? TERSE_INT8 : TERSE_FP32;
    int64_t k, n;
    char text[128];
    if (!terse_sparse_layout(layout) || dtype != needed || !terse_sparse_sides(rank, dims, &k, &n))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "sparse weights of %s%s are not %s of two or more axes",
                          terse_dtype_name(dtype), rank >= 0 ? terse_dims_text(dims, rank, text, sizeof text) : "?",
                          terse_dtype_name(needed));
    uint32_t head[4] = {0};
    if (bytes >= HEAD)
        memcpy(head, data, sizeof head);
    const int64_t wanted = terse_sparse_bytes(layout, n, head[0]);
    if (bytes < HEAD || wanted < 0 || (uint64_t)wanted != bytes || head[1] || head[2] || head[3])
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "sparse weights of %" PRIu32 " steps have %zu bytes, %" PRId64 " are needed", head[0], bytes,
                          wanted);
    const terse_sparse s = terse_sparse_view(layout, n, data);
    const int64_t panels = terse_sparse_panels(n);
    if (s.starts[0] != 0 || s.starts[panels] != head[0])
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the panels of the sparse weights have steps %" PRIu32 " to %" PRIu32 ", there are %" PRIu32,
                          s.starts[0], s.starts[panels], head[0]);
    for (int64_t p = 0; p < panels; p++)
        if (s.starts[p] > s.starts[p + 1] || s.starts[p + 1] > head[0])
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "panel %" PRId64 " of the sparse weights begins at step %" PRIu32 " and ends at %" PRIu32
                              " of %" PRIu32,
                              p, s.starts[p], s.starts[p + 1], head[0]);
    for (int64_t p = 0; p < panels; p++) {
        const int status = check_panel(layout, &s, p, k, error);
        if (status != TERSE_OK)
            return status;
    }
    return TERSE_OK;
}

/* --- packing -------------------------------------------------------------------------------------------------- */

/* One panel in the making: the rows that each group keeps and how far they have been dealt out. */
typedef struct packer {
    terse_layout layout;
    const uint8_t *w; /* bytes of the matrix */
    size_t size;      /* of an element */
    int64_t k, n;
    int64_t *rows; /* [GROUPS][k] */
    int64_t count[GROUPS], at[GROUPS];
} packer;

static bool is_zero(const packer *p, int64_t column, int64_t row)
{
    const uint8_t *element = p->w + (size_t)(column * p->k + row) * p->size;
    float x;
    if (p->size == 1)
        return *element == 0;
    memcpy(&x, element, sizeof x);
    return x == 0.0f;
}

static void list_rows(packer *p, int64_t panel)
{
    for (int g = 0; g < GROUPS; g++) {
        const int64_t first = panel * PANEL + g * 4, end = first + 4 < p->n ? first + 4 : p->n;
        int64_t count = 0;
        for (int64_t row = 0; row < p->k; row++) {
            bool kept = false;
            for (int64_t column = first; column < end && !kept; column++)
                kept = !is_zero(p, column, row);
            if (kept)
                p->rows[g * p->k + count++] = row;
        }
        p->count[g] = count;
        p->at[g] = 0;
    }
}

/* Takes the next step of the panel: returns its window, or -1 when nothing is left. first[g]: the step's first entry in
 * the group's rows; taken[g]: how many it takes. A window begins with the row that comes first, so that the group that
 * lags behind always gets its rows. */
static int64_t take_step(packer *p, int64_t first[GROUPS], int taken[GROUPS])
{
    const int64_t window = terse_sparse_window(p->layout), last = p->k > window ? p->k - window : 0;
    int64_t base = INT64_MAX;
    for (int g = 0; g < GROUPS; g++)
        if (p->at[g] < p->count[g] && p->rows[g * p->k + p->at[g]] < base)
            base = p->rows[g * p->k + p->at[g]];
    if (base == INT64_MAX)
        return -1;
    base = base < last ? base / EVEN * EVEN : last;
    for (int g = 0; g < GROUPS; g++) {
        first[g] = p->at[g];
        taken[g] = 0;
        while (taken[g] < terse_sparse_quad(p->layout) && p->at[g] < p->count[g] &&
               p->rows[g * p->k + p->at[g]] < base + window) {
            taken[g]++;
            p->at[g]++;
        }
    }
    return base;
}

static int64_t count_steps(packer *p, int64_t panel)
{
    int64_t first[GROUPS], base, before = 0, steps = 0;
    int taken[GROUPS];
    list_rows(p, panel);
    while ((base = take_step(p, first, taken)) >= 0) {
        steps += 1 + (base > before ? (base - before - 1) / UINT8_MAX : 0);
        before = base;
    }
    return steps;
}

/* The fields of all steps are zero before. */
static void fill_step(const packer *p, int64_t panel, int64_t base, const int64_t first[GROUPS],
                      const int taken[GROUPS], uint8_t *index, uint8_t *weights)
{
    const int quad = terse_sparse_quad(p->layout);
    for (int g = 0; g < GROUPS; g++)
        for (int q = 0; q < taken[g]; q++) {
            const int64_t row = p->rows[g * p->k + first[g] + q];
            index[g * quad + q] = (uint8_t)(row - base);
            for (int i = 0; i < 4; i++) {
                const int64_t column = panel * PANEL + g * 4 + i;
                if (column < p->n)
                    memcpy(weights + (size_t)((g * 4 + i) * quad + q) * p->size,
                           p->w + (size_t)(column * p->k + row) * p->size, p->size);
            }
        }
}

/* Steps in between that only advance look at their window's first row with weights of zero. */
static int64_t fill_panel(packer *p, int64_t panel, int64_t step, uint8_t *advance, uint8_t *index, uint8_t *weights)
{
    int64_t first[GROUPS], base, before = 0;
    int taken[GROUPS];
    const int each = GROUPS * terse_sparse_quad(p->layout);
    list_rows(p, panel);
    while ((base = take_step(p, first, taken)) >= 0) {
        for (; base - before > UINT8_MAX; before += UINT8_MAX)
            advance[step++] = UINT8_MAX;
        advance[step] = (uint8_t)(base - before);
        fill_step(p, panel, base, first, taken, index + step * each, weights + step * TERSE_SPARSE_STEP_BYTES);
        before = base;
        step++;
    }
    return step;
}

void *terse_sparse_pack(terse_layout layout, const void *w, int64_t k_size, int64_t n_size, size_t *ret_bytes)
{
    packer p = {.layout = layout, .w = w, .size = layout == TERSE_LAYOUT_S8_4X1 ? 1 : 4, .k = k_size, .n = n_size};
    const int64_t panels = terse_sparse_panels(n_size);
    TERSE_AUTO(terse_freep) int64_t *rows = calloc((size_t)k_size * GROUPS + 1, sizeof *rows);
    if (!rows)
        return NULL;
    p.rows = rows;
    int64_t steps = 0;
    for (int64_t panel = 0; panel < panels; panel++)
        steps += count_steps(&p, panel);
    parts at;
    if (!find_parts(layout, n_size, steps, &at))
        return NULL;
    uint8_t *data = aligned_alloc(64, terse_align(at.end, 64));
    if (!data)
        return NULL;
    memset(data, 0, at.end);
    memcpy(data, &(uint32_t){(uint32_t)steps}, sizeof(uint32_t));
    uint32_t *starts = (uint32_t *)(void *)(data + at.starts);
    int64_t step = 0;
    for (int64_t panel = 0; panel < panels; panel++) {
        step = fill_panel(&p, panel, step, data + at.advance, data + at.index, data + at.weights);
        starts[panel + 1] = (uint32_t)step;
    }
    *ret_bytes = at.end;
    return data;
}

void terse_sparse_unpack(terse_layout layout, const void *data, int64_t k_size, int64_t n_size, void *w)
{
    const terse_sparse s = terse_sparse_view(layout, n_size, data);
    const int quad = terse_sparse_quad(layout);
    const size_t size = layout == TERSE_LAYOUT_S8_4X1 ? 1 : 4;
    memset(w, 0, (size_t)(k_size * n_size) * size);
    for (int64_t panel = 0; panel < terse_sparse_panels(n_size); panel++) {
        int64_t base = 0;
        for (int64_t step = s.starts[panel]; step < s.starts[panel + 1]; step++) {
            base += s.advance[step];
            const uint8_t *from = (const uint8_t *)s.weights + step * TERSE_SPARSE_STEP_BYTES, zero[4] = {0};
            for (int i = 0; i < PANEL * quad; i++) {
                const int64_t column = panel * PANEL + i / quad;
                const int64_t row = base + s.index[(step * GROUPS + i / quad / 4) * quad + i % quad];
                if (column < n_size && memcmp(from + (size_t)i * size, zero, size) != 0)
                    memcpy((uint8_t *)w + (size_t)(column * k_size + row) * size, from + (size_t)i * size, size);
            }
        }
    }
}
