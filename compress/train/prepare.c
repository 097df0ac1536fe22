/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "compress/passes/unfuse.h"
#include "compress/validate.h"

enum { MOST_BATCH = 32, LEAST_BATCH = 8 };
static const double usual_speed =
    4e9; /* multiply-accumulates of the network a second, teacher and gradient beside it */

/* --- options and samples ------------------------------------------------------------------------------------------ */

static int bad_option(terse_error *error, const char *name, double found, const char *allowed)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "training option %s is %g, allowed is %s", name, found, allowed);
}

int terse_trainer_take_options(terse_trainer *t, const terse_train_options *from, terse_error *error)
{
    terse_train_options *o = &t->options;
    *o = *from;
    o->lr = o->lr == 0 ? 1e-3 : o->lr;
    o->temperature = o->temperature == 0 ? 2 : o->temperature;
    o->clip = o->clip == 0 ? 1 : o->clip;
    o->warm_up = o->warm_up == 0 ? 0.05 : o->warm_up;
    if (o->epochs < 0 || !(o->seconds >= 0) || (o->epochs == 0 && o->seconds == 0))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "training needs a number of epochs or seconds above 0");
    if (o->batch < 0 || o->batch > 65536)
        return bad_option(error, "batch", (double)o->batch, "0 to 65536");
    if (o->steps < 0)
        return bad_option(error, "steps", (double)o->steps, "0 and above");
    if (!(o->lr > 0 && o->lr <= 10))
        return bad_option(error, "lr", o->lr, "above 0, at most 10");
    if (!(o->temperature >= 0.01 && o->temperature <= 1000))
        return bad_option(error, "temperature", o->temperature, "0.01 to 1000");
    if (!(o->decay >= 0 && o->decay <= 100))
        return bad_option(error, "decay", o->decay, "0 to 100");
    if (!(o->clip > 0))
        return bad_option(error, "clip", o->clip, "above 0");
    if (!(o->warm_up >= 0 && o->warm_up < 1))
        return bad_option(error, "warm_up", o->warm_up, "0 to below 1");
    if (!(o->features >= 0 && o->features <= 1e6))
        return bad_option(error, "features", o->features, "0 to 1e6");
    if (!(o->patience_share >= 0 && o->patience_share <= 1) || !(o->average >= 0 && o->average < 1))
        return bad_option(error, "average", o->average, "0 to below 1, as is patience_share");
    if (!(o->tolerance >= 0 && o->tolerance <= 100))
        return bad_option(error, "tolerance", o->tolerance, "0 to 100");
    if (o->shift < 0 || o->shift > 64)
        return bad_option(error, "shift", o->shift, "0 to 64");
    return TERSE_OK;
}

static int check_inputs(const terse_graph *teacher, const terse_graph *student, terse_error *error)
{
    if (teacher->n_inputs != student->n_inputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the student has %d inputs, the teacher %d", student->n_inputs,
                          teacher->n_inputs);
    for (int i = 0; i < teacher->n_inputs; i++) {
        const terse_value *a = &teacher->values[teacher->inputs[i]], *b = &student->values[student->inputs[i]];
        bool same = strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->rank == b->rank;
        for (int k = 0; same && k < a->rank; k++)
            same = a->dims[k] < 0 || b->dims[k] < 0 || a->dims[k] == b->dims[k];
        char x[128], y[128];
        if (!same)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "input %d is %s '%.80s' %s in the student, %s '%.80s' %s in the teacher", i,
                              terse_dtype_name(b->dtype), b->name, terse_value_text(student, b, x, sizeof x),
                              terse_dtype_name(a->dtype), a->name, terse_value_text(teacher, a, y, sizeof y));
    }
    return TERSE_OK;
}

