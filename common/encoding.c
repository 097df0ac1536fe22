/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing is allocated on the word of the stored bytes: what a stream may decode to is known, or bounded, by the
 * tensor's size, which the reader has checked against shape and file. */
#include "common/encoding.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "common/bytes.h"

static const char *const places_names[] = {"", "bitmap+", "gaps+"};
static const char *const codes_names[] = {"", "planes+", "codebook+"};
static const char *const coder_names[] = {"bits", "zstd"};

const char *terse_encoding_text(terse_encoding encoding, char text[TERSE_ENCODING_TEXT])
{
    snprintf(text, TERSE_ENCODING_TEXT, "%s%s%s%s", encoding.winograd ? "winograd+" : "", places_names[encoding.places],
             codes_names[encoding.codes], coder_names[encoding.coder]);
    return text;
}

bool terse_encoding_from_text(const char *text, size_t length, terse_encoding *ret_encoding)
{
    char known[TERSE_ENCODING_TEXT];
    for (int i = 0; i < TERSE_N_ENCODINGS; i++) {
        const terse_encoding e = {(terse_encoding_places)(i % TERSE_N_PLACES),
                                  (terse_encoding_codes)(i / TERSE_N_PLACES % TERSE_N_CODES),
                                  (terse_encoding_coder)(i / TERSE_N_PLACES / TERSE_N_CODES % TERSE_N_CODERS),
                                  i / TERSE_N_PLACES / TERSE_N_CODES / TERSE_N_CODERS};
        terse_encoding_text(e, known);
        if (strlen(known) == length && memcmp(known, text, length) == 0) {
            *ret_encoding = e;
            return true;
        }
    }
    return false;
}

bool terse_encoding_allows(uint64_t stored, uint64_t bytes)
{
    return bytes <= TERSE_ENCODING_FREE || bytes / TERSE_ENCODING_MOST_TIMES <= stored;
}

/* --- streams ------------------------------------------------------------------------------------------------------ */

typedef struct source {
    const uint8_t *at, *end;
    terse_encoding_coder coder;
} source;

static bool take_number(source *in, uint64_t *ret_number)
{
    uint64_t number = 0;
    for (unsigned shift = 0; shift < 63 && in->at < in->end; shift += 7) {
        const uint8_t byte = *in->at++;
        number |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) {
            *ret_number = number;
            return true;
        }
    }
    return false;
}

/* One stream's head: where its bytes are, which are passed over. */
typedef struct stream {
    const uint8_t *data;
    size_t stored, bytes;
    bool coded;
} stream;

static int take_stream(source *in, const char *what, uint64_t least, uint64_t most, stream *ret_stream,
                       terse_error *error)
{
    uint64_t coded, bytes, stored;
    if (!take_number(in, &coded) || coded > 1 || !take_number(in, &bytes) || !take_number(in, &stored))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s: the stored bytes end early or are damaged", what);
    if (bytes < least || bytes > most)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s decode to %" PRIu64 " bytes, needed are %" PRIu64 " to %" PRIu64, what, bytes, least,
                          most);
    if (stored > (uint64_t)(in->end - in->at) || (!coded && stored != bytes))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s take %" PRIu64 " bytes, %td are there", what, stored,
                          in->end - in->at);
    *ret_stream = (stream){in->at, (size_t)stored, (size_t)bytes, coded == 1};
    in->at += stored;
    return TERSE_OK;
}

/* `width` bits for each byte, from the lowest bit of the first byte on. */
static int expand_bits(const stream *s, const char *what, unsigned width, uint8_t *ret_data, terse_error *error)
{
    const uint64_t needed = ((uint64_t)s->bytes * width + 7) / 8;
    if (width == 0 || s->stored != needed)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s take %zu bytes, needed are %" PRIu64, what, s->stored,
                          needed);
    uint32_t held = 0;
    unsigned n_held = 0;
    const uint8_t *at = s->data;
    for (size_t i = 0; i < s->bytes; i++) {
        if (n_held < width) {
            held |= (uint32_t)*at++ << n_held;
            n_held += 8;
        }
        ret_data[i] = (uint8_t)(held & ((1u << width) - 1));
        held >>= width;
        n_held -= width;
    }
    return TERSE_OK;
}

