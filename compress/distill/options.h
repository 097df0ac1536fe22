/* SPDX-License-Identifier: Apache-2.0 */
/* options.h: the command line of `terse distill`. One table drives the parser and --help.
 * Runs in: terse-compress. The texts point into argv. */
#ifndef TERSE_DISTILL_OPTIONS_H
#define TERSE_DISTILL_OPTIONS_H

#include <stdio.h>

#include "compress/train/train.h"

typedef struct terse_distill_options {
    const char *teacher, *output, *data;
    const char *student;  /* NULL: derived from the teacher */
    const char *validate; /* NULL: not asked for */
    const char *name;     /* NULL: from the output's file name */
    double width;
    terse_train_options train;
    bool json, quiet, help;
} terse_distill_options;

/* INVALID_ARGUMENT with one line that says what was found and what is allowed. */
int terse_distill_options_parse(int argc, char **argv, terse_distill_options *ret_options, terse_error *error);
void terse_distill_options_help(FILE *out);
/* The same for manuals and completions, as terse_options_print_table. */
void terse_distill_options_print_table(FILE *out);

#endif
