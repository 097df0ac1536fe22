/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon tells of itself: histograms, the reader of its reply, what was between two looks, OpenMetrics text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "client/view/view.h"
#include "common/pack.h"

static uint64_t state;

static uint64_t draw(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(0x2545f4914f6cdd1d);
}

/* --- histograms ----------------------------------------------------------------------------------------------------
 */

static void count(terse_buckets *buckets, uint64_t value)
{
    buckets->count++;
    buckets->sum += value;
    buckets->at[terse_buckets_index(value)]++;
}

static void buckets_hold_what_their_bounds_say(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < TERSE_BUCKETS; i++) {
        const uint64_t bound = terse_buckets_bound(i);
        assert_int_equal(terse_buckets_index(bound), i);
        if (i + 1 < TERSE_BUCKETS)
            assert_int_equal(terse_buckets_index(bound + 1), i + 1);
        if (i > TERSE_BUCKETS_EXACT) /* an eighth of what it holds at most */
            assert_true((bound - terse_buckets_bound(i - 1)) * 8 <= bound);
    }
    for (unsigned power = 0; power <= 40; power++)
        assert_int_equal(terse_buckets_bound(terse_buckets_index(UINT64_C(1) << power)), UINT64_C(1) << power);
    assert_int_equal(terse_buckets_index(UINT64_MAX), TERSE_BUCKETS - 1);
    assert_int_equal(terse_buckets_bound(TERSE_BUCKETS - 1), UINT64_C(1) << 40);
}

static int ascending(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void percentiles_are_within_an_eighth(void **unused)
{
    enum { N = 5000 };
    static uint64_t values[N];
    (void)unused;
    for (int round = 0; round < 20; round++) {
        terse_buckets buckets = {0};
        for (int i = 0; i < N; i++) {
            values[i] = draw() >> (24 + draw() % 36);
            count(&buckets, values[i]);
        }
        qsort(values, N, sizeof values[0], ascending);
        for (int percent = 1; percent <= 100; percent++) {
            const double want = (double)values[(N * percent + 99) / 100 - 1];
            const double got = terse_buckets_percentile(&buckets, percent / 100.0);
            assert_true(got >= want * 7 / 8 - 1 && got <= want * 9 / 8 + 1);
        }
        const uint64_t bound = terse_buckets_bound((unsigned)(draw() % TERSE_BUCKETS));
        uint64_t n = 0;
        while (n < N && values[n] <= bound)
            n++;
        assert_int_equal(terse_buckets_up_to(&buckets, bound), n);
    }
    const terse_buckets empty = {0};
    assert_true(terse_buckets_percentile(&empty, 0.5) == 0 && terse_buckets_mean(&empty) == 0);
}

static void what_is_between_two_looks_is_their_difference(void **unused)
{
    terse_buckets earlier = {0}, later, want = {0}, got;
    (void)unused;
    for (int i = 0; i < 1000; i++)
        count(&earlier, draw() >> 40);
    later = earlier;
    for (int i = 0; i < 1000; i++) {
        const uint64_t value = draw() >> 44;
        count(&later, value);
        count(&want, value);
    }
    terse_buckets_between(&later, &earlier, &got);
    assert_memory_equal(&got, &want, sizeof got);
    terse_buckets_between(&earlier, &later, &got); /* a new process counts anew: all of it is new */
    assert_memory_equal(&got, &earlier, sizeof got);
    terse_buckets_merge(&want, &earlier);
    assert_memory_equal(&want, &later, sizeof want);
}

/* --- the reply -------------------------------------------------------------------------------------------------------
 */

typedef struct reply {
    uint8_t bytes[65536];
    terse_pack_buffer buffer;
    msgpack_packer packer;
} reply;

static void begin(reply *r, unsigned n)
{
    r->buffer = (terse_pack_buffer){.data = r->bytes, .capacity = sizeof r->bytes};
    msgpack_packer_init(&r->packer, &r->buffer, terse_pack_buffer_write);
    msgpack_pack_map(&r->packer, n);
}

static void put(reply *r, const char *key, uint64_t value)
{
    terse_pack_cstr(&r->packer, key);
    msgpack_pack_uint64(&r->packer, value);
}

static void put_text(reply *r, const char *key, const char *value)
{
    terse_pack_cstr(&r->packer, key);
    terse_pack_cstr(&r->packer, value);
}

static void put_map(reply *r, const char *key, unsigned n)
{
    terse_pack_cstr(&r->packer, key);
    msgpack_pack_map(&r->packer, n);
}

static void put_array(reply *r, const char *key, unsigned n)
{
    terse_pack_cstr(&r->packer, key);
    msgpack_pack_array(&r->packer, n);
}

static void put_histogram(reply *r, const char *key, const uint64_t *pairs, unsigned n, uint64_t sum)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < n; i++)
        all += pairs[2 * i + 1];
    put_map(r, key, 4);
    put(r, "count", all);
    put(r, "sum", sum);
    put_array(r, "log2", 2); /* passed over: there is something finer */
    msgpack_pack_uint64(&r->packer, 7);
    msgpack_pack_uint64(&r->packer, 7);
    put_array(r, "fine", 2 * n);
    for (unsigned i = 0; i < 2 * n; i++)
        msgpack_pack_uint64(&r->packer, pairs[i]);
}

