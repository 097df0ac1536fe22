/* SPDX-License-Identifier: Apache-2.0 */
/* winograd.h: convolutions of 3x3 in the domain of F(4x4,3x3) (Lavin and Gray 2016): what all tiers share.
 * Runs in: terse-worker, terse run, terse-compress. Ownership: nothing here owns memory.
 *
 * A tile of 4x4 outputs is A^T ((G g G^T) * (B^T d B)) A, d being its 6x6 inputs: 36 products per channel and filter
 * where the definition has 144. The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity: they keep the numbers in B and
 * A small, and rounding errors several times below those of the points 0, +-1, +-2.
 *
 *   B^T  1   0 -5/2    0  1  0     G    1       0       0      A^T  1  1   1    1    1   0
 *        0  -b   -2    a  1  0        -2/3   -2a/3    -1/3          0  a  -a    b   -b   0
 *        0   b   -2   -a  1  0        -2/3    2a/3    -1/3          0 1/2 1/2   2    2   0
 *        0  -a -1/2    b  1  0         1/6     b/6     1/3          0 a/2 -a/2  2b  -2b  1
 *        0   a -1/2   -b  1  0         1/6    -b/6     1/3
 *        0   1    0 -5/2  0  1          0       0       1           a = sqrt(1/2), b = sqrt(2)
 *
 * Both transforms run down the columns first, then along the rows, by the chains that ref/winograd_ref.c spells out.
 * An infinity or NaN in the input reaches the whole tile. */
#ifndef TERSE_KERNELS_WINOGRAD_H
#define TERSE_KERNELS_WINOGRAD_H

#define WINOGRAD_A 0.70710678118654752440
#define WINOGRAD_B 1.41421356237309504880

/* Outputs and inputs along each axis of a tile; points of the domain. */
enum { WINOGRAD_TILE = 4, WINOGRAD_WINDOW = 6, WINOGRAD_POINTS = 36 };

#endif
