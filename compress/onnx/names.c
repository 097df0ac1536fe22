/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

/* The slot where `name` is or would go. There is always a free one: the table is at most half full. */
static int slot_of(const terse_onnx_names *names, const char *name)
{
    const unsigned mask = (unsigned)names->capacity - 1;
    unsigned at = (unsigned)XXH3_64bits_withSeed(name, strlen(name), names->seed) & mask;
    while (names->slots[at] && strcmp(names->graph->values[names->slots[at] - 1].name, name) != 0)
        at = (at + 1) & mask;
    return (int)at;
}

int terse_onnx_names_find(const terse_onnx_names *names, const char *name)
{
    return names->n == 0 ? -1 : names->slots[slot_of(names, name)] - 1;
}

static bool enlarge(terse_onnx_names *names)
{
    if (names->capacity == 0 && getrandom(&names->seed, sizeof names->seed, GRND_NONBLOCK) < 0)
        names->seed = terse_now_ns();
    terse_onnx_names bigger = *names;
    bigger.capacity = names->capacity ? names->capacity * 2 : 256;
    bigger.slots = calloc((size_t)bigger.capacity, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (int i = 0; i < names->capacity; i++)
        if (names->slots[i])
            bigger.slots[slot_of(&bigger, names->graph->values[names->slots[i] - 1].name)] = names->slots[i];
    free(names->slots);
    *names = bigger;
    return true;
}

bool terse_onnx_names_add(terse_onnx_names *names, int value)
{
    if (names->n >= names->capacity / 2 && !enlarge(names))
        return false;
    names->slots[slot_of(names, names->graph->values[value].name)] = value + 1;
    names->n++;
    return true;
}
