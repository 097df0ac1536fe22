/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/train/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

static const char magic[8] = {'T', 'E', 'R', 'S', 'E', 'T', 'R', 'N'};
enum { VERSION = 4, N_PARTS = 8 };

typedef struct header {
    char magic[8];
    uint32_t version, zero;
    uint64_t hash, key;
} header;

typedef struct part {
    void *data;
    size_t bytes;
} part;

static void parts_of(const terse_train_state *s, part *parts)
{
    const terse_parameters *p = s->parameters;
    const size_t numbers = (size_t)p->n_numbers * sizeof(float),
                 statistics = (size_t)p->n_statistic_numbers * sizeof(float);
    parts[0] = (part){(void *)(uintptr_t)&s->marks, sizeof s->marks};
    parts[1] = (part){p->weights, numbers};
    parts[2] = (part){p->first, numbers};
    parts[3] = (part){p->second, numbers};
    parts[4] = (part){p->averaged, numbers};
    parts[5] = (part){p->running, statistics};
    parts[6] = (part){s->best, numbers + statistics};
    parts[7] = (part){s->least, (size_t)s->n_held * sizeof *s->least};
}

int terse_checkpoint_write(const char *path, const terse_train_state *state, terse_error *error)
{
    part parts[N_PARTS];
    header h = {.version = VERSION, .key = state->key};
    terse_atomic_file file;
    memcpy(h.magic, magic, sizeof magic);
    parts_of(state, parts);
    for (int i = 0; i < N_PARTS; i++)
        h.hash = XXH3_64bits_withSeed(parts[i].data, parts[i].bytes, h.hash);
    int status = terse_atomic_open(path, &file, error);
    if (status != TERSE_OK)
        return status;
    bool good = terse_write_full(file.fd, &h, sizeof h);
    for (int i = 0; i < N_PARTS; i++)
        good = good && terse_write_full(file.fd, parts[i].data, parts[i].bytes);
    status = good ? terse_atomic_commit(&file, false, error)
                  : terse_fail(error, TERSE_SYSTEM, "cannot write checkpoint '%.200s'", path);
    terse_atomic_discard(&file);
    return status;
}

static int take(const char *path, const char *bytes, size_t size, terse_train_state *state, terse_error *error)
{
    part parts[N_PARTS];
    header h;
    size_t wanted = sizeof h;
    parts_of(state, parts);
    for (int i = 0; i < N_PARTS; i++)
        wanted += parts[i].bytes;
    if (size < sizeof h || memcmp(bytes, magic, sizeof magic) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%.200s' is no checkpoint of a training", path);
    memcpy(&h, bytes, sizeof h);
    if (h.version != VERSION)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "checkpoint '%.200s' has version %u, this program reads %d",
                          path, h.version, VERSION);
    if (h.key != state->key || size != wanted)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "checkpoint '%.200s' belongs to another training: other networks, samples or options", path);
    uint64_t hash = 0;
    const char *at = bytes + sizeof h;
    for (int i = 0; i < N_PARTS; at += parts[i].bytes, i++)
        hash = XXH3_64bits_withSeed(at, parts[i].bytes, hash);
    if (hash != h.hash)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "checkpoint '%.200s' is damaged", path);
    at = bytes + sizeof h;
    for (int i = 0; i < N_PARTS; at += parts[i].bytes, i++)
        if (parts[i].bytes)
            memcpy(parts[i].data, at, parts[i].bytes);
    return TERSE_OK;
}

int terse_checkpoint_read(const char *path, terse_train_state *state, terse_error *error)
{
    const void *base = NULL;
    size_t size = 0;
    if (access(path, F_OK) < 0)
        return terse_fail(error, TERSE_NOT_FOUND, "there is no checkpoint '%.200s'", path);
    int status = terse_file_map(path, &base, &size, error);
    if (status != TERSE_OK)
        return status;
    status = take(path, base, size, state, error);
    if (base)
        munmap((void *)(uintptr_t)base, size);
    return status;
}
