/* SPDX-License-Identifier: Apache-2.0 */
/* terse run: the engine without a daemon, on given inputs or on random ones to time it. */
#include "client/cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/graph/engine.h"
#include "common/json.h"
#include "common/model.h"
#include "common/npz.h"

typedef struct run {
    bool random, json, profile;
    const char *output;
    uint64_t batch, repeat, seed, n_threads;
    terse_cli_texts dims;
    terse_model *model;
    const terse_kernels *kernels;
    terse_threads *threads;
    terse_engine *engine;
    terse_plan *plan;
    terse_npz *npz;       /* given inputs */
    terse_tensor *inputs; /* graph order; data owned by npz, or by us with --random */
    void **outputs;
} run;

static void run_done(run *r)
{
    const int n_inputs = r->model ? r->model->graph->n_inputs : 0,
              n_outputs = r->model ? r->model->graph->n_outputs : 0;
    for (int i = 0; i < n_inputs && r->inputs && r->random; i++)
        free(r->inputs[i].data);
    for (int i = 0; i < n_outputs && r->outputs; i++)
        free(r->outputs[i]);
    free(r->inputs);
    free(r->outputs);
    terse_npz_free(r->npz);
    terse_engine_free(r->engine);
    terse_threads_free(r->threads);
    terse_model_close(r->model);
}

static int take_inputs(run *r, const char *path, terse_error *error)
{
    const terse_graph *graph = r->model->graph;
    int status = terse_npz_read(path, &r->npz, error);
    if (status)
        return status;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        const terse_tensor *found = terse_npz_find(r->npz, value->name);
        if (!found)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s': input '%s' is missing", path, value->name);
        if (!*r->npz->names[0] && graph->n_inputs != 1)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "'%s': a .npy serves a model with one input, this one has %d", path, graph->n_inputs);
        r->inputs[i] = *found;
        if (i == 0 && found->rank > 0)
            r->batch = (uint64_t)found->dims[0];
    }
    for (int k = 0; k < r->npz->n; k++) {
        bool known = !*r->npz->names[k];
        for (int i = 0; i < graph->n_inputs; i++)
            known = known || strcmp(graph->values[graph->inputs[i]].name, r->npz->names[k]) == 0;
        if (!known)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s': the model has no input '%s'", path,
                              r->npz->names[k]);
    }
    return TERSE_OK;
}

/* Sizes of the symbols: --batch for those that stand first in an input, --dim NAME=SIZE, else 1. */
static int bind_symbols(const run *r, int64_t *sizes, terse_error *error)
{
    const terse_graph *graph = r->model->graph;
    for (int s = 0; s < graph->n_symbols; s++)
        sizes[s] = 1;
    bool used = false;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        if (value->rank > 0 && value->dims[0] < 0) {
            sizes[TERSE_SYMBOL_OF_DIM(value->dims[0])] = (int64_t)r->batch;
            used = true;
        } else if (value->rank > 0 && value->dims[0] == (int64_t)r->batch) {
            used = true;
        }
    }
    if (!used && r->batch != 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--batch %" PRIu64 ": no input of the model has a free first dimension", r->batch);
    for (int k = 0; k < r->dims.n; k++) {
        const size_t length = strcspn(r->dims.texts[k], "=");
        bool known = false;
        for (int s = 0; s < graph->n_symbols; s++)
            known = known ||
                    (strlen(graph->symbols[s]) == length && memcmp(graph->symbols[s], r->dims.texts[k], length) == 0);
        if (!known)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "--dim %s: the model has no dimension of that name",
                              r->dims.texts[k]);
    }
    for (int s = 0; s < graph->n_symbols; s++) {
        const int status = terse_cli_dim_of(&r->dims, graph->symbols[s], sizes[s], &sizes[s], error);
        if (status)
            return status;
    }
    return TERSE_OK;
}

static int make_inputs(run *r, terse_error *error)
{
    const terse_graph *graph = r->model->graph;
    int64_t sizes[TERSE_MAX_SYMBOLS];
    const int status = bind_symbols(r, sizes, error);
    if (status)
        return status;
    uint64_t state = r->seed;
    for (int i = 0; i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int d = 0; d < value->rank; d++)
            dims[d] = value->dims[d] < 0 ? sizes[TERSE_SYMBOL_OF_DIM(value->dims[d])] : value->dims[d];
        const int64_t count = terse_dims_count(dims, value->rank);
        const size_t bytes = count < 0 ? SIZE_MAX : (size_t)count * terse_dtype_size(value->dtype);
        r->inputs[i] = terse_tensor_view(bytes < SIZE_MAX / 2 ? aligned_alloc(64, terse_align(bytes + 1, 64)) : NULL,
                                         value->dtype, value->rank, dims);
        if (!r->inputs[i].data)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for input '%s'", value->name);
        terse_cli_fill_random(&r->inputs[i], &state);
    }
    return TERSE_OK;
}

