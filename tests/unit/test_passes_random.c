/* SPDX-License-Identifier: Apache-2.0 */
/* Random networks of convolutions, pools, elementwise operators and moves, answered before and after the passes.
 * TERSE_SEED starts elsewhere, TERSE_LONG makes more of them. */
#include "tests/unit/graph_maker.h"

#include "compress/low_rank/low_rank.h"
#include "compress/passes/passes.h"

#define BATCH TERSE_DIM_OF_SYMBOL(0)

/* Values of the network under construction: all are [N,C,H,W], what else is made becomes an output at once. */
typedef struct pool {
    int values[64], n;
    int64_t dims[64][3]; /* C, H, W */
} pool;

static uint32_t choice_state;

/* 0..n-1; its own sequence, so that weights do not change the shape of the network. */
static int choose(int n)
{
    choice_state = choice_state * 1664525u + 1013904223u;
    return (int)((choice_state >> 10) % (uint32_t)n);
}

static void add(pool *p, int value, int64_t c, int64_t h, int64_t w)
{
    if (p->n == 64)
        return;
    p->dims[p->n][0] = c;
    p->dims[p->n][1] = h;
    p->dims[p->n][2] = w;
    p->values[p->n++] = value;
}

static void add_conv(terse_graph *g, pool *p, int from)
{
    const int64_t *d = p->dims[from], kernel = choose(2) ? 3 : 1, stride = 1 + choose(2), pad = kernel / 2;
    const int64_t group = choose(3) == 0 ? d[0] : 1, filters = group > 1 ? d[0] : 1 + choose(20);
    const int64_t h = (d[1] + 2 * pad - kernel) / stride + 1, w = (d[2] + 2 * pad - kernel) / stride + 1;
    int y = make_conv(g, p->values[from], d[0], filters, kernel, stride, pad, group);
    if (choose(2))
        y = make_batch_norm(g, y, filters);
    if (choose(3) == 0)
        add(p, y, filters, h, w);
    if (choose(2))
        y = make_relu(g, y);
    add(p, y, filters, h, w);
}

/* A second operand that broadcasts against value `from`: another value of that shape, or a constant. */
static int operand(terse_graph *g, const pool *p, int from)
{
    const int64_t *d = p->dims[from];
    for (int tries = 0; tries < 4; tries++) {
        const int other = choose(p->n);
        if (memcmp(p->dims[other], d, sizeof p->dims[0]) == 0)
            return p->values[other];
    }
    switch (choose(5)) {
    case 0:
        return make_number(g, 1.5f);
    case 1:
        return make_weights(g, 1, 0.5f, DIMS(d[0], 1, 1));
    case 2:
        return make_weights(g, 1, 0.5f, DIMS(1, d[0], 1, 1));
    case 3:
        return make_weights(g, 1, 0.5f, DIMS(d[2]));
    default:
        return make_weights(g, 1, 0.5f, DIMS(d[0], d[1], d[2]));
    }
}

static void add_arithmetic(terse_graph *g, pool *p, int from)
{
    static const terse_op ops[] = {TERSE_OP_ADD, TERSE_OP_SUB, TERSE_OP_MUL, TERSE_OP_MAX, TERSE_OP_ADD};
    const int64_t *d = p->dims[from];
    const int x = p->values[from], other = operand(g, p, from);
    const terse_op op = ops[choose(COUNT(ops))];
    const int y = choose(2) ? make_node(g, op, INPUTS(x, other)) : make_node(g, op, INPUTS(other, x));
    add(p, choose(2) ? make_relu(g, y) : y, d[0], d[1], d[2]);
}

static void add_unary(terse_graph *g, pool *p, int from)
{
    const int64_t *d = p->dims[from];
    const int x = p->values[from];
    int y;
    switch (choose(6)) {
    case 0:
        y = make_node(g, TERSE_OP_MUL, INPUTS(x, make_node(g, TERSE_OP_SIGMOID, INPUTS(x))));
        break;
    case 1:
        y = make_node(g, TERSE_OP_HARD_SWISH, INPUTS(x));
        break;
    case 2:
        y = make_node(g, TERSE_OP_CLIP, INPUTS(x, make_number(g, -0.5f), make_number(g, 1)));
        break;
    case 3:
        y = make_node(g, TERSE_OP_SOFTMAX, INPUTS(x));
        terse_node_set_int(g, last_node(g), "axis", 1 + choose(3));
        break;
    case 4:
        y = make_batch_norm(g, x, d[0]);
        break;
    default:
        y = make_node(g, TERSE_OP_TANH, INPUTS(x));
        break;
    }
    add(p, y, d[0], d[1], d[2]);
}

static void add_pool(terse_graph *g, pool *p, int from)
{
    const int64_t *d = p->dims[from];
    if (d[1] < 3 || d[2] < 3)
        return;
    const int y = make_node(g, choose(2) ? TERSE_OP_MAX_POOL : TERSE_OP_AVERAGE_POOL, INPUTS(p->values[from]));
    terse_node_set_ints(g, last_node(g), "kernel_shape", (int64_t[]){2, 3}, 2);
    add(p, y, d[0], d[1] - 1, d[2] - 2);
}

