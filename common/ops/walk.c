/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/walk.h"

#include <string.h>

/* Elements are moved by size, not by type. */
typedef uint8_t __attribute__((may_alias)) element_1;
typedef uint16_t __attribute__((may_alias)) element_2;
typedef uint32_t __attribute__((may_alias)) element_4;
typedef uint64_t __attribute__((may_alias)) element_8;

void terse_walk_init(terse_walk *walk, int n_operands)
{
    walk->n_operands = n_operands;
    walk->rank = 0;
    walk->empty = false;
}

static void append(terse_walk *walk, int64_t size, const int64_t *strides)
{
    walk->dims[walk->rank] = size;
    for (int o = 0; o < walk->n_operands; o++)
        walk->strides[walk->rank][o] = strides[o];
    walk->rank++;
}

void terse_walk_axis(terse_walk *walk, int64_t size, const int64_t *strides)
{
    if (size == 1)
        return;
    if (size == 0)
        walk->empty = true;
    if (walk->empty)
        return;
    const int last = walk->rank - 1;
    bool merge = last >= 0;
    for (int o = 0; merge && o < walk->n_operands; o++)
        merge = walk->strides[last][o] == strides[o] * size;
    if (!merge) {
        append(walk, size, strides);
        return;
    }
    walk->dims[last] *= size;
    for (int o = 0; o < walk->n_operands; o++)
        walk->strides[last][o] = strides[o];
}

void terse_walk_strides(const terse_tensor *tensor, int64_t *ret_strides)
{
    int64_t stride = (int64_t)terse_dtype_size(tensor->dtype);
    for (int i = tensor->rank - 1; i >= 0; i--) {
        ret_strides[i] = stride;
        stride *= i == tensor->rank - 1 ? tensor->row_stride : tensor->dims[i];
    }
}

void terse_walk_tensors(terse_walk *walk, const terse_tensor *const *tensors, int n_tensors)
{
    const int rank = tensors[0]->rank;
    int64_t strides[TERSE_WALK_OPERANDS][TERSE_MAX_RANK];
    for (int o = 0; o < n_tensors; o++)
        terse_walk_strides(tensors[o], strides[o]);
    terse_walk_init(walk, n_tensors);
    for (int i = 0; i < rank; i++) {
        int64_t axis[TERSE_WALK_OPERANDS];
        for (int o = 0; o < n_tensors; o++) {
            const int own = i - (rank - tensors[o]->rank);
            axis[o] = own < 0 || tensors[o]->dims[own] != tensors[0]->dims[i] ? 0 : strides[o][own];
        }
        terse_walk_axis(walk, tensors[0]->dims[i], axis);
    }
}

bool terse_walk_is_unit(const terse_walk *walk, const int64_t *sizes)
{
    bool unit = walk->rank > 0 && walk->strides[walk->rank - 1][0] == sizes[0];
    for (int o = 1; unit && o < walk->n_operands; o++) {
        const int64_t stride = walk->strides[walk->rank - 1][o];
        unit = stride == 0 || stride == sizes[o];
    }
    return unit;
}

void terse_walk_unit(terse_walk *walk, const int64_t *sizes)
{
    if (!walk->empty && !terse_walk_is_unit(walk, sizes))
        append(walk, 1, sizes);
}

void terse_walk_run(const terse_walk *walk, char *const *at, terse_walk_row *row, const void *context)
{
    if (walk->empty)
        return;
    static const int64_t none[TERSE_WALK_OPERANDS] = {0};
    const int outer = walk->rank - 1;
    if (outer <= 0) {
        row(context, at, outer < 0 ? none : walk->strides[0], outer < 0 ? 1 : walk->dims[0]);
        return;
    }
    int64_t index[TERSE_WALK_RANK] = {0};
    char *now[TERSE_WALK_OPERANDS];
    for (int o = 0; o < walk->n_operands; o++)
        now[o] = at[o];
    for (;;) {
        row(context, now, walk->strides[outer], walk->dims[outer]);
        int axis = outer - 1;
        while (axis >= 0 && ++index[axis] == walk->dims[axis]) {
            for (int o = 0; o < walk->n_operands; o++)
                now[o] -= walk->strides[axis][o] * (walk->dims[axis] - 1);
            index[axis--] = 0;
        }
        if (axis < 0)
            return;
        for (int o = 0; o < walk->n_operands; o++)
            now[o] += walk->strides[axis][o];
    }
}

static void row_bytes(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)context;
    terse_walk_bytes(at[0], at[1], n * strides[0]);
}

