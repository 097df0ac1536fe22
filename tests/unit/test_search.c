/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing for all layers at once against trying everything, plans that are written and read, goals that are refused.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "compress/search/goal.h"
#include "compress/search/knapsack.h"
#include "compress/search/plan.h"
#include "compress/search/read_json.h"
#include "compress/search/search_steps.h"

enum { LAYERS = 5, OPTIONS = 5 };

/* --- the knapsack --------------------------------------------------------------------------------------------------
 */

typedef struct instance {
    double weight[LAYERS][OPTIONS], cost[LAYERS][OPTIONS];
    terse_knapsack_layer layers[LAYERS];
    int n;
} instance;

/* Whole numbers: where budget and weights are multiples of a bucket, rounding up changes nothing. */
static void make_instance(instance *in)
{
    in->n = 1 + rand() % LAYERS;
    for (int l = 0; l < in->n; l++) {
        const int n = 1 + rand() % OPTIONS;
        for (int i = 0; i < n; i++) {
            in->weight[l][i] = (double)(rand() % 40);
            in->cost[l][i] = (double)(rand() % 1000) / 7.0;
        }
        in->layers[l] = (terse_knapsack_layer){.n = n, .weight = in->weight[l], .cost = in->cost[l]};
    }
}

static void sums(const instance *in, const int *chosen, double *weight, double *cost)
{
    *weight = *cost = 0;
    for (int l = 0; l < in->n; l++) {
        *weight += in->weight[l][chosen[l]];
        *cost += in->cost[l][chosen[l]];
    }
}

/* The least cost of all choices within the budget; INFINITY when there is none. */
static double try_all(const instance *in, double budget, double *ret_lightest)
{
    int chosen[LAYERS] = {0};
    double best = INFINITY;
    *ret_lightest = INFINITY;
    for (;;) {
        double weight, cost;
        sums(in, chosen, &weight, &cost);
        *ret_lightest = fmin(*ret_lightest, weight);
        if (weight <= budget)
            best = fmin(best, cost);
        int l = 0;
        while (l < in->n && ++chosen[l] == in->layers[l].n)
            chosen[l++] = 0;
        if (l == in->n)
            return best;
    }
}

static void the_knapsack_finds_what_trying_everything_finds(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    printf("# seed %u\n", seed);
    srand(seed);
    int solved = 0;
    for (int round = 0; round < 400; round++) {
        instance in;
        int chosen[LAYERS] = {0};
        double lightest, weight, cost;
        make_instance(&in);
        try_all(&in, 0, &lightest);
        /* the room above the lightest choice is a divisor of the number of buckets, so each bucket is a whole share */
        static const double rooms[] = {0, 1, 2, 4, 5, 8, 10, 16, 20, 25, 40, 50, 80, 100};
        const double budget = lightest + rooms[rand() % 14];
        const double best = try_all(&in, budget, &lightest);
        assert_int_equal(terse_knapsack_solve(in.layers, in.n, budget, chosen), TERSE_KNAPSACK_FOUND);
        sums(&in, chosen, &weight, &cost);
        assert_true(weight <= budget + 1e-9);
        if (fabs(cost - best) > 1e-9)
            fail_msg("round %d: cost %.9g, all choices tried: %.9g", round, cost, best);
        solved++;
    }
    assert_int_equal(solved, 400);
}

/* With weights of any size what is found never weighs more, and costs no more than the best with a little less room. */
static void rounding_never_breaks_the_budget(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)time(NULL);
    printf("# seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 200; round++) {
        instance in;
        int chosen[LAYERS] = {0};
        double lightest, weight, cost;
        make_instance(&in);
        for (int l = 0; l < in.n; l++)
            for (int i = 0; i < in.layers[l].n; i++)
                in.weight[l][i] *= 1.0 + (double)rand() / RAND_MAX;
        try_all(&in, 0, &lightest);
        const double room = 60.0 * rand() / RAND_MAX, budget = lightest + room;
        assert_int_equal(terse_knapsack_solve(in.layers, in.n, budget, chosen), TERSE_KNAPSACK_FOUND);
        sums(&in, chosen, &weight, &cost);
        assert_true(weight <= budget * (1 + 1e-9));
        const double tight = lightest + room * (1 - (double)LAYERS / TERSE_KNAPSACK_BUCKETS);
        assert_true(cost <= try_all(&in, tight, &lightest) + 1e-9);
    }
}

