/* SPDX-License-Identifier: Apache-2.0 */
/* What terse-gateway reads and writes: numbers against strtod, JSON, the bodies of infer requests. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/gateway/coding.h"
#include "client/gateway/decimal.h"
#include "client/gateway/half.h"
#include "client/gateway/intake.h"
#include "client/gateway/route.h"
#include "client/gateway/scan.h"
#include "client/gateway/several.h"
#include "client/gateway/text.h"
#include "client/gateway/values.h"
#include "common/bytes.h"

static uint64_t state;

static uint64_t next_random(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}

/* --- numbers ---------------------------------------------------------------------------------------------- */

static void same_as_strtod(const char *text)
{
    double found = 0;
    const size_t length = strlen(text);
    const char *behind = terse_decimal_read(text, text + length, &found);
    const double wanted = strtod(text, NULL);
    if (behind != text + length || memcmp(&found, &wanted, sizeof found) != 0)
        fail_msg("'%s' is read as %a, strtod has %a", text, found, wanted);
}

static void numbers_are_read_as_strtod_reads_them(void **unused)
{
    static const char *const some[] = {"0",
                                       "-0",
                                       "0.0",
                                       "-0.0e5",
                                       "1",
                                       "10",
                                       "0.1",
                                       "123456789012345678901234567890",
                                       "9007199254740993",
                                       "9007199254740992.5",
                                       "9007199254740993e0",
                                       "1e22",
                                       "1e23",
                                       "8.5e22",
                                       "4.9e-324",
                                       "2.4703282292062327e-324",
                                       "2.4703282292062328e-324",
                                       "2.2250738585072011e-308",
                                       "1.7976931348623157e308",
                                       "1e309",
                                       "1e-400",
                                       "1.7976931348623159e308",
                                       "0.000000000000000000000000000000000000001",
                                       "7.2057594037927933e16",
                                       "1.0000000000000000000000000000000000001e0",
                                       "18446744073709551615",
                                       "18446744073709551616",
                                       "1e99999999",
                                       "1e-99999999",
                                       "0e999999999",
                                       "3.4028235e38",
                                       "1.17549435e-38",
                                       "16777217",
                                       "0.30000001192092896"};
    char text[128];
    (void)unused;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        same_as_strtod(some[i]);
    for (int i = 0; i < 1000000; i++) {
        const uint64_t bits = next_random();
        double value;
        float narrow;
        const uint32_t half = (uint32_t)bits;
        memcpy(&value, &bits, sizeof value);
        memcpy(&narrow, &half, sizeof narrow);
        if (i % 4 == 0 && isfinite(value))
            snprintf(text, sizeof text, "%.*g", (int)(bits % 20 + 1), value);
        else if (i % 4 == 1 && isfinite(narrow))
            snprintf(text, sizeof text, "%.*g", (int)(bits % 18 + 1), (double)narrow);
        else if (i % 4 == 2)
            snprintf(text, sizeof text, "%" PRIu64 "e%d", bits >> (bits % 64), (int)(bits % 120) - 60);
        else
            snprintf(text, sizeof text, "%" PRIu64 ".%" PRIu64, bits >> 40, next_random() >> (bits % 60));
        same_as_strtod(text);
    }
    /* Halfway between two doubles, and a little beside. */
    for (int i = 0; i < 200000; i++) {
        const uint64_t odd = ((next_random() >> 11) | (uint64_t)1 << 52) * 2 + 1;
        if (odd >> 54 == 0) {
            snprintf(text, sizeof text, "%" PRIu64 "%s", odd, i % 3 == 0 ? "" : i % 3 == 1 ? ".0000001" : "e0");
            same_as_strtod(text);
        }
    }
}