static int expand_stream(const source *in, const stream *s, const char *what, unsigned width, uint8_t *ret_data,
                         terse_error *error)
{
    if (!s->coded) {
        if (s->bytes)
            memcpy(ret_data, s->data, s->bytes);
        return TERSE_OK;
    }
    if (in->coder == TERSE_CODER_BITS)
        return expand_bits(s, what, width, ret_data, error);
    const size_t got = ZSTD_decompress(ret_data, s->bytes, s->data, s->stored);
    if (ZSTD_isError(got))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s: zstd: %s", what, ZSTD_getErrorName(got));
    if (got != s->bytes)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s decode to %zu bytes, %zu are stated", what, got, s->bytes);
    return TERSE_OK;
}

/* Head and bytes of a stream in memory of its own (free). */
static int take_bytes(source *in, const char *what, uint64_t least, uint64_t most, unsigned width, uint8_t **ret_data,
                      size_t *ret_bytes, terse_error *error)
{
    stream s;
    int status = take_stream(in, what, least, most, &s, error);
    if (status)
        return status;
    TERSE_AUTO(terse_freep) uint8_t *data = malloc(s.bytes + 1);
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "%s: out of memory for %zu bytes", what, s.bytes);
    if ((status = expand_stream(in, &s, what, width, data, error)))
        return status;
    *ret_data = TERSE_TAKE(data);
    *ret_bytes = s.bytes;
    return TERSE_OK;
}

/* A call of memcpy for each element would take most of the time. */
static inline void copy_element(uint8_t *to, const uint8_t *from, size_t element)
{
    if (element == 1)
        *to = *from;
    else if (element == 2)
        memcpy(to, from, 2);
    else if (element == 4)
        memcpy(to, from, 4);
    else
        memcpy(to, from, element);
}

/* --- values: n elements side by side ------------------------------------------------------------------------------ */

static int unpack_planes(source *in, size_t n, size_t element, uint8_t *ret_data, terse_error *error)
{
    for (size_t plane = 0; plane < element; plane++) {
        TERSE_AUTO(terse_freep) uint8_t *bytes = NULL;
        size_t ignored;
        const int status = take_bytes(in, "planes", n, n, 0, &bytes, &ignored, error);
        if (status)
            return status;
        for (size_t i = 0; i < n; i++)
            ret_data[i * element + plane] = bytes[i];
    }
    return TERSE_OK;
}

unsigned terse_encoding_width(size_t entries)
{
    unsigned width = 1;
    while (width < 8 && (1u << width) < entries)
        width++;
    return width;
}

static int unpack_codebook(source *in, size_t n, size_t element, uint8_t *ret_data, terse_error *error)
{
    TERSE_AUTO(terse_freep) uint8_t *book = NULL, *numbers = NULL;
    size_t book_bytes, ignored;
    int status = take_bytes(in, "codebook", n ? element : 0, 256 * element, 0, &book, &book_bytes, error);
    const size_t entries = status ? 0 : book_bytes / element;
    if (!status && book_bytes % element != 0)
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "codebook has %zu bytes, no multiple of %zu", book_bytes,
                            element);
    if (!status)
        status = take_bytes(in, "codes", n, n, terse_encoding_width(entries), &numbers, &ignored, error);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++) {
        if (numbers[i] >= entries)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "code %zu is %d, the codebook has %zu entries", i,
                              numbers[i], entries);
        copy_element(ret_data + i * element, book + numbers[i] * element, element);
    }
    return TERSE_OK;
}

