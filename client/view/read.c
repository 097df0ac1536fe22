/* SPDX-License-Identifier: Apache-2.0 */
#include "client/view/view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/pack.h"

/* A walk over the reply's map: each value is read where it is met, and passed over when its key is not known. */
typedef struct walk {
    terse_pack_reader reader;
    terse_error *error;
    terse_view *view;
} walk;

static int broken(const walk *w, const char *what)
{
    return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "the daemon's statistics end within '%s', or are no msgpack",
                      what);
}

static int next(walk *w, const char *what, terse_pack_item *ret_item)
{
    return terse_pack_next(&w->reader, ret_item) ? TERSE_OK : broken(w, what);
}

static int next_of(walk *w, const char *what, terse_pack_type type, terse_pack_item *ret_item)
{
    const int status = next(w, what, ret_item);
    if (status || ret_item->type == type)
        return status;
    return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "'%s' among the daemon's statistics is %s, %s is expected",
                      what, terse_pack_type_name(ret_item->type), terse_pack_type_name(type));
}

static int pass_over(walk *w, const char *what)
{
    return terse_pack_skip(&w->reader) ? TERSE_OK : broken(w, what);
}

static int read_uint(walk *w, const char *what, uint64_t *ret_value)
{
    terse_pack_item item;
    const int status = next_of(w, what, TERSE_PACK_UINT, &item);
    if (!status)
        *ret_value = item.u;
    return status;
}

static int copy_text(walk *w, const char *what, const terse_pack_item *item, char *to, size_t size)
{
    if (item->length >= size || memchr(item->data, 0, item->length))
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT,
                          "'%s' among the daemon's statistics has a text of %" PRIu32
                          " bytes, allowed are %zu without a 0",
                          what, item->length, size - 1);
    for (size_t i = 0; i < item->length;) {
        const size_t n = terse_json_utf8(item->data + i, item->length - i);
        memcpy(to + i, n ? item->data + i : "?", n ? n : 1);
        i += n ? n : 1;
    }
    to[item->length] = 0;
    return TERSE_OK;
}

static int read_text(walk *w, const char *what, char *to, size_t size)
{
    terse_pack_item item;
    const int status = next_of(w, what, TERSE_PACK_STR, &item);
    return status ? status : copy_text(w, what, &item, to, size);
}

static int read_list(walk *w, const char *what, terse_pack_type type, uint32_t most, uint32_t *ret_n)
{
    terse_pack_item item;
    const int status = next_of(w, what, type, &item);
    if (status)
        return status;
    if (item.length > most)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT,
                          "'%s' among the daemon's statistics has %" PRIu32 " entries, allowed are %" PRIu32, what,
                          item.length, most);
    *ret_n = item.length;
    return TERSE_OK;
}

/* A member of a struct by its key. `read` takes the value. */
typedef struct member {
    const char *key;
    size_t at;   /* in the struct */
    size_t size; /* of a text */
    int (*read)(walk *w, const char *what, void *to, size_t size);
} member;

static int member_uint(walk *w, const char *what, void *to, size_t size)
{
    (void)size;
    return read_uint(w, what, to);
}

static int member_text(walk *w, const char *what, void *to, size_t size)
{
    return read_text(w, what, to, size);
}

/* Reads a map into a struct. A key that is there twice counts as its last. */
static int read_members(walk *w, const char *what, const member *members, size_t n, void *to)
{
    terse_pack_item map, key;
    int status = next_of(w, what, TERSE_PACK_MAP, &map);
    for (uint32_t i = 0; !status && i < map.length; i++) {
        const member *found = NULL;
        status = next_of(w, what, TERSE_PACK_STR, &key);
        for (size_t k = 0; !status && k < n && !found; k++)
            if (terse_pack_is(&key, members[k].key, strlen(members[k].key)))
                found = &members[k];
        if (!status)
            status = found ? found->read(w, found->key, (char *)to + found->at, found->size) : pass_over(w, what);
    }
    return status;
}

static int member_counts(walk *w, const char *what, void *to, size_t size)
{
    terse_view_counts *counts = to;
    uint32_t n = 0;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_MAP, TERSE_VIEW_COUNTS, &n);
    counts->n = 0;
    for (uint32_t i = 0; !status && i < n; i++) {
        status = read_text(w, what, counts->at[i].name, sizeof counts->at[i].name);
        for (uint32_t k = 0; !status && k < i; k++)
            if (strcmp(counts->at[k].name, counts->at[i].name) == 0)
                return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "'%s' among the daemon's statistics has '%s' twice",
                                  what, counts->at[i].name);
        if (!status)
            status = read_uint(w, what, &counts->at[i].count);
        counts->n = status ? 0 : i + 1;
    }
    return status;
}

/* --- histograms ------------------------------------------------------------------------------------------------ */

typedef struct histogram {
    uint64_t count, sum;
    bool fine;
    terse_buckets *buckets;
} histogram;

