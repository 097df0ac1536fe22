/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/prune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[TERSE_PRUNE_KINDS] = {[TERSE_PRUNE_4X1] = "4x1",
                                                          [TERSE_PRUNE_UNSTRUCTURED] = "unstructured",
                                                          [TERSE_PRUNE_2TO4] = "2:4",
                                                          [TERSE_PRUNE_CHANNELS] = "channels"};

const char *terse_prune_kind_name(terse_prune_kind kind)
{
    return (unsigned)kind < TERSE_PRUNE_KINDS ? kind_names[kind] : "?";
}

void terse_prune_mark(terse_edit *edit, int node, terse_prune_kind kind, double kept)
{
    char text[200];
    terse_node *n = &edit->graph->nodes[node];
    const char *before = n->compression ? n->compression : "";
    if (strstr(before, "pruned"))
        return;
    snprintf(text, sizeof text, "%.120s%spruned %s to %.0f %%", before, *before ? ", " : "",
             terse_prune_kind_name(kind), 100.0 * kept);
    n->compression = terse_arena_text(edit->graph->arena, text, strlen(text));
    edit->failed = edit->failed || !n->compression;
}

/* One block and what its weights are worth; equal ones go by their place, so that nothing depends on the sort. */
typedef struct scored {
    double score;
    int64_t index;
} scored;

static int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    return x->score != y->score ? (x->score > y->score) - (x->score < y->score)
                                : (x->index > y->index) - (x->index < y->index);
}

/* Blocks of `rows` outputs by one input. */
static double prune_blocks(terse_prune_matrix *m, int64_t rows, double amount)
{
    const int64_t groups = (m->n + rows - 1) / rows, blocks = groups * m->k;
    scored *list = malloc(((size_t)blocks + 1) * sizeof *list);
    if (!list)
        return -1;
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t first = b / m->k * rows, i = b % m->k;
        list[b] = (scored){0.0, b};
        for (int64_t n = first; n < first + rows && n < m->n; n++)
            list[b].score += m->w[n * m->k + i] * m->w[n * m->k + i];
    }
    qsort(list, (size_t)blocks, sizeof *list, by_score);
    const int64_t gone = (int64_t)floor(amount * (double)blocks + 1e-9);
    for (int64_t b = 0; b < gone; b++)
        for (int64_t n = list[b].index / m->k * rows, r = 0; r < rows && n + r < m->n; r++)
            m->w[(n + r) * m->k + list[b].index % m->k] = 0.0;
    free(list);
    return blocks ? 1.0 - (double)gone / (double)blocks : 1.0;
}

/* Of each four neighbours in K two stay at most, those of the greatest size. */
static double prune_2to4(terse_prune_matrix *m)
{
    int64_t kept = 0;
    for (int64_t n = 0; n < m->n; n++)
        for (int64_t first = 0; first < m->k; first += 4) {
            double *w = m->w + n * m->k + first;
            const int64_t count = m->k - first < 4 ? m->k - first : 4;
            int64_t left = 0;
            for (int64_t i = 0; i < count; i++)
                left += w[i] != 0.0;
            for (; left > 2; left--) {
                int64_t least = -1;
                for (int64_t i = 0; i < count; i++)
                    if (w[i] != 0.0 && (least < 0 || fabs(w[i]) < fabs(w[least])))
                        least = i;
                w[least] = 0.0;
            }
            kept += left;
        }
    return m->n > 0 && m->k > 0 ? (double)kept / (double)(m->n * m->k) : 1.0;
}

double terse_prune_by_magnitude(terse_prune_matrix *m, terse_prune_kind kind, double amount)
{
    switch (kind) {
    case TERSE_PRUNE_4X1:
        return prune_blocks(m, 4, amount);
    case TERSE_PRUNE_2TO4:
        return prune_2to4(m);
    default:
        return prune_blocks(m, 1, amount);
    }
}

double terse_prune_kept(const terse_prune_matrix *m, terse_prune_kind kind)
{
    const int64_t rows = kind == TERSE_PRUNE_4X1 ? 4 : 1;
    int64_t kept = 0;
    for (int64_t first = 0; first < m->n; first += rows)
        for (int64_t i = 0; i < m->k; i++) {
            bool any = false;
            for (int64_t n = first; n < first + rows && n < m->n; n++)
                any = any || m->w[n * m->k + i] != 0.0;
            kept += any;
        }
    const int64_t blocks = (m->n + rows - 1) / rows * m->k;
    return blocks ? (double)kept / (double)blocks : 1.0;
}
