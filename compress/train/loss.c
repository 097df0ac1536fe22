/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/loss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FEATURES = 12, MIN_CLASSES = 16 };

void terse_distance_done(terse_distance *d)
{
    free(d->pairs);
    free(d->of_teacher);
    free(d->of_student);
    *d = (terse_distance){0};
}

/* The logits of an output: the input of the Softmax over its last axis that makes it, else the output. */
static int logits_of(const terse_graph *graph, int value, bool *ret_classes)
{
    const int producer = terse_graph_producer(graph, value);
    const terse_node *node = producer < 0 ? NULL : &graph->nodes[producer];
    *ret_classes = false;
    if (!node || (node->op != TERSE_OP_SOFTMAX && node->op != TERSE_OP_LOG_SOFTMAX))
        return value;
    const int rank = graph->values[value].rank;
    const int64_t axis = terse_node_int(node, "axis", -1);
    if (rank < 1 || (axis != -1 && axis != rank - 1))
        return value;
    *ret_classes = true;
    return node->inputs[0];
}

static bool reads_integers(const terse_graph *graph)
{
    for (int i = 0; i < graph->n_inputs; i++)
        if (graph->values[graph->inputs[i]].dtype != TERSE_FP32)
            return true;
    return false;
}

/* Rows of classes: [N,C], or [N,T,V] where tokens go in or there are many; else numbers such as boxes. */
static bool are_classes(const terse_graph *graph, int value)
{
    const terse_value *v = &graph->values[value];
    const int64_t last = v->rank > 0 ? v->dims[v->rank - 1] : 0;
    return v->dtype == TERSE_FP32 && last > 1 &&
           (v->rank == 2 || (v->rank == 3 && (last >= MIN_CLASSES || reads_integers(graph))));
}

static int pair_outputs(const terse_graph *teacher, const terse_graph *student, terse_distance *d, terse_error *error)
{
    if (teacher->n_outputs != student->n_outputs)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the student has %d outputs, the teacher %d",
                          student->n_outputs, teacher->n_outputs);
    for (int i = 0; i < teacher->n_outputs; i++) {
        const terse_value *v = &teacher->values[teacher->outputs[i]], *w = &student->values[student->outputs[i]];
        if (v->dtype != w->dtype)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "output '%.200s' is %s in the student, %s in the teacher",
                              v->name, terse_dtype_name(w->dtype), terse_dtype_name(v->dtype));
        if (v->dtype != TERSE_FP32)
            continue;
        bool classes, ignored;
        terse_loss_pair *pair = &d->pairs[d->n++];
        *pair = (terse_loss_pair){.teacher = logits_of(teacher, teacher->outputs[i], &classes),
                                  .student = logits_of(student, student->outputs[i], &ignored),
                                  .weight = 1};
        pair->classes = classes || are_classes(teacher, teacher->outputs[i]);
        snprintf(pair->name, sizeof pair->name, "%s", v->name);
        if (!pair->classes) /* probabilities compared as they are */
            pair->student = student->outputs[i];
    }
    return d->n ? TERSE_OK
                : terse_fail(error, TERSE_INVALID_ARGUMENT, "no output is FP32: there is nothing to learn from");
}

/* But for the channels of which `kept` says which are left. */
static bool same_dims(const terse_graph *a, const terse_value *x, const terse_graph *b, const terse_value *y,
                      const terse_kept_value *kept)
{
    if (x->dtype != TERSE_FP32 || y->dtype != TERSE_FP32 || x->rank < 2 || x->rank != y->rank)
        return false;
    for (int i = 0; i < x->rank; i++) {
        if (kept && i == kept->axis) {
            if (x->dims[i] != kept->before || y->dims[i] != kept->n)
                return false;
            continue;
        }
        if ((x->dims[i] < 0) != (y->dims[i] < 0) || (x->dims[i] >= 0 && x->dims[i] != y->dims[i]))
            return false;
        if (x->dims[i] < 0 &&
            strcmp(a->symbols[TERSE_SYMBOL_OF_DIM(x->dims[i])], b->symbols[TERSE_SYMBOL_OF_DIM(y->dims[i])]) != 0)
            return false;
    }
    return true;
}

/* What ends a block: a sum, or an activation behind it. */
static bool ends_block(terse_op op)
{
    return op == TERSE_OP_ADD || op == TERSE_OP_RELU || op == TERSE_OP_CLIP || op == TERSE_OP_LEAKY_RELU ||
           op == TERSE_OP_HARD_SWISH || op == TERSE_OP_GELU || op == TERSE_OP_CONCAT || op == TERSE_OP_MUL;
}

