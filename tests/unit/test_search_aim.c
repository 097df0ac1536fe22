/* SPDX-License-Identifier: Apache-2.0 */
/* What a search aims at: predictions corrected by what was measured, what is near enough, what is worth training. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compress/search/search_steps.h"

enum { LAYERS = 6, RANKS = 5 };

static void what_is_corrected_is_found_again(void **state)
{
    (void)state;
    const double saves[] = {0.3, 0.7, 1, 1.3};
    for (int i = 0; i < 4; i++) {
        const double model = terse_aim_model(400, 280, saves[i]);
        assert_true(fabs(terse_aim_corrected(400, model, saves[i]) - 280) < 1e-9);
    }
    /* of 100 us that were to be saved 75 were: for as many as were wanted it takes a third more */
    const double learnt = terse_aim_learn(1, 400, 300, 325);
    assert_true(fabs(learnt - 0.75) < 1e-9);
    assert_true(fabs(terse_aim_model(400, 300, learnt) - (400 - 100 / 0.75)) < 1e-9);
    /* what saves next to nothing says nothing, and what is out of all proportion little */
    assert_true(terse_aim_learn(0.8, 400, 396, 420) == 0.8);
    assert_true(terse_aim_learn(0.8, 400, 500, 380) == 0.8);
    assert_true(terse_aim_learn(1, 400, 300, 405) == 0.3);
    assert_true(terse_aim_learn(1, 400, 300, 100) == 1.3);
}

static void what_is_aimed_at_is_a_little_less_than_the_target(void **state)
{
    (void)state;
    assert_true(terse_aim_for(100, false) < 99 && terse_aim_for(100, false) > 97);
    assert_true(terse_aim_for(100, true) == 100); /* bytes do not differ from run to run */
    assert_true(terse_aim_is_there(100, 100) && terse_aim_is_there(98, 100));
    assert_false(terse_aim_is_there(100.1, 100));
    assert_false(terse_aim_is_there(90, 100)); /* it could lose less */
    assert_false(terse_aim_is_there(96, 100));
    assert_true(terse_aim_again(80, 104, 100) < 80 * 100.0 / 104 && terse_aim_again(80, 90, 100) > 80);
    assert_true(terse_aim_missed(100, 100) == 0 && terse_aim_missed(100.7, 100) == 1);
    assert_true(terse_aim_missed(101.2, 100) == 2 && terse_aim_missed(50, 0) == 0);
}

static void bf16_is_built_where_it_may_be_the_best(void **state)
{
    (void)state;
    assert_true(terse_aim_bf16_may_win(100, 60, 0) && terse_aim_bf16_may_win(100, 150, 0));
    assert_false(terse_aim_bf16_may_win(100, 40, 0)); /* twice the speed of FP32 is the most that it can have */
    /* slower than int8, but fast enough where that has been told: there it loses less */
    assert_true(terse_aim_bf16_may_win(10000, 4500, 6000));
    assert_false(terse_aim_bf16_may_win(10000, 4500, 4800));
}

static void what_is_as_fast_as_asked_for_is_trained_first(void **state)
{
    (void)state;
    assert_true(terse_aim_is_near(102, 100) && terse_aim_is_near(80, 100));
    assert_false(terse_aim_is_near(104, 100));
    assert_false(terse_aim_is_near(80, 0)); /* no speed is asked for */
    assert_true(terse_aim_is_more_promising(100, 5, 101, 1, 100));
    assert_false(terse_aim_is_more_promising(101, 1, 100, 5, 100));
    assert_true(terse_aim_is_more_promising(99, 2, 90, 3, 100));
    assert_true(terse_aim_is_more_promising(90, 2, 99, 2, 100));
    /* all that can have their epochs, and one in any case */
    assert_int_equal(terse_aim_divide(100, 10, 2, 0, 4), 3);
    assert_int_equal(terse_aim_divide(1000, 10, 2, 0, 4), 4);
    assert_int_equal(terse_aim_divide(30, 10, 10, 0, 4), 1);
    assert_int_equal(terse_aim_divide(0, 10, 10, 0, 0), 1);
    /* as many epochs as are asked for */
    assert_int_equal(terse_aim_divide(100, 10, 2, 2, 4), 4);
    assert_int_equal(terse_aim_divide(100, 10, 2, 20, 4), 2);
    assert_int_equal(terse_aim_divide(100, 10, 2, 60, 4), 1);
}

