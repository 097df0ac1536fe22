/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c: any bytes as tersed's configuration file: complaints are text, and never more than a few a line. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervisor/config.h"
#include "tests/fuzz/replay.h"

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
