/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/texts.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/drafts.h"
#include "compress/runner.h"
#include "compress/samples.h"

enum { MAX_ROWS = 32, PROBED = 8, LEAST_TEXTS = 8, MAX_LENGTH = 4096, MAX_LOGITS = 1 << 24, AHEAD = 4 };
static const double foretells = 0.9;    /* of what guessing evenly would lose */
static const double drawn_a_run = 1.8;  /* tokens, with guesses */
static const double work_to_draw = 400; /* what drawing takes for each token that there is, in multiply-accumulates */

typedef struct book {
    const terse_graph *graph;
    const terse_tensor *samples; /* [n][length] */
    int64_t n, length, tokens;
    bool grows;    /* prefixes may be run by themselves */
    int64_t *text; /* [texts][length] */
    int64_t texts, rows;
    uint64_t seed;
    size_t memory; /* of what was said, a writer */
    atomic_llong read;
    atomic_int failed;
} book;

static uint64_t lot(const book *b, int64_t text, int64_t place)
{
    return terse_drafts_mixed(b->seed ^
                              terse_drafts_mixed((uint64_t)text * (uint64_t)(b->length + 1) + (uint64_t)place));
}

static int64_t sample_token(const book *b, int64_t sample, int64_t place)
{
    return (int64_t)terse_runner_number(b->samples, b->samples->data, sample * b->length + place);
}

/* --- running ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
    terse_runner runner;
    void *input;
    int64_t rows, length; /* of the plan */
} reader;

static void reader_done(reader *r)
{
    terse_runner_done(&r->runner);
    free(r->input);
}

static int reader_init(const book *b, int64_t rows, reader *r, terse_error *error)
{
    *r = (reader){0};
    r->input = malloc((size_t)(rows * b->length) * sizeof(int64_t) + 1);
    return r->input ? terse_runner_init(b->graph, &r->runner, error)
                    : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for texts");
}

/* Logits of the first `length` tokens of `rows` texts, those of `which` (NULL: the first ones) of [][b->length]; what
 * is written so far is all that counts. */
static int read_texts(const book *b, reader *r, const int64_t *texts, const int64_t *which, int64_t rows,
                      int64_t length, terse_error *error)
{
    const int64_t seen = b->grows ? length : b->length;
    terse_tensor view = terse_tensor_view(r->input, b->samples->dtype, 2, (int64_t[]){rows, seen});
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < seen; k++) {
            const int64_t token = k < length ? texts[(which ? which[i] : i) * b->length + k] : 0;
            if (b->samples->dtype == TERSE_INT64)
                ((int64_t *)r->input)[i * seen + k] = token;
            else
                ((int32_t *)r->input)[i * seen + k] = (int32_t)token;
        }
    int status = TERSE_OK;
    if (rows != r->rows || seen != r->length)
        status = terse_runner_plan(&r->runner, &view, error);
    r->rows = rows;
    r->length = seen;
    return status == TERSE_OK
               ? terse_plan_run(r->runner.plan, (const void *const[]){r->input}, r->runner.outputs, error)
               : status;
}

/* --- is it one? -------------------------------------------------------------------------------------------------- */

static bool has_the_form(const terse_graph *graph, const terse_samples *samples)
{
    if (graph->n_inputs != 1 || graph->n_outputs != 1 || !graph->batchable || samples->rows[0] != 1)
        return false;
    const terse_value *x = &graph->values[graph->inputs[0]], *y = &graph->values[graph->outputs[0]];
    const terse_tensor *tokens = samples->tensors[0];
    return (x->dtype == TERSE_INT64 || x->dtype == TERSE_INT32) && x->rank == 2 && y->dtype == TERSE_FP32 &&
           y->rank == 3 && tokens->dims[1] >= 4 && tokens->dims[1] <= MAX_LENGTH;
}

static int64_t rows_of(int64_t length, int64_t tokens)
{
    const int64_t rows = MAX_LOGITS / (length * tokens) + 1;
    return rows > MAX_ROWS ? MAX_ROWS : rows;
}

int64_t terse_texts_rows(const terse_graph *graph, const terse_samples *samples)
{
    if (!has_the_form(graph, samples))
        return 0;
    const int64_t tokens = graph->values[graph->outputs[0]].dims[2];
    return rows_of(samples->tensors[0]->dims[1], tokens > 1 ? tokens : 2);
}

