/* SPDX-License-Identifier: Apache-2.0 */
/* A .npy is: "\x93NUMPY", major, minor, header length (2 bytes in 1.0, 4 later), a Python dict literal
 * {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, then the elements. An .npz is a zip archive of them. */
#include "common/npz.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/bytes.h"
#include "common/npz_archive.h"

enum { MAX_HEADER = 1 << 16 };

typedef struct npy_header {
    terse_dtype dtype;
    bool swapped; /* big endian */
    bool fortran_order;
    int rank;
    int64_t dims[TERSE_MAX_RANK];
} npy_header;

static void skip_spaces(const char **at)
{
    while (isspace((unsigned char)**at))
        (*at)++;
}

static bool take(const char **at, char wanted)
{
    skip_spaces(at);
    if (**at != wanted)
        return false;
    (*at)++;
    return true;
}

static bool take_quoted(const char **at, char *text, size_t size)
{
    skip_spaces(at);
    const char quote = **at;
    if (quote != '\'' && quote != '"')
        return false;
    (*at)++;
    size_t n = 0;
    while (**at && **at != quote && n + 1 < size)
        text[n++] = *(*at)++;
    text[n] = 0;
    return take(at, quote);
}

static bool take_word(const char **at, const char *word)
{
    skip_spaces(at);
    if (strncmp(*at, word, strlen(word)) != 0)
        return false;
    *at += strlen(word);
    return true;
}

static bool take_shape(const char **at, npy_header *header)
{
    if (!take(at, '('))
        return false;
    for (header->rank = 0; !take(at, ')'); header->rank++) {
        skip_spaces(at);
        if (header->rank == TERSE_MAX_RANK || !isdigit((unsigned char)**at))
            return false;
        char *end;
        errno = 0;
        header->dims[header->rank] = strtoll(*at, &end, 10);
        *at = end;
        if (errno || (!take(at, ',') && (skip_spaces(at), **at != ')')))
            return false;
    }
    return true;
}

static bool parse_descr(const char *descr, npy_header *header)
{
    static const struct {
        const char *code;
        terse_dtype dtype;
    } codes[] = {
        {"f4", TERSE_FP32},   {"f8", TERSE_FP64},   {"f2", TERSE_FP16},   {"i1", TERSE_INT8},
        {"i2", TERSE_INT16},  {"i4", TERSE_INT32},  {"i8", TERSE_INT64},  {"u1", TERSE_UINT8},
        {"u2", TERSE_UINT16}, {"u4", TERSE_UINT32}, {"u8", TERSE_UINT64}, {"b1", TERSE_BOOL},
    };
    if (!strchr("<>|=", descr[0]))
        return false;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(descr + 1, codes[i].code) == 0) {
            header->dtype = codes[i].dtype;
            header->swapped = descr[0] == '>' && terse_dtype_size(header->dtype) > 1;
            return true;
        }
    return false;
}

/* `text` ends with a 0. Every key must be there once; others are refused, as numpy does. */
static int parse_header_text(const char *text, npy_header *header, terse_error *error)
{
    bool descr_seen = false, order_seen = false, shape_seen = false;
    const char *at = text;
    if (!take(&at, '{'))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the .npy header is no dictionary");
    while (!take(&at, '}')) {
        char key[32], descr[32];
        if (!take_quoted(&at, key, sizeof key) || !take(&at, ':'))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "the .npy header has no readable key at byte %td",
                              at - text);
        if (strcmp(key, "descr") == 0 && !descr_seen) {
            if (!take_quoted(&at, descr, sizeof descr) || !parse_descr(descr, header))
                return terse_fail(error, TERSE_INVALID_ARGUMENT,
                                  "element type %.20s is not read, allowed are b1, i1 to i8, u1 to u8, f2 to f8", at);
            descr_seen = true;
        } else if (strcmp(key, "fortran_order") == 0 && !order_seen) {
            header->fortran_order = take_word(&at, "True");
            if (!header->fortran_order && !take_word(&at, "False"))
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "fortran_order is neither True nor False");
            order_seen = true;
        } else if (strcmp(key, "shape") == 0 && !shape_seen) {
            if (!take_shape(&at, header))
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "the shape is no tuple of at most %d sizes",
                                  TERSE_MAX_RANK);
            shape_seen = true;
        } else {
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "the .npy header has the key '%s' twice or it is not known", key);
        }
        if (!take(&at, ',') && (skip_spaces(&at), *at != '}'))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "the .npy header is not readable at byte %td", at - text);
    }
    if (!descr_seen || !order_seen || !shape_seen)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the .npy header lacks %s",
                          !descr_seen   ? "descr"
                          : !order_seen ? "fortran_order"
                                        : "shape");
    return TERSE_OK;
}

static void swap_bytes(uint8_t *data, size_t n, size_t element)
{
    for (uint8_t *p = data; p < data + n; p += element)
        for (size_t i = 0; i < element / 2; i++) {
            const uint8_t held = p[i];
            p[i] = p[element - 1 - i];
            p[element - 1 - i] = held;
        }
}

/* Copies Fortran-ordered elements (first axis fastest) into C order. */
static void from_fortran(const uint8_t *from, uint8_t *to, const npy_header *header, int64_t count, size_t element)
{
    int64_t index[TERSE_MAX_RANK] = {0}, stride[TERSE_MAX_RANK];
    for (int i = 0; i < header->rank; i++)
        stride[i] = i ? stride[i - 1] * header->dims[i - 1] : 1;
    int64_t at = 0;
    for (int64_t n = 0; n < count; n++) {
        memcpy(to + (size_t)n * element, from + (size_t)at * element, element);
        for (int i = header->rank - 1; i >= 0; i--) {
            at += stride[i];
            if (++index[i] < header->dims[i])
                break;
            at -= stride[i] * header->dims[i];
            index[i] = 0;
        }
    }
}

