/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that tier avx512bf16 has in place of those of avx512vnni. */
#include "common/kernels/tables.h"

void terse_kernels_override_avx512bf16(terse_kernels *table)
{
    (void)table; /* none yet */
}
