/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "common/bytes.h"
#include "compress/cluster/book.h"
#include "compress/quantize/gptq.h"

enum { BLOCK = 64 }; /* columns whose errors are handed on together */

/* What an error of one in column i costs: with the columns behind it making up for it, 1 / U_ii^2. */
static double column_weight(const terse_assign *a, const double *u, int64_t i)
{
    return u ? 1 / (u[i * a->k + i] * u[i * a->k + i]) : 1;
}

static double row_weight(const terse_assign *a, int64_t o)
{
    return a->scales && a->scales[o] > 0 ? a->scales[o] * a->scales[o] : 1;
}

static bool make_book(const terse_assign *a, const double *u, terse_book *book)
{
    const size_t count = (size_t)(a->o * a->k);
    TERSE_AUTO(terse_freep) double *numbers = malloc((count + 1) * sizeof *numbers);
    TERSE_AUTO(terse_freep) double *weights = malloc((count + 1) * sizeof *weights);
    if (!numbers || !weights)
        return false;
    for (int64_t o = 0; o < a->o; o++)
        for (int64_t k = 0; k < a->k; k++) {
            const double scale = a->scales ? a->scales[o] : 1, w = a->w[o * a->k + k];
            const double number = scale > 0 ? w / scale : 0;
            numbers[o * a->k + k] = a->integers ? fmin(fmax(number, -127), 127) : number;
            weights[o * a->k + k] = row_weight(a, o) * column_weight(a, u, k);
        }
    return terse_book_make(numbers, weights, (int64_t)count, a->bits, a->entropy, a->integers, book);
}

/* Columns first .. end of all rows; lost [o][BLOCK] gets what they lose, divided by U_ii. */
static void assign_block(terse_assign *a, const terse_book *book, const double *u, const bool *zero, int64_t first,
                         int64_t end, double *lost)
{
    const int64_t k = a->k;
    for (int64_t o = 0; o < a->o; o++) {
        double *row = a->w + o * k;
        const double scale = a->scales ? a->scales[o] : 1;
        for (int64_t i = first; i < end; i++) {
            const bool stays = zero[o * k + i] || scale == 0;
            const int code = stays ? terse_book_code(book, 0, INFINITY)
                                   : terse_book_code(book, row[i] / scale, row_weight(a, o) * column_weight(a, u, i));
            const double now = book->entries[code] * scale;
            const double error = u ? (row[i] - now) / u[i * k + i] : row[i] - now;
            lost[o * BLOCK + i - first] = error;
            for (int64_t j = i + 1; u && j < end; j++)
                row[j] -= error * u[i * k + j];
            row[i] = now;
            a->used[code]++;
            a->lost += error * error;
        }
    }
}

bool terse_assign_run(terse_assign *a, terse_book *ret_book)
{
    const double *u = a->cov && terse_gptq_factor(a->cov, a->k) ? a->cov : NULL;
    const int64_t count = a->o * a->k;
    TERSE_AUTO(terse_freep) bool *zero = malloc((size_t)count + 1);
    TERSE_AUTO(terse_freep) double *lost = malloc((size_t)a->o * BLOCK * sizeof *lost + 1);
    if (!zero || !lost || !make_book(a, u, ret_book))
        return false;
    for (int64_t i = 0; i < count; i++)
        zero[i] = a->w[i] == 0;
    for (int64_t first = 0; first < a->k; first += BLOCK) {
        const int64_t end = first + BLOCK < a->k ? first + BLOCK : a->k;
        assign_block(a, ret_book, u, zero, first, end, lost);
        if (u && end < a->k)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)a->o, (int)(a->k - end), (int)(end - first),
                        -1.0, lost, BLOCK, u + first * a->k + end, (int)a->k, 1.0, a->w + end, (int)a->k);
    }
    return true;
}
