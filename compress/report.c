/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/resource.h>

#include "common/json.h"
#include "compress/search/tell.h"

void terse_report_done(terse_report *report)
{
    terse_low_rank_report_done(&report->layers);
    terse_prune_report_done(&report->pruned);
    terse_cluster_report_done(&report->clustered);
    terse_quantize_report_done(&report->int8);
    terse_layers_done(&report->measured);
}

/* --- what each side has: one list for the three forms --------------------------------------------------------- */

void terse_report_figures(const terse_report *report, terse_figure *list)
{
    const terse_validation *v = &report->validation;
    const bool compared = report->validated;
    list[0] = (terse_figure){
        "bytes", "bytes", TERSE_FIGURE_COUNT, true, (double)report->bytes_before, (double)report->bytes_after};
    list[1] = (terse_figure){"memory_bytes", "weights in memory, bytes",    TERSE_FIGURE_COUNT,
                             report->packed, (double)report->memory_before, (double)report->memory_after};
    list[2] = (terse_figure){"macs",
                             "multiply-accumulates",
                             TERSE_FIGURE_COUNT,
                             report->macs_before >= 0 && report->macs_after >= 0,
                             (double)report->macs_before,
                             (double)report->macs_after};
    list[3] =
        (terse_figure){"top1", "top-1", TERSE_FIGURE_SHARE, compared && v->has_top1, v->top1_before, v->top1_after};
    list[4] =
        (terse_figure){"agreement", "agreement", TERSE_FIGURE_SHARE, compared && v->has_agreement, 1.0, v->agreement};
    list[5] = (terse_figure){"max_error", "largest error", TERSE_FIGURE_ERROR, compared, 0.0, v->max_error};
    list[6] = (terse_figure){"mean_error", "mean error", TERSE_FIGURE_ERROR, compared, 0.0, v->mean_error};
    list[7] = (terse_figure){"latency_us", "microseconds, one sample", TERSE_FIGURE_MICROSECONDS,
                             compared,     v->latency_before_us,       v->latency_after_us};
    list[8] = (terse_figure){
        "batch8_us",        "microseconds, 8 samples", TERSE_FIGURE_MICROSECONDS, compared && v->has_batch,
        v->batch_before_us, v->batch_after_us};
}

/* --- for people ------------------------------------------------------------------------------------------------ */

void terse_report_number(terse_figure_kind kind, double number, char *text, size_t size)
{
    if (kind == TERSE_FIGURE_COUNT)
        snprintf(text, size, "%.0f", number);
    else if (kind == TERSE_FIGURE_SHARE)
        snprintf(text, size, "%.2f %%", 100.0 * number);
    else if (kind == TERSE_FIGURE_ERROR)
        snprintf(text, size, "%.3g", number);
    else
        snprintf(text, size, "%.1f", number);
}

static void print_layers(const terse_low_rank_report *layers, FILE *out)
{
    fprintf(out, "%-32s %-8s %-18s %19s %8s %14s %14s  %s\n", "layer", "op", "weights", "rank", "energy", "MACs before",
            "after", "decision");
    for (int i = 0; i < layers->n; i++) {
        const terse_low_rank_layer *l = &layers->layers[i];
        char rank[64] = "-", energy[16] = "-";
        if (l->rank > 0) {
            if (l->rank_in > 0)
                snprintf(rank, sizeof rank, "%s %" PRId64 "x%" PRId64, terse_low_rank_form_name(l->form), l->rank_in,
                         l->rank);
            else
                snprintf(rank, sizeof rank, "%s %" PRId64 " of %" PRId64, terse_low_rank_form_name(l->form), l->rank,
                         l->full);
            snprintf(energy, sizeof energy, "%.4f", l->energy);
        }
        fprintf(out, "%-32.32s %-8.8s %-18.18s %19s %8s %14" PRId64 " %14" PRId64 "  %s\n", l->name,
                terse_op_name(l->op), l->shape, rank, energy, l->macs_before, l->macs_after, l->reason);
    }
    fputc('\n', out);
}