static int by_name(const terse_graph *graph, const char *name)
{
    for (int n = 0; n < graph->n_nodes; n++)
        for (int o = 0; o < graph->nodes[n].n_outputs; o++) {
            const int v = graph->nodes[n].outputs[o];
            if (v >= 0 && strcmp(graph->values[v].name, name) == 0)
                return v;
        }
    return -1;
}

static bool is_paired(const terse_distance *d, int value)
{
    for (int i = 0; i < d->n; i++)
        if (d->pairs[i].teacher == value)
            return true;
    return false;
}

/* At most MAX_FEATURES, evenly spread; they share the weight. */
static bool pair_features(const terse_graph *teacher, const terse_graph *student, double weight, const terse_kept *kept,
                          terse_distance *d)
{
    terse_loss_pair *found = calloc((size_t)teacher->n_nodes + 1, sizeof *found);
    int n = 0;
    if (!found)
        return false;
    for (int i = 0; i < teacher->n_nodes; i++) {
        const terse_node *node = &teacher->nodes[i];
        const int v = node->n_outputs > 0 ? node->outputs[0] : -1;
        if (v < 0 || !ends_block(node->op) || !*teacher->values[v].name || is_paired(d, v))
            continue;
        const int other = by_name(student, teacher->values[v].name);
        const terse_kept_value *left = terse_kept_find(kept, teacher->values[v].name);
        if (other >= 0 && same_dims(teacher, &teacher->values[v], student, &student->values[other], left))
            found[n++] = (terse_loss_pair){.teacher = v, .student = other, .feature = true, .kept = left};
    }
    const int take = n < MAX_FEATURES ? n : MAX_FEATURES;
    for (int i = 0; i < take; i++) {
        d->pairs[d->n] = found[(int)((int64_t)(i + 1) * n / take) - 1];
        d->pairs[d->n++].weight = weight / take;
    }
    d->n_features = take;
    free(found);
    return true;
}

int terse_distance_new(const terse_graph *teacher, const terse_graph *student, double features, const terse_kept *kept,
                       terse_distance *ret_distance, terse_error *error)
{
    terse_distance d = {0};
    d.pairs = calloc((size_t)teacher->n_outputs + MAX_FEATURES + 1, sizeof *d.pairs);
    d.of_teacher = calloc((size_t)teacher->n_values + 1, 1);
    d.of_student = calloc((size_t)student->n_values + 1, 1);
    int status = d.pairs && d.of_teacher && d.of_student
                     ? pair_outputs(teacher, student, &d, error)
                     : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the loss");
    if (status == TERSE_OK && features > 0 && !pair_features(teacher, student, features, kept, &d))
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the loss");
    for (int i = 0; i < d.n; i++) {
        d.of_teacher[d.pairs[i].teacher] = 1;
        d.of_student[d.pairs[i].student] = 1;
    }
    if (status == TERSE_OK)
        *ret_distance = d;
    else
        terse_distance_done(&d);
    return status;
}

static int64_t largest(const float *row, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

/* log sum exp of x / t. */
static double log_sum(const float *x, int64_t n, double t)
{
    double top = (double)x[largest(x, n)] / t, sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] / t - top);
    return top + log(sum);
}

/* KL(teacher || student) of one row at temperature t; probabilities of both are left in p and q when asked for. */
static double divergence(const float *t, const float *s, int64_t n, double temperature, float *p, float *q)
{
    const double of_t = log_sum(t, n, temperature), of_s = log_sum(s, n, temperature);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double lp = (double)t[i] / temperature - of_t, lq = (double)s[i] / temperature - of_s, share = exp(lp);
        sum += share > 0 ? share * (lp - lq) : 0;
        if (p) {
            p[i] = (float)share;
            q[i] = (float)exp(lq);
        }
    }
    return sum;
}

