/* SPDX-License-Identifier: Apache-2.0 */
/* sparse.h: weights of which whole blocks of four columns by one row are zero, as file and kernels have them.
 * Runs in: every program that reads models; terse-compress packs. Ownership: views borrow the bytes of a constant.
 *
 * A matrix [K,N] (for a channels-last convolution K runs over (kernel position, channel), as in TERSE_LAYOUT_F32_N16)
 * is cut into panels of thirty-two columns, eight groups of four each. The four columns of a group keep the same rows.
 * A step takes up to `quad` rows of each group of a panel, all of them within a window of rows, so that a kernel can
 * look up what it needs of a row of activations in registers:
 *
 *   layout                quad  window  a step's weights
 *   TERSE_LAYOUT_S8_4X1   4     64      int8_t [8 groups][4 columns][4 rows]
 *   TERSE_LAYOUT_F32_4X1  1     256     float [8 groups][4 columns]
 *
 * Bytes, little endian, P = ceil(N/32) panels, S steps:
 *
 *   uint32_t S, 0, 0, 0
 *   uint32_t starts[P + 1]     panel p has the steps starts[p]..starts[p+1]-1; starts[0] = 0, starts[P] = S
 *   uint8_t advance[S]         what a step's window lies behind that of the step before (the panel's first: row 0)
 *   uint8_t index[S][8][quad]  rows of each group, counted from the window's first one
 *   weights[S]                 128 bytes each
 *
 * advance, index and weights beginning at multiples of 64. A window ends within K: it begins at most at K - window (0
 * for a smaller K), and a row is less than K. What only fills up a step has weights of 0. */
#ifndef TERSE_COMMON_SPARSE_H
#define TERSE_COMMON_SPARSE_H

#include "common/tensor.h"

enum { TERSE_SPARSE_PANEL = 32, TERSE_SPARSE_GROUPS = 8, TERSE_SPARSE_STEP_BYTES = 128 };

/* What the kernels read. */
typedef struct terse_sparse {
    const uint32_t *starts;
    const uint8_t *advance, *index;
    const void *weights; /* of step 0 */
} terse_sparse;

static inline bool terse_sparse_layout(terse_layout layout)
{
    return layout == TERSE_LAYOUT_S8_4X1 || layout == TERSE_LAYOUT_F32_4X1;
}

/* Rows of a group in a step, and rows that a step's window spans. */
static inline int terse_sparse_quad(terse_layout layout)
{
    return layout == TERSE_LAYOUT_S8_4X1 ? 4 : 1;
}
static inline int64_t terse_sparse_window(terse_layout layout)
{
    return layout == TERSE_LAYOUT_S8_4X1 ? 64 : 256;
}

/* K and N of dims ([K,N], or ONNX's [N,C,k...] of a convolution of one group); false for other ranks or empty ones. */
bool terse_sparse_sides(int rank, const int64_t *dims, int64_t *ret_k, int64_t *ret_n);
/* Panels of N columns. */
static inline int64_t terse_sparse_panels(int64_t n)
{
    return (n + TERSE_SPARSE_PANEL - 1) / TERSE_SPARSE_PANEL;
}

/* Bytes of a constant with `steps` steps and N columns; -1 when that is too much. */
int64_t terse_sparse_bytes(terse_layout layout, int64_t n, int64_t steps);
/* The bytes of a constant that terse_sparse_check accepted. */
terse_sparse terse_sparse_view(terse_layout layout, int64_t n, const void *data);
/* Every number in hostile bytes; INVALID_ARGUMENT says what is wrong. */
int terse_sparse_check(terse_layout layout, terse_dtype dtype, int rank, const int64_t *dims, const void *data,
                       size_t bytes, terse_error *error);

/* Packs w, column n's row k at w[n * k_size + k] (int8_t or float, as the layout says). Blocks that are all zero are
 * left out. Returns malloc'd bytes, or NULL when memory is out or the matrix too large; 64-byte aligned. */
void *terse_sparse_pack(terse_layout layout, const void *w, int64_t k_size, int64_t n_size, size_t *ret_bytes);
/* The inverse: w gets all k_size * n_size elements. */
void terse_sparse_unpack(terse_layout layout, const void *data, int64_t k_size, int64_t n_size, void *w);

#endif
