/* SPDX-License-Identifier: Apache-2.0 */
/* What every form of the report shows. */
#include <math.h>
#include <stdio.h>

#include "compress/report/report.h"

void terse_report_done(terse_report *report)
{
    terse_low_rank_report_done(&report->layers);
    terse_prune_report_done(&report->channels);
    terse_prune_report_done(&report->pruned);
    terse_cluster_report_done(&report->clustered);
    terse_quantize_report_done(&report->int8);
    terse_layers_done(&report->measured);
}

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

const terse_rounding_report *terse_report_rounding(const terse_report *r)
{
    return r->rounding.lost_nearest > 0 ? &r->rounding : &r->int8.rounding;
}

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

void terse_report_decibels(double db, char *text, size_t size)
{
    if (isnan(db))
        snprintf(text, size, "-");
    else if (isinf(db))
        snprintf(text, size, "equal");
    else
        snprintf(text, size, "%.1f", db);
}
