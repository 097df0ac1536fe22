/* SPDX-License-Identifier: Apache-2.0 */
/* RAPL's counters, in a folder made like the system's: packages are summed up, their parts are not, and where one
 * cannot be read there is nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "compress/energy.h"

static void put(const char *folder, const char *zone, const char *number)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, zone);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/%s/energy_uj", folder, zone);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(number, file);
    fclose(file);
}

static void packages_are_summed_up(void **state)
{
    (void)state;
    char folder[] = "/tmp/terse-energy-XXXXXX", command[100];
    double joules = -1;
    assert_non_null(mkdtemp(folder));
    assert_false(terse_energy_read_in(folder, &joules));
    put(folder, "intel-rapl:0", "2500000\n");
    put(folder, "intel-rapl:0:0", "1000000\n");
    put(folder, "intel-rapl:1", "500000\n");
    assert_true(terse_energy_read_in(folder, &joules));
    assert_true(joules == 3.0);
    put(folder, "intel-rapl:2", "none\n");
    assert_false(terse_energy_read_in(folder, &joules));
    assert_true(joules == 3.0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void nothing_is_there(void **state)
{
    (void)state;
    double joules;
    assert_false(terse_energy_read_in("/nonexistent", &joules));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(packages_are_summed_up), cmocka_unit_test(nothing_is_there)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