static void what_is_no_number_is_refused(void **unused)
{
    static const char *const none[] = {"",   "-",   "+1", ".5",  "1.",  "01",  "-01",  "1e",      "1e+",
                                       "e5", "abc", "0x", "--1", "Inf", "nan", "-NaN", "Infinit", "1.e5"};
    double value;
    (void)unused;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        const char *end = none[i] + strlen(none[i]), *behind = terse_decimal_read(none[i], end, &value);
        assert_true(behind != end || !*none[i]);
    }
    char longer[2000];
    memset(longer, '1', sizeof longer);
    assert_null(terse_decimal_read(longer, longer + sizeof longer, &value));
    const char *word = "NaN";
    assert_ptr_equal(terse_decimal_read(word, word + 3, &value), word + 3);
    assert_true(isnan(value));
    word = "-Infinity";
    assert_ptr_equal(terse_decimal_read(word, word + 9, &value), word + 9);
    assert_true(isinf(value) && value < 0);
}

static void check_float(float value)
{
    char text[TERSE_DECIMAL_MAX + 1];
    const size_t length = terse_decimal_float(text, value);
    assert_true(length <= TERSE_DECIMAL_MAX);
    text[length] = 0;
    if (isnan(value)) {
        assert_string_equal(text, "NaN");
        return;
    }
    const float again = isinf(value) ? (text[0] == '-' ? -INFINITY : INFINITY) : (float)strtod(text, NULL);
    if (memcmp(&again, &value, sizeof value) != 0 || (isfinite(value) && !strpbrk(text, ".e")))
        fail_msg("%a is written as '%s'", (double)value, text);
    int digits = 0;
    bool leads = true;
    for (const char *c = text; *c && *c != 'e'; c++) {
        leads &= *c < '1' || *c > '9';
        digits += *c >= '0' && *c <= '9' && !leads;
    }
    assert_true(!isfinite(value) || digits <= 10); /* nine, and the zero behind a point */
}

static void floats_come_back_as_they_were(void **unused)
{
    static const float some[] = {
        0.0f,     -0.0f,     1.0f,      0.1f,   -1e-45f,    1e-38f,     3.4028235e38f, 16777216.0f,
        1e9f,     1e10f,     123456.0f, 0.001f, 9999999.0f, 9.9999999f, 0.00001f,      1.17549435e-38f,
        INFINITY, -INFINITY, NAN,       1e-5f,  2e-45f,     8388608.5f, 1.0000001f};
    (void)unused;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        check_float(some[i]);
    for (int i = 0; i < 2000000; i++) {
        const uint32_t bits = (uint32_t)(next_random() >> 32);
        float value;
        memcpy(&value, &bits, sizeof value);
        check_float(value);
        check_float((float)(int64_t)(next_random() % 2000001) / 1000.0f - 1000.0f);
    }
}

static void doubles_and_integers_come_back(void **unused)
{
    char text[TERSE_DECIMAL_MAX + 1];
    (void)unused;
    for (int i = 0; i < 200000; i++) {
        const uint64_t bits = next_random();
        double value;
        memcpy(&value, &bits, sizeof value);
        size_t length = terse_decimal_double(text, value);
        text[length] = 0;
        const double again = strtod(text, NULL);
        assert_true(!isfinite(value) || memcmp(&again, &value, sizeof value) == 0);
        length = terse_decimal_int(text, (int64_t)bits);
        text[length] = 0;
        assert_int_equal(strtoll(text, NULL, 10), (int64_t)bits);
        length = terse_decimal_uint(text, bits >> (bits % 64));
        text[length] = 0;
        assert_true(strtoull(text, NULL, 10) == bits >> (bits % 64));
    }
    text[terse_decimal_int(text, INT64_MIN)] = 0;
    assert_string_equal(text, "-9223372036854775808");
}

