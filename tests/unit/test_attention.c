/* SPDX-License-Identifier: Apache-2.0 */
/* HeadAttention against its definition in double, and attention written out in small nodes before and after the pass.
 */
#include "tests/unit/graph_maker.h"

#include "compress/passes/passes.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

typedef struct shape {
    int64_t b, t, s, h, d, e;
    int mask_rank;
    int64_t mask[4];
    float scale;
} shape;

static terse_graph *one_node(const shape *p)
{
    terse_graph *g = terse_graph_new();
    const int q = make_input(g, "q", DIMS(p->b, p->t, p->h, p->d)),
              k = make_input(g, "k", DIMS(p->b, p->s, p->h, p->d));
    const int v = make_input(g, "v", DIMS(p->b, p->s, p->h, p->e));
    const int mask = p->mask_rank ? make_input(g, "mask", p->mask_rank, p->mask) : TERSE_NO_VALUE;
    make_output(g, make_node(g, TERSE_OP_HEAD_ATTENTION, INPUTS(q, k, v, mask)));
    terse_node_set_float(g, last_node(g), "scale", (double)p->scale);
    state_values(g);
    return g;
}

static double mask_at(const shape *p, const float *mask, const int64_t *at)
{
    int64_t index = 0;
    for (int i = 0; i < p->mask_rank; i++)
        index = index * p->mask[i] + (p->mask[i] == 1 ? 0 : at[4 - p->mask_rank + i]);
    return mask ? (double)mask[index] : 0.0;
}

static void check_row(const shape *p, const terse_tensor *in, const float *y, int64_t b, int64_t h, int64_t t)
{
    const float *q = (const float *)in[0].data + ((b * p->t + t) * p->h + h) * p->d, *k = in[1].data, *v = in[2].data;
    double *scores = calloc((size_t)p->s + 1, sizeof *scores), most = -(double)INFINITY, sum = 0.0;
    for (int64_t s = 0; s < p->s; s++) {
        for (int64_t i = 0; i < p->d; i++)
            scores[s] += (double)q[i] * (double)k[((b * p->s + s) * p->h + h) * p->d + i];
        scores[s] =
            scores[s] * (double)p->scale + mask_at(p, p->mask_rank ? in[3].data : NULL, (int64_t[]){b, h, t, s});
        most = fmax(most, scores[s]);
    }
    for (int64_t s = 0; s < p->s; s++)
        sum += scores[s] = exp(scores[s] - most);
    for (int64_t i = 0; i < p->e; i++) {
        double want = 0.0;
        for (int64_t s = 0; s < p->s; s++)
            want += scores[s] / sum * (double)v[((b * p->s + s) * p->h + h) * p->e + i];
        const double got = (double)y[((b * p->t + t) * p->h + h) * p->e + i];
        if (!(fabs(got - want) < 2e-6))
            fail_msg("b %d h %d t %d column %d: %.9g, wanted %.9g", (int)b, (int)h, (int)t, (int)i, got, want);
    }
    free(scores);
}

static void check_shape(const shape *p)
{
    terse_graph *g = one_node(p);
    terse_tensor in[4];
    answers a = answer(g, 1, 23);
    random_inputs(g, 1, 23, in);
    assert_int_equal(terse_tensor_count(&a.tensors[0]), p->b * p->t * p->h * p->e);
    for (int64_t b = 0; b < p->b; b++)
        for (int64_t h = 0; h < p->h; h++)
            for (int64_t t = 0; t < p->t; t++)
                check_row(p, in, a.tensors[0].data, b, h, t);
    for (int i = 0; i < g->n_inputs; i++)
        free(in[i].data);
    answers_done(&a);
    terse_graph_free(g);
}

