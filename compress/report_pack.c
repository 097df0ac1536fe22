/* SPDX-License-Identifier: Apache-2.0 */
/* The report as msgpack, as it is stored in the file and as `terse explain` reads it. */
#include <string.h>

#include "common/pack.h"
#include "compress/report.h"
#include "compress/search/tell.h"

/* A map whose length is counted first, with a packer of NULL. */
typedef struct map {
    msgpack_packer *packer;
    uint32_t n;
} map;

static bool key_of(map *m, const char *key)
{
    m->n++;
    if (m->packer)
        terse_pack_cstr(m->packer, key);
    return m->packer != NULL;
}

static void put_text(map *m, const char *key, const char *text)
{
    if (key_of(m, key))
        terse_pack_cstr(m->packer, text);
}

static void put_int(map *m, const char *key, int64_t number)
{
    if (key_of(m, key))
        msgpack_pack_int64(m->packer, number);
}

static void put_number(map *m, const char *key, double number)
{
    if (key_of(m, key))
        msgpack_pack_double(m->packer, number);
}

static void put_bool(map *m, const char *key, bool is)
{
    if (key_of(m, key))
        (is ? msgpack_pack_true : msgpack_pack_false)(m->packer);
}

static void pack_side(msgpack_packer *packer, const char *key, const terse_figure *list, bool after)
{
    uint32_t n = 0;
    for (int i = 0; i < TERSE_REPORT_FIGURES; i++)
        n += list[i].known;
    terse_pack_cstr(packer, key);
    msgpack_pack_map(packer, n);
    for (int i = 0; i < TERSE_REPORT_FIGURES; i++) {
        if (!list[i].known)
            continue;
        const double number = after ? list[i].after : list[i].before;
        terse_pack_cstr(packer, list[i].key);
        if (list[i].kind == TERSE_FIGURE_COUNT)
            msgpack_pack_fix_uint64(packer, (uint64_t)number); /* nine bytes whatever the number */
        else
            msgpack_pack_double(packer, number);
    }
}

/* --- layers: what each technique knows of one ----------------------------------------------------------------------
 */

/* What is known of one layer; NULL: that technique does not know it. */
typedef struct known {
    const terse_low_rank_layer *factored;
    const terse_quantize_layer *int8;
    const terse_prune_layer *pruned;
    const terse_cluster_layer *clustered;
    const terse_layer *measured;
    const terse_choice *planned;
} known;

static void put_factored(map *m, const terse_low_rank_layer *l, bool asked)
{
    if (key_of(m, "rank")) {
        if (l->rank > 0)
            msgpack_pack_int64(m->packer, l->rank);
        else
            msgpack_pack_nil(m->packer);
    }
    if (l->rank > 0)
        put_text(m, "form", terse_low_rank_form_name(l->form));
    if (l->rank_in > 0)
        put_int(m, "rank_in", l->rank_in);
    put_int(m, "full_rank", l->full);
    put_number(m, "energy", l->energy);
    put_int(m, "macs_before", l->macs_before);
    put_int(m, "macs_after", l->macs_after);
    if (asked)
        put_text(m, "low_rank_reason", l->reason);
}

static void put_int8(map *m, const terse_quantize_layer *l)
{
    put_bool(m, "kept", l->kept);
    put_text(m, "int8_reason", l->reason);
    if (!l->measured)
        return;
    put_number(m, "sqnr", l->sqnr_db);
    put_number(m, "kl", l->divergence);
    put_text(m, "calibration", terse_calibration_name(l->method));
    put_number(m, "low", l->low);
    put_number(m, "high", l->high);
}

static void put_pruned(map *m, const terse_prune_layer *l)
{
    put_bool(m, "pruned", l->pruned);
    put_bool(m, "sparse", l->sparse);
    put_number(m, "kept_share", l->kept);
    if (l->error >= 0)
        put_number(m, "prune_error", l->error);
    if (l->us_dense > 0) {
        put_number(m, "us_dense", l->us_dense);
        put_number(m, "us_sparse", l->us_sparse);
    }
    put_text(m, "prune_reason", l->reason);
}

