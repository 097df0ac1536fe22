/* SPDX-License-Identifier: Apache-2.0 */
/* Codebooks: few numbers, zero among them and kept; better for what a layer puts out with second moments than without;
 * the same for the same numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compress/cluster/book.h"

static uint64_t random_state = 20261126;

static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 9007199254740992.0 - 0.5;
}

/* Roughly normal, of deviation 1. */
static double normal(void)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += uniform();
    return sum;
}

static double *numbers_of(int64_t n, double (*draw)(void))
{
    double *numbers = malloc((size_t)n * sizeof *numbers);
    for (int64_t i = 0; i < n; i++)
        numbers[i] = draw();
    return numbers;
}

static double error_of(const terse_book *book, const double *numbers, int64_t n)
{
    double error = 0;
    for (int64_t i = 0; i < n; i++)
        error += pow(numbers[i] - book->entries[terse_book_code(book, numbers[i], 1)], 2) / (double)n;
    return error;
}

static double entropy_of(const terse_book *book, const double *numbers, int64_t n)
{
    double counts[TERSE_BOOK_MAX] = {0}, bits = 0;
    for (int64_t i = 0; i < n; i++)
        counts[terse_book_code(book, numbers[i], 1)]++;
    for (int c = 0; c < book->n; c++)
        bits -= counts[c] > 0 ? counts[c] / (double)n * log2(counts[c] / (double)n) : 0;
    return bits;
}

static double *ones(int64_t n)
{
    double *weights = malloc((size_t)n * sizeof *weights);
    for (int64_t i = 0; i < n; i++)
        weights[i] = 1;
    return weights;
}

static void books_are_ordered_and_have_zero(void **state)
{
    (void)state;
    const int64_t n = 5000;
    double *numbers = numbers_of(n, normal), *weights = ones(n);
    for (int bits = 1; bits <= 8; bits++)
        for (int kind = 0; kind < 4; kind++) {
            terse_book book, again;
            for (int64_t i = 0; i < n && kind == 2; i++)
                numbers[i] = fabs(numbers[i]) + 3; /* far from zero */
            assert_true(terse_book_make(numbers, weights, n, bits, kind & 1, false, &book));
            assert_true(terse_book_make(numbers, weights, n, bits, kind & 1, false, &again));
            assert_memory_equal(&book, &again, sizeof book);
            assert_in_range(book.n, 2, bits == 1 ? 3 : 1 << bits);
            int zeros = 0;
            for (int c = 0; c < book.n; c++) {
                zeros += book.entries[c] == 0;
                assert_true(c == 0 || book.entries[c] > book.entries[c - 1]);
                assert_true(book.costs[c] >= 0);
            }
            assert_int_equal(zeros, 1);
        }
    free(weights);
    free(numbers);
}

/* Lloyd's error for normal numbers is near Max's (1960) table: 0.0095 with 16 levels, here with 15 and zero; an even
 * spacing of the range has several times that. */
static void lloyd_is_near_the_best(void **state)
{
    (void)state;
    const int64_t n = 60000;
    double *numbers = numbers_of(n, normal), *weights = ones(n);
    terse_book book;
    assert_true(terse_book_make(numbers, weights, n, 4, false, false, &book));
    const double error = error_of(&book, numbers, n);
    if (!(error < 0.0125))
        fail_msg("error %g, 0.0095 is the best", error);
    free(weights);
    free(numbers);
}

/* With a price for bits, fewer bits; and fewer than a coarser book of the same error needs. */
static void entropy_saves_bits(void **state)
{
    (void)state;
    const int64_t n = 60000;
    double *numbers = numbers_of(n, normal), *weights = ones(n);
    terse_book plain, cheap;
    assert_true(terse_book_make(numbers, weights, n, 6, false, false, &plain));
    assert_true(terse_book_make(numbers, weights, n, 6, true, false, &cheap));
    assert_true(entropy_of(&cheap, numbers, n) < entropy_of(&plain, numbers, n) - 0.2);
    assert_true(error_of(&cheap, numbers, n) < 6 * error_of(&plain, numbers, n));
    free(weights);
    free(numbers);
}

