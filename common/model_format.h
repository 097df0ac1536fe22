/* SPDX-License-Identifier: Apache-2.0 */
/* model_format.h: what the reader and the writer of .terse files share, and nobody else needs. */
#ifndef TERSE_COMMON_MODEL_FORMAT_H
#define TERSE_COMMON_MODEL_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/tensor.h"

#define TERSE_MODEL_MAGIC "TERSEMDL"
enum {
    TERSE_MODEL_HEAD_BYTES = 64,
    TERSE_MODEL_DIGEST_AT = 24,
    TERSE_MODEL_ALIGNMENT = 64,
    TERSE_MODEL_MAX_HEADER = 32 << 20, /* bytes */
    TERSE_MODEL_MAX_ITEMS = 8 << 20,   /* msgpack items: bounds what a hostile header makes msgpack-c allocate */
    TERSE_MODEL_MAX_TEXT = 4096,
    TERSE_MODEL_MAX_ATTRS = 64,
    TERSE_MODEL_MAX_ATTR_NAME = 64,
};

/* The fixed 64 bytes, the header's place and its hash; with TERSE_MODEL_CHECK_SHA256 in `checks` the file's digest. */
int terse_model_check_head(const uint8_t *base, size_t size, unsigned checks, size_t *ret_header_bytes,
                           terse_error *error);

/* SHA-256 of a file's bytes with the digest's own 32 bytes taken as zero. */
int terse_model_sha256(const void *base, size_t size, uint8_t ret_digest[static 32]);

#endif
