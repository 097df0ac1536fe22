/* SPDX-License-Identifier: Apache-2.0 */
/* op.h: what an operator is to the engine: a plan function (shapes, parameters, scratch) and a run function.
 * Runs in: terse-worker, terse run, terse-compress (constant folding).
 * Ownership: params belong to the plan; tensors are views into the arena, the model or the caller's memory. */
#ifndef TERSE_OPS_OP_H
#define TERSE_OPS_OP_H

#include "common/graph/graph.h"
#include "common/kernels/kernels.h"

/* What plan() sees of a node once the shapes of its inputs are known. */
typedef struct terse_op_plan {
    const terse_node *node;
    const terse_kernels *kernels;
    int n_inputs, n_outputs;
    /* Inputs: NULL where absent. inputs[i]->data is NULL while the value is not known (an activation), and is
     * readable for constants and for values that were computed from shapes. */
    const terse_tensor *const *inputs;
    /* To be filled: dtype, rank, dims (through terse_op_output). Outputs that nobody wants are filled too. */
    terse_tensor *outputs;
    terse_arena *arena;   /* lives as long as the plan: for params */
    void *params;         /* to be set, or left NULL */
    size_t scratch_bytes; /* to be set: 64-byte aligned memory that run() may use, shared by all nodes */
    int64_t macs;         /* to be set by Conv, ConvTranspose, Gemm, MatMul, Einsum, RNNs: multiply-accumulates */
} terse_op_plan;

typedef struct terse_op_call {
    const terse_node *node; /* for messages only */
    const terse_kernels *kernels;
    const void *params;
    int n_inputs, n_outputs;
    const terse_tensor *const *inputs; /* NULL where absent */
    const terse_tensor *outputs;       /* data NULL where nobody wants it and n_outputs > 1 */
    void *scratch;
    terse_ahead ahead; /* what the next product reads */
} terse_op_call;

enum {
    TERSE_OP_STRIDED_INPUTS = 1, /* run() obeys row_stride of every activation that it reads */
    TERSE_OP_STRIDED_OUTPUT = 2, /* run() obeys row_stride of outputs[0] */
    TERSE_OP_IN_PLACE = 4,       /* outputs[0] may be the very bytes of inputs[0] when their sizes are equal */
    TERSE_OP_VIEW = 8,           /* outputs[0] has inputs[0]'s bytes in the same order: Reshape, Squeeze, Identity */
    TERSE_OP_IN_PLACE_ANY = 16,  /* as IN_PLACE, for whichever input has outputs[0]'s dims and dtype (Add, Mul) */
    TERSE_OP_IN_PLACE_RESIDUAL = 32, /* as IN_PLACE, for input 3, the residual of a product */
    TERSE_OP_IN_PLACE_FOURTH = 64,   /* as IN_PLACE, for input 4, the residual of a product of bytes */
};

typedef struct terse_op_impl {
    const char *name;
    int min_inputs, max_inputs, min_outputs, max_outputs;
    unsigned flags;
    /* Bit i: input i must be known when a plan is made (a shape, axes, k ...). Where such a value is a graph
     * input it becomes part of the plan's key. */
    unsigned value_inputs;
    /* Checks dtypes, ranks, attributes and dims (all hostile), fills outputs, params, scratch_bytes.
     * Fails with INVALID_ARGUMENT or UNIMPLEMENTED and a message that names what was found and what is allowed; the
     * engine adds the node's name. */
    int (*plan)(terse_op_plan *plan, terse_error *error);
    /* Computes. Must not allocate. Fails only on values (an index out of range). The result of a row may not
     * depend on how many rows there are. */
    int (*run)(const terse_op_call *call, terse_error *error);
} terse_op_impl;

const terse_op_impl *terse_op_find(terse_op op);

/* Helpers for plan functions. */
int terse_op_output(terse_op_plan *plan, int index, terse_dtype dtype, int rank, const int64_t *dims,
                    terse_error *error); /* checks rank and overflow, fills outputs[index] densely */
void *terse_op_params(terse_op_plan *plan, size_t bytes, terse_error *error); /* zeroed; sets plan->params */
/* Normalizes an axis of -rank..rank-1; fails by name. */
int terse_op_axis(int64_t axis, int rank, int *ret_axis, terse_error *error);
/* A known INT64 or INT32 input of rank <= 1 as int64 (at most `max` of them). Fails when absent or not known. */
int terse_op_ints(const terse_op_plan *plan, int index, const char *what, int64_t *ret_values, int max, int *ret_n,
                  terse_error *error);
static inline const terse_tensor *terse_op_input(const terse_op_plan *plan, int index)
{
    return index < plan->n_inputs ? plan->inputs[index] : NULL;
}
/* Fails unless input `index` is present and its dtype is one of the bits (1u << dtype). */
int terse_op_expect(const terse_op_plan *plan, int index, const char *what, unsigned dtypes, terse_error *error);
/* Fails unless input `index` is present and has the dtype of input `other`. */
int terse_op_same(const terse_op_plan *plan, int index, const char *what, int other, terse_error *error);
/* Element `i` of a dense INT64 or INT32 tensor whose data is set: an index, an axis, k. */
static inline int64_t terse_op_index(const terse_tensor *tensor, int64_t i)
{
    return tensor->dtype == TERSE_INT64 ? ((const int64_t *)tensor->data)[i] : ((const int32_t *)tensor->data)[i];
}
/* numpy broadcasting of two shapes. */
int terse_op_broadcast(const int64_t *a, int rank_a, const int64_t *b, int rank_b, int64_t *ret_dims, int *ret_rank,
                       terse_error *error);

#define TERSE_OP_DECLARE(upper, lower, name) extern const terse_op_impl terse_op_##lower;
TERSE_OPS(TERSE_OP_DECLARE)
#undef TERSE_OP_DECLARE

#endif
