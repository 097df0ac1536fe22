/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/drafts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 3, FEWEST = 2048 };

/* Slots by their words alone: later ones take the place of earlier ones. */
struct terse_drafts {
    int64_t tokens, slots;
    uint64_t *words; /* [slots], 0: free */
    float *logits;   /* [slots][tokens] */
};

uint64_t terse_drafts_mixed(uint64_t key)
{
    uint64_t z = key + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t slots_in(int64_t tokens, size_t bytes)
{
    return (int64_t)(bytes / ((size_t)tokens * sizeof(float) + sizeof(uint64_t)));
}

bool terse_drafts_pay(int64_t tokens, size_t bytes)
{
    return slots_in(tokens, bytes) >= FEWEST;
}

terse_drafts *terse_drafts_new(int64_t tokens, size_t bytes)
{
    const int64_t slots = slots_in(tokens, bytes);
    terse_drafts *drafts = slots < FEWEST ? NULL : calloc(1, sizeof *drafts);
    if (!drafts)
        return NULL;
    *drafts = (terse_drafts){.tokens = tokens,
                             .slots = slots,
                             .words = calloc((size_t)slots, sizeof *drafts->words),
                             .logits = malloc((size_t)(slots * tokens) * sizeof *drafts->logits)};
    if (drafts->words && drafts->logits)
        return drafts;
    terse_drafts_free(drafts);
    return NULL;
}

void terse_drafts_free(terse_drafts *drafts)
{
    if (!drafts)
        return;
    free(drafts->words);
    free(drafts->logits);
    free(drafts);
}

int64_t terse_drafts_draw(const float *logits, int64_t n, uint64_t lot)
{
    int64_t best = 0;
    double most = -(double)INFINITY;
    for (int64_t i = 0; i < n; i++) {
        /* Above 0 and below 1. */
        const double u = ((double)(terse_drafts_mixed(lot + (uint64_t)i) >> 12) + 0.5) / 4503599627370496.0;
        const double sum = (double)logits[i] - log(-log(u));
        if (sum > most) {
            most = sum;
            best = i;
        }
    }
    return best;
}

/* Of the last n tokens before `place`. */
static uint64_t words_of(const int64_t *text, int64_t place, int n)
{
    uint64_t words = (uint64_t)n;
    for (int k = 1; k <= n; k++)
        words = terse_drafts_mixed(words) ^ (uint64_t)text[place - k];
    words = terse_drafts_mixed(words);
    return words ? words : 1;
}

void terse_drafts_remember(terse_drafts *drafts, const int64_t *text, int64_t place, const float *logits)
{
    for (int n = 1; drafts && n <= LONGEST && n <= place; n++) {
        const uint64_t words = words_of(text, place, n);
        const int64_t slot = (int64_t)(words % (uint64_t)drafts->slots);
        drafts->words[slot] = words;
        memcpy(drafts->logits + slot * drafts->tokens, logits, (size_t)drafts->tokens * sizeof *logits);
    }
}

int64_t terse_drafts_guess(const terse_drafts *drafts, const int64_t *text, int64_t place, uint64_t lot)
{
    for (int n = LONGEST; drafts && n > 0; n--) {
        if (n > place)
            continue;
        const uint64_t words = words_of(text, place, n);
        const int64_t slot = (int64_t)(words % (uint64_t)drafts->slots);
        if (drafts->words[slot] == words)
            return terse_drafts_draw(drafts->logits + slot * drafts->tokens, drafts->tokens, lot);
    }
    return -1;
}
