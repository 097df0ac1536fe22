/* SPDX-License-Identifier: Apache-2.0 */
/* couple_parts.h: what couple_rules.c and couple_moves.c share; nobody else includes it.
 * Runs in: terse-compress. Owns nothing. */
#ifndef TERSE_PRUNE_COUPLE_PARTS_H
#define TERSE_PRUNE_COUPLE_PARTS_H

#include "compress/prune/couple.h"

static inline const terse_value *couple_value(const terse_couple *c, int value)
{
    return &c->edit->graph->values[value];
}

static inline bool couple_is_tracked(const terse_couple *c, int value)
{
    return value >= 0 && c->values[value].axis >= 0;
}

static inline bool couple_is_activation(const terse_couple *c, int value)
{
    return value >= 0 && !couple_value(c, value)->data;
}

#define COUPLE_MIXES "which mixes channels"

/* All that the node reads stays. */
void couple_pin_inputs(terse_couple *c, int node, const char *why);
/* `value` has channels along `axis`; room for their labels. NULL: that axis has no fixed size, or memory is out. */
int32_t *couple_give(terse_couple *c, int value, int axis);
/* The output has the labels of input 0 along `axis`. */
void couple_hand_on(terse_couple *c, int node, int output, int axis);
/* A constant list of integers. */
bool couple_input_ints(const terse_couple *c, int node, int slot, int64_t *values, int *ret_n);
/* All operands have the same channels. */
void couple_elementwise(terse_couple *c, int node);
/* couple_moves.c: operators that move elements. False: the node is none. */
bool couple_move(terse_couple *c, int node);

#endif
