/* SPDX-License-Identifier: Apache-2.0 */
/* The report as tables for people. */
#include <inttypes.h>

#include "compress/report/report.h"
#include "compress/search/tell.h"

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
    fprintf(out, "%-32s %-8s %-18s %14s %9s %10s %-10s %11s %11s %8s  %s\n", "layer", "op", "weights", "MACs",
            "SQNR dB", "KL", "range by", "from", "to", "clipped", "decision");
    for (int i = 0; i < r->n; i++) {
        const terse_quantize_layer *l = &r->layers[i];
        char db[32] = "-", kl[32] = "-", low[32] = "-", high[32] = "-", clipped[32] = "-";
        if (l->alone) {
            terse_report_decibels(l->sqnr_db, db, sizeof db);
            snprintf(kl, sizeof kl, "%.3g", l->divergence);
        }
        if (l->measured) {
            snprintf(low, sizeof low, "%.4g", l->low);
            snprintf(high, sizeof high, "%.4g", l->high);
            snprintf(clipped, sizeof clipped, "%.3f%%", 100 * l->clipped);
        }
        fprintf(out, "%-32.32s %-8.8s %-18.18s %14" PRId64 " %9s %10s %-10s %11s %11s %8s  %s%s\n", l->name,
                terse_op_name(l->op), l->shape, l->macs, db, kl, l->measured ? terse_calibration_name(l->method) : "-",
                low, high, clipped, l->kept ? "FP32: " : "", l->reason);
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
    if (report->channels.amount > 0)
        print_pruned(&report->channels, out);
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
    print_rounding(terse_report_rounding(report), out);
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
