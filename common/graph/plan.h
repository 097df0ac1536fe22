/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h: what the files of the engine share; nobody else includes it (the tests of the engine do).
 * Runs in: terse-worker, terse run, terse-compress.
 * Ownership: a plan and everything it points to lives in the plan's own terse_arena, except the bytes of activations
 * (the engine's arena, shared by its plans) and of constants (the graph's).
 *
 * Making a plan: plan.c asks every operator for shapes and computes the values that depend on shapes only; memory.c
 * decides where every activation lives (aliases first, then offsets.c); steps.c builds the array that run.c walks. */
#ifndef TERSE_GRAPH_PLAN_H
#define TERSE_GRAPH_PLAN_H

#include "common/graph/engine.h"
#include "common/graph/split.h"
#include "common/ops/op.h"

/* Values computed when a plan is made: at most this many bytes each where a shape depends on them, ... */
#define TERSE_KNOWN_NEEDED_BYTES ((size_t)4 << 20)
/* ... this many where they only save work in run(), and this many in one plan. Larger ones are computed by run(). */
#define TERSE_KNOWN_SPARED_BYTES ((size_t)1 << 20)
#define TERSE_KNOWN_TOTAL_BYTES ((size_t)32 << 20)

/* One call of an operator. */
typedef struct terse_step {
    int (*run)(const terse_op_call *call, terse_error *error);
    terse_op_call call;
    int node;
    uint64_t times[2]; /* the shortest so far: in one piece, in parts */
} terse_step;

/* A pointer that is set when its base is known: slot = base(index) + offset. */
typedef struct terse_patch {
    void **slot;
    size_t offset;
    size_t arena_offset; /* outputs: used when the caller wants no copy */
    bool empty;          /* inputs: no bytes, so that no pointer is needed */
    int index;           /* of the graph's input or output */
} terse_patch;

/* An output that does not lie in the caller's buffer by itself. */
typedef struct terse_copy {
    const terse_tensor *from;
    size_t bytes;
    int output;
} terse_copy;

struct terse_plan {
    terse_engine *engine;
    terse_arena *arena;
    terse_plan *newer, *older;
    uint64_t hash;
    const void *key;
    size_t key_bytes;

    const terse_tensor **values; /* per value: shape, and data where it is known; NULL where nothing makes it */
    terse_tensor *outputs;
    size_t arena_bytes, known_bytes;
    int64_t macs;

    terse_step *steps;
    int n_steps;
    const terse_tensor **live; /* per value: the tensor that the steps use, NULL where it is not computed by run() */
    terse_patch *arena_patches, *input_patches, *output_patches;
    int n_arena_patches, n_input_patches, n_output_patches;
    terse_copy *copies;
    int n_copies;
    void *base; /* the engine's arena as of the last binding */
    int trial;  /* runs that measured, up to TERSE_TRIALS: see run.c */

    uint64_t *times;
    terse_observer *observer;
    void *observer_context;
};

/* Where values lie. A group is a run of bytes shared by values that are parts or successors of one another. */
typedef enum terse_group_kind {
    TERSE_GROUP_ARENA,
    TERSE_GROUP_INPUT, /* the caller's input buffer: read only */
    TERSE_GROUP_FIXED, /* a constant or a value known when the plan was made */
} terse_group_kind;

typedef struct terse_group {
    terse_group_kind kind;
    int index;      /* INPUT: of the graph's input */
    int output;     /* ARENA: the graph output whose buffer the whole group is, or -1 */
    int start, end; /* first node that writes it, last that reads it (n_nodes: the caller) */
    size_t size, offset;
    void *fixed;
} terse_group;

typedef struct terse_place {
    int group; /* -1: none yet */
    size_t offset;
    int64_t row_stride;
} terse_place;

typedef enum terse_node_state {
    TERSE_NODE_KNOWN, /* computed when the plan was made, or wanted by nobody */
    TERSE_NODE_RUN,   /* the operator's run() */
    TERSE_NODE_ALIAS, /* its output is already where it belongs, or empty */
    TERSE_NODE_COPY,  /* the engine copies rows (a Concat or Split that aliases in part, a view that cannot alias) */
} terse_node_state;

/* What the plan in the making knows of each node and value; kept by the engine so that plans allocate little. */
typedef struct terse_workspace {
    void **params;           /* per node */
    size_t *scratch_bytes;   /* per node */
    terse_tensor **made;     /* per node: its outputs */
    terse_node_state *state; /* per node */
    int *scratch_group;      /* per node, or -1 */
    int *last_use;           /* per value: -1 nobody, n_nodes the caller */
    terse_place *places;     /* per value */
    terse_group *groups;
    int n_groups;
    int *order; /* n_groups: offsets.c */
} terse_workspace;

typedef enum terse_split_mode {
    TERSE_SPLIT_MEASURED, /* the steps that are faster in parts */
    TERSE_SPLIT_ALWAYS,   /* tests: all steps */
} terse_split_mode;

/* Runs of a plan that measure: one to touch the memory, then the two ways in turn. */
enum { TERSE_TRIALS = 9 };

