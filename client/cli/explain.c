/* SPDX-License-Identifier: Apache-2.0 */
/* terse explain: what was done to each layer, and why, from the report that a .terse file carries. Files are read
 * whatever wrote them: a figure that is missing, or of another type than expected, is left out. */
#include "client/cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/msgpack_json.h"
#include "common/bytes.h"
#include "common/json.h"
#include "common/model.h"
#include "common/pack.h"

enum { NAME = 128, DONE = 256 };

typedef struct row {
    const msgpack_object *layer;
    char name[NAME];
    char done[DONE];
    double cost;  /* as sorted; NAN: not known */
    double share; /* of the loss; NAN: not known */
} row;

/* What a layer's cost and loss are taken from: the best that the file has. */
typedef struct basis {
    const char *cost_key, *cost_label; /* "us_after" or "macs_after" */
    const char *loss;                  /* in words; NULL: no figures */
    int culprit;                       /* row; -1: none */
} basis;

typedef struct explained {
    terse_model *model;
    const char *path;
    msgpack_zone zone;
    msgpack_object report;
    row *rows;
    int n;
    basis by;
} explained;

/* --- figures of a layer ---------------------------------------------------------------------------------------------
 */

/* NAN when there is none. */
static double number_of(const msgpack_object *map, const char *key)
{
    const msgpack_object *o = terse_pack_find(map, key);
    if (!o)
        return (double)NAN;
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        return (double)o->via.u64;
    if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return (double)o->via.i64;
    return o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64 ? o->via.f64 : (double)NAN;
}

/* -1 when it is not told. */
static int truth_of(const msgpack_object *map, const char *key)
{
    const msgpack_object *o = terse_pack_find(map, key);
    return o && o->type == MSGPACK_OBJECT_BOOLEAN ? o->via.boolean : -1;
}

/* "" when there is none. */
static const char *text_of(const msgpack_object *map, const char *key, char *text, size_t size)
{
    const msgpack_object *o = terse_pack_find(map, key);
    *text = 0;
    if (o && o->type == MSGPACK_OBJECT_STR)
        snprintf(text, size, "%.*s", (int)(o->via.str.size < size ? o->via.str.size : size - 1), o->via.str.ptr);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return text;
}

/* The layer's own node, or one that it became: its name with something behind a '/'. */
static bool is_of_layer(const terse_node *node, const char *name)
{
    const size_t length = strlen(name);
    return strncmp(node->name, name, length) == 0 && (node->name[length] == 0 || node->name[length] == '/');
}

/* What the nodes say of themselves; "" when nothing was done. */
static const char *said_by_nodes(const terse_graph *graph, const char *name)
{
    for (int n = 0; n < graph->n_nodes; n++)
        if (*name && is_of_layer(&graph->nodes[n], name) && *graph->nodes[n].compression)
            return graph->nodes[n].compression;
    return "";
}

static void add(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(char *text, const char *format, ...)
{
    const size_t at = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    const int room = (int)(DONE - at);
    if (room > 3) {
        if (at)
            memcpy(text + at, ", ", 3);
        vsnprintf(text + at + (at ? 2 : 0), (size_t)room - (at ? 2 : 0), format, arguments);
    }
    va_end(arguments);
}

static void decibels(double db, char *text, size_t size)
{
    if (isinf(db))
        snprintf(text, size, "outputs equal");
    else
        snprintf(text, size, "SQNR %.1f dB", db);
}

static void describe_low_rank(row *r)
{
    char form[32];
    const double rank = number_of(r->layer, "rank"), rank_in = number_of(r->layer, "rank_in"),
                 full = number_of(r->layer, "full_rank"), energy = number_of(r->layer, "energy");
    if (!(rank > 0))
        return;
    text_of(r->layer, "form", form, sizeof form);
    if (rank_in > 0)
        add(r->done, "low rank: %s %.0fx%.0f", form, rank_in, rank);
    else if (full > 0)
        add(r->done, "low rank: %s %.0f of %.0f", form, rank, full);
    else
        add(r->done, "low rank: %s %.0f", form, rank);
    if (!isnan(energy))
        add(r->done, "energy %.4f", energy);
}

static void describe(const terse_graph *graph, row *r)
{
    const double left = number_of(r->layer, "channels_left");
    if (left < 1)
        add(r->done, "channels: %.1f %% of the weights left", 100.0 * left);
    describe_low_rank(r);
    if (truth_of(r->layer, "pruned") == 1) {
        add(r->done, "pruned: %.1f %% kept", 100.0 * number_of(r->layer, "kept_share"));
        add(r->done, "runs %s", truth_of(r->layer, "sparse") == 1 ? "sparse" : "dense");
    }
    if (number_of(r->layer, "codes") > 0) {
        add(r->done, "clustered: %.0f numbers", number_of(r->layer, "codes"));
        add(r->done, "%.2f bits each", number_of(r->layer, "bits_per_weight"));
    }
    const int kept = truth_of(r->layer, "kept");
    if (kept >= 0)
        add(r->done, "%s", kept ? "FP32" : "int8");
    const char *would = kept > 0 ? "as int8 " : "";
    const double db = number_of(r->layer, "sqnr"), kl = number_of(r->layer, "kl");
    if (!isnan(db)) {
        char text[48];
        decibels(db, text, sizeof text);
        add(r->done, "%s%s", would, text);
    }
    if (!isnan(kl) && kept >= 0)
        add(r->done, "%sKL %.3g", would, kl);
    if (!*r->done)
        snprintf(r->done, sizeof r->done, "%s", said_by_nodes(graph, r->name));
    if (!*r->done)
        snprintf(r->done, sizeof r->done, "unchanged");
}

/* Why: one reason for each technique, each once. */
static void reasons(const msgpack_object *layer, char *text)
{
    static const char *const keys[] = {"choice_reason",  "channels_reason", "low_rank_reason", "prune_reason",
                                       "cluster_reason", "int8_reason",     "reason"};
    *text = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char one[160];
        text_of(layer, keys[i], one, sizeof one);
        if (*one && !strstr(text, one) && strcmp(one, "int8") != 0)
            add(text, "%s", one);
    }
}

