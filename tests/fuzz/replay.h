/* SPDX-License-Identifier: Apache-2.0 */
/* replay.h: the main of a fuzzer that is not built with libFuzzer: replays files and folders, and the neighbours of
 * each small file: every prefix, and every byte changed in a few ways. Include it once, from a file that defines
 * LLVMFuzzerTestOneInput. A slow fuzzer defines REPLAY_SPARSE: one change of each byte, every 16th prefix. With clang:
 * -DTERSE_LIBFUZZER -fsanitize=fuzzer,address. */
#ifndef TERSE_FUZZ_REPLAY_H
#define TERSE_FUZZ_REPLAY_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef TERSE_LIBFUZZER
enum { REPLAY_BYTES = 4 << 20, REPLAY_NEIGHBOURS = 4096 };

#ifdef REPLAY_SPARSE
enum { REPLAY_FLIPS = 1, REPLAY_CUTS = 16 };
#else
enum { REPLAY_FLIPS = 4, REPLAY_CUTS = 1 };
#endif

static int replayed;

static void replay_require(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "replay: %s\n", what);
        exit(1);
    }
}

static void replay_file(const char *path)
{
    static uint8_t bytes[REPLAY_BYTES];
    FILE *file = fopen(path, "rb");
    replay_require(file != NULL, path);
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizers see every byte read beyond the end */
    replay_require(exact != NULL, "out of memory");
    memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    for (size_t cut = 0; size <= REPLAY_NEIGHBOURS && cut < size; cut++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x5a};
        for (size_t f = 0; f < REPLAY_FLIPS; f++) {
            const uint8_t flip = flips[(cut + f) % sizeof flips];
            exact[cut] ^= flip;
            LLVMFuzzerTestOneInput(exact, size);
            exact[cut] ^= flip;
        }
        if (cut % REPLAY_CUTS == 0)
            LLVMFuzzerTestOneInput(exact, cut);
    }
    free(exact);
    replayed++;
}

static void replay(const char *path)
{
    struct stat about;
    replay_require(stat(path, &about) == 0, path);
    if (!S_ISDIR(about.st_mode)) {
        replay_file(path);
        return;
    }
    DIR *folder = opendir(path);
    replay_require(folder != NULL, path);
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

#endif
