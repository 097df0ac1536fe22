/* SPDX-License-Identifier: Apache-2.0 */
/* resize_taps.h: which input elements, with which weights, make each output element along one axis of a Resize.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing: tables are in the plan's arena. */
#ifndef TERSE_OPS_RESIZE_TAPS_H
#define TERSE_OPS_RESIZE_TAPS_H

#include "common/ops/op.h"

typedef enum resize_mode { RESIZE_NEAREST, RESIZE_LINEAR, RESIZE_CUBIC } resize_mode;

typedef enum resize_coordinates {
    RESIZE_HALF_PIXEL,
    RESIZE_HALF_PIXEL_SYMMETRIC,
    RESIZE_PYTORCH_HALF_PIXEL,
    RESIZE_ALIGN_CORNERS,
    RESIZE_ASYMMETRIC,
    RESIZE_TF_CROP_AND_RESIZE,
    RESIZE_TF_HALF_PIXEL_FOR_NN,
} resize_coordinates;

typedef enum resize_nearest {
    RESIZE_ROUND_PREFER_FLOOR,
    RESIZE_ROUND_PREFER_CEIL,
    RESIZE_FLOOR,
    RESIZE_CEIL,
} resize_nearest;

typedef struct resize_rule {
    resize_mode mode;
    resize_coordinates coordinates;
    resize_nearest nearest;
    bool antialias, exclude_outside;
    double cubic_a;
} resize_rule;

typedef struct resize_axis {
    int axis;
    int64_t in, out;
    double scale, roi_start, roi_end;
    int64_t taps;   /* per output element; 1 when nearest */
    int64_t *first; /* out of them: the first input element, or -1: the extrapolation value */
    float *weights; /* out * taps; NULL when nearest */
} resize_axis;

/* Reads mode and friends from the node's attributes. */
int terse_resize_rule(const terse_node *node, resize_rule *ret_rule, terse_error *error);
/* Whether the axis is copied as it is. */
bool terse_resize_identity(const resize_rule *rule, const resize_axis *axis);
/* Fills taps, first and weights; in and out are at least 1, scale is at least 1 / in. */
int terse_resize_taps(const resize_rule *rule, terse_arena *arena, resize_axis *axis, terse_error *error);

#endif
