/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Per direction: W and R are packed, X * W' + Wb is computed for all steps at once (rows in X's own
 * order), then step by step the gates are h * R' + Rb + that row. A step gathers for each sequence the row of its own
 * time, so reversed sequences of unequal lengths need nothing special. A sequence that has ended keeps its state; its
 * remaining outputs are 0. Equations and gate orders as ONNX has them: LSTM i o f c, GRU z r h. */
#include "common/ops/rnn.h"

#include <inttypes.h>
#include <string.h>

#include "common/ops/support.h"

/* One direction of one call. */
typedef struct pass {
    const terse_op_call *call;
    const rnn_params *p;
    int direction;
    const float *w_bias, *r_bias, *peephole; /* or NULL */
    float *w, *r, *r_hidden, *projected, *pre, *h, *c, *work;
    const int32_t *lengths; /* or NULL */
} pass;

static const void *input_data(const terse_op_call *call, int index)
{
    return index < call->n_inputs && call->inputs[index] ? call->inputs[index]->data : NULL;
}

static pass pass_of(const terse_op_call *call, int direction)
{
    const rnn_params *p = call->params;
    const int64_t gh = p->gates * p->hidden;
    const float *bias = input_data(call, 3), *peephole = p->gates == 4 ? input_data(call, 7) : NULL;
    return (pass){.call = call,
                  .p = p,
                  .direction = direction,
                  .w_bias = bias ? bias + direction * 2 * gh : NULL,
                  .r_bias = bias ? bias + direction * 2 * gh + gh : NULL,
                  .peephole = peephole ? peephole + direction * 3 * p->hidden : NULL,
                  .w = terse_support_at(call->scratch, p->w),
                  .r = terse_support_at(call->scratch, p->r),
                  .r_hidden = terse_support_at(call->scratch, p->r_hidden),
                  .projected = terse_support_at(call->scratch, p->projected),
                  .pre = terse_support_at(call->scratch, p->pre),
                  .h = terse_support_at(call->scratch, p->h),
                  .c = terse_support_at(call->scratch, p->c),
                  .work = terse_support_at(call->scratch, p->work),
                  .lengths = input_data(call, 4)};
}

/* Where sequence b's state of this direction is in initial_h, initial_c, Y_h and Y_c. */
static int64_t state_at(const pass *s, int64_t b)
{
    const rnn_params *p = s->p;
    return (p->batch_first ? b * p->directions + s->direction : s->direction * p->batch + b) * p->hidden;
}

static void load_state(const pass *s, int index, float *to)
{
    const float *from = input_data(s->call, index);
    const size_t bytes = (size_t)s->p->hidden * sizeof *to;
    for (int64_t b = 0; b < s->p->batch; b++) {
        if (from)
            memcpy(to + b * s->p->hidden, from + state_at(s, b), bytes);
        else
            memset(to + b * s->p->hidden, 0, bytes);
    }
}

static void store_state(const pass *s, int index, const float *from)
{
    float *to = index < s->call->n_outputs ? s->call->outputs[index].data : NULL;
    for (int64_t b = 0; b < s->p->batch && to; b++)
        memcpy(to + state_at(s, b), from + b * s->p->hidden, (size_t)s->p->hidden * sizeof *to);
}

/* W, R: packed columns of all gates; GRU's hidden gate has a product of its own. */
static void pack(const pass *s)
{
    const rnn_params *p = s->p;
    const terse_kernels *k = s->call->kernels;
    const int64_t gh = p->gates * p->hidden, first = p->gates == 3 ? 2 * p->hidden : gh;
    const float *w = (const float *)s->call->inputs[1]->data + s->direction * gh * p->input;
    const float *r = (const float *)s->call->inputs[2]->data + s->direction * gh * p->hidden;
    k->pack_n16_f32(w, 1, p->input, p->input, gh, s->w);
    k->pack_n16_f32(r, 1, p->hidden, p->hidden, first, s->r);
    if (p->gates == 3)
        k->pack_n16_f32(r + first * p->hidden, 1, p->hidden, p->hidden, p->hidden, s->r_hidden);
}

/* Y = act(A * R + bias + residual) for all sequences. */
static void product(const pass *s, const float *a, const float *packed, int64_t n, const float *bias, float *y,
                    int64_t ldy, bool add)
{
    s->call->kernels->gemm_f32(&(terse_gemm_f32_args){.m = s->p->batch,
                                                      .n = n,
                                                      .k = s->p->hidden,
                                                      .a = a,
                                                      .lda = s->p->hidden,
                                                      .b = packed,
                                                      .c = y,
                                                      .ldc = ldy,
                                                      .bias = bias,
                                                      .residual = add ? y : NULL,
                                                      .ldr = ldy});
}