static void whole_numbers_have_no_point(void **unused)
{
    static const struct {
        const char *text;
        bool whole;
    } some[] = {{"0", true},
                {"-0", true},
                {"18446744073709551615", true},
                {"18446744073709551616", false},
                {"1.0", false},
                {"1e3", false},
                {"", false},
                {"-", false},
                {"007", false},
                {"-9223372036854775808", true}};
    (void)unused;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        uint64_t magnitude;
        bool negative;
        assert_int_equal(
            terse_decimal_whole(some[i].text, some[i].text + strlen(some[i].text), &magnitude, &negative) != NULL,
            some[i].whole);
    }
}

/* --- tensors ---------------------------------------------------------------------------------------------- */

static terse_status read_values(const char *json, terse_dtype dtype, int rank, const int64_t *dims,
                                terse_tensor *ret_tensor)
{
    terse_error error = {0};
    terse_scan scan = terse_scan_over(json, strlen(json), &error);
    *ret_tensor = terse_tensor_view(NULL, dtype, rank, dims);
    const terse_status status = terse_values_read(&scan, ret_tensor, &error);
    if (!status)
        assert_true(terse_scan_done(&scan));
    return status;
}

static void integers_keep_to_their_type(void **unused)
{
    static const struct {
        terse_dtype dtype;
        const char *least, *most, *below, *above;
    } types[] = {
        {TERSE_INT8, "-128", "127", "-129", "128"},
        {TERSE_UINT8, "0", "255", "-1", "256"},
        {TERSE_INT16, "-32768", "32767", "-32769", "32768"},
        {TERSE_UINT16, "0", "65535", "-1", "65536"},
        {TERSE_INT32, "-2147483648", "2147483647", "-2147483649", "2147483648"},
        {TERSE_UINT32, "0", "4294967295", "-1", "4294967296"},
        {TERSE_INT64, "-9223372036854775808", "9223372036854775807", "-9223372036854775809", "9223372036854775808"},
        {TERSE_UINT64, "0", "18446744073709551615", "-1", "18446744073709551616"},
        {TERSE_BOOL, "false", "true", "-1", "2"}};
    const int64_t two[] = {2}, one[] = {1};
    (void)unused;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char json[100], again[100];
        terse_tensor tensor;
        terse_text text = {0};
        snprintf(json, sizeof json, "[%s,%s]", types[i].least, types[i].most);
        assert_int_equal(read_values(json, types[i].dtype, 1, two, &tensor), TERSE_OK);
        terse_values_write(&text, types[i].dtype, tensor.data, 2);
        snprintf(again, sizeof again, "%.*s", (int)text.size, text.data);
        assert_string_equal(again, json);
        free(tensor.data);
        terse_text_free(&text);
        snprintf(json, sizeof json, "[%s]", types[i].below);
        assert_int_equal(read_values(json, types[i].dtype, 1, one, &tensor), TERSE_INVALID_ARGUMENT);
        snprintf(json, sizeof json, "[%s]", types[i].above);
        assert_int_equal(read_values(json, types[i].dtype, 1, one, &tensor), TERSE_INVALID_ARGUMENT);
        assert_int_equal(read_values("[1.5]", types[i].dtype, 1, one, &tensor), TERSE_INVALID_ARGUMENT);
    }
}

