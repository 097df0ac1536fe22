/* SPDX-License-Identifier: Apache-2.0 */
/* plan.json: written for programs and people, read as something that people have changed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/json.h"
#include "compress/search/plan.h"
#include "compress/search/read_json.h"

enum { MAX_LAYERS = 65536 };

static const char *const modes[] = {[TERSE_QUANTIZE_NONE] = "none",
                                    [TERSE_QUANTIZE_INT8] = "int8",
                                    [TERSE_QUANTIZE_INT8_WEIGHTS] = "int8-weights",
                                    [TERSE_QUANTIZE_INT4_WEIGHTS] = "int4-weights"};
static const char *const tuned_kinds[] = {
    [TERSE_TUNED_ALGORITHM] = "algorithm", [TERSE_TUNED_SPARSE] = "sparse", [TERSE_TUNED_TILES] = "tiles"};

double terse_search_plan_number(double number)
{
    char text[64];
    snprintf(text, sizeof text, "%.9g", number);
    return isfinite(number) ? strtod(text, NULL) : number;
}

/* --- writing --------------------------------------------------------------------------------------------------------
 */

static void write_layer(terse_json *json, const terse_choice *c)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", c->name);
    if (c->rank > 0) {
        terse_json_text(json, "form", c->form);
        terse_json_int(json, "rank", c->rank);
    }
    if (c->rank_in > 0)
        terse_json_int(json, "rank_in", c->rank_in);
    if (c->prune > 0)
        terse_json_double(json, "prune", c->prune);
    if (c->cluster > 0)
        terse_json_int(json, "cluster_bits", c->cluster);
    if (c->keep_float)
        terse_json_bool(json, "keep_float", true);
    if (c->kept > 0)
        terse_json_double(json, "kept", c->kept);
    if (*c->left)
        terse_json_text(json, "left", c->left);
    if (c->us > 0)
        terse_json_double(json, "us", c->us);
    if (c->cost > 0)
        terse_json_double(json, "cost", c->cost);
    if (c->bytes > 0)
        terse_json_int(json, "bytes", c->bytes);
    if (*c->why)
        terse_json_text(json, "why", c->why);
    if (c->n_refused > 0) {
        terse_json_array(json, "refused");
        for (int i = 0; i < c->n_refused; i++)
            terse_json_text(json, NULL, c->refused[i]);
        terse_json_end(json);
    }
    terse_json_end(json);
}

static void write_tuned(terse_json *json, const terse_tuned *t)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "node", t->node);
    terse_json_text(json, "kind", tuned_kinds[t->kind]);
    terse_json_text(json, "text", t->text);
    if (t->kind == TERSE_TUNED_TILES) {
        terse_json_int(json, "rows", t->rows);
        terse_json_int(json, "bytes", t->bytes);
    } else if (t->kind == TERSE_TUNED_SPARSE) {
        terse_json_bool(json, "sparse", t->sparse);
        terse_json_double(json, "us_dense", t->us_dense);
        terse_json_double(json, "us_sparse", t->us_sparse);
    }
    terse_json_end(json);
}

static void write_measured(terse_json *json, const terse_measured *m)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "label", m->label);
    terse_json_text(json, "key", m->key);
    terse_json_double(json, "drop", m->drop);
    terse_json_double(json, "drop_low", m->low);
    terse_json_double(json, "drop_high", m->high);
    if (!isnan(m->agreement))
        terse_json_double(json, "agreement", m->agreement);
    if (!isnan(m->kl))
        terse_json_double(json, "kl", m->kl);
    terse_json_double(json, "us", m->us);
    terse_json_int(json, "bytes", m->bytes);
    terse_json_int(json, "memory_bytes", m->memory);
    terse_json_bool(json, "dense", m->dense);
    terse_json_bool(json, "single", m->single);
    terse_json_bool(json, "meets", m->meets);
    terse_json_bool(json, "pareto", m->pareto);
    terse_json_bool(json, "chosen", m->chosen);
    terse_json_end(json);
}

