/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/knapsack.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/bytes.h"

enum { MAX_OPTIONS = 255 };

static int lightest(const terse_knapsack_layer *layer)
{
    int best = 0;
    for (int i = 1; i < layer->n; i++)
        if (layer->weight[i] < layer->weight[best] ||
            (layer->weight[i] == layer->weight[best] && layer->cost[i] < layer->cost[best]))
            best = i;
    return best;
}

/* Weight beyond the layer's lightest option, in buckets, rounded up; what is a rounding error above a bucket is it. */
static int buckets_of(double weight, double bucket)
{
    const double exact = bucket > 0 ? weight / bucket : weight > 0 ? 2.0 * TERSE_KNAPSACK_BUCKETS : 0;
    return exact > TERSE_KNAPSACK_BUCKETS + 1 ? TERSE_KNAPSACK_BUCKETS + 1 : (int)ceil(exact - 1e-9);
}

/* least[b]: the least cost of the layers so far with at most b buckets; choice[b]: this layer's option there. */
static void add_layer(const terse_knapsack_layer *layer, double light, double bucket, const double *before,
                      double *least, uint8_t *choice)
{
    for (int b = 0; b <= TERSE_KNAPSACK_BUCKETS; b++)
        least[b] = INFINITY;
    for (int i = 0; i < layer->n && i < MAX_OPTIONS; i++) {
        const int more = buckets_of(layer->weight[i] - light, bucket);
        for (int b = more; b <= TERSE_KNAPSACK_BUCKETS; b++)
            if (before[b - more] + layer->cost[i] < least[b]) {
                least[b] = before[b - more] + layer->cost[i];
                choice[b] = (uint8_t)i;
            }
    }
}

terse_knapsack_outcome terse_knapsack_solve(const terse_knapsack_layer *layers, int n, double budget, int *chosen)
{
    const size_t width = TERSE_KNAPSACK_BUCKETS + 1;
    double sum = 0;
    for (int l = 0; l < n; l++) {
        chosen[l] = lightest(&layers[l]);
        sum += layers[l].weight[chosen[l]];
    }
    if (sum > budget * (1 + 1e-12))
        return TERSE_KNAPSACK_TOO_LITTLE;
    const double bucket = fmax(0, budget - sum) / TERSE_KNAPSACK_BUCKETS;
    TERSE_AUTO(terse_freep) double *least = calloc(2 * width, sizeof *least);
    TERSE_AUTO(terse_freep) uint8_t *choices = calloc(width * (size_t)n + 1, 1);
    if (!least || !choices)
        return TERSE_KNAPSACK_NO_MEMORY;
    for (int l = 0; l < n; l++)
        add_layer(&layers[l], layers[l].weight[chosen[l]], bucket, least + (l % 2 ? width : 0),
                  least + (l % 2 ? 0 : width), choices + (size_t)l * width);
    int left = TERSE_KNAPSACK_BUCKETS;
    for (int l = n - 1; l >= 0; l--) {
        const double light = layers[l].weight[chosen[l]];
        chosen[l] = choices[(size_t)l * width + (size_t)left];
        left -= buckets_of(layers[l].weight[chosen[l]] - light, bucket);
    }
    return TERSE_KNAPSACK_FOUND;
}
