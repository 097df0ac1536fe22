/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kernels/vec/dot_finish_panels.h"