static void too_little_room_gives_the_lightest(void **state)
{
    (void)state;
    const double weight[] = {5, 3, 9}, cost[] = {0, 7, 1};
    const terse_knapsack_layer layers[] = {{3, weight, cost}, {3, weight, cost}};
    int chosen[2] = {0};
    assert_int_equal(terse_knapsack_solve(layers, 2, 5.9, chosen), TERSE_KNAPSACK_TOO_LITTLE);
    assert_int_equal(chosen[0], 1);
    assert_int_equal(chosen[1], 1);
    assert_int_equal(terse_knapsack_solve(layers, 2, 6, chosen), TERSE_KNAPSACK_FOUND);
    assert_int_equal(chosen[0] + chosen[1], 2);
}

/* --- goals ---------------------------------------------------------------------------------------------------------
 */

static void goals_are_read_with_their_units(void **state)
{
    (void)state;
    terse_search_goal g;
    terse_error error;
    terse_goal_init(&g);
    assert_false(terse_goal_is_set(&g));
    assert_int_equal(terse_goal_set_target_size(&g, "0.8M", &error), TERSE_OK);
    assert_int_equal(g.target_bytes, 800000);
    assert_true(terse_goal_is_set(&g) && terse_goal_by_size(&g));
    assert_int_equal(terse_goal_set_target_size(&g, "1MiB", &error), TERSE_OK);
    assert_int_equal(g.target_bytes, 1048576);
    assert_int_equal(terse_goal_set_time(&g, "10m", &error), TERSE_OK);
    assert_true(g.seconds == 600);
    assert_int_equal(terse_goal_set_max_drop(&g, "0", &error), TERSE_OK);
    assert_true(g.max_drop == 0);
    assert_int_equal(terse_goal_set_target_ms(&g, "250us", &error), TERSE_OK);
    assert_true(fabs(g.target_ms - 0.25) < 1e-12);
    assert_int_equal(terse_goal_check(&g, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "found 2"));
}

static void goals_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const words[] = {"", "-1", "x", "nan", "inf", "1e400", " 1", "1 x", "0x10"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        terse_search_goal g;
        terse_error error = {0};
        terse_goal_init(&g);
        int (*const setters[])(terse_search_goal *, const char *, terse_error *) = {
            terse_goal_set_max_drop,    terse_goal_set_target_ms, terse_goal_set_target_speedup,
            terse_goal_set_target_size, terse_goal_set_time,      terse_goal_set_threads,
            terse_goal_set_batch,       terse_goal_set_seed};
        for (size_t s = 0; s < sizeof setters / sizeof setters[0]; s++) {
            if (setters[s](&g, words[i], &error) == TERSE_OK)
                fail_msg("'%s' was taken by setter %zu", words[i], s);
            if (!strstr(error.message, "allowed"))
                fail_msg("'%s' says nothing of what is allowed: %s", words[i], error.message);
        }
    }
}

/* --- plans ---------------------------------------------------------------------------------------------------------
 */

static char path[64];

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/terse_plan_%d.json", (int)getpid());
    return 0;
}

