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

bool terse_kept_copy(const terse_kept *from, terse_kept *ret_kept)
{
    terse_kept kept = {.list = calloc((size_t)from->n + 1, sizeof *kept.list)};
    bool good = kept.list != NULL;
    for (int i = 0; good && i < from->n; i++) {
        const terse_kept_value *v = &from->list[i];
        terse_kept_value *to = &kept.list[kept.n++];
        *to = *v;
        to->name = strdup(v->name);
        to->channels = malloc((size_t)v->n * sizeof *to->channels + 1);
        good = to->name && to->channels;
        if (good)
            memcpy(to->channels, v->channels, (size_t)v->n * sizeof *to->channels);
    }
    if (!good) {
        terse_kept_done(&kept);
        return false;
    }
    *ret_kept = kept;
    return true;
}

const terse_kept_value *terse_kept_find(const terse_kept *kept, const char *name)
{
    for (int i = 0; kept && i < kept->n; i++)
        if (strcmp(kept->list[i].name, name) == 0)
            return &kept->list[i];
    return NULL;
}
