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

#include "common/model.h"
#include "common/model_format.h"

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
        cmocka_unit_test(a_written_model_is_read_back),        cmocka_unit_test(version_1_is_frozen),
        cmocka_unit_test(every_flipped_bit_is_noticed),        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(an_unwritable_place_gives_one_error),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