static int remove_path(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void fill(terse_search_plan *plan)
{
    terse_choice *c = terse_choices_add(&plan->layers, "a \"quoted\" name/with {all}, [sorts]");
    assert_non_null(c);
    snprintf(c->form, sizeof c->form, "tucker");
    c->rank = 48;
    c->rank_in = 16;
    c->us = terse_search_plan_number(1.0 / 3.0);
    snprintf(c->why, sizeof c->why, "because: of, this");
    snprintf(c->refused[c->n_refused++], TERSE_CHOICE_WHY, "rank 48 saves 33 %% of the MACs and is 12 %% slower");
    c = terse_choices_add(&plan->layers, "b");
    assert_non_null(c);
    c->prune = 0.7;
    c->cluster = 5;
    c = terse_choices_add(&plan->layers, "c");
    assert_non_null(c);
    c->keep_float = true;
    c->kept = 0.375;
    snprintf(c->left, sizeof c->left, "24 of 64 outputs left");
    plan->quantize = TERSE_QUANTIZE_INT8;
    plan->channels = 0.215;
    snprintf(plan->channels_why, sizeof plan->channels_why, "21.9 %% go");
    snprintf(plan->trained, sizeof plan->trained, "low rank: drop 2.10, before 4.30");
    snprintf(plan->spent, sizeof plan->spent, "9 networks built, 80 s for the table of choices");
    plan->equalization = TERSE_EQUALIZATION_ACTIVATIONS;
    plan->pack = true;
    plan->seed = 7;
    plan->held_out = 2;
    plan->is_tuned = true;
    snprintf(plan->goal, sizeof plan->goal, "the fastest");
    terse_measured *m = terse_search_plan_add_measured(plan);
    assert_non_null(m);
    m->drop = terse_search_plan_number(0.123456789123);
    m->agreement = NAN;
    m->kl = NAN;
    m->bytes = 123456789;
    m->chosen = true;
}

static void a_plan_that_is_written_is_read_as_it_was(void **state)
{
    (void)state;
    terse_search_plan plan = {0}, read = {0};
    terse_error error;
    char a[TERSE_PLAN_TEXT], b[TERSE_PLAN_TEXT];
    fill(&plan);
    assert_int_equal(terse_search_plan_write(&plan, path, &error), TERSE_OK);
    if (terse_search_plan_read(path, &read, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    terse_search_plan_key(&plan, a);
    terse_search_plan_key(&read, b);
    assert_string_equal(a, b);
    assert_int_equal(read.layers.n, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(read.layers.list[i].name, plan.layers.list[i].name);
        assert_true(terse_choice_same(&read.layers.list[i], &plan.layers.list[i]));
        assert_true(read.layers.list[i].us == plan.layers.list[i].us);
        assert_string_equal(read.layers.list[i].why, plan.layers.list[i].why);
    }
    assert_int_equal(read.layers.list[0].n_refused, 1);
    assert_string_equal(read.layers.list[0].refused[0], plan.layers.list[0].refused[0]);
    assert_true(read.channels == 0.215 && read.layers.list[2].kept == 0.375);
    assert_string_equal(read.channels_why, plan.channels_why);
    assert_string_equal(read.layers.list[2].left, plan.layers.list[2].left);
    assert_string_equal(read.trained, plan.trained);
    assert_string_equal(read.spent, plan.spent);
    assert_int_equal(read.equalization, TERSE_EQUALIZATION_ACTIVATIONS);
    read.channels = 0.22;
    terse_search_plan_key(&read, b);
    assert_string_not_equal(a, b);
    assert_true(read.is_tuned && read.pack && read.seed == 7 && read.held_out == 2);
    assert_int_equal(read.n_measured, 1);
    assert_true(read.measured[0].drop == plan.measured[0].drop && isnan(read.measured[0].agreement));
    assert_int_equal(read.measured[0].bytes, 123456789);
    terse_search_plan_done(&plan);
    terse_search_plan_done(&read);
}

static void names_of_parts_find_the_choice_of_the_whole(void **state)
{
    (void)state;
    terse_search_plan plan = {0};
    fill(&plan);
    assert_ptr_equal(terse_choices_find(&plan.layers, "b"), &plan.layers.list[1]);
    assert_ptr_equal(terse_choices_find(&plan.layers, "b/first"), &plan.layers.list[1]);
    assert_null(terse_choices_find(&plan.layers, "bb"));
    assert_null(terse_choices_find(&plan.layers, "a \"quoted\" name"));
    terse_search_plan_done(&plan);
}

/* What channels leave is told of every layer, as it is now and not as it was. */
static void a_plan_says_what_channels_leave(void **state)
{
    (void)state;
    terse_search_plan plan = {0};
    terse_error error;
    char text[TERSE_CHOICE_WHY];
    terse_prune_layer lines[2] = {{.name = "b", .pruned = true, .kept = 0.5, .reason = "32 of 64 outputs left"},
                                  {.name = "new", .kept = 0.7, .reason = "coupled to the network's output 'y'"}};
    const terse_prune_report gone = {.amount = 0.3, .macs_before = 1000, .macs_after = 750, .layers = lines, .n = 2};
    fill(&plan);
    assert_int_equal(terse_search_plan_tell_channels(&plan, &gone, &error), TERSE_OK);
    assert_int_equal(plan.layers.n, 4);
    assert_string_equal(terse_choice_becomes(&plan.layers.list[1], text, sizeof text), "4x1 70 %, 5 bits, 50 % left");
    assert_string_equal(plan.layers.list[1].left, "32 of 64 outputs left");
    assert_string_equal(plan.layers.list[2].left, ""); /* no longer */
    assert_string_equal(plan.layers.list[3].name, "new");
    assert_string_equal(terse_choice_becomes(&plan.layers.list[3], text, sizeof text), "dense");
    assert_non_null(strstr(plan.channels_why, "25.0 %"));
    assert_non_null(strstr(plan.channels_why, "no more channels can go"));
    terse_search_plan_done(&plan);
}

/* --- channels beside choices of layers -----------------------------------------------------------------------------
 */

/* Two layers of 100 us and as much that belongs to none; half of the work without channels takes half of the time. */
static void make_search(search *s, terse_search_goal *goal, terse_table_layer layers[2])
{
    terse_goal_init(goal);
    goal->target_speedup = 2;
    *s = (search){.goal = goal, .base_us = 400, .base_bytes = 4000, .base_drop = 0.5, .per_cost = 10};
    s->table = (terse_table){.layers = layers, .n = 2, .other_us = 200};
    for (int l = 0; l < 2; l++) {
        layers[l] = (terse_table_layer){.n = 2};
        snprintf(layers[l].name, sizeof layers[l].name, "%c", 'a' + l);
        layers[l].options[0] = (terse_table_option){.us = 100, .bytes = 1000};
        layers[l].options[1] = (terse_table_option){.kind = TERSE_OPTION_LOW_RANK, .us = 50, .cost = 0.2, .bytes = 500};
    }
    s->points[0] = (channels_point){.amount = 0.5, .us = 200, .bytes = 2200, .drop = 1};
    terse_choice *a = terse_choices_add(&s->points[0].layers, "a"), *b;
    assert_non_null(a);
    a->kept = 0.25;
    assert_non_null(b = terse_choices_add(&s->points[0].layers, "b"));
    b->kept = 0.75;
    s->n_points = 1;
}

static void channels_are_weighed_beside_choices_of_layers(void **state)
{
    (void)state;
    search s;
    terse_search_goal goal;
    static terse_table_layer layers[2];
    int chosen[2] = {0, 0};
    bool fits;
    terse_error error;
    make_search(&s, &goal, layers);
    /* what was measured is expected, and between it a straight line */
    const double amounts[] = {0, 0.5, 0.25, 0.75}, us[] = {400, 200, 300, 100}, drops[] = {0, 1, 0.25, 2.25};
    for (int i = 0; i < 4; i++) {
        assert_true(terse_search_set_amount(&s, amounts[i]));
        assert_true(fabs(terse_search_predict(&s, chosen) - us[i]) < 1e-6);
        assert_true(fabs(terse_search_expect(&s, chosen) - drops[i]) < 1e-6);
    }
    assert_true(terse_search_set_amount(&s, 0.5));
    assert_true(fabs(s.at.kept[0] - 0.25) < 1e-9 && fabs(s.at.kept[1] - 0.75) < 1e-9);
    /* a chain in what is left of a layer saves less than it would in all of it */
    chosen[0] = 1;
    assert_true(terse_search_predict(&s, chosen) >= 200 - 1e-6);
    /* half of the time: channels lose 1 point, chains 4 and do not reach it; three quarters: channels, 0.25 */
    assert_int_equal(terse_search_pick_any(&s, EVERY_KIND, 200, chosen, &error), TERSE_OK);
    assert_true(s.at.amount == 0.5 && chosen[0] == 0 && chosen[1] == 0);
    assert_int_equal(terse_search_pick_any(&s, EVERY_KIND, 301, chosen, &error), TERSE_OK);
    assert_true(s.at.amount == 0.25);
    /* where they may not go, chains are what there is */
    assert_int_equal(terse_search_pick_any(&s, EVERY_KIND & ~WITH_CHANNELS, 301, chosen, &error), TERSE_OK);
    assert_true(s.at.amount == 0 && chosen[0] == 1 && chosen[1] == 1);
    assert_int_equal(terse_search_pick(&s, EVERY_KIND, 250, NULL, chosen, &fits, &error), TERSE_OK);
    assert_false(fits);
    /* the lightest network within a drop */
    double total = 0;
    assert_int_equal(
        terse_search_total_for(&s, EVERY_KIND, 1.1, terse_search_lightest(&s, EVERY_KIND), 400, chosen, &total, &error),
        TERSE_OK);
    assert_true(s.at.amount == 0.5 && total < 202);
    /* by bytes */
    goal = (terse_search_goal){.max_drop = -1, .target_bytes = 2200};
    assert_int_equal(terse_search_pick_any(&s, EVERY_KIND, 2200, chosen, &error), TERSE_OK);
    assert_true(s.at.amount == 0.5 && fabs(terse_search_predict(&s, chosen) - 2200) < 1e-6);
    terse_search_channels_done(&s);
}

static void plans_that_are_broken_are_refused_with_the_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "line 1: the text ends"},
        {"[]", "no member 'terse_plan'"},
        {"{\"terse_plan\": 2}", "'terse_plan' is 2, allowed are 1 to 1"},
        {"{\"terse_plan\": 1,\n \"layers\": 3}", "line 2: 'layers' is a number, allowed is a list"},
        {"{\"terse_plan\": 1, \"layers\": [{}]}", "a layer has no 'name'"},
        {"{\"terse_plan\": 1, \"layers\": [{\"name\": \"a\", \"rnak\": 3}]}", "a layer has no 'rnak'"},
        {"{\"terse_plan\": 1, \"layers\": [{\"name\": \"a\", \"rank\": 1.5}]}", "'rank' is 1.5, allowed are whole"},
        {"{\"terse_plan\": 1, \"layers\": [{\"name\": \"a\", \"prune\": 1.5}]}",
         "'prune' is 1.5, allowed are 0 to 0.99"},
        {"{\"terse_plan\": 1, \"layers\": [{\"name\": \"a\", \"form\": \"x\"}]}", "'form' is 'x', allowed are svd,"},
        {"{\"terse_plan\": 1, \"quantize\": \"int9\"}", "'quantize' is 'int9', allowed are none, int8"},
        {"{\"terse_plan\": 1, \"equalization\": \"all\"}", "'equalization' is 'all', allowed are tried, none, weights"},
        {"{\"terse_plan\": 1, \"held_out\": 1}", "'held_out' is 1"},
        {"{\"terse_plan\": 1,\n \"channels\": 1}", "line 2: 'channels' is 1, allowed are 0 to 0.99"},
        {"{\"terse_plan\": 1, \"channels\": \"0.2\"}", "'channels' is a text, allowed is a number"},
        {"{\"terse_plan\": 1, \"layers\": [{\"name\": \"a\", \"kept\": 2}]}", "'kept' is 2, allowed are 0 to 1"},
        {"{\"terse_plan\": 1, \"seed\": 1e999}", "is too large"},
        {"{\"terse_plan\": 1} x", "found 'x', needed is the end"},
        {"{\"terse_plan\": 01}", "found '0', needed is a value"},
        {"{\"a\": \"\\ud800\"}", "escape"},
        {"{\"a\": \"b", "the text ends"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "more than 32 deep"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FILE *out = fopen(path, "w");
        assert_non_null(out);
        fputs(cases[i].text, out);
        fclose(out);
        terse_search_plan plan = {0};
        terse_error error = {0};
        if (terse_search_plan_read(path, &plan, &error) == TERSE_OK)
            fail_msg("'%s' was taken", cases[i].text);
        if (!strstr(error.message, cases[i].says))
            fail_msg("'%s' says '%s', not '%s'", cases[i].text, error.message, cases[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_knapsack_finds_what_trying_everything_finds),
        cmocka_unit_test(rounding_never_breaks_the_budget),
        cmocka_unit_test(too_little_room_gives_the_lightest),
        cmocka_unit_test(goals_are_read_with_their_units),
        cmocka_unit_test(goals_that_are_none_are_refused),
        cmocka_unit_test(names_of_parts_find_the_choice_of_the_whole),
        cmocka_unit_test(a_plan_that_is_written_is_read_as_it_was),
        cmocka_unit_test(a_plan_says_what_channels_leave),
        cmocka_unit_test(channels_are_weighed_beside_choices_of_layers),
        cmocka_unit_test(plans_that_are_broken_are_refused_with_the_place),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
