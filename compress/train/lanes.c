/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/lanes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

enum { MAX_ROWS = 32 };

/* splitmix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014). */
uint64_t terse_lanes_random(uint64_t key)
{
    uint64_t z = key + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void lane_done(const terse_lanes *l, terse_lane *lane)
{
    terse_tape_free(lane->teacher);
    terse_tape_free(lane->student);
    for (int i = 0; lane->inputs && i < l->student->n_inputs; i++)
        free(lane->inputs[i]);
    free(lane->inputs);
    *lane = (terse_lane){0};
}

void terse_lanes_done(terse_lanes *l)
{
    for (int i = 0; i < TERSE_LANES; i++)
        lane_done(l, &l->lanes[i]);
}

/* Views of the first `rows` samples: dims for the tapes. Values are known only where they are those of all samples. */
static void input_views(const terse_lanes *l, int64_t rows, terse_tensor *views, const void **pointers)
{
    terse_samples_views(l->samples, 0, rows, views, pointers);
}

static int lane_new(terse_lanes *l, terse_lane *lane, terse_error *error)
{
    const int n_inputs = l->student->n_inputs;
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)n_inputs + 1, sizeof *views);
    TERSE_AUTO(terse_freep) const void **pointers = calloc((size_t)n_inputs + 1, sizeof *pointers);
    lane->inputs = calloc((size_t)n_inputs + 1, sizeof(void *));
    if (!views || !pointers || !lane->inputs)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
    input_views(l, l->rows, views, pointers);
    for (int i = 0; i < n_inputs; i++) {
        const size_t bytes = (size_t)terse_tensor_bytes(&views[i]);
        lane->inputs[i] = aligned_alloc(64, terse_align(bytes + 1, 64));
        if (!lane->inputs[i])
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for samples");
        l->bytes += bytes;
    }
    const terse_tape_options of_teacher = {.targets = l->distance->of_teacher};
    const terse_tape_options of_student = {.targets = l->distance->of_student,
                                           .trained = l->parameters->trained,
                                           .affine = l->options->affine,
                                           .backward = true};
    int status = terse_tape_new(l->teacher, views, &of_teacher, &lane->teacher, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "teacher");
    status = terse_tape_new(l->student, views, &of_student, &lane->student, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "student");
    terse_parameters_attach(l->parameters, l->student, lane->student);
    l->bytes += terse_tape_bytes(lane->teacher) + terse_tape_bytes(lane->student);
    return TERSE_OK;
}

int terse_lanes_new(terse_lanes *l, int64_t batch, terse_error *error)
{
    openblas_set_num_threads(1); /* a lane is a thread; the same numbers wherever it runs */
    l->n = batch > 1 ? TERSE_LANES : 1;
    const bool batchable = l->samples->batch > 1 && l->teacher->batchable && l->student->batchable;
    l->rows = batchable ? batch / l->n : 1;
    l->rows = l->rows > MAX_ROWS ? MAX_ROWS : l->rows;
    for (;; l->rows = (l->rows + 1) / 2) {
        l->bytes = terse_parameters_bytes(l->parameters);
        for (int i = 0; i < l->n; i++) {
            const int status = lane_new(l, &l->lanes[i], error);
            if (status != TERSE_OK)
                return status;
        }
        if (l->options->max_bytes == 0 || l->bytes <= l->options->max_bytes)
            return TERSE_OK;
        if (l->rows == 1)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                              "training needs %zu bytes with one sample at a time, %zu are allowed", l->bytes,
                              l->options->max_bytes);
        terse_lanes_done(l);
    }
}

/* --- samples ----------------------------------------------------------------------------------------------------- */

/* Moves planes of an image: y[r][c] = x[r - down][c - right], mirrored first where asked. */
static void move_image(const float *x, float *y, const int64_t *dims, bool flip, int64_t down, int64_t right)
{
    const int64_t height = dims[1], width = dims[2];
    for (int64_t p = 0; p < dims[0]; p++)
        for (int64_t r = 0; r < height; r++)
            for (int64_t c = 0; c < width; c++) {
                const int64_t from_r = r - down, from_c = c - right;
                const bool inside = from_r >= 0 && from_r < height && from_c >= 0 && from_c < width;
                const int64_t column = flip ? width - 1 - from_c : from_c;
                y[(p * height + r) * width + c] = inside ? x[(p * height + from_r) * width + column] : 0;
            }
}

