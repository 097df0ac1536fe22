/* SPDX-License-Identifier: Apache-2.0 */
/* Means and deviations of layers, as they were: what a network loses whose layers give too little, and that nothing is
 * kept that makes outputs worse. */
#include "tests/unit/graph_maker.h"

#include "compress/passes/edit.h"
#include "compress/statistics.h"

enum { N = 64, C = 8, SIDE = 6, WIDE = C * SIDE * SIDE };
#define BATCH TERSE_DIM_OF_SYMBOL(0)

/* Convolution, ReLU, convolution with a shortcut, Gemm: numbers, no classes. */
static terse_graph *network(void)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 5;
    const int x = make_input(g, "x", DIMS(BATCH, C, SIDE, SIDE));
    int y = make_relu(g, make_conv(g, x, C, C, 3, 1, 1, 1));
    y = make_node(g, TERSE_OP_ADD, INPUTS(y, make_conv(g, y, C, C, 1, 1, 0, 1)));
    y = make_node(g, TERSE_OP_FLATTEN, INPUTS(y));
    y = make_node(g, TERSE_OP_GEMM,
                  INPUTS(y, make_weights(g, 0, 0.2f, DIMS(WIDE, 1)), make_weights(g, 0, 0.3f, DIMS(1))));
    make_output(g, y);
    state_values(g);
    g->batchable = true;
    return g;
}

/* Weights of products by the factor, channel by channel a little different, biases moved. */
static void shrink(terse_graph *g, float factor)
{
    for (int i = 0; i < g->n_nodes; i++) {
        const terse_node *n = &g->nodes[i];
        if (n->op != TERSE_OP_CONV)
            continue;
        terse_value *w = &g->values[n->inputs[1]], *b = &g->values[n->inputs[2]];
        const int64_t count = terse_dims_count(w->dims, w->rank), inner = count / C;
        float *to = terse_arena_alloc(g->arena, (size_t)count * sizeof *to);
        float *offset = terse_arena_alloc(g->arena, C * sizeof *offset);
        for (int64_t k = 0; k < count; k++)
            to[k] = ((const float *)w->data)[k] * factor * (1 + 0.05f * (float)(k / inner));
        for (int64_t c = 0; c < C; c++)
            offset[c] = ((const float *)b->data)[c] + 0.3f;
        w->data = to;
        b->data = offset;
    }
}

static terse_npz samples(float *data)
{
    static char letters[] = "x", *name = letters;
    static terse_tensor tensor;
    for (int i = 0; i < N * WIDE; i++)
        data[i] = random_number();
    tensor = terse_tensor_view(data, TERSE_FP32, 4, (int64_t[]){N, C, SIDE, SIDE});
    return (terse_npz){.n = 1, .names = &name, .tensors = &tensor};
}

static void what_layers_give_is_restored(void **state)
{
    (void)state;
    terse_graph *teacher = network(), *student = NULL;
    terse_error error = {0};
    float *data = malloc(N * WIDE * sizeof *data);
    const terse_npz npz = samples(data);
    terse_statistics_report r = {0};
    assert_int_equal(terse_edit_clone(teacher, &student, &error), TERSE_OK);
    shrink(student, 0.6f);
    assert_int_equal(terse_statistics_run(teacher, student, &npz, NULL, NULL, &r, &error), TERSE_OK);
    assert_true(r.asked && r.kept);
    assert_int_equal(r.layers, 3);
    assert_true(r.before > 0.05 && r.after < 1e-4); /* all that was changed can be told from means and deviations */
    terse_graph_free(student);
    terse_graph_free(teacher);
    free(data);
}

static void nothing_is_changed_where_nothing_is_wrong(void **state)
{
    (void)state;
    terse_graph *teacher = network(), *student = NULL;
    terse_error error = {0};
    float *data = malloc(N * WIDE * sizeof *data);
    const terse_npz npz = samples(data);
    terse_statistics_report r = {0};
    assert_int_equal(terse_edit_clone(teacher, &student, &error), TERSE_OK);
    const void *weights[8];
    for (int i = 0; i < student->n_nodes; i++)
        weights[i] = student->nodes[i].n_inputs > 1 ? student->values[student->nodes[i].inputs[1]].data : NULL;
    assert_int_equal(terse_statistics_run(teacher, student, &npz, NULL, NULL, &r, &error), TERSE_OK);
    assert_false(r.kept); /* it was as good as can be */
    for (int i = 0; i < student->n_nodes; i++)
        assert_ptr_equal(weights[i],
                         student->nodes[i].n_inputs > 1 ? student->values[student->nodes[i].inputs[1]].data : NULL);
    terse_graph_free(student);
    terse_graph_free(teacher);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_layers_give_is_restored),
        cmocka_unit_test(nothing_is_changed_where_nothing_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
