/* SPDX-License-Identifier: Apache-2.0 */
/* bytes.h: INT8 weights behind DequantizeLinear, trained as FP32 numbers that are rounded with the scales they have.
 * Runs in: terse-compress. Ownership: the list is its own; graphs are borrowed, new bytes go into their arenas. */
#ifndef TERSE_TRAIN_BYTES_H
#define TERSE_TRAIN_BYTES_H

#include "compress/train/train.h"

typedef struct terse_train_byte {
    int value; /* what the product reads: FP32 */
    int bytes; /* the INT8 constant */
    terse_train_quantizer quantizer;
} terse_train_byte;

typedef struct terse_train_bytes {
    terse_train_byte *list;
    int n;
} terse_train_bytes;

void terse_train_bytes_done(terse_train_bytes *b);
/* In a copy for training: what such a DequantizeLinear makes becomes an FP32 constant, its node is dropped. Values keep
 * their numbers. Scales per tensor or along one axis, no zero points but 0. */
int terse_train_bytes_expose(terse_graph *copy, terse_train_bytes *ret_bytes, terse_error *error);
/* The entry of a value, or NULL. */
const terse_train_byte *terse_train_bytes_find(const terse_train_bytes *b, int value);
/* Numbers (multiples of the scales) of the value as new INT8 bytes of `graph`, which has the copy's values. */
int terse_train_bytes_store(const terse_train_byte *b, const float *numbers, terse_graph *graph, terse_error *error);

#endif
