/* SPDX-License-Identifier: Apache-2.0 */
/* The report as one JSON object. */
#include <math.h>
#include <sys/resource.h>

#include "common/json.h"
#include "compress/report/fields.h"
#include "compress/search/tell.h"

static void json_side(terse_json *json, const char *key, const terse_figure *list, bool after)
{
    terse_json_object(json, key);
    for (int i = 0; i < TERSE_REPORT_FIGURES; i++) {
        const double number = after ? list[i].after : list[i].before;
        if (list[i].known && list[i].kind == TERSE_FIGURE_COUNT)
            terse_json_int(json, list[i].key, (int64_t)number);
        else if (list[i].known)
            terse_json_double(json, list[i].key, number);
    }
    terse_json_end(json);
}

static void json_quantized(terse_json *json, const terse_quantize_report *r)
{
    terse_json_object(json, "quantize");
    terse_json_int(json, "samples", r->samples);
    terse_json_double(json, "sqnr", r->sqnr_db);
    if (r->rows_known)
        terse_json_double(json, "kl", r->divergence);
    terse_json_text(json, "equalization", r->equalization);
    terse_json_array(json, "warnings");
    for (int i = 0; i < r->n_warnings; i++)
        terse_json_text(json, NULL, r->warnings[i]);
    terse_json_end(json);
    terse_json_end(json);
}

static void json_clustered(terse_json *json, const terse_cluster_report *int8, const terse_cluster_report *floats)
{
    const terse_cluster_report *const reports[] = {int8, floats};
    terse_json_object(json, "cluster");
    terse_json_int(json, "bits", floats->bits);
    terse_json_array(json, "layers");
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < reports[r]->n; i++) {
            const terse_cluster_layer *l = &reports[r]->layers[i];
            terse_json_object(json, NULL);
            terse_json_text(json, "name", l->name);
            terse_json_text(json, "op", terse_op_name(l->op));
            terse_json_text(json, "weights", l->shape);
            terse_json_int(json, "codes", l->codes);
            terse_json_double(json, "bits_per_weight", l->entropy);
            if (isfinite(l->sqnr_db))
                terse_json_double(json, "sqnr_db", l->sqnr_db);
            terse_json_text(json, "reason", l->reason);
            terse_json_end(json);
        }
    terse_json_end(json);
    terse_json_end(json);
}

static void json_pruned(terse_json *json, const char *key, const terse_prune_report *r)
{
    terse_json_object(json, key);
    terse_json_text(json, "kind", terse_prune_kind_name(r->kind));
    terse_json_double(json, "amount", r->amount);
    terse_json_int(json, "samples", r->samples);
    if (r->macs_before > 0)
        terse_json_double(json, "macs_gone", 1 - r->macs_after / r->macs_before);
    terse_json_array(json, "layers");
    for (int i = 0; i < r->n; i++) {
        const terse_prune_layer *l = &r->layers[i];
        terse_json_object(json, NULL);
        terse_json_text(json, "name", l->name);
        terse_json_bool(json, "pruned", l->pruned);
        terse_json_bool(json, "sparse", l->sparse);
        terse_json_double(json, "kept", l->kept);
        if (l->error >= 0)
            terse_json_double(json, "error", l->error);
        if (l->us_dense > 0) {
            terse_json_double(json, "us_dense", l->us_dense);
            terse_json_double(json, "us_sparse", l->us_sparse);
        }
        if (l->bytes_memory > 0) {
            terse_json_int(json, "bytes_stored", l->bytes_stored);
            terse_json_int(json, "bytes_memory", l->bytes_memory);
            terse_json_text(json, "stored", l->stored[0] ? l->stored : "none");
        }
        terse_json_text(json, "reason", l->reason);
        terse_json_end(json);
    }
    terse_json_end(json);
    terse_json_end(json);
}

static void json_training(terse_json *json, const char *key, const terse_train_summary *s)
{
    terse_json_object(json, key);
    terse_json_int(json, "epochs", s->epochs);
    terse_json_int(json, "steps", s->steps);
    terse_json_double(json, "seconds", s->seconds);
    terse_json_double(json, "samples_per_second", s->samples_per_second);
    terse_json_int(json, "samples", s->samples);
    terse_json_int(json, "held_out", s->held_out);
    terse_json_double(json, "agreement_before", s->agreement_before);
    terse_json_double(json, "agreement", s->agreement);
    terse_json_double(json, "divergence_before", s->divergence_before);
    terse_json_double(json, "divergence", s->divergence);
    terse_json_int(json, "parameters", s->parameters);
    terse_json_int(json, "frozen_parameters", s->frozen_parameters);
    terse_json_text(json, "no_gradient", s->frozen);
    terse_json_int(json, "bytes", (int64_t)s->bytes);
    terse_json_bool(json, "interrupted", s->stopped);
    terse_json_bool(json, "early", s->early);
    terse_json_end(json);
}

