/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/values.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/gateway/decimal.h"
#include "client/gateway/half.h"

enum { CHUNK = 512 }; /* numbers that are written between two looks for room */

typedef struct array {
    terse_scan *scan;
    const terse_tensor *tensor;
    char *to; /* where the next number goes */
    terse_error *error;
} array;

/* --- reading ---------------------------------------------------------------------------------------------- */

static bool is_half(terse_dtype dtype)
{
    return dtype == TERSE_FP16 || dtype == TERSE_BF16;
}

static bool is_float(terse_dtype dtype)
{
    return dtype == TERSE_FP32 || dtype == TERSE_FP64 || is_half(dtype);
}

static bool is_signed(terse_dtype dtype)
{
    return dtype == TERSE_INT8 || dtype == TERSE_INT16 || dtype == TERSE_INT32 || dtype == TERSE_INT64;
}

static double largest(terse_dtype dtype)
{
    return dtype == TERSE_FP64 ? DBL_MAX : dtype == TERSE_FP32 ? (double)FLT_MAX : (double)terse_half_max(dtype);
}

static bool not_this(const array *a, const char *at)
{
    char what[80];
    const terse_dtype dtype = a->tensor->dtype;
    if (is_float(dtype))
        snprintf(what, sizeof what, "a number of %s, at most %.9g either way,", terse_dtype_name(dtype),
                 largest(dtype));
    else
        snprintf(what, sizeof what, "a number of %s", terse_dtype_name(dtype));
    return terse_scan_fail(a->scan, at, what);
}

/* Infinity is one where that is what was said. */
static bool says_infinity(const char *at)
{
    return at[*at == '-'] == 'I';
}

/* Rounded to nearest; NULL when it is no number, or when it would be rounded to an infinity. */
static const char *read_float(const array *a, const char *at)
{
    const terse_dtype dtype = a->tensor->dtype;
    double value = 0;
    uint16_t half = 0;
    const char *behind = terse_decimal_read(at, a->scan->end, &value);
    if (!behind || (isinf(value) && !says_infinity(at)))
        return NULL;
    const float narrow = (float)value;
    if (is_half(dtype) ? !terse_half_from(dtype, value, &half) : dtype == TERSE_FP32 && isinf(narrow) && !isinf(value))
        return NULL;
    if (dtype == TERSE_FP64)
        memcpy(a->to, &value, sizeof value);
    else if (dtype == TERSE_FP32)
        memcpy(a->to, &narrow, sizeof narrow);
    else
        memcpy(a->to, &half, sizeof half);
    return behind;
}

static const char *read_whole(const array *a, const char *at)
{
    uint64_t magnitude = 0;
    bool negative = false;
    const size_t size = terse_dtype_size(a->tensor->dtype);
    const unsigned bits = (unsigned)size * 8 - is_signed(a->tensor->dtype);
    const uint64_t most = bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    const char *behind = terse_decimal_whole(at, a->scan->end, &magnitude, &negative);
    if (!behind || magnitude > most + (negative && is_signed(a->tensor->dtype)) ||
        (negative && magnitude > 0 && !is_signed(a->tensor->dtype)))
        return NULL;
    const uint64_t value = negative ? 0 - magnitude : magnitude;
    memcpy(a->to, &value, size); /* little endian */
    return behind;
}

static const char *read_truth(const array *a, const char *at)
{
    const size_t left = (size_t)(a->scan->end - at);
    const bool yes = left >= 4 && memcmp(at, "true", 4) == 0, no = left >= 5 && memcmp(at, "false", 5) == 0;
    if (yes || no) {
        *a->to = yes;
        return at + (yes ? 4 : 5);
    }
    if (left == 0 || (*at != '0' && *at != '1'))
        return NULL;
    *a->to = *at == '1';
    return at + 1;
}

/* `count` numbers with commas between, then the bracket. */
static bool read_numbers(array *a, int64_t count)
{
    terse_scan *scan = a->scan;
    const terse_dtype dtype = a->tensor->dtype;
    const size_t size = terse_dtype_size(dtype);
    for (int64_t i = 0; i < count; i++) {
        char c = terse_scan_peek(scan);
        if (i > 0 && c == ',') {
            scan->at++;
            terse_scan_peek(scan);
        } else if (c == ']' || i > 0) {
            return terse_scan_fail(scan, scan->at, c == ']' ? "as many numbers as the shape says" : "',' or ']'");
        }
        const char *behind = is_float(dtype)       ? read_float(a, scan->at)
                             : dtype == TERSE_BOOL ? read_truth(a, scan->at)
                                                   : read_whole(a, scan->at);
        if (!behind)
            return not_this(a, scan->at);
        scan->at = behind;
        a->to += size;
    }
    if (terse_scan_peek(scan) == ',')
        return terse_scan_fail(scan, scan->at, "as many numbers as the shape says");
    return terse_scan_open(scan, ']', "',' or ']'");
}

