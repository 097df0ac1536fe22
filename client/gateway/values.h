/* SPDX-License-Identifier: Apache-2.0 */
/* values.h: the numbers of a tensor as JSON: the member "data" of inputs and outputs.
 * Runs in: terse-gateway. Ownership: what terse_values_read gives is the caller's to free. */
#ifndef TERSE_GATEWAY_VALUES_H
#define TERSE_GATEWAY_VALUES_H

#include "client/gateway/scan.h"
#include "client/gateway/text.h"
#include "common/tensor.h"

/* Reads the array at the scan, flat or nested as the shape says (or partly: an array of numbers at depth k has all
 * those of the axes from k on), into new memory at tensor->data. Numbers of floating types are rounded to nearest, ties
 * to even; what would be rounded to an infinity is refused, as are whole numbers beyond their type. */
terse_status terse_values_read(terse_scan *scan, terse_tensor *tensor, terse_error *error);

/* Written flat. */
void terse_values_write(terse_text *text, terse_dtype dtype, const void *data, size_t count);
/* Element `index` as a double. */
double terse_values_at(terse_dtype dtype, const void *data, size_t index);

#endif