void terse_report_decibels(double db, char *text, size_t size)
{
    if (isnan(db))
        snprintf(text, size, "-");
    else if (isinf(db))
        snprintf(text, size, "equal");
    else
        snprintf(text, size, "%.1f", db);
}

static void print_measured(const terse_layers *layers, FILE *out)
{
    fprintf(out, "%-32s %-8s %-18s %13s %11s %11s %8s %10s %10s\n", "layer", "op", "weights", "MACs", "bytes before",
            "after", "SQNR dB", "us before", "after");
    for (int i = 0; i < layers->n; i++) {
        const terse_layer *l = &layers->layers[i];
        char db[32];
        terse_report_decibels(l->sqnr_db, db, sizeof db);
        fprintf(out, "%-32.32s %-8.8s %-18.18s %13" PRId64 " %11" PRId64 " %11" PRId64 " %8s %10.1f %10.1f\n", l->name,
                terse_op_name(l->op_after), l->shape, l->macs_after, l->bytes_before, l->bytes_after, db, l->us_before,
                l->us_after);
    }
    fprintf(out, "%-32s %85.1f %10.1f\n\n", "everything else", layers->other_us_before, layers->other_us_after);
}

static void print_pruned(const terse_prune_report *r, FILE *out)
{
    fprintf(out, "%-32s %-8s %-18s %7s %8s %10s %10s  %s\n", "layer", "op", "weights", "kept", "error", "us dense",
            "sparse", "decision");
    for (int i = 0; i < r->n; i++) {
        const terse_prune_layer *l = &r->layers[i];
        char error[32] = "-", dense[32] = "-", sparse[32] = "-";
        if (l->error >= 0)
            snprintf(error, sizeof error, "%.4f", l->error);
        if (l->us_dense > 0) {
            snprintf(dense, sizeof dense, "%.1f", l->us_dense);
            snprintf(sparse, sizeof sparse, "%.1f", l->us_sparse);
        }
        fprintf(out, "%-32.32s %-8.8s %-18.18s %6.1f%% %8s %10s %10s  %s%s", l->name, terse_op_name(l->op), l->shape,
                100.0 * l->kept, error, dense, sparse, l->pruned ? "" : "not pruned: ", l->reason);
        if (l->stored[0])
            fprintf(out, "; %" PRId64 " of %" PRId64 " bytes in the file (%s)", l->bytes_stored, l->bytes_memory,
                    l->stored);
        fputc('\n', out);
    }
    const double gone = r->macs_before > 0 ? 1 - r->macs_after / r->macs_before : 0;
    if (r->macs_before > 0)
        fprintf(out, "%.1f %% of the layers' multiply-accumulates are gone, %.1f %% were asked for%s\n", 100.0 * gone,
                100.0 * r->amount, gone < 0.99 * r->amount ? ": no more channels can go" : "");
    if (r->samples > 0)
        fprintf(out, "pruned on %" PRId64 " samples; error: share of the layer's output that its zeros cost there\n\n",
                r->samples);
    else
        fprintf(out, "pruned by size alone, no samples were given (--calibrate)\n\n");
}

static void print_training(const char *what, const terse_train_summary *s, FILE *out)
{
    fprintf(out,
            "%s: %" PRId64 " numbers in %" PRId64 " epochs, %" PRId64
            " steps, %.1f s, %.0f samples/s%s; held-out (%" PRId64 " of %" PRId64
            " samples): agreement %.2f %%, before %.2f %%; divergence %.4f, before %.4f\n",
            what, s->parameters, s->epochs, s->steps, s->seconds, s->samples_per_second,
            s->stopped ? ", interrupted"
            : s->early ? ", ended early"
                       : "",
            s->held_out, s->samples + s->held_out, 100 * s->agreement, 100 * s->agreement_before, s->divergence,
            s->divergence_before);
    if (*s->frozen || s->frozen_parameters)
        fprintf(out, "not trained: %" PRId64 " numbers; operators without a gradient: %s\n", s->frozen_parameters,
                *s->frozen ? s->frozen : "none");
}