/* What an array has whose bracket was read, at depth `axis`. */
static bool read_level(array *a, int axis)
{
    const terse_tensor *tensor = a->tensor;
    if (terse_scan_peek(a->scan) != '[' || axis + 1 >= tensor->rank)
        return read_numbers(a, terse_dims_count(tensor->dims + axis, tensor->rank - axis));
    bool end = false;
    for (int64_t i = 0;; i++) {
        if (!terse_scan_item(a->scan, i == 0, &end))
            return false;
        if (end && i == tensor->dims[axis])
            return true;
        if (end || i == tensor->dims[axis])
            return terse_scan_fail(a->scan, a->scan->at, "as many arrays as the shape says");
        if (!terse_scan_open(a->scan, '[', "an array") || !read_level(a, axis + 1))
            return false;
    }
}

terse_status terse_values_read(terse_scan *scan, terse_tensor *tensor, terse_error *error)
{
    char shape[128];
    const int64_t count = terse_dims_count(tensor->dims, tensor->rank), left = scan->end - scan->at;
    if (count < 0 || count > left / 2 + 1) /* each number is a digit and a comma at least */
        return (terse_status)terse_fail(error, TERSE_INVALID_ARGUMENT, "shape %s, but 'data' has fewer numbers",
                                        terse_dims_text(tensor->dims, tensor->rank, shape, sizeof shape));
    char *data = malloc((size_t)count * terse_dtype_size(tensor->dtype) + 1);
    if (!data)
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a tensor");
    array a = {scan, tensor, data, error};
    if (!terse_scan_open(scan, '[', "an array of numbers") || !read_level(&a, 0)) {
        free(data);
        return TERSE_INVALID_ARGUMENT;
    }
    tensor->data = data;
    return TERSE_OK;
}

/* --- writing ---------------------------------------------------------------------------------------------- */

static uint64_t raw(terse_dtype dtype, const void *data, size_t index)
{
    const size_t size = terse_dtype_size(dtype);
    uint64_t value = 0;
    memcpy(&value, (const char *)data + index * size, size); /* little endian */
    if (is_signed(dtype) && size < 8 && value >> (size * 8 - 1))
        value |= UINT64_MAX << (size * 8);
    return value;
}

double terse_values_at(terse_dtype dtype, const void *data, size_t index)
{
    float narrow = 0;
    double wide = 0;
    if (dtype == TERSE_FP32) {
        memcpy(&narrow, (const char *)data + index * sizeof narrow, sizeof narrow);
        return (double)narrow;
    }
    if (dtype == TERSE_FP64) {
        memcpy(&wide, (const char *)data + index * sizeof wide, sizeof wide);
        return wide;
    }
    const uint64_t value = raw(dtype, data, index);
    if (is_half(dtype))
        return (double)terse_half_to(dtype, (uint16_t)value);
    return is_signed(dtype) ? (double)(int64_t)value : (double)value;
}

static size_t write_one(char *to, terse_dtype dtype, const void *data, size_t index)
{
    /* The digits of a half are those of its value as FP32, so that who has no halves reads it exactly, too. */
    if (dtype == TERSE_FP32 || is_half(dtype))
        return terse_decimal_float(to, (float)terse_values_at(dtype, data, index));
    if (dtype == TERSE_FP64)
        return terse_decimal_double(to, terse_values_at(dtype, data, index));
    if (dtype == TERSE_BOOL) {
        const bool yes = raw(dtype, data, index) != 0;
        memcpy(to, yes ? "true" : "false", 5);
        return yes ? 4 : 5;
    }
    const uint64_t value = raw(dtype, data, index);
    return is_signed(dtype) ? terse_decimal_int(to, (int64_t)value) : terse_decimal_uint(to, value);
}

void terse_values_write(terse_text *text, terse_dtype dtype, const void *data, size_t count)
{
    terse_text_put(text, "[", 1);
    for (size_t first = 0; first < count; first += CHUNK) {
        const size_t n = count - first < CHUNK ? count - first : CHUNK;
        char *start = terse_text_room(text, n * (TERSE_DECIMAL_MAX + 1)), *to = start;
        if (!start)
            return;
        for (size_t i = first; i < first + n; i++) {
            if (i > 0)
                *to++ = ',';
            to += write_one(to, dtype, data, i);
        }
        text->size += (size_t)(to - start);
    }
    terse_text_put(text, "]", 1);
}
