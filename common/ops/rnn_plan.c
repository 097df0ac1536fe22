/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ops/rnn.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "common/ops/support.h"

enum { AFFINE, RELU, LEAKY_RELU, THRESHOLDED_RELU, TANH, SCALED_TANH, SIGMOID, HARD_SIGMOID, ELU, SOFTSIGN, SOFTPLUS };

static const struct {
    const char *name;
    bool has_alpha, has_beta;
    float alpha, beta;
} functions[] = {
    [AFFINE] = {"Affine", true, true, 1, 0},
    [RELU] = {"Relu", false, false, 0, 0},
    [LEAKY_RELU] = {"LeakyRelu", true, false, 0.01f, 0},
    [THRESHOLDED_RELU] = {"ThresholdedRelu", true, false, 1, 0},
    [TANH] = {"Tanh", false, false, 0, 0},
    [SCALED_TANH] = {"ScaledTanh", true, true, 1, 1},
    [SIGMOID] = {"Sigmoid", false, false, 0, 0},
    [HARD_SIGMOID] = {"HardSigmoid", true, true, 0.2f, 0.5f},
    [ELU] = {"Elu", true, false, 1, 0},
    [SOFTSIGN] = {"Softsign", false, false, 0, 0},
    [SOFTPLUS] = {"Softplus", false, false, 0, 0},
};

static void apply(const terse_kernels *kernels, const rnn_activation *a, float *x, int64_t n)
{
    static const terse_activation_kind direct[] = {[LEAKY_RELU] = TERSE_ACT_LEAKY_RELU,
                                                   [TANH] = TERSE_ACT_TANH,
                                                   [SIGMOID] = TERSE_ACT_SIGMOID,
                                                   [HARD_SIGMOID] = TERSE_ACT_HARD_SIGMOID};
    switch (a->kind) {
    case RELU:
        kernels->activate_f32(x, x, n, (terse_activation){.kind = TERSE_ACT_CLIP, .beta = __builtin_inff()});
        return;
    case AFFINE:
        for (int64_t i = 0; i < n; i++)
            x[i] = a->alpha * x[i] + a->beta;
        return;
    case THRESHOLDED_RELU:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] > a->alpha ? x[i] : 0;
        return;
    case SCALED_TANH:
        kernels->mul_f32(x, 1, &a->beta, 0, x, n);
        kernels->tanh_f32(x, x, n);
        kernels->mul_f32(x, 1, &a->alpha, 0, x, n);
        return;
    case ELU:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] >= 0 ? x[i] : a->alpha * expm1f(x[i]);
        return;
    case SOFTSIGN:
        for (int64_t i = 0; i < n; i++)
            x[i] = x[i] / (1 + fabsf(x[i]));
        return;
    case SOFTPLUS:
        for (int64_t i = 0; i < n; i++)
            x[i] = fmaxf(x[i], 0) + log1pf(expf(-fabsf(x[i])));
        return;
    default:
        kernels->activate_f32(x, x, n, (terse_activation){.kind = direct[a->kind], .alpha = a->alpha, .beta = a->beta});
    }
}

void terse_rnn_activate(const terse_kernels *kernels, const rnn_params *p, int direction, int function, float *x,
                        int64_t n)
{
    /* the gates' inputs are clipped, the cell on its way to LSTM's h is not */
    if (p->clip > 0 && function != 2)
        kernels->activate_f32(x, x, n, (terse_activation){.kind = TERSE_ACT_CLIP, .alpha = -p->clip, .beta = p->clip});
    apply(kernels, &p->activations[direction * p->functions + function], x, n);
}

/* The next number of a list attribute when the function has such a parameter; its default when the list is out. */
static float take(const terse_attr *attr, bool wanted, int *used, float fallback)
{
    if (!wanted || !attr || attr->kind != TERSE_ATTR_FLOATS || *used >= attr->n)
        return fallback;
    return attr->floats[(*used)++];
}

