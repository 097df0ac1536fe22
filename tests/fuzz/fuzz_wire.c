/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_wire.c: headers of requests and replies from outside. What is accepted must survive a round trip. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static terse_wire_request request, again;
static terse_wire_reply reply;
static uint8_t encoded[TERSE_WIRE_HEADER_BYTES * 2];

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_wire: %s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    terse_error error;
    size_t used = 0;
    if (terse_wire_decode_request(data, size, &request, &error) == TERSE_OK) {
        require(request.n_inputs <= TERSE_WIRE_MAX_IO && request.has_id, "limits of a request");
        require(!terse_wire_encode_request(&request, encoded, sizeof encoded, &used, &error), error.message);
        require(!terse_wire_decode_request(encoded, used, &again, &error), error.message);
        require(again.op == request.op && again.id == request.id && again.n_inputs == request.n_inputs &&
                    again.n_outputs == request.n_outputs && again.model.length == request.model.length,
                "a request changed on its way");
    }
    if (terse_wire_decode_reply(data, size, &reply, &error) == TERSE_OK)
        require(reply.n_outputs <= TERSE_WIRE_MAX_IO && reply.n_models <= TERSE_WIRE_MAX_MODELS, "limits of a reply");
    return 0;
}

#ifndef TERSE_LIBFUZZER
static int replayed;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    require(file != NULL, path);
    static uint8_t bytes[TERSE_WIRE_STATS_BYTES + 1];
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizers see every byte read beyond the end */
    require(exact != NULL, "memory");
    memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    /* Neighbours of each case: every prefix, and every byte changed in a few ways. */
    for (size_t cut = 0; size < 4096 && cut < size; cut++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x5a};
        for (size_t f = 0; f < sizeof flips; f++) {
            exact[cut] ^= flips[f];
            LLVMFuzzerTestOneInput(exact, size);
            exact[cut] ^= flips[f];
        }
        LLVMFuzzerTestOneInput(exact, cut);
    }
    free(exact);
    replayed++;
}

static void replay(const char *path)
{
    struct stat about;
    require(stat(path, &about) == 0, path);
    if (!S_ISDIR(about.st_mode)) {
        replay_file(path);
        return;
    }
    DIR *folder = opendir(path);
    require(folder != NULL, path);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        replay_file(name);
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("%d cases replayed\n", replayed);
    return replayed > 0 ? 0 : 1;
}
#endif