static void write_plan(const terse_search_plan *p, FILE *out)
{
    terse_json json = terse_json_to(out);
    terse_json_object(&json, NULL);
    terse_json_int(&json, "terse_plan", TERSE_PLAN_VERSION);
    terse_json_text(&json, "goal", p->goal);
    terse_json_text(&json, "of", p->of);
    terse_json_uint(&json, "seed", p->seed);
    terse_json_int(&json, "held_out", p->held_out);
    terse_json_text(&json, "quantize", modes[p->quantize]);
    terse_json_text(&json, "float", p->bf16 ? "bf16" : "fp32");
    terse_json_text(&json, "pack", p->pack ? "zstd" : "none");
    if (p->equalization != TERSE_EQUALIZATION_TRIED)
        terse_json_text(&json, "equalization", terse_equalization_name(p->equalization));
    if (p->channels > 0)
        terse_json_double(&json, "channels", p->channels);
    if (*p->channels_why)
        terse_json_text(&json, "channels_why", p->channels_why);
    if (p->recover_epochs > 0) {
        terse_json_int(&json, "recover_epochs", p->recover_epochs);
        terse_json_int(&json, "recover_done", p->recover_done[0]);
        terse_json_int(&json, "recover_done_rounded", p->recover_done[1]);
    }
    if (*p->recovered)
        terse_json_text(&json, "recovered", p->recovered);
    if (*p->trained)
        terse_json_text(&json, "trained", p->trained);
    if (*p->spent)
        terse_json_text(&json, "spent", p->spent);
    terse_json_text(&json, "culprit", p->culprit);
    terse_json_double(&json, "dense_us", p->dense_us);
    terse_json_array(&json, "layers");
    for (int i = 0; i < p->layers.n; i++)
        write_layer(&json, &p->layers.list[i]);
    terse_json_end(&json);
    terse_json_bool(&json, "is_tuned", p->is_tuned);
    terse_json_array(&json, "tuned");
    for (int i = 0; i < p->n_tuned; i++)
        write_tuned(&json, &p->tuned[i]);
    terse_json_end(&json);
    terse_json_array(&json, "measured");
    for (int i = 0; i < p->n_measured; i++)
        write_measured(&json, &p->measured[i]);
    terse_json_end(&json);
    terse_json_end(&json);
    fputc('\n', out);
}

/* A line for each member of the lists: people read and change this. */
static char *broken_into_lines(const char *text, size_t size)
{
    char *to = malloc(2 * size + 1), *at = to;
    int depth = 0;
    bool quoted = false, escaped = false;
    for (const char *c = text; to && *c; c++) {
        if (*c == '"' && !escaped)
            quoted = !quoted;
        escaped = quoted && !escaped && *c == '\\';
        const bool opens = !quoted && (*c == '{' || *c == '['), closes = !quoted && (*c == '}' || *c == ']');
        *at++ = *c;
        depth += opens ? 1 : closes ? -1 : 0;
        if (!quoted && ((*c == ',' && depth <= 2) || (opens && depth <= 2 && c[1] != ']')))
            *at++ = '\n';
    }
    if (to)
        *at = 0;
    return to;
}

int terse_search_plan_write(const terse_search_plan *plan, const char *path, terse_error *error)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for '%s'", path);
    write_plan(plan, out);
    const bool good = fclose(out) == 0 && text;
    TERSE_AUTO(terse_freep) char *lines = good ? broken_into_lines(text, size) : NULL;
    free(text);
    if (!lines)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for '%s'", path);
    terse_atomic_file file;
    int status = terse_atomic_open(path, &file, error);
    if (status != TERSE_OK)
        return status;
    status = terse_write_full(file.fd, lines, strlen(lines))
                 ? terse_atomic_commit(&file, false, error)
                 : terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
    terse_atomic_discard(&file);
    return status;
}

/* --- reading --------------------------------------------------------------------------------------------------------
 */

