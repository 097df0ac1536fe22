/* SPDX-License-Identifier: Apache-2.0 */
/* The report as msgpack, as it is stored in the file and as `terse explain` reads it. */
#include "common/pack.h"
#include "compress/report/fields.h"
#include "compress/search/tell.h"

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

/* No times: equal options make equal files. */
static void put_recovered(terse_fields *f, const terse_train_summary *s)
{
    terse_field_int(f, "recover_epochs", s->epochs);
    terse_field_int(f, "recover_samples", s->samples + s->held_out);
    terse_field_number(f, "recover_agreement_before", s->agreement_before);
    terse_field_number(f, "recover_agreement", s->agreement);
}

/* Of the network that was chosen; the others are in the plan. */
static void put_search(terse_fields *f, const terse_search_plan *plan)
{
    const terse_measured *chosen = terse_tell_chosen(plan);
    terse_field_text(f, "search_goal", plan->goal);
    terse_field_text(f, "search_culprit", plan->culprit);
    if (!chosen)
        return;
    terse_field_number(f, "search_drop", chosen->drop);
    terse_field_number(f, "search_drop_low", chosen->low);
    terse_field_number(f, "search_drop_high", chosen->high);
    terse_field_number(f, "search_us", chosen->us);
    terse_field_number(f, "search_dense_us", plan->dense_us);
}

static void put_techniques(terse_fields *f, const terse_report *r)
{
    if (r->channels.amount > 0) {
        terse_field_number(f, "channels_amount", r->channels.amount);
        terse_field_int(f, "channels_samples", r->channels.samples);
    }
    if (r->layers.samples > 0)
        terse_field_int(f, "low_rank_samples", r->layers.samples);
    if (r->pruned.amount > 0) {
        terse_field_text(f, "prune_kind", terse_prune_kind_name(r->pruned.kind));
        terse_field_number(f, "prune_amount", r->pruned.amount);
        terse_field_int(f, "prune_samples", r->pruned.samples);
    }
    if (r->recovered.floats || r->recovered.rounded)
        put_recovered(f, r->recovered.floats ? &r->recovered.of_floats : &r->recovered.of_rounded);
    if (r->clustered.bits > 0)
        terse_field_int(f, "cluster_bits", r->clustered.bits);
    if (r->search)
        put_search(f, r->search);
    if (!r->quantized)
        return;
    terse_field_int(f, "int8_samples", r->int8.samples);
    terse_field_number(f, "int8_sqnr", r->int8.sqnr_db);
    if (r->int8.rows_known)
        terse_field_number(f, "int8_kl", r->int8.divergence);
    terse_field_text(f, "equalization", r->int8.equalization);
}

int terse_report_pack(const terse_report *report, msgpack_sbuffer *buffer, terse_error *error)
{
    terse_figure list[TERSE_REPORT_FIGURES];
    terse_report_figures(report, list);
    msgpack_packer packer;
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    terse_fields count = {0}, members = {.packer = &packer};
    put_techniques(&count, report);
    msgpack_pack_map(&packer, count.n + (report->validated ? 7u : 4u));
    pack_side(&packer, "before", list, false);
    pack_side(&packer, "after", list, true);
    put_techniques(&members, report);
    if (report->validated) {
        terse_field_int(&members, "samples", report->validation.samples);
        terse_field_number(&members, "other_us_before", report->measured.other_us_before);
        terse_field_number(&members, "other_us_after", report->measured.other_us_after);
    }
    terse_pack_cstr(&packer, "arena_bytes");
    if (report->arena_bytes >= 0)
        msgpack_pack_int64(&packer, report->arena_bytes);
    else
        msgpack_pack_nil(&packer);
    terse_pack_cstr(&packer, "layers");
    /* the packer reports no failed write by itself: a last byte that is missing shows in the size */
    msgpack_pack_array(&packer, terse_report_layers(report, &(terse_fields){0}));
    terse_report_layers(report, &(terse_fields){.packer = &packer});
    return buffer->data ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the report");
}
