/* SPDX-License-Identifier: Apache-2.0 */
/* open.h: models for the subcommands that look at them: .terse files, and .onnx files, which terse-compress imports
 * into a memfd first, so that both kinds are read by the same code.
 * Runs in: terse. */
#ifndef TERSE_CLI_OPEN_H
#define TERSE_CLI_OPEN_H

#include "common/model.h"

typedef enum terse_cli_import {
    TERSE_CLI_AS_IT_IS, /* an .onnx is imported only: no pass changes the graph */
    TERSE_CLI_TO_RUN,   /* it gets the passes that keep its numbers, as for serving */
} terse_cli_import;

bool terse_cli_is_onnx(const char *path);
uint64_t terse_cli_file_size(const char *path); /* 0 when it cannot be told */
/* `command` is the subcommand. terse-compress tells the user itself what is wrong with an .onnx: then *ret_told is true
 * and only the exit code is left to hand on. */
int terse_cli_open(const char *command, const char *path, terse_cli_import import, unsigned checks,
                   terse_model **ret_model, bool *ret_told, terse_error *error);

#endif