static int unpack_values(source *in, terse_encoding_codes codes, size_t n, size_t element, uint8_t *ret_data,
                         terse_error *error)
{
    stream s;
    if (codes == TERSE_CODES_PLANES)
        return unpack_planes(in, n, element, ret_data, error);
    if (codes == TERSE_CODES_CODEBOOK)
        return unpack_codebook(in, n, element, ret_data, error);
    const int status = take_stream(in, "elements", n * element, n * element, &s, error);
    return status ? status : expand_stream(in, &s, "elements", 0, ret_data, error);
}

/* --- places ------------------------------------------------------------------------------------------------------- */

/* The number of places told, or an error when one lies behind n. */
static int count_places(terse_encoding_places kind, const uint8_t *places, size_t bytes, size_t n, size_t *ret_count,
                        terse_error *error)
{
    size_t count = 0, at = 0;
    if (kind == TERSE_PLACES_BITMAP) {
        for (size_t i = 0; i < bytes; i++)
            count += (size_t)__builtin_popcount(places[i]);
        if (n % 8 != 0 && places[bytes - 1] >> n % 8 != 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "bitmap names elements behind the last");
    } else {
        for (size_t i = 0; i < bytes; i++) {
            at += places[i];
            if (places[i] < 255) {
                count++;
                if (at++ >= n)
                    return terse_fail(error, TERSE_INVALID_ARGUMENT, "gaps name elements behind the last");
            }
        }
        if (bytes && places[bytes - 1] == 255)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "gaps end before an element");
    }
    *ret_count = count;
    return TERSE_OK;
}

static void scatter(terse_encoding_places kind, const uint8_t *places, size_t bytes, size_t element,
                    const uint8_t *values, uint8_t *ret_data)
{
    size_t at = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (kind == TERSE_PLACES_BITMAP) {
            for (unsigned left = places[i]; left; left &= left - 1, values += element)
                copy_element(ret_data + (i * 8 + (size_t)__builtin_ctz(left)) * element, values, element);
            continue;
        }
        at += places[i];
        if (places[i] < 255) {
            copy_element(ret_data + at++ * element, values, element);
            values += element;
        }
    }
}

static int unpack_places(source *in, terse_encoding encoding, size_t n, size_t element, uint8_t *ret_data,
                         terse_error *error)
{
    const bool bitmap = encoding.places == TERSE_PLACES_BITMAP;
    const size_t exact = (n + 7) / 8;
    TERSE_AUTO(terse_freep) uint8_t *places = NULL, *values = NULL;
    size_t bytes = 0, count = 0;
    int status = take_bytes(in, bitmap ? "bitmap" : "gaps", bitmap ? exact : 0, bitmap ? exact : n + n / 255, 0,
                            &places, &bytes, error);
    if (status || (status = count_places(encoding.places, places, bytes, n, &count, error)))
        return status;
    if (!(values = malloc(count * element + 1)))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu elements", count);
    if ((status = unpack_values(in, encoding.codes, count, element, values, error)))
        return status;
    memset(ret_data, 0, n * element);
    scatter(encoding.places, places, bytes, element, values, ret_data);
    return TERSE_OK;
}

int terse_encoding_unpack(terse_encoding encoding, const void *stored, size_t stored_bytes, size_t element,
                          void *ret_data, size_t bytes, terse_error *error)
{
    source in = {.at = stored, .end = (const uint8_t *)stored + stored_bytes, .coder = encoding.coder};
    if (element == 0 || element > TERSE_ENCODING_MAX_ELEMENT || bytes % element != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%zu bytes are no elements of %zu", bytes, element);
    const size_t n = bytes / element;
    const int status = encoding.places == TERSE_PLACES_ALL
                           ? unpack_values(&in, encoding.codes, n, element, ret_data, error)
                           : unpack_places(&in, encoding, n, element, ret_data, error);
    if (!status && in.at != in.end)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%td stored bytes are left over", in.end - in.at);
    return status;
}
