/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/muon.h"

#include <math.h>
#include <string.h>

#include <cblas.h>

enum { ITERATIONS = 5, LEAST_NUMBERS = 64, MOST_SIDE = 1024 };         /* MOST_SIDE: of the shorter side */
static const float keep = 0.95f;                                       /* of the momentum, a step */
static const float adam_size = 0.2f;                                   /* root mean square of its steps */
static const float first = 3.4445f, third = -4.7750f, fifth = 2.0315f; /* of s, s^3, s^5 in an iteration */

static int64_t shorter(int64_t rows, int64_t columns)
{
    return rows < columns ? rows : columns;
}

bool terse_muon_takes(int64_t rows, int64_t columns)
{
    const int64_t side = shorter(rows, columns);
    return side > 1 && side <= MOST_SIDE && rows * columns >= LEAST_NUMBERS && rows * columns <= INT32_MAX;
}

int64_t terse_muon_room(int64_t rows, int64_t columns)
{
    const int64_t side = shorter(rows, columns);
    return rows * columns + 2 * side * side;
}

/* m <- (first + third G + fifth G^2) m with G = m m^T, or the same from the right where m has fewer columns than rows:
 * every singular value s becomes first s + third s^3 + fifth s^5. */
void terse_muon_orthogonalize(float *m, int64_t rows, int64_t columns, float *room)
{
    const bool tall = rows > columns;
    const int r = (int)rows, c = (int)columns, n = (int)shorter(rows, columns);
    float *old = room, *gram = old + rows * columns, *polynomial = gram + (int64_t)n * n;
    double norm = 0;
    for (int64_t i = 0; i < rows * columns; i++)
        norm += (double)m[i] * (double)m[i];
    const float scale = (float)(1 / (sqrt(norm) + 1e-30));
    for (int64_t i = 0; i < rows * columns; i++)
        m[i] *= scale;
    for (int k = 0; k < ITERATIONS; k++) {
        cblas_sgemm(CblasRowMajor, tall ? CblasTrans : CblasNoTrans, tall ? CblasNoTrans : CblasTrans, n, n,
                    tall ? r : c, 1, m, c, m, c, 0, gram, n);
        memcpy(polynomial, gram, (size_t)n * (size_t)n * sizeof *gram);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, fifth, gram, n, gram, n, third, polynomial, n);
        memcpy(old, m, (size_t)(rows * columns) * sizeof *m);
        if (tall)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, r, n, n, 1, old, c, polynomial, n, first, m, c);
        else
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, c, n, 1, polynomial, n, old, c, first, m, c);
    }
}

void terse_muon_direction(const float *gradient, float *momentum, int64_t rows, int64_t columns, float *ret_direction,
                          float *room)
{
    for (int64_t i = 0; i < rows * columns; i++) {
        momentum[i] = keep * momentum[i] + (1 - keep) * gradient[i];
        ret_direction[i] = keep * momentum[i] + (1 - keep) * gradient[i];
    }
    terse_muon_orthogonalize(ret_direction, rows, columns, room);
    const float size = adam_size * sqrtf((float)(rows > columns ? rows : columns));
    for (int64_t i = 0; i < rows * columns; i++)
        ret_direction[i] *= size;
}
