/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/tape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/plan.h"
#include "compress/train/back.h"
#include "compress/train/tape_internal.h"

void terse_tape_free(terse_tape *tape)
{
    if (!tape)
        return;
    free(tape->memory);
    free(tape->scratch);
    terse_arena_free(tape->arena);
    free(tape);
}

void terse_tape_freep(terse_tape **tape)
{
    terse_tape_free(*tape);
}

size_t terse_tape_bytes(const terse_tape *tape)
{
    return tape->memory_bytes + tape->scratch_bytes + tape->fixed_bytes;
}

void terse_tape_set_constant(terse_tape *tape, int value, const float *data)
{
    tape->read[value].data = (void *)(uintptr_t)data;
}

void terse_tape_set_training(terse_tape *tape, bool training)
{
    tape->training = training && tape->options.backward;
}

const terse_tensor *terse_tape_value(const terse_tape *tape, int value)
{
    const bool raw = tape->options.targets && tape->options.targets[value];
    return raw ? &tape->made[value] : &tape->read[value];
}

float *terse_tape_gradient(terse_tape *tape, int value)
{
    return tape->gradients[value];
}

float *terse_tape_parameter_gradient(terse_tape *tape, int value)
{
    return tape->graph->values[value].data ? tape->gradients[value] : NULL;
}

bool terse_tape_blocked(const terse_tape *tape, int node)
{
    return tape->nodes[node].blocked;
}

const float *terse_tape_statistics(const terse_tape *tape, int node, int64_t *ret_channels)
{
    const terse_tape_node *n = &tape->nodes[node];
    if (!tape->training || !n->statistics)
        return NULL;
    *ret_channels = n->channels;
    return n->statistics + 2 * n->channels;
}

/* --- forwards ---------------------------------------------------------------------------------------------------- */

/* y = (x - mean) / sqrt(var + epsilon) * scale + bias by the batch's mean and (biased) variance, two passes (Ioffe and
 * Szegedy, arXiv:1502.03167, algorithm 1). Statistics: mean, 1 / deviation, then mean and unbiased variance. */
static void batch_statistics(const terse_tape *tape, terse_tape_node *n)
{
    const terse_tensor *x = n->inputs[0];
    const int64_t channels = n->channels, images = x->dims[0];
    const int64_t pixels = x->rank > 2 ? terse_dims_count(x->dims + 2, x->rank - 2) : 1, count = images * pixels;
    const float *from = x->data, *scale = n->inputs[1]->data, *bias = n->inputs[2]->data;
    float *to = n->outputs[0]->data;
    const double epsilon = terse_node_float(n->node, "epsilon", 1e-5);
    (void)tape;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < images; i++) {
            const float *row = from + (i * channels + c) * pixels;
            float part = 0;
            for (int64_t k = 0; k < pixels; k++)
                part += row[k];
            sum += (double)part;
        }
        const double mean = sum / (double)count;
        for (int64_t i = 0; i < images; i++) {
            const float *row = from + (i * channels + c) * pixels, middle = (float)mean;
            float part = 0;
            for (int64_t k = 0; k < pixels; k++)
                part += (row[k] - middle) * (row[k] - middle);
            squares += (double)part;
        }
        const double inverse = 1 / sqrt(squares / (double)count + epsilon);
        n->statistics[c] = (float)mean;
        n->statistics[channels + c] = (float)inverse;
        n->statistics[2 * channels + c] = (float)mean;
        n->statistics[3 * channels + c] = (float)(squares / (double)(count > 1 ? count - 1 : 1));
        const float factor = (float)(inverse * (double)scale[c]), offset = bias[c], middle = (float)mean;
        for (int64_t i = 0; i < images; i++) {
            const float *row = from + (i * channels + c) * pixels;
            float *out = to + (i * channels + c) * pixels;
            for (int64_t k = 0; k < pixels; k++)
                out[k] = (row[k] - middle) * factor + offset;
        }
    }
}

/* Ties to even, as QuantizeLinear rounds. */
static void round_value(terse_train_affine a, const float *x, float *y, int64_t n)
{
    const float low = (float)-a.zero_point, high = (float)(255 - a.zero_point), scale = a.scale, inverse = 1 / scale;
    const float magic = 12582912.0f; /* t + 1.5 * 2^23 rounds to even */
    for (int64_t i = 0; i < n; i++) {
        float t = x[i] * inverse;
        t = t > low ? t : low;
        t = t < high ? t : high;
        y[i] = ((t + magic) - magic) * scale;
    }
}

static bool has_affine(const terse_tape *tape, int value)
{
    return tape->options.affine && tape->options.affine[value].scale > 0 && tape->made[value].dtype == TERSE_FP32;
}

