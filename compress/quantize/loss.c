/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "compress/quantize/replay.h"

enum { MAX_OUTPUTS = 64 };

/* sum p log(p / q) of two rows: probabilities as they are, anything else through a softmax. */
static double row_divergence(const float *exact, const float *found, int64_t n)
{
    double sum = 0, most_e = -INFINITY, most_f = -INFINITY, all_e = 0, all_f = 0;
    bool probabilities = true;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)exact[i];
        probabilities = probabilities && exact[i] >= 0;
        most_e = (double)exact[i] > most_e ? (double)exact[i] : most_e;
        most_f = (double)found[i] > most_f ? (double)found[i] : most_f;
    }
    if (probabilities && fabs(sum - 1.0) < 1e-3) {
        double divergence = 0;
        for (int64_t i = 0; i < n; i++)
            divergence += exact[i] > 0 ? (double)exact[i] * log((double)exact[i] / ((double)found[i] + 1e-12)) : 0;
        return divergence;
    }
    for (int64_t i = 0; i < n; i++) {
        all_e += exp((double)exact[i] - most_e);
        all_f += exp((double)found[i] - most_f);
    }
    double divergence = 0;
    for (int64_t i = 0; i < n; i++) {
        const double log_p = (double)exact[i] - most_e - log(all_e), log_q = (double)found[i] - most_f - log(all_f);
        divergence += exp(log_p) * (log_p - log_q);
    }
    return divergence;
}

void terse_loss_add(terse_loss *loss, const terse_numbers *exact, const terse_numbers *found)
{
    for (int i = 0; i < MAX_OUTPUTS; i++) {
        const terse_tensor *e = terse_numbers_output(exact, i), *f = e ? terse_numbers_output(found, i) : NULL;
        if (!f)
            return;
        if (e->dtype != TERSE_FP32 || f->dtype != TERSE_FP32 || terse_tensor_count(e) != terse_tensor_count(f))
            continue;
        const float *a = e->data, *b = f->data;
        const int64_t n = terse_tensor_count(e), width = e->rank > 0 ? e->dims[e->rank - 1] : 1;
        for (int64_t j = 0; j < n; j++) {
            const double lost = (double)b[j] - (double)a[j];
            loss->signal[i] += (double)a[j] * (double)a[j];
            loss->noise[i] += lost * lost;
        }
        for (int64_t row = 0; i == 0 && e->rank > 1 && width > 1 && row < n / width; row++) {
            loss->divergence += row_divergence(a + row * width, b + row * width, width);
            loss->rows++;
        }
    }
}

double terse_loss_share(const terse_loss *loss)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < MAX_OUTPUTS; i++)
        if (loss->signal[i] > 0 || loss->noise[i] > 0) {
            sum += loss->signal[i] > 0 ? loss->noise[i] / loss->signal[i] : 1.0;
            n++;
        }
    return n ? sum / n : 0;
}

double terse_loss_decibels(double share)
{
    return share > 0 ? -10.0 * log10(share) : (double)INFINITY;
}

double terse_loss_kl(const terse_loss *loss)
{
    return loss->divergence > 0 ? loss->divergence / (double)loss->rows : 0; /* rounding may leave less than nothing */
}
