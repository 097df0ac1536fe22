/* SPDX-License-Identifier: Apache-2.0 */
/* split_parts.h: what split.c and split_*.c share; nobody else includes it.
 * Runs in: terse-worker, terse run. Owns nothing. */
#ifndef TERSE_GRAPH_SPLIT_PARTS_H
#define TERSE_GRAPH_SPLIT_PARTS_H

#include "common/graph/split.h"

/* Cuts 0..units-1 into ranges whose bounds are multiples of `align`, about `parts_wanted` of them, and calls
 * run(context, first, last, thread) for each. */
typedef void terse_split_piece(void *context, int64_t first, int64_t last, int thread);
void terse_split_spread(const terse_split *split, int64_t units, int64_t align, int64_t parts_wanted,
                        terse_split_piece *run, void *context);
/* The range that is part `index` of `parts`, as the former cuts them; it may be empty. */
void terse_split_part(int64_t units, int64_t align, int64_t parts, int64_t index, int64_t *ret_first,
                      int64_t *ret_last);
/* How many parts a product is worth: 1 when it is too little to share. */
int64_t terse_split_parts(const terse_split *split, double macs);
/* The split that this thread works for. */
const terse_split *terse_split_current(void);

/* Bytes of an element of the output; what belongs to columns or rows from `first` on. */
size_t terse_split_sum_bytes(const terse_requantize *requantize);
void terse_split_requantize_columns(terse_requantize *requantize, int64_t first);
void terse_split_requantize_rows(terse_requantize *requantize, int64_t first);

/* Each fills its fields of a table, those that the tier has. */
void terse_split_products(terse_kernels *table);
void terse_split_convolutions(terse_kernels *table);
void terse_split_pools(terse_kernels *table);
void terse_split_elements(terse_kernels *table);

#define TERSE_SPLIT_REPLACE(table, field)                                                                              \
    if ((table)->field)                                                                                                \
    (table)->field = field

#endif
