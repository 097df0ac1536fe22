/* SPDX-License-Identifier: Apache-2.0 */
/* A network without some of its channels gives what it gave with zeros in the place of all weights that read them:
 * random networks with shortcuts, Concat, Split, depthwise and grouped convolutions, shuffled channels and gates. And
 * the order in which channels go is that of brute force, and how many go of each layer fits the kernels. */
#include "compress/passes/passes.h"
#include "compress/prune/again.h"
#include "compress/prune/channels.h"
#include "compress/prune/rank.h"
#include "tests/unit/graph_maker.h"

static uint32_t choice_state;

static int choose(int n)
{
    choice_state = choice_state * 1664525u + 1013904223u;
    return (int)((uint64_t)(choice_state >> 4) * (uint64_t)n >> 28);
}

/* --- networks ----------------------------------------------------------------------------------------------------- */

enum { SIDE = 6 };

typedef struct feature {
    int value;
    int64_t c; /* [N,c,SIDE,SIDE] */
} feature;

typedef struct pool {
    feature list[64];
    int n;
} pool;

static void add(pool *p, int value, int64_t c)
{
    if (p->n < 64)
        p->list[p->n++] = (feature){value, c};
}

static void add_conv(terse_graph *g, pool *p, feature x)
{
    const int64_t kernel = choose(2) ? 3 : 1, filters = 4 * (1 + choose(4));
    add(p, make_relu(g, make_conv(g, x.value, x.c, filters, kernel, 1, kernel / 2, 1)), filters);
}

static void add_depthwise(terse_graph *g, pool *p, feature x)
{
    const int64_t each = x.c < 32 ? 1 + choose(2) : 1;
    add(p, make_conv(g, x.value, x.c, each * x.c, 3, 1, 1, x.c), each * x.c);
}

static void add_grouped(terse_graph *g, pool *p, feature x)
{
    const int64_t group = choose(2) ? 2 : 4, filters = group * (2 + choose(3));
    if (x.c % group == 0)
        add(p, make_conv(g, x.value, x.c, filters, 1, 1, 0, group), filters);
}

static void add_shortcut(terse_graph *g, pool *p, feature x)
{
    static const terse_op ops[] = {TERSE_OP_ADD, TERSE_OP_MUL, TERSE_OP_SUB, TERSE_OP_MAX};
    const int y = make_conv(g, x.value, x.c, x.c, 3, 1, 1, 1);
    const bool first = choose(2);
    const int sum = make_node(g, ops[choose(4)], INPUTS(first ? x.value : y, first ? y : x.value));
    add(p, make_relu(g, sum), x.c);
}

static void add_per_channel(terse_graph *g, pool *p, feature x)
{
    const int kind = choose(4);
    if (kind == 0)
        add(p, make_batch_norm(g, x.value, x.c), x.c);
    else if (kind == 1)
        add(p, make_node(g, TERSE_OP_PRELU, INPUTS(x.value, make_weights(g, 0, 0.5f, DIMS(x.c, 1, 1)))), x.c);
    else
        add(p,
            make_node(g, kind == 2 ? TERSE_OP_ADD : TERSE_OP_MUL,
                      INPUTS(make_weights(g, 0.5f, 0.5f, DIMS(1, x.c, 1, 1)), x.value)),
            x.c);
}

static void add_concat(terse_graph *g, pool *p, feature x)
{
    const feature y = p->list[choose(p->n)];
    if (x.c + y.c > 64)
        return;
    const int z = make_node(g, TERSE_OP_CONCAT, INPUTS(x.value, y.value));
    terse_node_set_int(g, last_node(g), "axis", 1);
    add(p, z, x.c + y.c);
}

static void add_split(terse_graph *g, pool *p, feature x)
{
    const int64_t sizes[2] = {4, x.c - 4};
    if (x.c < 8)
        return;
    const int outputs[2] = {terse_graph_add_value(g, "left"), terse_graph_add_value(g, "right")};
    const int inputs[2] = {x.value, make_ints(g, 2, sizes)};
    assert_non_null(terse_graph_add_node(g, TERSE_OP_SPLIT, "Split", inputs, 2, outputs, 2));
    terse_node_set_int(g, last_node(g), "axis", 1);
    add(p, outputs[0], sizes[0]);
    add(p, outputs[1], sizes[1]);
}