/* --- what costs, and what loses -------------------------------------------------------------------------------------
 */

/* What a layer alone loses by one technique; 0 where it does not touch the layer, NAN where it was not measured. */
static double loss_by_kl(const msgpack_object *layer)
{
    return truth_of(layer, "kept") == 0 ? number_of(layer, "kl") : 0.0;
}

static double loss_by_noise(const msgpack_object *layer)
{
    const double db = number_of(layer, "sqnr");
    return truth_of(layer, "kept") == 0 ? pow(10.0, -db / 10.0) : 0.0;
}

static double loss_by_zeros(const msgpack_object *layer)
{
    if (truth_of(layer, "pruned") == 1)
        return number_of(layer, "prune_error");
    return number_of(layer, "channels_left") < 1 ? number_of(layer, "channels_error") : 0.0;
}

static double loss_by_rank(const msgpack_object *layer)
{
    return number_of(layer, "rank") > 0 ? 1.0 - number_of(layer, "energy") : 0.0;
}

/* The first kind of loss that every layer has figures for, and that is not nothing. */
static void find_culprit(explained *e)
{
    static const struct {
        double (*of)(const msgpack_object *layer);
        const char *words;
    } losses[] = {
        {loss_by_kl, "what int8 loses (KL at the network's outputs, one layer at a time)"},
        {loss_by_noise, "what int8 loses (noise at the network's outputs, one layer at a time)"},
        {loss_by_zeros, "what pruning loses (shares of the layers' outputs)"},
        {loss_by_rank, "what low rank loses (shares of the layers' outputs)"},
    };
    e->by.culprit = -1;
    for (int i = 0; i < e->n; i++)
        e->rows[i].share = (double)NAN;
    for (size_t k = 0; k < sizeof losses / sizeof losses[0]; k++) {
        double sum = 0.0, most = 0.0;
        for (int i = 0; i < e->n; i++) {
            const double loss = losses[k].of(e->rows[i].layer);
            sum += loss > 0.0 && isfinite(loss) ? loss : 0.0;
            if (loss > most && isfinite(loss)) {
                most = loss;
                e->by.culprit = i;
            }
        }
        if (e->by.culprit < 0)
            continue;
        e->by.loss = losses[k].words;
        for (int i = 0; i < e->n; i++) {
            const double loss = losses[k].of(e->rows[i].layer);
            e->rows[i].share = loss >= 0.0 && isfinite(loss) ? loss / sum : (double)NAN;
        }
        return;
    }
}

static int by_cost(const void *a, const void *b)
{
    const row *x = a, *y = b;
    const double p = isnan(x->cost) ? -1.0 : x->cost, q = isnan(y->cost) ? -1.0 : y->cost;
    return p < q ? 1 : p > q ? -1 : x->layer < y->layer ? -1 : x->layer > y->layer;
}

