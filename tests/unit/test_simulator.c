/* SPDX-License-Identifier: Apache-2.0 */
/* test_simulator.c: how the front end does in simulated time: beside other policies, and in overload. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/simulator.h"

static uint64_t seed_of(void)
{
    const char *set = getenv("TERSE_SEED");
    const uint64_t seed = set ? strtoull(set, NULL, 10) : 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    return seed * 2654435761u + 88172645463325252u;
}

static const truth dense = {.fixed_ns = 400 * US, .row_ns = 20 * US, .max_batch = 32};
static const truth convolution = {.fixed_ns = 50 * US, .row_ns = 1 * MS, .max_batch = 32};

enum { N_KINDS = 4 };
static const char *const kinds[N_KINDS] = {"poisson", "bursts of 40", "on and off", "a slow worker"};

/* Five seconds of one kind at a part `load` of what four workers can do. */
static void make_trace(int kind, const truth *model, double load, uint64_t seed, setup *how, trace *what)
{
    const arrival one = {.rows = 1};
    double rate = capacity(model, model->max_batch, 4) * load;
    *how = (setup){.models = {*model}, .n_models = 1, .n_workers = 4, .jitter = 0.1};
    if (kind == 3) {
        how->slowness[2] = 4;
        rate *= 3.25 / 4;
    }
    if (kind == 1)
        trace_bursts(what, &seed, one, rate, 40, 5 * SECOND);
    else if (kind == 2)
        trace_on_off(what, &seed, one, rate * 0.6, 40 * MS, 5 * SECOND);
    else
        trace_poisson(what, &seed, one, rate, 0, 5 * SECOND);
}

/* Latencies at the 99th percentile within a fifth of the better of the others, and all done as soon, whatever comes. */
static void ours_is_no_worse_than_waiting_or_pulling(void **state)
{
    (void)state;
    const uint64_t seed = seed_of();
    double sum = 0;
    int n = 0;
    for (int m = 0; m < 2; m++)
        for (int load = 3; load <= 9; load += 3)
            for (int kind = 0; kind < N_KINDS; kind++, n++) {
                setup how;
                trace what = {0};
                uint64_t p99[N_POLICIES], end[N_POLICIES];
                make_trace(kind, m ? &convolution : &dense, load / 10.0, seed, &how, &what);
                for (policy p = OURS; p < N_POLICIES; p++) {
                    result r;
                    how.policy = p;
                    how.models[0].timeout_ns = p == WAIT_FOR_TIMEOUT ? 5 * MS : 0;
                    simulate(&how, &what, seed, &r);
                    assert_true(r.all.ok * 100 >= what.n * 99); /* CoDel may cut the heaviest bursts */
                    assert_int_equal(r.all.rows, r.all.ok);
                    p99[p] = percentile(&r.all, 0.99);
                    end[p] = r.end_ns;
                    result_done(&r);
                }
                const uint64_t best = earlier(p99[WAIT_FOR_TIMEOUT], p99[PULL_PER_WORKER]);
                const uint64_t soonest = earlier(end[WAIT_FOR_TIMEOUT], end[PULL_PER_WORKER]);
                print_message("%-11s %d%% %-13s p99 %6llu us; wait for timeout %6llu, pull per worker %7llu\n",
                              m ? "convolution" : "dense", load * 10, kinds[kind], (unsigned long long)(p99[0] / US),
                              (unsigned long long)(p99[1] / US), (unsigned long long)(p99[2] / US));
                if ((double)p99[OURS] > 1.2 * (double)best || (double)end[OURS] > 1.01 * (double)soonest)
                    fail_msg("%s at %d%%, %s: p99 %llu us, others %llu; all done after %llu us, others %llu",
                             m ? "convolution" : "dense", load * 10, kinds[kind], (unsigned long long)(p99[OURS] / US),
                             (unsigned long long)(best / US), (unsigned long long)(end[OURS] / US),
                             (unsigned long long)(soonest / US));
                sum += log((double)p99[OURS] / (double)best);
                free(what.all);
            }
    print_message("p99 is %.2f times the better of the others, geometric mean\n", exp(sum / n));
    assert_true(sum <= 0);
}

static void requests_of_several_rows_stay_whole(void **state)
{
    (void)state;
    uint64_t seed = seed_of();
    setup how = {.models = {dense}, .n_models = 1, .n_workers = 3, .jitter = 0.1};
    trace what = {0};
    uint64_t rows = 0;
    for (uint32_t n = 1; n <= 32; n += n < 8 ? 1 : 8)
        trace_poisson(&what, &seed, (arrival){.rows = n}, 500, 0, SECOND);
    for (size_t i = 0; i < what.n; i++)
        rows += what.all[i].rows;
    result r;
    simulate(&how, &what, seed, &r); /* a batch beyond max_batch would not fit its members: checked as it completes */
    assert_int_equal(r.all.ok, what.n);
    assert_int_equal(r.all.rows, rows);
    result_done(&r);
    free(what.all);
}

