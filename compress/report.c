/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/json.h"
#include "common/pack.h"

void terse_report_done(terse_report *report)
{
    terse_low_rank_report_done(&report->layers);
}

/* --- what each side has: one list for the three forms --------------------------------------------------------- */

typedef enum number_kind { COUNT, SHARE, ERROR, MICROSECONDS } number_kind;

typedef struct figure {
    const char *key, *label;
    number_kind kind;
    bool known;
    double before, after;
} figure;

enum { N_FIGURES = 7 };

static void figures(const terse_report *report, figure *list)
{
    const terse_validation *v = &report->validation;
    const bool compared = report->validated;
    list[0] = (figure){"bytes", "bytes", COUNT, true, (double)report->bytes_before, (double)report->bytes_after};
    list[1] = (figure){"macs",
                       "multiply-accumulates",
                       COUNT,
                       report->macs_before >= 0 && report->macs_after >= 0,
                       (double)report->macs_before,
                       (double)report->macs_after};
    list[2] = (figure){"top1", "top-1", SHARE, compared && v->has_top1, v->top1_before, v->top1_after};
    list[3] = (figure){"agreement", "agreement", SHARE, compared && v->has_agreement, 1.0, v->agreement};
    list[4] = (figure){"max_error", "largest error", ERROR, compared, 0.0, v->max_error};
    list[5] = (figure){"mean_error", "mean error", ERROR, compared, 0.0, v->mean_error};
    list[6] = (figure){"latency_us", "microseconds, one sample", MICROSECONDS,
                       compared,     v->latency_before_us,       v->latency_after_us};
}

/* --- for people ------------------------------------------------------------------------------------------------ */

static void number_text(number_kind kind, double number, char *text, size_t size)
{
    if (kind == COUNT)
        snprintf(text, size, "%.0f", number);
    else if (kind == SHARE)
        snprintf(text, size, "%.2f %%", 100.0 * number);
    else if (kind == ERROR)
        snprintf(text, size, "%.3g", number);
    else
        snprintf(text, size, "%.1f", number);
}

static void print_layers(const terse_low_rank_report *layers, FILE *out)
{
    fprintf(out, "%-32s %-8s %-18s %11s %8s %14s %14s  %s\n", "layer", "op", "weights", "rank", "energy", "MACs before",
            "after", "decision");
    for (int i = 0; i < layers->n; i++) {
        const terse_low_rank_layer *l = &layers->layers[i];
        char rank[32] = "-", energy[16] = "-";
        if (l->rank > 0) {
            snprintf(rank, sizeof rank, "%" PRId64 " of %" PRId64, l->rank, l->full);
            snprintf(energy, sizeof energy, "%.4f", l->energy);
        }
        fprintf(out, "%-32.32s %-8.8s %-18.18s %11s %8s %14" PRId64 " %14" PRId64 "  %s\n", l->name,
                terse_op_name(l->op), l->shape, rank, energy, l->macs_before, l->macs_after, l->reason);
    }
    fputc('\n', out);
}

void terse_report_print(const terse_report *report, FILE *out)
{
    figure list[N_FIGURES];
    figures(report, list);
    if (report->low_rank > 0)
        print_layers(&report->layers, out);
    fprintf(out, "%s -> %s (model '%s', %d nodes -> %d)\n", report->input, report->output, report->name,
            report->n_nodes_before, report->n_nodes_after);
    fprintf(out, "%-26s %16s %16s\n", "", "before", "after");
    for (int i = 0; i < N_FIGURES; i++) {
        if (!list[i].known)
            continue;
        char before[64], after[64];
        number_text(list[i].kind, list[i].before, before, sizeof before);
        number_text(list[i].kind, list[i].after, after, sizeof after);
        fprintf(out, "%-26s %16s %16s\n", list[i].label, before, after);
    }
    if (report->validated)
        fprintf(out, "compared on %" PRId64 " samples\n", report->validation.samples);
    if (report->arena_bytes >= 0)
        fprintf(out, "arena of one sample: %" PRId64 " bytes\n", report->arena_bytes);
}

/* --- JSON ------------------------------------------------------------------------------------------------------ */

static void json_side(terse_json *json, const char *key, const figure *list, bool after)
{
    terse_json_object(json, key);
    for (int i = 0; i < N_FIGURES; i++) {
        const double number = after ? list[i].after : list[i].before;
        if (list[i].known && list[i].kind == COUNT)
            terse_json_int(json, list[i].key, (int64_t)number);
        else if (list[i].known)
            terse_json_double(json, list[i].key, number);
    }
    terse_json_end(json);
}

