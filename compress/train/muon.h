/* SPDX-License-Identifier: Apache-2.0 */
/* muon.h: steps of whole matrices instead of single numbers: momentum whose singular values have become one.
 * Runs in: terse-compress (and the tests). Ownership: all room is the caller's.
 *
 * Weights that are almost right err along a few directions only, and those that inputs seldom take get the smallest
 * gradients. Adam scales every number by itself; this moves all directions of a matrix alike, and gets as close in far
 * fewer steps. Sources: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), Newton and
 * Schulz's iteration with its coefficients; Liu et al., arXiv:2502.16982, section 2.2, for the size of a step. */
#ifndef TERSE_TRAIN_MUON_H
#define TERSE_TRAIN_MUON_H

#include <stdbool.h>
#include <stdint.h>

/* Is a matrix of this size one that it takes? Not vectors, and none that would take longer than a few samples. */
bool terse_muon_takes(int64_t rows, int64_t columns);
/* Floats of room that terse_muon_direction needs. */
int64_t terse_muon_room(int64_t rows, int64_t columns);
/* m [rows][columns] becomes U V^T of its singular value decomposition U S V^T, each singular value to within 0.3 to 1.3
 * of it unless it was next to nothing. Single-threaded OpenBLAS is due: then bits do not depend on the machine's cores.
 */
void terse_muon_orthogonalize(float *m, int64_t rows, int64_t columns, float *room);
/* Adds the gradient to `momentum` and finds where to go from both: numbers whose root mean square is that of a usual
 * step of Adam with rate 1. ret_direction may not overlap. */
void terse_muon_direction(const float *gradient, float *momentum, int64_t rows, int64_t columns, float *ret_direction,
                          float *room);

#endif