/* NaN and infinities would spoil every weight. */
static int check_samples(const terse_samples *samples, terse_error *error)
{
    for (int i = 0; i < samples->graph->n_inputs; i++) {
        const terse_tensor *x = samples->tensors[i];
        const char *name = samples->graph->values[samples->graph->inputs[i]].name;
        const int64_t n = x->dtype == TERSE_FP32 ? terse_tensor_count(x) : 0;
        const float *data = x->data;
        for (int64_t k = 0; k < n; k++)
            if (!isfinite(data[k]))
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' has %g in sample %" PRId64, name,
                                  (double)data[k], k / (n / samples->samples > 0 ? n / samples->samples : 1));
    }
    return TERSE_OK;
}

/* A tenth is held out. */
static int split_samples(terse_trainer *t, terse_error *error)
{
    const int64_t n = t->samples.samples;
    if (n < 2)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%" PRId64 " sample is there, training needs at least 2: one is held out", n);
    t->order = malloc((size_t)n * sizeof *t->order);
    if (!t->order)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRId64 " samples", n);
    terse_train_split(n, t->options.seed, t->order, &t->n_held);
    t->n_train = n - t->n_held;
    return TERSE_OK;
}

/* How many samples there is time for: by the epochs, or by what the network has to multiply. The speed of this machine
 * does not matter, so that a training that goes on elsewhere has the same steps. */
static double samples_to_come(const terse_trainer *t)
{
    const terse_train_options *o = &t->options;
    double samples = o->epochs > 0 ? (double)o->epochs * (double)t->n_train : (double)INFINITY;
    int64_t macs = 0;
    size_t ignored;
    if (o->seconds > 0 && terse_validate_cost(t->student, &macs, &ignored, NULL) == TERSE_OK && macs > 0)
        samples = fmin(samples, o->seconds * usual_speed / (double)macs);
    return samples;
}

/* Adam moves weights by about the rate a step, so a training of few steps goes nowhere, and the gradient towards a
 * teacher is good with few samples. */
static void choose_batch(terse_trainer *t)
{
    terse_train_options *o = &t->options;
    if (o->batch == 0) {
        o->batch = MOST_BATCH;
        while (o->steps > 0 && o->batch > LEAST_BATCH && samples_to_come(t) / (double)o->batch < (double)o->steps)
            o->batch /= 2;
    }
    o->batch = o->batch > t->n_train ? t->n_train : o->batch;
}

/* What decides about every bit of a training: a checkpoint goes on only there. */
static uint64_t key_of(const terse_trainer *t)
{
    const terse_train_options *o = &t->options;
    const double numbers[] = {(double)o->epochs,
                              o->seconds,
                              (double)o->batch,
                              o->lr,
                              o->temperature,
                              o->decay,
                              o->clip,
                              o->warm_up,
                              o->features,
                              (double)o->patience,
                              o->patience_share,
                              o->average,
                              o->tolerance,
                              o->find_rate,
                              o->relative,
                              o->batch_statistics,
                              o->flip,
                              (double)o->shift,
                              o->mix,
                              (double)t->samples.samples};
    uint64_t key = XXH3_64bits_withSeed(numbers, sizeof numbers, o->seed);
    const terse_graph *graphs[] = {t->teacher, t->student};
    for (int g = 0; g < 2; g++)
        for (int v = 0; v < graphs[g]->n_values; v++)
            if (graphs[g]->values[v].data)
                key = XXH3_64bits_withSeed(
                    graphs[g]->values[v].data,
                    (size_t)terse_dims_count(graphs[g]->values[v].dims, graphs[g]->values[v].rank) *
                        terse_dtype_size(graphs[g]->values[v].dtype),
                    key);
    for (int i = 0; i < t->student->n_inputs; i++)
        key = XXH3_64bits_withSeed(t->samples.tensors[i]->data, (size_t)terse_tensor_bytes(t->samples.tensors[i]), key);
    return key;
}