static const terse_rounding_report *rounding_of(const terse_report *r)
{
    return r->rounding.lost_nearest > 0 ? &r->rounding : &r->int8.rounding;
}

static void print_rounding(const terse_rounding_report *r, FILE *out)
{
    if (r->lost_nearest > 0)
        fprintf(out,
                "weights rounded to the nearest in %d layers, by GPTQ in %d, by AdaRound in %d: on samples to judge by "
                "their outputs lose %.1f %% of what they lose to the nearest\n\n",
                r->products[TERSE_ROUNDING_NEAREST], r->products[TERSE_ROUNDING_GPTQ],
                r->products[TERSE_ROUNDING_ADAROUND], 100 * r->lost / r->lost_nearest);
}

static void print_mixed(const terse_mixed *m, FILE *out)
{
    if (m->n == 0)
        return;
    fprintf(out, "8 bits are kept by %d of %d products, for %.1f %% more bytes than 4 bits take:", m->n, m->of,
            100 * m->more);
    for (int i = 0; i < m->n; i++)
        fprintf(out, "%s %s", i ? "," : "", m->names[i]);
    if (m->automatic)
        fprintf(out, " (tried alone to the nearest, all products cost %.4g of %s in sum, those left %.4g)", m->lost_all,
                m->classes ? "KL in nats" : "noise over signal", m->lost);
    fprintf(out, "\n\n");
}

static void print_recovered(const terse_recovered *r, FILE *out)
{
    if (r->floats)
        print_training("recovered", &r->of_floats, out);
    if (r->rounded)
        print_training("recovered with rounded weights", &r->of_rounded, out);
    if (r->floats || r->rounded)
        fputc('\n', out);
}

/* The table of --quantize int8: what each layer alone costs, and what stays. */
static void print_int8(const terse_quantize_report *r, FILE *out)
{
    fprintf(out, "%-32s %-8s %-18s %14s %9s %10s %-10s %11s %11s  %s\n", "layer", "op", "weights", "MACs", "SQNR dB",
            "KL", "range by", "from", "to", "decision");
    for (int i = 0; i < r->n; i++) {
        const terse_quantize_layer *l = &r->layers[i];
        char db[32] = "-", kl[32] = "-", low[32] = "-", high[32] = "-";
        if (l->measured) {
            terse_report_decibels(l->sqnr_db, db, sizeof db);
            snprintf(kl, sizeof kl, "%.3g", l->divergence);
            snprintf(low, sizeof low, "%.4g", l->low);
            snprintf(high, sizeof high, "%.4g", l->high);
        }
        fprintf(out, "%-32.32s %-8.8s %-18.18s %14" PRId64 " %9s %10s %-10s %11s %11s  %s%s\n", l->name,
                terse_op_name(l->op), l->shape, l->macs, db, kl, l->measured ? terse_calibration_name(l->method) : "-",
                low, high, l->kept ? "FP32: " : "", l->reason);
    }
    char db[32];
    terse_report_decibels(r->sqnr_db, db, sizeof db);
    fprintf(out,
            "calibrated on %" PRId64 " samples; SQNR and KL: at the network's outputs, one layer in int8; all: %s dB",
            r->samples, db);
    if (r->rows_known)
        fprintf(out, ", KL %.3g", r->divergence);
    fprintf(out, "\nequalization %s\n\n", r->equalization);
}

static void print_clustered(const terse_cluster_report *r, FILE *out)
{
    if (r->n == 0)
        return;
    fprintf(out, "%-32s %-8s %-18s %6s %15s %9s  %s\n", "layer", "op", "weights", "codes", "bits per weight", "SQNR dB",
            "clustered");
    for (int i = 0; i < r->n; i++) {
        const terse_cluster_layer *l = &r->layers[i];
        char db[32];
        terse_report_decibels(l->sqnr_db, db, sizeof db);
        fprintf(out, "%-32.32s %-8.8s %-18.18s %6d %15.2f %9s  %s%s\n", l->name, terse_op_name(l->op), l->shape,
                l->codes, l->entropy, db, l->codes ? "" : "no: ", l->reason);
    }
    if (r->samples > 0)
        fprintf(out, "clustered on %" PRId64 " samples; SQNR: of the layer's outputs there\n\n", r->samples);
    else
        fprintf(out, "SQNR: of the weights\n\n");
}