/* [bound, count, bound, count ...], ascending. */
static int member_fine(walk *w, const char *what, void *to, size_t size)
{
    histogram *h = to;
    uint32_t n = 0;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_ARRAY, 2 * TERSE_BUCKETS, &n);
    memset(h->buckets->at, 0, sizeof h->buckets->at);
    h->fine = true;
    if (!status && n % 2)
        return terse_fail(w->error, TERSE_INVALID_ARGUMENT,
                          "a histogram among the daemon's statistics has %" PRIu32 " numbers, pairs are expected", n);
    uint64_t last = 0;
    for (uint32_t i = 0; !status && i < n; i += 2) {
        uint64_t bound = 0, count = 0;
        if ((status = read_uint(w, what, &bound)) || (status = read_uint(w, what, &count)))
            break;
        const unsigned index = terse_buckets_index(bound);
        if (terse_buckets_bound(index) != bound || (i > 0 && bound <= last))
            return terse_fail(w->error, TERSE_INVALID_ARGUMENT,
                              "a histogram among the daemon's statistics has a bucket up to %" PRIu64
                              ", which is none or not in its place",
                              bound);
        h->buckets->at[index] = count;
        last = bound;
    }
    return status;
}

/* What daemons tell that know nothing finer: entry 0 counts zeros, entry i the numbers from 2^(i-1) to 2^i - 1. */
static int member_log2(walk *w, const char *what, void *to, size_t size)
{
    histogram *h = to;
    uint32_t n = 0;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_ARRAY, 65, &n);
    for (uint32_t i = 0; !status && i < n; i++) {
        uint64_t count = 0;
        status = read_uint(w, what, &count);
        if (!status && !h->fine)
            h->buckets->at[terse_buckets_index(i ? (UINT64_C(1) << (i - 1)) * 3 / 2 : 0)] += count;
    }
    return status;
}

static int member_histogram(walk *w, const char *what, void *to, size_t size)
{
    static const member members[] = {
        {"count", offsetof(histogram, count), 0, member_uint},
        {"sum", offsetof(histogram, sum), 0, member_uint},
        {"fine", 0, 0, member_fine},
        {"log2", 0, 0, member_log2},
    };
    histogram h = {.buckets = to};
    (void)size;
    memset(to, 0, sizeof(terse_buckets));
    const int status = read_members(w, what, members, sizeof members / sizeof members[0], &h);
    h.buckets->count = h.count;
    h.buckets->sum = h.sum;
    return status;
}

/* --- models, changes, workers ----------------------------------------------------------------------------------- */

typedef struct cost {
    uint64_t rows, us, batches;
} cost;

static int member_costs(walk *w, const char *what, void *to, size_t size)
{
    static const member members[] = {
        {"rows", offsetof(cost, rows), 0, member_uint},
        {"us", offsetof(cost, us), 0, member_uint},
        {"batches", offsetof(cost, batches), 0, member_uint},
    };
    terse_view_model *model = to;
    uint32_t n = 0;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_ARRAY, TERSE_VIEW_COSTS, &n);
    for (uint32_t i = 0; !status && i < n; i++) {
        cost c = {0};
        status = read_members(w, what, members, sizeof members / sizeof members[0], &c);
        model->costs[i].rows = c.rows;
        model->costs[i].us = c.us;
        model->costs[i].batches = c.batches;
        model->n_costs = i + 1;
    }
    return status;
}

#define UINT(type, key)                                                                                                \
    {                                                                                                                  \
#key, offsetof(type, key), 0, member_uint                                                                      \
    }
#define TEXT(type, key)                                                                                                \
    {                                                                                                                  \
#key, offsetof(type, key), sizeof((type *)0)->key, member_text                                                 \
    }
#define COUNTS(key)                                                                                                    \
    {                                                                                                                  \
#key, offsetof(terse_view_model, key), 0, member_counts                                                        \
    }
#define HISTOGRAM(key)                                                                                                 \
    {                                                                                                                  \
#key, offsetof(terse_view_model, key), 0, member_histogram                                                     \
    }

static int member_recent(walk *w, const char *what, void *to, size_t size)
{
    static const member members[] = {
        UINT(terse_view_recent, us),       UINT(terse_view_recent, requests), UINT(terse_view_recent, ok),
        UINT(terse_view_recent, rejected), UINT(terse_view_recent, rows),     UINT(terse_view_recent, batches),
        UINT(terse_view_recent, p50_us),   UINT(terse_view_recent, p99_us),
    };
    (void)size;
    return read_members(w, what, members, sizeof members / sizeof members[0], to);
}

static const member model_members[] = {
    TEXT(terse_view_model, version),
    TEXT(terse_view_model, state),
    UINT(terse_view_model, requests),
    UINT(terse_view_model, ok),
    UINT(terse_view_model, rows),
    UINT(terse_view_model, batches),
    UINT(terse_view_model, crashed_batches),
    UINT(terse_view_model, retries),
    UINT(terse_view_model, turned_away),
    UINT(terse_view_model, queued),
    UINT(terse_view_model, queued_bytes),
    UINT(terse_view_model, running),
    COUNTS(errors),
    COUNTS(closed),
    COUNTS(rejected),
    HISTOGRAM(queue_us),
    HISTOGRAM(compute_us),
    HISTOGRAM(total_us),
    HISTOGRAM(batch_rows),
    {"costs", 0, 0, member_costs},
    {"recent", offsetof(terse_view_model, recent), 0, member_recent},
};