/* One model in overload: goodput as a part of what the workers can do. */
static double overloaded(const truth *model, double times, uint64_t timeout_ns, setup *how, uint64_t seed,
                         result *ret_result)
{
    const double can = capacity(model, model->max_batch, how->n_workers);
    trace what = {0};
    uint64_t draw = seed;
    trace_poisson(&what, &draw, (arrival){.rows = 1, .timeout_ns = timeout_ns}, can * times, 0, 5 * SECOND);
    simulate(how, &what, seed, ret_result);
    free(what.all);
    const double good = (double)(ret_result->all.ok - ret_result->all.late) / 5 / can;
    print_message("%-11s %4.1f times: goodput %.3f, p50 %llu us, at most %llu us; refused %llu, expired %llu\n",
                  model == &dense ? "dense" : "convolution", times, good,
                  (unsigned long long)(percentile(&ret_result->all, 0.5) / US),
                  (unsigned long long)(percentile(&ret_result->all, 1) / US),
                  (unsigned long long)ret_result->all.refused, (unsigned long long)ret_result->all.expired);
    return good;
}

static void an_overloaded_daemon_answers_as_much_as_it_can_in_time(void **state)
{
    (void)state;
    const uint64_t seed = seed_of();
    static const double times[] = {1.2, 2, 10};
    for (int m = 0; m < 2; m++)
        for (int x = 0; x < 3; x++) {
            const truth *model = m ? &convolution : &dense;
            setup how = {.models = {*model}, .n_models = 1, .n_workers = 2, .jitter = 0.1};
            result r;
            const double good = overloaded(model, times[x], 100 * MS, &how, seed, &r);
            assert_true(good >= 0.95);
            assert_in_range(percentile(&r.all, 0.5), 0, 60 * MS);
            assert_int_equal(r.all.late, 0);
            assert_true(r.all.expired * 200 < r.all.ok); /* who is let in is answered */
            result_done(&r);
        }
    /* Below what it can do nobody is refused. */
    for (int m = 0; m < 2; m++) {
        const truth *model = m ? &convolution : &dense;
        setup how = {.models = {*model}, .n_models = 1, .n_workers = 2, .jitter = 0.1};
        result r;
        overloaded(model, 0.7, 100 * MS, &how, seed, &r);
        assert_int_equal(r.all.refused + r.all.expired + r.all.late, 0);
        result_done(&r);
    }
}

/* Everything takes three times as long for two seconds: what was learnt is wrong then, and wrong again afterwards. */
static void predictions_follow_what_happens(void **state)
{
    (void)state;
    const uint64_t seed = seed_of();
    for (int m = 0; m < 2; m++) {
        const truth *model = m ? &convolution : &dense;
        setup how = {.models = {*model},
                     .n_models = 1,
                     .n_workers = 2,
                     .jitter = 0.3,
                     .slump_from_ns = SECOND,
                     .slump_to_ns = 3 * SECOND};
        result r;
        const double good = overloaded(model, 2, 100 * MS, &how, seed, &r);
        assert_true(good >= 0.9 * (3 + 2.0 / 3) / 5); /* of what can be done in that time */
        assert_int_equal(r.all.late, 0);
        assert_true(r.all.expired * 10 < r.all.ok);
        result_done(&r);
    }
}

static void a_flooded_model_leaves_the_other_its_share(void **state)
{
    (void)state;
    uint64_t seed = seed_of();
    setup how = {.models = {convolution, dense}, .n_models = 2, .n_workers = 2, .jitter = 0.1};
    trace what = {0};
    const double can[] = {capacity(&convolution, 32, 2), capacity(&dense, 32, 2)};
    trace_poisson(&what, &seed, (arrival){.rows = 1, .timeout_ns = 100 * MS, .model = 0}, can[0] * 5, 0, 5 * SECOND);
    trace_poisson(&what, &seed, (arrival){.rows = 1, .timeout_ns = 100 * MS, .model = 1}, can[1] * 0.3, 0, 5 * SECOND);
    result r;
    simulate(&how, &what, seed, &r);
    print_message("flooded: %llu of %llu; the other: %llu of %llu\n", (unsigned long long)r.models[0].ok,
                  (unsigned long long)r.models[0].offered, (unsigned long long)r.models[1].ok,
                  (unsigned long long)r.models[1].offered);
    assert_true((double)r.models[1].ok >= 0.98 * (double)r.models[1].offered);
    assert_true((double)r.models[0].ok / 5 >= 0.45 * can[0]); /* smaller batches of the other cost it something */
    assert_int_equal(r.all.late, 0);
    result_done(&r);
    free(what.all);
}

