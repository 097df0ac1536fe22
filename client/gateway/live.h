/* SPDX-License-Identifier: Apache-2.0 */
/* live.h: what the last 15 minutes were like, for the page: a look at the daemon every few seconds, kept as a few
 * numbers for each model. Runs in: terse-gateway, the asker's thread alone. Owns its last view. */
#ifndef TERSE_GATEWAY_LIVE_H
#define TERSE_GATEWAY_LIVE_H

#include "client/view/view.h"
#include "common/json.h"

enum { TERSE_LIVE_SECONDS = 900 };

typedef struct terse_live terse_live;

/* A look every step_s seconds (1 to TERSE_LIVE_SECONDS). NULL: no memory. */
terse_live *terse_live_new(unsigned step_s);
void terse_live_free(terse_live *live);
/* The next look; takes the view over. NULL: there is no daemon now. */
void terse_live_take(terse_live *live, terse_view *view);
/* The latest view; NULL: there is none. */
const terse_view *terse_live_view(const terse_live *live);
/* All of it as one JSON object. */
void terse_live_write(const terse_live *live, terse_json *json);

#endif