typedef struct reader {
    const terse_json_value *object;
    terse_error *error;
    int status;
} reader;

/* A member of that kind; NULL when it is absent, or wrong, which is remembered. */
static const terse_json_value *member(reader *r, const char *name, terse_json_kind kind)
{
    const terse_json_value *v = terse_read_json_find(r->object, name);
    if (r->status != TERSE_OK || !v || v->kind == TERSE_JSON_NULL)
        return NULL;
    if (v->kind == kind)
        return v;
    r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: '%s' is %s, allowed is %s", v->line, name,
                           terse_read_json_kind(v->kind), terse_read_json_kind(kind));
    return NULL;
}

static double number(reader *r, const char *name, double fallback, double low, double high)
{
    const terse_json_value *v = member(r, name, TERSE_JSON_NUMBER);
    if (!v)
        return fallback;
    if (!(v->number >= low && v->number <= high))
        r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: '%s' is %.9g, allowed are %.9g to %.9g",
                               v->line, name, v->number, low, high);
    return v->number;
}

static int64_t integer(reader *r, const char *name, double low, double high)
{
    const double found = number(r, name, 0, low, high);
    if (r->status == TERSE_OK && found != floor(found))
        r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: '%s' is %.9g, allowed are whole numbers",
                               terse_read_json_find(r->object, name)->line, name, found);
    return r->status == TERSE_OK ? (int64_t)found : 0;
}

static bool truth(reader *r, const char *name)
{
    const terse_json_value *v = member(r, name, TERSE_JSON_BOOL);
    return v && v->truth;
}

static void text(reader *r, const char *name, char *to, size_t size)
{
    const terse_json_value *v = member(r, name, TERSE_JSON_TEXT);
    snprintf(to, size, "%s", v ? v->text : "");
}

/* Which of the words; 0 where it is absent. */
static int one_of(reader *r, const char *name, const char *const *words, int n)
{
    const terse_json_value *v = member(r, name, TERSE_JSON_TEXT);
    char allowed[128] = "";
    for (int i = 0; v && i < n; i++) {
        if (strcmp(v->text, words[i]) == 0)
            return i;
        snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s%s", i ? ", " : "", words[i]);
    }
    if (v)
        r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: '%s' is '%.60s', allowed are %s", v->line,
                               name, v->text, allowed);
    return 0;
}

static void refuse_others(reader *r, const char *const *known, size_t n)
{
    for (const terse_json_value *v = r->object->first; v && r->status == TERSE_OK; v = v->next) {
        bool found = false;
        for (size_t i = 0; i < n; i++)
            found = found || strcmp(known[i], v->name) == 0;
        if (!found)
            r->status =
                terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: a layer has no '%.60s'", v->line, v->name);
    }
}