static const member change_members[] = {
    TEXT(terse_view_change, model),
    TEXT(terse_view_change, version),
    TEXT(terse_view_change, state),
};

static const member worker_members[] = {
    {"worker", offsetof(terse_view_worker, number), 0, member_uint},
    UINT(terse_view_worker, pid),
    UINT(terse_view_worker, restarts),
    UINT(terse_view_worker, private_bytes),
    UINT(terse_view_worker, shared_bytes),
    UINT(terse_view_worker, batches),
    UINT(terse_view_worker, busy_us),
    UINT(terse_view_worker, failed_starts),
    UINT(terse_view_worker, next_start_ms),
    UINT(terse_view_worker, rows),
    UINT(terse_view_worker, since_us),
    TEXT(terse_view_worker, state),
    TEXT(terse_view_worker, model),
};

/* An array for `n` entries, zeroed; one more, so that none is an array too. */
static int allocate(const walk *w, uint32_t n, size_t size, void **ret_array)
{
    void *array = calloc((size_t)n + 1, size);
    if (!array)
        return terse_fail(w->error, TERSE_RESOURCE_EXHAUSTED, "no memory for the daemon's statistics");
    free(*ret_array); /* the key was there before */
    *ret_array = array;
    return TERSE_OK;
}

static int member_models(walk *w, const char *what, void *to, size_t size)
{
    terse_view *view = w->view;
    uint32_t n = 0;
    (void)to;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_MAP, TERSE_VIEW_MODELS, &n);
    view->n_models = 0;
    if (!status)
        status = allocate(w, n, sizeof *view->models, (void **)&view->models);
    for (uint32_t i = 0; !status && i < n; i++) {
        terse_view_model *model = &view->models[i];
        status = read_text(w, what, model->name, sizeof model->name);
        if (!status && terse_view_find(view, model->name))
            return terse_fail(w->error, TERSE_INVALID_ARGUMENT, "the daemon's statistics have model '%s' twice",
                              model->name);
        if (!status)
            status = read_members(w, what, model_members, sizeof model_members / sizeof model_members[0], model);
        view->n_models = status ? 0 : i + 1;
    }
    return status;
}

static int member_changes(walk *w, const char *what, void *to, size_t size)
{
    terse_view *view = w->view;
    uint32_t n = 0;
    (void)to;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_ARRAY, TERSE_VIEW_CHANGES, &n);
    view->n_changes = 0;
    if (!status)
        status = allocate(w, n, sizeof *view->changes, (void **)&view->changes);
    for (uint32_t i = 0; !status && i < n; i++) {
        status =
            read_members(w, what, change_members, sizeof change_members / sizeof change_members[0], &view->changes[i]);
        view->n_changes = status ? 0 : i + 1;
    }
    return status;
}

static int member_workers(walk *w, const char *what, void *to, size_t size)
{
    terse_view *view = w->view;
    uint32_t n = 0;
    (void)to;
    (void)size;
    int status = read_list(w, what, TERSE_PACK_ARRAY, TERSE_VIEW_WORKERS, &n);
    view->n_workers = 0;
    if (!status)
        status = allocate(w, n, sizeof *view->workers, (void **)&view->workers);
    for (uint32_t i = 0; !status && i < n; i++) {
        view->workers[i].number = i;
        status =
            read_members(w, what, worker_members, sizeof worker_members / sizeof worker_members[0], &view->workers[i]);
        view->n_workers = status ? 0 : i + 1;
    }
    return status;
}

static const member view_members[] = {
    UINT(terse_view, uptime_us),
#define TOTAL(key, ...) UINT(terse_view, key),
    TERSE_VIEW_TOTALS(TOTAL)
#undef TOTAL
        {"models", 0, 0, member_models},
    {"changes", 0, 0, member_changes},
    {"workers", 0, 0, member_workers},
};

int terse_view_read(const void *stats, size_t bytes, terse_view **ret_view, terse_error *error)
{
    terse_view *view = calloc(1, sizeof *view);
    if (!view)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "no memory for the daemon's statistics");
    walk w = {terse_pack_reader_over(stats, bytes), error, view};
    int status = read_members(&w, "stats", view_members, sizeof view_members / sizeof view_members[0], view);
    if (!status && w.reader.at != w.reader.end)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "%zu bytes stand behind the daemon's statistics",
                            (size_t)(w.reader.end - w.reader.at));
    /* Room for nothing where a key is missing, so that readers need not ask. */
    if (!status && !view->models)
        status = allocate(&w, 0, sizeof *view->models, (void **)&view->models);
    if (!status && !view->changes)
        status = allocate(&w, 0, sizeof *view->changes, (void **)&view->changes);
    if (!status && !view->workers)
        status = allocate(&w, 0, sizeof *view->workers, (void **)&view->workers);
    if (status)
        terse_view_free(view);
    else
        *ret_view = view;
    return status;
}

void terse_view_free(terse_view *view)
{
    if (!view)
        return;
    free(view->models);
    free(view->changes);
    free(view->workers);
    free(view);
}
