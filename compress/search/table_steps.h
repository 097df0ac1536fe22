/* SPDX-License-Identifier: Apache-2.0 */
/* table_steps.h: the steps of making a table, for the files of this folder. */
#ifndef TERSE_SEARCH_TABLE_STEPS_H
#define TERSE_SEARCH_TABLE_STEPS_H

#include <stdarg.h>

#include "compress/quantize/replay.h"
#include "compress/search/table.h"

struct terse_table_state {
    terse_samples samples;
    terse_replay *replay;
    terse_arena *arena; /* weights of the options */
    bool has_rows;      /* losses are nats of output 0's rows, else shares of power */
};

void terse_table_refuse(terse_table_layer *layer, const char *format, ...) __attribute__((format(printf, 2, 3)));
terse_table_option *terse_table_add(terse_table_layer *layer, terse_table_kind kind); /* NULL: no room */

/* table_sparse.c: adds 4x1 options that are faster, without weights and losses. */
int terse_table_time_sparse(terse_table *table, const terse_npz *fit, const terse_table_options *options,
                            terse_error *error);
/* table_fit.c: samples walk through the network; adds chains and clusters, and gives all options their weights.
 * *ret_seconds: of one sample through all nodes. */
int terse_table_walk(terse_table *table, const terse_table_options *options, double *ret_seconds, terse_error *error);

#endif
