/* SPDX-License-Identifier: Apache-2.0 */
/* walk.h: nested loops over strided tensors, with as few axes as the strides allow, and the copy on top of them.
 * Runs in: terse-worker, terse run, terse-compress. Allocates nothing; a walk lives on the stack of run().
 *
 * A walk has operands (the output first, then inputs) and axes, outermost first; each axis has a size and one stride
 * per operand, in bytes (0: the operand is broadcast along it, negative: backwards). Axes that follow each other
 * without a gap in every operand become one, so that what is dense is one long run. */
#ifndef TERSE_OPS_WALK_H
#define TERSE_OPS_WALK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/kernels/kernels.h"
#include "common/tensor.h"

/* Twice the rank: Tile has two axes for each of its tensor's. One more: the unit axis of terse_walk_unit. */
enum { TERSE_WALK_RANK = 2 * TERSE_MAX_RANK + 1, TERSE_WALK_OPERANDS = 4 };

typedef struct terse_walk {
    int n_operands;
    int rank;
    bool empty; /* an axis has size 0 */
    int64_t dims[TERSE_WALK_RANK];
    int64_t strides[TERSE_WALK_RANK][TERSE_WALK_OPERANDS];
} terse_walk;

/* Called for each run of the innermost axis: n elements from at[o], strides[o] bytes apart. */
typedef void terse_walk_row(const void *context, char *const *at, const int64_t *strides, int64_t n);

void terse_walk_init(terse_walk *walk, int n_operands);
/* Appends an axis inside the ones so far, or merges it into the last. */
void terse_walk_axis(terse_walk *walk, int64_t size, const int64_t *strides);
/* A walk over the axes of tensors[0], to whose dims the others broadcast. Obeys row_stride. */
void terse_walk_tensors(terse_walk *walk, const terse_tensor *const *tensors, int n_tensors);
/* Makes every stride of the innermost axis 0 or sizes[o] (sizes[0] for the output): appends an axis of size 1 where
 * they are not. After it a row function may treat its operands as dense or as one number. */
void terse_walk_unit(terse_walk *walk, const int64_t *sizes);
/* Are they so already? */
bool terse_walk_is_unit(const terse_walk *walk, const int64_t *sizes);
void terse_walk_run(const terse_walk *walk, char *const *at, terse_walk_row *row, const void *context);

/* Byte strides of a tensor's axes, row_stride obeyed. */
void terse_walk_strides(const terse_tensor *tensor, int64_t *ret_strides);
/* Copies elements of `size` bytes (1, 2, 4 or 8) over `rank` axes; strides in bytes. dst and src do not overlap. */
void terse_walk_copy(const terse_kernels *kernels, int64_t size, int rank, const int64_t *dims, char *dst,
                     const int64_t *dst_strides, const char *src, const int64_t *src_strides);
/* dst[0..n) = *value, elements of `size` bytes. */
void terse_walk_fill(char *dst, const char *value, int64_t size, int64_t n);
/* A copy of `bytes` bytes, quick for the sizes of single elements. */
static inline void terse_walk_bytes(char *dst, const char *src, int64_t bytes)
{
    if (bytes == 4)
        __builtin_memcpy(dst, src, 4);
    else if (bytes == 8)
        __builtin_memcpy(dst, src, 8);
    else if (bytes == 16)
        __builtin_memcpy(dst, src, 16);
    else
        __builtin_memcpy(dst, src, (size_t)bytes);
}

/* dtype sets for terse_op_expect. */
enum {
    TERSE_TYPES_FLOAT = 1 << TERSE_FP32,
    TERSE_TYPES_SIGNED = 1 << TERSE_INT8 | 1 << TERSE_INT32 | 1 << TERSE_INT64,
    TERSE_TYPES_INDEX = 1 << TERSE_INT32 | 1 << TERSE_INT64,
    TERSE_TYPES_NUMBER = TERSE_TYPES_FLOAT | TERSE_TYPES_SIGNED | 1 << TERSE_UINT8,
    TERSE_TYPES_BOOL = 1 << TERSE_BOOL,
    TERSE_TYPES_ALL = TERSE_TYPES_NUMBER | TERSE_TYPES_BOOL,
};

/* Whatever has bytes: for operators that only move elements. */
#define TERSE_TYPES_ANY (~(1u << TERSE_DTYPE_NONE))

#endif
