/* SPDX-License-Identifier: Apache-2.0 */
/* What layers could become: every layer has something coarse before any has something fine, and what is refused is
 * told. */
#include "compress/passes/passes.h"
#include "compress/search/search_steps.h"
#include "tests/unit/graph_maker.h"

enum { SIDE = 16, SAMPLES = 8, LAYERS = 3, COARSE = 3 };

static int conv(terse_graph *g, int x, int64_t c, int64_t filters)
{
    return make_relu(g, make_conv(g, x, c, filters, 3, 1, 1, 1));
}

static terse_graph *three_layers(void)
{
    terse_graph *g = terse_graph_new();
    assert_non_null(g);
    random_state = 7;
    const int x = make_input(g, "x", DIMS(1, 32, SIDE, SIDE));
    make_output(g, conv(g, conv(g, conv(g, x, 32, 64), 64, 64), 64, 64));
    state_values(g);
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s%d", g->nodes[i].op == TERSE_OP_CONV ? "conv" : "node", n++);
        g->nodes[i].name = terse_arena_text(g->arena, name, strlen(name));
    }
    return g;
}

/* Options of low rank of each layer; all of them. */
static int count_chains(double seconds, int *chains)
{
    static float numbers[SAMPLES * 32 * SIDE * SIDE];
    char name[] = "x", *names[] = {name};
    const int64_t dims[] = {SAMPLES, 32, SIDE, SIDE};
    terse_error error = {0};
    terse_table table = {0};
    random_state = 19;
    for (int i = 0; i < COUNT(numbers); i++)
        numbers[i] = random_number();
    terse_tensor samples = terse_tensor_view(numbers, TERSE_FP32, 4, dims);
    const terse_npz data = {.n = 1, .names = names, .tensors = &samples};
    terse_graph *g = three_layers(), *finished = NULL;
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_edit_clone(g, &finished, &error) != TERSE_OK ||
        terse_passes_run(finished, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    const terse_table_options options = {.seconds = seconds, .dense = finished};
    if (terse_table_make(g, &data, &options, &table, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(table.n, LAYERS);
    int all = 0;
    for (int l = 0; l < LAYERS; l++) {
        const terse_table_layer *layer = &table.layers[l];
        chains[l] = 0;
        for (int i = 0; i < layer->n; i++)
            chains[l] += layer->options[i].kind == TERSE_OPTION_LOW_RANK;
        for (int r = 0; r < layer->n_refused; r++)
            assert_null(strstr(layer->refused[r], "no time"));
        assert_true(layer->n > 1 || layer->n_refused > 0);
        all += chains[l];
    }
    terse_table_done(&table);
    terse_graph_free(g);
    terse_graph_free(finished);
    return all;
}

static void every_layer_has_what_is_coarse_before_any_has_what_is_fine(void **state)
{
    (void)state;
    int few[LAYERS], many[LAYERS];
    const int coarse = count_chains(0, few), fine = count_chains(3600, many);
    print_message("chains without time for fine ones: %d %d %d, with: %d %d %d\n", few[0], few[1], few[2], many[0],
                  many[1], many[2]);
    for (int l = 0; l < LAYERS; l++)
        assert_true(few[l] <= COARSE);
    assert_true(coarse > 0 && fine > coarse);
}

/* One layer between input and output has no channels that could go. Channels are asked for several times, before there
 * is a table or behind it, and there is room for few reasons in a layer. */
static void why_no_channels_go_is_told_once(void **state)
{
    (void)state;
    for (int table_first = 0; table_first < 2; table_first++) {
        terse_graph *g = terse_graph_new();
        terse_error error = {0};
        assert_non_null(g);
        make_output(g, make_conv(g, make_input(g, "x", DIMS(1, 32, SIDE, SIDE)), 32, 64, 3, 1, 1, 1));
        state_values(g);
        if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK)
            fail_msg("%s", error.message);
        terse_table_layer layer = {.name = "only", .n = 1};
        for (int n = 0; n < g->n_nodes; n++)
            g->nodes[n].name = g->nodes[n].op == TERSE_OP_CONV ? layer.name : "";
        terse_search_goal goal;
        terse_goal_init(&goal);
        goal.target_speedup = 2;
        const terse_search_input in = {.prepared = g};
        search s = {.in = &in, .goal = &goal, .base_us = 100, .dense_us = 100};
        const terse_table table = {.layers = &layer, .n = 1};
        if (table_first)
            s.table = table;
        assert_int_equal(terse_search_channels(&s, 50, FIRST_TRIALS, &error), TERSE_OK);
        if (!table_first) {
            s.table = table;
            terse_search_refuse_channels(&s);
        }
        assert_int_equal(terse_search_channels(&s, 50, ALL_TRIALS, &error), TERSE_OK);
        assert_true(s.most_channels == 0 && s.n_points == 0);
        assert_int_equal(layer.n_refused, 1);
        assert_non_null(strstr(layer.refused[0], "channels: "));
        terse_search_channels_done(&s);
        terse_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_has_what_is_coarse_before_any_has_what_is_fine),
        cmocka_unit_test(why_no_channels_go_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
