/* SPDX-License-Identifier: Apache-2.0 */
/* keeper.h: a process that puts a daemon's settings back, however `terse tune` ends.
 * Runs in: terse tune. Ownership: a terse_keeper owns its process and the pipes to it.
 *
 * It is started before anything is changed, reads what is in force (which asks for the right to change it), and waits.
 * When it is told to, or when its pipe ends because the program that started it is gone, also by SIGKILL, it puts back
 * what it read. It does not hear a terminal's signals. */
#ifndef TERSE_TUNE_KEEPER_H
#define TERSE_TUNE_KEEPER_H

#include "client/cli/tune/search.h"
#include "client/terse.h"

typedef struct terse_keeper terse_keeper;

/* Call before this process has opened a client: it forks. PERMISSION_DENIED, NOT_FOUND ... as the daemon says. */
int terse_keeper_begin(const char *endpoint, const char *model, unsigned connect_ms, terse_keeper **ret_keeper,
                       terse_error *error);
/* What was in force. */
terse_tune_setting terse_keeper_setting(const terse_keeper *keeper);
/* Puts it back, or sets `instead` when that is not NULL, waits until it is done, and frees the keeper. A daemon that is
 * not there is waited for, for half a minute. NULL is accepted. */
int terse_keeper_end(terse_keeper *keeper, const terse_tune_setting *instead, terse_error *error);

/* Sets all three on a client that is open. */
int terse_keeper_set(terse_client *client, const char *model, const terse_tune_setting *setting, int timeout_ms,
                     terse_error *error);

#endif