static void add_concat(terse_graph *g, pool *p, int from)
{
    const int64_t *d = p->dims[from];
    const int other = choose(p->n), axis = choose(3);
    int64_t sum[3] = {d[0], d[1], d[2]};
    for (int i = 0; i < 3; i++) {
        if (i != axis && p->dims[other][i] != d[i])
            return;
        sum[i] += i == axis ? p->dims[other][i] : 0;
    }
    const int y = make_node(g, TERSE_OP_CONCAT, INPUTS(p->values[from], p->values[other]));
    terse_node_set_int(g, last_node(g), "axis", axis + 1);
    add(p, y, sum[0], sum[1], sum[2]);
}

static void add_move(terse_graph *g, pool *p, int from)
{
    const int64_t *d = p->dims[from];
    const int x = p->values[from];
    switch (choose(5)) {
    case 0: { /* any order of the last three axes */
        static const int64_t perms[][4] = {{0, 2, 3, 1}, {0, 3, 1, 2}, {0, 1, 3, 2}, {0, 3, 2, 1}};
        const int64_t *perm = perms[choose(4)];
        const int y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(x));
        terse_node_set_ints(g, last_node(g), "perm", perm, 4);
        add(p, y, d[perm[1] - 1], d[perm[2] - 1], d[perm[3] - 1]);
        return;
    }
    case 1: {
        const int64_t pads[8] = {0, choose(2), choose(2), choose(2), 0, choose(2), choose(2), choose(2)};
        const int y = make_node(g, TERSE_OP_PAD, INPUTS(x, make_ints(g, 8, pads)));
        add(p, y, d[0] + pads[1] + pads[5], d[1] + pads[2] + pads[6], d[2] + pads[3] + pads[7]);
        return;
    }
    case 2: {
        const int axis = choose(3);
        if (d[axis] < 2)
            return;
        const int y = make_node(g, TERSE_OP_SLICE,
                                INPUTS(x, make_ints(g, 1, (int64_t[]){1}), make_ints(g, 1, (int64_t[]){99}),
                                       make_ints(g, 1, (int64_t[]){axis - 3})));
        add(p, y, d[0] - (axis == 0), d[1] - (axis == 1), d[2] - (axis == 2));
        return;
    }
    case 3: { /* shuffle the channels of two groups */
        if (d[0] % 2)
            return;
        int y = make_node(g, TERSE_OP_RESHAPE, INPUTS(x, make_ints(g, 5, (int64_t[]){0, 2, d[0] / 2, d[1], d[2]})));
        y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(y));
        terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 1, 3, 4}, 5);
        add(p, make_node(g, TERSE_OP_RESHAPE, INPUTS(y, make_ints(g, 4, (int64_t[]){0, -1, d[1], d[2]}))), d[0], d[1],
            d[2]);
        return;
    }
    default: {
        const int y = make_node(g, choose(2) ? TERSE_OP_REDUCE_MEAN : TERSE_OP_REDUCE_MAX,
                                INPUTS(x, make_ints(g, 2, (int64_t[]){2, 3})));
        add(p, make_node(g, TERSE_OP_MUL, INPUTS(y, x)), d[0], d[1], d[2]);
        return;
    }
    }
}

/* What ends a branch: an output of another rank. */
static void add_end(terse_graph *g, const pool *p, int from)
{
    const int64_t *d = p->dims[from];
    const int64_t count = d[0] * d[1] * d[2];
    int y = p->values[from];
    switch (choose(4)) {
    case 0:
        y = make_node(g, TERSE_OP_FLATTEN, INPUTS(y));
        y = make_node(g, TERSE_OP_GEMM,
                      INPUTS(y, make_weights(g, 0, 0.1f, DIMS(count, 5)), make_weights(g, 0, 1, DIMS(5))));
        break;
    case 1:
        y = make_node(g, TERSE_OP_RESHAPE, INPUTS(y, make_ints(g, 3, (int64_t[]){0, d[0], -1})));
        y = make_node(g, TERSE_OP_TRANSPOSE, INPUTS(y));
        terse_node_set_ints(g, last_node(g), "perm", (int64_t[]){0, 2, 1}, 3);
        y = make_node(g, TERSE_OP_MATMUL, INPUTS(y, make_weights(g, 0, 0.3f, DIMS(d[0], 6))));
        break;
    case 2:
        y = make_node(g, TERSE_OP_GLOBAL_AVERAGE_POOL, INPUTS(y));
        y = make_node(g, TERSE_OP_SQUEEZE, INPUTS(y, make_ints(g, 2, (int64_t[]){-1, 2})));
        break;
    default:
        y = make_node(g, TERSE_OP_REDUCE_SUM, INPUTS(y, make_ints(g, 1, (int64_t[]){1 + choose(3)})));
        terse_node_set_int(g, last_node(g), "keepdims", choose(2));
        break;
    }
    make_output(g, y);
}

