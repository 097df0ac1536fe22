/* SPDX-License-Identifier: Apache-2.0 */
/* The .terse file: what is written is read back; a file of version 1 written long ago is still read; every damaged file
 * is refused with one error. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <xxhash.h>

#include "common/expand.h"
#include "common/model.h"
#include "common/model_format.h"
#include "common/winograd.h"
#include "compress/shrink.h"

#define GOLDEN "tests/golden/version1.terse"

static terse_graph *small_graph(void)
{
    terse_graph *graph = terse_graph_new();
    graph->name = "small";
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int x = terse_graph_add_value(graph, "x");
    graph->values[x].dtype = TERSE_FP32;
    graph->values[x].rank = 2;
    graph->values[x].dims[0] = n;
    graph->values[x].dims[1] = 3;
    float *weights = terse_arena_alloc(graph->arena, 2 * 3 * 16 * sizeof *weights);
    for (int i = 0; i < 2 * 3 * 16; i++)
        weights[i] = (float)i * 0.25f;
    const int w = terse_graph_add_constant(graph, "w", TERSE_FP32, 2, (int64_t[]){3, 17}, weights);
    graph->values[w].layout = TERSE_LAYOUT_F32_N16;
    graph->values[w].bytes = 2 * 3 * 16 * sizeof *weights;
    const int y = terse_graph_add_value(graph, "y"), z = terse_graph_add_value(graph, "z");
    graph->values[z].dtype = TERSE_FP32;
    graph->values[z].rank = 2;
    graph->values[z].dims[0] = n;
    graph->values[z].dims[1] = 17;
    terse_node *node = terse_graph_add_node(graph, TERSE_OP_MATMUL, "product", (int[]){x, w, TERSE_NO_VALUE}, 3, &y, 1);
    terse_node_set_text(graph, node, "activation", "Clip");
    terse_node_set_float(graph, node, "activation_alpha", -0.0);
    terse_node_set_float(graph, node, "activation_beta", 6.5);
    terse_node_set_ints(graph, node, "ints", (int64_t[]){-1, INT64_MAX, 0}, 3);
    terse_node_set_floats(graph, node, "floats", (float[]){0.5f, -2.0f}, 2);
    terse_node_set_texts(graph, node, "texts", (const char *[]){"Tanh", ""}, 2);
    node->compression = "low-rank 2 of 3";
    node = terse_graph_add_node(graph, TERSE_OP_CLIP, "clip", &y, 1, &z, 1);
    terse_node_set_int(graph, node, "n", -7);
    graph->inputs = terse_arena_alloc(graph->arena, sizeof(int));
    graph->outputs = terse_arena_alloc(graph->arena, sizeof(int));
    graph->inputs[0] = x;
    graph->outputs[0] = z;
    graph->n_inputs = graph->n_outputs = 1;
    graph->batchable = true;
    return graph;
}

static void write_small(const char *path)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = small_graph();
    terse_error error;
    assert_int_equal(terse_graph_check(graph, &error), TERSE_OK);
    const terse_model about = {.tool = "terse 0.1.0",
                               .source_sha256 = "00ff",
                               .command = "terse compress a.onnx",
                               .report = "\x80",
                               .report_bytes = 1};
    assert_int_equal(terse_model_write(path, graph, &about, &error), TERSE_OK);
}

static void expect_small(const terse_model *model)
{
    const terse_graph *graph = model->graph;
    assert_string_equal(graph->name, "small");
    assert_string_equal(model->tool, "terse 0.1.0");
    assert_string_equal(model->command, "terse compress a.onnx");
    assert_int_equal(model->report_bytes, 1);
    assert_true(graph->batchable);
    assert_int_equal(graph->n_nodes, 2);
    const terse_node *node = &graph->nodes[0];
    assert_string_equal(node->compression, "low-rank 2 of 3");
    assert_int_equal(node->inputs[2], TERSE_NO_VALUE);
    assert_string_equal(terse_node_text(node, "activation", ""), "Clip");
    assert_true(terse_node_float(node, "activation_beta", 0) == 6.5);
    assert_true(terse_node_attr(node, "ints")->ints[1] == INT64_MAX);
    assert_true(terse_node_attr(node, "floats")->floats[1] == -2.0f);
    assert_string_equal(terse_node_attr(node, "texts")->texts[0], "Tanh");
    assert_int_equal(terse_node_int(&graph->nodes[1], "n", 0), -7);
    const terse_value *w = &graph->values[node->inputs[1]];
    assert_int_equal(w->layout, TERSE_LAYOUT_F32_N16);
    assert_true(((const float *)w->data)[95] == 95 * 0.25f);
    assert_int_equal((uintptr_t)w->data % 64, 0);
    char text[64];
    assert_string_equal(terse_value_text(graph, &graph->values[graph->outputs[0]], text, sizeof text), "[N,17]");
}

static void a_written_model_is_read_back(void **state)
{
    (void)state;
    char path[] = "/tmp/terse-test-XXXXXX";
    close(mkstemp(path));
    write_small(path);
    terse_error error = {0};
    TERSE_AUTO(terse_model_closep) terse_model *model = NULL;
    const int status = terse_model_open(path, TERSE_MODEL_CHECK_SECTIONS | TERSE_MODEL_CHECK_SHA256, &model, &error);
    unlink(path);
    assert_string_equal(error.message, "");
    assert_int_equal(status, TERSE_OK);
    expect_small(model);
}

static void version_1_is_frozen(void **state)
{
    (void)state;
    if (getenv("TERSE_WRITE_GOLDEN"))
        write_small(GOLDEN);
    terse_error error = {0};
    TERSE_AUTO(terse_model_closep) terse_model *model = NULL;
    const int status = terse_model_open(GOLDEN, TERSE_MODEL_CHECK_SECTIONS | TERSE_MODEL_CHECK_SHA256, &model, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(status, TERSE_OK);
    expect_small(model);
}

/* A private copy of the golden file that a test may damage. */
static uint8_t *golden_copy(size_t *ret_size)
{
    const void *base;
    terse_error error;
    assert_int_equal(terse_file_map(GOLDEN, &base, ret_size, &error), TERSE_OK);
    uint8_t *copy = aligned_alloc(64, terse_align(*ret_size, 64));
    memcpy(copy, base, *ret_size);
    munmap((void *)(uintptr_t)base, *ret_size);
    return copy;
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = golden_copy(&size);
    for (size_t i = 0; i < size; i++) {
        bytes[i] ^= (uint8_t)(1u << i % 8);
        terse_model *model = NULL;
        terse_error error = {0};
        const int status = terse_model_parse(bytes, size, "flipped", TERSE_MODEL_CHECK_SHA256, &model, &error);
        terse_model_close(model);
        assert_int_not_equal(status, TERSE_OK);
        assert_non_null(strstr(error.message, "model 'flipped'"));
        bytes[i] ^= (uint8_t)(1u << i % 8);
    }
    free(bytes);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = golden_copy(&size);
    for (size_t n = 0; n < size; n++) {
        terse_model *model = NULL;
        terse_error error;
        /* An own block of the very size, so that a sanitizer sees a read behind its end. */
        uint8_t *part = aligned_alloc(64, terse_align(n + 1, 64));
        memcpy(part, bytes, n);
        assert_int_not_equal(terse_model_parse(part, n, "cut", 0, &model, &error), TERSE_OK);
        free(part);
    }
    free(bytes);
}

