/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/cluster/book.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

enum { MOST_NUMBERS = 1 << 17, ROUNDS = 40, ENTROPY_ROUNDS = 20 };

/* With an entropy coder a bit is worth this many times the mean error of Lloyd's book: at 2 ln 2 = 1.4 (high
 * resolution) the even spacing of the same error would be found; a little more gives up codes that hardly pay. */
static const double bit_worth = 2.5;

typedef struct sample {
    double number, weight;
} sample;

static int compare_samples(const void *a, const void *b)
{
    const sample *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return (x->weight > y->weight) - (x->weight < y->weight);
}

/* The entry that is nearest. */
static int nearest(const terse_book *book, double number)
{
    int low = 0, high = book->n - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (number > (book->entries[middle] + book->entries[middle + 1]) / 2)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int terse_book_code(const terse_book *book, double number, double weight)
{
    const int from = nearest(book, number);
    int best = from;
    const double distance = number - book->entries[best];
    double least = weight * distance * distance + book->costs[best];
    for (int step = -1; step <= 1; step += 2)
        for (int i = from + step; i >= 0 && i < book->n; i += step) {
            const double error = weight * (number - book->entries[i]) * (number - book->entries[i]);
            if (error >= least)
                break;
            if (error + book->costs[i] < least) {
                least = error + book->costs[i];
                best = i;
            }
        }
    return best;
}

/* `n` entries evenly from the least to the largest number, and zero. */
static void spread(terse_book *book, int n, double low, double high)
{
    *book = (terse_book){0};
    bool zero = false;
    for (int i = 0; i < n; i++) {
        const double entry = n == 1 ? (low + high) / 2 : low + (high - low) * i / (n - 1);
        if (!zero && entry >= 0) {
            book->entries[book->n++] = 0;
            zero = true;
        }
        if (entry != 0)
            book->entries[book->n++] = entry;
    }
    if (!zero)
        book->entries[book->n++] = 0;
}

/* Weights of their own may let entries pass each other. */
static void sort(terse_book *book)
{
    for (int i = 1; i < book->n; i++) {
        const double entry = book->entries[i], cost = book->costs[i];
        int at = i;
        for (; at > 0 && book->entries[at - 1] > entry; at--) {
            book->entries[at] = book->entries[at - 1];
            book->costs[at] = book->costs[at - 1];
        }
        book->entries[at] = entry;
        book->costs[at] = cost;
    }
}

/* One round: codes, then entries in the middle of their numbers. Returns what it costs. */
static double improve(terse_book *book, const sample *samples, int64_t n, double worth, double *ret_error)
{
    double sums[TERSE_BOOK_MAX] = {0}, weights[TERSE_BOOK_MAX] = {0}, counts[TERSE_BOOK_MAX] = {0};
    double error = 0, cost = 0;
    for (int64_t i = 0; i < n; i++) {
        const int c = terse_book_code(book, samples[i].number, samples[i].weight);
        const double distance = samples[i].number - book->entries[c];
        error += samples[i].weight * distance * distance;
        cost += book->costs[c];
        sums[c] += samples[i].weight * samples[i].number;
        weights[c] += samples[i].weight;
        counts[c] += 1;
    }
    int kept = 0;
    for (int c = 0; c < book->n; c++) {
        const bool zero = book->entries[c] == 0;
        if (!zero && counts[c] == 0 && worth > 0)
            continue; /* nobody pays for it */
        book->entries[kept] = zero || counts[c] == 0 ? book->entries[c] : sums[c] / weights[c];
        book->costs[kept++] = worth > 0 ? fmax(-worth * log2((counts[c] + 0.5) / (double)n), 0) : 0;
    }
    book->n = kept;
    sort(book);
    *ret_error = error;
    return error + cost;
}

/* From `entries` of even spacing on; returns what the book costs. */
static double settle(terse_book *book, int entries, const sample *samples, int64_t n, double worth, double *ret_error)
{
    spread(book, entries, samples[0].number, samples[n - 1].number);
    double cost = INFINITY;
    for (int round = 0; round < (worth > 0 ? ENTROPY_ROUNDS : ROUNDS); round++) {
        const double now = improve(book, samples, n, worth, ret_error);
        if (round > 2 && now > cost * (1 - 1e-4))
            break;
        cost = now;
    }
    return improve(book, samples, n, worth, ret_error);
}

/* Entries that are the same integer are one. */
static void round_entries(terse_book *book)
{
    int kept = 0;
    for (int i = 0; i < book->n; i++) {
        const double entry = fmin(fmax(nearbyint(book->entries[i]), -127), 127);
        if (kept > 0 && book->entries[kept - 1] == entry) {
            book->costs[kept - 1] = fmin(book->costs[kept - 1], book->costs[i]);
            continue;
        }
        book->entries[kept] = entry;
        book->costs[kept++] = book->costs[i];
    }
    book->n = kept;
}

bool terse_book_make(const double *numbers, const double *weights, int64_t n, int bits, bool entropy, bool integers,
                     terse_book *ret_book)
{
    const int64_t stride = n / MOST_NUMBERS + 1;
    TERSE_AUTO(terse_freep) sample *samples = malloc((size_t)(n / stride + 1) * sizeof *samples);
    int64_t taken = 0;
    if (!samples)
        return false;
    for (int64_t i = 0; i < n; i += stride)
        if (numbers[i] != 0)
            samples[taken++] = (sample){numbers[i], weights[i]};
    *ret_book = (terse_book){.n = 1};
    if (taken == 0)
        return true;
    qsort(samples, (size_t)taken, sizeof *samples, compare_samples);
    const int most = bits == 1 ? 2 : (1 << bits) - 1; /* and zero */
    double error;
    terse_book best;
    settle(&best, most, samples, taken, 0, &error);
    if (entropy && error > 0) {
        const double worth = bit_worth * error / (double)taken;
        double least = INFINITY;
        for (int eighths = 8; eighths >= 4; eighths--) {
            terse_book book;
            if (most * eighths / 8 < 1)
                continue;
            const double cost = settle(&book, most * eighths / 8, samples, taken, worth, &error);
            if (cost < least) {
                least = cost;
                best = book;
            }
        }
    }
    if (integers)
        round_entries(&best);
    *ret_book = best;
    return true;
}
