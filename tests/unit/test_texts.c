/* SPDX-License-Identifier: Apache-2.0 */
/* What language models write: by their own probabilities, and nothing from networks that are none. And which of their
 * products keep 8 bits. */
#include "tests/unit/graph_maker.h"

#include "compress/drafts.h"
#include "compress/quantize/mixed.h"
#include "compress/texts.h"

enum { V = 32, T = 12, N = 16 };
#define BATCH TERSE_DIM_OF_SYMBOL(0)
#define LENGTH TERSE_DIM_OF_SYMBOL(1)

/* Behind token t come 3 t + 1 or 3 t + 2, `sure` logits above all others. mixing: every row reads all tokens. */
static terse_graph *speaker(float sure, bool mixing, terse_dtype dtype)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    terse_graph_symbol(g, "T");
    const int x = make_input(g, "tokens", DIMS(BATCH, LENGTH));
    g->values[x].dtype = dtype;
    float *table = terse_arena_alloc(g->arena, V * V * sizeof *table), *follow = calloc(V * V, sizeof *follow);
    for (int i = 0; i < V; i++) {
        table[i * V + i] = 1;
        follow[i * V + (3 * i + 1) % V] = follow[i * V + (3 * i + 2) % V] = sure;
    }
    float *w = terse_arena_alloc(g->arena, V * V * sizeof *w);
    memcpy(w, follow, V * V * sizeof *w);
    free(follow);
    int y = make_node(g, TERSE_OP_GATHER,
                      INPUTS(terse_graph_add_constant(g, "table", TERSE_FP32, 2, (int64_t[]){V, V}, table), x));
    if (mixing) {
        const int mean = make_node(g, TERSE_OP_REDUCE_MEAN, INPUTS(y, make_ints(g, 1, (int64_t[]){1})));
        y = make_node(g, TERSE_OP_ADD, INPUTS(y, mean));
    }
    y = make_node(g, TERSE_OP_MATMUL, INPUTS(y, terse_graph_add_constant(g, "w", TERSE_FP32, 2, (int64_t[]){V, V}, w)));
    make_output(g, y);
    state_values(g);
    g->values[y].rank = 3;
    memcpy(g->values[y].dims, ((const int64_t[]){BATCH, LENGTH, V}), 3 * sizeof(int64_t));
    g->batchable = true;
    return g;
}

/* Texts as the speaker would have them. */
static terse_npz samples(terse_dtype dtype)
{
    terse_npz npz = {.n = 1, .names = calloc(1, sizeof(char *)), .tensors = calloc(1, sizeof(terse_tensor))};
    void *data = malloc(N * T * sizeof(int64_t));
    for (int64_t i = 0, t = 0; i < N * T; i++) {
        t = i % T == 0 ? i / T : (3 * t + 1 + i % 2) % V;
        if (dtype == TERSE_INT64)
            ((int64_t *)data)[i] = t;
        else
            ((int32_t *)data)[i] = (int32_t)t;
    }
    npz.names[0] = strdup("tokens");
    npz.tensors[0] = terse_tensor_view(data, dtype, 2, (int64_t[]){N, T});
    return npz;
}

static int64_t token(const terse_npz *npz, int64_t at)
{
    return npz->tensors[0].dtype == TERSE_INT64 ? ((const int64_t *)npz->tensors[0].data)[at]
                                                : ((const int32_t *)npz->tensors[0].data)[at];
}

static void texts_follow_the_probabilities(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        const terse_dtype dtype = d ? TERSE_INT32 : TERSE_INT64;
        terse_graph *g = speaker(30, false, dtype);
        terse_npz data = samples(dtype), *made = NULL, *again = NULL;
        terse_error error = {0};
        int64_t texts = 0;
        const terse_texts_options options = {.work = 1e9, .tokens = (N + 400) * T};
        assert_int_equal(terse_texts_write(g, &data, &options, &made, &texts, &error), TERSE_OK);
        assert_int_equal(texts, 400);
        assert_int_equal(made->tensors[0].dims[0], N + 400);
        for (int64_t i = 0; i < N * T; i++)
            assert_int_equal(token(made, i), token(&data, i));
        int64_t first = 0, all = 0;
        for (int64_t i = N * T; i < (N + 400) * T; i++) {
            const int64_t before = token(made, i - 1), now = token(made, i);
            if (i % T == 0)
                continue;
            assert_true(now == (3 * before + 1) % V || now == (3 * before + 2) % V);
            first += now == (3 * before + 1) % V;
            all++;
        }
        assert_true(first > 4 * all / 10 && first < 6 * all / 10); /* both are as likely */
        assert_int_equal(terse_texts_write(g, &data, &options, &again, &texts, &error), TERSE_OK);
        assert_memory_equal(made->tensors[0].data, again->tensors[0].data, (size_t)terse_tensor_bytes(made->tensors));
        terse_npz_free(made);
        terse_npz_free(again);
        samples_done(&data);
        terse_graph_free(g);
    }
}

