/* SPDX-License-Identifier: Apache-2.0 */
/* What each technique knows of a layer. */
#include <string.h>

#include "compress/report/fields.h"
#include "compress/search/tell.h"

/* What is known of one layer; NULL: that technique does not know it. */
typedef struct known {
    const terse_low_rank_layer *factored;
    const terse_quantize_layer *int8;
    const terse_prune_layer *pruned, *channels; /* by 4x1 and its like; without channels */
    const terse_cluster_layer *clustered;
    const terse_layer *measured;
    const terse_choice *planned;
} known;

static void put_factored(terse_fields *f, const terse_low_rank_layer *l, bool asked)
{
    if (l->rank > 0)
        terse_field_int(f, "rank", l->rank);
    else
        terse_field_null(f, "rank");
    if (l->rank > 0)
        terse_field_text(f, "form", terse_low_rank_form_name(l->form));
    if (l->rank_in > 0)
        terse_field_int(f, "rank_in", l->rank_in);
    terse_field_int(f, "full_rank", l->full);
    terse_field_number(f, "energy", l->energy);
    terse_field_int(f, "macs_before", l->macs_before);
    terse_field_int(f, "macs_after", l->macs_after);
    if (asked)
        terse_field_text(f, "low_rank_reason", l->reason);
}

static void put_int8(terse_fields *f, const terse_quantize_layer *l)
{
    terse_field_bool(f, "kept", l->kept);
    terse_field_text(f, "int8_reason", l->reason);
    if (!l->measured)
        return;
    if (l->alone) {
        terse_field_number(f, "sqnr", l->sqnr_db);
        terse_field_number(f, "kl", l->divergence);
    }
    terse_field_text(f, "calibration", terse_calibration_name(l->method));
    terse_field_number(f, "low", l->low);
    terse_field_number(f, "high", l->high);
    terse_field_number(f, "clipped_share", l->clipped);
}

static void put_pruned(terse_fields *f, const terse_prune_layer *l)
{
    terse_field_bool(f, "pruned", l->pruned);
    terse_field_bool(f, "sparse", l->sparse);
    terse_field_number(f, "kept_share", l->kept);
    if (l->error >= 0)
        terse_field_number(f, "prune_error", l->error);
    if (l->us_dense > 0) {
        terse_field_number(f, "us_dense", l->us_dense);
        terse_field_number(f, "us_sparse", l->us_sparse);
    }
    terse_field_text(f, "prune_reason", l->reason);
}

static void put_channels(terse_fields *f, const terse_prune_layer *l)
{
    terse_field_number(f, "channels_left", l->kept);
    if (l->error >= 0)
        terse_field_number(f, "channels_error", l->error);
    terse_field_text(f, "channels_reason", l->reason);
}

static void put_clustered(terse_fields *f, const terse_cluster_layer *l)
{
    terse_field_int(f, "codes", l->codes);
    terse_field_number(f, "bits_per_weight", l->entropy);
    terse_field_number(f, "cluster_sqnr", l->sqnr_db);
    terse_field_text(f, "cluster_reason", l->reason);
}

static void put_measured(terse_fields *f, const terse_layer *l)
{
    terse_field_text(f, "op_after", terse_op_name(l->op_after));
    terse_field_text(f, "compression", l->compression);
    terse_field_int(f, "bytes_before", l->bytes_before);
    terse_field_int(f, "bytes_after", l->bytes_after);
    terse_field_number(f, "sqnr_db", l->sqnr_db);
    terse_field_number(f, "us_before", l->us_before);
    terse_field_number(f, "us_after", l->us_after);
}

static void put_planned(terse_fields *f, const terse_choice *c)
{
    char text[TERSE_CHOICE_WHY];
    const char *refused[TERSE_CHOICE_REFUSED];
    for (int i = 0; i < c->n_refused; i++)
        refused[i] = c->refused[i];
    terse_field_text(f, "choice", terse_choice_becomes(c, text, sizeof text));
    terse_field_text(f, "choice_reason", c->why);
    if (c->us > 0)
        terse_field_number(f, "choice_us", c->us);
    terse_field_number(f, "choice_cost", c->cost);
    if (c->n_refused > 0)
        terse_field_texts(f, "refused", refused, c->n_refused);
}