static void read_layer(reader *r, terse_search_plan *plan)
{
    static const char *const forms[] = {"svd", "channel", "tucker", "spatial"};
    static const char *const known[] = {"name", "form", "rank", "rank_in", "prune", "cluster_bits", "keep_float",
                                        "kept", "left", "us",   "cost",    "bytes", "why",          "refused"};
    char name[TERSE_CHOICE_NAME];
    text(r, "name", name, sizeof name);
    if (r->status == TERSE_OK && !*name)
        r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: a layer has no 'name'", r->object->line);
    refuse_others(r, known, sizeof known / sizeof known[0]);
    terse_choice *c = r->status == TERSE_OK ? terse_choices_add(&plan->layers, name) : NULL;
    if (!c) {
        if (r->status == TERSE_OK)
            r->status = terse_fail(r->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
        return;
    }
    c->rank = integer(r, "rank", 0, 1e9);
    c->rank_in = integer(r, "rank_in", 0, 1e9);
    const int form = one_of(r, "form", forms, 4);
    if (c->rank > 0)
        snprintf(c->form, sizeof c->form, "%s", forms[form]);
    c->prune = number(r, "prune", 0, 0, 0.99);
    c->cluster = (int)integer(r, "cluster_bits", 0, TERSE_CLUSTER_MAX_BITS);
    c->keep_float = truth(r, "keep_float");
    c->kept = number(r, "kept", 0, 0, 1);
    text(r, "left", c->left, sizeof c->left);
    c->us = number(r, "us", 0, 0, 1e15);
    c->cost = number(r, "cost", 0, 0, 1e15);
    c->bytes = integer(r, "bytes", 0, 9e15);
    text(r, "why", c->why, sizeof c->why);
    const terse_json_value *refused = member(r, "refused", TERSE_JSON_ARRAY);
    for (const terse_json_value *v = refused ? refused->first : NULL; v && c->n_refused < TERSE_CHOICE_REFUSED;
         v = v->next)
        if (v->kind == TERSE_JSON_TEXT)
            snprintf(c->refused[c->n_refused++], TERSE_CHOICE_WHY, "%s", v->text);
}

static void read_tuned(reader *r, terse_search_plan *plan)
{
    terse_tuned *list = realloc(plan->tuned, ((size_t)plan->n_tuned + 1) * sizeof *list);
    if (!list) {
        r->status = terse_fail(r->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
        return;
    }
    plan->tuned = list;
    terse_tuned *t = &list[plan->n_tuned++];
    *t = (terse_tuned){0};
    text(r, "node", t->node, sizeof t->node);
    t->kind = (terse_tuned_kind)one_of(r, "kind", tuned_kinds, 3);
    text(r, "text", t->text, sizeof t->text);
    t->rows = integer(r, "rows", 0, 4096);
    t->bytes = integer(r, "bytes", 0, 1 << 30);
    t->sparse = truth(r, "sparse");
    t->us_dense = number(r, "us_dense", 0, 0, 1e15);
    t->us_sparse = number(r, "us_sparse", 0, 0, 1e15);
    static const char *const algorithms[] = {"direct", "winograd"};
    if (r->status == TERSE_OK && t->kind == TERSE_TUNED_ALGORITHM && !*t->text)
        r->status =
            terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: an algorithm has no 'text'", r->object->line);
    if (r->status == TERSE_OK && t->kind == TERSE_TUNED_ALGORITHM)
        one_of(r, "text", algorithms, 2);
    if (r->status == TERSE_OK && t->kind == TERSE_TUNED_TILES &&
        (strncmp(t->text, "tuned_", 6) != 0 ||
         strspn(t->text, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(t->text)))
        r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: tiles are for '%.60s', allowed is tuned_ISA",
                               r->object->line, t->text);
}

static void read_measured(reader *r, terse_search_plan *plan)
{
    terse_measured *m = terse_search_plan_add_measured(plan);
    if (!m) {
        r->status = terse_fail(r->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
        return;
    }
    text(r, "label", m->label, sizeof m->label);
    text(r, "key", m->key, sizeof m->key);
    m->drop = number(r, "drop", 0, -1e6, 1e15);
    m->low = number(r, "drop_low", 0, -1e6, 1e15);
    m->high = number(r, "drop_high", 0, -1e6, 1e15);
    m->agreement = number(r, "agreement", (double)NAN, 0, 1);
    m->kl = number(r, "kl", (double)NAN, -1e6, 1e15);
    m->us = number(r, "us", 0, 0, 1e15);
    m->bytes = integer(r, "bytes", 0, 9e15);
    m->memory = integer(r, "memory_bytes", 0, 9e15);
    m->dense = truth(r, "dense");
    m->single = truth(r, "single");
    m->meets = truth(r, "meets");
    m->pareto = truth(r, "pareto");
    m->chosen = truth(r, "chosen");
}

/* Each member of a list, which must be objects. */
static void each(reader *r, const char *name, void (*one)(reader *, terse_search_plan *), terse_search_plan *plan)
{
    const terse_json_value *list = member(r, name, TERSE_JSON_ARRAY);
    int n = 0;
    for (const terse_json_value *v = list ? list->first : NULL; v && r->status == TERSE_OK; v = v->next) {
        reader inner = {.object = v, .error = r->error};
        if (v->kind != TERSE_JSON_OBJECT)
            r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: '%s' holds %s, allowed are objects",
                                   v->line, name, terse_read_json_kind(v->kind));
        else if (++n > MAX_LAYERS)
            r->status = terse_fail(r->error, TERSE_INVALID_ARGUMENT, "line %d: '%s' has more than %d members", v->line,
                                   name, MAX_LAYERS);
        else
            one(&inner, plan);
        if (r->status == TERSE_OK)
            r->status = inner.status;
    }
}

static int take_apart(const terse_json_value *root, terse_search_plan *plan, terse_error *error)
{
    static const char *const floats[] = {"fp32", "bf16"}, *const packs[] = {"none", "zstd"},
                             *const equalizations[] = {"tried", "none", "weights", "activations"};
    reader r = {.object = root, .error = error};
    if (root->kind != TERSE_JSON_OBJECT || !terse_read_json_find(root, "terse_plan"))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "is no plan: it has no member 'terse_plan'");
    integer(&r, "terse_plan", TERSE_PLAN_VERSION, TERSE_PLAN_VERSION);
    plan->seed = (uint64_t)integer(&r, "seed", 0, 9e15);
    plan->held_out = (int)integer(&r, "held_out", 0, 1000);
    if (r.status == TERSE_OK && plan->held_out == 1)
        r.status = terse_fail(error, TERSE_INVALID_ARGUMENT, "'held_out' is 1, allowed are 0 and 2 to 1000");
    plan->quantize = (terse_quantize_mode)one_of(&r, "quantize", modes, 4);
    plan->bf16 = one_of(&r, "float", floats, 2) == 1;
    plan->pack = one_of(&r, "pack", packs, 2) == 1;
    plan->equalization = (terse_equalization)one_of(&r, "equalization", equalizations, 4);
    plan->channels = number(&r, "channels", 0, 0, 0.99);
    text(&r, "channels_why", plan->channels_why, sizeof plan->channels_why);
    text(&r, "goal", plan->goal, sizeof plan->goal);
    text(&r, "of", plan->of, sizeof plan->of);
    text(&r, "culprit", plan->culprit, sizeof plan->culprit);
    plan->recover_epochs = integer(&r, "recover_epochs", 0, 1e6);
    plan->recover_done[0] = integer(&r, "recover_done", -1, 1e6);
    plan->recover_done[1] = integer(&r, "recover_done_rounded", -1, 1e6);
    text(&r, "recovered", plan->recovered, sizeof plan->recovered);
    text(&r, "trained", plan->trained, sizeof plan->trained);
    text(&r, "spent", plan->spent, sizeof plan->spent);
    plan->dense_us = number(&r, "dense_us", 0, 0, 1e15);
    plan->is_tuned = truth(&r, "is_tuned");
    each(&r, "layers", read_layer, plan);
    each(&r, "tuned", read_tuned, plan);
    each(&r, "measured", read_measured, plan);
    return r.status;
}

int terse_search_plan_read(const char *path, terse_search_plan *ret_plan, terse_error *error)
{
    const void *base;
    size_t size;
    terse_search_plan plan = {0};
    terse_json_value *root;
    int status = terse_file_map(path, &base, &size, error);
    if (status != TERSE_OK)
        return status;
    terse_arena *arena = terse_arena_new();
    status = arena ? terse_read_json(base ? base : "", size, arena, &root, error)
                   : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for '%s'", path);
    if (status == TERSE_OK)
        status = take_apart(root, &plan, error);
    terse_arena_free(arena);
    if (base)
        munmap((void *)(uintptr_t)base, size);
    if (status != TERSE_OK) {
        terse_search_plan_done(&plan);
        return terse_error_prefix(error, "'%s'", path);
    }
    *ret_plan = plan;
    return TERSE_OK;
}
