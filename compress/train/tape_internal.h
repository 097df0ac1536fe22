/* SPDX-License-Identifier: Apache-2.0 */
/* tape_internal.h: what tape.c (running) and tape_new.c (making) share.
 * Runs in: terse-compress. Ownership: everything but memory and scratch is in the tape's arena. */
#ifndef TERSE_TRAIN_TAPE_INTERNAL_H
#define TERSE_TRAIN_TAPE_INTERNAL_H

#include "compress/train/back.h"
#include "compress/train/tape.h"

enum { TERSE_TAPE_SMALL = 8 };

typedef struct terse_tape_node {
    const terse_node *node;
    const terse_op_impl *impl;
    const void *params;
    size_t scratch_bytes;
    const terse_tensor **inputs; /* entries of tape->read, NULL where absent */
    terse_tensor **outputs;      /* entries of tape->made, or tensors without data that nobody wants */
    terse_tensor *run_outputs;   /* room for a call's outputs where there are many */
    bool runs;                   /* with every forward; otherwise once, when the tape was made */
    bool blocked;
    const terse_back_row *back; /* NULL: nothing goes backwards here */
    float **dx;                 /* per input */
    float **dy;                 /* per output */
    int *fresh;                 /* values whose gradient begins here and is zeroed first */
    int n_fresh;
    const int32_t **moved; /* per output */
    float *statistics;     /* BatchNormalization: [4][channels] */
    int64_t channels;
} terse_tape_node;

struct terse_tape {
    const terse_graph *graph;
    const terse_kernels *kernels;
    terse_tape_options options;
    terse_arena *arena;
    terse_tensor *made, *read; /* per value: as written, as read */
    float **gradients;         /* per value, or NULL */
    terse_tape_node *nodes;
    char *memory;
    void *scratch;
    size_t memory_bytes, scratch_bytes, fixed_bytes;
    bool training;
};

#endif
