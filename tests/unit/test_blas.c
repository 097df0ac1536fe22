/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels of OpenBLAS are asked for: better ones than those of a processor without AVX2, never others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compress/blas.h"

static void a_processor_that_was_taken_for_an_old_one_gets_its_own_kernels(void **state)
{
    (void)state;
    assert_string_equal(terse_blas_better("Prescott", true, true), "SkylakeX");
    assert_string_equal(terse_blas_better("PRESCOTT", true, false), "Haswell");
    assert_string_equal(terse_blas_better("Sandybridge", true, false), "Haswell");
}

static void what_the_processor_cannot_run_is_not_asked_for(void **state)
{
    (void)state;
    assert_null(terse_blas_better("Prescott", false, false));
}

static void a_processor_that_is_known_keeps_what_it_has(void **state)
{
    static const char *const known[] = {"SkylakeX", "Cooperlake", "SapphireRapids", "Haswell", "Zen", "armv8"};
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_null(terse_blas_better(known[i], true, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_processor_that_was_taken_for_an_old_one_gets_its_own_kernels),
        cmocka_unit_test(what_the_processor_cannot_run_is_not_asked_for),
        cmocka_unit_test(a_processor_that_is_known_keeps_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
