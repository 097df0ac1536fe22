/* SPDX-License-Identifier: Apache-2.0 */
/* Intervals and tests of paired shares: a closed form, symmetry, and how often the interval holds the truth. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "compress/paired.h"

static void near(double found, double wanted, double by)
{
    if (!(fabs(found - wanted) <= by))
        fail_msg("%.6f, wanted %.6f", found, wanted);
}

/* Where no sample parts the two, the bounds can be written down: z^2 / (n + z^2). */
static void without_a_difference(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 100000; n *= 7) {
        const double z = 1.959963984540054, wanted = z * z / ((double)n + z * z);
        const terse_paired p = terse_paired_compare(n, 0, 0);
        near(p.difference, 0.0, 1e-12);
        near(p.low, -wanted, 1e-9);
        near(p.high, wanted, 1e-9);
    }
}

static void mcnemar_is_the_binomial(void **state)
{
    (void)state;
    near(terse_paired_compare(100, 0, 0).p, 1.0, 1e-12);
    near(terse_paired_compare(100, 5, 0).p, 0.0625, 1e-9);
    near(terse_paired_compare(100, 2, 8).p, 0.109375, 1e-9);
    near(terse_paired_compare(100, 4, 4).p, 1.0, 1e-12);
}

static void sides_are_mirror_images(void **state)
{
    (void)state;
    for (int64_t gained = 0; gained < 20; gained++)
        for (int64_t lost = 0; lost < 20; lost += 3) {
            const terse_paired a = terse_paired_compare(50, gained, lost), b = terse_paired_compare(50, lost, gained);
            near(a.low, -b.high, 1e-9);
            near(a.high, -b.low, 1e-9);
            assert_true(a.low <= a.difference && a.difference <= a.high && a.low >= -1.0 && a.high <= 1.0);
        }
    for (int64_t n = 1; n < 4; n++) {
        near(terse_paired_compare(n, n, 0).high, 1.0, 1e-9);
        assert_true(terse_paired_compare(n, 0, 0).low < 0.0 && terse_paired_compare(n, 0, 0).high > 0.0);
    }
}

/* The interval holds the true difference in about 95 % of draws. */
static void it_covers(void **state)
{
    (void)state;
    uint64_t random = 7;
    int held = 0;
    enum { DRAWS = 4000, N = 200 };
    for (int draw = 0; draw < DRAWS; draw++) {
        int64_t gained = 0, lost = 0;
        for (int i = 0; i < N; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const double u = (double)(random >> 11) / 9007199254740992.0;
            gained += u < 0.06;
            lost += u >= 0.06 && u < 0.10;
        }
        const terse_paired p = terse_paired_compare(N, gained, lost);
        held += p.low <= 0.02 && 0.02 <= p.high;
    }
    printf("# %.2f %% of the intervals hold the true difference\n", 100.0 * held / DRAWS);
    near((double)held / DRAWS, 0.95, 0.012);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_difference),
        cmocka_unit_test(mcnemar_is_the_binomial),
        cmocka_unit_test(sides_are_mirror_images),
        cmocka_unit_test(it_covers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
