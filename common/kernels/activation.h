/* SPDX-License-Identifier: Apache-2.0 */
/* activation.h: the activations that products apply in their epilogue.
 * Runs in: terse-worker, terse run, terse-compress. */
#ifndef TERSE_KERNELS_ACTIVATION_H
#define TERSE_KERNELS_ACTIVATION_H

/* Applied after bias and residual. */
typedef enum terse_activation_kind {
    TERSE_ACT_NONE = 0,
    TERSE_ACT_CLIP,       /* min(max(x, alpha), beta): Relu is alpha 0, beta inf */
    TERSE_ACT_LEAKY_RELU, /* x < 0 ? alpha * x : x */
    TERSE_ACT_SIGMOID,
    TERSE_ACT_HARD_SIGMOID, /* max(0, min(1, alpha * x + beta)) */
    TERSE_ACT_HARD_SWISH,   /* x * max(0, min(1, x / 6 + 0.5)) */
    TERSE_ACT_TANH,
    TERSE_ACT_GELU,  /* 0.5 x (1 + erf(x / sqrt 2)) */
    TERSE_ACT_SWISH, /* x * sigmoid(x) */
} terse_activation_kind;

typedef struct terse_activation {
    terse_activation_kind kind;
    float alpha, beta;
} terse_activation;

#endif