static int read_activations(const terse_node *node, rnn_params *p, terse_error *error)
{
    static const char *const defaults[5][3] = {
        [1] = {"Tanh"}, [3] = {"Sigmoid", "Tanh"}, [4] = {"Sigmoid", "Tanh", "Tanh"}};
    const terse_attr *names = terse_node_attr(node, "activations"), *alphas = terse_node_attr(node, "activation_alpha");
    const terse_attr *betas = terse_node_attr(node, "activation_beta");
    const int n = p->functions * p->directions, known = (int)(sizeof functions / sizeof functions[0]);
    int used_alphas = 0, used_betas = 0;
    if (names && (names->kind != TERSE_ATTR_TEXTS || names->n != n))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attribute activations has %d names, %d are needed",
                          names->kind == TERSE_ATTR_TEXTS ? names->n : 0, n);
    for (int i = 0; i < n; i++) {
        const char *name = names ? names->texts[i] : defaults[p->gates][i % p->functions];
        int kind = 0;
        while (kind < known && strcasecmp(functions[kind].name, name) != 0)
            kind++;
        if (kind == known)
            return terse_fail(error, TERSE_UNIMPLEMENTED, "attribute activations has '%.40s', which is not known",
                              name);
        p->activations[i] =
            (rnn_activation){.kind = kind,
                             .alpha = take(alphas, functions[kind].has_alpha, &used_alphas, functions[kind].alpha),
                             .beta = take(betas, functions[kind].has_beta, &used_betas, functions[kind].beta)};
    }
    return TERSE_OK;
}

static int read_attributes(const terse_op_plan *plan, rnn_params *p, terse_error *error)
{
    const terse_node *node = plan->node;
    const char *direction = terse_node_text(node, "direction", "forward");
    int64_t layout;
    p->reverse_first = strcmp(direction, "reverse") == 0;
    p->directions = strcmp(direction, "bidirectional") == 0 ? 2 : 1;
    if (p->directions == 1 && !p->reverse_first && strcmp(direction, "forward") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "attribute direction is '%.40s', allowed are forward, reverse and bidirectional", direction);
    const int status = terse_support_int(node, "layout", 0, 0, 1, &layout, error);
    if (status != TERSE_OK)
        return status;
    p->batch_first = layout == 1;
    p->input_forget = terse_node_int(node, "input_forget", 0) != 0;
    p->linear_before_reset = terse_node_int(node, "linear_before_reset", 0) != 0;
    p->clip = (float)terse_node_float(node, "clip", 0);
    return read_activations(node, p, error);
}

/* Input `index` must have this dtype and these dims. */
static int expect_shape(const terse_op_plan *plan, int index, const char *what, terse_dtype dtype, int rank,
                        const int64_t *dims, terse_error *error)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    const int status = terse_op_expect(plan, index, what, 1u << dtype, error);
    if (status != TERSE_OK)
        return status;
    if (tensor->rank != rank || memcmp(tensor->dims, dims, (size_t)rank * sizeof *dims) != 0) {
        char text[128], wanted[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) has shape %s, needed is %s", index, what,
                          terse_dims_text(tensor->dims, tensor->rank, text, sizeof text),
                          terse_dims_text(dims, rank, wanted, sizeof wanted));
    }
    return TERSE_OK;
}

