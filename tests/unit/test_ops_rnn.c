/* SPDX-License-Identifier: Apache-2.0 */
/* RNN, GRU and LSTM against ONNX's equations in double, one sequence and one step at a time. */
#include <time.h>

#include "op_case.h"

typedef struct layer {
    terse_op op;
    int gates, directions;
    int64_t steps, batch, input, hidden;
    bool reverse, input_forget, linear_before_reset;
    const float *x, *w, *r, *b, *h0, *c0, *p;
    const int32_t *lengths;
} layer;

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* x * W' + h * R' + both biases of one gate's unit; `scale` multiplies each h (GRU's reset gate) when not NULL. */
static double gate(const layer *l, int d, int g, int64_t unit, const float *x, const double *h, const double *scale,
                   double *ret_hidden)
{
    const int64_t row = g * l->hidden + unit, gh = l->gates * l->hidden;
    double sum = l->b ? (double)l->b[d * 2 * gh + row] : 0, hidden = l->b ? (double)l->b[d * 2 * gh + gh + row] : 0;
    for (int64_t i = 0; i < l->input; i++)
        sum += (double)x[i] * (double)l->w[(d * gh + row) * l->input + i];
    for (int64_t i = 0; i < l->hidden; i++)
        hidden += h[i] * (scale ? scale[i] : 1) * (double)l->r[(d * gh + row) * l->hidden + i];
    if (ret_hidden)
        *ret_hidden = hidden;
    return sum + hidden;
}

static double peephole(const layer *l, int d, int which, int64_t unit, double cell)
{
    return l->p ? (double)l->p[(d * 3 + which) * l->hidden + unit] * cell : 0;
}

static void step(const layer *l, int d, const float *x, double *h, double *c)
{
    double next[32], z[32], r[32];
    for (int64_t i = 0; i < l->hidden && l->op == TERSE_OP_GRU; i++) {
        z[i] = sigmoid(gate(l, d, 0, i, x, h, NULL, NULL));
        r[i] = sigmoid(gate(l, d, 1, i, x, h, NULL, NULL));
    }
    for (int64_t i = 0; i < l->hidden; i++) {
        if (l->op == TERSE_OP_RNN) {
            next[i] = tanh(gate(l, d, 0, i, x, h, NULL, NULL));
        } else if (l->op == TERSE_OP_GRU) {
            double hidden;
            double n = gate(l, d, 2, i, x, h, l->linear_before_reset ? NULL : r, &hidden);
            n = tanh(l->linear_before_reset ? n - hidden + r[i] * hidden : n);
            next[i] = (1 - z[i]) * n + z[i] * h[i];
        } else {
            const double in = sigmoid(gate(l, d, 0, i, x, h, NULL, NULL) + peephole(l, d, 0, i, c[i]));
            const double forget = sigmoid(gate(l, d, 2, i, x, h, NULL, NULL) + peephole(l, d, 2, i, c[i]));
            c[i] = (l->input_forget ? 1 - in : forget) * c[i] + in * tanh(gate(l, d, 3, i, x, h, NULL, NULL));
            next[i] = sigmoid(gate(l, d, 1, i, x, h, NULL, NULL) + peephole(l, d, 1, i, c[i])) * tanh(c[i]);
        }
    }
    memcpy(h, next, (size_t)l->hidden * sizeof *h);
}

static void expect(const float *got, double want)
{
    const float value = (float)want;
    case_close(got, &value, 1, 2e-5);
}

static void check_sequence(const layer *l, const op_case *k, int d, int64_t b)
{
    double h[32] = {0}, c[32] = {0};
    const int64_t length = l->lengths ? l->lengths[b] : l->steps, state = (d * l->batch + b) * l->hidden;
    for (int64_t i = 0; i < l->hidden; i++) {
        h[i] = l->h0 ? (double)l->h0[state + i] : 0;
        c[i] = l->c0 ? (double)l->c0[state + i] : 0;
    }
    for (int64_t s = 0; s < l->steps; s++) {
        const int64_t t = s < length && (l->reverse || d == 1) ? length - 1 - s : s;
        if (s < length)
            step(l, d, l->x + (t * l->batch + b) * l->input, h, c);
        const float *y = (float *)k->outputs[0].data + ((t * l->directions + d) * l->batch + b) * l->hidden;
        for (int64_t i = 0; i < l->hidden; i++)
            expect(y + i, s < length ? h[i] : 0);
    }
    for (int64_t i = 0; i < l->hidden; i++) {
        expect((float *)k->outputs[1].data + state + i, h[i]);
        if (l->op == TERSE_OP_LSTM)
            expect((float *)k->outputs[2].data + state + i, c[i]);
    }
}

