/* SPDX-License-Identifier: Apache-2.0 */
/* options.h: the command line of `terse compress`. One table drives the parser, --help and the manual.
 * Runs in: terse-compress. The texts point into argv. */
#ifndef TERSE_COMPRESS_OPTIONS_H
#define TERSE_COMPRESS_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "common/status.h"

typedef struct terse_options {
    const char *input, *output;
    const char *name;     /* NULL: from the input's file name */
    const char *validate; /* NULL: not asked for */
    double low_rank;      /* 0: not asked for */
    bool json, quiet, plain, help;
} terse_options;

typedef struct terse_option {
    const char *name;     /* "--low-rank" */
    char letter;          /* 'o' for -o, 0 for none */
    const char *argument; /* "ENERGY", NULL when it takes none */
    const char *help;
    bool hidden; /* for other programs of terse: not in --help */
    int (*set)(terse_options *options, const char *argument, terse_error *error);
} terse_option;

extern const terse_option terse_options_table[];
extern const int terse_options_n;

/* INVALID_ARGUMENT with one line that says what was found and what is allowed. */
int terse_options_parse(int argc, char **argv, terse_options *ret_options, terse_error *error);
void terse_options_help(FILE *out);

#endif
