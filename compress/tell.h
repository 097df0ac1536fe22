/* SPDX-License-Identifier: Apache-2.0 */
/* tell.h: what a training says on stderr while it runs, and how Ctrl-C ends it.
 * Runs in: terse-compress. Owns nothing. */
#ifndef TERSE_COMPRESS_TELL_H
#define TERSE_COMPRESS_TELL_H

#include "compress/train/train.h"

typedef struct terse_tell {
    const char *what; /* "train", "recover": first word of the first line */
    bool terminal;    /* one line that is overwritten; else a line now and then */
    bool quiet;       /* nothing at all, but Ctrl-C counts */
    double told;      /* share of the training at the last line */
} terse_tell;

/* The report of a training (train.h); context: a terse_tell. False once Ctrl-C was seen. */
bool terse_tell_progress(void *context, const terse_train_progress *progress);

/* Was it Ctrl-C that ended the last training? */
bool terse_tell_was_interrupted(void);

/* SIGINT and SIGTERM end a training, once: a second one ends the program. `off`: as they were before. */
void terse_tell_catch(void);
void terse_tell_off(void);

#endif