static void a_flooding_client_leaves_others_room(void **state)
{
    (void)state;
    uint64_t seed = seed_of();
    setup how = {.models = {convolution}, .n_models = 1, .n_workers = 2, .jitter = 0.1};
    trace what = {0};
    const double can = capacity(&convolution, 32, 2);
    arrival one = {.rows = 1, .timeout_ns = 100 * MS, .client = 0};
    trace_poisson(&what, &seed, one, can * 10, 0, 5 * SECOND);
    one.client = 1;
    trace_poisson(&what, &seed, one, can * 0.2, 0, 5 * SECOND);
    result r;
    simulate(&how, &what, seed, &r);
    print_message("flooding: %llu of %llu; honest: %llu of %llu\n", (unsigned long long)r.clients[0].ok,
                  (unsigned long long)r.clients[0].offered, (unsigned long long)r.clients[1].ok,
                  (unsigned long long)r.clients[1].offered);
    assert_true((double)r.clients[1].ok >= 0.95 * (double)r.clients[1].offered);
    assert_true((double)(r.clients[0].ok + r.clients[1].ok) / 5 >= 0.95 * can);
    result_done(&r);
    free(what.all);
}

static void the_urgent_pass_an_overload(void **state)
{
    (void)state;
    uint64_t seed = seed_of();
    setup how = {.models = {convolution}, .n_models = 1, .n_workers = 2, .jitter = 0.1};
    trace what = {0};
    const double can = capacity(&convolution, 32, 2);
    arrival one = {.rows = 1, .timeout_ns = 100 * MS, .client = 0};
    trace_poisson(&what, &seed, one, can * 2, 0, 5 * SECOND);
    one.client = 1;
    one.priority = 9;
    trace_poisson(&what, &seed, one, can * 0.3, 0, 5 * SECOND);
    one.client = 2; /* and somebody who has no deadline and no priority is not forgotten */
    one.priority = 0;
    one.timeout_ns = 0;
    trace_poisson(&what, &seed, one, can * 0.01, 0, 5 * SECOND);
    result r;
    simulate(&how, &what, seed, &r);
    print_message("urgent: p99 %llu us; without a deadline: p99 %llu us\n",
                  (unsigned long long)(percentile(&r.clients[1], 0.99) / US),
                  (unsigned long long)(percentile(&r.clients[2], 0.99) / US));
    assert_true((double)r.clients[1].ok >= 0.99 * (double)r.clients[1].offered);
    assert_in_range(percentile(&r.clients[1], 0.99), 0, 20 * MS);
    assert_int_equal(r.clients[2].ok, r.clients[2].offered);
    assert_in_range(percentile(&r.clients[2], 0.99), 0, SECOND);
    result_done(&r);
    free(what.all);
}

/* A flood of short deadlines overtakes who has more time; he waits until he is old, and is answered. */
static void a_late_deadline_is_no_reason_to_be_refused(void **state)
{
    (void)state;
    uint64_t seed = seed_of();
    setup how = {.models = {convolution}, .n_models = 1, .n_workers = 1, .jitter = 0.1};
    trace what = {0};
    const double can = capacity(&convolution, 32, 1);
    arrival one = {.rows = 1, .timeout_ns = 200 * MS, .client = 0};
    trace_poisson(&what, &seed, one, can * 10, 0, 10 * SECOND);
    one.client = 1;
    one.timeout_ns = 5 * SECOND;
    trace_poisson(&what, &seed, one, 5, 0, 10 * SECOND);
    result r;
    simulate(&how, &what, seed, &r);
    print_message("five seconds of time: %llu of %llu, p99 %llu us; the flood: %llu\n",
                  (unsigned long long)r.clients[1].ok, (unsigned long long)r.clients[1].offered,
                  (unsigned long long)(percentile(&r.clients[1], 0.99) / US), (unsigned long long)r.clients[0].ok);
    assert_int_equal(r.clients[1].ok, r.clients[1].offered);
    assert_in_range(percentile(&r.clients[1], 0.99), 0, SECOND);
    assert_true((double)r.clients[0].ok / 10 >= 0.95 * can);
    result_done(&r);
    free(what.all);
}

/* Whatever the flood's deadlines and his, also where batches take far longer than was measured: then those that were
 * let in at first fill the queue for longer than they seemed to. */
