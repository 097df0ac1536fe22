/* SPDX-License-Identifier: Apache-2.0 */
#include "common/winograd.h"

#include "common/kernels/winograd.h"

/* 36 numbers G g G^T of one filter and channel; g: nine numbers. */
static void transform(const float *g, double u[WINOGRAD_POINTS])
{
    const double a = WINOGRAD_A, b = WINOGRAD_B;
    const double rows[WINOGRAD_WINDOW][3] = {{1, 0, 0},
                                             {-2.0 / 3, -2 * a / 3, -1.0 / 3},
                                             {-2.0 / 3, 2 * a / 3, -1.0 / 3},
                                             {1.0 / 6, b / 6, 1.0 / 3},
                                             {1.0 / 6, -b / 6, 1.0 / 3},
                                             {0, 0, 1}};
    double half[WINOGRAD_WINDOW][3];
    for (int i = 0; i < WINOGRAD_WINDOW; i++)
        for (int j = 0; j < 3; j++)
            half[i][j] = rows[i][0] * (double)g[j] + rows[i][1] * (double)g[3 + j] + rows[i][2] * (double)g[6 + j];
    for (int i = 0; i < WINOGRAD_POINTS; i++) {
        const double *left = half[i / WINOGRAD_WINDOW], *right = rows[i % WINOGRAD_WINDOW];
        u[i] = left[0] * right[0] + left[1] * right[1] + left[2] * right[2];
    }
}

void terse_winograd_expand(const float *from, int64_t n, int64_t c, float *to)
{
    const int64_t panels = (n + 15) / 16;
    for (int64_t f = 0; f < n; f++)
        for (int64_t channel = 0; channel < c; channel++) {
            double u[WINOGRAD_POINTS];
            transform(from + (f * c + channel) * 9, u);
            for (int64_t i = 0; i < WINOGRAD_POINTS; i++)
                to[((i * panels + f / 16) * c + channel) * 16 + f % 16] = (float)u[i];
        }
}