static int collect(explained *e, terse_error *error)
{
    const msgpack_object *layers = terse_pack_find(&e->report, "layers");
    if (!layers || layers->type != MSGPACK_OBJECT_ARRAY)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' has a report without layers", e->path);
    e->rows = calloc((size_t)layers->via.array.size + 1, sizeof *e->rows);
    if (!e->rows)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for %u layers", layers->via.array.size);
    bool timed = false;
    for (uint32_t i = 0; i < layers->via.array.size; i++) {
        const msgpack_object *layer = &layers->via.array.ptr[i];
        row *r = &e->rows[e->n];
        if (layer->type != MSGPACK_OBJECT_MAP)
            continue;
        r->layer = layer;
        text_of(layer, "name", r->name, sizeof r->name);
        timed = timed || !isnan(number_of(layer, "us_after"));
        describe(e->model->graph, r);
        e->n++;
    }
    e->by = (basis){.cost_key = timed ? "us_after" : "macs_after", .cost_label = timed ? "us" : "MACs"};
    for (int i = 0; i < e->n; i++)
        e->rows[i].cost = number_of(e->rows[i].layer, e->by.cost_key);
    qsort(e->rows, (size_t)e->n, sizeof *e->rows, by_cost);
    find_culprit(e);
    return TERSE_OK;
}

static int open_report(explained *e, terse_error *error)
{
    const size_t length = strlen(e->path);
    if (length > 5 && strcmp(e->path + length - 5, ".onnx") == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s' is an ONNX file; the report is in the .terse file that terse compress makes of it",
                          e->path);
    int status = terse_model_open(e->path, 0, &e->model, error);
    if (status != TERSE_OK)
        return status;
    if (!e->model->report)
        return terse_fail(error, TERSE_NOT_FOUND, "'%s' has no report of its compression", e->path);
    status = terse_pack_unpack(e->model->report, e->model->report_bytes, 1 << 20, &e->zone, &e->report, error);
    if (status != TERSE_OK)
        return terse_error_prefix(error, "the report of '%s'", e->path);
    return collect(e, error);
}

/* --- one layer ------------------------------------------------------------------------------------------------------
 */

/* How many letters part two names (Levenshtein); names are cut at NAME. */
static int distance(const char *a, const char *b)
{
    int line[NAME + 1];
    const int n = (int)strnlen(a, NAME), m = (int)strnlen(b, NAME);
    for (int j = 0; j <= m; j++)
        line[j] = j;
    for (int i = 1; i <= n; i++) {
        int corner = line[0];
        line[0] = i;
        for (int j = 1; j <= m; j++) {
            const int change = corner + (a[i - 1] != b[j - 1]), above = line[j] + 1, left = line[j - 1] + 1;
            corner = line[j];
            line[j] = change < above ? (change < left ? change : left) : (above < left ? above : left);
        }
    }
    return line[m];
}

/* The three names nearest to what was asked for; a part of a name is near. */
static int fail_unknown(const explained *e, const char *name, terse_error *error)
{
    const row *best[3] = {NULL, NULL, NULL};
    int far[3] = {0, 0, 0};
    for (int i = 0; i < e->n; i++) {
        const row *r = &e->rows[i];
        int d = strstr(r->name, name) ? 0 : distance(r->name, name);
        for (int k = 0; k < 3; k++)
            if (!best[k] || d < far[k]) {
                const row *old = best[k];
                const int old_far = far[k];
                best[k] = r;
                far[k] = d;
                r = old;
                d = old_far;
                if (!r)
                    break;
            }
    }
    if (!best[0])
        return terse_fail(error, TERSE_NOT_FOUND, "'%s' has no layer '%.100s', and no other", e->path, name);
    return terse_fail(error, TERSE_NOT_FOUND, "'%.100s' has no layer '%.80s'; nearest are '%.80s'%s%.80s%s%s%.80s%s",
                      e->path, name, best[0]->name, best[1] ? ", '" : "", best[1] ? best[1]->name : "",
                      best[1] ? "'" : "", best[2] ? ", '" : "", best[2] ? best[2]->name : "", best[2] ? "'" : "");
}

static const row *find_row(const explained *e, const char *name)
{
    for (int i = 0; i < e->n; i++)
        if (strcmp(e->rows[i].name, name) == 0)
            return &e->rows[i];
    return NULL;
}

static uint64_t constant_bytes(const terse_graph *graph, const terse_node *node)
{
    uint64_t bytes = 0;
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && graph->values[node->inputs[i]].data)
            bytes += graph->values[node->inputs[i]].bytes;
    return bytes;
}

/* Texts, one a line. */
static void print_list(const msgpack_object *list)
{
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *o = &list->via.array.ptr[i];
        if (o->type == MSGPACK_OBJECT_STR)
            printf("%s%.*s\n", i ? "                 " : "", (int)o->via.str.size, o->via.str.ptr);
    }
    if (list->via.array.size == 0)
        printf("-\n");
}