static void a_code_is_the_cheapest_one(void **state)
{
    (void)state;
    const int64_t n = 3000;
    double *numbers = numbers_of(n, normal), *weights = ones(n);
    terse_book book;
    assert_true(terse_book_make(numbers, weights, n, 5, true, false, &book));
    for (int64_t i = 0; i < n; i++) {
        const double weight = exp(4 * uniform());
        double least = INFINITY;
        for (int c = 0; c < book.n; c++)
            least = fmin(least, weight * pow(numbers[i] - book.entries[c], 2) + book.costs[c]);
        const int c = terse_book_code(&book, numbers[i], weight);
        assert_true(fabs(weight * pow(numbers[i] - book.entries[c], 2) + book.costs[c] - least) <= 1e-12 * (1 + least));
    }
    free(weights);
    free(numbers);
}

enum { O = 24, K = 150, ROWS = 400 };

/* What the product loses on rows x [ROWS][K]. */
static double lost(const double *w, const double *v, const double *x)
{
    double sum = 0;
    for (int r = 0; r < ROWS; r++)
        for (int o = 0; o < O; o++) {
            double y = 0;
            for (int k = 0; k < K; k++)
                y += (w[o * K + k] - v[o * K + k]) * x[r * K + k];
            sum += y * y;
        }
    return sum;
}

static void moments_help_the_outputs(void **state)
{
    (void)state;
    double *w = numbers_of(O * K, normal), *x = numbers_of(ROWS * K, normal), *cov = calloc(K * K, sizeof *cov);
    double scales[O];
    for (int o = 0; o < O; o++)
        scales[o] = 0.01 * (1 + o % 5);
    for (int i = 0; i < O * K; i++)
        w[i] = i % 7 == 0 ? 0 : w[i] * 20 * scales[i / K];
    for (int r = 0; r < ROWS; r++) /* neighbours are alike, some are loud */
        for (int k = 1; k < K; k++)
            x[r * K + k] = 0.9 * x[r * K + k - 1] + (k % 10 == 0 ? 3 : 0.3) * x[r * K + k];
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++)
                cov[i * K + j] += x[r * K + i] * x[r * K + j] / ROWS;
    double error[2], mean = 0;
    for (int k = 0; k < K; k++)
        mean += cov[k * K + k] / K;
    for (int with = 0; with < 2; with++) {
        double v[O * K];
        memcpy(v, w, sizeof v);
        terse_book book;
        terse_assign a = {
            .o = O, .k = K, .w = v, .scales = scales, .cov = with ? cov : NULL, .bits = 4, .integers = true};
        assert_true(terse_assign_run(&a, &book));
        error[with] = lost(w, v, x);
        int64_t used = 0;
        for (int c = 0; c < book.n; c++)
            used += a.used[c];
        assert_int_equal(used, O * K);
        assert_true(book.n <= 16);
        for (int i = 0; i < O * K; i++) {
            const double code = v[i] / scales[i / K];
            bool known = false;
            for (int c = 0; c < book.n; c++)
                known = known || (fabs(code - book.entries[c]) < 1e-9 && book.entries[c] == nearbyint(book.entries[c]));
            assert_true(known);
            assert_true(w[i] != 0 || v[i] == 0);
        }
        if (with) { /* what is reported is what is lost, with 1 % of the mean second moment for what was not seen */
            double damping = 0;
            for (int i = 0; i < O * K; i++)
                damping += 0.01 * mean * (w[i] - v[i]) * (w[i] - v[i]);
            assert_true(fabs(a.lost / (error[1] / ROWS + damping) - 1) < 1e-6);
        }
    }
    if (!(error[1] < 0.5 * error[0]))
        fail_msg("with moments %g, without %g", error[1], error[0]);
    free(cov);
    free(x);
    free(w);
}

static void odd_layers_are_taken(void **state)
{
    (void)state;
    double w[6] = {0}, cov[9] = {0};
    terse_book book;
    terse_assign a = {.o = 2, .k = 3, .w = w, .cov = cov, .bits = 3}; /* nothing but zeros, and samples of zeros */
    assert_true(terse_assign_run(&a, &book));
    assert_int_equal(book.n, 1);
    w[4] = -2.5;
    a = (terse_assign){.o = 2, .k = 3, .w = w, .bits = 1, .entropy = true};
    assert_true(terse_assign_run(&a, &book));
    assert_true(w[4] == -2.5 && w[0] == 0);
}

int main(void)
{
    printf("# seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(books_are_ordered_and_have_zero),
        cmocka_unit_test(lloyd_is_near_the_best),
        cmocka_unit_test(entropy_saves_bits),
        cmocka_unit_test(a_code_is_the_cheapest_one),
        cmocka_unit_test(moments_help_the_outputs),
        cmocka_unit_test(odd_layers_are_taken),
    };
    return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
