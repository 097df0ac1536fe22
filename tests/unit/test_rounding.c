/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to round the weights of a product: what they lose on what it reads, zeros, and that nothing gets worse. */
#include "tests/unit/graph_maker.h"

#include "compress/quantize/round.h"
#include "compress/quantize/weights.h"

enum { O = 24, K = 48, GROUP = 16, ROWS = 200, GROUPS = K / GROUP };

typedef struct layer {
    float w[O * K], scales[O * GROUPS];
    int8_t q[O * K];
    double fit[K * K], judge[K * K];
    terse_round_rows rows;
} layer;

/* Second moments of rows whose neighbours look alike. */
static void see(double *moments, bool alike)
{
    memset(moments, 0, K * K * sizeof *moments);
    for (int r = 0; r < ROWS; r++) {
        double x[K], last = 0;
        for (int i = 0; i < K; i++)
            x[i] = last = (alike ? 0.9 * last : 0) + 0.4 * (double)random_number();
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++)
                moments[i * K + j] += x[i] * x[j] / ROWS;
    }
}

/* A layer of random weights, some of them zero, rounded to the nearest. */
static void make(layer *l, uint32_t seed, int bits, int group, bool alike)
{
    random_state = seed;
    see(l->fit, alike);
    see(l->judge, alike);
    const int low = bits == 4 ? -8 : -127, high = bits == 4 ? 7 : 127, groups = K / group;
    for (int i = 0; i < O * K; i++)
        l->w[i] = i % 7 == 3 ? 0 : random_number();
    for (int o = 0; o < O; o++)
        for (int g = 0; g < groups; g++)
            l->scales[o * groups + g] =
                terse_quantize_round(l->w + o * K + g * group, group, 1, low, high, l->q + o * K + g * group);
    l->rows = (terse_round_rows){
        .w = l->w, .o = O, .k = K, .group = group, .low = low, .high = high, .scales = l->scales, .q = l->q};
    terse_round_nearest(&l->rows);
}

static void check_integers(const layer *l)
{
    for (int i = 0; i < O * K; i++) {
        assert_true(l->q[i] >= l->rows.low && l->q[i] <= l->rows.high);
        if (l->w[i] == 0)
            assert_int_equal(l->q[i], 0);
    }
}

static void both_ways_beat_the_nearest_where_inputs_are_alike(void **state)
{
    (void)state;
    static layer l;
    for (int bits = 4; bits <= 8; bits += 4)
        for (int group = GROUP; group <= K; group += K - GROUP)
            for (int way = 0; way < 2; way++) {
                make(&l, 11u + (uint32_t)(bits + group), bits, group, true);
                const double nearest = terse_round_error(&l.rows, l.fit);
                assert_true(nearest > 0);
                assert_true(way ? terse_round_adaround(&l.rows, l.fit) : terse_round_gptq(&l.rows, l.fit));
                const double found = terse_round_error(&l.rows, l.fit), elsewhere = terse_round_error(&l.rows, l.judge);
                print_message("# %d bits, groups of %d, %s: %.3f of the nearest, elsewhere %g\n", bits, group,
                              way ? "AdaRound" : "GPTQ", found / nearest, elsewhere);
                assert_true(found < 0.7 * nearest);
                check_integers(&l);
            }
}

/* The error as its definition has it. */
static void the_error_is_that_of_the_outputs(void **state)
{
    (void)state;
    static layer l;
    make(&l, 3, 4, GROUP, true);
    double sum = 0;
    for (int o = 0; o < O; o++)
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++) {
                const double a =
                    (double)l.q[o * K + i] * (double)l.scales[o * GROUPS + i / GROUP] - (double)l.w[o * K + i];
                const double b =
                    (double)l.q[o * K + j] * (double)l.scales[o * GROUPS + j / GROUP] - (double)l.w[o * K + j];
                sum += a * l.fit[i * K + j] * b;
            }
    const double found = terse_round_error(&l.rows, l.fit);
    assert_true(fabs(found - sum) <= 1e-9 * sum);
}