static void put_layer(terse_fields *f, const known *k, bool low_rank)
{
    const char *name = k->factored   ? k->factored->name
                       : k->int8     ? k->int8->name
                       : k->pruned   ? k->pruned->name
                       : k->channels ? k->channels->name
                                     : k->measured->name;
    const char *shape = k->factored   ? k->factored->shape
                        : k->int8     ? k->int8->shape
                        : k->pruned   ? k->pruned->shape
                        : k->channels ? k->channels->shape
                                      : k->measured->shape;
    const terse_op op = k->factored   ? k->factored->op
                        : k->int8     ? k->int8->op
                        : k->pruned   ? k->pruned->op
                        : k->channels ? k->channels->op
                                      : k->measured->op_before;
    terse_field_text(f, "name", name);
    terse_field_text(f, "op", terse_op_name(op));
    terse_field_text(f, "shape", shape);
    if (k->factored) {
        put_factored(f, k->factored, low_rank);
    } else if (k->measured) {
        terse_field_int(f, "macs_before", k->measured->macs_before);
        terse_field_int(f, "macs_after", k->measured->macs_after);
    } else if (k->int8) {
        terse_field_int(f, "macs_after", k->int8->macs);
    }
    if (k->int8)
        put_int8(f, k->int8);
    if (k->channels)
        put_channels(f, k->channels);
    if (k->pruned)
        put_pruned(f, k->pruned);
    if (k->clustered)
        put_clustered(f, k->clustered);
    if (k->measured)
        put_measured(f, k->measured);
    if (k->planned)
        put_planned(f, k->planned);
    terse_field_text(f, "reason",
                     k->int8       ? k->int8->reason
                     : k->factored ? k->factored->reason
                     : k->pruned   ? k->pruned->reason
                     : k->channels ? k->channels->reason
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
    for (int i = 0; i < r->channels.n && !k.channels; i++)
        k.channels = strcmp(r->channels.layers[i].name, name) == 0 ? &r->channels.layers[i] : NULL;
    for (int kind = 0; kind < 2; kind++) {
        const terse_cluster_report *c = kind ? &r->clustered : &r->int8.clustered;
        for (int i = 0; i < c->n; i++)
            if (strcmp(c->layers[i].name, name) == 0 && (!k.clustered || c->layers[i].codes > 0))
                k.clustered = &c->layers[i];
    }
    return k;
}

static void put_element(const terse_fields *to, const known *k, bool low_rank)
{
    terse_fields members = *to;
    if (to->packer) {
        terse_fields count = {0};
        put_layer(&count, k, low_rank);
        msgpack_pack_map(to->packer, count.n);
    }
    if (to->json)
        terse_json_object(to->json, NULL);
    put_layer(&members, k, low_rank);
    if (to->json)
        terse_json_end(to->json);
}

/* The first list that has a layer tells it. */
uint32_t terse_report_layers(const terse_report *r, const terse_fields *to)
{
    const int counts[] = {r->layers.n, r->int8.n, r->pruned.n, r->channels.n, r->measured.n};
    uint32_t n = 0;
    for (int list = 0; list < 5; list++)
        for (int i = 0; i < counts[list]; i++) {
            const char *name = list == 0   ? r->layers.layers[i].name
                               : list == 1 ? r->int8.layers[i].name
                               : list == 2 ? r->pruned.layers[i].name
                               : list == 3 ? r->channels.layers[i].name
                                           : r->measured.layers[i].name;
            const known k = look(r, name);
            if ((list > 0 && k.factored) || (list > 1 && k.int8) || (list > 2 && k.pruned) || (list > 3 && k.channels))
                continue;
            n++;
            put_element(to, &k, r->low_rank);
        }
    return n;
}
