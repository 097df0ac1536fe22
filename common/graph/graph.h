/* SPDX-License-Identifier: Apache-2.0 */
/* graph.h: a network as terse holds it between ONNX, the .terse file and the engine.
 * Runs in: terse, terse-compress, terse-loader, terse-frontend (signature only), terse-worker.
 * Ownership: the graph owns its nodes, values, names and attributes (one arena). The bytes of constants are
 * either in that arena or in memory that outlives the graph (a mapped model file).
 *
 * Values are numbered from 0; a node names its inputs and outputs by these numbers, TERSE_NO_VALUE marking an
 * absent optional input. Each value is a graph input, a constant (data != NULL) or the output of exactly one
 * node. Nodes are kept in execution order. */
#ifndef TERSE_GRAPH_GRAPH_H
#define TERSE_GRAPH_GRAPH_H

#include "common/bytes.h"
#include "common/graph/op_list.h"
#include "common/tensor.h"

typedef enum terse_op {
#define TERSE_OP_ENUM(upper, lower, name) TERSE_OP_##upper,
    TERSE_OPS(TERSE_OP_ENUM)
#undef TERSE_OP_ENUM
        TERSE_OP_COUNT
} terse_op;

const char *terse_op_name(terse_op op);                       /* "Conv" */
terse_op terse_op_from_name(const char *name, size_t length); /* TERSE_OP_COUNT when not known */

/* Makes an element of the output out of one element of each (broadcast) input, of the same dtype: Relu, Exp, Add, Max
 * ... */
bool terse_op_is_arithmetic(terse_op op);

enum { TERSE_NO_VALUE = -1, TERSE_MAX_NODE_IO = 1024 };

/* Limits that every reader enforces before it allocates. */
enum { TERSE_MAX_VALUES = 1 << 20, TERSE_MAX_NODES = 1 << 20, TERSE_MAX_SYMBOLS = 256, TERSE_MAX_NAME = 1024 };

/* A dimension of a value: >= 0 is fixed, < 0 names graph->symbols[-1 - dim]. */
#define TERSE_DIM_OF_SYMBOL(index) (-1 - (int64_t)(index))
#define TERSE_SYMBOL_OF_DIM(dim) ((int)(-1 - (dim)))

typedef enum terse_attr_kind {
    TERSE_ATTR_INT = 1,
    TERSE_ATTR_FLOAT = 2,
    TERSE_ATTR_TEXT = 3,
    TERSE_ATTR_INTS = 4,
    TERSE_ATTR_FLOATS = 5,
    TERSE_ATTR_TEXTS = 6,
} terse_attr_kind;

typedef struct terse_attr {
    const char *name;
    terse_attr_kind kind;
    int n; /* elements of ints, floats, texts */
    int64_t i;
    double f;
    const char *text;
    const int64_t *ints;
    const float *floats;
    const char *const *texts;
} terse_attr;

typedef struct terse_node {
    terse_op op;
    const char *name; /* unique for messages only; may be "" */
    int n_inputs, n_outputs, n_attrs;
    int *inputs;  /* value numbers or TERSE_NO_VALUE */
    int *outputs; /* value numbers or TERSE_NO_VALUE (an output nobody wants) */
    terse_attr *attrs;
    const char *compression; /* what was done to this node: "" or "low-rank 48 of 512" */
} terse_node;

typedef struct terse_value {
    const char *name;
    terse_dtype dtype; /* TERSE_DTYPE_NONE: computed, not stated */
    int rank;          /* -1: computed, not stated */
    int64_t dims[TERSE_MAX_RANK];
    terse_layout layout; /* constants */
    int64_t groups;      /* convolution groups of a packed constant, else 1 */
    const void *data;    /* constants: bytes in `layout`, 64-byte aligned */
    size_t bytes;
    const void
        *origin; /* TERSE_LAYOUT_F32_WINOGRAD4: the plain weights that `data` was made of, for who packs; or NULL */
} terse_value;

