/* SPDX-License-Identifier: Apache-2.0 */
/* route.h: what a path asks for: the table of everything that is served.
 * Runs in: terse-gateway. Owns nothing. */
#ifndef TERSE_GATEWAY_ROUTE_H
#define TERSE_GATEWAY_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

enum { TERSE_ROUTE_NAME = 1024 }; /* bytes of a model's name, and of a version */

typedef enum terse_route_kind {
    TERSE_ROUTE_NONE,
    TERSE_ROUTE_LIVE,
    TERSE_ROUTE_READY,
    TERSE_ROUTE_SERVER,
    TERSE_ROUTE_MODEL,
    TERSE_ROUTE_MODEL_READY,
    TERSE_ROUTE_CONFIG,
    TERSE_ROUTE_STATS,
    TERSE_ROUTE_INFER,
    TERSE_ROUTE_INDEX,
    TERSE_ROUTE_ELSEWHERE, /* of the protocol, but not done through the gateway */
    TERSE_ROUTE_METRICS,
    TERSE_ROUTE_PAGE,
    TERSE_ROUTE_PICTURE, /* what the page shows, as JSON */
} terse_route_kind;

typedef struct terse_route {
    terse_route_kind kind;
    bool post;           /* the method that it wants: POST, else GET or HEAD */
    const char *pattern; /* as the table has it */
    char model[TERSE_ROUTE_NAME + 1], version[TERSE_ROUTE_NAME + 1]; /* "" where the path names none */
} terse_route;

/* Finds the route of `target` ("/v2/models/a%20b/ready?x=1", as it came), by which method it may be asked is for the
 * caller to check. false, and kind NONE: no such path, or a name in it that cannot be one. */
bool terse_route_find(const char *target, terse_route *ret_route);

#endif