static void nothing_gets_worse(void **state)
{
    (void)state;
    static layer l;
    for (uint32_t seed = 1; seed <= 12; seed++) {
        make(&l, seed, seed % 2 ? 4 : 8, seed % 3 ? GROUP : K, seed % 4 != 0);
        const double before = terse_round_error(&l.rows, l.fit);
        assert_true(terse_round_adaround(&l.rows, l.fit));
        assert_true(terse_round_error(&l.rows, l.fit) <= before);
        check_integers(&l);
        make(&l, seed, seed % 2 ? 4 : 8, seed % 3 ? GROUP : K, seed % 4 != 0);
        const double nearest = terse_round_error(&l.rows, l.judge);
        double least = nearest;
        for (int how = TERSE_ROUNDING_NEAREST; how <= TERSE_ROUNDING_AUTO; how++) {
            make(&l, seed, seed % 2 ? 4 : 8, seed % 3 ? GROUP : K, seed % 4 != 0);
            terse_rounding taken;
            terse_rounding_report report = {0};
            assert_true(terse_round_choose(&l.rows, (terse_rounding)how, l.fit, l.judge, &taken, &report));
            const double found = terse_round_error(&l.rows, l.judge);
            assert_true(found <= nearest);
            assert_true(how != TERSE_ROUNDING_NEAREST || found == nearest);
            assert_true(how != TERSE_ROUNDING_AUTO || found <= least);
            assert_true(taken == TERSE_ROUNDING_NEAREST || how == TERSE_ROUNDING_AUTO || (int)taken == how);
            assert_int_equal(report.products[taken], 1);
            assert_true(fabs(report.lost - found / nearest) < 1e-9);
            least = found < least ? found : least;
        }
    }
}

static void what_was_never_seen_is_rounded_to_the_nearest(void **state)
{
    (void)state;
    static layer l;
    static int8_t q[O * K];
    make(&l, 5, 4, GROUP, true);
    memset(l.fit, 0, sizeof l.fit);
    memcpy(q, l.q, sizeof q);
    assert_false(terse_round_gptq(&l.rows, l.fit));
    assert_memory_equal(q, l.q, sizeof q);
    assert_true(terse_round_adaround(&l.rows, l.fit));
    assert_memory_equal(q, l.q, sizeof q);
}

/* [K][N] with groups of rows: the way in and out. */
static void four_bits_lose_no_more_than_by_any_single_way(void **state)
{
    (void)state;
    static layer l;
    static float w[K * O], scales[GROUPS * O];
    static int8_t q[K * O];
    double lost[TERSE_ROUNDINGS] = {0};
    make(&l, 21, 4, GROUP, true);
    for (int o = 0; o < O; o++)
        for (int i = 0; i < K; i++)
            w[i * O + o] = l.w[o * K + i];
    for (int how = TERSE_ROUNDING_NEAREST; how <= TERSE_ROUNDING_AUTO; how++) {
        terse_rounding_report report = {0};
        assert_true(terse_round_int4(w, K, O, GROUP, (terse_rounding)how, l.fit, l.judge, q, scales, &report));
        for (int o = 0; o < O; o++) {
            for (int i = 0; i < K; i++)
                l.q[o * K + i] = q[i * O + o];
            for (int g = 0; g < GROUPS; g++)
                l.scales[o * GROUPS + g] = scales[g * O + o];
        }
        lost[how] = terse_round_error(&l.rows, l.judge);
        assert_true(fabs(report.lost * lost[TERSE_ROUNDING_NEAREST] - lost[how]) < 1e-6 * lost[how]);
    }
    print_message("# nearest 1, GPTQ %.3f, AdaRound %.3f, auto %.3f\n",
                  lost[TERSE_ROUNDING_GPTQ] / lost[TERSE_ROUNDING_NEAREST],
                  lost[TERSE_ROUNDING_ADAROUND] / lost[TERSE_ROUNDING_NEAREST],
                  lost[TERSE_ROUNDING_AUTO] / lost[TERSE_ROUNDING_NEAREST]);
    assert_true(lost[TERSE_ROUNDING_GPTQ] < lost[TERSE_ROUNDING_NEAREST]);
    assert_true(lost[TERSE_ROUNDING_ADAROUND] < lost[TERSE_ROUNDING_NEAREST]);
    assert_true(lost[TERSE_ROUNDING_AUTO] <= lost[TERSE_ROUNDING_GPTQ]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_error_is_that_of_the_outputs),
        cmocka_unit_test(both_ways_beat_the_nearest_where_inputs_are_alike),
        cmocka_unit_test(nothing_gets_worse),
        cmocka_unit_test(what_was_never_seen_is_rounded_to_the_nearest),
        cmocka_unit_test(four_bits_lose_no_more_than_by_any_single_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