/* T^2 KL, mean over rows; the gradient is T (q - p) per row. */
static bool add_classes(const terse_loss_pair *pair, const terse_tensor *t, const terse_tensor *s, float *gradient,
                        int64_t counted, double temperature, double share, terse_distance_sum *sum)
{
    const int64_t n = t->dims[t->rank - 1], rows = terse_tensor_count(t) / n / t->dims[0] * counted;
    const float *x = t->data, *y = s->data;
    float *p = gradient ? malloc(2 * (size_t)n * sizeof *p) : NULL, *q = p ? p + n : NULL;
    if (gradient && !p)
        return false;
    double loss = 0;
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        sum->same += largest(x, n) == largest(y, n);
        if (!gradient) {
            const double found = divergence(x, y, n, 1, NULL, NULL);
            sum->divergence += found;
            if (sum->each)
                sum->each[r * counted / rows] += found * (double)counted / (double)rows;
            continue;
        }
        loss += divergence(x, y, n, temperature, p, q) * temperature * temperature;
        const float factor = (float)(share * pair->weight * temperature / (double)rows);
        for (int64_t i = 0; i < n; i++)
            gradient[r * n + i] += factor * (q[i] - p[i]);
    }
    sum->rows += rows;
    sum->loss += rows ? share * pair->weight * loss / (double)rows : 0;
    free(p);
    return true;
}

/* Numbers that lie side by side in both tensors: a channel of a sample where some are gone, else all that count. */
typedef struct runs {
    int64_t n, length;
} runs;

static runs runs_of(const terse_kept_value *kept, const terse_tensor *s, int64_t counted)
{
    const int64_t all = terse_tensor_count(s) / s->dims[0] * counted;
    const int64_t n = kept ? counted * terse_dims_count(s->dims + 1, kept->axis) : 1;
    return (runs){n, n > 0 ? all / n : 0};
}

/* Where the teacher has a run of the student's. */
static const float *teacher_run(const terse_kept_value *kept, const terse_tensor *t, const runs *r, int64_t run)
{
    return (const float *)t->data +
           (kept ? (run / kept->n * kept->before + kept->channels[run % kept->n]) * r->length : 0);
}

/* Squared error over the teacher's mean square, of the channels that the student has. */
static void add_numbers(const terse_loss_pair *pair, const terse_tensor *t, const terse_tensor *s, float *gradient,
                        int64_t counted, double share, terse_distance_sum *sum)
{
    const runs r = runs_of(pair->kept, s, counted);
    double square = 0, error = 0;
    for (int64_t run = 0; run < r.n; run++) {
        const float *x = teacher_run(pair->kept, t, &r, run), *y = (const float *)s->data + run * r.length;
        for (int64_t i = 0; i < r.length; i++) {
            square += (double)x[i] * (double)x[i];
            error += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
        }
    }
    square = square > 1e-12 ? square : 1e-12;
    const float factor = (float)(share * pair->weight * 2 / square);
    for (int64_t run = 0; gradient && run < r.n; run++) {
        const float *x = teacher_run(pair->kept, t, &r, run), *y = (const float *)s->data + run * r.length;
        for (int64_t i = 0; i < r.length; i++)
            gradient[run * r.length + i] += factor * (y[i] - x[i]);
    }
    sum->loss += share * pair->weight * error / square;
    if (!pair->feature) {
        sum->error += error / square * (double)counted;
        sum->n_errors += counted;
        for (int64_t i = 0; sum->each && i < counted; i++)
            sum->each[i] += error / square;
    }
}

static bool fits(const terse_tensor *t, const terse_tensor *s, const terse_kept_value *kept)
{
    bool same = t->rank == s->rank;
    for (int i = 0; same && i < t->rank; i++)
        same = kept && i == kept->axis ? t->dims[i] == kept->before && s->dims[i] == kept->n : t->dims[i] == s->dims[i];
    return same;
}

int terse_distance_add(const terse_distance *d, const terse_tape *teacher, terse_tape *student, int64_t rows,
                       int64_t counted, double temperature, double share, terse_distance_sum *sum, terse_error *error)
{
    for (int i = 0; i < d->n; i++) {
        const terse_loss_pair *pair = &d->pairs[i];
        const terse_tensor *t = terse_tape_value(teacher, pair->teacher), *s = terse_tape_value(student, pair->student);
        char found[128], wanted[128];
        if (!fits(t, s, pair->kept))
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "output '%.100s' has shape %s in the student, %s in the teacher", pair->name,
                              terse_dims_text(s->dims, s->rank, found, sizeof found),
                              terse_dims_text(t->dims, t->rank, wanted, sizeof wanted));
        if (t->rank < 1 || terse_tensor_count(t) == 0)
            continue;
        /* What is not in rows of samples counts as a whole. */
        const int64_t part = t->dims[0] == rows ? counted : t->dims[0];
        float *gradient = share > 0 ? terse_tape_gradient(student, pair->student) : NULL;
        if (!pair->classes)
            add_numbers(pair, t, s, gradient, part, share, sum);
        else if (!add_classes(pair, t, s, gradient, part, temperature, share, sum))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the loss");
    }
    return TERSE_OK;
}
