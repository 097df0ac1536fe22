/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/conv_u8.h"
