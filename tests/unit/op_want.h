/* SPDX-License-Identifier: Apache-2.0 */
/* op_want.h: wanted outputs of any dtype, element for element, on top of op_case.h. */
#ifndef TERSE_TESTS_OP_WANT_H
#define TERSE_TESTS_OP_WANT_H

#include "op_case.h"

/* C types of the dtypes, by a short name. */
typedef float f32;
typedef int8_t i8;
typedef int32_t i32;
typedef int64_t i64;
typedef uint8_t u8;
#define DTYPE_f32 TERSE_FP32
#define DTYPE_i8 TERSE_INT8
#define DTYPE_i32 TERSE_INT32
#define DTYPE_i64 TERSE_INT64
#define DTYPE_u8 TERSE_UINT8
#define DTYPE_bool TERSE_BOOL

#define DIMS(...) CASE_DIMS(__VA_ARGS__)
#define SCALAR 0, NULL
#define NOTHING DIMS(0), "" /* an empty vector */

/* GIVE(&c, 0, i64, DIMS(2, 2), 1, 2, 3, 4): input 0, known when planned. */
#define GIVE(c, index, type, shape, ...) case_constant(c, index, DTYPE_##type, shape, (type[]){__VA_ARGS__})

static inline void want_bytes(op_case *c, int index, terse_dtype dtype, int rank, const int64_t *dims, const void *data,
                              size_t bytes)
{
    const terse_tensor *y = &c->outputs[index];
    char found[128], wanted[128];
    if (y->dtype != dtype)
        fail_msg("output %d is %s, wanted %s", index, terse_dtype_name(y->dtype), terse_dtype_name(dtype));
    terse_dims_text(y->dims, y->rank, found, sizeof found);
    terse_dims_text(dims, rank, wanted, sizeof wanted);
    assert_string_equal(found, wanted);
    assert_int_equal(terse_tensor_bytes(y), bytes);
    const size_t size = terse_dtype_size(dtype);
    for (size_t i = 0; i < bytes / size; i++) {
        const char *a = (const char *)y->data + i * size, *b = (const char *)data + i * size;
        float fa = 0, fb = 0;
        if (dtype == TERSE_FP32) {
            memcpy(&fa, a, 4);
            memcpy(&fb, b, 4);
            if (fa != fb && !(fa != fa && fb != fb))
                fail_msg("output %d has %.9g at %zu, wanted %.9g", index, (double)fa, i, (double)fb);
        } else if (memcmp(a, b, size) != 0) {
            fail_msg("output %d differs at element %zu: byte %d, wanted %d", index, i, *(const signed char *)a,
                     *(const signed char *)b);
        }
    }
}

/* WANT(&c, 0, i64, DIMS(4), 1, 2, 3, 4): runs nothing, compares output 0 exactly (NaN equals NaN). */
#define WANT(c, index, type, shape, ...)                                                                               \
    want_bytes(c, index, DTYPE_##type, shape, (type[]){__VA_ARGS__}, sizeof((type[]){__VA_ARGS__}))

/* Plans and runs, then compares the one output. */
#define GIVES(c, type, shape, ...)                                                                                     \
    do {                                                                                                               \
        case_ok(c);                                                                                                    \
        want_bytes(c, 0, DTYPE_##type, shape, (type[]){__VA_ARGS__}, sizeof((type[]){__VA_ARGS__}));                   \
        case_free(c);                                                                                                  \
    } while (0)
#define GIVES_EMPTY(c, type, shape)                                                                                    \
    do {                                                                                                               \
        case_ok(c);                                                                                                    \
        want_bytes(c, 0, DTYPE_##type, shape, "", 0);                                                                  \
        case_free(c);                                                                                                  \
    } while (0)
#define REFUSES(c, text)                                                                                               \
    do {                                                                                                               \
        case_refused(c, text);                                                                                         \
        case_free(c);                                                                                                  \
    } while (0)

static inline void case_set_int(op_case *c, const char *name, int64_t value)
{
    assert_true(terse_node_set_int(c->graph, c->node, name, value));
}

static inline void case_set_float(op_case *c, const char *name, double value)
{
    assert_true(terse_node_set_float(c->graph, c->node, name, value));
}

static inline void case_set_text(op_case *c, const char *name, const char *value)
{
    assert_true(terse_node_set_text(c->graph, c->node, name, value));
}

#endif
