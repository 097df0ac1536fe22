/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h: what the files of the importer share; import.h is for everybody else.
 * Runs in: terse-compress. Ownership: the builder borrows model, graph and report and owns its name table. */
#ifndef TERSE_ONNX_INTERNAL_H
#define TERSE_ONNX_INTERNAL_H

#include "compress/onnx/import.h"

#include <protobuf-c/protobuf-c.h>
#include "onnx.pb-c.h"

enum { TERSE_ONNX_MIN_OPSET = 1, TERSE_ONNX_MAX_OPSET = 27 };

/* ---- report.c ---- */

/* Adds "WHAT (node 'NODE', opset N) is not supported", or "WHAT is not supported (opset N)" when `node` is NULL. */
void terse_onnx_unsupported(terse_onnx_report *report, const char *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void terse_onnx_warn(terse_onnx_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* TERSE_OK when nothing is unsupported, else UNIMPLEMENTED with a message that sums the lines up. */
int terse_onnx_report_status(const terse_onnx_report *report, terse_error *error);

/* ---- parse.c ---- */

/* protobuf-c's structs, all made by an allocator that grants no more than the file's size justifies. */
typedef struct terse_onnx_parsed {
    Onnx__Model *model;
    ProtobufCAllocator allocator;
    uint64_t live, total; /* bytes granted and not freed; granted ever */
    uint64_t max_live, max_total;
    bool exhausted;
} terse_onnx_parsed;

int terse_onnx_parse(const void *bytes, size_t size, terse_onnx_parsed *parsed, terse_error *error);
void terse_onnx_parsed_done(terse_onnx_parsed *parsed); /* accepts a zeroed one */

/* ---- names.c: a table from names to value numbers ---- */

typedef struct terse_onnx_names {
    const terse_graph *graph;
    uint64_t seed; /* random: a file cannot aim for collisions */
    int *slots;    /* value + 1, 0 where free */
    int n, capacity;
} terse_onnx_names;

int terse_onnx_names_find(const terse_onnx_names *names, const char *name); /* value or -1 */
bool terse_onnx_names_add(terse_onnx_names *names, int value);              /* false when memory is out */

/* ---- external.c: tensors that lie in other files ---- */

typedef struct terse_onnx_file {
    uint64_t device, inode;
} terse_onnx_file;

typedef struct terse_onnx_external {
    const char *directory; /* NULL: external data is refused */
    int directory_fd;      /* -1 until the first use */
    int fd;                /* the file used last, -1 when none */
    uint64_t fd_bytes;
    char location[TERSE_MAX_NAME];
    uint64_t granted, budget; /* bytes read so far, and at most: overlapping tensors may not multiply a file */
    terse_onnx_file *files;   /* those seen */
    int n_files;
} terse_onnx_external;

/* Reads exactly `bytes` into `target`, allocated in `arena` once the file is known to have them. */
int terse_onnx_external_read(terse_onnx_external *external, const Onnx__Tensor *tensor, uint64_t bytes,
                             terse_arena *arena, void **ret_data, terse_error *error);
void terse_onnx_external_done(terse_onnx_external *external);

/* ---- build.c ---- */

typedef struct terse_onnx_builder {
    terse_onnx_parsed *parsed;
    terse_graph *graph;
    terse_onnx_report *report;
    int opset;
    terse_onnx_names names;
    terse_onnx_external external;
    char *used; /* per value declared by the file: a node or the graph's outputs read it */
    int n_used;
    terse_error failed; /* why a node's shapes could not be found under any choice of the symbols */
} terse_onnx_builder;

/* Values and nodes of the whole file; what is not supported goes into the report and is left out. */
int terse_onnx_build(terse_onnx_builder *builder, terse_error *error);
void terse_onnx_builder_done(terse_onnx_builder *builder);
bool terse_onnx_own_domain(const char *domain); /* of ONNX's own operators */
bool terse_onnx_is_used(const terse_onnx_builder *builder, int value);

/* ---- tensor.c ---- */

/* terse's number for an ONNX element type; NONE for what terse has no number for. */
terse_dtype terse_onnx_dtype(int32_t type);
const char *terse_onnx_dtype_name(int32_t type);          /* "FLOAT16", or "number 99" (static) */
terse_dtype terse_onnx_dtype_from_text(const char *name); /* ONNX's spelling, opset 1..5 */
/* Bytes of a tensor in the graph's arena; FP16, BF16 and FP64 become FP32. *ret_dtype is NONE when the element type is
 * not supported (noted in the report, with `node` when that is not NULL). Frees the parsed bytes on the way. */
int terse_onnx_tensor_read(terse_onnx_builder *builder, Onnx__Tensor *tensor, const char *node, terse_dtype *ret_dtype,
                           int *ret_rank, int64_t *ret_dims, const void **ret_data, terse_error *error);

/* ---- attributes.c ---- */

typedef int terse_onnx_rewrite(terse_onnx_builder *builder, int node, terse_error *error);

/* One operator of ONNX: what it may carry and how it becomes canonical. */
typedef struct terse_onnx_operator {
    const char *name;
    terse_op op;
    /* "name=k name=k ...": k is i, f, s, I, F, S or t (tensor); in capitals a list. "f!" may be infinite. */
    const char *attributes;
    terse_onnx_rewrite *rewrite; /* NULL: nothing to do */
    bool one_output;             /* further outputs are optional: dropped when nobody reads them */
} terse_onnx_operator;

/* An operator of ONNX, or of a domain whose quantized operators terse knows; NULL for strangers. */
const terse_onnx_operator *terse_onnx_operator_find(const char *domain, const char *name);
/* Copies the attributes of `from` to node `node`. Tensors are not copied (terse_onnx_node_tensor). */
int terse_onnx_attributes_read(terse_onnx_builder *builder, const terse_onnx_operator *operator,
                               const Onnx__Node * from, int node, terse_error *error);
Onnx__Attribute *terse_onnx_attribute_find(const Onnx__Node *node, const char *name);
void terse_onnx_attribute_drop(terse_node *node, const char *name);

/* ---- canonical*.c, quantized.c: rewrites, each named after its operator ---- */

terse_onnx_rewrite terse_onnx_rewrite_broadcast, terse_onnx_rewrite_prelu, terse_onnx_rewrite_clip,
    terse_onnx_rewrite_softmax, terse_onnx_rewrite_batch_normalization, terse_onnx_rewrite_group_normalization,
    terse_onnx_rewrite_layer_normalization, terse_onnx_rewrite_cast, terse_onnx_rewrite_gelu, terse_onnx_rewrite_selu,
    terse_onnx_rewrite_dropout, terse_onnx_rewrite_gemm, terse_onnx_rewrite_recurrent, terse_onnx_rewrite_windows,
    terse_onnx_rewrite_pad, terse_onnx_rewrite_slice, terse_onnx_rewrite_split, terse_onnx_rewrite_squeeze,
    terse_onnx_rewrite_reshape, terse_onnx_rewrite_top_k, terse_onnx_rewrite_reduce, terse_onnx_rewrite_tile,
    terse_onnx_rewrite_concat, terse_onnx_rewrite_resize, terse_onnx_rewrite_upsample, terse_onnx_rewrite_quantize,
    terse_onnx_rewrite_qlinear_conv, terse_onnx_rewrite_qlinear_matmul, terse_onnx_rewrite_qlinear_binary,
    terse_onnx_rewrite_qlinear_where, terse_onnx_rewrite_qlinear_unary, terse_onnx_rewrite_qlinear_concat,
    terse_onnx_rewrite_qgemm, terse_onnx_rewrite_dynamic_quantize_matmul, terse_onnx_rewrite_matmul_integer_to_float;

/* ---- compose.c: operators that are made of others ---- */

terse_onnx_rewrite terse_onnx_compose_sum, terse_onnx_compose_mean, terse_onnx_compose_reduce_l1,
    terse_onnx_compose_reduce_l2, terse_onnx_compose_reduce_sum_square, terse_onnx_compose_reduce_log_sum,
    terse_onnx_compose_reduce_log_sum_exp, terse_onnx_compose_reduce_min, terse_onnx_compose_arg_min,
    terse_onnx_compose_size, terse_onnx_compose_lp_normalization, terse_onnx_compose_rms_normalization,
    terse_onnx_compose_mish, terse_onnx_compose_swish, terse_onnx_compose_celu, terse_onnx_compose_thresholded_relu,
    terse_onnx_compose_tan, terse_onnx_compose_is_nan, terse_onnx_compose_xor, terse_onnx_compose_space_to_depth,
    terse_onnx_compose_one_hot, terse_onnx_compose_batch_statistics;

/* Helpers of the rewrites. */
/* The axes of a reduction as an input; from opset `since` on they are one. */
int terse_onnx_reduce_axes(terse_onnx_builder *builder, int node, int since, terse_error *error);
bool terse_onnx_set_input(terse_graph *graph, int node, int position, int value);
int terse_onnx_no_memory(terse_error *error);
/* A value's integers when it is a constant of rank <= 1: how many, or -1. */
int terse_onnx_constant_ints(const terse_graph *graph, int value, int64_t *ret_values, int max);

/* An operand that must be lined up with axis A of input 0 (the `axis` of opsets before 7): kept as this attribute until
 * ranks are known. */
#define TERSE_ONNX_BROADCAST_AXIS "broadcast_axis"

/* ---- clean.c, line_up.c, signature.c ---- */

int terse_onnx_clean(terse_graph *graph, terse_error *error);
/* Resolves TERSE_ONNX_BROADCAST_AXIS once ranks can be inferred. */
int terse_onnx_line_up(terse_graph *graph, terse_onnx_report *report, terse_error *error);
int terse_onnx_signature_inputs(terse_onnx_builder *builder, terse_error *error);
int terse_onnx_signature_outputs(terse_onnx_builder *builder, terse_error *error);
/* Compares what the file says of the outputs with what was inferred, and states what could not be inferred. */
int terse_onnx_signature_check(terse_onnx_builder *builder, terse_error *error);

/* ---- probe.c: the shapes of all values for a few choices of the symbols ---- */

enum { TERSE_ONNX_BINDINGS = 5 };

/* Bindings 0, 1, 2 differ in `batch` only, 3 and 4 in everything. No two symbols agree in all of them. A graph without
 * symbols has one binding. */
typedef struct terse_onnx_probe {
    const terse_graph *graph;
    int n_bindings;
    int batch;           /* the symbol at axis 0 of the first input, -1 when that is fixed */
    int64_t *bound;      /* [binding][symbol], -1 where no input has that symbol */
    terse_tensor *views; /* [binding][value]: dtype NONE where unknown; data where a shape depends on it */
    terse_arena *arenas[TERSE_ONNX_BINDINGS];
    int n_failed;      /* nodes that no shape could be found for, over all bindings */
    terse_error first; /* why, the first of them */
} terse_onnx_probe;

/* terse_onnx_infer, which also tells the first failure (left alone when there is none). */
int terse_onnx_infer_telling(terse_graph *graph, terse_onnx_report *report, terse_error *ret_failed,
                             terse_error *error);

/* Operators that do not take what they are given are noted in `report` (may be NULL). A graph whose nodes do not fit
 * together fails when nothing is symbolic; with symbols that is n_failed > 0, since another choice might fit. */
int terse_onnx_probe_run(const terse_graph *graph, terse_onnx_report *report, terse_onnx_probe *ret_probe,
                         terse_error *error);
void terse_onnx_probe_done(terse_onnx_probe *probe);
static inline const terse_tensor *terse_onnx_probe_view(const terse_onnx_probe *probe, int binding, int value)
{
    return &probe->views[(size_t)binding * (size_t)probe->graph->n_values + (size_t)value];
}
static inline int64_t terse_onnx_probe_symbol(const terse_onnx_probe *probe, int binding, int symbol)
{
    return probe->bound[(size_t)binding * (size_t)probe->graph->n_symbols + (size_t)symbol];
}

#endif
