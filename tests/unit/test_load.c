/* SPDX-License-Identifier: Apache-2.0 */
/* When requests of an open loop are due, what is known of latencies, the line through what batches cost. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/cli/bench/latencies.h"
#include "client/cli/bench/traffic.h"
#include "client/cli/tune/cost_fit.h"

static terse_traffic traffic_of(const char *text)
{
    terse_traffic traffic = {0};
    terse_error error = {0};
    if (terse_traffic_read(text, &traffic, &error))
        fail_msg("%s: %s", text, error.message);
    return traffic;
}

static void near(double found, double wanted, double part)
{
    if (!(fabs(found - wanted) <= part * fabs(wanted) + 1e-12))
        fail_msg("found %.9g, wanted %.9g within %g", found, wanted, part);
}

static void poisson_gaps_have_their_mean_and_their_spread(void **state)
{
    (void)state;
    enum { N = 200000 };
    const terse_traffic traffic = traffic_of("poisson");
    terse_arrivals a = terse_arrivals_begin(&traffic, 250, 7), again = terse_arrivals_begin(&traffic, 250, 7);
    double last = terse_arrivals_next(&a), sum = 0, squares = 0;
    assert_true(last == 0);
    terse_arrivals_next(&again);
    for (int i = 0; i < N; i++) {
        const double next = terse_arrivals_next(&a), gap = next - last;
        assert_true(gap >= 0);
        assert_true(next == terse_arrivals_next(&again)); /* the same seed */
        sum += gap;
        squares += gap * gap;
        last = next;
    }
    near(sum / N, 1 / 250.0, 0.02);
    near(sqrt(squares / N - sum / N * (sum / N)), 1 / 250.0, 0.02); /* as wide as its mean */
    terse_arrivals other = terse_arrivals_begin(&traffic, 250, 8);
    terse_arrivals_next(&other);
    again = terse_arrivals_begin(&traffic, 250, 7);
    terse_arrivals_next(&again);
    assert_true(terse_arrivals_next(&other) != terse_arrivals_next(&again));
}

