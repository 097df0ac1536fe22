/* SPDX-License-Identifier: Apache-2.0 */
/* Every encoding that may help is tried quickly; those that take fewest bytes are then done with care. */
#include "common/encoding.h"

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "common/bytes.h"

enum {
    QUICK_LEVEL = 1,
    CAREFUL_LEVEL = 19,
    LARGE_LEVEL = 9,
    LARGE_BYTES = 4 << 20, /* from which on care would take minutes */
    MAX_ENTRIES = 256,
    HASH_SLOTS = 1024,
};

typedef struct sink {
    uint8_t *data;
    size_t n, capacity;
    ZSTD_CCtx *zstd;
    bool failed; /* memory is out */
} sink;

static uint8_t *room(sink *out, size_t bytes)
{
    if (out->n + bytes > out->capacity) {
        const size_t capacity = (out->n + bytes) * 2;
        uint8_t *data = realloc(out->data, capacity);
        if (!data) {
            out->failed = true;
            return NULL;
        }
        out->data = data;
        out->capacity = capacity;
    }
    return out->data + out->n;
}

static void put_number(sink *out, uint64_t number)
{
    uint8_t *at = room(out, 10);
    for (; at && number > 127; number >>= 7, out->n++)
        *at++ = (uint8_t)(number | 128);
    if (at) {
        *at = (uint8_t)number;
        out->n++;
    }
}

static void put_head(sink *out, bool coded, size_t bytes, size_t stored)
{
    put_number(out, coded);
    put_number(out, bytes);
    put_number(out, stored);
}

static void put_bits(sink *out, const uint8_t *data, size_t bytes, unsigned width)
{
    const size_t stored = (bytes * width + 7) / 8;
    put_head(out, true, bytes, stored);
    uint8_t *at = room(out, stored);
    uint32_t held = 0;
    unsigned n_held = 0;
    for (size_t i = 0; at && i < bytes; i++) {
        held |= (uint32_t)data[i] << n_held;
        for (n_held += width; n_held >= 8; n_held -= 8, held >>= 8)
            *at++ = (uint8_t)held;
    }
    if (at && n_held)
        *at = (uint8_t)held;
    out->n += at ? stored : 0;
}

/* The smaller one of what `level` and the quick level make, when that is smaller than the bytes themselves. */
static bool put_zstd(sink *out, const uint8_t *data, size_t bytes, int level)
{
    const size_t bound = ZSTD_compressBound(bytes);
    TERSE_AUTO(terse_freep) uint8_t *best = malloc(bound), *other = malloc(bound);
    if (!best || !other) {
        out->failed = true;
        return false;
    }
    size_t n = ZSTD_compressCCtx(out->zstd, best, bound, data, bytes, QUICK_LEVEL);
    if (level != QUICK_LEVEL) {
        const size_t m = ZSTD_compressCCtx(out->zstd, other, bound, data, bytes, level);
        if (!ZSTD_isError(m) && (ZSTD_isError(n) || m < n)) {
            uint8_t *swapped = best;
            best = other;
            other = swapped;
            n = m;
        }
    }
    if (ZSTD_isError(n) || n >= bytes)
        return false;
    put_head(out, true, bytes, n);
    uint8_t *at = room(out, n);
    if (at)
        memcpy(at, best, n);
    out->n += at ? n : 0;
    return true;
}

/* width 0: bytes that bits do not shorten. */
static void put_stream(sink *out, terse_encoding_coder coder, int level, const uint8_t *data, size_t bytes,
                       unsigned width)
{
    if (coder == TERSE_CODER_ZSTD && put_zstd(out, data, bytes, level))
        return;
    if (coder == TERSE_CODER_BITS && width > 0) {
        put_bits(out, data, bytes, width);
        return;
    }
    put_head(out, false, bytes, bytes);
    uint8_t *at = room(out, bytes);
    if (at && bytes)
        memcpy(at, data, bytes);
    out->n += at ? bytes : 0;
}

/* --- what a tensor is made of ------------------------------------------------------------------------------------- */

typedef struct parts {
    const uint8_t *data;
    size_t n, element, n_filled; /* elements, and those of them that are not zero */
    uint8_t *filled;             /* those, side by side */
    uint8_t *bitmap, *gaps;
    size_t n_gaps;
    uint8_t book[MAX_ENTRIES * TERSE_ENCODING_MAX_ELEMENT];
    size_t entries, filled_entries; /* 0: more than a codebook can have; zero is the last of them */
    uint8_t *codes;                 /* of all elements */
    uint8_t *filled_codes;
    uint8_t *scratch; /* a plane */
} parts;