/* The time that sequence b is at in step `step`, or -1 when it has ended. */
static int64_t time_of(const pass *s, int64_t b, int64_t step)
{
    const int64_t length = s->lengths ? s->lengths[b] : s->p->steps;
    if (step >= length)
        return -1;
    return s->direction == 1 || s->p->reverse_first ? length - 1 - step : step;
}

static void gather(const pass *s, int64_t step)
{
    const rnn_params *p = s->p;
    const int64_t gh = p->gates * p->hidden;
    for (int64_t b = 0; b < p->batch; b++) {
        const int64_t t = time_of(s, b, step), row = p->batch_first ? b * p->steps + t : t * p->batch + b;
        if (t >= 0)
            memcpy(s->pre + b * gh, s->projected + row * gh, (size_t)gh * sizeof(float));
        else
            memset(s->pre + b * gh, 0, (size_t)gh * sizeof(float));
    }
}

static void activate(const pass *s, int function, float *x, int64_t n)
{
    terse_rnn_activate(s->call->kernels, s->p, s->direction, function, x, n);
}

static void step_rnn(const pass *s, int64_t step)
{
    const int64_t h = s->p->hidden;
    product(s, s->h, s->r, h, s->r_bias, s->pre, h, true);
    for (int64_t b = 0; b < s->p->batch; b++) {
        if (time_of(s, b, step) < 0)
            continue;
        activate(s, 0, s->pre + b * h, h);
        memcpy(s->h + b * h, s->pre + b * h, (size_t)h * sizeof(float));
    }
}

static void step_gru(const pass *s, int64_t step)
{
    const int64_t h = s->p->hidden, gh = 3 * h;
    const float *hidden_bias = s->r_bias ? s->r_bias + 2 * h : NULL;
    product(s, s->h, s->r, 2 * h, s->r_bias, s->pre, gh, true);
    for (int64_t b = 0; b < s->p->batch; b++)
        activate(s, 0, s->pre + b * gh, 2 * h);
    if (s->p->linear_before_reset) {
        product(s, s->h, s->r_hidden, h, hidden_bias, s->work, h, false);
        for (int64_t b = 0; b < s->p->batch; b++)
            for (int64_t i = 0; i < h; i++)
                s->pre[b * gh + 2 * h + i] += s->pre[b * gh + h + i] * s->work[b * h + i];
    } else {
        for (int64_t b = 0; b < s->p->batch; b++)
            for (int64_t i = 0; i < h; i++)
                s->work[b * h + i] = s->pre[b * gh + h + i] * s->h[b * h + i];
        product(s, s->work, s->r_hidden, h, hidden_bias, s->pre + 2 * h, gh, true);
    }
    for (int64_t b = 0; b < s->p->batch; b++) {
        float *z = s->pre + b * gh, *n = z + 2 * h, *state = s->h + b * h;
        if (time_of(s, b, step) < 0)
            continue;
        activate(s, 1, n, h);
        for (int64_t i = 0; i < h; i++)
            state[i] = (1 - z[i]) * n[i] + z[i] * state[i];
    }
}

static void add_peephole(const pass *s, int which, float *gate, const float *cell)
{
    for (int64_t i = 0; i < s->p->hidden && s->peephole; i++)
        gate[i] += s->peephole[which * s->p->hidden + i] * cell[i];
}

static void step_lstm(const pass *s, int64_t step)
{
    const int64_t h = s->p->hidden, gh = 4 * h;
    product(s, s->h, s->r, gh, s->r_bias, s->pre, gh, true);
    for (int64_t b = 0; b < s->p->batch; b++) {
        float *in = s->pre + b * gh, *out = in + h, *forget = out + h, *cell = forget + h;
        float *state = s->c + b * h, *hidden = s->h + b * h;
        if (time_of(s, b, step) < 0)
            continue;
        add_peephole(s, 0, in, state);
        activate(s, 0, in, h);
        if (s->p->input_forget) {
            for (int64_t i = 0; i < h; i++)
                forget[i] = 1 - in[i];
        } else {
            add_peephole(s, 2, forget, state);
            activate(s, 0, forget, h);
        }
        activate(s, 1, cell, h);
        for (int64_t i = 0; i < h; i++)
            state[i] = forget[i] * state[i] + in[i] * cell[i];
        add_peephole(s, 1, out, state);
        activate(s, 0, out, h);
        memcpy(hidden, state, (size_t)h * sizeof(float));
        activate(s, 2, hidden, h);
        for (int64_t i = 0; i < h; i++)
            hidden[i] *= out[i];
    }
}

