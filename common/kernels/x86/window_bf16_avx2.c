/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/window_bf16.h"
