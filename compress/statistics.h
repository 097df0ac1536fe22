/* SPDX-License-Identifier: Apache-2.0 */
/* statistics.h: `--correct statistics`: mean and deviation of what each layer gives, channel by channel, as they were
 * before low rank and pruning. Runs in: terse-compress (and the tests), between the passes PREPARE and FINISH.
 * Ownership: the graph is changed in place; everything else is borrowed.
 *
 * A layer that was fitted by least squares gives less than it did: what cannot be foretold is left out, and so layers
 * behind see ever smaller numbers (the reason for the "BN tuning" of He et al. 2018, arXiv:1802.03494, and the
 * statistics correction of Frantar and Alistarh 2022, arXiv:2208.11580). For y of the network as it was and y^ of the
 * corrected prefix, both before activation and shortcut, weights are multiplied by sd(y) / sd(y^) (between 1/2 and 2)
 * and the bias makes up for the means. */
#ifndef TERSE_COMPRESS_STATISTICS_H
#define TERSE_COMPRESS_STATISTICS_H

#include "common/npz.h"
#include "compress/passes/edit.h"

typedef struct terse_statistics_report {
    bool asked, kept;     /* kept: the outputs are closer to the teacher's with it */
    int layers;           /* that were corrected */
    double before, after; /* KL of classes, else noise over signal, on samples that nothing was measured on */
} terse_statistics_report;

/* `teacher`: the network before; layers are found by the names of what they give. Everything is put back where the
 * outputs are no closer with it. */
int terse_statistics_run(const terse_graph *teacher, terse_graph *graph, const terse_npz *data,
                         void (*progress)(void *context, const char *text), void *context,
                         terse_statistics_report *ret_report, terse_error *error);

#endif