static void round_outputs(terse_tape *tape, int value)
{
    if (value >= 0 && has_affine(tape, value) && tape->read[value].data)
        round_value(tape->options.affine[value], tape->made[value].data, tape->read[value].data,
                    terse_tensor_count(&tape->made[value]));
}

static int run_node(terse_tape *tape, int index, terse_error *error)
{
    terse_tape_node *n = &tape->nodes[index];
    if (tape->training && n->statistics) {
        batch_statistics(tape, n);
        return TERSE_OK;
    }
    terse_tensor outputs[TERSE_TAPE_SMALL], *room = n->node->n_outputs > TERSE_TAPE_SMALL ? n->run_outputs : outputs;
    for (int o = 0; o < n->node->n_outputs; o++)
        room[o] = *n->outputs[o];
    const terse_op_call call = {.node = n->node,
                                .kernels = tape->kernels,
                                .params = n->params,
                                .n_inputs = n->node->n_inputs,
                                .n_outputs = n->node->n_outputs,
                                .inputs = (const terse_tensor *const *)n->inputs,
                                .outputs = room,
                                .scratch = tape->scratch};
    const int status = n->impl->run(&call, error);
    if (status != TERSE_OK)
        terse_error_prefix(error, "node '%s' (%s)", n->node->name, terse_op_name(n->node->op));
    return status;
}

int terse_tape_forward(terse_tape *tape, const void *const *inputs, terse_error *error)
{
    const terse_graph *graph = tape->graph;
    for (int i = 0; i < graph->n_inputs; i++) {
        const int v = graph->inputs[i];
        tape->made[v].data = (void *)(uintptr_t)inputs[i];
        if (has_affine(tape, v))
            round_outputs(tape, v);
        else
            tape->read[v].data = tape->made[v].data;
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        const terse_tape_node *n = &tape->nodes[i];
        if (!n->runs)
            continue;
        const int status = run_node(tape, i, error);
        if (status != TERSE_OK)
            return status;
        for (int o = 0; o < n->node->n_outputs; o++)
            round_outputs(tape, n->node->outputs[o]);
    }
    for (int v = 0; tape->options.backward && v < graph->n_values; v++)
        if (tape->options.targets && tape->options.targets[v] && tape->gradients[v] && !graph->values[v].data)
            memset(tape->gradients[v], 0, (size_t)terse_tensor_count(&tape->made[v]) * sizeof(float));
    return TERSE_OK;
}

/* --- backwards --------------------------------------------------------------------------------------------------- */

/* Nothing comes back where a fake quantizer has cut off. */
static void cut_gradient(const terse_tape *tape, int value)
{
    if (value < 0 || !has_affine(tape, value) || !tape->gradients[value])
        return;
    const terse_train_affine a = tape->options.affine[value];
    const float low = ((float)-a.zero_point - 0.5f) * a.scale, high = ((float)(255 - a.zero_point) + 0.5f) * a.scale;
    const float *x = tape->made[value].data;
    float *dx = tape->gradients[value];
    const int64_t count = terse_tensor_count(&tape->made[value]);
    for (int64_t i = 0; i < count; i++) {
        const float d = dx[i]; /* read in any case: only then is the loop made vectors */
        dx[i] = (x[i] >= low) & (x[i] <= high) ? d : 0;
    }
}

int terse_tape_backward(terse_tape *tape, terse_error *error)
{
    if (!tape->options.backward)
        return terse_fail(error, TERSE_INTERNAL, "this tape only runs forwards");
    for (int i = tape->graph->n_nodes - 1; i >= 0; i--) {
        terse_tape_node *n = &tape->nodes[i];
        if (!n->back)
            continue;
        for (int z = 0; z < n->n_fresh; z++)
            memset(tape->gradients[n->fresh[z]], 0,
                   (size_t)terse_tensor_count(&tape->made[n->fresh[z]]) * sizeof(float));
        for (int o = 0; o < n->node->n_outputs; o++)
            cut_gradient(tape, n->node->outputs[o]);
        const terse_back back = {.node = n->node,
                                 .kernels = tape->kernels,
                                 .n_inputs = n->node->n_inputs,
                                 .n_outputs = n->node->n_outputs,
                                 .x = (const terse_tensor *const *)n->inputs,
                                 .y = (const terse_tensor *const *)n->outputs,
                                 .dx = n->dx,
                                 .dy = (const float *const *)n->dy,
                                 .scratch = tape->scratch,
                                 .moved = n->moved,
                                 .statistics = tape->training ? n->statistics : NULL};
        n->back->run(&back);
    }
    for (int i = 0; i < tape->graph->n_inputs; i++)
        cut_gradient(tape, tape->graph->inputs[i]);
    return TERSE_OK;
}
