/* SPDX-License-Identifier: Apache-2.0 */
/* rnn.h: what RNN, GRU and LSTM share: shapes and attributes checked, activations by name.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing. */
#ifndef TERSE_OPS_RNN_H
#define TERSE_OPS_RNN_H

#include "common/ops/op.h"

typedef struct rnn_activation {
    int kind; /* index into the table of rnn_plan.c */
    float alpha, beta;
} rnn_activation;

typedef struct rnn_params {
    int gates;     /* RNN 1, GRU 3, LSTM 4 */
    int functions; /* activations per direction: 1, 2, 3 */
    int directions;
    bool reverse_first, batch_first, input_forget, linear_before_reset;
    float clip; /* 0: none */
    int64_t steps, batch, input, hidden;
    rnn_activation activations[6];
    /* Offsets in scratch: packed weights of one direction, X * W of all rows, and per step the gates and states. */
    size_t w, r, r_hidden, projected, pre, h, c, work;
} rnn_params;

/* Checks inputs X, W, R, B, sequence_lens, initial_h (and initial_c, P when gates is 4), fills outputs Y, Y_h (Y_c),
 * params and scratch. */
int terse_rnn_plan(terse_op_plan *plan, int gates, terse_error *error);
/* x = f(clip(x)), n floats; LSTM's function 2 (the cell's) does not clip. */
void terse_rnn_activate(const terse_kernels *kernels, const rnn_params *params, int direction, int function, float *x,
                        int64_t n);

#endif
