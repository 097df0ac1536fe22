/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/memory.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"
#include "compress/texts.h"

/* Measured: the program with its libraries; BLAS and what allocation leaves unused. */
enum { PROGRAM = 16 << 20, WORKING = 4 << 20 };
enum { MAX_SIDE = 4608 }; /* of second moments, as everywhere here */

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Inputs of one output of a product with constant weights; 0: no product. */
static uint64_t inner_of(const terse_graph *graph, const terse_node *node)
{
    const bool matrix = node->op == TERSE_OP_GEMM || node->op == TERSE_OP_MATMUL;
    const int v = (matrix || node->op == TERSE_OP_CONV) && node->n_inputs > 1 ? node->inputs[1] : -1;
    if (v < 0 || !graph->values[v].data || graph->values[v].rank < 2 || graph->values[v].dims[0] < 1)
        return 0;
    const terse_value *w = &graph->values[v];
    if (matrix && terse_node_int(node, "transB", 0) == 0)
        return (uint64_t)w->dims[w->rank - 2];
    return (uint64_t)(terse_dims_count(w->dims, w->rank) / w->dims[0]);
}

static void look_at_weights(const terse_graph *graph, terse_memory_of *of)
{
    for (int v = 0; v < graph->n_values; v++)
        of->other += graph->values[v].data ? graph->values[v].bytes : 0;
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        const uint64_t k = inner_of(graph, node), square = k <= MAX_SIDE ? k * k * sizeof(double) : 0;
        if (k == 0)
            continue;
        const terse_value *w = &graph->values[node->inputs[1]];
        if (node->op != TERSE_OP_CONV && w->bytes <= of->other) {
            of->matrices += w->bytes;
            of->other -= w->bytes;
        }
        const uint64_t doubles = w->bytes / sizeof(float) * sizeof(double);
        of->squares += square;
        of->widest = square > of->widest ? square : of->widest;
        of->widest_weights = doubles > of->widest_weights ? doubles : of->widest_weights;
    }
}

/* One sample through the network. What cannot be run is told where it is needed. */
static int look_at_numbers(const terse_samples *samples, terse_memory_of *of, terse_error *error)
{
    TERSE_AUTO(terse_replay_freep) terse_replay *replay = NULL;
    TERSE_AUTO(terse_numbers_freep) terse_numbers *numbers = NULL;
    const terse_graph *graph = samples->graph;
    int status = terse_replay_new(graph, samples, 1, 1, &replay, error);
    if (status == TERSE_OK)
        status = terse_numbers_new(replay, 0, false, NULL, NULL, &numbers, error);
    for (int n = 0; n < graph->n_nodes && status == TERSE_OK; n++) {
        const uint64_t before = terse_numbers_bytes(numbers);
        status = terse_numbers_step(numbers, n, error);
        uint64_t made = 0;
        for (int o = 0; o < graph->nodes[n].n_outputs && status == TERSE_OK; o++) {
            const int v = graph->nodes[n].outputs[o];
            const terse_tensor *t = v >= 0 ? terse_numbers_value(numbers, v) : NULL;
            made += t ? (uint64_t)terse_tensor_bytes(t) : 0;
            of->macs += t && o == 0 ? (uint64_t)terse_tensor_count(t) * inner_of(graph, &graph->nodes[n]) : 0;
        }
        of->all += made;
        of->live = before + made > of->live ? before + made : of->live;
    }
    terse_numbers_freep(&numbers);
    numbers = NULL;
    return status == TERSE_RESOURCE_EXHAUSTED ? status : TERSE_OK;
}

int terse_memory_look(const terse_graph *graph, uint64_t file_bytes, const terse_npz *data, terse_memory_of *ret_of,
                      terse_error *error)
{
    terse_memory_of of = {.file = file_bytes};
    terse_samples samples = {0};
    look_at_weights(graph, &of);
    int status = data ? terse_samples_open(graph, data, &samples, error) : TERSE_OK;
    for (int i = 0; data && i < data->n; i++)
        of.samples += (uint64_t)terse_tensor_bytes(&data->tensors[i]);
    if (data && status == TERSE_OK) {
        of.n_samples = samples.samples;
        of.text_rows = terse_texts_rows(graph, &samples);
        of.sample = of.samples / (uint64_t)(samples.samples > 0 ? samples.samples : 1);
        status = look_at_numbers(&samples, &of, error);
    }
    if (data)
        terse_samples_done(&samples);
    if (status == TERSE_OK)
        *ret_of = of;
    return status;
}

/* --- estimating --------------------------------------------------------------------------------------------------- */

typedef struct step {
    double weights, samples, numbers, moments;
    double least_numbers, least_moments; /* of which that cannot wait in files */
} step;

static double sum_of(const step *s)
{
    return s->weights + s->samples + s->numbers + s->moments;
}