/* -log of the probability of `token`. */
static double surprise(const float *row, int64_t n, int64_t token)
{
    double top = (double)row[0], sum = 0;
    for (int64_t i = 1; i < n; i++)
        top = fmax(top, (double)row[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)row[i] - top);
    return top + log(sum) - (double)row[token];
}

/* Do rows foretell the next token, and none of them know it? `work`: of one text of full length. */
static int probe(book *b, bool *ret_model, double *ret_work, terse_error *error)
{
    const int64_t rows = b->n < PROBED ? b->n : PROBED, length = b->length;
    reader r;
    TERSE_AUTO(terse_freep) int64_t *texts = malloc((size_t)(rows * length) * sizeof *texts);
    TERSE_AUTO(terse_freep) float *kept = NULL;
    int status = reader_init(b, rows, &r, error);
    for (int64_t i = 0; texts && i < rows * length; i++)
        texts[i] = sample_token(b, i / length * b->n / rows, i % length);
    *ret_model = false;
    if (status == TERSE_OK && (!texts || terse_engine_value_inputs(r.runner.engine) != 0))
        status = terse_fail(error, TERSE_UNIMPLEMENTED, "no plan without the tokens");
    if (status == TERSE_OK)
        status = read_texts(b, &r, texts, NULL, rows, length, error);
    const terse_tensor *y = status == TERSE_OK ? terse_plan_output(r.runner.plan, 0) : NULL;
    if (y && y->dims[0] == rows && y->dims[1] == length && y->dims[2] > 1 && y->dims[2] <= MAX_LOGITS) {
        const float *logits = r.runner.outputs[0];
        const size_t n = (size_t)terse_tensor_count(y);
        b->tokens = y->dims[2];
        bool good = true;
        double lost = 0, moved = 0, most = 0;
        for (int64_t i = 0; i < b->n * length && good; i++)
            good = sample_token(b, i / length, i % length) >= 0 && sample_token(b, i / length, i % length) < b->tokens;
        for (int64_t i = 0; i < rows * length && good; i++)
            if (i % length < length - 1)
                lost += surprise(logits + i * b->tokens, b->tokens, texts[i + 1]) / (double)(rows * (length - 1));
        *ret_work = (double)terse_plan_macs(r.runner.plan) / (double)rows;
        kept = good && lost < foretells * log((double)b->tokens) ? malloc(n * sizeof *kept) : NULL;
        for (size_t i = 0; kept && i < n; i++)
            kept[i] = logits[i];
        for (int64_t i = 0; i < rows; i++)
            texts[i * length + length - 1] = (texts[i * length + length - 1] + 1) % b->tokens;
        if (kept)
            status = read_texts(b, &r, texts, NULL, rows, length, error);
        for (size_t i = 0; kept && status == TERSE_OK && i < n; i++) {
            const double by = fabs((double)logits[i] - (double)kept[i]);
            most = fmax(most, by);
            if ((int64_t)(i / (size_t)b->tokens) % length < length - 1)
                moved = fmax(moved, by);
        }
        *ret_model = kept && status == TERSE_OK && most > 0 && moved < 1e-4 * most;
    }
    reader_done(&r);
    return status;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

/* How much of a sample each text begins with: half of them one token, the others up to a quarter of the length. */
static int64_t beginning(const book *b, int64_t text)
{
    const uint64_t r = lot(b, text, b->length);
    return r & 1 ? 1 : 1 + (int64_t)((r >> 1) % (uint64_t)(b->length / 4 + 1));
}

/* What a block of texts is at. */
typedef struct block {
    int64_t first, rows;
    int64_t done[MAX_ROWS], ahead[MAX_ROWS]; /* tokens that stand, and guesses behind them */
    int64_t open[MAX_ROWS], n_open;          /* which are not at their ends */
} block;

/* Guesses behind each text that is not at its end; how much of them there is to read. */
static int64_t look_ahead(const book *b, const terse_drafts *drafts, block *at)
{
    int64_t longest = 0;
    at->n_open = 0;
    for (int64_t i = 0; i < at->rows; i++) {
        int64_t *text = b->text + (at->first + i) * b->length, place = at->done[i];
        if (place == b->length)
            continue;
        at->open[at->n_open++] = i;
        for (; place - at->done[i] < AHEAD && place + 1 < b->length; place++) {
            const int64_t token = terse_drafts_guess(drafts, text, place, lot(b, at->first + i, place));
            if (token < 0)
                break;
            text[place] = token;
        }
        at->ahead[i] = place - at->done[i];
        longest = place > longest ? place : longest;
    }
    return longest;
}

/* Tokens of one text, of logits [.][tokens], up to the first one that was not guessed. */
static void draw_tokens(const book *b, terse_drafts *drafts, block *at, int64_t row, const float *logits)
{
    int64_t *text = b->text + (at->first + row) * b->length, place = at->done[row];
    const int64_t last = place + at->ahead[row];
    for (bool right = true; right && place <= last; place++) {
        const float *said = logits + (place - 1) * b->tokens;
        const int64_t token = terse_drafts_draw(said, b->tokens, lot(b, at->first + row, place));
        terse_drafts_remember(drafts, text, place, said);
        right = place < last && text[place] == token;
        text[place] = token;
    }
    at->done[row] = place;
}

static int write_block(book *b, reader *r, terse_drafts *drafts, int64_t first, terse_error *error)
{
    block at = {.first = first, .rows = b->texts - first < b->rows ? b->texts - first : b->rows};
    int64_t *texts = b->text + first * b->length;
    for (int64_t i = 0; i < at.rows; i++) {
        const int64_t sample = (int64_t)(lot(b, first + i, b->length) >> 20) % b->n;
        at.done[i] = beginning(b, first + i);
        for (int64_t k = 0; k < at.done[i]; k++)
            texts[i * b->length + k] = sample_token(b, sample, k);
    }
    for (int64_t longest; (longest = look_ahead(b, drafts, &at)) > 0;) {
        const int status = read_texts(b, r, texts, at.open, at.n_open, longest, error);
        if (status != TERSE_OK)
            return status;
        const float *logits = r->runner.outputs[0];
        atomic_fetch_add(&b->read, at.n_open);
        for (int64_t i = 0; i < at.n_open; i++)
            draw_tokens(b, drafts, &at, at.open[i], logits + i * r->length * b->tokens);
    }
    return TERSE_OK;
}

typedef struct writer {
    book *b;
    int number;
    const terse_texts_options *options; /* of one writer alone: for progress */
    int status;
    terse_error error;
} writer;

/* Each writer has its own blocks and remembers those alone: texts are the same whoever is faster. */
static void *write_texts(void *context)
{
    writer *w = context;
    book *b = w->b;
    reader r;
    terse_drafts *drafts = terse_drafts_new(b->tokens, b->memory);
    w->status = reader_init(b, b->rows, &r, &w->error);
    for (int64_t first = w->number * b->rows; first < b->texts; first += TERSE_TEXTS_WRITERS * b->rows) {
        if (w->status != TERSE_OK || atomic_load(&b->failed))
            break;
        if (w->options && w->options->progress) {
            char text[96];
            snprintf(text, sizeof text, "letting the network write: %" PRId64 " of %" PRId64 " texts", first, b->texts);
            w->options->progress(w->options->context, text);
        }
        w->status = write_block(b, &r, drafts, first, &w->error);
    }
    if (w->status != TERSE_OK)
        atomic_store(&b->failed, 1);
    terse_drafts_free(drafts);
    reader_done(&r);
    return NULL;
}

static int write_all(book *b, const terse_texts_options *options, terse_error *error)
{
    writer list[TERSE_TEXTS_WRITERS];
    pthread_t threads[TERSE_TEXTS_WRITERS];
    bool started[TERSE_TEXTS_WRITERS] = {0};
    atomic_init(&b->failed, 0);
    atomic_init(&b->read, 0);
    for (int i = 0; i < TERSE_TEXTS_WRITERS; i++)
        list[i] = (writer){.b = b, .number = i, .options = i == 0 ? options : NULL};
    for (int i = 1; i < TERSE_TEXTS_WRITERS; i++)
        started[i] = pthread_create(&threads[i], NULL, write_texts, &list[i]) == 0;
    for (int i = 0; i < TERSE_TEXTS_WRITERS; i++)
        if (!started[i])
            write_texts(&list[i]);
    for (int i = 1; i < TERSE_TEXTS_WRITERS; i++)
        if (started[i])
            pthread_join(threads[i], NULL);
    for (int i = 0; i < TERSE_TEXTS_WRITERS; i++)
        if (list[i].status != TERSE_OK) {
            if (error)
                *error = list[i].error;
            return list[i].status;
        }
    return TERSE_OK;
}

/* Samples, then texts. */
static terse_npz *together(const book *b, const char *name)
{
    terse_npz *npz = calloc(1, sizeof *npz);
    if (!npz)
        return NULL;
    npz->names = calloc(2, sizeof(char *));
    npz->tensors = calloc(2, sizeof *npz->tensors);
    if (npz->names && npz->tensors) {
        terse_tensor *to = &npz->tensors[0];
        const size_t old = (size_t)terse_tensor_bytes(b->samples);
        *to = terse_tensor_view(NULL, b->samples->dtype, 2, (int64_t[]){b->n + b->texts, b->length});
        to->data = aligned_alloc(64, terse_align((size_t)terse_tensor_bytes(to) + 1, 64));
        npz->names[0] = strdup(name);
        npz->n = 1;
        if (to->data && npz->names[0]) {
            memcpy(to->data, b->samples->data, old);
            char *behind = (char *)to->data + old;
            for (int64_t i = 0; i < b->texts * b->length; i++)
                if (to->dtype == TERSE_INT64)
                    memcpy(behind + i * 8, &b->text[i], 8);
                else
                    memcpy(behind + i * 4, &(int32_t){(int32_t)b->text[i]}, 4);
            return npz;
        }
    }
    terse_npz_free(npz);
    return NULL;
}

static int write_book(book *b, const terse_texts_options *options, terse_npz **ret_npz, int64_t *ret_texts,
                      terse_error *error)
{
    bool model = false;
    double work = 0;
    const int status = probe(b, &model, &work, NULL);
    if (status == TERSE_RESOURCE_EXHAUSTED)
        return terse_fail(error, status, "out of memory for texts");
    if (status != TERSE_OK || !model)
        return TERSE_OK; /* no language model, then, as far as this goes */
    const double each =
        work * (double)b->length * (b->grows ? 0.5 : 1) / (terse_drafts_pay(b->tokens, b->memory) ? drawn_a_run : 1) +
        work_to_draw * (double)(b->length * b->tokens) + 1;
    const double room = options->work / each;
    const double wanted = (double)options->tokens / (double)b->length - (double)b->n;
    const double most = fmin(fmin(room, wanted), 1e6);
    if (!(most >= LEAST_TEXTS))
        return TERSE_OK;
    b->texts = (int64_t)most;
    b->rows = rows_of(b->length, b->tokens);
    b->text = calloc((size_t)(b->texts * b->length) + 1, sizeof *b->text);
    if (!b->text)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRId64 " texts", b->texts);
    const int written = write_all(b, options, error);
    terse_npz *npz = written == TERSE_OK ? together(b, b->graph->values[b->graph->inputs[0]].name) : NULL;
    if (written == TERSE_OK && !npz)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRId64 " texts", b->texts);
    *ret_npz = npz;
    *ret_texts = npz ? b->texts : 0;
    if (options->ret_runs)
        *options->ret_runs = atomic_load(&b->read);
    return written;
}

int terse_texts_write(const terse_graph *graph, const terse_npz *data, const terse_texts_options *options,
                      terse_npz **ret_npz, int64_t *ret_texts, terse_error *error)
{
    terse_samples samples = {0};
    *ret_npz = NULL;
    *ret_texts = 0;
    int status = terse_samples_open(graph, data, &samples, error);
    if (status == TERSE_OK && has_the_form(graph, &samples)) {
        book b = {.graph = graph,
                  .samples = samples.tensors[0],
                  .n = samples.samples,
                  .length = samples.tensors[0]->dims[1],
                  .grows = graph->values[graph->inputs[0]].dims[1] < 0,
                  .seed = options->seed,
                  .memory = options->memory};
        status = write_book(&b, options, ret_npz, ret_texts, error);
        free(b.text);
    }
    terse_samples_done(&samples);
    return status;
}
