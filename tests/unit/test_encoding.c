/* SPDX-License-Identifier: Apache-2.0 */
/* Encodings of tensors: what is packed comes back bit for bit and in the encoding that suits it; stored bytes that lie
 * are refused with one error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/encoding.h"

static uint64_t random_state = 20261126;

static uint32_t next(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* n elements, `zeros` of 100 of them zero, the others of so many kinds (0: any). */
static uint8_t *make(size_t n, size_t element, unsigned zeros, unsigned kinds)
{
    uint8_t *data = calloc(n * element + 1, 1);
    for (size_t i = 0; i < n; i++) {
        uint64_t value = kinds ? 1 + next() % kinds : (uint64_t)next() << 33 | next();
        value *= kinds ? 0x9e3779b97f4a7c15u : 1;
        if (next() % 100 >= zeros)
            memcpy(data + i * element, &value, element);
    }
    return data;
}

static void expect_back(const uint8_t *data, size_t bytes, size_t element, bool zstd, const char *wanted,
                        size_t at_most)
{
    terse_encoding encoding;
    uint8_t *stored = NULL;
    size_t n = 0;
    terse_error error = {0};
    char text[TERSE_ENCODING_TEXT];
    assert_int_equal(terse_encoding_pack(data, bytes, element, zstd, &encoding, &stored, &n, &error), TERSE_OK);
    if (!wanted || !*wanted) {
        assert_true(wanted == NULL || stored == NULL);
        if (!stored)
            return;
    }
    assert_non_null(stored);
    terse_encoding_text(encoding, text);
    if (wanted && strcmp(text, wanted) != 0)
        fail_msg("packed as %s, %s was expected", text, wanted);
    if (n > at_most || n >= bytes)
        fail_msg("%s takes %zu bytes, %zu were expected", text, n, at_most);
    terse_encoding again;
    assert_true(terse_encoding_from_text(text, strlen(text), &again));
    assert_memory_equal(&again, &encoding, sizeof again);
    /* own blocks of the very size, so that a sanitizer sees a step behind their ends */
    uint8_t *back = malloc(bytes), *exact = malloc(n);
    memcpy(exact, stored, n);
    memset(back, 0xa5, bytes);
    assert_int_equal(terse_encoding_unpack(encoding, exact, n, element, back, bytes, &error), TERSE_OK);
    assert_memory_equal(back, data, bytes);
    free(exact);
    free(back);
    free(stored);
}

static void each_kind_of_tensor_has_its_encoding(void **state)
{
    (void)state;
    static const struct {
        size_t n, element;
        unsigned zeros, kinds;
        bool zstd;
        const char *encoding;
        size_t at_most;
    } cases[] = {
        {40000, 4, 30, 16, true, "bitmap+codebook+zstd", 19500},
        {40000, 4, 10, 200, true, "codebook+zstd", 40000},
        {40000, 4, 0, 16, false, "codebook+bits", 20100},
        {40001, 4, 0, 200, false, "codebook+bits", 40900},
        {40000, 4, 95, 16, true, "gaps+codebook+zstd", 3500},
        {40003, 4, 70, 16, false, "bitmap+codebook+bits", 11200},
        {40000, 4, 90, 0, false, "gaps+bits", 21000},
        {40000, 8, 60, 0, false, "bitmap+bits", 135000},
        {40000, 1, 0, 9, true, NULL, 17000},
        {40000, 1, 0, 9, false, "codebook+bits", 20100},
        {40000, 2, 0, 0, true, "", 0},
        {40000, 4, 100, 0, true, NULL, 6000},
        {3, 4, 0, 0, true, "", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t *data = make(cases[i].n, cases[i].element, cases[i].zeros, cases[i].kinds);
        expect_back(data, cases[i].n * cases[i].element, cases[i].element, cases[i].zstd, cases[i].encoding,
                    cases[i].at_most);
        free(data);
    }
}

static void weights_lose_their_exponents_redundancy(void **state)
{
    (void)state;
    float *weights = malloc(30000 * sizeof *weights);
    for (int i = 0; i < 30000; i++)
        weights[i] = ((float)(next() % 2001) - 1000.0f) * ((float)(next() % 997) + 0.37f) * 1e-7f;
    expect_back((const uint8_t *)weights, 30000 * sizeof *weights, sizeof *weights, true, "planes+zstd", 110000);
    free(weights);
}

static void every_size_comes_back(void **state)
{
    (void)state;
    for (size_t n = 0; n < 600; n++)
        for (size_t element = 1; element <= 8; element *= 2) {
            uint8_t *data = make(n, element, next() % 101, next() % 3 == 0 ? 0 : 1 + next() % 300);
            expect_back(data, n * element, element, n % 2 == 0, NULL, SIZE_MAX);
            free(data);
        }
}

/* Places further apart than a byte can tell. */
static void long_gaps_come_back(void **state)
{
    (void)state;
    static const size_t places[] = {0, 254, 255, 256, 510, 511, 765, 766, 1021, 2042, 9999};
    for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
        uint8_t *data = calloc(10000, 4);
        data[places[p] * 4 + 1] = 7;
        data[(places[p] + 1275 < 10000 ? places[p] + 1275 : 5000) * 4] = 1;
        expect_back(data, 40000, 4, false, "gaps+bits", 200);
        free(data);
    }
}

