/* SPDX-License-Identifier: Apache-2.0 */
/* statistics.h: the daemon's counters in the form of Triton's statistics extension.
 * Runs in: terse-gateway, the asker's thread. Owns nothing. */
#ifndef TERSE_GATEWAY_STATISTICS_H
#define TERSE_GATEWAY_STATISTICS_H

#include <stddef.h>

#include "common/json.h"
#include "common/status.h"

/* Of `model`, or of all when it is "", from the msgpack of a stats reply. */
terse_status terse_statistics_write(const void *msgpack, size_t size, const char *model, terse_json *json,
                                    terse_error *error);

#endif
