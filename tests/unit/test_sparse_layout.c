/* SPDX-License-Identifier: Apache-2.0 */
/* The sparse layouts: what is packed is accepted and unpacked as it was, and no bytes that are accepted make a kernel
 * read outside its row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/sparse.h"

static uint32_t state = 12345;

static uint32_t random_bits(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* Whether everything that a kernel reads lies where it may; independent of the checker. */
static bool is_safe(terse_layout layout, const uint8_t *bytes, size_t size, int64_t k, int64_t n)
{
    const int64_t panels = terse_sparse_panels(n), window = terse_sparse_window(layout);
    const int each = TERSE_SPARSE_GROUPS * terse_sparse_quad(layout);
    uint32_t steps;
    memcpy(&steps, bytes, sizeof steps);
    if (terse_sparse_bytes(layout, n, steps) != (int64_t)size)
        return false;
    const terse_sparse s = terse_sparse_view(layout, n, bytes);
    for (int64_t p = 0; p < panels; p++) {
        int64_t base = 0;
        for (int64_t step = s.starts[p]; step < s.starts[p + 1]; step++) {
            if (step >= steps)
                return false;
            base += s.advance[step];
            for (int i = 0; i < each; i++)
                if (base + s.index[step * each + i] >= k || s.index[step * each + i] >= window)
                    return false;
            if (base + window > k && base > 0)
                return false; /* the whole window is loaded */
        }
    }
    return true;
}

static void *packed(terse_layout layout, int64_t k, int64_t n, unsigned kept, void *w, size_t *ret_bytes)
{
    const size_t size = layout == TERSE_LAYOUT_S8_4X1 ? 1 : 4;
    memset(w, 0, (size_t)(k * n) * size);
    for (int64_t group = 0; group < n; group += 4)
        for (int64_t row = 0; row < k; row++) {
            if (random_bits() % 100 >= kept)
                continue;
            for (int64_t column = group; column < group + 4 && column < n; column++) {
                const float x = (float)(random_bits() % 1000) - 500.0f;
                if (size == 1)
                    ((int8_t *)w)[column * k + row] = (int8_t)(random_bits() % 256 - 128);
                else
                    memcpy((float *)w + column * k + row, &x, sizeof x);
            }
        }
    return terse_sparse_pack(layout, w, k, n, ret_bytes);
}

static void what_is_packed_is_unpacked(void **unused)
{
    (void)unused;
    static const int64_t sizes[][2] = {{1, 1}, {3, 4}, {63, 16}, {64, 17}, {65, 40}, {300, 5}, {5000, 33}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned kept = 0; kept <= 100; kept += kept < 10 ? 1 : 30)
            for (int f = 0; f < 2; f++) {
                const terse_layout layout = f ? TERSE_LAYOUT_F32_4X1 : TERSE_LAYOUT_S8_4X1;
                const int64_t k = sizes[i][0], n = sizes[i][1];
                const size_t room = (size_t)(k * n) * 4;
                void *w = malloc(room), *back = malloc(room);
                size_t bytes = 0;
                terse_error error;
                void *data = packed(layout, k, n, kept, w, &bytes);
                assert_non_null(data);
                assert_int_equal(
                    terse_sparse_check(layout, f ? TERSE_FP32 : TERSE_INT8, 2, (int64_t[]){k, n}, data, bytes, &error),
                    TERSE_OK);
                assert_true(is_safe(layout, data, bytes, k, n));
                terse_sparse_unpack(layout, data, k, n, back);
                assert_memory_equal(w, back, (size_t)(k * n) * (f ? 4 : 1));
                free(data);
                free(w);
                free(back);
            }
}

/* Every bit of the head, the starts, the advances and the indices, and every shorter length. */
static void hostile_bytes_are_refused(void **unused)
{
    (void)unused;
    for (int f = 0; f < 2; f++) {
        const terse_layout layout = f ? TERSE_LAYOUT_F32_4X1 : TERSE_LAYOUT_S8_4X1;
        const terse_dtype dtype = f ? TERSE_FP32 : TERSE_INT8;
        const int64_t k = 700, n = 40, dims[] = {n, 70, 10};
        float w[40 * 700];
        size_t bytes = 0;
        terse_error error;
        uint8_t *data = packed(layout, k, n, 5, w, &bytes);
        assert_non_null(data);
        const size_t end = (size_t)((const uint8_t *)terse_sparse_view(layout, n, data).weights - data);
        int refused = 0, accepted = 0;
        for (size_t bit = 0; bit < end * 8; bit++) {
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            const bool good = terse_sparse_check(layout, dtype, 3, dims, data, bytes, &error) == TERSE_OK;
            if (good)
                assert_true(is_safe(layout, data, bytes, k, n));
            *(good ? &accepted : &refused) += 1;
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_true(refused > 300 && accepted > 0); /* other indices within the window are weights as well */
        for (size_t size = 0; size < bytes; size += size < 64 ? 1 : 61) {
            uint8_t *cut = malloc(size + 1); /* so that a sanitizer sees what is read behind it */
            memcpy(cut, data, size);
            assert_int_not_equal(terse_sparse_check(layout, dtype, 3, dims, cut, size, &error), TERSE_OK);
            free(cut);
        }
        free(data);
    }
}

static void dims_must_fit(void **unused)
{
    (void)unused;
    float w[64 * 16];
    size_t bytes = 0;
    terse_error error;
    void *data = packed(TERSE_LAYOUT_S8_4X1, 64, 16, 50, w, &bytes);
    static const struct {
        terse_layout layout;
        terse_dtype dtype;
        int rank;
        int64_t dims[3];
    } wrong[] = {
        {TERSE_LAYOUT_S8_4X1, TERSE_INT8, 2, {63, 16}},  {TERSE_LAYOUT_S8_4X1, TERSE_INT8, 2, {64, 1000}},
        {TERSE_LAYOUT_S8_4X1, TERSE_INT8, 2, {0, 16}},   {TERSE_LAYOUT_S8_4X1, TERSE_INT8, 1, {64}},
        {TERSE_LAYOUT_S8_4X1, TERSE_INT8, -1, {0}},      {TERSE_LAYOUT_S8_4X1, TERSE_UINT8, 2, {64, 16}},
        {TERSE_LAYOUT_S8_4X1, TERSE_FP32, 2, {64, 16}},  {TERSE_LAYOUT_F32_4X1, TERSE_FP32, 2, {64, 16}},
        {TERSE_LAYOUT_F32_N16, TERSE_FP32, 2, {64, 16}}, {TERSE_LAYOUT_S8_4X1, TERSE_INT8, 2, {1, 16}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_not_equal(
            terse_sparse_check(wrong[i].layout, wrong[i].dtype, wrong[i].rank, wrong[i].dims, data, bytes, &error),
            TERSE_OK);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_is_unpacked),
        cmocka_unit_test(hostile_bytes_are_refused),
        cmocka_unit_test(dims_must_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