static double least_of(const step *s)
{
    return s->weights + s->samples + fmin(s->numbers, s->least_numbers) + fmin(s->moments, s->least_moments);
}

/* Samples walk through the network side by side, as it was and as it is: as many as go into `room`. */
static void walk(const terse_memory_of *of, double room, double most, double least, step *s)
{
    double n = room / 2 / ((double)of->live + 1);
    n = n > most ? most : n < least ? least : n;
    n = n > (double)of->n_samples ? (double)of->n_samples : n;
    const double chunk = n > TERSE_WALK_CHUNK ? TERSE_WALK_CHUNK : n;
    s->numbers = n * (2 * (double)of->live + (double)of->sample);
    s->least_numbers = chunk * 2 * ((double)of->live + (double)of->sample);
}

static double weights_of(const terse_memory_of *of)
{
    return (double)of->matrices + (double)of->other;
}

/* The hungriest of the steps that the options ask for. */
static void take(step *most, const step *s)
{
    if (sum_of(s) > sum_of(most))
        *most = *s;
}

/* Low rank, pruning, clusters: of each layer the second moments and what is made of them. */
static step fitting(const terse_memory_of *of, const terse_options *o, double squares, double forms)
{
    step s = {.weights = PROGRAM + WORKING + (2 + forms) * weights_of(of)};
    s.samples = (double)of->samples;
    walk(of, 1 << 30, o->low_rank.target && o->prune == 0 ? 256 : 512, TERSE_WALK_CHUNK, &s);
    s.moments = s.least_moments = squares * (double)of->widest + 4 * (double)of->widest_weights;
    return s;
}

static step quantizing(const terse_memory_of *of, const terse_options *o)
{
    step s = {.weights = PROGRAM + WORKING + 2.5 * weights_of(of), .samples = (double)of->samples};
    double rows = (double)(48 << 20) / ((double)of->all + 1);
    rows = rows > 8 ? 8 : rows < 1 ? 1 : rows;
    const double trial = rows * 2 * (double)of->all + 32 * (double)of->sample;
    /* biases are corrected on as many samples as there is time for; rounding takes what there is room for */
    const bool rounds = o->rounding > TERSE_ROUNDING_NEAREST || o->cluster;
    const double affordable = 150e9 / (4 * (double)of->macs + 1e6);
    walk(of, 400 << 20, rounds || affordable > 64 ? 64 : affordable < 4 ? 4 : affordable, 4, &s);
    s.numbers = s.numbers > trial ? s.numbers : trial;
    s.least_numbers = s.least_numbers > trial ? s.least_numbers : trial;
    if (rounds)
        s.moments = s.least_moments = 6 * (double)of->widest + 2 * (double)of->widest_weights;
    return s;
}

static step four_bits(const terse_memory_of *of)
{
    step s = {.weights = PROGRAM + WORKING + 3 * weights_of(of), .samples = (double)of->samples};
    const double n = of->n_samples < 128 ? (double)of->n_samples : 128;
    s.numbers = n * ((double)of->live + (double)of->sample);
    s.least_numbers = (n > 8 ? 8 : n) * 2 * ((double)of->live + (double)of->sample);
    s.least_moments = 4 * (double)of->widest + 2 * (double)of->widest_weights;
    s.moments = 2 * (double)of->squares + s.least_moments;
    return s;
}

/* What writers of texts have in hand, and remember. */
static step writing(const terse_memory_of *of)
{
    step s = {.weights = PROGRAM + WORKING + 2 * weights_of(of), .samples = (double)of->samples};
    s.numbers = s.least_numbers = TERSE_TEXTS_WRITERS * (TERSE_TEXTS_MEMORY + (double)of->text_rows * (double)of->live);
    return s;
}

/* The numbers of a batch, forth and back. */
static step training(const terse_memory_of *of)
{
    step s = {.weights = PROGRAM + WORKING + 7 * weights_of(of), .samples = (double)of->samples};
    s.numbers = s.least_numbers = 32 * 3 * (double)of->all;
    return s;
}

