/* SPDX-License-Identifier: Apache-2.0 */
/* How much of one layer may go, as the options ask. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/steps.h"

/* The chosen candidate becomes this one, whatever else is on the list. */
static void choose_only(terse_low_rank_choice *choice, terse_low_rank_form form, int64_t rank, int64_t rank_in,
                        double lost)
{
    choice->list[1] = (terse_low_rank_candidate){.form = form, .rank = rank, .rank_in = rank_in, .lost = lost};
    choice->n = 2;
    choice->chosen = 1;
}

static terse_low_rank_form usual_form(const terse_low_rank_product *product, terse_low_rank_form asked)
{
    if (product->taps == 1)
        return TERSE_FORM_SVD;
    return asked != TERSE_FORM_BEST && terse_select_allows(product, asked) ? asked : TERSE_FORM_CHANNEL;
}

/* What is a rounding error of the weights (single precision) is no value. */
static double noise_of(const terse_metric *metric)
{
    const double side = (double)(metric->k > metric->o ? metric->k : metric->o) * 1.1920929e-7;
    return side * side * metric->values[0];
}

/* The least work that keeps the energy. */
static int choose_by_energy(const terse_low_rank_options *options, const terse_low_rank_product *product,
                            const terse_metric *metric, terse_low_rank_choice *choice, terse_low_rank_layer *report,
                            terse_error *error)
{
    const terse_low_rank_form form = usual_form(product, options->form);
    if (form == TERSE_FORM_SVD || form == TERSE_FORM_CHANNEL) {
        double kept;
        const int64_t rank = terse_select_rank(metric->values, metric->n, noise_of(metric), options->amount, &kept);
        const int64_t limit = (product->k * product->o - 1) / (product->k + product->o);
        choice->n = 1;
        choice->chosen = 0;
        if (rank > limit)
            snprintf(report->reason, sizeof report->reason, "rank %" PRId64 " saves nothing, up to %" PRId64 " would",
                     rank, limit);
        else if (terse_select_macs(product, form, rank, 0, true) >= terse_select_macs(product, form, 0, 0, true))
            snprintf(report->reason, sizeof report->reason, "rank %" PRId64 " saves nothing in panels of 16 columns",
                     rank);
        else
            choose_only(choice, form, rank, 0, 1 - kept);
        return TERSE_OK;
    }
    const int status = terse_ranks_list(product, metric, form, choice, error);
    for (int i = 1; i < choice->n && status == TERSE_OK; i++)
        if (choice->list[i].lost <= 1 - options->amount && choice->list[i].macs < choice->list[choice->chosen].macs)
            choice->chosen = i;
    if (status == TERSE_OK && choice->chosen == 0)
        snprintf(report->reason, sizeof report->reason, "no ranks keep that much and save work");
    return status;
}

/* Without samples. Of a convolution's unfoldings the one by output channels, and by input channels for Tucker. */
static int choose_by_evbmf(const terse_low_rank_options *options, const terse_low_rank_product *product,
                           const terse_metric *metric, terse_low_rank_choice *choice, terse_low_rank_layer *report,
                           terse_error *error)
{
    const terse_low_rank_form form = usual_form(product, options->form);
    const int64_t larger = metric->k > metric->o ? metric->k : metric->o;
    double *s = malloc((size_t)metric->n * sizeof *s);
    if (!s)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for singular values");
    for (int64_t i = 0; i < metric->n; i++)
        s[i] = sqrt(metric->values[i]);
    const int64_t rank = terse_ranks_evbmf(s, metric->n, larger);
    free(s);
    const int64_t rank_in =
        form == TERSE_FORM_TUCKER ? (int64_t)fmax(1, round((double)rank * (double)product->c / (double)metric->n)) : 0;
    choice->n = 1;
    choice->chosen = 0;
    if (terse_select_macs(product, form, rank, rank_in, true) >= terse_select_macs(product, form, 0, 0, true))
        snprintf(report->reason, sizeof report->reason,
                 "EVBMF finds rank %" PRId64 " of %" PRId64 ", which saves nothing", rank, metric->n);
    else
        choose_only(choice, form, rank < metric->n ? rank : metric->n, rank_in < product->c ? rank_in : product->c, 0);
    return TERSE_OK;
}

/* Those of a plan. */
static terse_low_rank_form planned_ranks(const terse_choices *choices, const char *name, int64_t *ret_rank,
                                         int64_t *ret_in)
{
    const terse_choice *c = terse_choices_find(choices, name);
    *ret_rank = c ? c->rank : 0;
    *ret_in = c ? c->rank_in : 0;
    for (terse_low_rank_form form = TERSE_FORM_SVD; c && form <= TERSE_FORM_SPATIAL; form++)
        if (strcmp(c->form, terse_low_rank_form_name(form)) == 0)
            return form;
    return TERSE_FORM_BEST;
}

/* The ranks that the options name for a layer; 0: none. */
static void named_ranks(const terse_low_rank_options *options, const char *name, int64_t *ret_rank, int64_t *ret_in)
{
    *ret_rank = (int64_t)options->amount;
    *ret_in = 0;
    const size_t length = strlen(name);
    for (const char *at = options->amount > 0 ? NULL : options->ranks; at;
         at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, name, length) != 0 || at[length] != '=')
            continue;
        char *end;
        *ret_rank = strtol(at + length + 1, &end, 10);
        if (*end == 'x') {
            *ret_in = *ret_rank;
            *ret_rank = strtol(end + 1, NULL, 10);
        }
    }
}

void terse_choose_named(const terse_low_rank_options *options, const terse_low_rank_product *product,
                        terse_low_rank_choice *choice, terse_low_rank_layer *report)
{
    int64_t rank, rank_in;
    terse_low_rank_form asked = options->form;
    if (options->choices)
        asked = planned_ranks(options->choices, report->name, &rank, &rank_in);
    else
        named_ranks(options, report->name, &rank, &rank_in);
    terse_low_rank_form form = usual_form(product, asked);
    if (rank_in > 0 && product->taps > 1)
        form = TERSE_FORM_TUCKER;
    else if (form == TERSE_FORM_TUCKER)
        rank_in = (int64_t)fmax(1, round((double)rank * (double)product->c / (double)product->o));
    else
        rank_in = 0;
    choice->n = 1;
    choice->chosen = 0;
    const int64_t full = form == TERSE_FORM_SPATIAL  ? (int64_t)fmin((double)(product->c * product->kernel[0]),
                                                                     (double)(product->o * product->kernel[1]))
                         : form == TERSE_FORM_TUCKER ? product->o
                                                     : report->full;
    if (rank == 0)
        snprintf(report->reason, sizeof report->reason, "not asked for");
    else if (rank > full || rank_in > product->c ||
             terse_select_macs(product, form, rank, rank_in, false) >= report->macs_before)
        snprintf(report->reason, sizeof report->reason, "rank %" PRId64 " saves nothing", rank);
    else
        choose_only(choice, form, rank, rank_in, 0);
}

int terse_choose_look(const terse_low_rank_options *options, const terse_low_rank_product *product,
                      const terse_metric *metric, terse_low_rank_choice *choice, terse_low_rank_layer *report,
                      terse_error *error)
{
    switch (options->target) {
    case TERSE_LOW_RANK_ENERGY:
        return choose_by_energy(options, product, metric, choice, report, error);
    case TERSE_LOW_RANK_AUTO:
        return options->data ? terse_ranks_list(product, metric, options->form, choice, error)
                             : choose_by_evbmf(options, product, metric, choice, report, error);
    default:
        return terse_ranks_list(product, metric, options->form, choice, error);
    }
}
