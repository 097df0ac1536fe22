/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/choices.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void terse_choices_done(terse_choices *choices)
{
    free(choices->list);
    *choices = (terse_choices){0};
}

/* Names are kept as far as a choice has room for them. */
static bool names(const terse_choice *c, const char *node, size_t length)
{
    const size_t room = TERSE_CHOICE_NAME - 1, kept = length < room ? length : room;
    return strlen(c->name) == kept && strncmp(c->name, node, kept) == 0;
}

const terse_choice *terse_choices_find(const terse_choices *choices, const char *node)
{
    const size_t length = strlen(node);
    for (int i = 0; i < choices->n; i++)
        if (names(&choices->list[i], node, length))
            return &choices->list[i];
    for (size_t cut = length; cut > 0; cut--)
        for (int i = 0; node[cut] == '/' && i < choices->n; i++)
            if (names(&choices->list[i], node, cut))
                return &choices->list[i];
    return NULL;
}

terse_choice *terse_choices_add(terse_choices *choices, const char *name)
{
    terse_choice *list = realloc(choices->list, ((size_t)choices->n + 1) * sizeof *list);
    if (!list)
        return NULL;
    choices->list = list;
    terse_choice *c = &list[choices->n++];
    *c = (terse_choice){0};
    snprintf(c->name, sizeof c->name, "%s", name);
    return c;
}

const char *terse_choice_text(const terse_choice *c, char *text, unsigned long size)
{
    size_t at = 0;
    text[0] = 0;
    if (c->rank > 0 && c->rank_in > 0)
        at += (size_t)snprintf(text + at, size - at, "%s %" PRId64 "x%" PRId64, c->form, c->rank_in, c->rank);
    else if (c->rank > 0)
        at += (size_t)snprintf(text + at, size - at, "%s rank %" PRId64, c->form, c->rank);
    if (c->prune > 0 && at < size)
        at += (size_t)snprintf(text + at, size - at, "%s4x1 %.0f %%", at ? ", " : "", 100.0 * c->prune);
    if (c->cluster > 0 && at < size)
        at += (size_t)snprintf(text + at, size - at, "%s%d bits", at ? ", " : "", c->cluster);
    if (c->keep_float && at < size)
        at += (size_t)snprintf(text + at, size - at, "%sFP32", at ? ", " : "");
    if (at == 0)
        snprintf(text, size, "dense");
    return text;
}

const char *terse_choice_becomes(const terse_choice *c, char *text, unsigned long size)
{
    terse_choice_text(c, text, size);
    const size_t at = strlen(text);
    if (c->kept > 0 && c->kept < 1)
        snprintf(text + at, size - at, ", %.0f %% left", 100.0 * c->kept);
    return text;
}

bool terse_choice_same(const terse_choice *a, const terse_choice *b)
{
    return strcmp(a->form, b->form) == 0 && a->rank == b->rank && a->rank_in == b->rank_in && a->prune == b->prune &&
           a->cluster == b->cluster && a->keep_float == b->keep_float;
}
