/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Noise of layers adds up at the outputs, nearly (each is small, none knows of the others). Of a network
 * that loses less than `enough` no layer is kept: bytes are faster everywhere. Otherwise those layers are kept one by
 * one that take most noise away for the work that they cost, until the rest is within `enough`, as long as
 *   - what is kept is at most a tenth of all work, and
 *   - the layer makes at least `worth` of all noise, or is the first or the last one and makes half of that: these are
 *     known to hurt most (Krishnamoorthi 2018) and to be small. */
#include "compress/quantize/keep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/quantize/scheme.h"

static const double enough = 0.01; /* 20 dB */
static const double most_work = 0.1;
static const double worth = 0.08;

enum { NEAR_NAMES = 3 };

/* --- by name ----------------------------------------------------------------------------------------------------- */

static bool is_layer(const terse_graph *graph, int node)
{
    char reason[96];
    return terse_scheme_can_quantize(graph, node, reason, sizeof reason) || reason[0];
}

static int smallest(int a, int b, int c)
{
    const int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* How many letters must be changed, added or left out (Levenshtein), of the first 127. */
static int distance(const char *a, const char *b)
{
    enum { MOST = 128 };
    int row[MOST];
    const int n = (int)strnlen(a, MOST - 1), m = (int)strnlen(b, MOST - 1);
    for (int j = 0; j <= m; j++)
        row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            const int above = row[j];
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[m];
}

static int fail_name(const terse_graph *graph, const char *option, const char *name, terse_error *error)
{
    int best[NEAR_NAMES], score[NEAR_NAMES], n_best = 0, n_layers = 0;
    for (int n = 0; n < graph->n_nodes; n++) {
        if (!is_layer(graph, n))
            continue;
        n_layers++;
        const int found = distance(name, graph->nodes[n].name);
        int at = n_best < NEAR_NAMES ? n_best++ : NEAR_NAMES;
        for (; at > 0 && score[at - 1] > found; at--)
            if (at < NEAR_NAMES) {
                score[at] = score[at - 1];
                best[at] = best[at - 1];
            }
        if (at < NEAR_NAMES) {
            score[at] = found;
            best[at] = n;
        }
    }
    char near[3 * 110] = "";
    for (int i = 0; i < n_best; i++)
        snprintf(near + strlen(near), sizeof near - strlen(near), "%s'%.90s'", i ? ", " : "",
                 graph->nodes[best[i]].name);
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s names '%.100s', which none of the %d layers has; near are %s",
                      option, name, n_layers, n_best ? near : "none");
}

static bool keep_name(const terse_graph *graph, const char *name, bool *kept)
{
    const size_t length = strlen(name);
    bool found = false;
    for (int n = 0; n < graph->n_nodes; n++) {
        const char *node = graph->nodes[n].name;
        if (!is_layer(graph, n) || strncmp(node, name, length) != 0 || (node[length] != 0 && node[length] != '/'))
            continue;
        kept[n] = found = true;
    }
    return found;
}

int terse_keep_named(const terse_graph *graph, const char *option, const char *text, bool *kept, bool *ret_auto,
                     terse_error *error)
{
    *ret_auto = !text || strcmp(text, "auto") == 0;
    if (*ret_auto || strcmp(text, "none") == 0 || keep_name(graph, text, kept))
        return TERSE_OK;
    TERSE_AUTO(terse_freep) char *names = strdup(text);
    if (!names)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for names");
    char *rest = names;
    for (char *name = strsep(&rest, ","); name; name = strsep(&rest, ",")) {
        if (strcmp(name, "auto") == 0)
            *ret_auto = true;
        else if (!keep_name(graph, name, kept))
            return fail_name(graph, option, name, error);
    }
    return TERSE_OK;
}

/* --- by measure -------------------------------------------------------------------------------------------------- */

void terse_keep_choose(terse_keep_candidate *candidates, int n, double total)
{
    double sum = 0, work = 0;
    for (int i = 0; i < n; i++)
        sum += candidates[i].kept ? 0 : candidates[i].noise;
    double left = total;
    while (left > enough && sum > 0) {
        terse_keep_candidate *best = NULL;
        for (int i = 0; i < n; i++) {
            terse_keep_candidate *c = &candidates[i];
            const double share = c->noise / sum, least = c->first || c->last ? worth / 2 : worth;
            if (c->kept || share < least || work + c->work > most_work)
                continue;
            if (!best || c->noise * (best->work + 1e-3) > best->noise * (c->work + 1e-3))
                best = c;
        }
        if (!best)
            return;
        best->kept = true;
        best->reason = best->first ? "first layer, sensitive" : best->last ? "last layer, sensitive" : "sensitive";
        work += best->work;
        left -= total * best->noise / sum;
    }
}
