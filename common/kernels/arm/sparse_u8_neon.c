/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/sparse_u8.h"
