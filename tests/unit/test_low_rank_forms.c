/* SPDX-License-Identifier: Apache-2.0 */
/* Chains of convolutions compute what the dense one did when its weights have that form; ranks, samples and the words
 * of
 * --low-rank do what they say. */
#include "tests/unit/graph_maker.h"

#include "compress/low_rank/low_rank.h"
#include "compress/low_rank/steps.h"
#include "compress/passes/passes.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

/* --- weights that have a form
 * ------------------------------------------------------------------------------------------- */

enum { O = 12, C = 10, HIGH = 3, WIDE = 3, RANK = 2, RANK_IN = 3 };

static void add_term(float *w, terse_low_rank_form form)
{
    float out[O], in[C], tap[HIGH * WIDE], column[C * HIGH], row[O * WIDE], patch[C * HIGH * WIDE];
    for (int i = 0; i < O; i++)
        out[i] = random_number();
    for (int i = 0; i < C; i++)
        in[i] = random_number();
    for (int i = 0; i < HIGH * WIDE; i++)
        tap[i] = random_number();
    for (int i = 0; i < C * HIGH; i++)
        column[i] = random_number();
    for (int i = 0; i < O * WIDE; i++)
        row[i] = random_number();
    for (int i = 0; i < C * HIGH * WIDE; i++)
        patch[i] = random_number();
    for (int o = 0; o < O; o++)
        for (int c = 0; c < C; c++)
            for (int h = 0; h < HIGH; h++)
                for (int v = 0; v < WIDE; v++) {
                    float *to = &w[((o * C + c) * HIGH + h) * WIDE + v];
                    if (form == TERSE_FORM_SPATIAL)
                        *to += column[c * HIGH + h] * row[o * WIDE + v];
                    else if (form == TERSE_FORM_TUCKER)
                        *to += out[o] * in[c] * tap[h * WIDE + v];
                    else
                        *to += out[o] * patch[(c * HIGH + h) * WIDE + v];
                }
}

static terse_graph *network_of(terse_low_rank_form form, int window)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 7;
    const int x = make_input(g, "x", DIMS(BATCH, C, 11, 9));
    const int w = make_weights(g, 0, 0, DIMS(O, C, HIGH, WIDE)), b = make_weights(g, 0, 1, DIMS(O));
    for (int r = 0; r < RANK; r++)
        add_term((float *)(uintptr_t)g->values[w].data, form);
    const int y = make_node(g, TERSE_OP_CONV, INPUTS(x, w, b));
    terse_node *node = last_node(g);
    if (window == 0) {
        terse_node_set_ints(g, node, "strides", (int64_t[]){2, 1}, 2);
        terse_node_set_ints(g, node, "pads", (int64_t[]){1, 0, 2, 1}, 4);
    } else if (window == 1) {
        terse_node_set_ints(g, node, "dilations", (int64_t[]){2, 1}, 2);
        terse_node_set_ints(g, node, "pads", (int64_t[]){2, 1, 2, 1}, 4);
    } else {
        terse_node_set_text(g, node, "auto_pad", window == 2 ? "SAME_UPPER" : "SAME_LOWER");
        terse_node_set_ints(g, node, "strides", (int64_t[]){2, 2}, 2);
    }
    make_output(g, make_relu(g, y));
    state_values(g);
    return g;
}

