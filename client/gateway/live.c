/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/live.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES = 11 }; /* batches of 1, 2, up to 4, up to 8 ... up to 1024 rows */

typedef struct point {
    bool known;
    float rate, refused, p50_us, p99_us, rows; /* the last three 0 when nothing was answered */
    float batches[SIZES];
} point;

/* A model's points, the oldest at `first` of the ring that all models share. */
typedef struct series {
    struct series *next;
    char name[TERSE_VIEW_NAME];
    unsigned absent; /* looks since it was served */
    point points[];
} series;

struct terse_live {
    unsigned step_s, capacity, n, at; /* points kept, there, and where the next goes */
    series *models;
    unsigned n_models;
    terse_view *view;                /* the latest */
    double busy[TERSE_VIEW_WORKERS]; /* share of the last step; below 0: not known */
};

terse_live *terse_live_new(unsigned step_s)
{
    terse_live *live = calloc(1, sizeof *live);
    if (live) {
        live->step_s = step_s;
        live->capacity = TERSE_LIVE_SECONDS / step_s;
    }
    return live;
}

void terse_live_free(terse_live *live)
{
    if (!live)
        return;
    for (series *next; live->models; live->models = next) {
        next = live->models->next;
        free(live->models);
    }
    terse_view_free(live->view);
    free(live);
}

const terse_view *terse_live_view(const terse_live *live)
{
    return live->view;
}

static series *series_of(terse_live *live, const char *name)
{
    series *found = live->models;
    while (found && strcmp(found->name, name) != 0)
        found = found->next;
    if (found || live->n_models == TERSE_VIEW_MODELS)
        return found;
    found = calloc(1, sizeof *found + live->capacity * sizeof(point));
    if (!found) /* this model has no picture */
        return NULL;
    snprintf(found->name, sizeof found->name, "%s", name);
    found->next = live->models;
    live->models = found;
    live->n_models++;
    return found;
}

/* Models that were not served for the whole time. */
static void forget(terse_live *live)
{
    for (series **at = &live->models; *at;) {
        series *model = *at;
        if (++model->absent <= live->capacity) {
            at = &model->next;
            continue;
        }
        *at = model->next;
        free(model);
        live->n_models--;
    }
}

static void count_batches(const terse_buckets *rows, float *batches)
{
    for (unsigned i = 0; i < TERSE_BUCKETS; i++) {
        unsigned size = 0;
        while (size + 1 < SIZES && (uint64_t)1 << size < terse_buckets_bound(i))
            size++;
        batches[size] += (float)rows->at[i];
    }
}

static void put_point(terse_live *live, const terse_view *view, const terse_view_model *model)
{
    terse_view_interval interval;
    series *s = series_of(live, model->name);
    if (!s)
        return;
    terse_view_between(view, live->view, model, &interval);
    point *p = &s->points[live->at];
    s->absent = 0;
    *p = (point){.known = true,
                 .rate = (float)interval.replies,
                 .refused = (float)interval.refused,
                 .p50_us = (float)interval.p50_us,
                 .p99_us = (float)interval.p99_us,
                 .rows = (float)interval.mean_rows};
    count_batches(&interval.batch_rows, p->batches);
}

static const terse_view_worker *worker_of(const terse_view *view, const terse_view_worker *like)
{
    for (unsigned i = 0; view && i < view->n_workers; i++)
        if (view->workers[i].pid == like->pid && view->workers[i].number == like->number)
            return &view->workers[i];
    return NULL;
}

static void look_at_workers(terse_live *live, const terse_view *view)
{
    for (unsigned i = 0; i < view->n_workers; i++) {
        const terse_view_worker *now = &view->workers[i], *before = worker_of(live->view, now);
        const double us = before ? (double)view->uptime_us - (double)live->view->uptime_us : 0;
        live->busy[i] = us > 0 && now->busy_us >= before->busy_us ? (double)(now->busy_us - before->busy_us) / us : -1;
        if (live->busy[i] > 1)
            live->busy[i] = 1;
    }
}

void terse_live_take(terse_live *live, terse_view *view)
{
    forget(live);
    for (series *s = live->models; s; s = s->next)
        s->points[live->at].known = false;
    /* A first look has nothing before it: what a daemon did in all its life is no picture of now. */
    for (unsigned i = 0; view && live->view && i < view->n_models; i++)
        put_point(live, view, &view->models[i]);
    if (view && live->view) {
        look_at_workers(live, view);
    } else {
        for (unsigned i = 0; i < TERSE_VIEW_WORKERS; i++)
            live->busy[i] = -1;
    }
    if (!view || live->view) {
        live->at = (live->at + 1) % live->capacity;
        live->n += live->n < live->capacity;
    }
    terse_view_free(live->view);
    live->view = view;
}