static void put_model(reply *r, const char *name, uint64_t scale)
{
    const uint64_t times[] = {104, 10 * scale, 1024, scale}, rows[] = {1, scale, 32, 3 * scale};
    put_map(r, name, 12);
    put_text(r, "version", "7");
    put_text(r, "state", "ready");
    put(r, "requests", 12 * scale);
    put(r, "ok", 11 * scale);
    put_map(r, "errors", 1);
    put(r, "DEADLINE_EXCEEDED", scale);
    put_map(r, "rejected", 1);
    put(r, "late", scale);
    put(r, "rows", 97 * scale);
    put(r, "batches", 4 * scale);
    put(r, "queued", 5);
    put_histogram(r, "total_us", times, 2, 2000 * scale);
    put_histogram(r, "batch_rows", rows, 2, 97 * scale);
    put_array(r, "costs", 1);
    msgpack_pack_map(&r->packer, 3);
    put(r, "rows", 1);
    put(r, "us", 40);
    put(r, "batches", 9);
}

/* Everything that a daemon tells, with a name that wants care. */
static void fill(reply *r, const char *name, uint64_t scale)
{
    begin(r, 8);
    put(r, "v", 1);
    put_text(r, "status", "OK");
    put(r, "uptime_us", scale * 1000000);
    put(r, "served", 11 * scale);
    put(r, "something newer", 1);
    put_map(r, "models", 1);
    put_model(r, name, scale);
    put_array(r, "changes", 1);
    msgpack_pack_map(&r->packer, 3);
    put_text(r, "model", "next");
    put_text(r, "version", "2");
    put_text(r, "state", "loading");
    put_array(r, "workers", 2);
    msgpack_pack_map(&r->packer, 6);
    put(r, "worker", 0);
    put(r, "pid", 4711);
    put_text(r, "state", "busy");
    put_text(r, "model", name);
    put(r, "rows", 3);
    put(r, "since_us", 50);
    msgpack_pack_map(&r->packer, 4);
    put(r, "worker", 1);
    put_text(r, "state", "crash loop");
    put(r, "private_bytes", 1 << 20);
    put(r, "busy_us", 2500000);
    assert_false(r->buffer.full);
}

static terse_view *read_view(const reply *r)
{
    terse_error error = {0};
    terse_view *view = NULL;
    if (terse_view_read(r->bytes, r->buffer.size, &view, &error))
        fail_msg("%s", error.message);
    return view;
}

static void a_reply_is_read(void **unused)
{
    static reply r;
    (void)unused;
    fill(&r, "digits", 1);
    terse_view *view = read_view(&r);
    assert_int_equal(view->uptime_us, 1000000);
    assert_int_equal(view->served, 11);
    assert_int_equal(view->n_models, 1);
    const terse_view_model *model = terse_view_find(view, "digits");
    assert_non_null(model);
    assert_null(terse_view_find(view, "other"));
    assert_string_equal(model->version, "7");
    assert_int_equal(model->requests, 12);
    assert_int_equal(model->queued, 5);
    assert_int_equal(terse_view_count(&model->errors, "DEADLINE_EXCEEDED"), 1);
    assert_int_equal(terse_view_sum(&model->rejected), 1);
    assert_int_equal(model->total_us.count, 11);
    assert_int_equal(model->total_us.at[terse_buckets_index(104)], 10);
    assert_int_equal(model->total_us.at[0], 0); /* not from log2 */
    assert_int_equal(model->n_costs, 1);
    assert_int_equal(model->costs[0].us, 40);
    assert_int_equal(view->n_changes, 1);
    assert_string_equal(view->changes[0].state, "loading");
    assert_int_equal(view->n_workers, 2);
    assert_string_equal(view->workers[0].model, "digits");
    assert_int_equal(view->workers[1].busy_us, 2500000);
    terse_view_free(view);
}

