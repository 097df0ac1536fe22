/* SPDX-License-Identifier: Apache-2.0 */
/* encoding.h: the bytes of a constant in fewer bytes, without loss: what a packed .terse file stores for a tensor.
 * Runs in: terse-compress (packs), terse and terse-loader (unpack). Owns nothing but what terse_encoding_pack returns.
 *
 * A tensor of n elements is told in up to three steps, each of which may be left out:
 *   places  where the elements are that are not zero: a bit for each element (bitmap), or for each one that is not
 *           zero a byte with the zeros before it (gaps; 255: so many and go on), and only those elements follow
 *   values  elements byte by byte in planes, the first byte of all, the second of all (planes), or a table of the at
 *           most 256 different elements and a byte for each that names one (codebook)
 *   coder   zstd, or for codebooks as many bits as the number of an entry needs (bits)
 * as in "gaps+codebook+zstd"; before all that stands "winograd" where the tensor is what common/winograd.h makes of the
 * one that is told. The stored bytes are streams in that order: the places, then the elements, or their
 * planes, or the table and the numbers; each is told by 1 (coded) or 0 (as it is), its length decoded and its length
 * stored (LEB128 numbers), and its bytes. */
#ifndef TERSE_COMMON_ENCODING_H
#define TERSE_COMMON_ENCODING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

typedef enum terse_encoding_places {
    TERSE_PLACES_ALL = 0,
    TERSE_PLACES_BITMAP,
    TERSE_PLACES_GAPS,
    TERSE_N_PLACES
} terse_encoding_places;
typedef enum terse_encoding_codes {
    TERSE_CODES_ELEMENTS = 0,
    TERSE_CODES_PLANES,
    TERSE_CODES_CODEBOOK,
    TERSE_N_CODES
} terse_encoding_codes;
typedef enum terse_encoding_coder { TERSE_CODER_BITS = 0, TERSE_CODER_ZSTD, TERSE_N_CODERS } terse_encoding_coder;

typedef struct terse_encoding {
    terse_encoding_places places;
    terse_encoding_codes codes;
    terse_encoding_coder coder;
    int winograd; /* 1: expand.c goes on from here */
} terse_encoding;

enum {
    TERSE_ENCODING_TEXT = 40,
    TERSE_N_ENCODINGS = 2 * TERSE_N_PLACES * TERSE_N_CODES * TERSE_N_CODERS,
    TERSE_ENCODING_MOST_TIMES = 1024, /* no stored byte becomes more bytes than that ... */
    TERSE_ENCODING_FREE = 64 << 10,   /* ... of a tensor larger than that */
    TERSE_ENCODING_MAX_ELEMENT = 8,   /* bytes */
};

/* "gaps+codebook+zstd"; writes and returns `text`. */
const char *terse_encoding_text(terse_encoding encoding, char text[TERSE_ENCODING_TEXT]);
bool terse_encoding_from_text(const char *text, size_t length, terse_encoding *ret_encoding);
/* May `stored` bytes become `bytes`? Holds a file that promises more than it can hold. */
bool terse_encoding_allows(uint64_t stored, uint64_t bytes);

/* Decodes `stored` bytes, which may lie, to exactly `bytes` at `ret_data`: elements of `element` bytes each.
 * INVALID_ARGUMENT says what does not fit; `ret_data` then holds anything. */
int terse_encoding_unpack(terse_encoding encoding, const void *stored, size_t stored_bytes, size_t element,
                          void *ret_data, size_t bytes, terse_error *error);

/* Bits that the number of one of so many entries needs: 1 to 8. */
unsigned terse_encoding_width(size_t entries);

/* encoding_pack.c: the encoding that takes fewest bytes; zstd false: codebooks and places only. *ret_stored (malloc) is
 * NULL when none takes fewer than the data itself. Equal data give equal bytes, with the same libzstd. */
int terse_encoding_pack(const void *data, size_t bytes, size_t element, bool zstd, terse_encoding *ret_encoding,
                        uint8_t **ret_stored, size_t *ret_stored_bytes, terse_error *error);
/* The same bytes as one stream, for what has to be told whether that is shorter or not: the encoding is "zstd". */
int terse_encoding_store(const void *data, size_t bytes, terse_encoding *ret_encoding, uint8_t **ret_stored,
                         size_t *ret_stored_bytes, terse_error *error);

#endif