/* Every half, every number halfway between two neighbours, and the doubles right beside that. */
static void halves_are_rounded_to_nearest_even(void **unused)
{
    static const terse_dtype types[] = {TERSE_FP16, TERSE_BF16};
    static const uint16_t infinities[] = {0x7c00, 0x7f80};
    (void)unused;
    for (int t = 0; t < 2; t++) {
        const double above = ldexp(1, t == 0 ? 16 : 128); /* what would follow the largest */
        uint16_t found = 0;
        for (uint16_t bits = 0; bits < infinities[t]; bits++) {
            const double value = (double)terse_half_to(types[t], bits);
            const bool last = bits + 1 == infinities[t];
            const double next = last ? above : (double)terse_half_to(types[t], (uint16_t)(bits + 1));
            const double tie = value / 2 + next / 2;
            assert_true(value < next);
            assert_true(terse_half_from(types[t], value, &found) && found == bits);
            assert_true(terse_half_from(types[t], -value, &found) && found == (bits | 0x8000));
            assert_true(terse_half_from(types[t], nextafter(tie, 0), &found) && found == bits);
            if (last) {
                assert_false(terse_half_from(types[t], tie, &found));
                assert_false(terse_half_from(types[t], -above, &found));
                continue;
            }
            assert_true(terse_half_from(types[t], tie, &found) && found == bits + (bits & 1));
            assert_true(terse_half_from(types[t], nextafter(tie, above), &found) && found == bits + 1);
        }
        assert_true(terse_half_from(types[t], 4.9e-324, &found) && found == 0);
        assert_true(terse_half_from(types[t], -INFINITY, &found) && found == (infinities[t] | 0x8000));
        assert_true(isinf(terse_half_to(types[t], found)));
        assert_true(terse_half_from(types[t], NAN, &found) && isnan(terse_half_to(types[t], found)));
    }
    assert_true(terse_half_max(TERSE_FP16) == 65504.0f && terse_half_max(TERSE_BF16) == 0x1.fep127f);
    assert_true(terse_half_to(TERSE_FP16, 0x3555) == 0x1.554p-2f && terse_half_to(TERSE_BF16, 0x3eab) == 0x1.56p-2f);
}

static void numbers_beyond_a_floating_type_are_refused(void **unused)
{
    static const struct {
        terse_dtype dtype;
        const char *most, *written, *beyond;
    } types[] = {{TERSE_FP16, "65519.99", "65504.0", "65520"},
                 {TERSE_BF16, "3.3961775e38", "3.3895314e38", "3.3961777e38"},
                 {TERSE_FP32, "3.4028235e38", "3.4028235e38", "1e39"},
                 {TERSE_FP64, "1e308", "1e+308", "1e309"}};
    const int64_t one[] = {1};
    (void)unused;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        char json[64], again[64];
        terse_tensor tensor;
        terse_text text = {0};
        snprintf(json, sizeof json, "[%s]", types[i].most);
        assert_int_equal(read_values(json, types[i].dtype, 1, one, &tensor), TERSE_OK);
        terse_values_write(&text, types[i].dtype, tensor.data, 1);
        snprintf(json, sizeof json, "[%s]", types[i].written);
        snprintf(again, sizeof again, "%.*s", (int)text.size, text.data);
        assert_string_equal(again, json);
        free(tensor.data);
        terse_text_free(&text);
        snprintf(json, sizeof json, "[%s]", types[i].beyond);
        assert_int_equal(read_values(json, types[i].dtype, 1, one, &tensor), TERSE_INVALID_ARGUMENT);
        assert_int_equal(read_values("[1e400]", types[i].dtype, 1, one, &tensor), TERSE_INVALID_ARGUMENT);
        assert_int_equal(read_values("[-Infinity]", types[i].dtype, 1, one, &tensor), TERSE_OK);
        free(tensor.data);
    }
}