/* Tables of a network without attention have the same bits however long a run is, so the texts have them too. */
static void guesses_change_no_text(void **state)
{
    (void)state;
    terse_graph *g = speaker(3, false, TERSE_INT64);
    terse_npz data = samples(TERSE_INT64), *made[3];
    terse_error error = {0};
    static const size_t memory[3] = {0, 2048 * (V * sizeof(float) + 8),
                                     1 << 20}; /* none, the least, more than enough */
    int64_t runs[3];
    for (int i = 0; i < 3; i++) {
        int64_t texts = 0;
        const terse_texts_options options = {
            .work = 1e9, .tokens = (N + 400) * T, .memory = memory[i], .ret_runs = &runs[i]};
        assert_int_equal(terse_texts_write(g, &data, &options, &made[i], &texts, &error), TERSE_OK);
        assert_int_equal(texts, 400);
        assert_memory_equal(made[0]->tensors[0].data, made[i]->tensors[0].data,
                            (size_t)terse_tensor_bytes(made[0]->tensors));
    }
    /* One for each token that was drawn, and with guesses fewer. */
    assert_true(runs[0] > 400 * T / 2 && runs[0] < 400 * T);
    assert_true(runs[1] < 7 * runs[0] / 10 && runs[2] < 7 * runs[0] / 10);
    for (int i = 0; i < 3; i++)
        terse_npz_free(made[i]);
    samples_done(&data);
    terse_graph_free(g);
}

static void what_is_remembered_is_guessed(void **state)
{
    (void)state;
    enum { DRAWN = 20000 };
    const float logits[4] = {0, logf(2), logf(5), -INFINITY}, others[4] = {9, 0, 0, 0};
    const int64_t text[4] = {3, 1, 2, 1};
    terse_drafts *drafts = terse_drafts_new(4, 1 << 16);
    int64_t drawn[4] = {0};
    assert_non_null(drafts);
    for (uint64_t i = 0; i < DRAWN; i++)
        drawn[terse_drafts_draw(logits, 4, terse_drafts_mixed(i))]++;
    for (int k = 0; k < 3; k++) { /* within five standard deviations of 1, 2 and 5 eighths */
        const double share = (double[]){0.125, 0.25, 0.625}[k], off = (double)drawn[k] - share * DRAWN;
        assert_true(off * off < 25 * DRAWN * share * (1 - share));
    }
    assert_int_equal(drawn[3], 0);
    assert_int_equal(terse_drafts_guess(drafts, text, 4, 7), -1);
    terse_drafts_remember(drafts, text, 4, logits);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(terse_drafts_guess(drafts, text, 4, i), terse_drafts_draw(logits, 4, i));
    /* Behind the one token before alone that is known too, behind another one it is not. */
    assert_int_equal(terse_drafts_guess(drafts, text, 2, 7), terse_drafts_draw(logits, 4, 7));
    assert_int_equal(terse_drafts_guess(drafts, text, 3, 7), -1);
    /* More words count more, later ones too. */
    terse_drafts_remember(drafts, text, 2, others);
    assert_int_equal(terse_drafts_guess(drafts, text, 2, 7), 0);
    int64_t same = 0;
    for (uint64_t i = 0; i < 100; i++)
        same += terse_drafts_guess(drafts, text, 4, i) == terse_drafts_draw(logits, 4, i);
    assert_int_equal(same, 100);
    assert_null(terse_drafts_new(4, 2047 * (4 * sizeof(float) + 8)));
    assert_int_equal(terse_drafts_guess(NULL, text, 4, 7), -1);
    terse_drafts_remember(NULL, text, 4, logits);
    terse_drafts_free(drafts);
}