static int check_inputs(const terse_op_plan *plan, rnn_params *p, terse_error *error)
{
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_expect(plan, 2, "R", 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0], *r = plan->inputs[2];
    if (x->rank != 3 || r->rank != 3)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "X and R have rank %d and %d, both need 3", x->rank, r->rank);
    p->steps = x->dims[p->batch_first];
    p->batch = x->dims[!p->batch_first];
    p->input = x->dims[2];
    p->hidden = r->dims[2];
    if (p->hidden < 1 || p->hidden > INT32_MAX || p->input > INT32_MAX ||
        terse_node_int(plan->node, "hidden_size", p->hidden) != p->hidden)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "R is for a hidden size of %" PRId64 ", attribute hidden_size is %" PRId64, p->hidden,
                          terse_node_int(plan->node, "hidden_size", p->hidden));
    const int64_t d = p->directions, gh = p->gates * p->hidden;
    const int64_t state[3] = {p->batch_first ? p->batch : d, p->batch_first ? d : p->batch, p->hidden};
    status = expect_shape(plan, 1, "W", TERSE_FP32, 3, (int64_t[]){d, gh, p->input}, error);
    if (status == TERSE_OK)
        status = expect_shape(plan, 2, "R", TERSE_FP32, 3, (int64_t[]){d, gh, p->hidden}, error);
    if (status == TERSE_OK && terse_op_input(plan, 3))
        status = expect_shape(plan, 3, "B", TERSE_FP32, 2, (int64_t[]){d, 2 * gh}, error);
    if (status == TERSE_OK && terse_op_input(plan, 4))
        status = expect_shape(plan, 4, "sequence_lens", TERSE_INT32, 1, (int64_t[]){p->batch}, error);
    if (status == TERSE_OK && terse_op_input(plan, 5))
        status = expect_shape(plan, 5, "initial_h", TERSE_FP32, 3, state, error);
    if (status == TERSE_OK && terse_op_input(plan, 6))
        status = expect_shape(plan, 6, "initial_c", TERSE_FP32, 3, state, error);
    if (status == TERSE_OK && terse_op_input(plan, 7))
        status = expect_shape(plan, 7, "P", TERSE_FP32, 2, (int64_t[]){d, 3 * p->hidden}, error);
    return status;
}

static int fill_outputs(terse_op_plan *plan, const rnn_params *p, terse_error *error)
{
    const int64_t t = p->steps, b = p->batch, d = p->directions, h = p->hidden;
    const int64_t *all = p->batch_first ? (int64_t[]){b, t, d, h} : (int64_t[]){t, d, b, h};
    const int64_t *state = p->batch_first ? (int64_t[]){b, d, h} : (int64_t[]){d, b, h};
    int status = terse_op_output(plan, 0, TERSE_FP32, 4, all, error);
    for (int i = 1; i < 3 && status == TERSE_OK; i++)
        status = terse_op_output(plan, i, TERSE_FP32, 3, state, error);
    return status;
}

static int plan_scratch(rnn_params *p, size_t *total, terse_error *error)
{
    const int64_t h = p->hidden, gh = p->gates * h;
    int status = TERSE_RESERVE(total, &p->w, error, p->input, (gh + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->r, error, h, (gh + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->r_hidden, error, p->gates == 3 ? h : 0, (h + 15) / 16, 16);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->projected, error, p->steps, p->batch, gh);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->pre, error, p->batch, gh);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->h, error, p->batch, h);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->c, error, p->batch, h);
    if (status == TERSE_OK)
        status = TERSE_RESERVE(total, &p->work, error, p->batch, h);
    return status;
}

int terse_rnn_plan(terse_op_plan *plan, int gates, terse_error *error)
{
    rnn_params *p = terse_op_params(plan, sizeof *p, error);
    if (!p)
        return TERSE_RESOURCE_EXHAUSTED;
    p->gates = gates;
    p->functions = gates == 1 ? 1 : gates - 1;
    int status = read_attributes(plan, p, error);
    if (status == TERSE_OK)
        status = check_inputs(plan, p, error);
    if (status == TERSE_OK)
        status = fill_outputs(plan, p, error);
    size_t total = 0;
    if (status == TERSE_OK)
        status = plan_scratch(p, &total, error);
    plan->scratch_bytes = total;
    plan->macs = TERSE_PRODUCT(p->directions, p->steps, p->batch, p->gates * p->hidden, p->input + p->hidden);
    return status;
}