static int prepare(run *r, const char *model_path, const char *input_path, terse_error *error)
{
    int status = terse_model_open(model_path, 0, &r->model, error);
    if (status || (status = terse_kernels_get(&r->kernels, error)))
        return status;
    terse_model_prefault(r->model);
    const terse_graph *graph = r->model->graph;
    r->inputs = calloc((size_t)graph->n_inputs + 1, sizeof *r->inputs);
    r->outputs = calloc((size_t)graph->n_outputs + 1, sizeof *r->outputs);
    if (!r->inputs || !r->outputs)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if ((status = r->random ? make_inputs(r, error) : take_inputs(r, input_path, error)) ||
        (status = terse_engine_new(graph, r->kernels, 1, 0, &r->engine, error)) ||
        (status = terse_threads_new((int)r->n_threads, &r->threads, error)) ||
        (status = terse_engine_use_threads(r->engine, r->threads, (int)r->n_threads, error)) ||
        (status = terse_engine_plan(r->engine, r->inputs, &r->plan, error)))
        return status;
    for (int i = 0; i < graph->n_outputs; i++) {
        const size_t bytes = (size_t)terse_tensor_bytes(terse_plan_output(r->plan, i));
        if (!(r->outputs[i] = aligned_alloc(64, terse_align(bytes + 1, 64))))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for output %d", i);
    }
    return TERSE_OK;
}

static int run_once(run *r, terse_error *error)
{
    const void *inputs[TERSE_MAX_NODE_IO];
    for (int i = 0; i < r->model->graph->n_inputs; i++)
        inputs[i] = r->inputs[i].data;
    return terse_plan_run(r->plan, inputs, r->outputs, error);
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_profile(const run *r, const uint64_t *times)
{
    const terse_graph *graph = r->model->graph;
    uint64_t total = 0;
    for (int n = 0; n < graph->n_nodes; n++)
        total += times[n];
    printf("%10s %6s  %-20s %-24s %s\n", "us", "%", "operator", "output", "node");
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        const terse_tensor *made = node->outputs[0] < 0 ? NULL : terse_plan_value(r->plan, node->outputs[0]);
        char dims[128] = "";
        if (made)
            terse_dims_text(made->dims, made->rank, dims, sizeof dims);
        printf("%10.2f %6.2f  %-20s %-24s %s\n", (double)times[n] / 1e3 / (double)r->repeat,
               total ? 100.0 * (double)times[n] / (double)total : 0.0, terse_op_name(node->op), dims, node->name);
    }
}

/* Times `repeat` runs after a warm-up of a tenth (at least one). */
static int measure(run *r, terse_error *error)
{
    TERSE_AUTO(terse_freep) uint64_t *times = malloc(r->repeat * sizeof *times);
    TERSE_AUTO(terse_freep) uint64_t *per_node = calloc((size_t)r->model->graph->n_nodes + 1, sizeof *per_node);
    if (!times || !per_node)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %" PRIu64 " times", r->repeat);
    int status = TERSE_OK;
    for (uint64_t i = 0; !status && (i <= r->repeat / 10 || terse_plan_measuring(r->plan)); i++)
        status = run_once(r, error);
    terse_plan_profile(r->plan, r->profile ? per_node : NULL);
    for (uint64_t i = 0; !status && i < r->repeat; i++) {
        const uint64_t start = terse_now_ns();
        status = run_once(r, error);
        times[i] = terse_now_ns() - start;
    }
    if (status)
        return status;
    qsort(times, r->repeat, sizeof *times, compare_u64);
    const double median = (double)times[r->repeat / 2] / 1e3, p90 = (double)times[r->repeat * 9 / 10] / 1e3,
                 p99 = (double)times[r->repeat * 99 / 100] / 1e3;
    if (r->profile)
        print_profile(r, per_node);
    if (r->json) {
        terse_json json = terse_json_to(stdout);
        terse_json_object(&json, NULL);
        terse_json_text(&json, "model", r->model->graph->name);
        terse_json_double(&json, "median_us", median);
        terse_json_double(&json, "p90_us", p90);
        terse_json_double(&json, "p99_us", p99);
        terse_json_uint(&json, "batch", r->batch);
        terse_json_uint(&json, "repeat", r->repeat);
        terse_json_uint(&json, "threads", r->n_threads);
        terse_json_uint(&json, "arena_bytes", terse_plan_arena_bytes(r->plan));
        terse_json_int(&json, "macs", terse_plan_macs(r->plan));
        terse_json_text(&json, "isa", r->kernels->name);
        terse_json_end(&json);
        putchar('\n');
    } else {
        printf("%s: batch %" PRIu64 ", %" PRIu64
               " runs on %s: median %.1f us, p90 %.1f us, p99 %.1f us; arena %zu bytes\n",
               r->model->graph->name, r->batch, r->repeat, r->kernels->name, median, p90, p99,
               terse_plan_arena_bytes(r->plan));
    }
    return TERSE_OK;
}