static void who_asks_now_and_then_finds_room_beside_a_flood(void **state)
{
    (void)state;
    static const uint64_t times[][2] = {
        {5 * SECOND, 5 * SECOND},
        {200 * MS, 20 * SECOND},
        {200 * MS, 5 * SECOND},
        {200 * MS, 0},
        {5 * SECOND, 20 * SECOND},
        {5 * SECOND, 0},
        {0, 0},
    };
    const uint64_t seed = seed_of();
    for (unsigned growth = 1; growth <= 4; growth *= 4)
        for (size_t t = 0; t < sizeof times / sizeof times[0]; t++) {
            uint64_t draw = seed;
            setup how = {.models = {convolution}, .n_models = 1, .n_workers = 1, .jitter = 0.1, .growth = growth};
            trace what = {0};
            arrival one = {.rows = 1, .timeout_ns = times[t][0], .client = 0};
            trace_poisson(&what, &draw, one, capacity(&convolution, 32, 1) * 10, 0, 10 * SECOND);
            one.client = 1;
            one.timeout_ns = times[t][1];
            trace_poisson(&what, &draw, one, 2, SECOND / 2, 10 * SECOND);
            result r;
            simulate(&how, &what, seed, &r);
            print_message("batches %u times as long, flood of %llu ms: of who has %llu ms %llu of %llu\n", growth,
                          (unsigned long long)(times[t][0] / MS), (unsigned long long)(times[t][1] / MS),
                          (unsigned long long)r.clients[1].ok, (unsigned long long)r.clients[1].offered);
            /* Until it is seen how long all takes a few would be late, and are told so. */
            assert_true(r.clients[1].ok * 10 >= r.clients[1].offered * 8);
            result_done(&r);
            free(what.all);
        }
}

/* Those without a deadline: a burst is served, a queue that stands is cut. */
static void codel_cuts_what_stands_and_spares_a_burst(void **state)
{
    (void)state;
    uint64_t seed = seed_of();
    setup how = {.models = {convolution}, .n_models = 1, .n_workers = 2, .jitter = 0.1};
    trace what = {0};
    result r;
    for (int i = 0; i < 300; i++)
        trace_add(&what, (arrival){.rows = 1});
    simulate(&how, &what, seed, &r);
    assert_int_equal(r.all.ok, 300);
    result_done(&r);
    what.n = 0;
    const double can = capacity(&convolution, 32, 2);
    trace_poisson(&what, &seed, (arrival){.rows = 1}, can * 1.1, 0, 20 * SECOND);
    simulate(&how, &what, seed, &r);
    print_message("a tenth too much: %llu of %llu, p99 %llu us\n", (unsigned long long)r.all.ok,
                  (unsigned long long)r.all.offered, (unsigned long long)(percentile(&r.all, 0.99) / US));
    assert_true(r.all.ok < r.all.offered);
    assert_true((double)r.all.ok / 20 >= 0.95 * can);
    assert_in_range(percentile(&r.all, 0.99), 0, SECOND); /* two would wait without */
    result_done(&r);
    free(what.all);
}

static void energy_takes_fewer_batches_and_keeps_deadlines(void **state)
{
    (void)state;
    const uint64_t seed = seed_of();
    result r[2];
    for (int o = 0; o < 2; o++) {
        truth model = dense;
        model.objective = o ? TERSE_OBJECTIVE_ENERGY : TERSE_OBJECTIVE_LATENCY;
        setup how = {.models = {model}, .n_models = 1, .n_workers = 2, .jitter = 0.1};
        trace what = {0};
        uint64_t draw = seed;
        trace_poisson(&what, &draw, (arrival){.rows = 1, .timeout_ns = 50 * MS}, capacity(&dense, 32, 2) * 0.2, 0,
                      5 * SECOND);
        simulate(&how, &what, seed, &r[o]);
        assert_int_equal(r[o].all.ok, r[o].all.offered);
        assert_int_equal(r[o].all.late, 0);
        free(what.all);
    }
    print_message("workers are busy %.1f %% of the time, for energy %.1f %%\n", (double)r[0].busy_ns / 1e8,
                  (double)r[1].busy_ns / 1e8);
    assert_true(r[1].busy_ns < r[0].busy_ns / 2);
    result_done(&r[0]);
    result_done(&r[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_is_no_worse_than_waiting_or_pulling),
        cmocka_unit_test(requests_of_several_rows_stay_whole),
        cmocka_unit_test(an_overloaded_daemon_answers_as_much_as_it_can_in_time),
        cmocka_unit_test(predictions_follow_what_happens),
        cmocka_unit_test(a_flooded_model_leaves_the_other_its_share),
        cmocka_unit_test(a_flooding_client_leaves_others_room),
        cmocka_unit_test(the_urgent_pass_an_overload),
        cmocka_unit_test(a_late_deadline_is_no_reason_to_be_refused),
        cmocka_unit_test(who_asks_now_and_then_finds_room_beside_a_flood),
        cmocka_unit_test(codel_cuts_what_stands_and_spares_a_burst),
        cmocka_unit_test(energy_takes_fewer_batches_and_keeps_deadlines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
