/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of whole matrices: directions are orthogonal whatever the shape, and of the size that was promised. */
#include "tests/unit/graph_maker.h"

#include "compress/train/muon.h"

/* The worst of |s^2 - 1| is at most `far` for m's singular values s: those of m m^T - 1 are no larger than its norm, so
 * x m m^T x is looked at for many x. */
static void check_orthogonal(const float *m, int rows, int columns, double low, double high)
{
    const bool tall = rows > columns;
    const int n = tall ? columns : rows, across = tall ? rows : columns;
    for (int round = 0; round < 50; round++) {
        double x[64], length = 0, image = 0;
        for (int i = 0; i < n; i++) {
            x[i] = (double)random_number();
            length += x[i] * x[i];
        }
        for (int k = 0; k < across; k++) {
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += x[i] * (double)(tall ? m[k * columns + i] : m[i * columns + k]);
            image += sum * sum;
        }
        const double stretch = sqrt(image / length);
        if (!(stretch > low && stretch < high))
            fail_msg("%d x %d: a vector is stretched by %g", rows, columns, stretch);
    }
}

static void directions_are_orthogonal(void **state)
{
    (void)state;
    static const int shapes[][2] = {{8, 8}, {4, 40}, {40, 4}, {64, 27}, {16, 144}, {64, 64}};
    float m[64 * 144], first[64 * 144];
    for (int i = 0; i < COUNT(shapes); i++) {
        const int rows = shapes[i][0], columns = shapes[i][1];
        float *room = malloc((size_t)terse_muon_room(rows, columns) * sizeof *room);
        random_state = 5 + (uint32_t)i;
        double along = 0;
        for (int k = 0; k < rows * columns; k++)
            m[k] = first[k] = 1e-6f * (random_number() + 0.5f); /* the mean is one strong direction */
        terse_muon_orthogonalize(m, rows, columns, room);
        check_orthogonal(m, rows, columns, 0.3, 1.3);
        for (int k = 0; k < rows * columns; k++)
            along += (double)m[k] * (double)first[k];
        assert_true(along > 0);
        free(room);
    }
}

static void what_is_orthogonal_stays(void **state)
{
    (void)state;
    float m[2 * 3] = {0.6f, 0.8f, 0, -0.8f, 0.6f, 0}, room[6 + 8];
    terse_muon_orthogonalize(m, 2, 3, room);
    const float length = sqrtf(m[0] * m[0] + m[1] * m[1]);
    assert_true(length > 0.6f && length < 1.3f);
    assert_true(fabsf(m[0] / length - 0.6f) < 1e-5f && fabsf(m[1] / length - 0.8f) < 1e-5f);
    assert_true(fabsf(m[3] / length + 0.8f) < 1e-5f && fabsf(m[2]) < 1e-6f && fabsf(m[5]) < 1e-6f);
}

static void steps_have_the_size_of_adams_and_momentum_goes_on(void **state)
{
    (void)state;
    enum { ROWS = 24, COLUMNS = 54, N = ROWS * COLUMNS };
    float gradient[N], momentum[N] = {0}, direction[N], again[N];
    float *room = malloc((size_t)terse_muon_room(ROWS, COLUMNS) * sizeof *room);
    double square = 0, along = 0;
    random_state = 9;
    for (int i = 0; i < N; i++)
        gradient[i] = random_number();
    terse_muon_direction(gradient, momentum, ROWS, COLUMNS, direction, room);
    for (int i = 0; i < N; i++)
        square += (double)direction[i] * (double)direction[i] / N;
    assert_true(sqrt(square) > 0.1 && sqrt(square) < 0.3);
    memset(gradient, 0, sizeof gradient); /* nothing new: on in the same direction, however small what is left */
    for (int i = 0; i < 20; i++)
        terse_muon_direction(gradient, momentum, ROWS, COLUMNS, again, room);
    for (int i = 0; i < N; i++)
        along += (double)direction[i] * (double)again[i] / N;
    assert_true(along / square > 0.95 && along / square < 1.05);
    memset(momentum, 0, sizeof momentum); /* and with nothing at all nowhere */
    terse_muon_direction(gradient, momentum, ROWS, COLUMNS, again, room);
    for (int i = 0; i < N; i++)
        assert_true(again[i] == 0);
    free(room);
}

