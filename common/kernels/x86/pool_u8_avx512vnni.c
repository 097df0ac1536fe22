/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/pool_u8.h"