/* Layers of 100 us with chains of fewer and fewer, which lose more and more, the later layers less. */
static void make_search(search *s, terse_search_goal *goal, terse_table_layer layers[LAYERS])
{
    terse_goal_init(goal);
    goal->target_speedup = 1.4;
    *s = (search){
        .goal = goal, .base_us = 700, .base_bytes = 7000, .dense_us = 700, .dense_known = true, .per_cost = 10};
    s->table = (terse_table){.layers = layers, .n = LAYERS, .other_us = 100};
    for (int l = 0; l < LAYERS; l++) {
        layers[l] = (terse_table_layer){.n = 1 + RANKS};
        snprintf(layers[l].name, sizeof layers[l].name, "%c", 'a' + l);
        layers[l].options[0] = (terse_table_option){.us = 100, .bytes = 1000};
        for (int r = 1; r <= RANKS; r++)
            layers[l].options[r] = (terse_table_option){.kind = TERSE_OPTION_LOW_RANK,
                                                        .us = 100 - 15 * r,
                                                        .bytes = 1000 - 150 * r,
                                                        .cost = 0.01 * r * r / (1 + l)};
    }
}

/* Together they save 0.72 of what each saves alone, and times are off by half a percent: the second network that is
 * built is as fast as asked for, where the first is not. */
static void a_target_that_is_missed_by_little_is_reached_by_the_next(void **state)
{
    (void)state;
    search s;
    terse_search_goal goal;
    static terse_table_layer layers[LAYERS];
    terse_error error;
    int chosen[LAYERS];
    make_search(&s, &goal, layers);
    const double target = terse_search_target(&s);
    assert_true(fabs(target - 500) < 1e-9);
    double found = 0;
    int built = 0;
    for (; built < 4 && !terse_aim_is_there(found, target); built++) {
        assert_int_equal(
            terse_search_pick_any(&s, 1u << TERSE_OPTION_LOW_RANK, terse_aim_for(target, false), chosen, &error),
            TERSE_OK);
        double model = 100;
        for (int l = 0; l < LAYERS; l++)
            model += layers[l].options[chosen[l]].us;
        found = (700 - 0.72 * (700 - model)) * (built % 2 ? 1.005 : 0.995);
        if (built == 0)
            assert_true(found > target);
        terse_search_learn_time(&s, chosen, found);
        if (built == 0) /* what was seen is expected; of several, what lies between them */
            assert_true(fabs(terse_search_predict(&s, chosen) - found) < 1e-6);
    }
    assert_int_equal(built, 2);
    /* by bytes nothing is learnt from times */
    goal = (terse_search_goal){.max_drop = -1, .target_bytes = 5000};
    assert_int_equal(terse_search_pick_any(&s, EVERY_KIND, 5000, chosen, &error), TERSE_OK);
    assert_true(terse_search_predict(&s, chosen) <= 5000 + 1e-6);
    terse_search_channels_done(&s);
}

static int add(search *s, double us, double drop, bool dense)
{
    terse_measured *m = terse_search_plan_add_measured(&s->book);
    terse_error error;
    assert_non_null(m);
    m->us = us;
    m->drop = drop;
    m->dense = dense;
    const int index = s->book.n_measured - 1;
    const terse_search_plan plan = {.channels = drop / 100};
    assert_int_equal(terse_search_pool_offer(s, &plan, index, &error), TERSE_OK);
    return index;
}