static void add_shuffle(terse_graph *g, pool *p, feature x)
{
    if (x.c % 2 != 0)
        return;
    const int64_t apart_shape[5] = {0, 2, x.c / 2, SIDE, SIDE}, whole[4] = {0, x.c, SIDE, -1};
    const int a = make_node(g, TERSE_OP_RESHAPE, INPUTS(x.value, make_ints(g, 5, apart_shape)));
    const int b = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(a));
    terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 1, 3, 4}, 5);
    add(p, make_node(g, TERSE_OP_RESHAPE, INPUTS(b, make_ints(g, 4, whole))), x.c);
}

static void add_gate(terse_graph *g, pool *p, feature x)
{
    const int mean = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(x.value));
    const int few = make_relu(g, make_conv(g, mean, x.c, 4, 1, 1, 0, 1));
    const int gate = make_node(g, TERSE_OP_SIGMOID, INPUTS(make_conv(g, few, 4, x.c, 1, 1, 0, 1)));
    add(p, make_node(g, TERSE_OP_MUL, INPUTS(x.value, gate)), x.c);
}

static void add_moved(terse_graph *g, pool *p, feature x)
{
    if (choose(2)) {
        const int y = make_node(g, TERSE_OP_MAX_POOL, INPUTS(x.value));
        terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){3, 3}, 2);
        terse_node_set_ints(g, last_node(g), "pads", (int64_t[]){1, 1, 1, 1}, 4);
        add(p, y, x.c);
        return;
    }
    const int y = make_node(g, TERSE_OP_PAD, INPUTS(x.value, make_ints(g, 8, (int64_t[]){0, 2, 0, 0, 0, 2, 0, 0})));
    add(p, y, x.c + 4);
}

/* Flatten or the mean, then two products. */
static void add_end(terse_graph *g, feature x)
{
    int flat, width;
    if (choose(2)) {
        flat = make_node(g, TERSE_OP_FLATTEN, INPUTS(x.value));
        width = (int)x.c * SIDE * SIDE;
    } else {
        const int mean = make_node(g, TERSE_OP_REDUCE_MEAN, INPUTS(x.value, make_ints(g, 2, (int64_t[]){2, -1})));
        terse_node_set_int(g, last_node(g), "keepdims", 0);
        flat = mean;
        width = (int)x.c;
    }
    const int hidden = make_relu(
        g, make_node(g, TERSE_OP_GEMM,
                     INPUTS(flat, make_weights(g, 0, 0.2f, DIMS(width, 12)), make_weights(g, 0, 0.5f, DIMS(1, 12)))));
    const int sum = make_node(g, TERSE_OP_MATMUL, INPUTS(hidden, make_weights(g, 0, 0.4f, DIMS(12, 5))));
    make_output(g, make_node(g, TERSE_OP_ADD, INPUTS(sum, make_weights(g, 0, 0.5f, DIMS(5)))));
}

static terse_graph *random_network(uint32_t seed)
{
    static void (*const makers[])(terse_graph *, pool *, feature) = {
        add_conv,   add_conv,    add_depthwise, add_grouped, add_shortcut, add_per_channel,
        add_concat, add_shuffle, add_gate,      add_moved,   add_split,    add_shortcut};
    terse_graph *g = terse_graph_new();
    assert_non_null(g);
    terse_graph_symbol(g, "N");
    pool p = {0};
    choice_state = seed * 2654435761u + 1;
    random_state = seed + 1;
    const int x = make_input(g, "x", DIMS(TERSE_DIM_OF_SYMBOL(0), 4, SIDE, SIDE));
    add(&p, make_conv(g, x, 4, 16, 3, 1, 1, 1), 16);
    for (int i = 0; i < 9; i++) {
        const int back = choose(3); /* mostly the newest ones */
        makers[choose(COUNT(makers))](g, &p, p.list[back < p.n ? p.n - 1 - back : p.n - 1]);
    }
    add_end(g, p.list[p.n - 1]);
    if (choose(4) == 0)
        make_output(g, p.list[choose(p.n)].value);
    return g;
}

