/* SPDX-License-Identifier: Apache-2.0 */
/* window.h: the sliding window of convolutions and pools: attributes checked, output size computed.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing. */
#ifndef TERSE_OPS_WINDOW_H
#define TERSE_OPS_WINDOW_H

#include "common/ops/op.h"

/* Numbers of a window are at most this: products of two and a sum of such products stay below 2^63. */
#define TERSE_WINDOW_MAX ((int64_t)1 << 30)

/* Up to 3 spatial axes, right-aligned as the kernels want them: unused leading ones have size, kernel, stride and
 * dilation 1 and no padding. */
typedef struct terse_window {
    int rank; /* spatial axes: 1 to 3 */
    bool channels_last;
    int64_t n, channels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
} terse_window;

/* Reads x = input 0 ([N,C,spatial...], or [N,spatial...,C] with channels_last = 1) and the attributes strides,
 * dilations and kernel_shape. kernel_dims: the kernel's size where weights say it (kernel_shape must then agree). */
int terse_window_read(const terse_op_plan *plan, const int64_t *kernel_dims, terse_window *ret_window,
                      terse_error *error);
/* Reads pads and auto_pad and computes the size of the output; ceil_mode as ONNX has it for pools. */
int terse_window_slide(const terse_node *node, bool ceil_mode, terse_window *window, terse_error *error);
/* Both for a pool: no window may lie in the padding alone, none may have too many positions. */
int terse_window_pool(const terse_op_plan *plan, terse_window *ret_window, terse_error *error);
/* An integer-list attribute of exactly n numbers within bounds; `fallback` for all when it is absent. */
int terse_window_ints(const terse_node *node, const char *name, int n, int64_t fallback, int64_t min, int64_t max,
                      int64_t *ret_values, terse_error *error);
/* Dims of an output with `channels` channels; returns its rank. */
int terse_window_dims(const terse_window *window, int64_t channels, int64_t *ret_dims);
/* Pixels of one image, before and after; positions of the kernel. */
int64_t terse_window_pixels_in(const terse_window *window);
int64_t terse_window_pixels_out(const terse_window *window);

#endif