static void the_most_promising_ones_are_kept_for_training(void **state)
{
    (void)state;
    search s;
    terse_search_goal goal;
    static terse_table_layer layers[LAYERS];
    make_search(&s, &goal, layers);
    add(&s, 400, 1, true);    /* no: all layers dense */
    add(&s, 520, 0.1, false); /* no: too slow by 4 % */
    const int near = add(&s, 510, 1, false);
    assert_int_equal(s.n_pool, 1);
    const int much = add(&s, 495, 7, false), little = add(&s, 490, 3, false);
    assert_int_equal(s.n_pool, 3);
    assert_int_equal(s.pool[0].index, little);
    assert_int_equal(s.pool[1].index, much);
    assert_int_equal(s.pool[2].index, near);
    assert_true(s.pool[0].plan.channels == 0.03);
    add(&s, 480, 4, false);
    const int fifth = add(&s, 480, 5, false); /* what misses the speed goes first */
    assert_int_equal(s.n_pool, SEARCH_POOL);
    assert_int_equal(s.pool[2].index, fifth);
    assert_int_equal(s.pool[3].index, much);
    add(&s, 480, 9, false);
    assert_int_equal(s.pool[3].index, much);
    terse_search_pool_done(&s);
    terse_search_plan_done(&s.book);
}

/* Time is divided among those that are trained. */
static void what_misses_the_speed_has_no_turn_where_one_has_it(void **state)
{
    (void)state;
    search s;
    terse_search_goal goal;
    static terse_table_layer layers[LAYERS];
    make_search(&s, &goal, layers);
    assert_int_equal(terse_search_pool_turns(&s), 0);
    for (int i = 0; i < 3; i++)
        add(&s, 501 + i, 1 + i, false);
    assert_int_equal(terse_search_pool_turns(&s), 3);
    add(&s, 500, 7, false);
    assert_int_equal(s.n_pool, 4);
    assert_int_equal(terse_search_pool_turns(&s), 1);
    add(&s, 480, 9, false);
    assert_int_equal(terse_search_pool_turns(&s), 2);
    terse_search_pool_done(&s);
    terse_search_plan_done(&s.book);
}

/* Of networks that miss the speed by as many percent the one that loses less is nearer; by more, the faster one. */
static void what_misses_by_noise_is_told_apart_by_its_drop(void **state)
{
    (void)state;
    search s;
    terse_search_goal goal;
    static terse_table_layer layers[LAYERS];
    make_search(&s, &goal, layers);
    const terse_measured a = {.us = 501, .drop = 5}, b = {.us = 504, .drop = 1}, c = {.us = 530, .drop = 0.5};
    assert_true(terse_search_better(&s, &b, &a) && !terse_search_better(&s, &a, &b));
    assert_true(terse_search_better(&s, &a, &c) && terse_search_better(&s, &b, &c));
    const terse_measured there = {.us = 500, .drop = 20};
    assert_true(terse_search_better(&s, &there, &b));
}

static void where_the_time_went_is_told(void **state)
{
    (void)state;
    char text[TERSE_PLAN_TEXT];
    const uint64_t from = 5000000000u, second = 1000000000u;
    search s = {.n_builds = 7, .entered = from, .spent = {[SEARCH_TABLE] = 80.2, [SEARCH_TOGETHER] = 0.2}};
    terse_search_enter(&s, SEARCH_CHANNELS, from + second / 4);
    assert_string_equal(terse_search_say_spent(&s, from + second / 4, text),
                        "7 networks built, 80 s for the table of choices");
    s.n_trained = 2;
    assert_string_equal(terse_search_say_spent(&s, from + 31 * second, text),
                        "7 networks built, 2 of them trained, 31 s for channels alone, 80 s for the table of choices");
    terse_search_enter(&s, SEARCH_OTHER, from + 31 * second);
    assert_string_equal(terse_search_say_spent(&s, from + 33 * second, text),
                        "7 networks built, 2 of them trained, 31 s for channels alone, 80 s for the table of choices, "
                        "2 s for the rest");
}