terse_memory terse_memory_estimate(const terse_memory_of *of, const terse_options *o)
{
    const bool searching = terse_goal_is_set(&o->goal) || o->goal.plan, seen = of->n_samples > 0;
    /* transposed, packed for kernels, written: what every run does at its end */
    step most = {.weights = PROGRAM + 3.8 * (double)of->matrices + 2.4 * (double)of->other};
    if (PROGRAM + 2.2 * (double)of->file > most.weights)
        most.weights = PROGRAM + 2.2 * (double)of->file;
    const step reading = {.weights = PROGRAM + weights_of(of), .samples = 2 * (double)of->samples};
    double least = least_of(&most) > least_of(&reading) ? least_of(&most) : least_of(&reading);
    take(&most, &reading);
    step list[6];
    int n = 0;
    if (seen && (o->low_rank.target || searching))
        list[n++] = fitting(of, o, 8, 3);
    if (seen && (o->prune > 0 || searching)) {
        list[n++] = fitting(of, o, 7, 3);
        if (o->prune_kind == TERSE_PRUNE_CHANNELS || searching) /* they are kept as FP32, of some of the layers */
            list[n - 1].moments +=
                (double)of->squares / 2 < 1.5 * (1 << 30) ? (double)of->squares / 2 : 1.5 * (1 << 30);
    }
    if (seen && (o->quantize == TERSE_QUANTIZE_INT8 || searching))
        list[n++] = quantizing(of, o);
    if (seen && o->quantize == TERSE_QUANTIZE_INT4_WEIGHTS)
        list[n++] = four_bits(of);
    else if (seen && o->cluster && !searching)
        list[n++] = fitting(of, o, 6, 3);
    if (n < 5 && seen && o->recover.text)
        list[n++] = training(of);
    if (of->text_rows > 0 && !searching &&
        (o->recover.text || o->low_rank.target || o->quantize == TERSE_QUANTIZE_INT4_WEIGHTS))
        list[n++] = writing(of);
    for (int i = 0; i < n; i++) {
        take(&most, &list[i]);
        least = least_of(&list[i]) > least ? least_of(&list[i]) : least;
    }
    if (o->validate) { /* the original's passes beside */
        most.weights += 2 * weights_of(of);
        least += 2 * weights_of(of);
    }
    return (terse_memory){.weights = (uint64_t)most.weights,
                          .samples = (uint64_t)most.samples,
                          .numbers = (uint64_t)most.numbers,
                          .moments = (uint64_t)most.moments,
                          .need = (uint64_t)sum_of(&most),
                          .least = (uint64_t)least};
}

const char *terse_memory_text(const terse_memory *m, char text[TERSE_MEMORY_TEXT])
{
    const double gib = 1 << 30, mib = 1 << 20, unit = (double)m->need >= gib ? gib : mib;
    const int digits = unit == gib;
    const struct {
        const char *name;
        uint64_t bytes;
    } parts[] = {{"weights", m->weights},
                 {"samples", m->samples},
                 {"numbers of layers", m->numbers},
                 {"second moments", m->moments}};
    int at = snprintf(text, TERSE_MEMORY_TEXT, "about %.*f %s of memory", digits, (double)m->need / unit,
                      unit == gib ? "GiB" : "MiB");
    const char *between = ": ";
    for (int i = 0; i < 4; i++)
        if ((double)parts[i].bytes * 100 >= (double)m->need) {
            at += snprintf(text + at, TERSE_MEMORY_TEXT - (size_t)at, "%s%s %.*f", between, parts[i].name, digits,
                           (double)parts[i].bytes / unit);
            between = ", ";
        }
    return text;
}

/* --- bounds ------------------------------------------------------------------------------------------------------- */

uint64_t terse_memory_parse(const char *text)
{
    char *end;
    const double number = strtod(text, &end);
    const char *const units = "KMGT", *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    double factor = 1;
    for (int i = 0; unit && i <= unit - units; i++)
        factor *= 1024;
    if (unit)
        end += strcmp(end + 1, "iB") == 0 ? 3 : strcmp(end + 1, "B") == 0 ? 2 : 1;
    const bool good =
        end != text && isdigit((unsigned char)*text) && !*end && number * factor >= 1 && number * factor < 1e18;
    return good ? (uint64_t)(number * factor) : 0;
}

static bool read_number(const char *path, uint64_t *ret_number)
{
    FILE *file = fopen(path, "re");
    const bool found = file && fscanf(file, "%" SCNu64, ret_number) == 1;
    if (file)
        fclose(file);
    return found;
}

/* What the control groups of this process leave, from its own to the root's. */
static uint64_t free_of_groups(const char *root)
{
    char path[4400], group[4000] = "";
    uint64_t least = UINT64_MAX, limit, used;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file && !found && fgets(group, sizeof group, file))
        found = strncmp(group, "0::/", 4) == 0;
    if (file)
        fclose(file);
    if (!found)
        return least;
    group[strcspn(group, "\n")] = 0;
    for (char *own = group + 3, *slash = own; slash; slash = strrchr(own, '/')) {
        snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.max", root, own);
        const bool limited = read_number(path, &limit);
        snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.current", root, own);
        if (limited && read_number(path, &used)) {
            const uint64_t left = limit > used ? limit - used : 0;
            least = left < least ? left : least;
        }
        char *last = strrchr(own, '/');
        if (!last)
            break;
        *last = 0;
    }
    return least;
}

uint64_t terse_memory_free(const char *root)
{
    char path[4100], line[256];
    uint64_t free_bytes = UINT64_MAX, kib;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
            free_bytes = kib * 1024;
    if (file)
        fclose(file);
    const uint64_t groups = free_of_groups(root);
    return groups < free_bytes ? groups : free_bytes;
}
