/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/v16.h"
#undef TIER
#define TIER neondot
#include "common/kernels/vec/sparse_tile.h"
