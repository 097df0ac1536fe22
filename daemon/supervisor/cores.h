/* SPDX-License-Identifier: Apache-2.0 */
/* cores.h: what this process may use of the machine.
 * Runs in: tersed. */
#ifndef TERSE_SUPERVISOR_CORES_H
#define TERSE_SUPERVISOR_CORES_H

#include <stdint.h>

/* CPUs of the affinity mask (cpuset), no more than the control group's CPU quota; at least 1. `root` is where the file
 * systems are ("" outside of tests). */
unsigned terse_cores_usable(const char *root);
/* Workers of so many threads that these CPUs carry; at least 1. */
unsigned terse_cores_workers(const char *root, unsigned threads);
/* Bytes of memory: the machine's, or the control group's limit when that is lower. */
uint64_t terse_cores_memory(const char *root);
/* Bytes of it that nobody uses, or that the kernel takes back from files when they are wanted. Where that cannot be
 * told: all. */
uint64_t terse_cores_available(const char *root);

#endif