static void put_clustered(map *m, const terse_cluster_layer *l)
{
    put_int(m, "codes", l->codes);
    put_number(m, "bits_per_weight", l->entropy);
    put_number(m, "cluster_sqnr", l->sqnr_db);
    put_text(m, "cluster_reason", l->reason);
}

static void put_measured(map *m, const terse_layer *l)
{
    put_text(m, "op_after", terse_op_name(l->op_after));
    put_text(m, "compression", l->compression);
    put_int(m, "bytes_before", l->bytes_before);
    put_int(m, "bytes_after", l->bytes_after);
    put_number(m, "sqnr_db", l->sqnr_db);
    put_number(m, "us_before", l->us_before);
    put_number(m, "us_after", l->us_after);
}

static void put_planned(map *m, const terse_choice *c)
{
    char text[TERSE_CHOICE_WHY];
    put_text(m, "choice", terse_choice_text(c, text, sizeof text));
    put_text(m, "choice_reason", c->why);
    if (c->us > 0)
        put_number(m, "choice_us", c->us);
    put_number(m, "choice_cost", c->cost);
    if (c->n_refused == 0 || !key_of(m, "refused"))
        return;
    msgpack_pack_array(m->packer, (uint32_t)c->n_refused);
    for (int i = 0; i < c->n_refused; i++)
        terse_pack_cstr(m->packer, c->refused[i]);
}

static void put_layer(map *m, const known *k, bool low_rank)
{
    const char *name = k->factored ? k->factored->name
                       : k->int8   ? k->int8->name
                       : k->pruned ? k->pruned->name
                                   : k->measured->name;
    const char *shape = k->factored ? k->factored->shape
                        : k->int8   ? k->int8->shape
                        : k->pruned ? k->pruned->shape
                                    : k->measured->shape;
    const terse_op op = k->factored ? k->factored->op
                        : k->int8   ? k->int8->op
                        : k->pruned ? k->pruned->op
                                    : k->measured->op_before;
    put_text(m, "name", name);
    put_text(m, "op", terse_op_name(op));
    put_text(m, "shape", shape);
    if (k->factored) {
        put_factored(m, k->factored, low_rank);
    } else if (k->measured) {
        put_int(m, "macs_before", k->measured->macs_before);
        put_int(m, "macs_after", k->measured->macs_after);
    } else if (k->int8) {
        put_int(m, "macs_after", k->int8->macs);
    }
    if (k->int8)
        put_int8(m, k->int8);
    if (k->pruned)
        put_pruned(m, k->pruned);
    if (k->clustered)
        put_clustered(m, k->clustered);
    if (k->measured)
        put_measured(m, k->measured);
    if (k->planned)
        put_planned(m, k->planned);
    put_text(m, "reason",
             k->int8       ? k->int8->reason
             : k->factored ? k->factored->reason
             : k->pruned   ? k->pruned->reason
                           : k->measured->compression);
}

static known look(const terse_report *r, const char *name)
{
    known k = {.measured = terse_layers_find(&r->measured, name)};
    for (int i = 0; r->search && i < r->search->layers.n && !k.planned; i++)
        k.planned = strcmp(r->search->layers.list[i].name, name) == 0 ? &r->search->layers.list[i] : NULL;
    for (int i = 0; i < r->layers.n && !k.factored; i++)
        k.factored = strcmp(r->layers.layers[i].name, name) == 0 ? &r->layers.layers[i] : NULL;
    for (int i = 0; i < r->int8.n && !k.int8; i++)
        k.int8 = strcmp(r->int8.layers[i].name, name) == 0 ? &r->int8.layers[i] : NULL;
    for (int i = 0; i < r->pruned.n && !k.pruned; i++)
        k.pruned = strcmp(r->pruned.layers[i].name, name) == 0 ? &r->pruned.layers[i] : NULL;
    for (int kind = 0; kind < 2; kind++) {
        const terse_cluster_report *c = kind ? &r->clustered : &r->int8.clustered;
        for (int i = 0; i < c->n; i++)
            if (strcmp(c->layers[i].name, name) == 0 && (!k.clustered || c->layers[i].codes > 0))
                k.clustered = &c->layers[i];
    }
    return k;
}

