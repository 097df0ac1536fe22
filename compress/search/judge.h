/* SPDX-License-Identifier: Apache-2.0 */
/* judge.h: how much worse a network answers than the original, on samples that nothing was fitted to, and how long a
 * run takes. Runs in: terse-compress (and the tests). Ownership: a judge borrows graph and samples and owns the
 * original's answers.
 *
 * Where output 0 is FP32 [samples, classes], the drop is one of top-1, in points. With labels: right answers lost, and
 * at least what is said next. Without: what the original itself expects to lose. Of a sample whose largest output the
 * network moves from class a to class b, the original holds a right with probability p_a and b with p_b, so p_a - p_b
 * of a sample is expected to be lost; samples whose class stays lose nothing. That is far less noisy than counting
 * changed answers, most of which lie near a tie. For all other networks the drop is the share of the outputs' power
 * that is noise, in percent. */
#ifndef TERSE_SEARCH_JUDGE_H
#define TERSE_SEARCH_JUDGE_H

#include "compress/samples.h"

typedef struct terse_judge terse_judge;

typedef struct terse_verdict {
    double drop, low, high; /* points or percent, with the 95 % interval */
    double agreement, kl;   /* NAN: no classifier */
} terse_verdict;

/* Runs `original` on the samples of `held` (inputs by name, labels optional). */
int terse_judge_new(const terse_graph *original, const terse_npz *held, terse_judge **ret_judge, terse_error *error);
void terse_judge_free(terse_judge *judge);
int64_t terse_judge_samples(const terse_judge *judge);
bool terse_judge_classifies(const terse_judge *judge);
bool terse_judge_has_labels(const terse_judge *judge);
int terse_judge_run(const terse_judge *judge, const terse_graph *graph, terse_verdict *ret_verdict, terse_error *error);

/* Microseconds of a run of `batch` samples with `threads` threads, the lower quartile of many (what else the machine
 * does only adds): of `graph`, and of `beside` in turn with it (NULL: alone). UNIMPLEMENTED where the network does not
 * take such a batch. */
int terse_judge_time(const terse_judge *judge, const terse_graph *graph, const terse_graph *beside, int64_t batch,
                     int threads, double *ret_us, double *ret_beside_us, terse_error *error);

/* Every n-th sample of `data` goes to *ret_held, the others to *ret_fit; at most `most` each, evenly spread. A sample
 * is as many rows of axis 0 as `graph` fixes. INVALID_ARGUMENT where fewer than 2 samples are there. */
int terse_judge_split(const terse_graph *graph, const terse_npz *data, int n, int64_t most, terse_npz **ret_fit,
                      terse_npz **ret_held, terse_error *error);
/* Those samples, in that order. */
int terse_judge_pick(const terse_graph *graph, const terse_npz *data, const int64_t *picked, int64_t count,
                     terse_npz **ret_npz, terse_error *error);
/* At most `most` of the samples, evenly spread; and a copy of all of them. */
int terse_judge_some(const terse_graph *graph, const terse_npz *data, int64_t most, terse_npz **ret_npz,
                     terse_error *error);
int terse_judge_copy(const terse_npz *data, terse_npz **ret_npz, terse_error *error);

#endif