/* --- packed files ------------------------------------------------------------------------------------------------- */

/* The model that these bytes are as a file. */
static int open_bytes(const uint8_t *bytes, size_t n, unsigned checks, terse_model **ret_model, terse_error *error)
{
    char path[64];
    const int fd = memfd_create("terse-test", MFD_CLOEXEC);
    assert_true(terse_write_full(fd, bytes, n));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    *error = (terse_error){0};
    const int status = terse_model_open(path, checks, ret_model, error);
    close(fd);
    return status;
}

/* A graph with each of its constants packed, as a file. */
static uint8_t *packed_graph(const terse_graph *graph, size_t *ret_size)
{
    char path[] = "/tmp/terse-test-XXXXXX";
    terse_error error = {0};
    TERSE_AUTO(terse_shrink_done) terse_shrunk shrunk = {0};
    assert_int_equal(terse_shrink_run(graph, true, &shrunk, &error), TERSE_OK);
    assert_non_null(shrunk.packed);
    const terse_model about = {.tool = "terse 0.1.0",
                               .source_sha256 = "00ff",
                               .command = "terse compress a.onnx",
                               .report = "\x80",
                               .report_bytes = 1,
                               .packed = shrunk.packed};
    close(mkstemp(path));
    assert_int_equal(terse_model_write(path, graph, &about, &error), TERSE_OK);
    const void *base;
    assert_int_equal(terse_file_map(path, &base, ret_size, &error), TERSE_OK);
    unlink(path);
    uint8_t *copy = malloc(*ret_size);
    memcpy(copy, base, *ret_size);
    munmap((void *)(uintptr_t)base, *ret_size);
    return copy;
}

