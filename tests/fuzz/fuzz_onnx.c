/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_onnx.c: .onnx files from outside. Whatever the bytes are: an error, or a graph that holds together, whose passes
 * can run again and whose plan can be made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/graph/engine.h"
#include "compress/onnx/import.h"
#include "compress/passes/passes.h"
#define REPLAY_SPARSE
#include "tests/fuzz/replay.h"

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

/* What the file holds decides where a pass may go wrong too; each leaves a graph that holds together, or says why not.
 */
static void run_passes(terse_graph *graph)
{
    terse_error error = {0};
    for (int i = 0; i < terse_passes_n; i++) {
        if (terse_passes_list[i].run(graph, &error) != TERSE_OK) {
            require(*error.message, "a pass that fails says why");
            return;
        }
        require(terse_graph_check(graph, &error) == TERSE_OK, error.message);
    }
    plan(graph, 2);
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
        run_passes(graph);
    }
    terse_onnx_report_done(&report);
    terse_graph_free(graph);
    return 0;
}