static void constant_gaps_are_alike_and_bursts_come_together(void **state)
{
    (void)state;
    const terse_traffic constant = traffic_of("constant"), burst = traffic_of("burst:5");
    terse_arrivals a = terse_arrivals_begin(&constant, 50, 1);
    for (int i = 0; i < 100; i++)
        near(terse_arrivals_next(&a), i / 50.0, 1e-9);
    a = terse_arrivals_begin(&burst, 1000, 3);
    double last = -1, moment = 0;
    for (int i = 0; i < 100000; i++) {
        moment = terse_arrivals_next(&a);
        if (i % 5 == 0)
            assert_true(moment > last);
        else
            assert_true(moment == last);
        last = moment;
    }
    near(moment, 100, 0.03);
    assert_int_equal(traffic_of("burst").burst, 16);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void a_trace_is_played_stretched_and_begun_anew(void **state)
{
    (void)state;
    char path[] = "/tmp/terse-trace-XXXXXX", text[64];
    close(mkstemp(path));
    write_file(path, "# moments\n10.0\n10.1\n\n10.1 # two at once\n10.4\n");
    snprintf(text, sizeof text, "trace:%s", path);
    terse_traffic traffic = traffic_of(text);
    assert_int_equal(traffic.n, 4);
    near(terse_traffic_rate(&traffic), 4 / (0.4 + 0.4 / 3), 1e-9);
    static const double own[] = {0, 0.1, 0.1, 0.4};
    terse_arrivals a = terse_arrivals_begin(&traffic, 0, 1);
    for (int i = 0; i < 12; i++)
        near(terse_arrivals_next(&a), own[i % 4] + (i / 4) * traffic.span, 1e-9);
    a = terse_arrivals_begin(&traffic, 2 * terse_traffic_rate(&traffic), 1); /* twice as fast */
    for (int i = 0; i < 12; i++)
        near(terse_arrivals_next(&a), (own[i % 4] + (i / 4) * traffic.span) / 2, 1e-9);
    terse_traffic_done(&traffic);
    static const char *const bad[][2] = {
        {"1\n0.5\n", "earlier"}, {"1\nx\n", ":2: 'x'"}, {"1\n", "two different"}, {"1\n1\n", "two different"},
        {"1\nnan\n", "nan"},     {"", "two different"}, {"1 2\n", "1 2"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        terse_error error = {0};
        write_file(path, bad[i][0]);
        assert_int_not_equal(terse_traffic_read(text, &traffic, &error), TERSE_OK);
        if (!strstr(error.message, bad[i][1]))
            fail_msg("'%s' does not say '%s'", error.message, bad[i][1]);
    }
    unlink(path);
    static const char *const words[] = {"",           "poison",   "burst:", "burst:0", "burst:-1",
                                        "burst:5000", "burst:4x", "trace:", "trace",   "trace:/nonexistent/file"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        terse_error error = {0};
        assert_int_not_equal(terse_traffic_read(words[i], &traffic, &error), TERSE_OK);
        assert_true(*error.message != 0);
    }
}

static void a_trace_of_two_words_becomes_one(void **state)
{
    (void)state;
    char room[64], small[12];
    char *two[] = {"bench", "--traffic", "trace", "FILE", "MODEL", NULL};
    assert_int_equal(terse_traffic_join(5, two, room, sizeof room), 3);
    assert_string_equal(two[1], "--traffic=trace:FILE");
    assert_string_equal(two[2], "MODEL");
    assert_null(two[3]);
    char *joined[] = {"bench", "M", "--traffic=trace", "FILE", NULL};
    assert_int_equal(terse_traffic_join(4, joined, room, sizeof room), 3);
    assert_string_equal(joined[2], "--traffic=trace:FILE");
    char *other[] = {"bench", "--traffic", "burst", "MODEL", NULL};
    assert_int_equal(terse_traffic_join(4, other, room, sizeof room), 4);
    assert_string_equal(other[2], "burst");
    char *ended[] = {"bench", "--traffic", "trace", NULL};
    assert_int_equal(terse_traffic_join(3, ended, room, sizeof room), 3);
    char *narrow[] = {"bench", "--traffic", "trace", "FILE", NULL};
    assert_int_equal(terse_traffic_join(4, narrow, small, sizeof small), 4); /* left as it was: no such trace */
}

static void percentiles_are_nearest_ranks(void **state)
{
    (void)state;
    terse_latencies samples = {0}, more = {0};
    assert_true(isnan(terse_latencies_us(&samples, 0.5)));
    for (uint64_t i = 10000; i > 0; i--)
        assert_true(terse_latencies_add(i % 2 ? &samples : &more, i * 1000));
    assert_true(terse_latencies_join(&samples, &more));
    terse_latencies_sort(&samples);
    assert_int_equal(samples.n, 10000);
    near(terse_latencies_us(&samples, 0.5), 5000, 0);
    near(terse_latencies_us(&samples, 0.99), 9900, 0);
    near(terse_latencies_us(&samples, 0.999), 9990, 0);
    near(terse_latencies_us(&samples, 1), 10000, 0);
    near(terse_latencies_us(&samples, 0), 1, 0);
    terse_latencies_done(&samples);
    terse_latencies_done(&more);
}

static void intervals_are_students(void **state)
{
    (void)state;
    const double values[] = {9, 10, 11}; /* mean 10, deviation 1: 4.303 / sqrt(3) */
    const terse_mean m = terse_mean_of(values, 3);
    near(m.mean, 10, 1e-12);
    near(m.low, 10 - 2.4843, 1e-4);
    near(m.high, 10 + 2.4843, 1e-4);
    near(terse_mean_spread(&m), 0.24843, 1e-4);
    const terse_mean one = terse_mean_of(values, 1);
    near(one.mean, 9, 0);
    assert_true(isnan(one.low) && isinf(terse_mean_spread(&one)));
    const double ratios[] = {0.5, 2}; /* halved and doubled: no change */
    near(terse_mean_of_ratios(ratios, 2).mean, 1, 1e-12);
    const double equal[] = {3, 3, 3, 3};
    const terse_mean same = terse_mean_of_ratios(equal, 4);
    near(same.low, 3, 1e-9);
    near(same.high, 3, 1e-9);
    double odd[] = {5, 1, 9}, even[] = {4, 1, 3, 2};
    near(terse_median(odd, 3), 5, 0);
    near(terse_median(even, 4), 2.5, 0);
}

/* Coverage by trying: of many intervals of five normal numbers about 95 % have the true mean. */
static void intervals_hold_the_mean_as_often_as_they_say(void **state)
{
    (void)state;
    enum { TRIES = 20000, N = 5 };
    int held = 0;
    srand(11);
    for (int t = 0; t < TRIES; t++) {
        double values[N];
        for (int i = 0; i < N; i++) {
            values[i] = 100;
            for (int k = 0; k < 12; k++) /* nearly normal */
                values[i] += (double)rand() / RAND_MAX - 0.5;
        }
        const terse_mean m = terse_mean_of(values, N);
        held += m.low <= 100 && 100 <= m.high;
    }
    near((double)held / TRIES, 0.95, 0.01);
}

static void the_line_through_costs_is_found(void **state)
{
    (void)state;
    terse_cost_point points[6];
    terse_cost_line line;
    for (int i = 0; i < 6; i++)
        points[i] = (terse_cost_point){1 << i, 900 + 35.0 * (1 << i)};
    assert_true(terse_cost_fit(points, 6, &line));
    near(line.a_us, 900, 1e-9);
    near(line.b_us, 35, 1e-9);
    for (int i = 0; i < 6; i++)
        points[i].us = 20.0 * (1 << i) - 5; /* a batch that would cost less than nothing */
    assert_true(terse_cost_fit(points, 6, &line));
    assert_true(line.a_us == 0 && line.b_us > 15 && line.b_us < 20);
    for (int i = 0; i < 6; i++)
        points[i].us = 100 - i; /* larger ones that are quicker */
    assert_true(terse_cost_fit(points, 6, &line));
    assert_true(line.b_us == 0 && line.a_us > 94 && line.a_us < 100);
    assert_true(terse_cost_fit(points, 1, &line));
    near(line.b_us, 100, 1e-9);
    assert_false(terse_cost_fit(points, 0, &line));
    points[0].us = 0;
    assert_false(terse_cost_fit(points, 1, &line));
}

static void more_rows_end_where_they_gain_nothing(void **state)
{
    (void)state;
    const terse_cost_line steep = {5000, 10}, flat = {0, 1000}, some = {100, 100};
    assert_int_equal(terse_cost_enough(&flat, 0, 0.02, 1024), 1);
    assert_int_equal(terse_cost_enough(&some, 0, 0.02, 1024), 32); /* (100/64)/(100/32+100) is 1.5 % */
    assert_int_equal(terse_cost_enough(&steep, 0, 0.02, 1024), 1024);
    assert_int_equal(terse_cost_enough(&steep, 0, 0.02, 100), 100);
    assert_int_equal(terse_cost_enough(&flat, 1000, 0.02, 1024), 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poisson_gaps_have_their_mean_and_their_spread),
        cmocka_unit_test(constant_gaps_are_alike_and_bursts_come_together),
        cmocka_unit_test(a_trace_is_played_stretched_and_begun_anew),
        cmocka_unit_test(a_trace_of_two_words_becomes_one),
        cmocka_unit_test(percentiles_are_nearest_ranks),
        cmocka_unit_test(intervals_are_students),
        cmocka_unit_test(intervals_hold_the_mean_as_often_as_they_say),
        cmocka_unit_test(the_line_through_costs_is_found),
        cmocka_unit_test(more_rows_end_where_they_gain_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
