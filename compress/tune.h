/* SPDX-License-Identifier: Apache-2.0 */
/* tune.h: algorithms and tiles chosen by measuring the network on this machine, once, at compress time.
 * Runs in: terse-compress (and the tests). Ownership: graphs are changed in place, in attributes only.
 *
 * The network runs with each candidate in turn, several rounds, and each node keeps what was fastest for it there, if
 * that beats the fixed choice by more than what rounds differ. What is stored:
 *
 *   Conv, 3x3     `algorithm` = "winograd" or "direct": decides about the layout of the weights, so for all tiers
 *   QConv, QGemm  `tuned_<isa>` = [rows of a tile, bytes of a part of the weights]: read on that tier only; it changes
 * no bit
 *
 * Files made elsewhere, or with --no-tune, run on fixed choices. Measured choices differ from run to run: --no-tune
 * gives the same file for the same input. */
#ifndef TERSE_COMPRESS_TUNE_H
#define TERSE_COMPRESS_TUNE_H

#include "common/graph/graph.h"

/* Before the passes FINISH. A network that cannot be run with its free dimensions at 1 keeps the fixed choices. */
int terse_tune_algorithms(terse_graph *graph, terse_error *error);
/* Instead of it, where small files are asked for: Winograd's weights take four times the bytes. */
int terse_tune_direct(terse_graph *graph, terse_error *error);
/* Behind them. */
int terse_tune_tiles(terse_graph *graph, terse_error *error);

/* The least time of each node, in ns, of two ways to run a network, measured in turn with symbols of 1 and made-up
 * inputs. Arrays of n_nodes, malloc'd; NULL when the network cannot be run like that, which is no error. b may be NULL:
 * then only `a` is measured. */
int terse_tune_times(const terse_graph *a, const terse_graph *b, uint64_t **ret_a, uint64_t **ret_b,
                     terse_error *error);

#endif