typedef struct terse_graph {
    terse_arena *arena;
    const char *name;
    int n_nodes, n_values, n_inputs, n_outputs, n_symbols;
    terse_node *nodes;
    terse_value *values;
    int *inputs;  /* value numbers, in ONNX's order, constants left out; dims and dtype always stated */
    int *outputs; /* value numbers, no duplicates; dtype, rank, dims stated */
    const char **symbols;
    /* Rows along axis 0 of every input and output are independent and share one symbol (proved by
     * compress/onnx/batchable.c, re-checked by nobody: the writer of the file answers for it). */
    bool batchable;
    int node_capacity, value_capacity;
} terse_graph;

terse_graph *terse_graph_new(void);
void terse_graph_free(terse_graph *graph);
void terse_graph_freep(terse_graph **graph);

/* All builders return -1 or NULL when memory or a limit is out; texts are copied. Pointers to nodes and
 * values are good until the next builder call on the same graph. */
int terse_graph_symbol(terse_graph *graph, const char *name);    /* index; the same for the same name */
int terse_graph_add_value(terse_graph *graph, const char *name); /* dtype NONE, rank -1 */
/* A constant whose bytes the caller has already put into the arena (or outlive the graph). */
int terse_graph_add_constant(terse_graph *graph, const char *name, terse_dtype dtype, int rank, const int64_t *dims,
                             const void *data);
/* Copies n ints (rank 1, INT64) into a constant: shapes, axes. */
int terse_graph_add_ints(terse_graph *graph, const char *name, const int64_t *values, int n);
/* Appends a node. inputs and outputs are copied. */
terse_node *terse_graph_add_node(terse_graph *graph, terse_op op, const char *name, const int *inputs, int n_inputs,
                                 const int *outputs, int n_outputs);
/* Puts the last node of the list before node `index`, for passes that insert. */
void terse_graph_move_last(terse_graph *graph, int index);
/* Drops nodes with op == TERSE_OP_COUNT (the mark of a removed node), keeping the order. */
void terse_graph_compact(terse_graph *graph);
/* Sorts nodes into execution order; fails on a cycle, naming a node on it. */
int terse_graph_sort(terse_graph *graph, terse_error *error);
/* Drops nodes and values that no output needs and renumbers the values. Graph inputs stay. */
int terse_graph_prune(terse_graph *graph, terse_error *error);
/* Checks every number in the graph: references, single producer, order before use, dims of constants, symbols, ranks.
 */
int terse_graph_check(const terse_graph *graph, terse_error *error);

/* Index of the node that makes `value`, or -1; how many nodes and graph outputs read it. O(nodes). */
int terse_graph_producer(const terse_graph *graph, int value);
int terse_graph_count_uses(const terse_graph *graph, int value);
/* Every reader of `from` (nodes and graph outputs) reads `to` instead. */
void terse_graph_replace_uses(terse_graph *graph, int from, int to);

/* Attributes. Setters replace; getters return the fallback when absent or of another kind. */
bool terse_node_set_int(terse_graph *graph, terse_node *node, const char *name, int64_t value);
bool terse_node_set_float(terse_graph *graph, terse_node *node, const char *name, double value);
bool terse_node_set_text(terse_graph *graph, terse_node *node, const char *name, const char *value);
bool terse_node_set_ints(terse_graph *graph, terse_node *node, const char *name, const int64_t *values, int n);
bool terse_node_set_floats(terse_graph *graph, terse_node *node, const char *name, const float *values, int n);
bool terse_node_set_texts(terse_graph *graph, terse_node *node, const char *name, const char *const *values, int n);
const terse_attr *terse_node_attr(const terse_node *node, const char *name); /* NULL when absent */
int64_t terse_node_int(const terse_node *node, const char *name, int64_t fallback);
double terse_node_float(const terse_node *node, const char *name, double fallback);
const char *terse_node_text(const terse_node *node, const char *name, const char *fallback);

/* The dims of a value for messages and reports, symbols by name: "[N,3,224,224]", "?" when not stated. */
char *terse_value_text(const terse_graph *graph, const terse_value *value, char *text, size_t size);

#endif
