/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of infer requests as terse-gateway reads them. The first byte says how: bit 0, whether a header's size was
 * told (the next two bytes); bits 1 and 2, a coding; bit 3, the rest is a path. What is taken in is held against
 * itself: each FP32 that is written is read back. */
#include "tests/fuzz/replay.h"

#include "client/gateway/coding.h"
#include "client/gateway/decimal.h"
#include "client/gateway/intake.h"
#include "client/gateway/route.h"
#include "client/gateway/text.h"

static void must(int holds)
{
    if (!holds)
        abort();
}

/* The first eight bytes as numbers: written and read again. */
static void write_and_read(const uint8_t *data, size_t size)
{
    char text[TERSE_DECIMAL_MAX];
    float narrow = 0;
    double wide = 0, again = 0;
    memcpy(&narrow, data, size < sizeof narrow ? size : sizeof narrow);
    memcpy(&wide, data, size < sizeof wide ? size : sizeof wide);
    size_t length = terse_decimal_float(text, narrow);
    const char *end = text + length;
    must(terse_decimal_read(text, end, &again) == end && ((float)again == narrow || narrow != narrow));
    length = terse_decimal_double(text, wide);
    end = text + length;
    must(terse_decimal_read(text, end, &again) == end && (again == wide || wide != wide));
}

static void read_body(const char *body, size_t size, bool has_header, size_t header_size)
{
    terse_error error = {0};
    terse_request *request = NULL;
    static terse_wish wish;
    const terse_intake intake = {"model", "", body, size, has_header, header_size, NULL};
    const terse_status status = terse_intake_read(&intake, &request, &wish, &error);
    must((status == TERSE_OK) == (request != NULL) && (status == TERSE_OK || error.message[0]));
    terse_request_free(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    const uint8_t how = data[0];
    const size_t header = (size_t)data[1] | (size_t)data[2] << 8;
    data += 3;
    size -= 3;
    terse_decimal_init();
    write_and_read(data, size);
    terse_text body = {0};
    terse_text_put(&body, data, size);
    if (how & 8) {
        terse_route route;
        terse_text_put(&body, "", 1);
        terse_route_find(body.data, &route);
    } else {
        terse_error error = {0};
        const terse_coding coding = (terse_coding)(how >> 1 & 3);
        if (coding == TERSE_CODING_GZIP || coding == TERSE_CODING_DEFLATE)
            terse_coding_unpack(coding, 1 << 20, &body, &error);
        read_body(body.data ? body.data : "", body.size, how & 1, header);
    }
    terse_text_free(&body);
    return 0;
}
