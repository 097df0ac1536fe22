/* SPDX-License-Identifier: Apache-2.0 */
/* tensor.h: element types, shapes and the view of a tensor that every part of terse passes around.
 * Runs in: every program. A terse_tensor is a view: it never owns its bytes. */
#ifndef TERSE_COMMON_TENSOR_H
#define TERSE_COMMON_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_MAX_RANK = 8 };
/* No tensor, named or computed, is larger (bytes). Every product of dimensions is checked against it. */
#define TERSE_MAX_TENSOR_BYTES ((int64_t)1 << 40)

/* Names as the Open Inference Protocol spells them. Numbers are pinned: they travel between our processes, and
 * client/terse.h repeats them. */
#ifndef TERSE_DTYPE_CODES
#define TERSE_DTYPE_CODES
typedef enum terse_dtype {
    TERSE_DTYPE_NONE = 0, /* not known yet */
    TERSE_FP32 = 1,
    TERSE_FP64 = 2, /* FP64, FP16, BF16: read by the importer, converted or refused there */
    TERSE_FP16 = 3,
    TERSE_BF16 = 4,
    TERSE_INT8 = 5,
    TERSE_INT16 = 6,
    TERSE_INT32 = 7,
    TERSE_INT64 = 8,
    TERSE_UINT8 = 9,
    TERSE_UINT16 = 10,
    TERSE_UINT32 = 11,
    TERSE_UINT64 = 12,
    TERSE_BOOL = 13, /* one byte, 0 or 1 */
} terse_dtype;
#endif

/* How a constant's bytes are laid out. Activations are always TERSE_LAYOUT_PLAIN. Numbers are pinned (file). */
typedef enum terse_layout {
    TERSE_LAYOUT_PLAIN = 0, /* row-major, as ONNX has it */
    /* A matrix [K,N] as [groups][ceil(N/16)][K][16] floats, the columns beyond N zero. For Gemm and MatMul
     * `dims` are [K,N]; for a channels-last convolution dims are ONNX's [N,C/group,k...] (N = all output channels), K
     * runs over (kernel position, input channel of the group), and N/group columns per group. */
    TERSE_LAYOUT_F32_N16 = 1,
    /* Depthwise weights [C,1,k...] (one output per input channel) as [k...][ceil(C/16)*16] floats, zero-filled. */
    TERSE_LAYOUT_F32_DW16 = 2,
    /* INT8 weights of a product of bytes, four of K side by side: [groups][ceil(N/16)][K/4][16][4], zero-filled. For
     * [K,N] K is rounded up to 4. For a channels-last convolution dims are ONNX's [N,C/group,k...] and K runs over rows
     * of the kernel: [groups][ceil(N/group/16)][product of all kernel axes but the last][ceil(k_last * C/group /
     * 4)][16][4], where a row holds (position along the last axis, channel of the group). With C/group a multiple of 4
     * no bytes but columns are padding. */
    TERSE_LAYOUT_S8_N16K4 = 3,
    /* INT8 depthwise weights [C,1,k...], four positions of the last axis but one side by side (a lone axis has height
     * 1): [ceil(C/16)][leading axes][k_last][ceil(k_before_last/4)][16][4], zero-filled. */
    TERSE_LAYOUT_S8_DW = 4,
    /* INT8 weights of an FP32 product, [K,N] or a channels-last convolution in the order of TERSE_LAYOUT_F32_N16. */
    TERSE_LAYOUT_S8_N16 = 5,
    /* BF16 weights, two of K side by side: as TERSE_LAYOUT_S8_N16K4 with 2 in the place of 4. */
    TERSE_LAYOUT_BF16_N16K2 = 6,
    /* [K,N] weights of 4 bits (dtype UINT8, dims [K,N], values -8..7 stored + 8): [ceil(N/16)][ceil(K/8)][16][4] bytes;
     * byte j of a column's four holds k = 8 i + j in its low and k = 8 i + 4 + j in its high half; padding is 8 (that
     * is zero). */
    TERSE_LAYOUT_S4_N16K8 = 7,
    /* FP32 weights [N,C,3,3] in the domain of Winograd's F(4x4,3x3): [36][ceil(N/16)][C][16], zero-filled. */
    TERSE_LAYOUT_F32_WINOGRAD4 = 8,
    /* Weights of which blocks of four columns by one row are left out (common/sparse.h), of INT8 and FP32. Their bytes
     * depend on the weights: terse_layout_bytes does not know them. */
    TERSE_LAYOUT_S8_4X1 = 9,
    TERSE_LAYOUT_F32_4X1 = 10,
} terse_layout;

typedef struct terse_tensor {
    void *data; /* NULL: not known (when a plan is made) */
    terse_dtype dtype;
    terse_layout layout;
    int rank; /* 0: a scalar */
    int64_t dims[TERSE_MAX_RANK];
    /* Elements from one innermost row to the next: dims[rank-1] when dense, more when the rows are a slice of
     * wider rows (the inputs of a channels-last Concat). All outer axes are dense over these rows. */
    int64_t row_stride;
} terse_tensor;

TERSE_API size_t terse_dtype_size(terse_dtype dtype);               /* bytes of one element; 0 for NONE and strangers */
TERSE_API const char *terse_dtype_name(terse_dtype dtype);          /* "FP32"; "NONE"; "?" for strangers */
terse_dtype terse_dtype_from_name(const char *name, size_t length); /* TERSE_DTYPE_NONE when not known */

const char *terse_layout_name(terse_layout layout); /* "f32_n16", as files spell it; "?" for strangers */
bool terse_layout_from_name(const char *name, size_t length, terse_layout *ret_layout);

/* Product of dims; -1 when a dimension is negative or the product passes TERSE_MAX_TENSOR_BYTES. 1 for rank 0. */
int64_t terse_dims_count(const int64_t *dims, int rank);
/* Elements and dense bytes of a tensor whose dims have been checked (a plan's tensors are). */
int64_t terse_tensor_count(const terse_tensor *tensor);
int64_t terse_tensor_bytes(const terse_tensor *tensor);
bool terse_tensor_dense(const terse_tensor *tensor);
/* A dense view. dims may be NULL for rank 0. */
terse_tensor terse_tensor_view(void *data, terse_dtype dtype, int rank, const int64_t *dims);
/* Writes "[1,3,224,224]" (truncated to fit) and returns `text`. */
char *terse_dims_text(const int64_t *dims, int rank, char *text, size_t size);
/* Bytes of a constant in its layout: what the file stores. -1 when dims and layout do not go together or overflow.
 * `groups` matters for TERSE_LAYOUT_F32_N16 convolutions (1 elsewhere). */
int64_t terse_layout_bytes(terse_layout layout, terse_dtype dtype, int rank, const int64_t *dims, int64_t groups);

#endif