typedef struct variation {
    bool flip, mix;
    int64_t down, right, other;
    float share;
} variation;

static variation vary(const terse_lanes *l, uint64_t key, const int64_t *list, int64_t n)
{
    const terse_train_options *o = l->options;
    const int span = 2 * o->shift + 1;
    uint64_t r = terse_lanes_random(key);
    variation v = {.flip = o->flip && (r & 1),
                   .mix = o->mix && (r >> 1 & 1),
                   .down = (int64_t)((r >> 8 & 0xffff) % (unsigned)span) - o->shift,
                   .right = (int64_t)((r >> 24 & 0xffff) % (unsigned)span) - o->shift};
    r = terse_lanes_random(key ^ 0x6d69786564u);
    v.other = list[(int64_t)(r >> 32) % n];
    v.share = 0.5f + 0.5f * (float)(r & 0xffffff) / 16777216.0f;
    return v;
}

/* One sample of input `index` into its place. */
static void load(const terse_lanes *l, int index, int64_t sample, const variation *v, void *to)
{
    const terse_tensor *from = l->samples->tensors[index];
    const int64_t rows = l->samples->rows[index];
    const int64_t bytes = rows ? terse_tensor_bytes(from) / from->dims[0] * rows : terse_tensor_bytes(from);
    const char *x = (const char *)from->data + (rows ? sample * bytes : 0);
    const bool image = from->dtype == TERSE_FP32 && from->rank == 4 && rows == 1;
    if (v && image && (v->flip || v->down || v->right))
        move_image((const float *)(const void *)x, to, from->dims + 1, v->flip, v->down, v->right);
    else if (bytes)
        memcpy(to, x, (size_t)bytes);
    if (!v || !v->mix || from->dtype != TERSE_FP32 || !rows)
        return;
    const float *other = (const float *)(const void *)((const char *)from->data + v->other * bytes);
    float *y = to;
    for (int64_t i = 0; i < bytes / (int64_t)sizeof *y; i++)
        y[i] = v->share * y[i] + (1 - v->share) * other[i];
}

static void load_rows(const terse_lanes *l, const terse_lane *lane, const int64_t *list, int64_t n, int64_t first,
                      bool training, uint64_t key)
{
    const bool varied = training && (l->options->flip || l->options->shift || l->options->mix);
    for (int64_t r = 0; r < l->rows; r++) {
        const int64_t at = first + r < n ? first + r : n - 1; /* the last one fills up */
        const variation v = varied ? vary(l, key ^ (uint64_t)(at + 1) * 0x2545f4914f6cdd1du, list, n) : (variation){0};
        for (int i = 0; i < l->student->n_inputs; i++) {
            const terse_tensor *from = l->samples->tensors[i];
            const int64_t rows = l->samples->rows[i];
            const int64_t bytes = rows ? terse_tensor_bytes(from) / from->dims[0] * rows : 0;
            load(l, i, list[at], varied ? &v : NULL, (char *)lane->inputs[i] + r * bytes);
        }
    }
}

/* --- one half of a batch ----------------------------------------------------------------------------------------- */

typedef struct work {
    terse_lanes *l;
    int lane;
    const int64_t *list; /* the whole batch */
    int64_t n, first, last;
    bool training;
    uint64_t key;
    double *each;
    terse_distance_sum sum;
    int status;
    terse_error error;
} work;