/* [A,B,C] to [B,A,C], sizes of the source. */
static void swap_first_axes(const void *from, void *to, int64_t a, int64_t b, int64_t bytes)
{
    for (int64_t i = 0; i < a * b; i++)
        memcpy((char *)to + (i % b * a + i / b) * bytes, (const char *)from + i * bytes, (size_t)bytes);
}

static void set_attributes(op_case *c, const layer *l)
{
    terse_node_set_int(c->graph, c->node, "hidden_size", l->hidden);
    terse_node_set_text(c->graph, c->node, "direction",
                        l->directions == 2 ? "bidirectional"
                        : l->reverse       ? "reverse"
                                           : "forward");
    terse_node_set_int(c->graph, c->node, "input_forget", l->input_forget);
    terse_node_set_int(c->graph, c->node, "linear_before_reset", l->linear_before_reset);
}

/* With layout 1 the same bits come in the other order. */
static void check_batch_first(const layer *l, const op_case *plain)
{
    op_case c = case_new(l->op, plain->n_outputs);
    const int64_t row = l->hidden * (int64_t)sizeof(float), d = l->directions;
    set_attributes(&c, l);
    terse_node_set_int(c.graph, c.node, "layout", 1);
    for (int i = 0; i < plain->n_inputs; i++)
        if (plain->present[i]) {
            const terse_tensor *from = &plain->inputs[i];
            case_constant(&c, i, from->dtype, from->rank, from->dims, from->data);
            if (i == 0 || i == 5 || i == 6) {
                c.inputs[i].dims[0] = from->dims[1];
                c.inputs[i].dims[1] = from->dims[0];
                swap_first_axes(from->data, c.inputs[i].data, from->dims[0], from->dims[1],
                                from->dims[2] * (int64_t)sizeof(float));
            }
        }
    case_ok(&c);
    assert_int_equal(c.outputs[0].dims[0], l->batch);
    for (int64_t t = 0; t < l->steps; t++)
        for (int64_t k = 0; k < d * l->batch; k++)
            assert_memory_equal((char *)c.outputs[0].data + ((k % l->batch * l->steps + t) * d + k / l->batch) * row,
                                (char *)plain->outputs[0].data + (t * d * l->batch + k) * row, (size_t)row);
    float *swapped = malloc((size_t)(d * l->batch * row));
    for (int i = 1; i < c.n_outputs; i++) {
        swap_first_axes(plain->outputs[i].data, swapped, d, l->batch, row);
        assert_memory_equal(c.outputs[i].data, swapped, (size_t)(d * l->batch * row));
    }
    free(swapped);
    case_free(&c);
}

static void check_layer(terse_op op)
{
    layer l = {.op = op,
               .gates = op == TERSE_OP_RNN   ? 1
                        : op == TERSE_OP_GRU ? 3
                                             : 4,
               .directions = (int)case_pick(1, 2),
               .steps = case_pick(1, 6),
               .batch = case_pick(1, 4),
               .input = case_pick(1, 6),
               .hidden = case_pick(1, 20),
               .input_forget = case_pick(0, 3) == 0,
               .linear_before_reset = case_pick(0, 1)};
    l.reverse = l.directions == 1 && case_pick(0, 1);
    op_case c = case_new(op, op == TERSE_OP_LSTM ? 3 : 2);
    const int64_t d = l.directions, gh = l.gates * l.hidden;
    set_attributes(&c, &l);
    l.x = case_input(&c, 0, CASE_DIMS(l.steps, l.batch, l.input));
    l.w = case_input(&c, 1, CASE_DIMS(d, gh, l.input));
    l.r = case_input(&c, 2, CASE_DIMS(d, gh, l.hidden));
    if (case_pick(0, 1))
        l.b = case_input(&c, 3, CASE_DIMS(d, 2 * gh));
    if (case_pick(0, 1)) {
        int32_t lengths[4];
        for (int i = 0; i < 4; i++)
            lengths[i] = (int32_t)case_pick(1, l.steps);
        case_constant(&c, 4, TERSE_INT32, 1, &l.batch, lengths);
        l.lengths = c.inputs[4].data;
    }
    if (case_pick(0, 1))
        l.h0 = case_input(&c, 5, CASE_DIMS(d, l.batch, l.hidden));
    if (op == TERSE_OP_LSTM && case_pick(0, 1))
        l.c0 = case_input(&c, 6, CASE_DIMS(d, l.batch, l.hidden));
    if (op == TERSE_OP_LSTM && case_pick(0, 1))
        l.p = case_input(&c, 7, CASE_DIMS(d, 3 * l.hidden));
    case_ok(&c);
    assert_int_equal(c.macs, d * l.steps * l.batch * gh * (l.input + l.hidden));
    for (int k = 0; k < l.directions; k++)
        for (int64_t b = 0; b < l.batch; b++)
            check_sequence(&l, &c, k, b);
    check_batch_first(&l, &c);
    case_free(&c);
}