static void arrays_are_as_the_shape_says(void **unused)
{
    static const struct {
        const char *json;
        bool fits;
    } some[] = {{"[1,2,3,4,5,6]", true},
                {"[[1,2,3],[4,5,6]]", true},
                {" [ [ 1 , 2 , 3 ] , [ 4,5,6 ] ] ", true},
                {"[[1,2],[3,4],[5,6]]", false},
                {"[[1,2,3]]", false},
                {"[[1,2,3],[4,5,6],[7,8,9]]", false},
                {"[1,2,3,4,5]", false},
                {"[1,2,3,4,5,6,7]", false},
                {"[[[1,2,3]],[[4,5,6]]]", false},
                {"[]", false},
                {"[1 2 3 4 5 6]", false},
                {"[1,,2,3,4,5]", false},
                {"[[1,2,3],[4,5,6]", false},
                {"[[1,2,3],[4,5,6],]", false},
                {"{}", false},
                {"[[1,2,3],4,5,6]", false},
                {"1", false}};
    const int64_t dims[] = {2, 3};
    (void)unused;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        terse_tensor tensor;
        const terse_status status = read_values(some[i].json, TERSE_FP32, 2, dims, &tensor);
        if ((status == TERSE_OK) != some[i].fits)
            fail_msg("%s", some[i].json);
        for (int k = 0; !status && k < 6; k++)
            assert_true(((float *)tensor.data)[k] == (float)(k + 1));
        if (!status)
            free(tensor.data);
    }
    terse_tensor tensor;
    const int64_t none[] = {0, 3}, inner[] = {2, 0};
    assert_int_equal(read_values("[]", TERSE_FP32, 2, none, &tensor), TERSE_OK);
    free(tensor.data);
    assert_int_equal(read_values("[[],[]]", TERSE_FP32, 2, inner, &tensor), TERSE_OK);
    free(tensor.data);
    assert_int_equal(read_values("[7]", TERSE_FP32, 0, NULL, &tensor), TERSE_OK);
    assert_true(*(float *)tensor.data == 7);
    free(tensor.data);
}

/* --- JSON ------------------------------------------------------------------------------------------------- */

static void texts_are_unescaped(void **unused)
{
    static const struct {
        const char *json, *text;
    } some[] = {{"\"\"", ""},
                {"\"a\\n\\\"\\\\\\/\\u0041\"", "a\n\"\\/A"},
                {"\"\\u00e9\\u20ac\\ud83d\\ude00\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
                {"\"\\u0000\"", NULL},
                {"\"\\ud83d\"", NULL},
                {"\"\\ude00\"", NULL},
                {"\"\\x\"", NULL},
                {"\"a", NULL},
                {"\"\n\"", NULL},
                {"\"\\", NULL},
                {"a", NULL}};
    (void)unused;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        terse_error error = {0};
        terse_scan_text text;
        terse_scan scan = terse_scan_over(some[i].json, strlen(some[i].json), &error);
        const bool read = terse_scan_string(&scan, "a text", &text);
        assert_int_equal(read, some[i].text != NULL);
        if (read)
            assert_string_equal(text.data, some[i].text);
        else
            assert_true(*error.message);
    }
}

static bool skips(const char *json)
{
    terse_error error = {0};
    terse_scan scan = terse_scan_over(json, strlen(json), &error);
    const bool whole = terse_scan_skip(&scan) && terse_scan_done(&scan);
    assert_true(whole || *error.message);
    return whole;
}

static void values_are_passed_over_whole(void **unused)
{
    (void)unused;
    assert_true(skips("{}") && skips("[]") && skips("[[],{}]") &&
                skips(" {\"a\" : [1, 2.5e3, null, true, {\"b\":\"\\\"}\"}]} "));
    assert_false(skips("{") || skips("[1,]") || skips("[,1]") || skips("{\"a\"}") || skips("{\"a\":1,}") ||
                 skips("{1:2}") || skips("[1}") || skips("nul") || skips("[1] 2") || skips("") || skips("\"") ||
                 skips("{\"a\":1 \"b\":2}"));
    char deep[200];
    for (int depth = TERSE_SCAN_DEPTH; depth <= TERSE_SCAN_DEPTH + 1; depth++) {
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        deep[2 * depth] = 0;
        assert_int_equal(skips(deep), depth == TERSE_SCAN_DEPTH);
    }
}

/* --- paths and codings ------------------------------------------------------------------------------------- */