static terse_low_rank_report factor(terse_graph *g, const terse_low_rank_options *options)
{
    terse_low_rank_report report = {0};
    terse_error error = {0};
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_low_rank_run(g, options, &report, &error) != TERSE_OK ||
        terse_passes_run(g, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    return report;
}

static void weights_of_a_form_become_it_without_loss(void **state)
{
    (void)state;
    for (terse_low_rank_form form = TERSE_FORM_CHANNEL; form <= TERSE_FORM_SPATIAL; form++)
        for (int window = 0; window < 4; window++) {
            terse_graph *g = network_of(form, window);
            answers before = answer(g, 3, 5);
            terse_low_rank_options options = {0};
            terse_error error = {0};
            char text[64];
            snprintf(text, sizeof text, "Conv=%s:%s", form == TERSE_FORM_TUCKER ? "3x2" : "2",
                     terse_low_rank_form_name(form));
            assert_int_equal(terse_low_rank_parse(text, &options, &error), TERSE_OK);
            terse_low_rank_report report = factor(g, &options);
            answers after = answer(g, 3, 5);
            assert_string_equal(report.layers[0].reason, "factored");
            assert_int_equal(report.layers[0].form, form);
            assert_int_equal(report.layers[0].rank, RANK);
            assert_int_equal(report.layers[0].rank_in, form == TERSE_FORM_TUCKER ? RANK_IN : 0);
            assert_true(report.layers[0].energy > 0.9999 && report.layers[0].macs_after < report.layers[0].macs_before);
            if (apart(&before, &after) > 1e-4)
                fail_msg("%s, window %d: %g apart", terse_low_rank_form_name(form), window, apart(&before, &after));
            terse_low_rank_report_done(&report);
            answers_done(&before);
            answers_done(&after);
            terse_graph_free(g);
        }
}

/* A 1-D and a 3-D convolution by channels. */
static void windows_of_other_ranks_are_factored_too(void **state)
{
    (void)state;
    for (int spatial = 1; spatial <= 3; spatial += 2) {
        terse_graph *g = terse_graph_new();
        terse_graph_symbol(g, "N");
        random_state = 3;
        const int64_t in[] = {BATCH, 6, 7, 5, 4}, dims[] = {40, 6, 3, 2, 2};
        const int x = make_input(g, "x", spatial + 2, in);
        const int w = make_weights(g, 0, 0, spatial + 2, dims);
        const int64_t k = terse_dims_count(dims + 1, spatial + 1);
        for (int64_t i = 0; i < k; i++) {
            const float number = random_number();
            for (int64_t o = 0; o < 40; o++)
                ((float *)(uintptr_t)g->values[w].data)[o * k + i] = number * (float)(o - 14);
        }
        make_output(g, make_node(g, TERSE_OP_CONV, INPUTS(x, w)));
        state_values(g);
        answers before = answer(g, 2, 5);
        terse_low_rank_report report =
            factor(g, &(terse_low_rank_options){.target = TERSE_LOW_RANK_ENERGY, .amount = 1});
        answers after = answer(g, 2, 5);
        assert_int_equal(report.layers[0].rank, 1);
        assert_true(apart(&before, &after) < 1e-4);
        terse_low_rank_report_done(&report);
        answers_done(&before);
        answers_done(&after);
        terse_graph_free(g);
    }
}

/* --- samples
 * ---------------------------------------------------------------------------------------------------------------- */

enum { SAMPLES = 40, SIDE = 8, PIXELS = SIDE * SIDE };

static float images[SAMPLES * C * PIXELS];
static char *keys[] = {(char *)"x"};
static terse_tensor tensors[1];

/* Channels that are mixtures of three. */
static terse_npz samples(void)
{
    random_state = 21;
    float mix[C * 3];
    for (int i = 0; i < C * 3; i++)
        mix[i] = random_number();
    for (int s = 0; s < SAMPLES; s++)
        for (int p = 0; p < PIXELS; p++) {
            const float source[3] = {random_number(), random_number() + 0.5f, random_number()};
            for (int c = 0; c < C; c++) {
                float *to = &images[(s * C + c) * PIXELS + p];
                *to = 0.01f * random_number();
                for (int i = 0; i < 3; i++)
                    *to += mix[c * 3 + i] * source[i];
            }
        }
    tensors[0] = terse_tensor_view(images, TERSE_FP32, DIMS(SAMPLES, C, SIDE, SIDE));
    return (terse_npz){.n = 1, .names = keys, .tensors = tensors};
}

/* Convolutions with a shortcut around two of them, as in a ResNet. */
static terse_graph *residual_network(void)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 11;
    const int x = make_input(g, "x", DIMS(BATCH, C, SIDE, SIDE));
    const int a = make_relu(g, make_conv(g, x, C, 16, 3, 1, 1, 1));
    const int b = make_relu(g, make_conv(g, a, 16, 16, 3, 1, 1, 1));
    const int c = make_relu(g, make_node(g, TERSE_OP_ADD, INPUTS(make_conv(g, b, 16, 16, 3, 1, 1, 1), a)));
    make_output(g, make_conv(g, make_relu(g, make_conv(g, c, 16, 24, 1, 1, 0, 1)), 24, 8, 3, 2, 1, 1));
    state_values(g);
    return g;
}

