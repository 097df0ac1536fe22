/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/bench/latencies.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool grow(terse_latencies *to, size_t n)
{
    size_t capacity = to->capacity ? to->capacity : 1 << 12;
    while (capacity < n)
        capacity *= 2;
    if (capacity == to->capacity)
        return true;
    uint64_t *more = realloc(to->ns, capacity * sizeof *more);
    if (!more)
        return false;
    to->ns = more;
    to->capacity = capacity;
    return true;
}

bool terse_latencies_add(terse_latencies *to, uint64_t ns)
{
    if (to->n == to->capacity && !grow(to, to->n + 1))
        return false;
    to->ns[to->n++] = ns;
    return true;
}

bool terse_latencies_join(terse_latencies *to, const terse_latencies *from)
{
    if (from->n == 0)
        return true;
    if (!grow(to, to->n + from->n))
        return false;
    memcpy(to->ns + to->n, from->ns, from->n * sizeof *from->ns);
    to->n += from->n;
    return true;
}

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void terse_latencies_sort(terse_latencies *of)
{
    if (of->n)
        qsort(of->ns, of->n, sizeof *of->ns, compare_u64);
}

void terse_latencies_done(terse_latencies *of)
{
    free(of->ns);
    *of = (terse_latencies){0};
}

double terse_latencies_us(const terse_latencies *sorted, double q)
{
    if (sorted->n == 0)
        return NAN;
    size_t rank = (size_t)ceil(q * (double)sorted->n);
    rank = rank < 1 ? 1 : rank;
    return (double)sorted->ns[rank - 1] / 1e3;
}

/* Student's t for 95 %, both sides, by degrees of freedom. */
static double t_of(size_t freedom)
{
    static const double table[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                   2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                                   2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    const size_t n = sizeof table / sizeof table[0];
    return freedom == 0 ? NAN : freedom <= n ? table[freedom - 1] : 1.96 + 2.46 / (double)freedom;
}

terse_mean terse_mean_of(const double *values, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    const double mean = n ? sum / (double)n : NAN;
    for (size_t i = 0; i < n; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    const double half = n > 1 ? t_of(n - 1) * sqrt(squares / (double)(n - 1) / (double)n) : NAN;
    return (terse_mean){mean, mean - half, mean + half};
}

terse_mean terse_mean_of_ratios(const double *ratios, size_t n)
{
    double *logs = calloc(n ? n : 1, sizeof *logs);
    if (!logs)
        return (terse_mean){NAN, NAN, NAN};
    for (size_t i = 0; i < n; i++)
        logs[i] = log(ratios[i]);
    const terse_mean m = terse_mean_of(logs, n);
    free(logs);
    return (terse_mean){exp(m.mean), exp(m.low), exp(m.high)};
}

double terse_mean_spread(const terse_mean *mean)
{
    const double spread = (mean->high - mean->low) / 2 / mean->mean;
    return isfinite(spread) ? spread : INFINITY;
}

static int compare_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double terse_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare_double);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
