/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/passes/edit.h"
#include "compress/passes/passes.h"
#include "compress/runner.h"

enum { ROUNDS = 9 };
static const uint64_t max_ns = 4000000000u; /* for all rounds together; three rounds are run in any case */
static const double worth = 0.97;           /* a candidate must need less than this share of the fixed choice's time */

/* One way to run the network. */
typedef struct candidate {
    terse_graph *graph; /* owned */
    terse_runner runner;
    void **inputs;
    uint64_t *times; /* per node, of the last run */
    uint64_t *least; /* per node, of all runs */
} candidate;

static void candidate_done(candidate *c)
{
    terse_runner_done(&c->runner);
    for (int i = 0; c->inputs && i < c->graph->n_inputs; i++)
        free(c->inputs[i]);
    free(c->inputs);
    free(c->times);
    free(c->least);
    terse_graph_free(c->graph);
}

static void *room(int64_t bytes)
{
    void *p = aligned_alloc(64, terse_align((size_t)bytes + 1, 64));
    if (p)
        memset(p, 0, terse_align((size_t)bytes + 1, 64));
    return p;
}

/* FP32 inputs hold numbers around 0, as images and embeddings do; all others zeros. */
static void fill(const terse_tensor *tensor, void *data)
{
    uint32_t state = 1;
    float *x = data;
    for (int64_t i = 0, n = terse_tensor_count(tensor); tensor->dtype == TERSE_FP32 && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)state / 2147483648.0f;
    }
}

static int prepare(candidate *c, terse_error *error)
{
    const terse_graph *graph = c->graph;
    const int status = terse_runner_init(graph, &c->runner, error);
    if (status != TERSE_OK)
        return status;
    TERSE_AUTO(terse_freep) terse_tensor *views = calloc((size_t)graph->n_inputs + 1, sizeof *views);
    c->inputs = calloc((size_t)graph->n_inputs + 1, sizeof(void *));
    c->times = calloc((size_t)graph->n_nodes + 1, sizeof *c->times);
    c->least = malloc(((size_t)graph->n_nodes + 1) * sizeof *c->least);
    bool good = views && c->inputs && c->times && c->least;
    for (int i = 0; good && i < graph->n_inputs; i++) {
        const terse_value *value = &graph->values[graph->inputs[i]];
        int64_t dims[TERSE_MAX_RANK];
        for (int d = 0; d < value->rank; d++)
            dims[d] = value->dims[d] < 0 ? 1 : value->dims[d];
        views[i] = terse_tensor_view(NULL, value->dtype, value->rank, dims);
        views[i].data = c->inputs[i] = room(terse_tensor_bytes(&views[i]));
        good = c->inputs[i] != NULL;
        if (good)
            fill(&views[i], c->inputs[i]);
    }
    if (!good)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for tuning");
    for (int i = 0; i < graph->n_nodes; i++)
        c->least[i] = UINT64_MAX;
    return terse_runner_plan(&c->runner, views, error);
}

static int run_once(candidate *c, terse_error *error)
{
    memset(c->times, 0, (size_t)c->graph->n_nodes * sizeof *c->times);
    terse_plan_profile(c->runner.plan, c->times);
    const int status = terse_plan_run(c->runner.plan, (const void *const *)c->inputs, c->runner.outputs, error);
    terse_plan_profile(c->runner.plan, NULL);
    for (int i = 0; i < c->graph->n_nodes; i++)
        if (c->times[i] < c->least[i])
            c->least[i] = c->times[i];
    return status;
}

/* In turn, so that whatever else the machine does falls on all. */
static int measure(candidate *list, int n, terse_error *error)
{
    int status = TERSE_OK;
    for (int i = 0; i < n && status == TERSE_OK; i++)
        status = prepare(&list[i], error);
    const uint64_t start = terse_now_ns();
    for (int round = 0; round < ROUNDS && (round < 3 || terse_now_ns() - start < max_ns) && status == TERSE_OK; round++)
        for (int i = 0; i < n && status == TERSE_OK; i++)
            status = run_once(&list[i], error);
    return status;
}

/* A network that asks for more than dimensions of 1, or for other values, is not tuned: that is no error. */
static int outcome(int status, terse_error *error)
{
    if (status != TERSE_INVALID_ARGUMENT)
        return status;
    *error = (terse_error){0};
    return TERSE_OK;
}

/* --- algorithms ---------------------------------------------------------------------------------------------- */

static bool is_square_of_three(const terse_graph *graph, const terse_node *node)
{
    if (node->op != TERSE_OP_CONV || node->n_inputs < 2 || node->inputs[1] < 0 || !node->name[0])
        return false;
    const terse_value *w = &graph->values[node->inputs[1]];
    return w->data && w->dtype == TERSE_FP32 && w->rank == 4 && w->dims[2] == 3 && w->dims[3] == 3;
}

static int set_algorithm(terse_graph *graph, const char *algorithm, terse_error *error)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (is_square_of_three(graph, &graph->nodes[i]) &&
            !terse_node_set_text(graph, &graph->nodes[i], "algorithm", algorithm))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for tuning");
    return TERSE_OK;
}

