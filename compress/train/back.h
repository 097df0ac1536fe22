/* SPDX-License-Identifier: Apache-2.0 */
/* back.h: the gradients of operators: one function each, and the table that finds them.
 * Runs in: terse-compress (and the tests). Owns nothing: a call lives on the tape's stack.
 *
 * A function adds to dx what the chain rule says, given dy. Derivations are those of calculus; where one is not obvious
 * its file says it. Sums over many elements are accumulated in double. */
#ifndef TERSE_TRAIN_BACK_H
#define TERSE_TRAIN_BACK_H

#include "common/ops/op.h"
#include "common/ops/window.h"

typedef struct terse_back {
    const terse_node *node;
    const terse_kernels *kernels;
    int n_inputs, n_outputs;
    const terse_tensor *const *x; /* inputs, NULL where absent */
    const terse_tensor *const *y; /* outputs as the node wrote them */
    float *const *dx;             /* per input: NULL where none is wanted */
    const float *const *dy;       /* per output: NULL where nothing comes back */
    float *scratch;               /* as many floats as `scratch` of the table's row said */
    const int32_t *const *moved;  /* per output, movers only: the element of input 0 that each element is, -1 none */
    const float *statistics;      /* BatchNormalization in training: mean [C], 1 / deviation [C] */
} terse_back;

typedef void terse_back_function(const terse_back *back);

enum {
    TERSE_BACK_READS_INPUTS = 1,  /* the function reads x's data */
    TERSE_BACK_READS_OUTPUTS = 2, /* the function reads y's data */
    TERSE_BACK_MOVES = 4,         /* outputs are elements of input 0: `moved` is to be filled */
    TERSE_BACK_ANY_DTYPE = 8,     /* gradients pass through bytes (QuantizeLinear) */
};

typedef struct terse_back_row {
    terse_back_function *run;
    unsigned flags;
    uint32_t inputs; /* bit i: input i can get a gradient */
    /* Floats of scratch; NULL: none. `back` has node, dims and which dx are wanted. */
    size_t (*scratch)(const terse_back *back);
} terse_back_row;

/* NULL where the operator has no gradient here. `node` may narrow it (an attribute that is not dealt with). */
const terse_back_row *terse_back_find(const terse_node *node);

/* back_conv.c */
terse_back_function terse_back_conv;
size_t terse_back_conv_scratch(const terse_back *back);
/* back_products.c */
terse_back_function terse_back_gemm, terse_back_matmul;
/* back_unary.c: y = f(x), element by element */
terse_back_function terse_back_unary, terse_back_clip;
/* back_binary.c: with broadcasting */
terse_back_function terse_back_binary, terse_back_where;
/* back_pool.c */
terse_back_function terse_back_max_pool, terse_back_average_pool, terse_back_global_average_pool,
    terse_back_global_max_pool;
/* back_moving.c */
terse_back_function terse_back_view, terse_back_moved, terse_back_concat, terse_back_gather;
/* back_rows.c: along an axis */
terse_back_function terse_back_reduce, terse_back_softmax, terse_back_layer_normalization;
/* back_norm.c */
terse_back_function terse_back_batch_normalization, terse_back_instance_normalization, terse_back_group_normalization,
    terse_back_lrn;
/* back_quantized.c */
terse_back_function terse_back_quantize, terse_back_dequantize;

/* The window of a Conv or pool whose plan succeeded. */
int terse_back_window(const terse_back *back, const int64_t *kernel_dims, bool pool, terse_window *ret_window);

#endif
