/* SPDX-License-Identifier: Apache-2.0 */
/* Stored tensors that lie: byte 0 chooses the encoding, byte 1 the size of an element, two bytes how many there are;
 * the rest is what the file stores. */
#include <stdlib.h>
#include <string.h>

#include "common/encoding.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    const terse_encoding encoding = {data[0] % TERSE_N_PLACES, data[0] / 3 % TERSE_N_CODES,
                                     data[0] / 9 % TERSE_N_CODERS, 0};
    const size_t element = (size_t)1 << data[1] % 4, bytes = (data[2] | (size_t)data[3] << 8) * element;
    /* Blocks of the very size, so that a sanitizer sees a step behind their ends. */
    uint8_t *stored = malloc(size - 4 + 1), *to = malloc(bytes + 1);
    terse_error error = {0};
    memcpy(stored, data + 4, size - 4);
    if (terse_encoding_unpack(encoding, stored, size - 4, element, to, bytes, &error) == TERSE_OK) {
        /* What could be read can be written, and read again as the same. */
        terse_encoding other;
        uint8_t *again = NULL, *back = malloc(bytes + 1);
        size_t n = 0;
        if (terse_encoding_pack(to, bytes, element, data[0] & 1, &other, &again, &n, &error) != TERSE_OK)
            abort();
        if (again && (terse_encoding_unpack(other, again, n, element, back, bytes, &error) != TERSE_OK ||
                      memcmp(back, to, bytes) != 0))
            abort();
        free(again);
        free(back);
    } else if (!*error.message) {
        abort();
    }
    free(stored);
    free(to);
    return 0;
}