static void rates_are_of_what_was_between(void **unused)
{
    static reply first, second;
    terse_view_interval in;
    (void)unused;
    fill(&first, "digits", 2);
    fill(&second, "digits", 6);
    terse_view *earlier = read_view(&first), *later = read_view(&second);
    terse_view_between(later, earlier, &later->models[0], &in);
    assert_true(in.seconds == 4 && in.requests == 12 && in.ok == 11 && in.replies == 12 && in.refused == 1);
    assert_true(in.mean_rows == 97 / 4.0 && in.total_us.count == 44);
    assert_true(in.p50_us > 96 && in.p50_us <= 104 && in.p99_us > 960 && in.p99_us <= 1024);
    /* The other way around it is a new daemon, of which everything counts. */
    terse_view_between(earlier, later, &earlier->models[0], &in);
    assert_true(in.seconds == 2 && in.requests == 12 && in.total_us.count == 22);
    terse_view_free(earlier);
    terse_view_free(later);
}

/* --- bytes that lie
 * --------------------------------------------------------------------------------------------------- */

static void expect_refusal(const reply *r, const char *why)
{
    terse_error error = {0};
    terse_view *view = NULL;
    assert_int_equal(terse_view_read(r->bytes, r->buffer.size, &view, &error), TERSE_INVALID_ARGUMENT);
    assert_null(view);
    if (!strstr(error.message, why))
        fail_msg("'%s' does not say '%s'", error.message, why);
}

static void what_lies_is_refused(void **unused)
{
    static reply r;
    terse_error error = {0};
    terse_view *view = NULL;
    (void)unused;
    fill(&r, "digits", 1);
    for (size_t size = 0; size < r.buffer.size; size++) /* no part of it is it */
        assert_int_equal(terse_view_read(r.bytes, size, &view, &error), TERSE_INVALID_ARGUMENT);
    r.buffer.size++;
    expect_refusal(&r, "1 bytes stand behind");
    begin(&r, 1);
    put_text(&r, "served", "many");
    expect_refusal(&r, "'served'");
    begin(&r, 1);
    put_array(&r, "models", 1);
    put(&r, "x", 1);
    expect_refusal(&r, "'models'");
    begin(&r, 1);
    put_map(&r, "models", 2);
    put_map(&r, "twice", 0);
    put_map(&r, "twice", 0);
    expect_refusal(&r, "'twice' twice");
    begin(&r, 1);
    put_map(&r, "models", TERSE_VIEW_MODELS + 1);
    for (int i = 0; i <= TERSE_VIEW_MODELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        put_map(&r, name, 0);
    }
    expect_refusal(&r, "257 entries, allowed are 256");
    static const uint64_t unordered[] = {8, 1, 4, 1}, none[] = {17, 1};
    for (int i = 0; i < 2; i++) {
        begin(&r, 1);
        put_map(&r, "models", 1);
        put_map(&r, "m", 1);
        put_histogram(&r, "total_us", i ? none : unordered, i ? 1 : 2, 0);
        expect_refusal(&r, i ? "up to 17" : "up to 4");
    }
    char longer[TERSE_VIEW_NAME + 1];
    memset(longer, 'x', TERSE_VIEW_NAME);
    longer[TERSE_VIEW_NAME] = 0;
    begin(&r, 1);
    put_map(&r, "models", 1);
    put_map(&r, longer, 0);
    expect_refusal(&r, "128 bytes");
}

