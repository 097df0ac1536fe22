/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c: any bytes as tersed's configuration file: complaints are text, and never more than a few a line. */
#include <assert.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervisor/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) /* fmemopen may refuse an empty buffer */
        return 0;
    char *report = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&report, &bytes);
    FILE *in = fmemopen((void *)(uintptr_t)data, size, "r");
    terse_config *config = out ? terse_config_new(out) : NULL;
    if (in && config) {
        terse_config_read_stream(config, "/nonexistent/fuzz.conf", in);
        terse_config_finish(config);
        fflush(out);
        unsigned n_lines = 0;
        for (size_t i = 0; i < bytes; i++) {
            assert(report[i] == '\n' || (unsigned char)report[i] >= 0x20);
            n_lines += report[i] == '\n';
        }
        assert(n_lines == config->n_errors);
        assert(config->n_listen <= TERSE_MAX_LISTEN && config->n_models <= TERSE_MAX_MODELS);
    }
    terse_config_free(config);
    if (in)
        fclose(in);
    if (out)
        fclose(out);
    free(report);
    return 0;
}

#ifndef TERSE_LIBFUZZER
static int replay(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file)
        return 0;
    const size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    return 1;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *directory = opendir(argv[i]);
        if (!directory)
            n += replay(argv[i]);
        for (const struct dirent *entry; directory && (entry = readdir(directory)) != NULL;) {
            char path[4096];
            if (entry->d_name[0] != '.' &&
                snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name) < (int)sizeof path)
                n += replay(path);
        }
        if (directory)
            closedir(directory);
    }
    printf("%d cases replayed\n", n);
    return n > 0 ? 0 : 1;
}
#endif
