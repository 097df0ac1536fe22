/* SPDX-License-Identifier: Apache-2.0 */
/* edit.h: what every pass needs to change a graph: who makes a value, how many read it, and builders that keep both.
 * Runs in: terse-compress (and the tests). Ownership: an edit borrows the graph; new bytes go into the graph's arena.
 *
 * A pass opens an edit, walks the nodes by index and closes it. Nodes are only ever appended or marked as removed while
 * an edit is open, so indices stay good; closing drops the marked ones, sorts, prunes and checks the graph.
 * Memory that is out is remembered in `failed` and told by terse_edit_close, so that builders need no checks in between
 * beyond not using a negative number. */
#ifndef TERSE_PASSES_EDIT_H
#define TERSE_PASSES_EDIT_H

#include "common/graph/graph.h"

typedef struct terse_edit {
    terse_graph *graph;
    int *producer; /* per value: the node that makes it, or -1 (input, constant, nobody) */
    int *uses;     /* per value: node inputs and graph outputs that name it */
    int capacity;  /* values that the two arrays have room for */
    bool failed;
} terse_edit;

int terse_edit_open(terse_graph *graph, terse_edit *ret_edit, terse_error *error);
/* Compacts, sorts, prunes and checks, and releases the edit's own memory, also on failure. */
int terse_edit_close(terse_edit *edit, terse_error *error);

/* The node of that kind that makes `value`, or -1. */
int terse_edit_maker(const terse_edit *edit, int value, terse_op op);
/* Input `slot` of a node, TERSE_NO_VALUE when the node has fewer. */
int terse_edit_input(const terse_edit *edit, int node, int slot);

/* Appends a node; returns its index or -1. */
int terse_edit_add_node(terse_edit *edit, terse_op op, const char *name, const int *inputs, int n_inputs,
                        const int *outputs, int n_outputs);
/* A new value with these facts; returns its number or -1. */
int terse_edit_add_value(terse_edit *edit, const char *name, terse_dtype dtype, int rank, const int64_t *dims);
/* A new value like `value` with something put behind its name. */
int terse_edit_add_like(terse_edit *edit, int value, const char *suffix);
/* Constants. The bytes must be in the graph's arena (or outlive it). */
int terse_edit_add_constant(terse_edit *edit, const char *name, terse_dtype dtype, int rank, const int64_t *dims,
                            const void *data);
int terse_edit_add_ints(terse_edit *edit, const char *name, const int64_t *values, int n);
void *terse_edit_alloc(terse_edit *edit, size_t bytes);

void terse_edit_set_input(terse_edit *edit, int node, int slot, int value);
void terse_edit_set_output(terse_edit *edit, int node, int slot, int value);
void terse_edit_remove(terse_edit *edit, int node);
/* `host` makes from now on what `last` made (output 0); `last` is removed. */
void terse_edit_take_output(terse_edit *edit, int host, int last);

bool terse_edit_is_constant(const terse_edit *edit, int value);
/* The floats of a plain FP32 constant, or NULL. */
const float *terse_edit_floats(const terse_edit *edit, int value);
/* The number in a constant FP32 with exactly one element. */
bool terse_edit_scalar(const terse_edit *edit, int value, double *ret_number);
/* A constant list of INT64 or INT32 of rank <= 1 and at most `max` elements; -1 when it is something else. */
int terse_edit_ints(const terse_edit *edit, int value, int64_t *ret_values, int max);
/* True when both are stated and equal, symbols by symbol. */
bool terse_edit_same_shape(const terse_edit *edit, int a, int b);

/* The axis 0..rank-1 of an attribute; `fallback` when it is absent. -1 when it is out of range. */
int terse_edit_axis(const terse_edit *edit, int node, const char *attribute, int64_t fallback, int rank);

/* `to` (a value of the graph) becomes `from` with its axes moved: axis i of `to` is axis perm[i] of `from`. Adds a
 * Reshape where only axes of size 1 move, else a Transpose. Returns the node's index or -1. */
int terse_edit_add_move(terse_edit *edit, int from, const int64_t *perm, int to);
/* Is the axis order that `perm` gives the same memory order, because only axes of size 1 move? Then *ret_shape is the
 * operand of a Reshape that does it (0 copies axis 0, one -1 at most). `dims` are those before. */
bool terse_edit_move_is_view(const int64_t *dims, int rank, const int64_t *perm, int64_t *ret_shape);

/* Bit r: there are convolutions on tensors of rank r. There channels-last regions are worth it. */
unsigned terse_edit_convolution_ranks(const terse_graph *graph);

/* True for a product whose weights (input 1) are a plain FP32 constant that passes may rewrite: Conv and
 * ConvTranspose, Gemm in normal form, MatMul by a matrix. */
bool terse_edit_is_weighted(const terse_edit *edit, int node);

/* The DequantizeLinear that makes `value` out of a plain INT8 or UINT8 constant and a constant scale: quantized
 * weights, which stay bytes until the pass `lower` has seen them. -1 when it is something else. */
int terse_edit_bytes(const terse_edit *edit, int value);
/* True for Conv, Gemm and MatMul by such weights. */
bool terse_edit_is_bytes_product(const terse_edit *edit, int node);

/* A copy of the graph's structure; the bytes of constants stay those of `graph`, which must outlive the copy. */
int terse_edit_clone(const terse_graph *graph, terse_graph **ret_clone, terse_error *error);

#endif
