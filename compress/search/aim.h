/* SPDX-License-Identifier: Apache-2.0 */
/* aim.h: predictions beside what was measured: how far off the table is, what to aim at so that a goal is really
 * reached, what is worth training.
 * Runs in: terse-compress (and the tests). Pure numbers; nothing is owned.
 *
 * Layers that were timed alone save less together than the sum of what each saves: caches are shared, and what is fused
 * behind a dense layer stands alone behind a chain. So one number is learnt from each network that was built: `saves`,
 * the share of the predicted saving that there was. Missing a target by 0.7 % then makes the next network deeper by as
 * much as the last one was off, in the place of a step of fixed size. */
#ifndef TERSE_SEARCH_AIM_H
#define TERSE_SEARCH_AIM_H

#include <stdbool.h>
#include <stdint.h>

/* What a network should take where `dense` is what it takes without options, and the table's sum is `model`; and what
 * the table's sum has to be for it to take `wanted`. */
double terse_aim_corrected(double dense, double model, double saves);
double terse_aim_model(double dense, double wanted, double saves);
/* `saves` as that network says, which took `found`; unchanged where too little was to be saved to tell. */
double terse_aim_learn(double saves, double dense, double model, double found);

/* What to aim at for a target. Times differ from run to run, and a network that is trained is timed again: for them it
 * is a little less than the target. */
double terse_aim_for(double target, bool bytes);
/* Light enough, and no lighter than it has to be. */
bool terse_aim_is_there(double found, double target);
/* Where nothing learns from what was measured (bytes): the next aim. */
double terse_aim_again(double aim, double found, double target);

/* Two budgets of a network that weighs `all` without options: do they differ so little that they are the same? */
bool terse_aim_is_same(double low, double high, double all);

/* By how much a time misses its target, in percent, rounded up: less than that is noise. 0: it does not. */
double terse_aim_missed(double us, double target);

/* bfloat16 halves what is read and doubles the products of an instruction: can it still be the fastest, or within the
 * target (0: none), where what loses least wins? */
bool terse_aim_bf16_may_win(double us_fp32, double us_int8, double target);

/* What is worth training: it is at the target, or misses it by so little that training it tells something. */
bool terse_aim_is_near(double us, double target);
/* Is a the more promising one? What is at the target is, then what loses less. */
bool terse_aim_is_more_promising(double us_a, double drop_a, double us_b, double drop_b, double target);
/* Among how many of n networks those seconds are divided: each is built, and so many epochs of it must follow (0: a
 * few); at least one. */
int terse_aim_divide(double seconds, double build_seconds, double epoch_seconds, int64_t epochs, int n);

#endif