/* Noise of the outputs on the samples, over their power. */
static double noise(const terse_graph *exact, const terse_graph *found, const terse_npz *data)
{
    double sum[2] = {0};
    const terse_kernels *kernels;
    terse_error error = {0};
    assert_int_equal(terse_kernels_get(&kernels, &error), TERSE_OK);
    float *out[2];
    for (int i = 0; i < 2; i++) {
        terse_engine *engine = NULL;
        terse_plan *plan;
        assert_int_equal(terse_engine_new(i ? found : exact, kernels, 2, 0, &engine, &error), TERSE_OK);
        assert_int_equal(terse_engine_plan(engine, data->tensors, &plan, &error), TERSE_OK);
        out[i] = malloc((size_t)terse_tensor_bytes(terse_plan_output(plan, 0)));
        assert_int_equal(terse_plan_run(plan, (const void *[]){data->tensors[0].data}, (void *[]){out[i]}, &error),
                         TERSE_OK);
        if (i == 0)
            sum[1] = (double)terse_tensor_count(terse_plan_output(plan, 0));
        terse_engine_free(engine);
    }
    const int64_t n = (int64_t)sum[1];
    double power = 0, mean = 0;
    for (int64_t i = 0; i < n; i++) {
        sum[0] += pow((double)out[0][i] - (double)out[1][i], 2);
        mean += (double)out[0][i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++)
        power += pow((double)out[0][i] - mean, 2);
    free(out[0]);
    free(out[1]);
    return sum[0] / power;
}

static double loss_of(terse_low_rank_options options, const terse_npz *data, double *ret_share)
{
    terse_graph *exact = residual_network(), *g = residual_network();
    terse_low_rank_report report = factor(g, &options);
    int64_t before = 0, after = 0;
    for (int i = 0; i < report.n; i++) {
        before += report.layers[i].macs_before;
        after += report.layers[i].macs_after;
        assert_true(report.layers[i].reason[0]);
    }
    *ret_share = (double)after / (double)before;
    terse_low_rank_report_done(&report);
    const double found = noise(exact, g, data);
    terse_graph_free(exact);
    terse_graph_free(g);
    return found;
}

static void half_the_work_costs_less_when_samples_are_known(void **state)
{
    (void)state;
    const terse_npz data = samples();
    static const terse_low_rank_form forms[] = {TERSE_FORM_BEST, TERSE_FORM_CHANNEL, TERSE_FORM_TUCKER,
                                                TERSE_FORM_SPATIAL};
    for (int f = 0; f < COUNT(forms); f++) {
        const terse_low_rank_form form = forms[f];
        terse_low_rank_options options = {.target = TERSE_LOW_RANK_SHARE, .amount = 0.5, .form = form};
        double share_blind, share;
        const double blind = loss_of(options, &data, &share_blind);
        options.data = &data;
        const double seen = loss_of(options, &data, &share);
        if (share > 0.5 || share_blind > 0.5 || share < 0.3)
            fail_msg("%s: %g and %g of the work", terse_low_rank_form_name(form), share, share_blind);
        if (!(seen < 0.5 * blind))
            fail_msg("%s: %g with samples, %g without", terse_low_rank_form_name(form), seen, blind);
    }
}

static void automatic_ranks_lose_little_and_save_something(void **state)
{
    (void)state;
    const terse_npz data = samples();
    double share;
    const double lost = loss_of((terse_low_rank_options){.target = TERSE_LOW_RANK_AUTO, .data = &data}, &data, &share);
    if (lost > 0.05 || share > 0.95)
        fail_msg("%g lost with %g of the work", lost, share);
}

static void what_is_timed_says_why_it_stays_dense(void **state)
{
    (void)state;
    const terse_npz data = samples();
    for (int bytes = 0; bytes < 2; bytes++) {
        terse_graph *g = residual_network();
        const terse_low_rank_options options = {
            .target = TERSE_LOW_RANK_SPEED, .amount = 2, .data = &data, .measure = true, .bytes = bytes == 1};
        terse_low_rank_report report = factor(g, &options);
        for (int i = 0; i < report.n; i++) {
            const terse_low_rank_layer *l = &report.layers[i];
            assert_true(l->rank > 0 ? strcmp(l->reason, "factored") == 0
                                    : strstr(l->reason, "as long") || strstr(l->reason, "panels") ||
                                          strstr(l->reason, "worth"));
        }
        terse_low_rank_report_done(&report);
        terse_graph_free(g);
    }
}

/* --- ranks
 * --------------------------------------------------------------------------------------------------------------------
 */

static void evbmf_counts_what_is_no_noise(void **state)
{
    (void)state;
    enum { ROWS = 60, COLUMNS = 90 };
    for (int rank = 1; rank <= 9; rank += 4) {
        terse_low_rank_product p = {.o = ROWS, .c = COLUMNS, .k = COLUMNS, .taps = 1, .kernel = {1, 1, 1}};
        p.w = malloc(sizeof(double) * ROWS * COLUMNS);
        random_state = (uint32_t)(rank + 1);
        for (int i = 0; i < ROWS * COLUMNS; i++)
            p.w[i] = 0.2 * (double)random_number();
        for (int r = 0; r < rank; r++) {
            double u[ROWS], v[COLUMNS];
            for (int i = 0; i < ROWS; i++)
                u[i] = (double)random_number();
            for (int i = 0; i < COLUMNS; i++)
                v[i] = (double)random_number();
            for (int i = 0; i < ROWS * COLUMNS; i++)
                p.w[i] += u[i / COLUMNS] * v[i % COLUMNS];
        }
        terse_metric metric = {0};
        terse_error error = {0};
        assert_int_equal(terse_metric_init(&p, NULL, &metric, &error), TERSE_OK);
        double s[ROWS];
        for (int i = 0; i < ROWS; i++)
            s[i] = sqrt(metric.values[i]);
        assert_int_equal(terse_ranks_evbmf(s, ROWS, COLUMNS), rank);
        terse_metric_done(&metric);
        free(p.w);
    }
}

static void ranks_spend_what_is_there_where_it_helps_most(void **state)
{
    (void)state;
    terse_low_rank_choice choices[3] = {0};
    for (int l = 0; l < 3; l++) {
        choices[l].n = 5;
        for (int i = 0; i < 5; i++)
            choices[l].list[i] =
                (terse_low_rank_candidate){.rank = i, .work = 100 - 20 * i, .cost = (l == 1 ? 0.1 : 0.01) * i * i};
    }
    terse_ranks_choose(choices, 3, 200);
    double work = 0;
    for (int l = 0; l < 3; l++)
        work += choices[l].list[choices[l].chosen].work;
    assert_true(work <= 200 && work > 160);
    assert_true(choices[1].chosen < choices[0].chosen && choices[1].chosen < choices[2].chosen);
    terse_ranks_choose(choices, 3, 1000);
    assert_true(choices[0].chosen == 0 && choices[1].chosen == 0 && choices[2].chosen == 0);
    terse_ranks_choose_cost(choices, 3, 0.06);
    double cost = 0;
    for (int l = 0; l < 3; l++)
        cost += choices[l].list[choices[l].chosen].cost;
    assert_true(cost <= 0.06 && cost > 0);
}

static void costs_lie_between_those_that_were_measured(void **state)
{
    (void)state;
    terse_low_rank_choice choice = {.n = 6};
    for (int i = 0; i < 6; i++)
        choice.list[i].lost = 0.1 * i;
    terse_ranks_weigh(&choice, (const int[]){1, 3}, (const double[]){0.2, 1.2}, 2);
    static const double costs[] = {0, 0.2, 0.7, 1.2, 1.7, 2.2};
    for (int i = 0; i < 6; i++)
        assert_true(fabs(choice.list[i].cost - costs[i]) < 1e-12);
}

/* --- words
 * --------------------------------------------------------------------------------------------------------------------
 */

static void words_are_read_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        terse_low_rank_target target;
        double amount;
        terse_low_rank_form form;
    } good[] = {
        {"0.95", TERSE_LOW_RANK_ENERGY, 0.95, TERSE_FORM_BEST},
        {"1:tucker", TERSE_LOW_RANK_ENERGY, 1, TERSE_FORM_TUCKER},
        {"50%", TERSE_LOW_RANK_SHARE, 0.5, TERSE_FORM_BEST},
        {"12.5%:spatial", TERSE_LOW_RANK_SHARE, 0.125, TERSE_FORM_SPATIAL},
        {"1.5x", TERSE_LOW_RANK_SPEED, 1.5, TERSE_FORM_BEST},
        {"64", TERSE_LOW_RANK_RANKS, 64, TERSE_FORM_BEST},
        {"conv1=32,layer:0/fc=16x24:channel", TERSE_LOW_RANK_RANKS, 0, TERSE_FORM_CHANNEL},
        {"auto:svd", TERSE_LOW_RANK_AUTO, 0, TERSE_FORM_SVD},
    };
    static const char *const bad[] = {
        "",     "0",        "-1",      "1.5",  "nan", "101%", "0%", "auto:", "a=",    "=4",   "a=0",    "a=3x",
        "a=3,", "0.9:svd2", "a=3x4x5", "a=-2", "inf", "50%%", "1x", "0.5x",  "1.5xx", "0.5 ", ":tucker"};
    for (int i = 0; i < COUNT(good); i++) {
        terse_low_rank_options o = {0};
        terse_error error = {0};
        if (terse_low_rank_parse(good[i].text, &o, &error) != TERSE_OK)
            fail_msg("%s", error.message);
        assert_int_equal(o.target, good[i].target);
        assert_true(o.form == good[i].form && (good[i].amount == 0 || fabs(o.amount - good[i].amount) < 1e-12));
    }
    for (int i = 0; i < COUNT(bad); i++) {
        terse_low_rank_options o = {0};
        terse_error error = {0};
        if (terse_low_rank_parse(bad[i], &o, &error) != TERSE_INVALID_ARGUMENT)
            fail_msg("'%s' was taken", bad[i]);
        assert_non_null(strstr(error.message, "--low-rank"));
    }
}

static void a_name_that_is_no_layer_is_named(void **state)
{
    (void)state;
    terse_graph *g = residual_network();
    terse_low_rank_report report = {0};
    terse_error error = {0};
    const terse_low_rank_options options = {.target = TERSE_LOW_RANK_RANKS, .ranks = "nobody=4"};
    assert_int_equal(terse_low_rank_run(g, &options, &report, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "'nobody'"));
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_a_form_become_it_without_loss),
        cmocka_unit_test(windows_of_other_ranks_are_factored_too),
        cmocka_unit_test(half_the_work_costs_less_when_samples_are_known),
        cmocka_unit_test(automatic_ranks_lose_little_and_save_something),
        cmocka_unit_test(what_is_timed_says_why_it_stays_dense),
        cmocka_unit_test(evbmf_counts_what_is_no_noise),
        cmocka_unit_test(ranks_spend_what_is_there_where_it_helps_most),
        cmocka_unit_test(costs_lie_between_those_that_were_measured),
        cmocka_unit_test(words_are_read_or_refused),
        cmocka_unit_test(a_name_that_is_no_layer_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
