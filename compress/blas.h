/* SPDX-License-Identifier: Apache-2.0 */
/* blas.h: OpenBLAS with the kernels that this processor can run.
 * Runs in: terse-compress, before anything else.
 *
 * OpenBLAS knows processors by their model numbers and takes one that is newer than itself for a Prescott: SSE3, a
 * fifth of the speed. It reads OPENBLAS_CORETYPE while it is loaded, so only a program that starts anew can tell it. */
#ifndef TERSE_COMPRESS_BLAS_H
#define TERSE_COMPRESS_BLAS_H

#include <stdbool.h>

/* The core type to ask for where OpenBLAS has taken `found` on a processor with AVX2 and FMA, or AVX-512 (F, BW, DQ,
 * VL) too; NULL where it did well. */
const char *terse_blas_better(const char *found, bool avx2, bool avx512);

/* Starts this program anew with a better core type where there is one and OPENBLAS_CORETYPE says nothing. Returns where
 * there is nothing to gain or it cannot be done. */
void terse_blas_choose(char **argv);

#endif