/* Every layer once: the first list that has it tells it. Returns how many; packs them unless the packer is NULL. */
static uint32_t each_layer(const terse_report *r, msgpack_packer *packer)
{
    const int counts[] = {r->layers.n, r->int8.n, r->pruned.n, r->measured.n};
    uint32_t n = 0;
    for (int list = 0; list < 4; list++)
        for (int i = 0; i < counts[list]; i++) {
            const char *name = list == 0   ? r->layers.layers[i].name
                               : list == 1 ? r->int8.layers[i].name
                               : list == 2 ? r->pruned.layers[i].name
                                           : r->measured.layers[i].name;
            const known k = look(r, name);
            if ((list > 0 && k.factored) || (list > 1 && k.int8) || (list > 2 && k.pruned))
                continue;
            n++;
            if (!packer)
                continue;
            map count = {0}, members = {.packer = packer};
            put_layer(&count, &k, r->low_rank);
            msgpack_pack_map(packer, count.n);
            put_layer(&members, &k, r->low_rank);
        }
    return n;
}

/* --- the whole ------------------------------------------------------------------------------------------------------
 */

/* No times: equal options make equal files. */
static void put_recovered(map *m, const terse_train_summary *s)
{
    put_int(m, "recover_epochs", s->epochs);
    put_int(m, "recover_samples", s->samples + s->held_out);
    put_number(m, "recover_agreement_before", s->agreement_before);
    put_number(m, "recover_agreement", s->agreement);
}

/* Of the network that was chosen; the others are in the plan. */
static void put_search(map *m, const terse_search_plan *plan)
{
    const terse_measured *chosen = terse_tell_chosen(plan);
    put_text(m, "search_goal", plan->goal);
    put_text(m, "search_culprit", plan->culprit);
    if (!chosen)
        return;
    put_number(m, "search_drop", chosen->drop);
    put_number(m, "search_drop_low", chosen->low);
    put_number(m, "search_drop_high", chosen->high);
    put_number(m, "search_us", chosen->us);
    put_number(m, "search_dense_us", plan->dense_us);
}

static void put_techniques(map *m, const terse_report *r)
{
    if (r->layers.samples > 0)
        put_int(m, "low_rank_samples", r->layers.samples);
    if (r->pruned.amount > 0) {
        put_text(m, "prune_kind", terse_prune_kind_name(r->pruned.kind));
        put_number(m, "prune_amount", r->pruned.amount);
        put_int(m, "prune_samples", r->pruned.samples);
    }
    if (r->recovered.floats || r->recovered.rounded)
        put_recovered(m, r->recovered.floats ? &r->recovered.of_floats : &r->recovered.of_rounded);
    if (r->clustered.bits > 0)
        put_int(m, "cluster_bits", r->clustered.bits);
    if (r->search)
        put_search(m, r->search);
    if (!r->quantized)
        return;
    put_int(m, "int8_samples", r->int8.samples);
    put_number(m, "int8_sqnr", r->int8.sqnr_db);
    if (r->int8.rows_known)
        put_number(m, "int8_kl", r->int8.divergence);
    put_text(m, "equalization", r->int8.equalization);
}

int terse_report_pack(const terse_report *report, msgpack_sbuffer *buffer, terse_error *error)
{
    terse_figure list[TERSE_REPORT_FIGURES];
    terse_report_figures(report, list);
    msgpack_packer packer;
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    map count = {0}, members = {.packer = &packer};
    put_techniques(&count, report);
    msgpack_pack_map(&packer, count.n + (report->validated ? 7u : 4u));
    pack_side(&packer, "before", list, false);
    pack_side(&packer, "after", list, true);
    put_techniques(&members, report);
    if (report->validated) {
        put_int(&members, "samples", report->validation.samples);
        put_number(&members, "other_us_before", report->measured.other_us_before);
        put_number(&members, "other_us_after", report->measured.other_us_after);
    }
    terse_pack_cstr(&packer, "arena_bytes");
    if (report->arena_bytes >= 0)
        msgpack_pack_int64(&packer, report->arena_bytes);
    else
        msgpack_pack_nil(&packer);
    terse_pack_cstr(&packer, "layers");
    /* the packer reports no failed write by itself: a last byte that is missing shows in the size */
    msgpack_pack_array(&packer, each_layer(report, NULL));
    each_layer(report, &packer);
    return buffer->data ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the report");
}