static int unpack(const char *name, const void *stored, size_t n, size_t element, size_t bytes, terse_error *error)
{
    terse_encoding encoding;
    assert_true(terse_encoding_from_text(name, strlen(name), &encoding));
    uint8_t *to = malloc(bytes + 1), *exact = malloc(n + 1);
    memcpy(exact, stored, n);
    *error = (terse_error){0};
    const int status = terse_encoding_unpack(encoding, exact, n, element, to, bytes, error);
    free(exact);
    free(to);
    return status;
}

static void lies_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *encoding, *stored, *message;
        size_t n, element, bytes;
    } cases[] = {
        {"zstd", "", "end early", 0, 1, 8},
        {"zstd", "\x01\x08", "end early", 2, 1, 8},
        {"zstd", "\x02\x08\x08", "damaged", 3, 1, 8},
        {"zstd", "\x00\x09\x09 123456789", "decode to 9 bytes, needed are 8 to 8", 13, 1, 8},
        {"zstd",
         "\x00\x08\x09"
         "123456789",
         "take 9 bytes", 12, 1, 8},
        {"zstd",
         "\x00\x08\x08"
         "1234567",
         "take 8 bytes, 7 are there", 10, 1, 8},
        {"zstd",
         "\x00\x08\x08"
         "123456789",
         "1 stored bytes are left over", 12, 1, 8},
        {"zstd",
         "\x01\x08\x05"
         "12345",
         "zstd: ", 8, 1, 8},
        {"zstd", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "damaged", 12, 1, 8},
        {"codebook+bits",
         "\x00\x03\x03"
         "abc\x00\x04\x04\x00\x01\x02\x03",
         "code 3 is 3, the codebook has 3", 13, 1, 4},
        {"codebook+bits",
         "\x00\x03\x03"
         "abc\x01\x04\x02\x00\x00",
         "codes take 2 bytes, needed are 1", 11, 1, 4},
        {"codebook+bits",
         "\x00\x03\x03"
         "abc",
         "no multiple of 2", 6, 2, 4},
        {"codebook+bits", "\x00\x00\x00\x00\x02\x02\x00\x00", "codebook decode to 0 bytes", 8, 2, 4},
        {"bitmap+bits",
         "\x00\x01\x01\xff\x00\x08\x08"
         "12345678",
         "bitmap names elements behind the last", 15, 1, 7},
        {"bitmap+bits",
         "\x00\x01\x01\x03\x00\x01\x01"
         "1",
         "decode to 1 bytes, needed are 2", 8, 1, 7},
        {"bitmap+bits",
         "\x00\x02\x02\x03\x00\x01\x01"
         "1",
         "bitmap decode to 2 bytes", 8, 1, 7},
        {"gaps+bits",
         "\x00\x01\x01\x07\x00\x01\x01"
         "1",
         "gaps name elements behind the last", 8, 1, 7},
        {"gaps+bits", "\x00\x01\x01\xff\x00\x00\x00", "gaps end before an element", 7, 1, 7},
        {"gaps+bits",
         "\x01\x01\x01\x01\x00\x01\x01"
         "1",
         "gaps take 1 bytes", 8, 1, 7},
        {"planes+zstd",
         "\x00\x02\x02"
         "12",
         "end early", 5, 2, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        terse_error error;
        const int status =
            unpack(cases[i].encoding, cases[i].stored, cases[i].n, cases[i].element, cases[i].bytes, &error);
        if (status != TERSE_INVALID_ARGUMENT || !strstr(error.message, cases[i].message))
            fail_msg("case %zu: %d '%s', expected '%s'", i, status, error.message, cases[i].message);
    }
    terse_encoding encoding;
    assert_false(terse_encoding_from_text("lzma", 4, &encoding));
    assert_false(terse_encoding_from_text("zstd+", 5, &encoding));
    assert_false(terse_encoding_from_text("", 0, &encoding));
    assert_false(terse_encoding_allows(1 << 20, (UINT64_C(1) << 30) + 1024));
    assert_true(terse_encoding_allows(1, TERSE_ENCODING_FREE));
}

/* Each bit flipped and each end cut off: an error or other elements, and never a step outside (which a sanitizer
 * sees); what is cut off is always noticed. */
static void damage_stays_inside(void **state)
{
    (void)state;
    static const unsigned zeros[] = {0, 60, 97}, kinds[] = {5, 0};
    for (int c = 0; c < 12; c++) {
        const size_t bytes = 4 * 300;
        uint8_t *data = make(300, 4, zeros[c % 3], kinds[c / 3 % 2]), *stored = NULL;
        terse_encoding encoding;
        size_t n = 0;
        terse_error error = {0};
        assert_int_equal(terse_encoding_pack(data, bytes, 4, c < 6, &encoding, &stored, &n, &error), TERSE_OK);
        char text[TERSE_ENCODING_TEXT];
        for (size_t bit = 0; stored && bit < n * 8; bit++) {
            stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (unpack(terse_encoding_text(encoding, text), stored, n, 4, bytes, &error) != TERSE_OK)
                assert_true(*error.message);
            stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t cut = 0; stored && cut < n; cut++)
            assert_int_equal(unpack(terse_encoding_text(encoding, text), stored, cut, 4, bytes, &error),
                             TERSE_INVALID_ARGUMENT);
        free(stored);
        free(data);
    }
}

int main(void)
{
    printf("# seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_tensor_has_its_encoding),
        cmocka_unit_test(weights_lose_their_exponents_redundancy),
        cmocka_unit_test(every_size_comes_back),
        cmocka_unit_test(long_gaps_come_back),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(damage_stays_inside),
    };
    return cmocka_run_group_tests_name("encoding", tests, NULL, NULL);
}