typedef enum column { RATE, REFUSED, P50, P99, ROWS } column;

/* null where nothing is known. */
static void put_column(const terse_live *live, const series *s, column which, const char *key, terse_json *json)
{
    terse_json_array(json, key);
    for (unsigned i = 0; s && i < live->n; i++) {
        const point *p = &s->points[(live->at + live->capacity - live->n + i) % live->capacity];
        const float value = which == RATE      ? p->rate
                            : which == REFUSED ? p->refused
                            : which == P50     ? p->p50_us
                            : which == P99     ? p->p99_us
                                               : p->rows;
        if (!p->known || (which >= P50 && value <= 0))
            terse_json_null(json, NULL);
        else
            terse_json_double(json, NULL, (double)(float)(int64_t)(value * 100) / 100);
    }
    terse_json_end(json);
}

static void put_batches(const terse_live *live, const series *s, terse_json *json)
{
    double sums[SIZES] = {0};
    unsigned n = 0;
    for (unsigned i = 0; s && i < live->n; i++) {
        const point *p = &s->points[(live->at + live->capacity - live->n + i) % live->capacity];
        for (unsigned k = 0; p->known && k < SIZES; k++)
            sums[k] += (double)p->batches[k];
    }
    for (unsigned k = 0; k < SIZES; k++)
        n = sums[k] > 0 ? k + 1 : n;
    terse_json_array(json, "batches");
    for (unsigned k = 0; k < n; k++) {
        char label[32];
        const unsigned most = 1u << k, least = k > 1 ? (1u << (k - 1)) + 1 : most;
        snprintf(label, sizeof label, least < most ? "%u to %u" : "%u", least, most);
        terse_json_object(json, NULL);
        terse_json_text(json, "label", label);
        terse_json_double(json, "batches", sums[k]);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void put_model(const terse_live *live, const terse_view_model *model, terse_json *json)
{
    const series *s = live->models;
    while (s && strcmp(s->name, model->name) != 0)
        s = s->next;
    terse_json_object(json, NULL);
    terse_json_text(json, "name", model->name);
    terse_json_text(json, "version", model->version);
    terse_json_text(json, "state", model->state);
    terse_json_uint(json, "ok", model->ok);
    terse_json_uint(json, "errors", terse_view_sum(&model->errors));
    terse_json_uint(json, "queued", model->queued);
    put_column(live, s, RATE, "rate", json);
    put_column(live, s, REFUSED, "refused", json);
    put_column(live, s, P50, "p50", json);
    put_column(live, s, P99, "p99", json);
    put_column(live, s, ROWS, "rows", json);
    put_batches(live, s, json);
    terse_json_end(json);
}

static void put_worker(const terse_live *live, unsigned i, terse_json *json)
{
    const terse_view_worker *worker = &live->view->workers[i];
    terse_json_object(json, NULL);
    terse_json_uint(json, "number", worker->number);
    terse_json_uint(json, "pid", worker->pid);
    terse_json_text(json, "state", worker->state);
    terse_json_text(json, "model", worker->model);
    terse_json_uint(json, "rows", worker->rows);
    if (live->busy[i] < 0)
        terse_json_null(json, "busy");
    else
        terse_json_double(json, "busy", live->busy[i]);
    terse_json_uint(json, "batches", worker->batches);
    terse_json_uint(json, "restarts", worker->restarts);
    terse_json_uint(json, "private_bytes", worker->private_bytes);
    terse_json_uint(json, "shared_bytes", worker->shared_bytes);
    terse_json_end(json);
}

void terse_live_write(const terse_live *live, terse_json *json)
{
    const terse_view *view = live->view;
    terse_json_object(json, NULL);
    terse_json_uint(json, "step_s", live->step_s);
    terse_json_uint(json, "clients", view ? view->clients : 0);
    terse_json_uint(json, "queued", view ? view->queued : 0);
    terse_json_double(json, "uptime_s", view ? (double)view->uptime_us / 1e6 : 0);
    terse_json_array(json, "models");
    for (unsigned i = 0; view && i < view->n_models; i++)
        put_model(live, &view->models[i], json);
    terse_json_end(json);
    terse_json_array(json, "workers");
    for (unsigned i = 0; view && i < view->n_workers; i++)
        put_worker(live, i, json);
    terse_json_end(json);
    terse_json_end(json);
}