static void nothing_is_written(terse_graph *g, terse_npz *data, double work, int64_t tokens)
{
    terse_npz *made = data;
    terse_error error = {0};
    int64_t texts = -1;
    const terse_texts_options options = {.work = work, .tokens = tokens};
    assert_int_equal(terse_texts_write(g, data, &options, &made, &texts, &error), TERSE_OK);
    assert_null(made);
    assert_int_equal(texts, 0);
    terse_graph_free(g);
}

static void networks_that_are_no_speakers_write_nothing(void **state)
{
    (void)state;
    terse_npz data = samples(TERSE_INT64);
    nothing_is_written(speaker(30, true, TERSE_INT64), &data, 1e9, 1 << 15);  /* rows know what comes later */
    nothing_is_written(speaker(0, false, TERSE_INT64), &data, 1e9, 1 << 15);  /* foretells nothing */
    nothing_is_written(speaker(30, false, TERSE_INT64), &data, 1e3, 1 << 15); /* too much work */
    nothing_is_written(speaker(30, false, TERSE_INT64), &data, 1e9, N * T);   /* there is enough */
    ((int64_t *)data.tensors[0].data)[7] = V;                                 /* no such token */
    nothing_is_written(speaker(30, false, TERSE_INT64), &data, 1e9, 1 << 15);
    samples_done(&data);
}

/* Two products of the same size, of which the outputs need one much more. */
static terse_graph *unequal(void)
{
    terse_graph *g = terse_graph_new();
    terse_graph_symbol(g, "N");
    random_state = 77;
    const int x = make_input(g, "x", DIMS(BATCH, 64));
    const int a = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 1, DIMS(64, 64))));
    last_node(g)->name = "much";
    const int b = make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 0.05f, DIMS(64, 64))));
    last_node(g)->name = "little";
    int y = make_node(g, TERSE_OP_ADD, INPUTS(a, b));
    for (int i = 0; i < 4; i++) {
        y = make_node(g, TERSE_OP_ADD,
                      INPUTS(y, make_node(g, TERSE_OP_MATMUL, INPUTS(x, make_weights(g, 0, 0.02f, DIMS(64, 64))))));
        g->nodes[g->n_nodes - 2].name = "tiny";
    }
    make_output(g, y);
    state_values(g);
    g->batchable = true;
    return g;
}

static void what_costs_most_keeps_8_bits(void **state)
{
    (void)state;
    terse_graph *g = unequal();
    float *numbers = malloc(64 * 64 * sizeof *numbers);
    for (int i = 0; i < 64 * 64; i++)
        numbers[i] = random_number();
    terse_tensor tensor = terse_tensor_view(numbers, TERSE_FP32, 2, (int64_t[]){64, 64});
    char *name = (char[]){"x"};
    const terse_npz data = {.n = 1, .names = &name, .tensors = &tensor};
    terse_mixed m = {0};
    terse_error error = {0};
    assert_int_equal(terse_mixed_choose(g, 32, NULL, &data, NULL, NULL, &m, &error), TERSE_OK);
    assert_int_equal(m.of, 6);
    assert_int_equal(m.n, 1);
    assert_string_equal(m.names[0], "much");
    assert_true(terse_mixed_keeps(&m, "much") && !terse_mixed_keeps(&m, "little"));
    assert_true(m.more > 0.05 && m.more <= 0.2 && m.lost < 0.1 * m.lost_all);
    terse_mixed_done(&m);
    assert_int_equal(terse_mixed_choose(g, 32, NULL, NULL, NULL, NULL, &m, &error), TERSE_OK);
    assert_int_equal(m.n, 0); /* nothing is known without samples */
    terse_mixed_done(&m);
    assert_int_equal(terse_mixed_choose(g, 32, "little", &data, NULL, NULL, &m, &error), TERSE_OK);
    assert_int_equal(m.n, 1);
    assert_string_equal(m.names[0], "little");
    terse_mixed_done(&m);
    assert_int_equal(terse_mixed_choose(g, 32, "none", &data, NULL, NULL, &m, &error), TERSE_OK);
    assert_int_equal(m.n, 0);
    terse_mixed_done(&m);
    assert_int_equal(terse_mixed_choose(g, 32, "mucho", &data, NULL, NULL, &m, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "--keep-int8 names 'mucho'"));
    free(numbers);
    terse_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_follow_the_probabilities), cmocka_unit_test(guesses_change_no_text),
        cmocka_unit_test(what_is_remembered_is_guessed),  cmocka_unit_test(networks_that_are_no_speakers_write_nothing),
        cmocka_unit_test(what_costs_most_keeps_8_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
