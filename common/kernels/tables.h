/* SPDX-License-Identifier: Apache-2.0 */
/* tables.h: the tables of the tiers, for dispatch.c alone. A tier that this build does not have is not linked.
 * Runs in: terse-worker, terse run, terse-compress. */
#ifndef TERSE_KERNELS_TABLES_H
#define TERSE_KERNELS_TABLES_H

#include "common/kernels/kernels.h"

extern const terse_kernels terse_kernels_scalar;
extern const terse_kernels terse_kernels_avx2;
extern const terse_kernels terse_kernels_avx512vnni;
extern const terse_kernels terse_kernels_neon;

/* A derived tier is its base's table with some kernels replaced. */
void terse_kernels_override_avx2vnni(terse_kernels *table);
void terse_kernels_override_avx512bf16(terse_kernels *table);
void terse_kernels_override_neondot(terse_kernels *table);

#endif
