/* SPDX-License-Identifier: Apache-2.0 */
/* lower.h: what the parts of the pass `lower` share: lower.c (forms of values, the walk), lower_products.c (Conv, Gemm,
 * MatMul), lower_weights.c (their numbers), lower_integer.c (ConvInteger), lower_elementwise.c (tables, Add, Mul,
 * pools), lower_moves.c (what only moves elements). Runs in: terse-compress.
 *
 * Design notes. The graph comes in the form DequantizeLinear -> float operators -> QuantizeLinear. A float value has a
 * *form* when it is DequantizeLinear of bytes that are there anyway, and an *image* when each of its elements is a
 * function of the byte at the same place of some tensor (its root). Nodes are visited in execution order; a
 * QuantizeLinear looks back at what makes its input and, where that reads forms only, both become one operator on
 * bytes. What moves elements moves the bytes instead, with the DequantizeLinear behind it. In a second walk products
 * whose output stays FP32 read bytes at least. Floats that nobody reads in the end are pruned. */
#ifndef TERSE_PASSES_LOWER_H
#define TERSE_PASSES_LOWER_H

#include "common/graph/engine.h"
#include "compress/passes/edit.h"

typedef struct terse_form {
    int bytes;             /* the UINT8 value, or -1: no form */
    int scale, zero_point; /* values of the DequantizeLinear; zero_point may be TERSE_NO_VALUE */
    double s;
    int32_t z;
} terse_form;

typedef struct terse_lower {
    terse_edit edit;
    const terse_kernels *kernels;
    int n;                /* values of the graph before the pass; the arrays below have so many entries */
    terse_form *forms;    /* of FP32 values */
    const float **images; /* 256 numbers, or NULL */
    int *roots;           /* of images */
    int *alias;           /* a value that is the same, to be read instead; or itself */
} terse_lower;

/* A QuantizeLinear as it is looked at. */
typedef struct terse_target {
    int node, y; /* the QuantizeLinear and what it makes */
    double s;
    int32_t z;
    int32_t low, high; /* from a Clip or Relu in front of it */
} terse_target;

/* The form of a value; its `bytes` is -1 where it has none. */
terse_form terse_lower_form(const terse_lower *lower, int value);
/* round(number / scale) + zero point within 0..255, the quotient in FP32 as QuantizeLinear has it; NaN gives the zero
 * point. */
int32_t terse_lower_byte(double number, double scale, int32_t zero_point);
/* Scale and zero point of a QuantizeLinear or DequantizeLinear to or from UINT8 as a whole; false when they are not
 * constant, or of an axis, or no usable numbers. */
bool terse_lower_scale(const terse_lower *lower, int node, double *ret_scale, int32_t *ret_zero_point);
/* The number in a constant FP32 with one element, or in one made of a constant byte. */
bool terse_lower_number(const terse_lower *lower, int value, float *ret_number);
/* Attributes of one node for another; an absent one stays absent. */
void terse_lower_copy_attributes(terse_lower *lower, int from, int to, const char *const *names, int n);
void terse_lower_set_int(terse_lower *lower, int node, const char *name, int64_t value);
void terse_lower_set_float(terse_lower *lower, int node, const char *name, double value);
void terse_lower_set_text(terse_lower *lower, int node, const char *name, const char *value);
/* y_zero_point, low and high. */
void terse_lower_set_target(terse_lower *lower, int node, const terse_target *target);
/* A new UINT8 value with the dims of `like`. */
int terse_lower_add_bytes(terse_lower *lower, int like);
/* `bytes` of one scale and zero point as bytes of another: itself, or a QTable. */
int terse_lower_rescale(terse_lower *lower, const terse_form *form, double scale, int32_t zero_point);
/* Every reader of `value` reads `other` instead. */
void terse_lower_alias(terse_lower *lower, int value, int other);

/* lower_products.c. True when the product became one that makes the target (NULL: its own FP32 output). */
bool terse_lower_product(terse_lower *lower, int node, const terse_target *target);

/* lower_weights.c: the numbers of one product of bytes, in memory of the graph. */
typedef struct terse_lower_weights {
    int64_t n, k;           /* columns, and what each sums over */
    bool depthwise, matrix; /* matrix: [K,N], else the filters of a convolution */
    int64_t groups;
    int rank;
    int64_t dims[TERSE_MAX_RANK]; /* of the packed constant */
    const char *name;
    int8_t *numbers; /* [n][k] in the order of ONNX's filters */
    double *scales;  /* [n] of scale of x * scale of w */
} terse_lower_weights;
/* Reads input 1 of Conv, Gemm or MatMul; `x` is the form of input 0. False when it has no such form or does not fit. */
bool terse_lower_read_weights(terse_lower *lower, int node, const terse_form *x, terse_lower_weights *ret_weights);
/* The packed constant; -1 when memory is out. */
int terse_lower_pack_weights(terse_lower *lower, const terse_lower_weights *weights);
/* The bias of a product: `sums` holds what goes into the sums (with the zero point's share), `floats` (NULL when not
 * needed) what is added to an FP32 output. */
typedef struct terse_lower_bias {
    int32_t *sums;
    float *floats;
} terse_lower_bias;
/* `exact`: floats may be used. False when the bias has no such form or does not fit. May change scales of columns all
 * of whose weights are 0. */
bool terse_lower_read_bias(terse_lower *lower, int node, int32_t x_zero_point, bool exact, terse_lower_weights *weights,
                           terse_lower_bias *ret_bias);

/* lower_integer.c: constant weights of a ConvInteger are packed. */
void terse_lower_conv_integer(terse_lower *lower, int node);

/* lower_elementwise.c */
/* Finds the image of an elementwise node's output. */
void terse_lower_image(terse_lower *lower, int node);
/* The target is a table over the root of `value`, which has an image. */
void terse_lower_table(terse_lower *lower, int value, const terse_target *target);
/* True when the node in front (its operands have forms) became one that makes the target. */
bool terse_lower_binary(terse_lower *lower, int node, const terse_target *target);
bool terse_lower_average(terse_lower *lower, int node, const terse_target *target);

/* lower_moves.c */
/* Input 0 (all of a Concat's) has a form and the node only moves elements: it moves bytes from now on. */
void terse_lower_move(terse_lower *lower, int node);
bool terse_lower_concat(terse_lower *lower, int node, const terse_target *target);
bool terse_lower_resize(terse_lower *lower, int node, const terse_target *target);
/* QuantizeLinears behind Reshapes and Transposes that nobody else reads go in front of them. */
void terse_lower_pull_up(terse_lower *lower);

#endif
