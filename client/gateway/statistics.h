/* SPDX-License-Identifier: Apache-2.0 */
/* statistics.h: the daemon's counters in the form of Triton's statistics extension.
 * Runs in: terse-gateway, the asker's thread. Owns nothing. */
#ifndef TERSE_GATEWAY_STATISTICS_H
#define TERSE_GATEWAY_STATISTICS_H

#include "client/view/view.h"
#include "common/json.h"

/* Of `model`, or of all when it is "". */
void terse_statistics_write(const terse_view *view, const char *model, terse_json *json);

#endif