static int write_outputs(run *r, terse_error *error)
{
    const terse_graph *graph = r->model->graph;
    TERSE_AUTO(terse_freep) terse_tensor *tensors = calloc((size_t)graph->n_outputs + 1, sizeof *tensors);
    TERSE_AUTO(terse_freep) const char **names = calloc((size_t)graph->n_outputs + 1, sizeof *names);
    if (!tensors || !names)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    for (int i = 0; i < graph->n_outputs; i++) {
        names[i] = graph->values[graph->outputs[i]].name;
        tensors[i] = *terse_plan_output(r->plan, i);
        tensors[i].data = r->outputs[i];
    }
    return terse_npz_write(r->output, graph->n_outputs, names, tensors, error);
}

int terse_cli_run(int argc, char **argv)
{
    run r = {.batch = 1, .repeat = 0, .seed = 1, .n_threads = 1};
    const terse_cli_usage usage = {
        "run", "MODEL.terse IN.npz -o OUT.npz | MODEL.terse --random [--batch B] [--repeat N] [--json]",
        "Runs a model in this process. IN.npz has one array per input, named as the input;\n"
        "a .npy serves a model with one input. With --random or --repeat the engine is timed.",
        1, 2};
    const terse_cli_option options[] = {
        {"output", 'o', TERSE_CLI_TEXT, "OUT.npz", &r.output, 0, 0, "write the outputs there (atomically)"},
        {"random", 0, TERSE_CLI_FLAG, NULL, &r.random, 0, 0, "random inputs: floats in [-1, 1), integers 0 or 1"},
        {"seed", 0, TERSE_CLI_COUNT, "S", &r.seed, 0, 1e15, "of --random (default 1)"},
        {"batch", 'b', TERSE_CLI_COUNT, "B", &r.batch, 0, 1 << 20, "rows with --random (default 1)"},
        {"dim", 0, TERSE_CLI_TEXTS, "NAME=SIZE", &r.dims, 0, 0,
         "size of another free dimension with --random (default 1)"},
        {"repeat", 'n', TERSE_CLI_COUNT, "N", &r.repeat, 1, 1e8, "time N runs (default with --random: 100)"},
        {"threads", 0, TERSE_CLI_COUNT, "N", &r.n_threads, 1, TERSE_MAX_THREADS,
         "share the work of a run out to N threads where that is faster (default 1)"},
        {"profile", 0, TERSE_CLI_FLAG, NULL, &r.profile, 0, 0, "time every node"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &r.json, 0, 0, "print the times as one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    const char *positional[2];
    int n = 0;
    const int code = terse_cli_parse(&usage, options, argc, argv, positional, &n);
    if (code >= 0)
        return code;
    if (r.random != (n == 1))
        return terse_cli_usage_error("run",
                                     n == 1 ? "IN.npz is missing (or --random)" : "--random takes no input file");
    if (!r.random && !r.output && !r.repeat && !r.profile)
        return terse_cli_usage_error("run", "-o OUT.npz is missing (or --repeat N)");
    const bool timed = r.random ? !r.output || r.repeat || r.profile : r.repeat || r.profile;
    if (!r.repeat)
        r.repeat = 100;
    terse_error error = {0};
    int status = prepare(&r, positional[0], n > 1 ? positional[1] : NULL, &error);
    if (!status)
        status = timed ? measure(&r, &error) : run_once(&r, &error);
    if (!status && r.output)
        status = write_outputs(&r, &error);
    run_done(&r);
    return status ? terse_cli_fail("run", &error) : TERSE_CLI_DONE;
}