static void print_drop(const terse_validation *v, FILE *out)
{
    fprintf(out, "compared on %" PRId64 " samples", v->samples);
    if (v->has_top1)
        fprintf(out, ": top-1 drops by %.2f points (95 %%, paired: %.2f to %.2f)", 100 * v->drop, 100 * v->drop_low,
                100 * v->drop_high);
    if (v->joules_after > 0)
        fprintf(out, "; joules of one: %.4g before, %.4g after", v->joules_before, v->joules_after);
    fputc('\n', out);
}

void terse_report_print(const terse_report *report, FILE *out)
{
    terse_figure list[TERSE_REPORT_FIGURES];
    terse_report_figures(report, list);
    if (report->search)
        terse_tell_search_print(report->search, out);
    if (report->texts > 0)
        fprintf(out, "%" PRId64 " texts were written by the network itself, beside the samples\n\n", report->texts);
    if (report->low_rank)
        print_layers(&report->layers, out);
    if (report->pruned.amount > 0)
        print_pruned(&report->pruned, out);
    print_recovered(&report->recovered, out);
    if (report->corrected.asked)
        fprintf(out, "means and deviations of %d layers %s: the outputs lose %.4g, %.4g with it\n\n",
                report->corrected.layers, report->corrected.kept ? "corrected" : "left as they were",
                report->corrected.before, report->corrected.after);
    print_mixed(&report->mixed, out);
    print_rounding(rounding_of(report), out);
    print_clustered(&report->int8.clustered, out);
    print_clustered(&report->clustered, out);
    if (report->quantized)
        print_int8(&report->int8, out);
    if (report->validated)
        print_measured(&report->measured, out);
    fprintf(out, "%s -> %s (model '%s', %d nodes -> %d)\n", report->input, report->output, report->name,
            report->n_nodes_before, report->n_nodes_after);
    fprintf(out, "%-26s %16s %16s\n", "", "before", "after");
    for (int i = 0; i < TERSE_REPORT_FIGURES; i++) {
        if (!list[i].known)
            continue;
        char before[64], after[64];
        terse_report_number(list[i].kind, list[i].before, before, sizeof before);
        terse_report_number(list[i].kind, list[i].after, after, sizeof after);
        fprintf(out, "%-26s %16s %16s\n", list[i].label, before, after);
    }
    if (report->validated)
        print_drop(&report->validation, out);
    if (report->arena_bytes >= 0)
        fprintf(out, "arena of one sample: %" PRId64 " bytes\n", report->arena_bytes);
}

/* --- JSON ------------------------------------------------------------------------------------------------------ */

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

static void json_measured(terse_json *json, const terse_layer *layer)
{
    terse_json_text(json, "op_after", terse_op_name(layer->op_after));
    terse_json_text(json, "compression", layer->compression);
    terse_json_int(json, "bytes_before", layer->bytes_before);
    terse_json_int(json, "bytes_after", layer->bytes_after);
    terse_json_double(json, "sqnr_db", layer->sqnr_db);
    terse_json_double(json, "us_before", layer->us_before);
    terse_json_double(json, "us_after", layer->us_after);
}

/* A layer of a network that came quantized: nothing was decided about it. */
static void json_measured_layer(terse_json *json, const terse_layer *layer)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", layer->name);
    terse_json_text(json, "op", terse_op_name(layer->op_before));
    terse_json_text(json, "shape", layer->shape);
    terse_json_int(json, "macs_before", layer->macs_before);
    terse_json_int(json, "macs_after", layer->macs_after);
    json_measured(json, layer);
    terse_json_end(json);
}

