/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/products_bf16.h"
