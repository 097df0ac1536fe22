/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/coding.h"

#include <stdlib.h>
#include <strings.h>
#include <zlib.h>

enum {
    WINDOW = 15,
    AS_GZIP = 16, /* zlib's way to be told */
    MEMORY = 8,
    PIECE = 64 * 1024,
};

terse_coding terse_coding_of(const char *name)
{
    if (!name || strcasecmp(name, "identity") == 0)
        return TERSE_CODING_NONE;
    if (strcasecmp(name, "gzip") == 0 || strcasecmp(name, "x-gzip") == 0)
        return TERSE_CODING_GZIP;
    return strcasecmp(name, "deflate") == 0 ? TERSE_CODING_DEFLATE : TERSE_CODING_UNKNOWN;
}

const char *terse_coding_name(terse_coding coding)
{
    return coding == TERSE_CODING_GZIP ? "gzip" : "deflate";
}

/* The weight of `name` in a list of "name;q=0.5, ...": 0 when it is not there or not wanted. */
static double weight_of(const char *list, const char *name)
{
    const size_t length = strlen(name);
    while (*list) {
        list += strspn(list, " \t,");
        const size_t item = strcspn(list, ","), word = strcspn(list, " \t;,");
        if (word == length && strncasecmp(list, name, length) == 0) {
            const char *q = memmem(list, item, "q=", 2);
            return q ? strtod(q + 2, NULL) : 1;
        }
        list += item;
    }
    return 0;
}

terse_coding terse_coding_accepted(const char *list)
{
    const double gzip = list ? weight_of(list, "gzip") : 0, deflate = list ? weight_of(list, "deflate") : 0;
    if (gzip <= 0 && deflate <= 0)
        return TERSE_CODING_NONE;
    return gzip >= deflate ? TERSE_CODING_GZIP : TERSE_CODING_DEFLATE;
}

/* Everything of `from` that fits `max` bytes; false: it is broken, or (*ret_large) has more. */
static bool inflate_all(z_stream *z, size_t max, terse_text *to, bool *ret_large)
{
    int r = Z_OK;
    do {
        const size_t room = max - to->size < PIECE ? max - to->size + 1 : PIECE; /* one more shows that there is more */
        char *at = terse_text_room(to, room);
        if (!at)
            return false;
        z->next_out = (unsigned char *)at;
        z->avail_out = (unsigned)room;
        r = inflate(z, Z_NO_FLUSH);
        to->size += room - z->avail_out;
        *ret_large = to->size > max;
    } while (r == Z_OK && !*ret_large);
    return r == Z_STREAM_END && z->avail_in == 0 && !*ret_large;
}

terse_status terse_coding_unpack(terse_coding coding, size_t max, terse_text *text, terse_error *error)
{
    z_stream z = {.next_in = (unsigned char *)text->data, .avail_in = (unsigned)text->size};
    terse_text plain = {0};
    bool large = false;
    if (text->size > UINT32_MAX || inflateInit2(&z, coding == TERSE_CODING_GZIP ? WINDOW + AS_GZIP : WINDOW) != Z_OK)
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory to unpack a body");
    const bool whole = inflate_all(&z, max, &plain, &large);
    inflateEnd(&z);
    if (whole) {
        terse_text_free(text);
        *text = plain;
        return TERSE_OK;
    }
    const bool broken = plain.broken;
    terse_text_free(&plain);
    if (large)
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "the body unpacks to more than %zu bytes",
                                        max);
    if (broken)
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory to unpack a body");
    return (terse_status)terse_fail(error, TERSE_INVALID_ARGUMENT, "the body is not %s, as Content-Encoding says",
                                    terse_coding_name(coding));
}

bool terse_coding_pack(terse_coding coding, terse_text *text)
{
    z_stream z = {.next_in = (unsigned char *)text->data, .avail_in = (unsigned)text->size};
    terse_text packed = {0};
    if (text->size > UINT32_MAX / 2 ||
        deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, coding == TERSE_CODING_GZIP ? WINDOW + AS_GZIP : WINDOW, MEMORY,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    const size_t bound = deflateBound(&z, text->size);
    char *at = terse_text_room(&packed, bound);
    z.next_out = (unsigned char *)at;
    z.avail_out = (unsigned)bound;
    const bool whole = at && deflate(&z, Z_FINISH) == Z_STREAM_END;
    packed.size = whole ? bound - z.avail_out : 0;
    deflateEnd(&z);
    terse_text_free(whole ? text : &packed);
    if (whole)
        *text = packed;
    return whole;
}
