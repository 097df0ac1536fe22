/* SPDX-License-Identifier: Apache-2.0 */
/* look.h: what stats and top share: asking a daemon for its counters.
 * Runs in: terse. */
#ifndef TERSE_CLI_LOOK_H
#define TERSE_CLI_LOOK_H

#include "client/terse.h"
#include "client/view/view.h"

/* Asks once. *ret_view is the caller's; the error tells why there is none. */
int terse_cli_look(terse_client *client, int timeout_ms, terse_view **ret_view, terse_error *error);

#endif