/* --- cut and masked ----------------------------------------------------------------------------------------------- */

/* The weights of everything that reads a channel that is gone, with zeros for it. */
static void mask_weights(const terse_couple *c, const bool *gone, terse_graph *g)
{
    for (int node = 0; node < g->n_nodes; node++) {
        terse_couple_role role;
        const terse_node *n = &g->nodes[node];
        if (!terse_couple_role_of(c->edit, node, &role) || role.in_axis < 0 || c->values[n->inputs[0]].axis < 0)
            continue;
        terse_value *w = &g->values[n->inputs[1]];
        float *to = terse_arena_alloc(g->arena, w->bytes + 64);
        memcpy(to, w->data, w->bytes);
        const int64_t inner = terse_dims_count(w->dims + role.in_axis + 1, w->rank - role.in_axis - 1);
        for (int64_t i = 0; i < terse_dims_count(w->dims, w->rank); i++)
            if (gone[terse_couple_unit(c, c->values[n->inputs[0]].labels[i / inner % w->dims[role.in_axis]])])
                to[i] = 0;
        w->data = to;
    }
}

static int64_t weights_of(const terse_graph *g)
{
    int64_t bytes = 0;
    for (int v = 0; v < g->n_values; v++)
        bytes += g->values[v].data ? (int64_t)g->values[v].bytes : 0;
    return bytes;
}

