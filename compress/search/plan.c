/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/passes/edit.h"

/* A search should stay below 2 GB. */
#define RECOVER_BYTES ((size_t)640 << 20)

void terse_search_plan_done(terse_search_plan *plan)
{
    terse_choices_done(&plan->layers);
    free(plan->tuned);
    free(plan->measured);
    free(plan->keep_text);
    *plan = (terse_search_plan){0};
}

static void *copied(const void *from, size_t bytes)
{
    void *to = malloc(bytes + 1);
    if (to && bytes)
        memcpy(to, from, bytes);
    return to;
}

int terse_search_plan_copy(const terse_search_plan *from, terse_search_plan *ret_plan, terse_error *error)
{
    terse_search_plan p = *from;
    p.keep_text = NULL;
    p.layers.list = copied(from->layers.list, (size_t)from->layers.n * sizeof *p.layers.list);
    p.tuned = copied(from->tuned, (size_t)from->n_tuned * sizeof *p.tuned);
    p.measured = copied(from->measured, (size_t)from->n_measured * sizeof *p.measured);
    if (!p.layers.list || !p.tuned || !p.measured) {
        terse_search_plan_done(&p);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
    }
    *ret_plan = p;
    return TERSE_OK;
}

terse_measured *terse_search_plan_add_measured(terse_search_plan *plan)
{
    terse_measured *list = realloc(plan->measured, ((size_t)plan->n_measured + 1) * sizeof *list);
    if (!list)
        return NULL;
    plan->measured = list;
    list[plan->n_measured] = (terse_measured){0};
    return &list[plan->n_measured++];
}

/* FNV-1a, twice with different seeds. */
static uint64_t digest(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash;
}

void terse_search_plan_key(const terse_search_plan *plan, char *text)
{
    uint64_t a = 14695981039346656037u, b = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < plan->layers.n; i++) {
        const terse_choice *c = &plan->layers.list[i];
        const terse_choice plain = {0};
        if (terse_choice_same(c, &plain))
            continue;
        char what[2 * TERSE_CHOICE_WHY], choice[TERSE_CHOICE_WHY];
        snprintf(what, sizeof what, "%s=%s/%.17g;", c->name, terse_choice_text(c, choice, sizeof choice), c->prune);
        a = digest(a, what);
        b = digest(b, what);
    }
    char channels[32] = "";
    if (plan->channels > 0)
        snprintf(channels, sizeof channels, "c%.17g", plan->channels);
    snprintf(text, TERSE_PLAN_TEXT, "%d%s%s%s%s-%016llx%016llx", (int)plan->quantize, plan->bf16 ? "b" : "",
             plan->pack ? "p" : "", plan->recover_epochs ? "r" : "", channels, (unsigned long long)a,
             (unsigned long long)b);
}

/* --- a plan as options ----------------------------------------------------------------------------------------------
 */

/* The names of what stays FP32, as --keep-float takes them; a name with a comma cannot be told and is left out. */
static char *keep_text(const terse_choices *layers)
{
    size_t size = sizeof "none";
    for (int i = 0; i < layers->n; i++)
        size += layers->list[i].keep_float ? strlen(layers->list[i].name) + 1 : 0;
    char *text = malloc(size);
    if (!text)
        return NULL;
    size_t at = 0;
    for (int i = 0; i < layers->n; i++)
        if (layers->list[i].keep_float && !strchr(layers->list[i].name, ','))
            at += (size_t)snprintf(text + at, size - at, "%s%s", at ? "," : "", layers->list[i].name);
    if (at == 0)
        snprintf(text, size, "none");
    return text;
}

int terse_search_plan_apply(terse_search_plan *plan, terse_options *options, terse_error *error)
{
    terse_options o = *options;
    bool ranks = false;
    double prune = 0;
    int bits = 0;
    for (int i = 0; i < plan->layers.n; i++) {
        const terse_choice *c = &plan->layers.list[i];
        ranks = ranks || c->rank > 0;
        prune = fmax(prune, c->prune);
        bits = c->cluster > bits ? c->cluster : bits;
    }
    free(plan->keep_text);
    if (!(plan->keep_text = keep_text(&plan->layers)))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
    o.choices = &plan->layers;
    o.low_rank =
        (terse_low_rank_options){.target = ranks ? TERSE_LOW_RANK_RANKS : TERSE_LOW_RANK_NONE, .ranks = "as planned"};
    o.channels = plan->channels;
    o.prune = prune;
    o.prune_kind = TERSE_PRUNE_4X1;
    o.cluster = bits;
    o.quantize = plan->quantize;
    if (o.quantize == TERSE_QUANTIZE_INT4_WEIGHTS && o.quantize_group == 0)
        o.quantize_group = TERSE_QUANTIZE_GROUP;
    o.keep_float = plan->quantize == TERSE_QUANTIZE_INT8 ? plan->keep_text : NULL;
    o.equalization = plan->equalization;
    o.bf16 = plan->bf16;
    o.pack = plan->pack;
    if (plan->recover_epochs > 0 && !o.recover.off && !o.recover.text) {
        snprintf(plan->recover_text, sizeof plan->recover_text, "%lld", (long long)plan->recover_epochs);
        o.recover = (terse_recover_options){
            .text = plan->recover_text, .epochs = plan->recover_epochs, .seed = plan->seed, .max_bytes = RECOVER_BYTES};
    }
    *options = o;
    return TERSE_OK;
}

int terse_search_plan_tell_channels(terse_search_plan *plan, const terse_prune_report *channels, terse_error *error)
{
    for (int i = 0; i < plan->layers.n; i++) {
        plan->layers.list[i].kept = 0;
        plan->layers.list[i].left[0] = 0;
    }
    if (!(channels->amount > 0))
        return TERSE_OK;
    for (int i = 0; i < channels->n; i++) {
        const terse_prune_layer *line = &channels->layers[i];
        terse_choice *c = NULL;
        for (int l = 0; l < plan->layers.n && !c; l++)
            c = strcmp(plan->layers.list[l].name, line->name) == 0 ? &plan->layers.list[l] : NULL;
        if (!c && !(c = terse_choices_add(&plan->layers, line->name)))
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a plan");
        c->kept = terse_search_plan_number(line->pruned ? line->kept : 1);
        snprintf(c->left, sizeof c->left, "%s", line->reason);
    }
    const double before = channels->macs_before, gone = before > 0 ? 1 - channels->macs_after / before : 0;
    snprintf(plan->channels_why, sizeof plan->channels_why,
             "%.1f %% of the layers' multiply-accumulates go, %.1f %% were asked for%s", 100.0 * gone,
             100.0 * channels->amount, gone < 0.99 * channels->amount ? ": no more channels can go" : "");
    return TERSE_OK;
}

int terse_search_plan_check(const terse_search_plan *plan, const terse_graph *graph, terse_error *error)
{
    const terse_edit edit = {.graph = (terse_graph *)(uintptr_t)graph};
    for (int i = 0; i < plan->layers.n; i++) {
        bool found = false;
        const char *example = "";
        const terse_choices one = {.list = &plan->layers.list[i], .n = 1};
        for (int n = 0; n < graph->n_nodes && !found; n++) {
            const bool weighted = terse_edit_is_weighted(&edit, n);
            found = weighted && terse_choices_find(&one, graph->nodes[n].name) != NULL;
            example = weighted && !*example ? graph->nodes[n].name : example;
        }
        if (!found)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "the plan has a layer '%s', which the network does not have; allowed is for example '%s'",
                              plan->layers.list[i].name, example);
    }
    return TERSE_OK;
}