static void attention_follows_its_definition(void **state)
{
    (void)state;
    static const shape shapes[] = {{2, 7, 7, 3, 8, 8, 0, {0}, 1.0f},
                                   {1, 1, 33, 2, 5, 9, 0, {0}, 0.3f},
                                   {2, 5, 12, 2, 16, 4, 4, {2, 1, 1, 12}, 0.5f},
                                   {2, 5, 12, 2, 16, 4, 4, {2, 2, 5, 12}, 0.5f},
                                   {2, 5, 12, 2, 16, 4, 4, {1, 2, 1, 12}, 2.0f},
                                   {2, 5, 12, 2, 16, 4, 3, {1, 5, 12}, 1.0f},
                                   {2, 5, 12, 2, 16, 4, 2, {5, 12}, 1.0f},
                                   {2, 5, 12, 2, 16, 4, 1, {12}, 1.0f},
                                   {1, 40, 700, 1, 3, 17, 2, {40, 700}, 1.0f}, /* scores in several blocks */
                                   {1, 20, 2000, 1, 2, 2, 0, {0}, 1.0f},
                                   {1, 3, 1, 1, 1, 1, 0, {0}, 1.0f}};
    for (int i = 0; i < COUNT(shapes); i++)
        check_shape(&shapes[i]);
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    static const struct {
        int64_t k[4], v[4], mask[2];
        const char *text;
    } cases[] = {{{2, 6, 3, 4}, {2, 6, 3, 4}, {5, 6}, NULL},
                 {{2, 6, 3, 5}, {2, 6, 3, 4}, {5, 6}, "do not go together"},
                 {{2, 6, 2, 4}, {2, 6, 2, 4}, {5, 6}, "do not go together"},
                 {{1, 6, 3, 4}, {1, 6, 3, 4}, {5, 6}, "do not go together"},
                 {{2, 6, 3, 4}, {2, 7, 3, 4}, {5, 6}, "do not go together"},
                 {{2, 6, 3, 4}, {2, 6, 3, 4}, {5, 1}, "mask"},
                 {{2, 6, 3, 4}, {2, 6, 3, 4}, {4, 6}, "mask"}};
    for (int i = 0; i < COUNT(cases); i++) {
        terse_graph *g = terse_graph_new();
        const int q = make_input(g, "q", DIMS(2, 5, 3, 4)), k = make_input(g, "k", 4, cases[i].k);
        const int v = make_input(g, "v", 4, cases[i].v), mask = make_input(g, "mask", 2, cases[i].mask);
        make_output(g, make_node(g, TERSE_OP_HEAD_ATTENTION, INPUTS(q, k, v, mask)));
        const terse_kernels *kernels;
        terse_engine *engine = NULL;
        terse_plan *plan;
        terse_error error = {0};
        terse_tensor inputs[4];
        assert_int_equal(terse_kernels_get(&kernels, &error), TERSE_OK);
        random_inputs(g, 2, 1, inputs);
        int status = terse_engine_new(g, kernels, 2, 0, &engine, &error);
        if (status == TERSE_OK)
            status = terse_engine_plan(engine, inputs, &plan, &error);
        if (cases[i].text ? status == TERSE_OK || !strstr(error.message, cases[i].text) : status != TERSE_OK)
            fail_msg("case %d: '%s'", i, error.message);
        for (int j = 0; j < 4; j++)
            free(inputs[j].data);
        terse_engine_free(engine);
        terse_graph_free(g);
    }
}

/* --- the pass --------------------------------------------------------------------------------------------------------
 */

typedef struct form {
    int scale;        /* 0: none, 1: Mul by a number, 2: Div, 3: the number first, 4: roots of it on q and k */
    int mask;         /* 0: none, 1: behind the scores, 2: in front of them, 3: one column for all (kept written out) */
    bool shared;      /* somebody else reads the scores (kept written out) */
    bool other_order; /* heads are not where they should be (kept written out) */
} form;

static int transpose(terse_graph *g, int x, const int64_t *perm)
{
    const int y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
    terse_node_set_ints(g, last_node(g), "perm", perm, 4);
    return y;
}