static void store_step(const pass *s, int64_t step)
{
    const rnn_params *p = s->p;
    float *y = s->call->outputs[0].data;
    for (int64_t b = 0; b < p->batch && y; b++) {
        const int64_t t = time_of(s, b, step);
        const int64_t row = p->batch_first ? (b * p->steps + t) * p->directions + s->direction
                                           : (t * p->directions + s->direction) * p->batch + b;
        if (t >= 0)
            memcpy(y + row * p->hidden, s->h + b * p->hidden, (size_t)p->hidden * sizeof *y);
    }
}

static int check_lengths(const terse_op_call *call, const rnn_params *p, terse_error *error)
{
    const int32_t *lengths = input_data(call, 4);
    for (int64_t b = 0; b < p->batch && lengths; b++)
        if (lengths[b] < 0 || lengths[b] > p->steps)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "sequence_lens has %" PRId32 ", allowed are 0 to %" PRId64,
                              lengths[b], p->steps);
    return TERSE_OK;
}

static int run_layer(const terse_op_call *call, void (*step)(const pass *s, int64_t step), terse_error *error)
{
    const rnn_params *p = call->params;
    const int64_t gh = p->gates * p->hidden, rows = p->steps * p->batch;
    const int status = check_lengths(call, p, error);
    if (status != TERSE_OK)
        return status;
    if (call->outputs[0].data)
        memset(call->outputs[0].data, 0, (size_t)terse_tensor_bytes(&call->outputs[0]));
    for (int d = 0; d < p->directions && p->batch > 0; d++) {
        const pass s = pass_of(call, d);
        pack(&s);
        load_state(&s, 5, s.h);
        load_state(&s, p->gates == 4 ? 6 : call->n_inputs, s.c);
        if (rows > 0)
            call->kernels->gemm_f32(&(terse_gemm_f32_args){.m = rows,
                                                           .n = gh,
                                                           .k = p->input,
                                                           .a = call->inputs[0]->data,
                                                           .lda = p->input,
                                                           .b = s.w,
                                                           .c = s.projected,
                                                           .ldc = gh,
                                                           .bias = s.w_bias});
        for (int64_t i = 0; i < p->steps; i++) {
            gather(&s, i);
            step(&s, i);
            store_step(&s, i);
        }
        store_state(&s, 1, s.h);
        if (p->gates == 4)
            store_state(&s, 2, s.c);
    }
    return TERSE_OK;
}

static int plan_rnn(terse_op_plan *plan, terse_error *error)
{
    return terse_rnn_plan(plan, 1, error);
}

static int plan_gru(terse_op_plan *plan, terse_error *error)
{
    return terse_rnn_plan(plan, 3, error);
}

static int plan_lstm(terse_op_plan *plan, terse_error *error)
{
    return terse_rnn_plan(plan, 4, error);
}

static int run_rnn(const terse_op_call *call, terse_error *error)
{
    return run_layer(call, step_rnn, error);
}

static int run_gru(const terse_op_call *call, terse_error *error)
{
    return run_layer(call, step_gru, error);
}

static int run_lstm(const terse_op_call *call, terse_error *error)
{
    return run_layer(call, step_lstm, error);
}

const terse_op_impl terse_op_rnn = {
    .name = "RNN",
    .min_inputs = 3,
    .max_inputs = 6,
    .min_outputs = 1,
    .max_outputs = 2,
    .plan = plan_rnn,
    .run = run_rnn,
};

const terse_op_impl terse_op_gru = {
    .name = "GRU",
    .min_inputs = 3,
    .max_inputs = 6,
    .min_outputs = 1,
    .max_outputs = 2,
    .plan = plan_gru,
    .run = run_gru,
};

const terse_op_impl terse_op_lstm = {
    .name = "LSTM",
    .min_inputs = 3,
    .max_inputs = 8,
    .min_outputs = 1,
    .max_outputs = 3,
    .plan = plan_lstm,
    .run = run_lstm,
};