static terse_graph *random_network(uint32_t seed)
{
    static void (*const makers[])(terse_graph *, pool *, int) = {add_conv,  add_conv,   add_arithmetic, add_arithmetic,
                                                                 add_unary, add_concat, add_move,       add_pool};
    terse_graph *g = terse_graph_new();
    pool p = {0};
    assert_non_null(g);
    terse_graph_symbol(g, "N");
    choice_state = seed;
    random_state = seed;
    const int64_t c = 1 + choose(4), h = 5 + choose(4), w = 5 + choose(4);
    add(&p, make_input(g, "x", DIMS(BATCH, c, h, w)), c, h, w);
    const int n = 4 + choose(14);
    for (int i = 0; i < n; i++)
        makers[choose(COUNT(makers))](g, &p, choose(2) ? p.n - 1 : choose(p.n));
    add_end(g, &p, p.n - 1);
    add_end(g, &p, choose(p.n));
    if (p.n > 1)
        make_output(g, p.values[1 + choose(p.n - 1)]);
    state_values(g);
    return g;
}

/* As apart(), but relative to 1 where all numbers are smaller: numbers inside these networks are around 1, and an
 * output may be a small sum of them. */
static double apart_from_one(const answers *a, const answers *b)
{
    double worst = apart(a, b), diff = 0;
    if (!(worst < 1))
        return worst;
    for (int i = 0; i < a->n; i++) {
        const float *x = a->tensors[i].data, *y = b->tensors[i].data;
        double scale = 1, most = 0;
        for (int64_t k = 0; a->tensors[i].dtype == TERSE_FP32 && k < terse_tensor_count(&a->tensors[i]); k++) {
            scale = fmax(scale, fabs((double)x[k]));
            most = fmax(most, fabs((double)x[k] - (double)y[k]));
        }
        diff = fmax(diff, most / scale);
    }
    return diff;
}

/* Runs one pass and compares with `before`, what the network answered until now; becomes what it answers now. Returns
 * the difference. */
static double check_pass(terse_graph *g, const terse_pass *pass, uint32_t seed, bool halves, answers *before)
{
    terse_error error = {0};
    if (pass->run(g, &error) != TERSE_OK)
        fail_msg("seed %u: pass '%s': %s", seed, pass->name, error.message);
    answers after = answer(g, 2, seed);
    const double difference = halves ? apart_from_one(before, &after) : apart(before, &after);
    if (!(difference < (halves ? 0.05 : 2e-4))) /* 8 bits for every operand of up to 18 layers */
        fail_msg("seed %u: pass '%s' changes the answer by %g", seed, pass->name, difference);
    answers_done(before);
    *before = after;
    return difference;
}

/* What all networks together had. */
typedef struct sums {
    int64_t nodes, products; /* products: in BF16 */
    double apart;            /* by the pass bf16 */
} sums;

/* Checks one network. With `half` its products are marked before the passes that finish. */
static void check_network(uint32_t seed, bool half, sums *s)
{
    terse_graph *g = random_network(seed);
    terse_error error = {0};
    if (terse_graph_sort(g, &error) != TERSE_OK || terse_graph_prune(g, &error) != TERSE_OK ||
        terse_graph_check(g, &error) != TERSE_OK)
        fail_msg("seed %u: %s", seed, error.message);
    s->nodes += g->n_nodes;
    answers before = answer(g, 2, seed);
    bool marked = false;
    for (int i = 0; i < terse_passes_n; i++) {
        const terse_pass *pass = &terse_passes_list[i];
        if (half && !marked && pass->stage == TERSE_PASSES_FINISH) {
            assert_int_equal(terse_pass_bf16_mark(g, &error), TERSE_OK);
            marked = true;
        }
        const bool halves = half && pass->run == terse_pass_bf16;
        const double difference = check_pass(g, pass, seed, halves, &before);
        s->apart += halves ? difference : 0;
    }
    s->products += count_ops(g, TERSE_OP_BCONV) + count_ops(g, TERSE_OP_BGEMM);
    for (int i = 0; i < g->n_nodes; i++)
        assert_null(terse_node_attr(&g->nodes[i], "float"));
    answers_done(&before);
    terse_graph_free(g);
}

static void check_networks(bool half)
{
    const char *seed = getenv("TERSE_SEED");
    const uint32_t first = seed ? (uint32_t)strtoul(seed, NULL, 10) : 1;
    const uint32_t n = getenv("TERSE_LONG") ? 5000 : 400;
    print_message("seeds %u to %u\n", first, first + n - 1);
    sums s = {0};
    for (uint32_t i = 0; i < n; i++)
        check_network(first + i, half, &s);
    print_message("%lld nodes, %lld products in BF16, apart by %g on average\n", (long long)s.nodes,
                  (long long)s.products, s.apart / n);
    assert_true(s.nodes > 10 * (int64_t)n);
    assert_true(half ? s.products > (int64_t)n : s.products == 0);
    assert_true(s.apart / n < 0.005);
}

static void random_networks_keep_their_answers(void **state)
{
    (void)state;
    check_networks(false);
}

static void random_networks_in_bf16_stay_near_their_answers(void **state)
{
    (void)state;
    check_networks(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_networks_keep_their_answers),
                                       cmocka_unit_test(random_networks_in_bf16_stay_near_their_answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