static void parts_done(parts *p)
{
    free(p->filled);
    free(p->bitmap);
    free(p->gaps);
    free(p->codes);
    free(p->filled_codes);
    free(p->scratch);
}

static uint64_t element_at(const parts *p, size_t i)
{
    uint64_t value = 0;
    memcpy(&value, p->data + i * p->element, p->element);
    return value;
}

/* Zero, which a tensor without its zeros does not need, becomes the last entry. */
static void put_zero_last(parts *p)
{
    static const uint8_t zero[TERSE_ENCODING_MAX_ELEMENT];
    const size_t size = p->element, last = p->entries - 1;
    size_t at = 0;
    while (at < p->entries && memcmp(p->book + at * size, zero, size) != 0)
        at++;
    p->filled_entries = p->entries;
    if (at == p->entries)
        return;
    memcpy(p->book + at * size, p->book + last * size, size);
    memset(p->book + last * size, 0, size);
    for (size_t i = 0; i < p->n; i++)
        p->codes[i] = p->codes[i] == at ? (uint8_t)last : p->codes[i] == last ? (uint8_t)at : p->codes[i];
    p->filled_entries = last;
}

/* Entries in the order in which the data have them. */
static void find_codebook(parts *p)
{
    uint64_t values[HASH_SLOTS];
    int numbers[HASH_SLOTS];
    memset(numbers, -1, sizeof numbers);
    size_t entries = 0;
    for (size_t i = 0; i < p->n; i++) {
        const uint64_t value = element_at(p, i);
        size_t slot = (size_t)(value * 0x9E3779B97F4A7C15u >> 54);
        while (numbers[slot] >= 0 && values[slot] != value)
            slot = (slot + 1) % HASH_SLOTS;
        if (numbers[slot] < 0) {
            if (entries == MAX_ENTRIES)
                return;
            values[slot] = value;
            memcpy(p->book + entries * p->element, &value, p->element);
            numbers[slot] = (int)entries++;
        }
        p->codes[i] = (uint8_t)numbers[slot];
    }
    p->entries = entries;
    if (entries)
        put_zero_last(p);
}

static void find_places(parts *p)
{
    size_t last = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (element_at(p, i) == 0)
            continue;
        p->bitmap[i / 8] |= (uint8_t)(1u << i % 8);
        for (; i - last >= 255; last += 255)
            p->gaps[p->n_gaps++] = 255;
        p->gaps[p->n_gaps++] = (uint8_t)(i - last);
        last = i + 1;
        memcpy(p->filled + p->n_filled * p->element, p->data + i * p->element, p->element);
        p->filled_codes[p->n_filled++] = p->codes[i];
    }
}

static bool parts_init(parts *p, const uint8_t *data, size_t bytes, size_t element)
{
    *p = (parts){.data = data, .n = bytes / element, .element = element};
    p->filled = malloc(bytes + 1);
    p->bitmap = calloc(p->n / 8 + 1, 1);
    p->gaps = malloc(p->n + p->n / 255 + 1);
    p->codes = calloc(p->n + 1, 1);
    p->filled_codes = malloc(p->n + 1);
    p->scratch = malloc(p->n + 1);
    if (!p->filled || !p->bitmap || !p->gaps || !p->codes || !p->filled_codes || !p->scratch)
        return false;
    find_codebook(p);
    find_places(p);
    return true;
}

/* --- candidates --------------------------------------------------------------------------------------------------- */

static bool worth_trying(const parts *p, terse_encoding e, bool zstd)
{
    if (e.coder == TERSE_CODER_ZSTD && !zstd)
        return false;
    if (e.codes == TERSE_CODES_CODEBOOK && p->entries == 0)
        return false;
    if (e.codes == TERSE_CODES_PLANES && (p->element == 1 || e.coder == TERSE_CODER_BITS))
        return false;
    if (e.codes == TERSE_CODES_ELEMENTS && e.coder == TERSE_CODER_BITS && e.places == TERSE_PLACES_ALL)
        return false;
    return e.places == TERSE_PLACES_ALL || p->n - p->n_filled >= p->n / 8 + 1;
}