/* No number is cut in its middle: what does not fit whole is not there. */
static void what_was_trained_is_told_whole_or_not_at_all(void **state)
{
    (void)state;
    search s = {0};
    char all[2 * TERSE_PLAN_TEXT] = "";
    for (int i = 0; i < 20; i++) {
        char before[TERSE_PLAN_TEXT];
        snprintf(before, sizeof before, "%s", s.trained);
        terse_search_note(&s, "network %d: drop %.2f", i, 1000.25 + i);
        snprintf(all, sizeof all, i ? "%s; network %d: drop %.2f" : "%snetwork %d: drop %.2f", before, i, 1000.25 + i);
        assert_string_equal(s.trained, strlen(all) < sizeof s.trained ? all : before);
    }
    assert_true(strlen(all) >= sizeof s.trained); /* there was one that did not fit */
    char most[sizeof s.trained];
    memset(most, 'x', sizeof most);
    most[sizeof most - 1] = 0;
    s.trained[0] = 0;
    terse_search_note(&s, "%s", most);
    assert_string_equal(s.trained, most);
    terse_search_note(&s, "y");
    assert_string_equal(s.trained, most);
}

typedef struct written {
    char trained[TERSE_PLAN_TEXT], recovered[TERSE_PLAN_TEXT];
} written;

static int write_texts(void *context, const terse_search_plan *plan, bool reached, terse_error *error)
{
    (void)reached;
    (void)error;
    written *w = context;
    snprintf(w->trained, sizeof w->trained, "%s", plan->trained);
    snprintf(w->recovered, sizeof w->recovered, "%s", plan->recovered);
    return TERSE_OK;
}

/* Whichever network becomes the best one afterwards: the search says of it why nothing is trained, but what a trained
 * one says of itself stays. */
static void why_nothing_is_trained_is_told_of_each_best_one(void **state)
{
    (void)state;
    search s;
    terse_search_goal goal;
    static terse_table_layer layers[LAYERS];
    terse_error error;
    written w = {0};
    const terse_search_hooks hooks = {.context = &w, .write = write_texts};
    make_search(&s, &goal, layers);
    s.hooks = &hooks;
    add(&s, 400, 1, true);
    snprintf(s.untrained, sizeof s.untrained, "not trained: it cannot be");
    terse_search_note(&s, "none: there was no time for it");
    assert_int_equal(terse_search_write(&s, &error), TERSE_OK);
    assert_string_equal(w.recovered, "not trained: it cannot be");
    assert_string_equal(w.trained, "none: there was no time for it");
    s.best.recover_epochs = 3;
    snprintf(s.best.recovered, sizeof s.best.recovered, "3 epochs");
    assert_int_equal(terse_search_write(&s, &error), TERSE_OK);
    assert_string_equal(w.recovered, "3 epochs");
    terse_search_plan_done(&s.best);
    terse_search_plan_done(&s.book);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_corrected_is_found_again),
        cmocka_unit_test(what_is_aimed_at_is_a_little_less_than_the_target),
        cmocka_unit_test(bf16_is_built_where_it_may_be_the_best),
        cmocka_unit_test(what_is_as_fast_as_asked_for_is_trained_first),
        cmocka_unit_test(a_target_that_is_missed_by_little_is_reached_by_the_next),
        cmocka_unit_test(the_most_promising_ones_are_kept_for_training),
        cmocka_unit_test(what_misses_the_speed_has_no_turn_where_one_has_it),
        cmocka_unit_test(what_misses_by_noise_is_told_apart_by_its_drop),
        cmocka_unit_test(where_the_time_went_is_told),
        cmocka_unit_test(what_was_trained_is_told_whole_or_not_at_all),
        cmocka_unit_test(why_nothing_is_trained_is_told_of_each_best_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