static void paths_name_what_is_meant(void **unused)
{
    terse_route route;
    (void)unused;
    assert_true(terse_route_find("/v2/models/a%2Fb/versions/1/infer?x=/y", &route));
    assert_int_equal(route.kind, TERSE_ROUTE_INFER);
    assert_string_equal(route.model, "a/b");
    assert_string_equal(route.version, "1");
    assert_true(terse_route_find("/v2/models/stats/ready", &route) && route.kind == TERSE_ROUTE_MODEL_READY);
    assert_true(terse_route_find("/", &route) && route.kind == TERSE_ROUTE_PAGE);
    assert_true(terse_route_find("/v2/", &route) && route.kind == TERSE_ROUTE_SERVER);
    static const char *const none[] = {"/v2/models",
                                       "/v2/models/",
                                       "/v2/models//infer",
                                       "/v2//models/a",
                                       "//v2",
                                       "/v2/models/%zz/infer",
                                       "/v2/models/a%00b/infer",
                                       "/v2/models/a/infer/x",
                                       "/v2/models/a/versions",
                                       "/V2",
                                       "/v2/models/%4"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        assert_false(terse_route_find(none[i], &route));
}

static void packed_texts_come_back(void **unused)
{
    terse_error error = {0};
    (void)unused;
    for (terse_coding coding = TERSE_CODING_GZIP; coding <= TERSE_CODING_DEFLATE; coding++)
        for (size_t size = 0; size < 300000; size = size * 3 + 1) {
            terse_text text = {0}, all = {0};
            for (size_t i = 0; i < size; i++)
                terse_text_put(&all, "abcd" + next_random() % 4, 1);
            terse_text_put(&text, all.data, all.size);
            assert_true(terse_coding_pack(coding, &text));
            const size_t packed = text.size;
            terse_text copy = {0};
            terse_text_put(&copy, text.data, packed);
            assert_int_equal(terse_coding_unpack(coding, size, &text, &error), TERSE_OK);
            assert_int_equal(text.size, size);
            assert_true(size == 0 || memcmp(text.data, all.data, size) == 0);
            if (size > 0)
                assert_int_equal(terse_coding_unpack(coding, size - 1, &copy, &error), TERSE_RESOURCE_EXHAUSTED);
            copy.size = packed - 1;
            assert_int_equal(terse_coding_unpack(coding, size, &copy, &error), TERSE_INVALID_ARGUMENT);
            terse_text_free(&text);
            terse_text_free(&all);
            terse_text_free(&copy);
        }
    assert_int_equal(terse_coding_accepted("gzip;q=0, deflate"), TERSE_CODING_DEFLATE);
    assert_int_equal(terse_coding_accepted("br, gzip;q=0.5 , deflate;q=0.4"), TERSE_CODING_GZIP);
    assert_int_equal(terse_coding_accepted("identity"), TERSE_CODING_NONE);
    assert_int_equal(terse_coding_accepted("xgzip, *"), TERSE_CODING_NONE);
}

static void room_for_nothing_is_a_place(void **unused)
{
    (void)unused;
    terse_text text = {0};
    assert_non_null(terse_text_room(&text, 0));
    terse_text_put(&text, "", 0);
    assert_false(text.broken);
    assert_int_equal(text.size, 0);
    terse_text_free(&text);
}

/* --- metrics of several daemons ----------------------------------------------------------------------------- */

static void metrics_of_several_daemons_are_one_text(void **unused)
{
    static const char one[] = "# TYPE a counter\n# HELP a A.\na_total{m=\"x y\"} 1\na_total{m=\"z\"} 2\n"
                              "# TYPE b gauge\nb 3.0\n# TYPE e gauge\n# EOF\n";
    static const char two[] =
        "# TYPE b gauge\nb 4.0\n# TYPE c gauge\nc 5\n# TYPE a counter\na_total{m=\"z\"} 6\n# EOF\n";
    static const char wanted[] =
        "# TYPE terse_endpoint_up gauge\n# HELP terse_endpoint_up Whether the daemon answered.\n"
        "terse_endpoint_up{endpoint=\"ipc://1\"} 1\nterse_endpoint_up{endpoint=\"q\\\"\"} 0\n"
        "terse_endpoint_up{endpoint=\"3\"} 1\n"
        "# TYPE a counter\n# HELP a A.\na_total{endpoint=\"ipc://1\",m=\"x y\"} "
        "1\na_total{endpoint=\"ipc://1\",m=\"z\"} 2\n"
        "a_total{endpoint=\"3\",m=\"z\"} 6\n"
        "# TYPE b gauge\nb{endpoint=\"ipc://1\"} 3.0\nb{endpoint=\"3\"} 4.0\n# TYPE e gauge\n"
        "# TYPE c gauge\nc{endpoint=\"3\"} 5\n";
    const char *endpoints[] = {"ipc://1", "q\"", "3"}, *texts[] = {one, NULL, two};
    terse_text text = {0};
    (void)unused;
    terse_several_merge(&text, endpoints, texts, 3);
    terse_text_put(&text, "", 1);
    assert_string_equal(text.data, wanted);
    terse_text_free(&text);
}

/* --- whole bodies ------------------------------------------------------------------------------------------ */

static void bodies_become_requests(void **unused)
{
    static const char json[] =
        "{\"parameters\":{\"binary_data_output\":true,\"x\":{}},\"outputs\":[{\"name\":\"y\","
        "\"parameters\":{\"binary_data\":false}},{\"name\":\"z\"}],\"id\":\"7\",\"inputs\":[{\"name\":\"a\","
        "\"shape\":[2],\"datatype\":\"INT64\",\"parameters\":{\"binary_data_size\":16}},{\"data\":[[1],[2]],"
        "\"name\":\"b\",\"datatype\":\"BOOL\",\"shape\":[2,1]}]}";
    (void)unused;
    for (int surplus = -1; surplus <= 1; surplus++) {
        terse_error error = {0};
        terse_request *request = NULL;
        terse_wish wish;
        char body[sizeof json + 20] = {0};
        memcpy(body, json, sizeof json - 1);
        const terse_intake intake = {
            "m", "", body, (size_t)((int)sizeof json - 1 + 16 + surplus), true, sizeof json - 1, NULL};
        /* BOOL with a 2 in it is refused, so that one is changed. */
        memcpy(strstr(body, "[[1],[2]]"), "[[1],[0]]", 9);
        assert_int_equal(terse_intake_read(&intake, &request, &wish, &error),
                         surplus ? TERSE_INVALID_ARGUMENT : TERSE_OK);
        if (surplus)
            continue;
        assert_string_equal(wish.id.data, "7");
        assert_int_equal(wish.n_outputs, 2);
        assert_false(wish.outputs[0].binary);
        assert_true(wish.outputs[1].binary && wish.has_id);
        terse_request_free(request);
    }
}

static int begin(void **unused)
{
    (void)unused;
    const char *given = getenv("TERSE_TEST_SEED");
    state = given ? strtoull(given, NULL, 0) : terse_now_ns() | 1;
    printf("# seed %" PRIu64 " (TERSE_TEST_SEED)\n", state);
    terse_decimal_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_as_strtod_reads_them),
        cmocka_unit_test(what_is_no_number_is_refused),
        cmocka_unit_test(floats_come_back_as_they_were),
        cmocka_unit_test(doubles_and_integers_come_back),
        cmocka_unit_test(whole_numbers_have_no_point),
        cmocka_unit_test(integers_keep_to_their_type),
        cmocka_unit_test(halves_are_rounded_to_nearest_even),
        cmocka_unit_test(numbers_beyond_a_floating_type_are_refused),
        cmocka_unit_test(arrays_are_as_the_shape_says),
        cmocka_unit_test(texts_are_unescaped),
        cmocka_unit_test(values_are_passed_over_whole),
        cmocka_unit_test(paths_name_what_is_meant),
        cmocka_unit_test(packed_texts_come_back),
        cmocka_unit_test(room_for_nothing_is_a_place),
        cmocka_unit_test(metrics_of_several_daemons_are_one_text),
        cmocka_unit_test(bodies_become_requests),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
