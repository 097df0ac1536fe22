/* SPDX-License-Identifier: Apache-2.0 */
/* curve.h: keys of CURVE, ZeroMQ's encryption: Z85 text and the files in which CZMQ and pyzmq keep them.
 * Runs in: tersed, the `terse` program. Owns nothing.
 *
 * A key file has lines NAME = "VALUE", indented or not; `public-key` and `secret-key` count, in Z85 (40 characters for
 * 32 bytes). NAME.key has the public key only, NAME.key_secret both. */
#ifndef TERSE_COMMON_CURVE_H
#define TERSE_COMMON_CURVE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_CURVE_KEY = 32, TERSE_CURVE_TEXT = 41 /* with its 0 */ };

/* False: `text` is no Z85 of 40 characters. */
bool terse_curve_decode(const char *text, uint8_t ret_key[TERSE_CURVE_KEY]);
void terse_curve_encode(const uint8_t key[TERSE_CURVE_KEY], char ret_text[TERSE_CURVE_TEXT]);

typedef struct terse_curve_keys {
    char public_key[TERSE_CURVE_TEXT], secret_key[TERSE_CURVE_TEXT]; /* "": the file has none */
} terse_curve_keys;

/* Reads a key file. One that has a secret key must be closed to group and others and belong to root or to this
 * process's user; `shared` lifts that (for a directory of credentials that the service manager guards). */
int terse_curve_read(const char *path, bool shared, terse_curve_keys *ret_keys, terse_error *error);

#endif