static int parse_header(const uint8_t *bytes, size_t size, npy_header *ret_header, size_t *ret_data_at,
                        terse_error *error)
{
    if (size < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "is no .npy array (its first bytes are not \\x93NUMPY)");
    const int major = bytes[6];
    if (major < 1 || major > 3)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has .npy version %d, allowed are 1 to 3", major);
    const size_t length_bytes = major == 1 ? 2 : 4;
    size_t length = bytes[8] | (size_t)bytes[9] << 8;
    if (length_bytes == 4) {
        if (size < 12)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "ends inside its .npy header");
        length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    }
    const size_t start = 8 + length_bytes;
    if (length > size - start || length > MAX_HEADER)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "states a .npy header of %zu bytes, %zu are there and %d allowed", length, size - start,
                          MAX_HEADER);
    TERSE_AUTO(terse_freep) char *text = strndup((const char *)bytes + start, length);
    if (!text)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    npy_header header = {.dtype = TERSE_DTYPE_NONE};
    const int status = parse_header_text(text, &header, error);
    if (status)
        return status;
    *ret_header = header;
    *ret_data_at = start + length;
    return TERSE_OK;
}

static int parse_npy(const uint8_t *bytes, size_t size, terse_tensor *ret_tensor, terse_error *error)
{
    npy_header header = {.dtype = TERSE_DTYPE_NONE};
    size_t data_at = 0;
    const int status = parse_header(bytes, size, &header, &data_at, error);
    if (status)
        return status;
    const int64_t count = terse_dims_count(header.dims, header.rank);
    const size_t element = terse_dtype_size(header.dtype);
    const size_t there = size - data_at;
    char text[128];
    terse_dims_text(header.dims, header.rank, text, sizeof text);
    if (count < 0 || (uint64_t)count > there / element)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has shape %s of %s, but only %zu bytes of elements", text,
                          terse_dtype_name(header.dtype), there);
    const size_t wanted = (size_t)count * element;
    if (there != wanted)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "has %zu bytes of elements, shape %s of %s needs %zu", there,
                          text, terse_dtype_name(header.dtype), wanted);
    uint8_t *data = aligned_alloc(64, terse_align(wanted + 1, 64));
    if (!data)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", wanted);
    if (header.fortran_order && header.rank > 1)
        from_fortran(bytes + data_at, data, &header, count, element);
    else if (wanted)
        memcpy(data, bytes + data_at, wanted);
    if (header.swapped)
        swap_bytes(data, wanted, element);
    for (size_t i = 0; header.dtype == TERSE_BOOL && i < wanted; i++)
        data[i] = data[i] != 0;
    *ret_tensor = terse_tensor_view(data, header.dtype, header.rank, header.dims);
    return TERSE_OK;
}

static bool append(terse_npz *npz, const char *name, const terse_tensor *tensor)
{
    char **names = realloc(npz->names, (size_t)(npz->n + 1) * sizeof *names);
    if (names)
        npz->names = names;
    terse_tensor *tensors = realloc(npz->tensors, (size_t)(npz->n + 1) * sizeof *tensors);
    if (tensors)
        npz->tensors = tensors;
    char *copy = strdup(name);
    if (!names || !tensors || !copy) {
        free(copy);
        return false;
    }
    names[npz->n] = copy;
    tensors[npz->n++] = *tensor;
    return true;
}

static int take_member(void *user, const char *name, const uint8_t *bytes, size_t size, terse_error *error)
{
    terse_npz *npz = user;
    for (int i = 0; i < npz->n; i++)
        if (strcmp(npz->names[i], name) == 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "is there twice");
    terse_tensor tensor;
    const int status = parse_npy(bytes, size, &tensor, error);
    if (status)
        return status;
    if (!append(npz, name, &tensor)) {
        free(tensor.data);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    }
    return TERSE_OK;
}

int terse_npz_read(const char *path, terse_npz **ret_npz, terse_error *error)
{
    const void *base = NULL;
    size_t size = 0;
    int status = terse_file_map(path, &base, &size, error);
    if (status)
        return status;
    TERSE_AUTO(terse_npz_freep) terse_npz *npz = calloc(1, sizeof *npz);
    if (!npz) {
        status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    } else if (size >= 6 && memcmp(base, "\x93NUMPY", 6) == 0) {
        terse_tensor tensor;
        status = parse_npy(base, size, &tensor, error);
        if (!status && !append(npz, "", &tensor)) {
            free(tensor.data);
            status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
        }
    } else if (size < 4 || memcmp(base, "PK", 2) != 0) {
        status = terse_fail(error, TERSE_INVALID_ARGUMENT, "is neither an .npz nor an .npy file");
    } else {
        status = terse_npz_unpack(path, take_member, npz, error);
    }
    if (base)
        munmap((void *)(uintptr_t)base, size);
    if (status) {
        terse_error_prefix(error, "'%s'", path);
        return status;
    }
    *ret_npz = TERSE_TAKE(npz);
    return TERSE_OK;
}

void terse_npz_free(terse_npz *npz)
{
    if (!npz)
        return;
    for (int i = 0; i < npz->n; i++) {
        free(npz->names[i]);
        free(npz->tensors[i].data);
    }
    free(npz->names);
    free(npz->tensors);
    free(npz);
}

void terse_npz_freep(terse_npz **npz)
{
    terse_npz_free(*npz);
}

const terse_tensor *terse_npz_find(const terse_npz *npz, const char *name)
{
    for (int i = 0; i < npz->n; i++)
        if (strcmp(npz->names[i], name) == 0 || (npz->n == 1 && !*npz->names[i]))
            return &npz->tensors[i];
    return NULL;
}
