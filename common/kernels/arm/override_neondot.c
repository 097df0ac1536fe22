/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that tier neondot has in place of those of neon. */
#include "common/kernels/tables.h"

void terse_kernels_override_neondot(terse_kernels *table)
{
    (void)table; /* none yet */
}
