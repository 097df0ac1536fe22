/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/prune/kept.h"

#include <stdlib.h>
#include <string.h>

void terse_kept_done(terse_kept *kept)
{
    for (int i = 0; i < kept->n; i++) {
        free(kept->list[i].name);
        free(kept->list[i].channels);
    }
    free(kept->list);
    *kept = (terse_kept){0};
}

const terse_kept_value *terse_kept_find(const terse_kept *kept, const char *name)
{
    for (int i = 0; kept && i < kept->n; i++)
        if (strcmp(kept->list[i].name, name) == 0)
            return &kept->list[i];
    return NULL;
}