static bool has_layer(const terse_low_rank_report *layers, const char *name)
{
    for (int i = 0; i < layers->n; i++)
        if (strcmp(layers->layers[i].name, name) == 0)
            return true;
    return false;
}

static const terse_quantize_layer *find_int8(const terse_quantize_report *r, const char *name)
{
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->layers[i].name, name) == 0)
            return &r->layers[i];
    return NULL;
}

/* What was decided about a layer that could be bytes. sqnr: dB, null when the outputs are equal or it was not taken. */
static void json_int8(terse_json *json, const terse_quantize_layer *layer)
{
    terse_json_bool(json, "kept", layer->kept);
    if (!layer->measured)
        return;
    terse_json_double(json, "sqnr", layer->sqnr_db);
    terse_json_double(json, "kl", layer->divergence);
    terse_json_text(json, "calibration", terse_calibration_name(layer->method));
    terse_json_double(json, "low", layer->low);
    terse_json_double(json, "high", layer->high);
}

/* A layer that low rank does not know: one of two factors. */
static void json_int8_layer(terse_json *json, const terse_quantize_layer *layer)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", layer->name);
    terse_json_text(json, "op", terse_op_name(layer->op));
    terse_json_text(json, "shape", layer->shape);
    terse_json_text(json, "reason", layer->reason);
    json_int8(json, layer);
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

static void json_pruned(terse_json *json, const terse_prune_report *r)
{
    terse_json_object(json, "prune");
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

static void json_layer(terse_json *json, const terse_low_rank_layer *layer, const terse_layer *measured,
                       const terse_quantize_layer *int8)
{
    terse_json_object(json, NULL);
    terse_json_text(json, "name", layer->name);
    terse_json_text(json, "op", terse_op_name(layer->op));
    terse_json_text(json, "shape", layer->shape);
    if (layer->rank > 0)
        terse_json_int(json, "rank", layer->rank);
    else
        terse_json_null(json, "rank");
    if (layer->rank > 0)
        terse_json_text(json, "form", terse_low_rank_form_name(layer->form));
    if (layer->rank_in > 0)
        terse_json_int(json, "rank_in", layer->rank_in);
    terse_json_int(json, "full_rank", layer->full);
    terse_json_double(json, "energy", layer->energy);
    terse_json_int(json, "macs_before", layer->macs_before);
    terse_json_int(json, "macs_after", layer->macs_after);
    terse_json_text(json, "reason", int8 ? int8->reason : layer->reason);
    if (int8)
        json_int8(json, int8);
    if (measured)
        json_measured(json, measured);
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
    if (report->pruned.amount > 0)
        json_pruned(&json, &report->pruned);
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
    if (rounding_of(report)->lost_nearest > 0)
        json_rounding(&json, rounding_of(report));
    if (report->quantized)
        json_quantized(&json, &report->int8);
    if (report->search)
        terse_tell_search_json(report->search, &json);
    terse_json_array(&json, "layers");
    for (int i = 0; i < report->layers.n; i++)
        json_layer(&json, &report->layers.layers[i],
                   terse_layers_find(&report->measured, report->layers.layers[i].name),
                   find_int8(&report->int8, report->layers.layers[i].name));
    for (int i = 0; i < report->int8.n; i++)
        if (!has_layer(&report->layers, report->int8.layers[i].name))
            json_int8_layer(&json, &report->int8.layers[i]);
    for (int i = 0; i < report->measured.n; i++)
        if (!has_layer(&report->layers, report->measured.layers[i].name) &&
            !find_int8(&report->int8, report->measured.layers[i].name))
            json_measured_layer(&json, &report->measured.layers[i]);
    terse_json_end(&json);
    if (report->arena_bytes >= 0)
        terse_json_int(&json, "arena_bytes", report->arena_bytes);
    else
        terse_json_null(&json, "arena_bytes");
    terse_json_end(&json);
    fputc('\n', out);
}
