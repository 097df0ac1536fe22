/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that tier avx2vnni has in place of those of avx2. */
#include "common/kernels/tables.h"

void terse_kernels_override_avx2vnni(terse_kernels *table)
{
    (void)table; /* none yet */
}