static void print_member(const msgpack_object *key, const msgpack_object *value)
{
    if (key->type != MSGPACK_OBJECT_STR)
        return;
    printf("%-16.*s ", (int)key->via.str.size, key->via.str.ptr);
    if (value->type == MSGPACK_OBJECT_STR)
        printf("%.*s\n", (int)value->via.str.size, value->via.str.ptr);
    else if (value->type == MSGPACK_OBJECT_BOOLEAN)
        printf("%s\n", value->via.boolean ? "yes" : "no");
    else if (value->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        printf("%" PRIu64 "\n", value->via.u64);
    else if (value->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        printf("%" PRId64 "\n", value->via.i64);
    else if (value->type == MSGPACK_OBJECT_FLOAT64 || value->type == MSGPACK_OBJECT_FLOAT32)
        printf("%.6g\n", value->via.f64);
    else if (value->type == MSGPACK_OBJECT_ARRAY)
        print_list(value);
    else
        printf("-\n");
}

static void print_layer(const explained *e, const row *r)
{
    const terse_graph *graph = e->model->graph;
    char why[DONE], dims[256];
    reasons(r->layer, why);
    printf("%s: %s\n%s%s%s", r->name, r->done, *why ? "why: " : "", why, *why ? "\n" : "");
    if (!isnan(r->share))
        printf("%.1f %% of %s\n", 100.0 * r->share, e->by.loss);
    putchar('\n');
    for (uint32_t i = 0; i < r->layer->via.map.size; i++)
        print_member(&r->layer->via.map.ptr[i].key, &r->layer->via.map.ptr[i].val);
    printf("\nnodes in the file that it became:\n");
    for (int n = 0; n < graph->n_nodes; n++) {
        const terse_node *node = &graph->nodes[n];
        if (!is_of_layer(node, r->name))
            continue;
        const int v = node->n_outputs > 0 ? node->outputs[0] : -1;
        printf("%5d  %-20s %-28s %12" PRIu64 "  %s%s%s\n", n, terse_op_name(node->op),
               v >= 0 ? terse_value_text(graph, &graph->values[v], dims, sizeof dims) : "", constant_bytes(graph, node),
               node->name, *node->compression ? ", " : "", node->compression);
    }
}

static void json_layer(terse_json *json, const char *key, const explained *e, const row *r)
{
    char why[DONE];
    reasons(r->layer, why);
    terse_json_object(json, key);
    terse_json_text(json, "done", r->done);
    terse_json_text(json, "why", why);
    terse_json_double(json, "share_of_loss", r->share);
    for (uint32_t i = 0; i < r->layer->via.map.size; i++) {
        const msgpack_object *name = &r->layer->via.map.ptr[i].key;
        char text[64];
        if (name->type == MSGPACK_OBJECT_STR && name->via.str.size < sizeof text) {
            snprintf(text, sizeof text, "%.*s", (int)name->via.str.size, name->via.str.ptr);
            terse_msgpack_json(json, text, &r->layer->via.map.ptr[i].val);
        }
    }
    terse_json_array(json, "nodes");
    for (int n = 0; n < e->model->graph->n_nodes; n++) {
        const terse_node *node = &e->model->graph->nodes[n];
        if (!*r->name || !is_of_layer(node, r->name))
            continue;
        terse_json_object(json, NULL);
        terse_json_text(json, "name", node->name);
        terse_json_text(json, "op", terse_op_name(node->op));
        terse_json_text(json, "compression", node->compression);
        terse_json_uint(json, "constant_bytes", constant_bytes(e->model->graph, node));
        terse_json_end(json);
    }
    terse_json_end(json);
    terse_json_end(json);
}

/* --- all layers -----------------------------------------------------------------------------------------------------
 */

/* "62 % of what int8 loses comes from conv_37; left as it was, it takes 30 us longer" */
static void culprit_text(const explained *e, char *text, size_t size)
{
    const row *r = &e->rows[e->by.culprit];
    const double before = number_of(r->layer, "us_before"), after = number_of(r->layer, "us_after");
    int at = snprintf(text, size, "%.0f %% of %s comes from %s", 100.0 * r->share, e->by.loss, r->name);
    if (at > 0 && (size_t)at < size && before > after)
        snprintf(text + at, size - (size_t)at, "; left as it was, it takes %.1f us longer", before - after);
}

static void print_all(const explained *e)
{
    double sum = 0.0;
    for (int i = 0; i < e->n; i++)
        sum += e->rows[i].cost > 0.0 ? e->rows[i].cost : 0.0;
    printf("%s: %s\n\n", e->path, *e->model->command ? e->model->command : e->model->graph->name);
    printf("%-32s %-10s %-18s %14s %6s %6s  %s\n", "layer", "op", "weights", e->by.cost_label, "%",
           e->by.loss ? "loss %" : "", "what was done: why");
    for (int i = 0; i < e->n; i++) {
        const row *r = &e->rows[i];
        char op[32], shape[64], cost[32] = "-", share[16] = "-", loss[16] = "", why[DONE];
        text_of(r->layer, "op", op, sizeof op);
        text_of(r->layer, "shape", shape, sizeof shape);
        reasons(r->layer, why);
        if (!isnan(r->cost))
            snprintf(cost, sizeof cost, e->by.cost_key[0] == 'u' ? "%.1f" : "%.0f", r->cost);
        if (!isnan(r->cost) && sum > 0.0)
            snprintf(share, sizeof share, "%.1f", 100.0 * r->cost / sum);
        if (e->by.loss && !isnan(r->share))
            snprintf(loss, sizeof loss, "%.1f", 100.0 * r->share);
        printf("%-32.32s %-10.10s %-18.18s %14s %6s %6s  %s%s%s\n", r->name, op, shape, cost, share, loss, r->done,
               *why ? ": " : "", why);
    }
    if (e->by.culprit >= 0) {
        char text[512];
        culprit_text(e, text, sizeof text);
        printf("\n%s\n", text);
    }
    char found[512];
    if (*text_of(&e->report, "search_culprit", found, sizeof found))
        printf("\n%s (search for %s)\n", found, text_of(&e->report, "search_goal", (char[256]){0}, 256));
    if (e->n == 0)
        printf("the network has no layer with constant weights\n");
}

static void print_json(const explained *e, const row *only)
{
    terse_json json = terse_json_to(stdout);
    terse_json_object(&json, NULL);
    terse_json_text(&json, "file", e->path);
    terse_json_text(&json, "model", e->model->graph->name);
    terse_json_text(&json, "command", e->model->command);
    if (only) {
        json_layer(&json, "layer", e, only);
    } else {
        static const char *const members[] = {"before", "after"};
        for (int i = 0; i < 2; i++) {
            const msgpack_object *side = terse_pack_find(&e->report, members[i]);
            if (side)
                terse_msgpack_json(&json, members[i], side);
        }
        terse_json_text(&json, "sorted_by", e->by.cost_key);
        if (e->by.culprit >= 0) {
            char text[512];
            culprit_text(e, text, sizeof text);
            terse_json_object(&json, "culprit");
            terse_json_text(&json, "layer", e->rows[e->by.culprit].name);
            terse_json_double(&json, "share", e->rows[e->by.culprit].share);
            terse_json_text(&json, "text", text);
            terse_json_end(&json);
        } else {
            terse_json_null(&json, "culprit");
        }
        terse_json_array(&json, "layers");
        for (int i = 0; i < e->n; i++)
            json_layer(&json, NULL, e, &e->rows[i]);
        terse_json_end(&json);
    }
    terse_json_end(&json);
    putchar('\n');
}

int terse_cli_explain(int argc, char **argv)
{
    bool json = false;
    const terse_cli_usage usage = {
        "explain", "MODEL.terse [LAYER] [--json]",
        "Shows what was done to each layer and why, what costs most first; of LAYER, all that\n"
        "is known.",
        1, 2};
    const terse_cli_option options[] = {
        {"json", 0, TERSE_CLI_FLAG, NULL, &json, 0, 0, "print one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    const char *positional[2];
    int n = 0;
    const int code = terse_cli_parse(&usage, options, argc, argv, positional, &n);
    if (code >= 0)
        return code;
    explained e = {.path = positional[0]};
    terse_error error = {0};
    if (!msgpack_zone_init(&e.zone, 8192))
        return terse_cli_usage_error("explain", "out of memory");
    const row *only = NULL;
    int status = open_report(&e, &error);
    if (status == TERSE_OK && n > 1 && !(only = find_row(&e, positional[1])))
        status = fail_unknown(&e, positional[1], &error);
    if (status == TERSE_OK && json)
        print_json(&e, only);
    else if (status == TERSE_OK && only)
        print_layer(&e, only);
    else if (status == TERSE_OK)
        print_all(&e);
    free(e.rows);
    msgpack_zone_destroy(&e.zone);
    terse_model_close(e.model);
    return status ? terse_cli_fail("explain", &error) : TERSE_CLI_DONE;
}