/* Inputs with a large mean and little else, as behind activations: error of what `rate` a step, falling to nothing,
 * leaves of a matrix that is to be found; by Adam or by whole matrices. */
static double left_of(bool whole, float rate)
{
    enum { ROWS = 12, COLUMNS = 30, N = ROWS * COLUMNS, SHOWN = 200, STEPS = 120 };
    static float x[SHOWN * COLUMNS];
    float w[N] = {0}, wanted[N], gradient[N], first[N] = {0}, second[N] = {0}, direction[N];
    float *room = malloc((size_t)terse_muon_room(ROWS, COLUMNS) * sizeof *room);
    double before = 0, error = 0;
    random_state = 3;
    for (int i = 0; i < N; i++)
        wanted[i] = 0.1f * random_number();
    for (int i = 0; i < SHOWN; i++)
        for (int k = 0; k < COLUMNS; k++)
            x[i * COLUMNS + k] = 1 + 0.1f * random_number();
    for (int step = 0; step <= STEPS; step++) {
        memset(gradient, 0, sizeof gradient);
        error = 0;
        for (int i = 0; i < SHOWN; i++)
            for (int r = 0; r < ROWS; r++) {
                float d = 0;
                for (int k = 0; k < COLUMNS; k++)
                    d += (w[r * COLUMNS + k] - wanted[r * COLUMNS + k]) * x[i * COLUMNS + k];
                for (int k = 0; k < COLUMNS; k++)
                    gradient[r * COLUMNS + k] += d * x[i * COLUMNS + k];
                error += (double)d * (double)d;
            }
        before = step ? before : error;
        const float now = rate * (1 - (float)step / STEPS);
        if (whole)
            terse_muon_direction(gradient, first, ROWS, COLUMNS, direction, room);
        for (int i = 0; i < N; i++) {
            if (whole) {
                w[i] -= now * direction[i];
                continue;
            }
            first[i] = 0.9f * first[i] + 0.1f * gradient[i];
            second[i] = 0.999f * second[i] + 0.001f * gradient[i] * gradient[i];
            w[i] -= now * first[i] / (1 - powf(0.9f, (float)step + 1)) /
                    (sqrtf(second[i] / (1 - powf(0.999f, (float)step + 1))) + 1e-8f);
        }
    }
    free(room);
    return error / before;
}

static void what_inputs_seldom_show_is_found_too(void **state)
{
    (void)state;
    double least[2] = {1, 1};
    for (int whole = 0; whole < 2; whole++)
        for (float rate = 1e-4f; rate < 0.2f; rate *= 2)
            least[whole] = fmin(least[whole], left_of(whole, rate));
    print_message("# left of the error, each with its best rate: %g by numbers, %g by matrices\n", least[0], least[1]);
    assert_true(least[1] < least[0] / 3);
}

static void vectors_and_what_is_too_large_are_left(void **state)
{
    (void)state;
    assert_false(terse_muon_takes(1, 1000));
    assert_false(terse_muon_takes(1000, 1));
    assert_false(terse_muon_takes(4, 4));
    assert_true(terse_muon_takes(64, 27));
    assert_true(terse_muon_takes(512, 4608));
    assert_false(terse_muon_takes(4096, 9216));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directions_are_orthogonal),
        cmocka_unit_test(what_is_orthogonal_stays),
        cmocka_unit_test(steps_have_the_size_of_adams_and_momentum_goes_on),
        cmocka_unit_test(what_inputs_seldom_show_is_found_too),
        cmocka_unit_test(vectors_and_what_is_too_large_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
