/* SPDX-License-Identifier: Apache-2.0 */
/* config_internal.h: what the two halves of the configuration share: config.c (meaning) and config_file.c (text).
 * Runs in: tersed. */
#ifndef TERSE_SUPERVISOR_CONFIG_INTERNAL_H
#define TERSE_SUPERVISOR_CONFIG_INTERNAL_H

#include "daemon/supervisor/config.h"

/* Prints one mistake and counts it; line 0: it is not the file's. */
void terse_config_complain(terse_config *config, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds a model with nothing but its name; NULL, with a complaint, when the name or the count is not allowed. */
terse_model_config *terse_config_add(terse_config *config, unsigned line, const char *name, size_t length);

/* config_tcp.c: endpoints, keys, the group of the sockets. */
void terse_config_check_access(terse_config *config);

#endif
