/* SPDX-License-Identifier: Apache-2.0 */
/* coding.h: gzip and deflate of bodies that come and of answers that go.
 * Runs in: terse-gateway. Owns nothing: texts are the caller's. */
#ifndef TERSE_GATEWAY_CODING_H
#define TERSE_GATEWAY_CODING_H

#include <stdbool.h>

#include "client/gateway/text.h"
#include "common/status.h"

typedef enum terse_coding {
    TERSE_CODING_NONE,
    TERSE_CODING_GZIP,
    TERSE_CODING_DEFLATE, /* zlib's format, as HTTP means it */
    TERSE_CODING_UNKNOWN,
} terse_coding;

/* What a Content-Encoding says; NULL is NONE. */
terse_coding terse_coding_of(const char *content_encoding);
/* The one that an Accept-Encoding likes best of those we have; NONE when it wants none. */
terse_coding terse_coding_accepted(const char *accept_encoding);
const char *terse_coding_name(terse_coding coding);

/* `text` is replaced by what it unpacks to; RESOURCE_EXHAUSTED beyond `max` bytes, INVALID_ARGUMENT when it is not what
 * its coding says. */
terse_status terse_coding_unpack(terse_coding coding, size_t max, terse_text *text, terse_error *error);
/* `text` is replaced by its packed form; false, and it is as it was, where that takes memory that is not there. */
bool terse_coding_pack(terse_coding coding, terse_text *text);

#endif