static int heads(terse_graph *g, int x, bool turned)
{
    const int w = make_weights(g, 0, 0.3f, DIMS(12, 12));
    x = make_node(g, TERSE_OP_MATMUL, INPUTS(x, w));
    x = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 4, (int64_t[]){0, 0, 3, 4})));
    return transpose(g, x, turned ? (int64_t[]){0, 2, 3, 1} : (int64_t[]){0, 2, 1, 3});
}

static terse_graph *written_out(const form *f)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 77;
    const int x = make_input(g, "x", DIMS(BATCH, 9, 12));
    int q = heads(g, x, false), k = heads(g, x, true);
    const int v = heads(g, x, false);
    if (f->scale == 4) {
        q = make_node(g, TERSE_OP_MUL, INPUTS(q, make_number(g, 0.7f)));
        k = make_node(g, TERSE_OP_DIV, INPUTS(k, make_number(g, 1.4f)));
    }
    int y = make_node(g, TERSE_OP_MATMUL, INPUTS(q, k));
    const int scores = y, number = make_number(g, f->scale == 2 ? 2.0f : 0.5f);
    if (f->scale == 1 || f->scale == 2)
        y = make_node(g, f->scale == 1 ? TERSE_OP_MUL : TERSE_OP_DIV, INPUTS(y, number));
    else if (f->scale == 3)
        y = make_node(g, TERSE_OP_MUL, INPUTS(number, y));
    if (f->mask) {
        const int mask =
            f->mask == 3 ? make_input(g, "mask", DIMS(BATCH, 1, 9, 1)) : make_input(g, "mask", DIMS(BATCH, 1, 1, 9));
        y = f->mask == 2 ? make_node(g, TERSE_OP_ADD, INPUTS(mask, y)) : make_node(g, TERSE_OP_ADD, INPUTS(y, mask));
    }
    y = make_node(g, TERSE_OP_SOFTMAX, INPUTS(y));
    terse_node_set_int(g, last_node(g), "axis", 3);
    y = make_node(g, TERSE_OP_MATMUL, INPUTS(y, v));
    y = transpose(g, y, f->other_order ? (int64_t[]){0, 2, 3, 1} : (int64_t[]){0, 2, 1, 3});
    y = make_node(g, TERSE_OP_RESHAPE, INPUTS(y, make_ints(g, 3, (int64_t[]){0, 0, -1})));
    make_output(g, y);
    if (f->shared)
        make_output(g, scores);
    state_values(g);
    return g;
}

static void check_form(const form *f, bool found)
{
    terse_graph *g = written_out(f);
    answers before = answer(g, 3, 9);
    terse_error error = {0};
    if (terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK ||
        terse_passes_run(g, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(count_ops(g, TERSE_OP_HEAD_ATTENTION), found);
    if (found) {
        assert_int_equal(count_ops(g, TERSE_OP_TRANSPOSE), 0);
        assert_int_equal(count_ops(g, TERSE_OP_SOFTMAX), 0);
        assert_int_equal(count_ops(g, TERSE_OP_MATMUL), 3);
    }
    answers after = answer(g, 3, 9), one = answer(g, 1, 9);
    assert_true(apart(&before, &after) < 1e-5);
    if (!f->mask) /* the first row alone has the bits that it has among others */
        assert_memory_equal(after.tensors[0].data, one.tensors[0].data, 9 * 12 * sizeof(float));
    answers_done(&before);
    answers_done(&after);
    answers_done(&one);
    terse_graph_free(g);
}

static void attention_written_out_becomes_one_node(void **state)
{
    (void)state;
    for (int scale = 0; scale < 5; scale++)
        for (int mask = 0; mask < 3; mask++)
            check_form(&(form){.scale = scale, .mask = mask}, true);
}

static void what_is_not_attention_stays(void **state)
{
    (void)state;
    check_form(&(form){.scale = 1, .mask = 3}, false);
    check_form(&(form){.scale = 1, .shared = true}, false);
    check_form(&(form){.scale = 1, .other_order = true}, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_follows_its_definition),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(attention_written_out_becomes_one_node),
        cmocka_unit_test(what_is_not_attention_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
