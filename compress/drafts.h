/* SPDX-License-Identifier: Apache-2.0 */
/* drafts.h: how a language model draws its next token, and a guess of it from what it said behind the same words.
 * Runs in: terse-compress (and the tests). Ownership: what _new gives is the caller's; one thread at a time.
 *
 * A token is drawn by the Gumbel-max trick: the largest sum of a logit and noise that depends on `lot` and the token
 * alone (Gumbel 1954; Maddison et al. 2014, "A* sampling", section 2). A guess takes logits that were remembered and
 * the same noise, so it is often right, and what it says does not change what is drawn: guesses are read along with
 * the text, and every right one saves a run of the network (Leviathan et al. 2023, "Fast inference from transformers
 * via speculative decoding", with this for a model). */
#ifndef TERSE_COMPRESS_DRAFTS_H
#define TERSE_COMPRESS_DRAFTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct terse_drafts terse_drafts;

/* splitmix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014): a lot from a key. */
uint64_t terse_drafts_mixed(uint64_t key);

/* Do `bytes` hold logits behind enough words for guesses to be right at times? (32 MiB do for up to 4,000 tokens.) */
bool terse_drafts_pay(int64_t tokens, size_t bytes);
/* Room for logits behind as many words as `bytes` hold; NULL where that does not pay, or there is no memory: the
 * functions below accept it, nothing is remembered then and nothing guessed. */
terse_drafts *terse_drafts_new(int64_t tokens, size_t bytes);
void terse_drafts_free(terse_drafts *drafts);

/* The token that follows, of logits [n]. */
int64_t terse_drafts_draw(const float *logits, int64_t n, uint64_t lot);
/* `logits` are what the network says behind text[0..place). */
void terse_drafts_remember(terse_drafts *drafts, const int64_t *text, int64_t place, const float *logits);
/* What is drawn behind text[0..place), by what was said last behind its last three tokens, two or one; -1: nothing. */
int64_t terse_drafts_guess(const terse_drafts *drafts, const int64_t *text, int64_t place, uint64_t lot);

#endif