#define ROW_ELEMENTS(size)                                                                                             \
    static void row_##size(const void *context, char *const *at, const int64_t *strides, int64_t n)                    \
    {                                                                                                                  \
        (void)context;                                                                                                 \
        char *dst = at[0];                                                                                             \
        const char *src = at[1];                                                                                       \
        for (int64_t i = 0; i < n; i++)                                                                                \
            *(element_##size *)(dst + i * strides[0]) = *(const element_##size *)(src + i * strides[1]);               \
    }
ROW_ELEMENTS(1)
ROW_ELEMENTS(2)
ROW_ELEMENTS(4)
ROW_ELEMENTS(8)

/* A plane in which the output is dense along one axis and the input along the other. */
typedef struct plane {
    const terse_kernels *kernels;
    int64_t size, rows, columns; /* src has rows of `columns` elements, dst has columns of `rows` */
    int64_t src_stride, dst_stride;
} plane;

enum { PLANE_TILE = 16 };

#define PLANE_ELEMENTS(bytes)                                                                                          \
    static void transpose_##bytes(const plane *p, char *dst, const char *src, int64_t r0, int64_t r1, int64_t c0,      \
                                  int64_t c1)                                                                          \
    {                                                                                                                  \
        for (int64_t c = c0; c < c1; c++)                                                                              \
            for (int64_t r = r0; r < r1; r++)                                                                          \
                *(element_##bytes *)(dst + c * p->dst_stride + r * bytes) =                                            \
                    *(const element_##bytes *)(src + r * p->src_stride + c * bytes);                                   \
    }
PLANE_ELEMENTS(2)
PLANE_ELEMENTS(4)
PLANE_ELEMENTS(8)

static void row_plane(const void *context, char *const *at, const int64_t *strides, int64_t n)
{
    (void)strides;
    (void)n;
    const plane *p = context;
    if (p->size == 4 && p->src_stride % 4 == 0 && p->dst_stride % 4 == 0) {
        p->kernels->transpose_32((const uint32_t *)(const void *)at[1], p->src_stride / 4, (uint32_t *)(void *)at[0],
                                 p->dst_stride / 4, p->rows, p->columns);
        return;
    }
    if (p->size == 1) {
        p->kernels->transpose_8((const uint8_t *)at[1], p->src_stride, (uint8_t *)at[0], p->dst_stride, p->rows,
                                p->columns);
        return;
    }
    for (int64_t c = 0; c < p->columns; c += PLANE_TILE)
        for (int64_t r = 0; r < p->rows; r += PLANE_TILE) {
            const int64_t r1 = r + PLANE_TILE < p->rows ? r + PLANE_TILE : p->rows;
            const int64_t c1 = c + PLANE_TILE < p->columns ? c + PLANE_TILE : p->columns;
            switch (p->size) {
            case 2:
                transpose_2(p, at[0], at[1], r, r1, c, c1);
                break;
            case 4:
                transpose_4(p, at[0], at[1], r, r1, c, c1);
                break;
            default:
                transpose_8(p, at[0], at[1], r, r1, c, c1);
                break;
            }
        }
}

/* Takes the innermost axis and the one along which src is dense out of the walk, if the two make a plane. */
static bool take_plane(terse_walk *walk, int64_t size, plane *ret_plane)
{
    const int inner = walk->rank - 1;
    if (inner < 1 || walk->strides[inner][0] != size || walk->strides[inner][1] <= 0)
        return false;
    int along = inner - 1;
    while (along >= 0 && walk->strides[along][1] != size)
        along--;
    if (along < 0 || walk->strides[along][0] <= 0)
        return false;
    ret_plane->size = size;
    ret_plane->rows = walk->dims[inner];
    ret_plane->columns = walk->dims[along];
    ret_plane->src_stride = walk->strides[inner][1];
    ret_plane->dst_stride = walk->strides[along][0];
    static const int64_t none[TERSE_WALK_OPERANDS] = {0};
    walk->rank--;
    for (int i = along; i + 1 < walk->rank; i++) {
        walk->dims[i] = walk->dims[i + 1];
        memcpy(walk->strides[i], walk->strides[i + 1], sizeof walk->strides[i]);
    }
    walk->rank--;
    append(walk, 1, none);
    return true;
}

void terse_walk_copy(const terse_kernels *kernels, int64_t size, int rank, const int64_t *dims, char *dst,
                     const int64_t *dst_strides, const char *src, const int64_t *src_strides)
{
    terse_walk walk;
    terse_walk_init(&walk, 2);
    for (int i = 0; i < rank; i++)
        terse_walk_axis(&walk, dims[i], (const int64_t[]){dst_strides[i], src_strides[i]});
    if (walk.empty)
        return;
    const int64_t one[2] = {size, size};
    if (walk.rank == 0)
        append(&walk, 1, one);
    char *const at[2] = {dst, (char *)(uintptr_t)src};
    const int64_t *inner = walk.strides[walk.rank - 1];
    plane p = {.kernels = kernels};
    if (inner[0] == size && inner[1] == size)
        terse_walk_run(&walk, at, row_bytes, NULL);
    else if (take_plane(&walk, size, &p))
        terse_walk_run(&walk, at, row_plane, &p);
    else
        terse_walk_run(&walk, at, size == 1 ? row_1 : size == 2 ? row_2 : size == 4 ? row_4 : row_8, NULL);
}

void terse_walk_fill(char *dst, const char *value, int64_t size, int64_t n)
{
    char *const at[2] = {dst, (char *)(uintptr_t)value};
    const int64_t strides[2] = {size, 0};
    (size == 1 ? row_1 : size == 2 ? row_2 : size == 4 ? row_4 : row_8)(NULL, at, strides, n);
}