static int check_network(uint32_t seed, bool prepared)
{
    terse_graph *g = random_network(seed), *masked = NULL;
    terse_error error = {0};
    terse_edit edit;
    terse_couple couple;
    state_values(g);
    assert_int_equal(terse_graph_prune(g, &error), TERSE_OK);
    if (prepared && terse_passes_run(g, TERSE_PASSES_PREPARE, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(terse_edit_clone(g, &masked, &error), TERSE_OK);
    assert_int_equal(terse_edit_open(g, &edit, &error), TERSE_OK);
    assert_int_equal(terse_couple_open(&edit, &couple, &error), TERSE_OK);
    bool *gone = calloc((size_t)couple.n_labels + 1, 1);
    assert_non_null(gone);
    int count = 0;
    for (int32_t i = 0; i < couple.n_labels; i++)
        gone[i] = terse_couple_unit(&couple, i) == i && !terse_couple_pin(&couple, i) && choose(3) == 0;
    terse_couple_repair(&couple, gone);
    for (int32_t i = 0; i < couple.n_labels; i++)
        count += gone[i];
    mask_weights(&couple, gone, masked);
    answers want = answer(masked, 3, seed);
    const int64_t before = weights_of(g);
    terse_couple_cut(&couple, gone, &edit);
    terse_couple_done(&couple);
    if (terse_edit_close(&edit, &error) != TERSE_OK)
        fail_msg("seed %u: %s", seed, error.message);
    answers found = answer(g, 3, seed);
    const double difference = apart(&want, &found);
    if (!(difference < 1e-5))
        fail_msg("seed %u%s: cut and masked differ by %g", seed, prepared ? ", prepared" : "", difference);
    assert_true(count == 0 ? weights_of(g) == before : weights_of(g) < before);
    /* and what is left still goes through all passes */
    if (terse_passes_run(g, TERSE_PASSES_FINISH, &error) != TERSE_OK)
        fail_msg("seed %u: %s", seed, error.message);
    answers finished = answer(g, 3, seed);
    assert_true(apart(&want, &finished) < 2e-4);
    answers_done(&finished);
    answers_done(&found);
    answers_done(&want);
    free(gone);
    terse_graph_free(g);
    terse_graph_free(masked);
    return count;
}

static void cut_networks_are_masked_networks(void **state)
{
    (void)state;
    const char *text = getenv("TERSE_SEED");
    const uint32_t first = text ? (uint32_t)strtoul(text, NULL, 10) : 1;
    int gone = 0, cut = 0;
    for (uint32_t seed = first; seed < first + 150; seed++) {
        const int here = check_network(seed, seed % 2 == 0);
        gone += here;
        cut += here > 0;
    }
    print_message("seeds %u to %u: %d units of %d networks gone\n", first, first + 149, gone, cut);
    assert_true(cut > 75);
}

/* --- the order ---------------------------------------------------------------------------------------------------- */

enum { UNITS = 6, TAPS = 2, OUTPUTS = 3, SIZE = UNITS * TAPS };

static double cost_without(const double *w, const float *h, const bool *keep)
{
    double fitted[OUTPUTS * SIZE], lost, cov[SIZE * SIZE];
    terse_error error;
    for (int i = 0; i < SIZE * SIZE; i++)
        cov[i] = (double)h[i];
    assert_int_equal(terse_channels_fit(w, cov, OUTPUTS, SIZE, keep, fitted, &lost, &error), TERSE_OK);
    for (int i = 0; i < OUTPUTS * SIZE; i++)
        assert_true(keep[i % SIZE] || fitted[i] == 0.0);
    return lost;
}

static void the_cheapest_unit_goes_first(void **state)
{
    (void)state;
    random_state = 11;
    for (int round = 0; round < 20; round++) {
        double w[OUTPUTS * SIZE], lost[UNITS], mix[SIZE * SIZE];
        float h[SIZE * SIZE], probe[OUTPUTS * SIZE];
        int32_t order[UNITS], columns[SIZE], first[UNITS + 1];
        int probed;
        terse_error error;
        for (int i = 0; i < OUTPUTS * SIZE; i++)
            w[i] = (double)random_number();
        for (int i = 0; i < SIZE * SIZE; i++)
            mix[i] = (double)random_number();
        for (int i = 0; i < SIZE * SIZE; i++) {
            double sum = 0;
            for (int j = 0; j < SIZE; j++)
                sum += mix[i / SIZE * SIZE + j] * mix[i % SIZE * SIZE + j];
            h[i] = (float)sum;
        }
        for (int i = 0; i < SIZE; i++)
            columns[i] = i;
        for (int i = 0; i <= UNITS; i++)
            first[i] = i * TAPS;
        const terse_rank_reader reader = {.o = OUTPUTS,
                                          .k = SIZE,
                                          .w = w,
                                          .moments = h,
                                          .columns = columns,
                                          .first = first,
                                          .weight = 1,
                                          .lost = lost,
                                          .probe = probe};
        assert_int_equal(terse_rank_units(&reader, 1, UNITS, 3, order, &probed, &error), TERSE_OK);
        assert_int_equal(probed, 3);
        bool keep[SIZE], once[UNITS] = {false};
        memset(keep, 1, sizeof keep);
        for (int step = 0; step < UNITS; step++) {
            double best = (double)INFINITY;
            int which = -1;
            for (int u = 0; u < UNITS; u++) {
                if (once[u])
                    continue;
                memset(keep + u * TAPS, 0, TAPS);
                const double cost = cost_without(w, h, keep);
                memset(keep + u * TAPS, 1, TAPS);
                if (cost < best) {
                    best = cost;
                    which = u;
                }
            }
            assert_int_equal(order[step], which);
            once[which] = true;
            memset(keep + which * TAPS, 0, TAPS);
            assert_true(fabs(lost[step] - best) < 1e-6);
            for (int i = 0; step == 2 && i < OUTPUTS * SIZE; i++)
                assert_true(keep[i % SIZE] || fabsf(probe[i]) < 1e-9f);
        }
    }
}

/* --- several amounts of one network ---------------------------------------------------------------------------------
 */

static terse_graph *chain_of_convolutions(void)
{
    terse_graph *g = terse_graph_new();
    assert_non_null(g);
    random_state = 3;
    const int x = make_input(g, "x", DIMS(8, 4, SIDE, SIDE));
    int y = make_relu(g, make_conv(g, x, 4, 64, 3, 1, 1, 1));
    y = make_relu(g, make_conv(g, y, 64, 64, 3, 1, 1, 1));
    y = make_relu(g, make_conv(g, y, 64, 64, 1, 1, 0, 1));
    make_output(g, make_conv(g, y, 64, 8, 3, 1, 1, 1));
    state_values(g);
    return g;
}

static answers pruned_answers(double amount, const terse_npz *data, terse_channels_orders *orders, double *ret_left)
{
    terse_graph *g = chain_of_convolutions();
    terse_error error = {0};
    terse_prune_report report = {0};
    const terse_prune_options options = {.amount = amount, .kind = TERSE_PRUNE_CHANNELS, .orders = orders};
    if (terse_prune_run(g, data, &options, &report, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    *ret_left = report.macs_after / report.macs_before;
    answers a = answer(g, 8, 5);
    terse_prune_report_done(&report);
    terse_graph_free(g);
    return a;
}

/* What the first amount has found out serves the others, and changes no bit of what they become. */
static void orders_serve_every_amount(void **state)
{
    (void)state;
    enum { COUNT_X = 16 * 4 * SIDE * SIDE };
    static float numbers[COUNT_X];
    char name[] = "x", *names[] = {name};
    const int64_t dims[] = {16, 4, SIDE, SIDE};
    random_state = 17;
    for (int i = 0; i < COUNT_X; i++)
        numbers[i] = random_number();
    terse_tensor samples = terse_tensor_view(numbers, TERSE_FP32, 4, dims);
    const terse_npz data = {.n = 1, .names = names, .tensors = &samples};
    terse_channels_orders orders = {0};
    const double amounts[] = {0.5, 0.2, 0.7, 0.5};
    double least = 1;
    for (int i = 0; i < COUNT(amounts); i++) {
        double left, again;
        answers anew = pruned_answers(amounts[i], &data, NULL, &left);
        answers lent = pruned_answers(amounts[i], &data, &orders, &again);
        assert_true(orders.n > 0 && left == again && left <= 1 - amounts[i] + 1e-9);
        assert_true(apart(&anew, &lent) == 0);
        least = left < least ? left : least;
        answers_done(&anew);
        answers_done(&lent);
    }
    assert_true(least < 0.35);
    terse_channels_orders_done(&orders);
}

/* What was made before is given again, as often as it is asked for, and only for the same amount and samples. */
static void what_was_made_before_is_made_again(void **state)
{
    (void)state;
    terse_prune_again again = {0};
    terse_prune_report report = {0}, found = {0};
    terse_error error = {0};
    const int here = 0, elsewhere = 0;
    const terse_prune_options options = {.amount = 0.5, .kind = TERSE_PRUNE_CHANNELS};
    terse_graph *g = chain_of_convolutions(), *other = chain_of_convolutions();
    if (terse_prune_run(g, NULL, &options, &report, &error) != TERSE_OK ||
        terse_prune_again_keep(&again, 0.5, &here, g, &report, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    answers first = answer(g, 8, 5);
    size_t bytes = 0;
    for (int v = 0; v < g->n_values; v++) {
        const terse_value *kept = &again.list[0].graph->values[v];
        assert_true(!kept->data == !g->values[v].data && (!kept->data || kept->data != g->values[v].data));
        bytes += kept->data ? kept->bytes : 0;
    }
    assert_true(bytes > 0 && again.bytes == bytes);
    terse_graph_free(g); /* nothing of it is needed any more */
    assert_false(terse_prune_again_find(&again, 0.4, &here, &other, &found));
    assert_false(terse_prune_again_find(&again, 0.5, &elsewhere, &other, &found));
    for (int i = 0; i < 2; i++) {
        terse_graph_free(other);
        assert_true(terse_prune_again_find(&again, 0.5, &here, &other, &found));
        answers second = answer(other, 8, 5);
        assert_true(apart(&first, &second) == 0);
        assert_true(found.n == report.n && found.macs_after == report.macs_after && found.kept.n == report.kept.n);
        assert_true(report.n > 0 && strcmp(found.layers[0].reason, report.layers[0].reason) == 0);
        for (int k = 0; k < found.kept.n; k++) {
            const terse_kept_value *a = &found.kept.list[k], *b = terse_kept_find(&report.kept, a->name);
            assert_true(b && a->n == b->n && memcmp(a->channels, b->channels, (size_t)a->n * sizeof *a->channels) == 0);
        }
        answers_done(&second);
        terse_prune_report_done(&found);
    }
    answers_done(&first);
    terse_graph_free(other);
    terse_prune_report_done(&report);
    terse_prune_again_done(&again);
}

/* A shortcut that fills up channels with zeros ties 16 channels to 64 of which the others must stay. */
static void narrow_layers_are_not_emptied(void **state)
{
    (void)state;
    terse_graph *g = terse_graph_new();
    terse_error error = {0};
    terse_prune_report report = {0};
    assert_non_null(g);
    random_state = 9;
    const int64_t wider[8] = {0, 24, 0, 0, 0, 24, 0, 0};
    const int x = make_input(g, "x", DIMS(8, 4, SIDE, SIDE));
    const int narrow = make_relu(g, make_conv(g, x, 4, 16, 3, 1, 1, 1));
    const int inner = make_relu(g, make_conv(g, narrow, 16, 32, 3, 1, 1, 1));
    const int filled = make_node(g, TERSE_OP_PAD, INPUTS(narrow, make_ints(g, 8, wider)));
    const int sum = make_node(g, TERSE_OP_ADD, INPUTS(make_conv(g, inner, 32, 64, 3, 1, 1, 1), filled));
    make_output(g, make_conv(g, make_relu(g, sum), 64, 8, 3, 1, 1, 1));
    state_values(g);
    const terse_prune_options options = {.amount = 0.95, .kind = TERSE_PRUNE_CHANNELS};
    if (terse_prune_run(g, NULL, &options, &report, &error) != TERSE_OK)
        fail_msg("%s", error.message);
    int cut = 0;
    for (int node = 0; node < g->n_nodes; node++) {
        if (g->nodes[node].op != TERSE_OP_CONV)
            continue;
        const terse_value *w = &g->values[g->nodes[node].inputs[1]];
        assert_true(w->dims[0] >= 8 && (w->dims[1] == 4 || w->dims[1] >= 8));
        cut += w->dims[0] == 8 && w->dims[1] == 4; /* the first one: half of its channels are gone, not all */
    }
    assert_int_equal(cut, 1);
    terse_prune_report_done(&report);
    terse_graph_free(g);
}

/* Kernels take two panels of sixteen columns in hardly more time than one. */
static void channels_go_by_pairs_of_panels(void **state)
{
    (void)state;
    int cut = 0;
    for (int percent = 10; percent <= 60; percent += 10) {
        terse_graph *g = terse_graph_new();
        terse_error error = {0};
        terse_prune_report report = {0};
        assert_non_null(g);
        random_state = 21;
        int y = make_input(g, "x", DIMS(8, 8, SIDE, SIDE));
        for (int i = 0; i < 4; i++) {
            y = make_relu(g, make_conv(g, y, 8, 128, 3, 1, 1, 1));
            y = make_conv(g, y, 128, 8, 1, 1, 0, 1);
        }
        make_output(g, y);
        state_values(g);
        const terse_prune_options options = {.amount = percent / 100.0, .kind = TERSE_PRUNE_CHANNELS};
        if (terse_prune_run(g, NULL, &options, &report, &error) != TERSE_OK)
            fail_msg("%s", error.message);
        int lone = 0;
        for (int node = 0; node < g->n_nodes; node++) {
            const int64_t filters =
                g->nodes[node].op == TERSE_OP_CONV ? g->values[g->nodes[node].inputs[1]].dims[0] : 8;
            lone += filters != 8 && filters % 32 != 0; /* of the last step, which saves no more than is asked for */
            cut += filters != 8 && filters < 128;
        }
        assert_true(lone <= 1);
        terse_prune_report_done(&report);
        terse_graph_free(g);
    }
    assert_true(cut >= 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_networks_are_masked_networks), cmocka_unit_test(the_cheapest_unit_goes_first),
        cmocka_unit_test(orders_serve_every_amount),        cmocka_unit_test(what_was_made_before_is_made_again),
        cmocka_unit_test(narrow_layers_are_not_emptied),    cmocka_unit_test(channels_go_by_pairs_of_panels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
