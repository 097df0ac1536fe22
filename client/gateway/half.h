/* SPDX-License-Identifier: Apache-2.0 */
/* half.h: one number between FP64 and the two types of 16 bits, FP16 and BF16.
 * Runs in: terse-gateway. Owns nothing. */
#ifndef TERSE_GATEWAY_HALF_H
#define TERSE_GATEWAY_HALF_H

#include <stdbool.h>
#include <stdint.h>

#include "common/tensor.h"

/* Rounds to nearest, ties to even, in one step: by way of FP32 a number could be rounded twice. Infinities and NaN stay
 * what they are; false when a finite number would become an infinity. */
bool terse_half_from(terse_dtype dtype, double value, uint16_t *ret_half);
/* Exact. */
float terse_half_to(terse_dtype dtype, uint16_t half);
/* The largest finite number. */
float terse_half_max(terse_dtype dtype);

#endif