static uint8_t *packed_bytes(size_t *ret_size)
{
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = small_graph();
    return packed_graph(graph, ret_size);
}

static void a_packed_model_is_read_back(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = packed_bytes(&size);
    if (getenv("TERSE_WRITE_PACKED")) { /* for tests/fuzz/corpus/model */
        FILE *file = fopen(getenv("TERSE_WRITE_PACKED"), "wb");
        fwrite(bytes, 1, size, file);
        fclose(file);
    }
    assert_true(terse_expand_is_packed(bytes, size));
    TERSE_AUTO(terse_model_closep) terse_model *model = NULL;
    terse_error error;
    const int status = open_bytes(bytes, size, TERSE_MODEL_CHECK_SECTIONS | TERSE_MODEL_CHECK_SHA256, &model, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(status, TERSE_OK);
    expect_small(model);
    const int w = model->graph->nodes[0].inputs[1];
    assert_non_null(model->notes);
    assert_non_null(model->notes[w].encoding);
    assert_true(model->notes[w].stored < model->graph->values[w].bytes);
    free(bytes);
}

static void an_expanded_model_is_a_plain_file(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = packed_bytes(&size);
    terse_expansion expansion;
    terse_error error;
    terse_model *model = NULL;
    assert_int_equal(terse_expand_open(bytes, size, "small", &expansion, &error), TERSE_OK);
    uint8_t *image = aligned_alloc(64, terse_align(expansion.bytes, 64));
    memset(image, 0, expansion.bytes);
    assert_int_equal(terse_expand_into(&expansion, image, &error), TERSE_OK);
    assert_false(terse_expand_is_packed(image, expansion.bytes));
    assert_int_equal(terse_model_parse(image, expansion.bytes, "small", TERSE_MODEL_CHECK_SECTIONS, &model, &error),
                     TERSE_OK);
    expect_small(model);
    terse_model_close(model);
    /* Who does not expand refuses the packed one. */
    uint8_t *aligned = aligned_alloc(64, terse_align(size, 64));
    memcpy(aligned, bytes, size);
    assert_int_equal(terse_model_parse(aligned, size, "small", 0, &model, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "is packed"));
    terse_expand_done(&expansion);
    free(aligned);
    free(image);
    free(bytes);
}

static void every_flipped_bit_of_a_packed_file_is_noticed(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = packed_bytes(&size);
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        terse_model *model = NULL;
        terse_error error;
        /* Padding aside, what is expanded is noticed without the digest too: header and sections have their hashes. */
        assert_int_not_equal(open_bytes(bytes, size, TERSE_MODEL_CHECK_SHA256, &model, &error), TERSE_OK);
        assert_non_null(strstr(error.message, "model '"));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(bytes);
}

static void every_truncation_of_a_packed_file_is_refused(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = packed_bytes(&size);
    for (size_t n = 1; n < size; n++) {
        terse_model *model = NULL;
        terse_error error;
        assert_int_not_equal(open_bytes(bytes, n, 0, &model, &error), TERSE_OK);
        assert_true(*error.message);
        /* also when the file says that it is so long */
        uint8_t *part = malloc(n);
        memcpy(part, bytes, n);
        for (int i = 0; i < 8 && n >= 24; i++)
            part[16 + i] = (uint8_t)((uint64_t)n >> 8 * i);
        assert_int_not_equal(open_bytes(part, n, 0, &model, &error), TERSE_OK);
        free(part);
    }
    free(bytes);
}

static void mend_header(uint8_t *bytes)
{
    const size_t header = bytes[12] | (size_t)bytes[13] << 8;
    const uint64_t hash = XXH3_64bits(bytes + TERSE_MODEL_HEAD_BYTES, header);
    for (int i = 0; i < 8; i++)
        bytes[TERSE_MODEL_HEAD_BYTES + header + (size_t)i] = (uint8_t)(hash >> 8 * i);
}

/* Puts `number` in the place of the value of `key`, which has as many bytes, and the header's hash right. */
static void replace_number(uint8_t *bytes, const char *key, uint64_t number)
{
    const size_t header = bytes[12] | (size_t)bytes[13] << 8, length = strlen(key);
    uint8_t *end = bytes + TERSE_MODEL_HEAD_BYTES + header, *at = bytes + TERSE_MODEL_HEAD_BYTES;
    while (at + length < end && (at[0] != (0xa0 | length) || memcmp(at + 1, key, length) != 0))
        at++;
    assert_true(at + length < end);
    at += 1 + length;
    const int n = *at == 0xcf ? 8 : *at == 0xcd ? 2 : *at == 0xcc ? 1 : 0;
    assert_true(n > 0);
    for (int i = 0; i < n; i++)
        at[1 + i] = (uint8_t)(number >> 8 * (n - 1 - i));
    mend_header(bytes);
}

/* A 3x3 convolution whose weights lie as Winograd's algorithm reads them, [16,8,3,3]. */
static terse_graph *winograd_graph(void)
{
    enum { N = 16, C = 8 };
    const int64_t dims[] = {N, C, 3, 3};
    terse_graph *graph = terse_graph_new();
    graph->name = "winograd";
    const int x = terse_graph_add_value(graph, "x");
    graph->values[x].dtype = TERSE_FP32;
    graph->values[x].rank = 4;
    memcpy(graph->values[x].dims, (const int64_t[]){1, 6, 6, C}, 4 * sizeof(int64_t));
    float *plain = terse_arena_alloc(graph->arena, N * C * 9 * sizeof *plain);
    float *made = terse_arena_alloc(graph->arena, N * C * 36 * sizeof *made);
    for (int i = 0; i < N * C * 9; i++)
        plain[i] = (float)(i * 7 % 5) * 0.37f - 0.5f;
    terse_winograd_expand(plain, N, C, made);
    const int w = terse_graph_add_constant(graph, "w", TERSE_FP32, 4, dims, made);
    graph->values[w].layout = TERSE_LAYOUT_F32_WINOGRAD4;
    graph->values[w].bytes = N * C * 36 * sizeof *made;
    graph->values[w].origin = plain;
    const int y = terse_graph_add_value(graph, "y");
    graph->values[y].dtype = TERSE_FP32;
    graph->values[y].rank = 4;
    memcpy(graph->values[y].dims, (const int64_t[]){1, 4, 4, N}, 4 * sizeof(int64_t));
    terse_node *node = terse_graph_add_node(graph, TERSE_OP_CONV, "conv", (int[]){x, w}, 2, &y, 1);
    terse_node_set_int(graph, node, "channels_last", 1);
    graph->inputs = terse_arena_alloc(graph->arena, sizeof(int));
    graph->outputs = terse_arena_alloc(graph->arena, sizeof(int));
    graph->inputs[0] = x;
    graph->outputs[0] = y;
    graph->n_inputs = graph->n_outputs = 1;
    return graph;
}

static void weights_of_winograd_are_told_plain(void **state)
{
    (void)state;
    static const uint8_t shape[] = {0x94, 16, 8, 3, 3};
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = winograd_graph();
    size_t size;
    uint8_t *bytes = packed_graph(graph, &size);
    TERSE_AUTO(terse_model_closep) terse_model *model = NULL;
    terse_error error;
    const int status = open_bytes(bytes, size, TERSE_MODEL_CHECK_SECTIONS, &model, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(status, TERSE_OK);
    const terse_value *w = &model->graph->values[1], *was = &graph->values[1];
    assert_int_equal(w->bytes, was->bytes);
    assert_memory_equal(w->data, was->data, was->bytes);
    assert_non_null(strstr(model->notes[1].encoding, "winograd+"));
    assert_true(model->notes[1].stored < was->bytes / 16);
    uint8_t *at = memmem(bytes, size, shape, sizeof shape);
    assert_non_null(at);
    at[4] = 5; /* no shape that the layout has */
    mend_header(bytes);
    terse_model *other = NULL;
    assert_int_equal(open_bytes(bytes, size, 0, &other, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "winograd"));
    /* what was changed after it was made is not told by its origin */
    ((float *)(uintptr_t)was->data)[5] += 1.0f;
    free(bytes);
    bytes = packed_graph(graph, &size);
    assert_int_equal(open_bytes(bytes, size, 0, &other, &error), TERSE_OK);
    assert_memory_equal(other->graph->values[1].data, was->data, was->bytes);
    terse_model_close(other);
    free(bytes);
}

static void packed_files_that_promise_too_much_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *message;
        uint64_t number;
    } cases[] = {
        {"bytes", "has 65535 bytes, its shape needs 384", 65535},
        {"stored", "bytes from byte", 255},
        {"offset", "bytes from byte", UINT64_MAX - 3},
        {"offset", "bytes from byte", 0},
        {"xxh3", "0000000000000001 is stated", 1},
        {"stored", "XXH3", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t size;
        uint8_t *bytes = packed_bytes(&size);
        terse_model *model = NULL;
        terse_error error;
        replace_number(bytes, cases[i].key, cases[i].number);
        assert_int_equal(open_bytes(bytes, size, 0, &model, &error), TERSE_INVALID_ARGUMENT);
        if (!strstr(error.message, cases[i].message) || !strstr(error.message, "tensor"))
            fail_msg("case %zu: '%s', expected '%s'", i, error.message, cases[i].message);
        free(bytes);
    }
}

static void an_unwritable_place_gives_one_error(void **state)
{
    (void)state;
    TERSE_AUTO(terse_graph_freep) terse_graph *graph = small_graph();
    terse_error error = {0};
    const terse_model about = {.tool = ""};
    assert_int_equal(terse_model_write("/nonexistent/x.terse", graph, &about, &error), TERSE_SYSTEM);
    assert_non_null(strstr(error.message, "/nonexistent/x.terse"));
    assert_int_equal(terse_model_open("/nonexistent/x.terse", 0, &(terse_model *){NULL}, &error), TERSE_SYSTEM);
    assert_int_equal(terse_model_open("/", 0, &(terse_model *){NULL}, &error), TERSE_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_model_is_read_back),
        cmocka_unit_test(version_1_is_frozen),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_packed_model_is_read_back),
        cmocka_unit_test(an_expanded_model_is_a_plain_file),
        cmocka_unit_test(every_flipped_bit_of_a_packed_file_is_noticed),
        cmocka_unit_test(every_truncation_of_a_packed_file_is_refused),
        cmocka_unit_test(packed_files_that_promise_too_much_are_refused),
        cmocka_unit_test(weights_of_winograd_are_told_plain),
        cmocka_unit_test(an_unwritable_place_gives_one_error),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
