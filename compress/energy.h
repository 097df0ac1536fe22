/* SPDX-License-Identifier: Apache-2.0 */
/* energy.h: what the processor's packages have taken so far, where RAPL's counters can be read (root, as a rule).
 * Runs in: terse-compress (and the tests). Owns nothing. */
#ifndef TERSE_COMPRESS_ENERGY_H
#define TERSE_COMPRESS_ENERGY_H

#include <stdbool.h>

/* Joules since some moment, all packages together. False: there is nothing to read. */
bool terse_energy_read(double *ret_joules);
/* The same in a folder that is made like /sys/class/powercap. */
bool terse_energy_read_in(const char *folder, double *ret_joules);

#endif