static void json_layer(terse_json *json, const terse_low_rank_layer *layer)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", layer->name);
    terse_json_text(json, "op", terse_op_name(layer->op));
    terse_json_text(json, "shape", layer->shape);
    if (layer->rank > 0)
        terse_json_int(json, "rank", layer->rank);
    else
        terse_json_null(json, "rank");
    terse_json_int(json, "full_rank", layer->full);
    terse_json_double(json, "energy", layer->energy);
    terse_json_int(json, "macs_before", layer->macs_before);
    terse_json_int(json, "macs_after", layer->macs_after);
    terse_json_text(json, "reason", layer->reason);
    terse_json_end(json);
}

void terse_report_json(const terse_report *report, FILE *out)
{
    figure list[N_FIGURES];
    figures(report, list);
    terse_json json = terse_json_to(out);
    terse_json_object(&json, NULL);
    terse_json_text(&json, "model", report->name);
    terse_json_text(&json, "input", report->input);
    terse_json_text(&json, "output", report->output);
    json_side(&json, "before", list, false);
    json_side(&json, "after", list, true);
    if (report->validated)
        terse_json_int(&json, "samples", report->validation.samples);
    terse_json_array(&json, "layers");
    for (int i = 0; i < report->layers.n; i++)
        json_layer(&json, &report->layers.layers[i]);
    terse_json_end(&json);
    if (report->arena_bytes >= 0)
        terse_json_int(&json, "arena_bytes", report->arena_bytes);
    else
        terse_json_null(&json, "arena_bytes");
    terse_json_end(&json);
    fputc('\n', out);
}

/* --- msgpack --------------------------------------------------------------------------------------------------- */

static void pack_side(msgpack_packer *packer, const char *key, const figure *list, bool after)
{
    uint32_t n = 0;
    for (int i = 0; i < N_FIGURES; i++)
        n += list[i].known;
    terse_pack_cstr(packer, key);
    msgpack_pack_map(packer, n);
    for (int i = 0; i < N_FIGURES; i++) {
        if (!list[i].known)
            continue;
        const double number = after ? list[i].after : list[i].before;
        terse_pack_cstr(packer, list[i].key);
        if (list[i].kind == COUNT)
            msgpack_pack_fix_uint64(packer, (uint64_t)number); /* nine bytes whatever the number */
        else
            msgpack_pack_double(packer, number);
    }
}

static void pack_layer(msgpack_packer *packer, const terse_low_rank_layer *layer)
{
    msgpack_pack_map(packer, 8);
    terse_pack_cstr(packer, "name");
    terse_pack_cstr(packer, layer->name);
    terse_pack_cstr(packer, "op");
    terse_pack_cstr(packer, terse_op_name(layer->op));
    terse_pack_cstr(packer, "shape");
    terse_pack_cstr(packer, layer->shape);
    terse_pack_cstr(packer, "rank");
    if (layer->rank > 0)
        msgpack_pack_int64(packer, layer->rank);
    else
        msgpack_pack_nil(packer);
    terse_pack_cstr(packer, "energy");
    msgpack_pack_double(packer, layer->energy);
    terse_pack_cstr(packer, "macs_before");
    msgpack_pack_int64(packer, layer->macs_before);
    terse_pack_cstr(packer, "macs_after");
    msgpack_pack_int64(packer, layer->macs_after);
    terse_pack_cstr(packer, "reason");
    terse_pack_cstr(packer, layer->reason);
}

int terse_report_pack(const terse_report *report, msgpack_sbuffer *buffer, terse_error *error)
{
    figure list[N_FIGURES];
    figures(report, list);
    msgpack_packer packer;
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&packer, report->validated ? 5u : 4u);
    pack_side(&packer, "before", list, false);
    pack_side(&packer, "after", list, true);
    if (report->validated) {
        terse_pack_cstr(&packer, "samples");
        msgpack_pack_int64(&packer, report->validation.samples);
    }
    terse_pack_cstr(&packer, "arena_bytes");
    if (report->arena_bytes >= 0)
        msgpack_pack_int64(&packer, report->arena_bytes);
    else
        msgpack_pack_nil(&packer);
    terse_pack_cstr(&packer, "layers");
    msgpack_pack_array(&packer, (size_t)report->layers.n);
    /* the packer reports no failed write by itself: a last byte that is missing shows in the size */
    for (int i = 0; i < report->layers.n; i++)
        pack_layer(&packer, &report->layers.layers[i]);
    return buffer->data ? TERSE_OK : terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the report");
}