static void encode(parts *p, terse_encoding e, int level, sink *out)
{
    const bool all = e.places == TERSE_PLACES_ALL;
    const uint8_t *values = all ? p->data : p->filled;
    const size_t n = all ? p->n : p->n_filled;
    if (e.places == TERSE_PLACES_BITMAP)
        put_stream(out, e.coder, level, p->bitmap, (p->n + 7) / 8, 0);
    else if (e.places == TERSE_PLACES_GAPS)
        put_stream(out, e.coder, level, p->gaps, p->n_gaps, 0);
    if (e.codes == TERSE_CODES_ELEMENTS) {
        put_stream(out, e.coder, level, values, n * p->element, 0);
    } else if (e.codes == TERSE_CODES_CODEBOOK) {
        const size_t entries = all ? p->entries : p->filled_entries;
        put_stream(out, e.coder, level, p->book, entries * p->element, 0);
        put_stream(out, e.coder, level, all ? p->codes : p->filled_codes, n, terse_encoding_width(entries));
    } else {
        for (size_t plane = 0; plane < p->element; plane++) {
            for (size_t i = 0; i < n; i++)
                p->scratch[i] = values[i * p->element + plane];
            put_stream(out, e.coder, level, p->scratch, n, 0);
        }
    }
}

typedef struct candidate {
    terse_encoding encoding;
    size_t bytes;
} candidate;

enum { CAREFUL_CANDIDATES = 3, MAX_CANDIDATES = TERSE_N_PLACES * TERSE_N_CODES * TERSE_N_CODERS };

/* Encodings and the bytes that they take quickly, fewest first; returns how many. */
static int list_candidates(parts *p, bool zstd, sink *out, candidate list[MAX_CANDIDATES])
{
    int n = 0;
    for (int i = 0; i < MAX_CANDIDATES && !out->failed; i++) {
        const terse_encoding e = {(terse_encoding_places)(i % TERSE_N_PLACES),
                                  (terse_encoding_codes)(i / TERSE_N_PLACES % TERSE_N_CODES),
                                  (terse_encoding_coder)(i / TERSE_N_PLACES / TERSE_N_CODES), 0};
        if (!worth_trying(p, e, zstd))
            continue;
        out->n = 0;
        encode(p, e, QUICK_LEVEL, out);
        int at = n++;
        for (; at > 0 && list[at - 1].bytes > out->n; at--)
            list[at] = list[at - 1];
        list[at] = (candidate){e, out->n};
    }
    return n;
}

/* The encoding that takes fewest bytes, and fewer than the data, is left in `best`: false when there is none. */
static bool choose(parts *p, bool zstd, sink *best, sink *other, terse_encoding *ret_encoding)
{
    candidate list[MAX_CANDIDATES];
    const size_t bytes = p->n * p->element;
    const bool large = bytes >= LARGE_BYTES;
    const int n = list_candidates(p, zstd, other, list), careful = large ? 1 : CAREFUL_CANDIDATES;
    size_t fewest = bytes;
    for (int i = 0; i < n && !best->failed && !other->failed; i++) {
        if (fewest < bytes && (i >= careful || list[i].bytes > list[0].bytes + list[0].bytes / 8))
            break; /* care does not make up for that */
        other->n = 0;
        encode(p, list[i].encoding, large ? LARGE_LEVEL : CAREFUL_LEVEL, other);
        if (other->n >= fewest || !terse_encoding_allows(other->n, bytes))
            continue;
        const sink swapped = *best;
        *best = *other;
        *other = swapped;
        fewest = best->n;
        *ret_encoding = list[i].encoding;
    }
    return fewest < bytes;
}

int terse_encoding_pack(const void *data, size_t bytes, size_t element, bool zstd, terse_encoding *ret_encoding,
                        uint8_t **ret_stored, size_t *ret_stored_bytes, terse_error *error)
{
    parts p = {0};
    ZSTD_CCtx *context = zstd ? ZSTD_createCCtx() : NULL;
    sink best = {.zstd = context}, other = {.zstd = context};
    best.failed = (zstd && !context) || !parts_init(&p, data, bytes, element);
    const bool found = !best.failed && choose(&p, zstd, &best, &other, ret_encoding);
    const bool failed = best.failed || other.failed;
    parts_done(&p);
    ZSTD_freeCCtx(context);
    free(other.data);
    if (failed || !found)
        free(best.data);
    if (failed)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for packing %zu bytes", bytes);
    *ret_stored = found ? best.data : NULL;
    *ret_stored_bytes = best.n;
    return TERSE_OK;
}

int terse_encoding_store(const void *data, size_t bytes, terse_encoding *ret_encoding, uint8_t **ret_stored,
                         size_t *ret_stored_bytes, terse_error *error)
{
    sink out = {.n = 0};
    put_stream(&out, TERSE_CODER_BITS, 0, data, bytes, 0);
    if (out.failed) {
        free(out.data);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", bytes);
    }
    *ret_encoding = (terse_encoding){.coder = TERSE_CODER_ZSTD};
    *ret_stored = out.data;
    *ret_stored_bytes = out.n;
    return TERSE_OK;
}