/* The least time of the node of that name; 0 when there is none. */
static uint64_t least_of(const candidate *c, const char *name)
{
    for (int i = 0; i < c->graph->n_nodes; i++)
        if (strcmp(c->graph->nodes[i].name, name) == 0)
            return c->least[i];
    return 0;
}

int terse_tune_algorithms(terse_graph *graph, terse_error *error)
{
    static const char *const algorithms[] = {"direct", "winograd"};
    candidate list[2] = {0};
    bool any = false;
    for (int i = 0; i < graph->n_nodes; i++)
        any = any || is_square_of_three(graph, &graph->nodes[i]);
    if (!any)
        return TERSE_OK;
    int status = TERSE_OK;
    for (int i = 0; i < 2 && status == TERSE_OK; i++) {
        status = terse_edit_clone(graph, &list[i].graph, error);
        if (status == TERSE_OK)
            status = set_algorithm(list[i].graph, algorithms[i], error);
        if (status == TERSE_OK)
            status = terse_passes_run(list[i].graph, TERSE_PASSES_FINISH, error);
    }
    if (status == TERSE_OK)
        status = outcome(measure(list, 2, error), error);
    for (int i = 0; i < graph->n_nodes && status == TERSE_OK && list[1].least; i++) {
        terse_node *node = &graph->nodes[i];
        const uint64_t direct = least_of(&list[0], node->name), winograd = least_of(&list[1], node->name);
        if (!is_square_of_three(graph, node) || direct == 0 || winograd == 0 || direct == UINT64_MAX ||
            winograd == UINT64_MAX)
            continue;
        if (!terse_node_set_text(graph, node, "algorithm",
                                 (double)winograd < worth * (double)direct ? "winograd" : "direct"))
            status = terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for tuning");
    }
    candidate_done(&list[0]);
    candidate_done(&list[1]);
    return status;
}

int terse_tune_direct(terse_graph *graph, terse_error *error)
{
    return set_algorithm(graph, "direct", error);
}

/* --- tiles ---------------------------------------------------------------------------------------------------- */

static const int64_t tilings[][2] = {{0, 0},         {12, 0},        {8, 0},          {6, 0},
                                     {0, 128 << 10}, {0, 256 << 10}, {0, 1024 << 10}, {8, 1024 << 10}};
enum { N_TILINGS = sizeof tilings / sizeof tilings[0] };

static bool has_tiles(const terse_node *node)
{
    return node->op == TERSE_OP_QCONV || node->op == TERSE_OP_QGEMM;
}

static int set_tiling(terse_graph *graph, terse_node *node, const int64_t *tiling, terse_error *error)
{
    const terse_kernels *kernels;
    const int status = terse_kernels_get(&kernels, error);
    char name[48];
    if (status != TERSE_OK)
        return status;
    snprintf(name, sizeof name, "tuned_%s", kernels->name);
    return terse_node_set_ints(graph, node, name, tiling, 2)
               ? TERSE_OK
               : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for tuning");
}

int terse_tune_tiles(terse_graph *graph, terse_error *error)
{
    candidate list[N_TILINGS] = {0};
    bool any = false;
    for (int i = 0; i < graph->n_nodes; i++)
        any = any || has_tiles(&graph->nodes[i]);
    if (!any)
        return TERSE_OK;
    int status = TERSE_OK;
    for (int c = 0; c < N_TILINGS && status == TERSE_OK; c++) {
        status = terse_edit_clone(graph, &list[c].graph, error);
        for (int i = 0; status == TERSE_OK && c > 0 && i < list[c].graph->n_nodes; i++)
            if (has_tiles(&list[c].graph->nodes[i]))
                status = set_tiling(list[c].graph, &list[c].graph->nodes[i], tilings[c], error);
    }
    if (status == TERSE_OK)
        status = outcome(measure(list, N_TILINGS, error), error);
    for (int i = 0; i < graph->n_nodes && status == TERSE_OK && list[N_TILINGS - 1].least; i++) {
        int best = 0;
        for (int c = 1; c < N_TILINGS; c++)
            if ((double)list[c].least[i] < (best ? 1.0 : worth) * (double)list[best].least[i])
                best = c;
        if (best && has_tiles(&graph->nodes[i]))
            status = set_tiling(graph, &graph->nodes[i], tilings[best], error);
    }
    for (int c = 0; c < N_TILINGS; c++)
        candidate_done(&list[c]);
    return status;
}

/* --- two ways ------------------------------------------------------------------------------------------------------
 */

int terse_tune_times(const terse_graph *a, const terse_graph *b, uint64_t **ret_a, uint64_t **ret_b, terse_error *error)
{
    candidate list[2] = {0};
    int status = terse_edit_clone(a, &list[0].graph, error);
    if (status == TERSE_OK && b)
        status = terse_edit_clone(b, &list[1].graph, error);
    if (status == TERSE_OK)
        status = measure(list, b ? 2 : 1, error);
    if (status == TERSE_OK) {
        *ret_a = TERSE_TAKE(list[0].least);
        if (b)
            *ret_b = TERSE_TAKE(list[1].least);
    }
    candidate_done(&list[0]);
    if (b)
        candidate_done(&list[1]);
    return outcome(status, error);
}
