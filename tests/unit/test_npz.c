/* SPDX-License-Identifier: Apache-2.0 */
/* .npz and .npy: what is written is read back; numpy's own variants are read; damaged files are refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/npz.h"

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "/tmp/terse-npz-%d-%s", (int)getpid(), name);
    return path;
}

static void put_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* A version 1.0 .npy with this header text. */
static size_t npy(uint8_t *to, const char *text, const void *data, size_t data_bytes)
{
    memcpy(to, "\x93NUMPY\x01\x00", 8);
    to[8] = (uint8_t)strlen(text);
    to[9] = 0;
    memcpy(to + 10, text, strlen(text));
    memcpy(to + 10 + strlen(text), data, data_bytes);
    return 10 + strlen(text) + data_bytes;
}

static void arrays_written_are_read_back(void **state)
{
    (void)state;
    float a[6] = {1, -2, 3.5f, 4, 5, 6};
    int64_t b = -9;
    const char *names[] = {"a/b c", "scalar", "empty"};
    const terse_tensor tensors[] = {
        terse_tensor_view(a, TERSE_FP32, 2, (int64_t[]){2, 3}),
        terse_tensor_view(&b, TERSE_INT64, 0, NULL),
        terse_tensor_view(NULL, TERSE_UINT8, 2, (int64_t[]){0, 4}),
    };
    terse_error error = {0};
    const char *path = path_of("a.npz");
    assert_int_equal(terse_npz_write(path, 3, names, tensors, &error), TERSE_OK);
    TERSE_AUTO(terse_npz_freep) terse_npz *npz = NULL;
    const int status = terse_npz_read(path, &npz, &error);
    unlink(path);
    assert_string_equal(error.message, "");
    assert_int_equal(status, TERSE_OK);
    assert_int_equal(npz->n, 3);
    const terse_tensor *got = terse_npz_find(npz, "a/b c");
    assert_int_equal(got->rank, 2);
    assert_memory_equal(got->data, a, sizeof a);
    assert_int_equal(*(int64_t *)terse_npz_find(npz, "scalar")->data, -9);
    assert_int_equal(terse_npz_find(npz, "empty")->dims[0], 0);
    assert_null(terse_npz_find(npz, "other"));
}

static void fortran_order_and_big_endian_are_turned(void **state)
{
    (void)state;
    uint8_t bytes[256];
    const uint8_t data[] = {0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6}; /* [[1,2,3],[4,5,6]], first axis fastest */
    const size_t size =
        npy(bytes, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }   \n", data, sizeof data);
    const char *path = path_of("f.npy");
    put_file(path, bytes, size);
    terse_error error = {0};
    TERSE_AUTO(terse_npz_freep) terse_npz *npz = NULL;
    const int status = terse_npz_read(path, &npz, &error);
    unlink(path);
    assert_string_equal(error.message, "");
    assert_int_equal(status, TERSE_OK);
    assert_memory_equal(terse_npz_find(npz, "whatever")->data, ((int16_t[]){1, 2, 3, 4, 5, 6}), 12);
}

static void what_numpy_would_not_load_is_refused(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", /* 4 bytes are there */
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }",
        "{'descr': '<f4', 'fortran_order': maybe, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, }",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
        "['descr']",
        "",
    };
    const char *path = path_of("bad.npy");
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        uint8_t bytes[256];
        put_file(path, bytes, npy(bytes, headers[i], "\0\0\0\0", 4));
        terse_error error = {0};
        terse_npz *npz = NULL;
        assert_int_equal(terse_npz_read(path, &npz, &error), TERSE_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "bad.npy"));
    }
    unlink(path);
}

static void damaged_archives_are_refused(void **state)
{
    (void)state;
    float a[64] = {0};
    const terse_tensor tensor = terse_tensor_view(a, TERSE_FP32, 1, (int64_t[]){64});
    terse_error error = {0};
    const char *path = path_of("d.npz");
    assert_int_equal(terse_npz_write(path, 1, (const char *[]){"a"}, &tensor, &error), TERSE_OK);
    const void *base;
    size_t size;
    assert_int_equal(terse_file_map(path, &base, &size, &error), TERSE_OK);
    TERSE_AUTO(terse_freep) uint8_t *bytes = malloc(size);
    memcpy(bytes, base, size);
    for (size_t n = 0; n < size; n++) {
        terse_npz *npz = NULL;
        put_file(path, bytes, n);
        assert_int_equal(terse_npz_read(path, &npz, &error), TERSE_INVALID_ARGUMENT);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_written_are_read_back),
        cmocka_unit_test(fortran_order_and_big_endian_are_turned),
        cmocka_unit_test(what_numpy_would_not_load_is_refused),
        cmocka_unit_test(damaged_archives_are_refused),
    };
    return cmocka_run_group_tests_name("npz", tests, NULL, NULL);
}