static void test_rnn_follows_its_equation(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++)
        check_layer(TERSE_OP_RNN);
}

static void test_gru_follows_its_equations(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++)
        check_layer(TERSE_OP_GRU);
}

static void test_lstm_follows_its_equations(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++)
        check_layer(TERSE_OP_LSTM);
}

/* One step of one unit: y = f(2 x). */
static void check_activation(const char *name, float alpha, float beta, float clip, float x, double want)
{
    op_case c = case_new(TERSE_OP_RNN, 2);
    CASE_FLOATS(&c, 0, CASE_DIMS(1, 1, 1), x);
    CASE_FLOATS(&c, 1, CASE_DIMS(1, 1, 1), 2);
    CASE_FLOATS(&c, 2, CASE_DIMS(1, 1, 1), 1);
    terse_node_set_texts(c.graph, c.node, "activations", (const char *[]){name}, 1);
    terse_node_set_floats(c.graph, c.node, "activation_alpha", &alpha, 1);
    terse_node_set_floats(c.graph, c.node, "activation_beta", &beta, 1);
    terse_node_set_float(c.graph, c.node, "clip", (double)clip);
    case_ok(&c);
    expect(c.outputs[1].data, want);
    case_free(&c);
}

static void test_every_activation_takes_its_parameters(void **state)
{
    (void)state;
    check_activation("Affine", 0.5f, 3, 0, 1, 4);
    check_activation("relu", 0, 0, 0, -1, 0);
    check_activation("LeakyRelu", 0.25f, 0, 0, -1, -0.5);
    check_activation("ThresholdedRelu", 2.5f, 0, 0, 1, 0);
    check_activation("ThresholdedRelu", 1.5f, 0, 0, 1, 2);
    check_activation("ScaledTanh", 3, 0.5f, 0, 1, 3 * tanh(1));
    check_activation("HardSigmoid", 0.25f, 0.125f, 0, 1, 0.625);
    check_activation("Elu", 0.5f, 0, 0, -1, 0.5 * (exp(-2) - 1));
    check_activation("Softsign", 0, 0, 0, -1, -2.0 / 3);
    check_activation("Softplus", 0, 0, 0, 50, 100);
    check_activation("Affine", 1, 0, 1.5f, 1, 1.5);
}

static void refuse(void (*spoil)(op_case *c), const char *text)
{
    op_case c = case_new(TERSE_OP_LSTM, 3);
    case_input(&c, 0, CASE_DIMS(2, 1, 3));
    case_input(&c, 1, CASE_DIMS(1, 8, 3));
    case_input(&c, 2, CASE_DIMS(1, 8, 2));
    spoil(&c);
    case_refused(&c, text);
    case_free(&c);
}

static void spoil_direction(op_case *c)
{
    terse_node_set_text(c->graph, c->node, "direction", "sideways");
}

static void spoil_hidden(op_case *c)
{
    terse_node_set_int(c->graph, c->node, "hidden_size", INT64_MAX);
}

static void spoil_weights(op_case *c)
{
    c->inputs[1].dims[1] = 7;
}

static void spoil_activations(op_case *c)
{
    terse_node_set_texts(c->graph, c->node, "activations", (const char *[]){"Tanh", "Tanh"}, 2);
}

static void spoil_name(op_case *c)
{
    terse_node_set_texts(c->graph, c->node, "activations", (const char *[]){"Tanh", "Cosh", "Tanh"}, 3);
}

static void spoil_length(op_case *c)
{
    case_constant(c, 4, TERSE_INT32, 1, (int64_t[]){1}, (int32_t[]){3});
}

static void test_bad_layers_are_refused(void **state)
{
    (void)state;
    refuse(spoil_direction, "direction is 'sideways'");
    refuse(spoil_hidden, "hidden_size is 9223372036854775807");
    refuse(spoil_weights, "input 1 (W) has shape [1,7,3], needed is [1,8,3]");
    refuse(spoil_activations, "activations has 2 names, 3 are needed");
    refuse(spoil_name, "'Cosh', which is not known");
    refuse(spoil_length, "sequence_lens has 3, allowed are 0 to 2");
}

int main(void)
{
    case_seed = (unsigned)time(NULL);
    printf("# seed %u\n", case_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rnn_follows_its_equation),   cmocka_unit_test(test_gru_follows_its_equations),
        cmocka_unit_test(test_lstm_follows_its_equations), cmocka_unit_test(test_every_activation_takes_its_parameters),
        cmocka_unit_test(test_bad_layers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
