/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_onnx.c: .onnx files from outside. Whatever the bytes are: an error, or a graph that holds together, whose passes
 * can run again and whose plan can be made. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/engine.h"
#include "compress/onnx/import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_onnx: %s\n", what);
    abort();
}

/* Plans the graph with every symbol at `dim`; that may fail, for it is one choice of many. */
static void plan(const terse_graph *graph, int64_t dim)
{
    terse_engine *engine = NULL;
    terse_error error = {0};
    terse_plan *made = NULL;
    terse_tensor *inputs = calloc((size_t)graph->n_inputs + 1, sizeof *inputs);
    static int64_t values[4096];
    require(inputs != NULL, "memory");
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *input = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK] = {0};
        for (int a = 0; a < input->rank; a++)
            dims[a] = input->dims[a] < 0 ? dim : input->dims[a];
        inputs[i] = terse_tensor_view(values, input->dtype, input->rank, dims);
        const int64_t count = terse_tensor_count(&inputs[i]);
        if (count < 0 || count > (int64_t)(sizeof values / sizeof *values)) {
            free(inputs);
            return;
        }
    }
    if (terse_engine_new(graph, terse_kernels_of(TERSE_ISA_SCALAR), 1, (size_t)64 << 20, &engine, &error) == TERSE_OK)
        (void)terse_engine_plan(engine, inputs, &made, &error);
    terse_engine_free(engine);
    free(inputs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    terse_graph *graph = NULL;
    terse_onnx_report report;
    terse_error error = {0};
    const int status = terse_onnx_import_bytes(data, size, NULL, &graph, &report, &error);
    require((status == TERSE_OK) == (graph != NULL), "a graph exactly when all is well");
    require(status == TERSE_OK || *error.message, "a failure says why");
    require(status != TERSE_OK || report.unsupported.n_all == 0, "nothing unsupported is let through");
    if (graph) {
        require(terse_graph_check(graph, &error) == TERSE_OK, error.message);
        require(graph->n_outputs > 0 && graph->values[graph->outputs[0]].rank >= 0, "outputs are stated");
        const bool batchable = graph->batchable;
        (void)terse_onnx_fold(graph, NULL, &error);
        (void)terse_onnx_infer(graph, NULL, &error);
        if (terse_onnx_batchable(graph, &error) == TERSE_OK)
            require(batchable == graph->batchable, "the proof says the same again");
        require(terse_graph_check(graph, &error) == TERSE_OK, error.message);
        plan(graph, 1);
        plan(graph, 3);
    }
    terse_onnx_report_done(&report);
    terse_graph_free(graph);
    return 0;
}

#ifndef TERSE_LIBFUZZER
static int replayed;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    require(file != NULL, path);
    static uint8_t bytes[1 << 20];
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizers see every byte read beyond the end */
    require(exact != NULL, "memory");
    memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    /* Neighbours of each case: some prefixes, and every byte changed in one way. */
    for (size_t at = 0; size < 4096 && at < size; at++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xff, 0x02};
        exact[at] ^= flips[at % sizeof flips];
        LLVMFuzzerTestOneInput(exact, size);
        exact[at] ^= flips[at % sizeof flips];
        if (at % 16 == 0)
            LLVMFuzzerTestOneInput(exact, at);
    }
    free(exact);
    replayed++;
}

static void replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) {
        replay_file(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        replay_file(name);
    }
    closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay_folder(argv[i]);
    printf("%d cases replayed\n", replayed);
    return replayed > 0 ? 0 : 1;
}
#endif
