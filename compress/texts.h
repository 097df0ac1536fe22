/* SPDX-License-Identifier: Apache-2.0 */
/* texts.h: what a language model says by itself, as more samples: text to calibrate with is scarce, and what a network
 * answers to its own words is what its compressed form is to answer (Liu et al. 2023, "LLM-QAT", section 2.1).
 * Runs in: terse-compress (and the tests). Ownership: graph and samples are borrowed, what comes back is the caller's.
 */
#ifndef TERSE_COMPRESS_TEXTS_H
#define TERSE_COMPRESS_TEXTS_H

#include "common/graph/graph.h"
#include "common/npz.h"
#include "compress/samples.h"

enum { TERSE_TEXTS_WRITERS = 2, TERSE_TEXTS_MEMORY = 32 << 20 /* what is lent to each for guesses */ };

typedef struct terse_texts_options {
    double work;    /* multiply-accumulates that writing may take */
    int64_t tokens; /* with the samples there shall be so many, at most */
    uint64_t seed;
    size_t memory; /* bytes that each writer may remember for guesses (drafts.h); 0: a run for each token. The texts are
                    * the same but for what rounds otherwise in longer runs */
    void (*progress)(void *context, const char *text); /* or NULL */
    void *context;
    int64_t *ret_runs; /* NULL, or: texts that were read, a run of several counting each */
} terse_texts_options;

/* How many texts each writer has at a time, and so how many samples' numbers; 0: by its form no language model. */
int64_t terse_texts_rows(const terse_graph *graph, const terse_samples *samples);

/* The samples, and behind them texts of equal length that `graph` (after all passes that keep its numbers) continues
 * from the beginnings of samples, each token drawn from its own probabilities. A language model has one input of
 * integers [N,T] and one output of floats [N,T,V], of which rows do not depend on later tokens and foretell the next
 * one of the samples better than nothing would; anything else, and what would take too much work, writes nothing:
 * *ret_npz is NULL then, and *ret_texts 0. Labels are left out. The same whatever the machine's threads. */
int terse_texts_write(const terse_graph *graph, const terse_npz *data, const terse_texts_options *options,
                      terse_npz **ret_npz, int64_t *ret_texts, terse_error *error);

#endif
