/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/v16.h"
#undef TIER
#define TIER neondot
#define WEIGHTS_S4_ONLY /* the other product has nothing to gain from dot products of bytes */
#include "common/kernels/vec/weights_s4.h"
