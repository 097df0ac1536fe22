/* SPDX-License-Identifier: Apache-2.0 */
/* What layers could become: every layer has something coarse before any has something fine. */
#include "compress/passes/passes.h"
#include "compress/search/table.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_layer_has_what_is_coarse_before_any_has_what_is_fine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