static int run_rows(work *w, int64_t first)
{
    const terse_lanes *l = w->l;
    const terse_lane *lane = &l->lanes[w->lane];
    const int64_t counted = w->last - first < l->rows ? w->last - first : l->rows;
    load_rows(l, lane, w->list, w->n, first, w->training, w->key);
    w->sum.each = w->each ? w->each + first : NULL;
    int status = terse_tape_forward(lane->teacher, (const void *const *)lane->inputs, &w->error);
    if (status == TERSE_OK)
        status = terse_tape_forward(lane->student, (const void *const *)lane->inputs, &w->error);
    if (status == TERSE_OK)
        status =
            terse_distance_add(l->distance, lane->teacher, lane->student, l->rows, counted, l->options->temperature,
                               w->training ? (double)counted / (double)w->n : 0, &w->sum, &w->error);
    return status == TERSE_OK && w->training ? terse_tape_backward(lane->student, &w->error) : status;
}

static void *run_half(void *context)
{
    work *w = context;
    terse_tape_set_training(w->l->lanes[w->lane].student, w->training && w->l->options->batch_statistics);
    for (int64_t first = w->first; first < w->last && w->status == TERSE_OK; first += w->l->rows)
        w->status = run_rows(w, first);
    return NULL;
}

static void add(terse_distance_sum *to, const terse_distance_sum *from)
{
    to->loss += from->loss;
    to->divergence += from->divergence;
    to->error += from->error;
    to->same += from->same;
    to->rows += from->rows;
    to->n_errors += from->n_errors;
}

/* Small networks take longer in two threads than in one, and machines have other work: now and then both are measured.
 */
enum { MEASURED_EVERY = 256, MEASURED_STEPS = 8 };

static bool use_two(const terse_lanes *l, bool training)
{
    if (l->n < 2 || l->options->n_threads == 1)
        return false;
    if (l->options->n_threads == 2 || !training)
        return true;
    return l->steps % MEASURED_EVERY < MEASURED_STEPS ? l->steps % 2 == 1 : l->spent[1] < l->spent[0];
}

static void count_step(terse_lanes *l, bool two, uint64_t ns)
{
    const int64_t at = l->steps++ % MEASURED_EVERY;
    if (at == 0)
        l->spent[0] = l->spent[1] = 0;
    if (at >= 2 && at < MEASURED_STEPS) /* the first two touch memory */
        l->spent[two] += ns;
}

int terse_lanes_run(terse_lanes *l, const int64_t *list, int64_t n, bool training, uint64_t key, double *each,
                    terse_distance_sum *ret_sum, terse_error *error)
{
    work halves[TERSE_LANES];
    pthread_t thread;
    const int64_t half = (n + l->n - 1) / l->n;
    for (int i = 0; i < l->n; i++) {
        halves[i] = (work){.l = l, .lane = i, .list = list, .n = n, .training = training, .key = key, .each = each};
        halves[i].first = i * half < n ? i * half : n;
        halves[i].last = (i + 1) * half < n ? (i + 1) * half : n;
        if (training)
            terse_parameters_clear(l->parameters, l->lanes[i].student);
    }
    if (each)
        memset(each, 0, (size_t)n * sizeof *each);
    const uint64_t began = terse_now_ns();
    const bool wanted = use_two(l, training);
    const bool beside = wanted && pthread_create(&thread, NULL, run_half, &halves[1]) == 0;
    run_half(&halves[0]);
    if (beside)
        pthread_join(thread, NULL);
    else if (l->n > 1)
        run_half(&halves[1]);
    if (training)
        count_step(l, wanted, terse_now_ns() - began);
    *ret_sum = (terse_distance_sum){0};
    for (int i = 0; i < l->n; i++) {
        if (halves[i].status != TERSE_OK) {
            if (error)
                *error = halves[i].error;
            return halves[i].status;
        }
        add(ret_sum, &halves[i].sum);
        if (training)
            terse_parameters_gather(l->parameters, l->lanes[i].student, i == 0);
    }
    if (training && l->options->batch_statistics) {
        terse_tape *tapes[TERSE_LANES];
        for (int i = 0; i < l->n; i++)
            tapes[i] = l->lanes[i].student;
        terse_parameters_learn_statistics(l->parameters, tapes, l->n);
    }
    return TERSE_OK;
}
