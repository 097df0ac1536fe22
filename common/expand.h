/* SPDX-License-Identifier: Apache-2.0 */
/* expand.h: a packed .terse file becomes a plain one in memory: the same header with the tensors' new places, and each
 * tensor's bytes in the layout in which the kernels read them.
 * Runs in: terse (into memory of its own), terse-loader (into the memfd that all workers map); nobody else unpacks.
 * Ownership: an expansion borrows the file's bytes.
 *
 * A packed file's header starts with "packed": true; its tensors may have "encoding" (encoding.h) and "stored" (bytes
 * in the file, to which "xxh3" belongs) beside "bytes" (expanded). In the plain file "packed" is false, and "encoding"
 * and "stored" stay as a note of what was. */
#ifndef TERSE_COMMON_EXPAND_H
#define TERSE_COMMON_EXPAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* Bytes of a file that tell whether it is packed. */
enum { TERSE_EXPAND_PEEK_BYTES = 64 + 3 + 8 + 2 };
bool terse_expand_is_packed(const void *head, size_t size);

typedef struct terse_expansion {
    const uint8_t *base;
    size_t size, header_bytes;
    const char *name; /* for messages */
    struct terse_expansion_part *parts;
    size_t n_parts, packed_at;
    size_t bytes; /* of the plain file */
} terse_expansion;

/* Walks the header of a packed file: `bytes` is what terse_expand_into will write. Every size has been held against
 * shape, file and TERSE_ENCODING_MOST_TIMES before anybody allocates anything for it. terse_expand_done is due only
 * behind success. */
int terse_expand_open(const void *base, size_t size, const char *name, terse_expansion *ret_expansion,
                      terse_error *error);
/* Writes the plain file, ->bytes long, to zeroed memory aligned to 64. Each tensor's XXH3 is checked first. */
int terse_expand_into(const terse_expansion *expansion, void *image, terse_error *error);
void terse_expand_done(terse_expansion *expansion); /* accepts a zeroed one */

#endif