struct terse_engine {
    const terse_graph *graph;
    const terse_kernels *kernels;
    int max_plans, n_plans;
    size_t max_arena_bytes;
    terse_split *split; /* NULL: one thread */
    terse_split_mode split_mode;
    bool separate; /* tests: every value in bytes of its own, nothing aliased */

    const terse_op_impl **impls; /* per node; NULL where this build has none */
    const terse_tensor **fixed;  /* per value: constants, else NULL */
    int *maker;                  /* per value: its node or -1 */
    int *use_start, *uses;       /* readers of value v: uses[use_start[v]] .. uses[use_start[v + 1] - 1] */
    bool *is_output;             /* per value */
    bool *needed;                /* per value: a shape depends on its data */
    uint64_t value_inputs;
    terse_arena *tables; /* owns the above and the workspace */
    terse_workspace work;

    void *base;
    size_t base_bytes;
    terse_plan *newest, *oldest;
    unsigned char *key;
    size_t key_capacity;
};

/* engine.c */
/* terse_engine_new with another table of operators: the tests bring their own. */
typedef const terse_op_impl *terse_op_finder(terse_op op);
int terse_engine_new_with(const terse_graph *graph, const terse_kernels *kernels, int max_plans, size_t max_arena_bytes,
                          terse_op_finder *find, terse_engine **ret_engine, terse_error *error);
void terse_engine_set_separate(terse_engine *engine, bool separate); /* for plans made from now on */
void terse_engine_set_split_mode(terse_engine *engine, terse_split_mode mode);
/* The table that operators plan with: that of the split where there is one. */
const terse_kernels *terse_engine_kernels(const terse_engine *engine);

/* evaluate.c: checks arity and layouts, calls the operator's plan(), checks what it filled. `outputs`: n_outputs of
 * them, zeroed. */
int terse_evaluate_plan(const terse_op_impl *impl, terse_op_plan *op_plan, terse_error *error);
/* Bytes that computing the planned node now would take (each output and scratch, aligned). */
size_t terse_evaluate_bytes(const terse_op_plan *op_plan);
/* Computes a planned node now: outputs get bytes in op_plan->arena. */
int terse_evaluate_run(const terse_op_impl *impl, const terse_op_plan *op_plan, terse_error *error);

/* plan.c. `symbols` holds the bound ones (-1: not bound). */
int terse_plan_make(terse_engine *engine, const terse_tensor *inputs, int64_t *symbols, terse_plan **ret_plan,
                    terse_error *error);
void terse_plan_free(terse_plan *plan);
/* Compares a shape with the one that the graph states for `value`, binding symbols that are not bound. On a mismatch
 * returns false with the axis, or -1 for another rank. */
bool terse_plan_fits(const terse_value *value, const int64_t *dims, int rank, int64_t *symbols, int *ret_axis);

/* macs.c: multiply-accumulates of one node; INT64_MAX when they do not fit. */
int64_t terse_macs_count(const terse_node *node, const terse_tensor *const *inputs, int n_inputs,
                         const terse_tensor *output);

/* memory.c: fills places, groups and states of the workspace; offsets.c: the groups' offsets, returns the bytes. */
int terse_memory_plan(terse_engine *engine, terse_plan *plan, terse_error *error);
size_t terse_offsets_assign(terse_group *groups, int n_groups, int *order);
size_t terse_offsets_separate(terse_group *groups, int n_groups);

/* alias.c: the decisions that memory.c strings together. Walking backwards, nodes to run only: */
void terse_alias_concat(terse_engine *engine, const terse_plan *plan, int n);    /* places what a Concat reads */
void terse_alias_view_back(terse_engine *engine, const terse_plan *plan, int n); /* and what a view of that reads */
/* Walking forwards; they set the node's state. */
bool terse_alias_view(terse_engine *engine, const terse_plan *plan, int n);     /* false: not a view */
void terse_alias_parts(terse_engine *engine, const terse_plan *plan, int n);    /* Split, Slice */
void terse_alias_joined(terse_engine *engine, const terse_plan *plan, int n);   /* Concat */
bool terse_alias_in_place(terse_engine *engine, const terse_plan *plan, int n); /* places output 0 on an input */

/* A new group; putting a value into a group. */
int terse_alias_group(terse_workspace *work, terse_group_kind kind, size_t size);
void terse_alias_put(terse_workspace *work, int value, terse_place place);
/* The place of a part of a placed whole that begins at `before` of `axis`; false when parts of it are no places. */
bool terse_alias_part(const terse_tensor *whole, terse_place place, const terse_tensor *part, int axis, int64_t before,
                      terse_place *ret_place);
bool terse_alias_is_part(const terse_tensor *whole, terse_place place, const terse_tensor *part, int axis,
                         int64_t before, const terse_place *found);
/* The "axis" attribute of Concat and Split, normalized; -1 when out of range. */
int terse_alias_axis(const terse_node *node, int rank);

/* steps.c */
int terse_steps_build(terse_engine *engine, terse_plan *plan, terse_error *error);
/* run.c: points the plan's tensors into the engine's arena. */
void terse_run_bind(terse_plan *plan);

#endif