static void json_rounding(terse_json *json, const terse_rounding_report *r)
{
    terse_json_object(json, "rounding");
    for (int i = TERSE_ROUNDING_NEAREST; i <= TERSE_ROUNDING_ADAROUND; i++)
        terse_json_int(json, terse_rounding_name((terse_rounding)i), r->products[i]);
    terse_json_double(json, "lost", r->lost / r->lost_nearest);
    terse_json_end(json);
}

static void json_mixed(terse_json *json, const terse_mixed *m)
{
    terse_json_object(json, "mixed");
    terse_json_array(json, "int8");
    for (int i = 0; i < m->n; i++)
        terse_json_text(json, NULL, m->names[i]);
    terse_json_end(json);
    terse_json_int(json, "products", m->of);
    terse_json_double(json, "more_bytes", m->more);
    terse_json_double(json, "lost", m->lost);
    terse_json_double(json, "lost_all", m->lost_all);
    terse_json_end(json);
}

static void json_recovered(terse_json *json, const terse_recovered *r)
{
    terse_json_object(json, "recover");
    if (r->floats)
        json_training(json, "floats", &r->of_floats);
    if (r->rounded)
        json_training(json, "rounded", &r->of_rounded);
    terse_json_end(json);
}

static void json_drop(terse_json *json, const terse_validation *v)
{
    if (v->has_top1) {
        terse_json_object(json, "top1_drop");
        terse_json_double(json, "drop", v->drop);
        terse_json_double(json, "low", v->drop_low);
        terse_json_double(json, "high", v->drop_high);
        terse_json_end(json);
    }
    if (v->joules_after > 0) {
        terse_json_double(json, "joules_before", v->joules_before);
        terse_json_double(json, "joules_after", v->joules_after);
    }
}

static void json_memory(terse_json *json, const terse_report_memory *m)
{
    struct rusage usage;
    terse_json_object(json, "memory");
    terse_json_int(json, "need", (int64_t)m->need);
    terse_json_int(json, "least", (int64_t)m->least);
    terse_json_int(json, "weights", (int64_t)m->weights);
    terse_json_int(json, "samples", (int64_t)m->samples);
    terse_json_int(json, "numbers", (int64_t)m->numbers);
    terse_json_int(json, "moments", (int64_t)m->moments);
    if (m->bound)
        terse_json_int(json, "bound", (int64_t)m->bound);
    terse_json_bool(json, "files", m->spilled);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        terse_json_int(json, "seen", (int64_t)usage.ru_maxrss * 1024);
    terse_json_end(json);
}

void terse_report_json(const terse_report *report, FILE *out)
{
    terse_figure list[TERSE_REPORT_FIGURES];
    terse_report_figures(report, list);
    terse_json json = terse_json_to(out);
    terse_json_object(&json, NULL);
    terse_json_text(&json, "model", report->name);
    terse_json_text(&json, "input", report->input);
    terse_json_text(&json, "output", report->output);
    json_side(&json, "before", list, false);
    json_side(&json, "after", list, true);
    json_memory(&json, &report->memory);
    if (report->validated)
        terse_json_int(&json, "samples", report->validation.samples);
    if (report->validated) {
        json_drop(&json, &report->validation);
        terse_json_double(&json, "other_us_before", report->measured.other_us_before);
        terse_json_double(&json, "other_us_after", report->measured.other_us_after);
    }
    if (report->clustered.bits > 0)
        json_clustered(&json, &report->int8.clustered, &report->clustered);
    if (report->channels.amount > 0)
        json_pruned(&json, "channels", &report->channels);
    if (report->pruned.amount > 0)
        json_pruned(&json, "prune", &report->pruned);
    if (report->texts > 0)
        terse_json_int(&json, "texts", report->texts);
    if (report->recovered.floats || report->recovered.rounded)
        json_recovered(&json, &report->recovered);
    if (report->corrected.asked) {
        terse_json_object(&json, "corrected");
        terse_json_bool(&json, "kept", report->corrected.kept);
        terse_json_int(&json, "layers", report->corrected.layers);
        terse_json_double(&json, "before", report->corrected.before);
        terse_json_double(&json, "after", report->corrected.after);
        terse_json_end(&json);
    }
    if (report->mixed.of > 0)
        json_mixed(&json, &report->mixed);
    if (terse_report_rounding(report)->lost_nearest > 0)
        json_rounding(&json, terse_report_rounding(report));
    if (report->quantized)
        json_quantized(&json, &report->int8);
    if (report->search)
        terse_tell_search_json(report->search, &json);
    terse_json_array(&json, "layers");
    terse_report_layers(report, &(terse_fields){.json = &json});
    terse_json_end(&json);
    if (report->arena_bytes >= 0)
        terse_json_int(&json, "arena_bytes", report->arena_bytes);
    else
        terse_json_null(&json, "arena_bytes");
    terse_json_end(&json);
    fputc('\n', out);
}