static void daemons_without_fine_histograms_are_read(void **unused)
{
    static reply r;
    (void)unused;
    begin(&r, 1);
    put_map(&r, "models", 1);
    put_map(&r, "old", 1);
    put_map(&r, "queue_us", 3);
    put(&r, "count", 10);
    put(&r, "sum", 900);
    put_array(&r, "log2", 8);
    for (int i = 0; i < 8; i++)
        msgpack_pack_uint64(&r.packer, i == 7 ? 9 : i == 0);
    terse_view *view = read_view(&r);
    const double p90 = terse_buckets_percentile(&view->models[0].queue_us, 0.9);
    assert_true(p90 >= 64 && p90 <= 127);
    assert_int_equal(terse_buckets_up_to(&view->models[0].queue_us, 0), 1);
    terse_view_free(view);
}

/* --- OpenMetrics
 * ------------------------------------------------------------------------------------------------------ */

static void has_line(const char *text, const char *line)
{
    const size_t length = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && at[length] == '\n')
            return;
    fail_msg("the text has no line '%s':\n%s", line, text);
}

/* Counts up to a bound never fall, and end with all. */
static void check_cumulative(const char *text, const char *bucket)
{
    unsigned long last = 0, n = 0;
    for (const char *at = text; (at = strstr(at, bucket)); at++) {
        const char *value = strstr(at, "} ");
        assert_non_null(value);
        const unsigned long now = strtoul(value + 2, NULL, 10);
        assert_true(now >= last);
        last = now;
        n++;
    }
    assert_true(n > 5 && last == 11);
}

static void text_is_openmetrics(void **unused)
{
    static reply r;
    terse_error error = {0};
    char *text = NULL;
    size_t bytes = 0;
    (void)unused;
    fill(&r, "a\\b\"c\nd\xff", 1);
    terse_view *view = read_view(&r);
    assert_int_equal(terse_view_openmetrics(view, &text, &bytes, &error), TERSE_OK);
    assert_int_equal(strlen(text), bytes);
    has_line(text, "# TYPE terse_requests counter");
    has_line(text, "terse_requests_total{model=\"a\\\\b\\\"c\\nd?\",version=\"7\"} 12");
    has_line(text, "terse_replies_total{model=\"a\\\\b\\\"c\\nd?\",status=\"DEADLINE_EXCEEDED\"} 1");
    has_line(text, "# TYPE terse_request_seconds histogram");
    has_line(text, "# UNIT terse_request_seconds seconds");
    has_line(text, "terse_request_seconds_bucket{model=\"a\\\\b\\\"c\\nd?\",le=\"9.6e-05\"} 0");
    has_line(text, "terse_request_seconds_bucket{model=\"a\\\\b\\\"c\\nd?\",le=\"0.000128\"} 10");
    has_line(text, "terse_request_seconds_bucket{model=\"a\\\\b\\\"c\\nd?\",le=\"+Inf\"} 11");
    has_line(text, "terse_request_seconds_sum{model=\"a\\\\b\\\"c\\nd?\"} 0.002");
    has_line(text, "terse_request_seconds_count{model=\"a\\\\b\\\"c\\nd?\"} 11");
    has_line(text, "terse_batch_rows_bucket{model=\"a\\\\b\\\"c\\nd?\",le=\"1.0\"} 1");
    has_line(text, "terse_batch_rows_bucket{model=\"a\\\\b\\\"c\\nd?\",le=\"32.0\"} 4");
    has_line(text, "terse_workers{state=\"busy\"} 1");
    has_line(text, "terse_workers{state=\"idle\"} 0");
    has_line(text, "terse_worker_busy_seconds_total{worker=\"1\"} 2.5");
    has_line(text, "terse_served_total 11");
    has_line(text, "terse_uptime_seconds 1.0");
    check_cumulative(text, "terse_request_seconds_bucket");
    assert_string_equal(text + bytes - 6, "# EOF\n");
    assert_ptr_equal(strstr(text, "# EOF"), text + bytes - 6);
    free(text);
    terse_view_free(view);
}

int main(void)
{
    const char *seed = getenv("TERSE_SEED");
    state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    printf("# seed %llu\n", (unsigned long long)state);
    state = state * 2 + 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_hold_what_their_bounds_say),
        cmocka_unit_test(percentiles_are_within_an_eighth),
        cmocka_unit_test(what_is_between_two_looks_is_their_difference),
        cmocka_unit_test(a_reply_is_read),
        cmocka_unit_test(rates_are_of_what_was_between),
        cmocka_unit_test(what_lies_is_refused),
        cmocka_unit_test(daemons_without_fine_histograms_are_read),
        cmocka_unit_test(text_is_openmetrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
