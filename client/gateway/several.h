/* SPDX-License-Identifier: Apache-2.0 */
/* several.h: the metrics of each of several daemons, of which libterse asks one at a time: a client for each, and one
 * text of all in which every sample says whose it is.
 * Runs in: terse-gateway, the asker's thread alone. Owns its clients. */
#ifndef TERSE_GATEWAY_SEVERAL_H
#define TERSE_GATEWAY_SEVERAL_H

#include "client/gateway/gateway.h"

typedef struct terse_several terse_several;

/* Endpoints with commas between. *ret_several is NULL when there is one only. */
int terse_several_new(const char *endpoints, terse_several **ret_several, terse_error *error);
void terse_several_free(terse_several *several);
/* What those have that answer, and who does; UNAVAILABLE when none does. */
terse_status terse_several_metrics(terse_several *several, terse_answer *answer, terse_error *error);

/* Puts OpenMetrics texts together: each family once, with its samples of all texts, which have the label `endpoint` in
 * front. A text that is NULL is of a daemon that did not answer. Without the end mark. */
void terse_several_merge(terse_text *to, const char *const *endpoints, const char *const *texts, size_t n);

#endif