/* Quantized constants and operators without a gradient leave a student nothing to learn with. */
static int check_trained(const terse_trainer *t, terse_error *error)
{
    for (int i = 0; i < t->parameters.n; i++)
        if (t->parameters.list[i].trained &&
            terse_tape_parameter_gradient(t->lanes.lanes[0].student, t->parameters.list[i].value))
            return TERSE_OK;
    for (int i = 0; i < t->student->n_nodes; i++)
        if (terse_tape_blocked(t->lanes.lanes[0].student, i))
            return terse_fail(error, TERSE_UNIMPLEMENTED,
                              "the student cannot be trained: no gradient passes node '%s' (%s)",
                              t->student->nodes[i].name, terse_op_name(t->student->nodes[i].op));
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "the student has no FP32 weights to train: found %d constants that could be", t->parameters.n);
}

/* INT8 weights keep their scales. */
static int say(terse_trainer *t, terse_error *error)
{
    terse_train_options *o = &t->options;
    t->said = calloc((size_t)o->n_parameters + (size_t)t->bytes.n + 1, sizeof *t->said);
    if (!t->said)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %d parameters", o->n_parameters);
    int n = 0;
    for (; n < o->n_parameters; n++) {
        t->said[n] = o->parameters[n];
        const terse_train_byte *byte = terse_train_bytes_find(&t->bytes, t->said[n].value);
        if (byte)
            t->said[n].quantizer = byte->quantizer;
    }
    for (int i = 0; i < t->bytes.n; i++) {
        bool there = false;
        for (int k = 0; k < o->n_parameters; k++)
            there = there || o->parameters[k].value == t->bytes.list[i].value;
        if (!there && terse_parameters_may_train(t->student, t->bytes.list[i].value))
            t->said[n++] =
                (terse_train_parameter){.value = t->bytes.list[i].value, .quantizer = t->bytes.list[i].quantizer};
    }
    o->parameters = t->said;
    o->n_parameters = n;
    return TERSE_OK;
}

int terse_trainer_prepare(terse_trainer *t, const terse_graph *teacher, const terse_graph *student,
                          const terse_npz *data, terse_error *error)
{
    int status = check_inputs(teacher, student, error);
    if (status == TERSE_OK)
        status = terse_unfuse(teacher, &t->teacher, error);
    if (status == TERSE_OK)
        status = terse_unfuse(student, &t->student, error);
    if (status == TERSE_OK)
        status = terse_train_bytes_expose(t->student, &t->bytes, error);
    if (status == TERSE_OK)
        status = say(t, error);
    if (status == TERSE_OK)
        status = terse_samples_open(teacher, data, &t->samples, error);
    if (status == TERSE_OK)
        status = check_samples(&t->samples, error);
    if (status == TERSE_OK)
        status = split_samples(t, error);
    if (status == TERSE_OK) {
        choose_batch(t);
        status = terse_distance_new(t->teacher, t->student, t->options.features, t->options.kept, &t->distance, error);
    }
    if (status == TERSE_OK)
        status = terse_parameters_new(t->student, &t->options, &t->parameters, error);
    if (status != TERSE_OK)
        return status;
    terse_parameters_round(t->student, &t->parameters);
    t->lanes = (terse_lanes){.teacher = t->teacher,
                             .student = t->student,
                             .samples = &t->samples,
                             .options = &t->options,
                             .distance = &t->distance,
                             .parameters = &t->parameters};
    status = terse_lanes_new(&t->lanes, t->options.batch, error);
    if (status == TERSE_OK)
        status = check_trained(t, error);
    const size_t kept = (size_t)(t->parameters.n_numbers + t->parameters.n_statistic_numbers);
    t->state.parameters = &t->parameters;
    t->state.best = calloc(kept + 1, sizeof *t->state.best);
    t->state.least = calloc((size_t)t->n_held + 1, sizeof *t->state.least);
    t->state.n_held = t->n_held;
    t->held = calloc((size_t)t->n_held + 1, sizeof *t->held);
    t->state.key = key_of(t);
    if (status == TERSE_OK && (!t->state.best || !t->state.least || !t->held))
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu parameters", kept);
    return status;
}
