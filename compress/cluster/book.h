/* SPDX-License-Identifier: Apache-2.0 */
/* book.h: a codebook for one layer, and the codes of its weights. Nobody outside of cluster/ and the tests includes it.
 * Ownership: the caller's. */
#ifndef TERSE_CLUSTER_BOOK_H
#define TERSE_CLUSTER_BOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_BOOK_MAX = 256 };

typedef struct terse_book {
    int n; /* entries, ascending, zero among them */
    double entries[TERSE_BOOK_MAX];
    double costs[TERSE_BOOK_MAX]; /* what a weight pays for this code beside its error */
} terse_book;

/* At most 2^bits entries (of 1 bit: 3). Lloyd's algorithm over n numbers of these weights (all > 0), from an even
 * spacing; zero is an entry that never moves, and numbers of zero are not counted. `entropy`: entries that are used
 * more cost less (Chou, Lookabaugh, Gray 1989, "Entropy-constrained vector quantization", section II). `integers`:
 * entries are integers of -127..127. The same numbers give the same book. False when memory is out. */
bool terse_book_make(const double *numbers, const double *weights, int64_t n, int bits, bool entropy, bool integers,
                     terse_book *ret_book);
/* The entry for a number: least weight * (number - entry)^2 + cost. */
int terse_book_code(const terse_book *book, double number, double weight);

/* assign.c: w [o][k] becomes entries times scales[o]. cov [k][k] (destroyed), or NULL: the product's inputs' second
 * moments. With it each column's error is made up for by the columns behind it, as GPTQ does (Frantar et al. 2023,
 * algorithm 1). Weights that are zero stay zero. `entropy`, `integers`, `bits` are the book's. False when memory is
 * out. */
typedef struct terse_assign {
    int64_t o, k;
    double *w;
    const double *scales;
    double *cov;
    int bits;
    bool entropy, integers;
    int64_t used[TERSE_BOOK_MAX]; /* out: weights of each code */
    double lost;                  /* out: what the outputs lose; without cov the weights themselves */
} terse_assign;
bool terse_assign_run(terse_assign *a, terse_book *ret_book);

#endif
