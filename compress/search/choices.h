/* SPDX-License-Identifier: Apache-2.0 */
/* choices.h: what each layer becomes, where layers differ: low rank, pruning and clustering ask here.
 * Runs in: terse-compress (and the tests). Ownership: choices own their list. */
#ifndef TERSE_SEARCH_CHOICES_H
#define TERSE_SEARCH_CHOICES_H

#include <stdbool.h>
#include <stdint.h>

enum { TERSE_CHOICE_NAME = 96, TERSE_CHOICE_WHY = 160, TERSE_CHOICE_REFUSED = 3 };

typedef struct terse_choice {
    char name[TERSE_CHOICE_NAME]; /* of the layer's node */
    char form[16];                /* of low rank, as --low-rank names it; "" with rank 0 */
    int64_t rank, rank_in;        /* 0: dense */
    double prune;                 /* share of 4x1 blocks that go; 0: none */
    int cluster;                  /* bits; 0: not clustered */
    bool keep_float;              /* stays FP32 where the others are int8 */
    /* what the search knows of it; nothing depends on these */
    double kept;                 /* share of its weights that is left where channels go in front of that; 0: all */
    char left[TERSE_CHOICE_WHY]; /* "48 of 64 outputs left", or why none of its channels go; "" with all channels */
    double us, cost;             /* of this choice, as measured; cost: what the network's outputs lose by it alone */
    int64_t bytes;
    char why[TERSE_CHOICE_WHY];
    char refused[TERSE_CHOICE_REFUSED][TERSE_CHOICE_WHY];
    int n_refused;
} terse_choice;

typedef struct terse_choices {
    terse_choice *list;
    int n;
} terse_choices;

void terse_choices_done(terse_choices *choices); /* accepts a zeroed one */
/* That of a layer, or of the layer that a node was made of ("NAME/..."); NULL when there is none. */
const terse_choice *terse_choices_find(const terse_choices *choices, const char *node);
/* Appends a dense one of that name; NULL when memory is out. */
terse_choice *terse_choices_add(terse_choices *choices, const char *name);
/* "rank 48 (channel), 4x1 50 %, 6 bits", "FP32", "dense"; writes and returns `text`. */
const char *terse_choice_text(const terse_choice *choice, char *text, unsigned long size);
/* The same with what channels leave of it: "dense, 56 % left". */
const char *terse_choice_becomes(const terse_choice *choice, char *text, unsigned long size);
bool terse_choice_same(const terse_choice *a, const terse_choice *b);

#endif
