/* SPDX-License-Identifier: Apache-2.0 */
/* test_wire.c: headers of requests and replies: there and back, and everything that a stranger may send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/wire.h"
#include "common/wire_walk.h"

static terse_wire_request request, decoded_request;
static terse_wire_reply reply, decoded_reply;
static uint8_t bytes[TERSE_WIRE_HEADER_BYTES];

/* A header written by hand with msgpack-c, an encoder that is not ours. */
typedef struct hand {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
} hand;

static msgpack_packer *hand_begin(hand *h, unsigned n_pairs)
{
    msgpack_sbuffer_init(&h->buffer);
    msgpack_packer_init(&h->packer, &h->buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&h->packer, n_pairs);
    return &h->packer;
}

static void put_u64(msgpack_packer *p, const char *key, uint64_t value)
{
    terse_pack_cstr(p, key);
    msgpack_pack_uint64(p, value);
}

static void put_text(msgpack_packer *p, const char *key, const char *value)
{
    terse_pack_cstr(p, key);
    terse_pack_cstr(p, value);
}

static void expect_refused(hand *h, const char *message, bool has_id)
{
    terse_error error = {0};
    assert_int_equal(terse_wire_decode_request(h->buffer.data, h->buffer.size, &decoded_request, &error),
                     TERSE_INVALID_ARGUMENT);
    if (!strstr(error.message, message))
        fail_msg("'%s' does not hold '%s'", error.message, message);
    assert_int_equal(decoded_request.has_id, has_id);
    if (has_id)
        assert_int_equal(decoded_request.id, 7);
    msgpack_sbuffer_destroy(&h->buffer);
}

static terse_wire_tensor tensor_of(const char *name, terse_dtype dtype, int64_t rows, uint32_t frame)
{
    terse_wire_tensor tensor;
    terse_wire_tensor_init(&tensor);
    tensor.name = terse_wire_text_of(name);
    tensor.dtype = dtype;
    tensor.rank = 2;
    tensor.dims[0] = rows;
    tensor.dims[1] = 784;
    tensor.frame = frame;
    return tensor;
}

static void a_request_comes_back_as_it_was(void **state)
{
    (void)state;
    terse_error error;
    size_t size = 0;
    terse_wire_request_init(&request);
    request.op = TERSE_WIRE_INFER;
    request.has_id = request.has_session = request.has_timeout = request.has_outputs = true;
    request.id = UINT64_MAX;
    for (int i = 0; i < TERSE_WIRE_SESSION_BYTES; i++)
        request.session[i] = (uint8_t)(i * 17);
    request.priority = 9;
    request.timeout_us = 70000;
    request.has_sent = true;
    request.sent_ns = UINT64_MAX - 1;
    request.trace = true;
    request.model = terse_wire_text_of("größe");
    request.version = terse_wire_text_of("1");
    request.n_inputs = 2;
    request.inputs[0] = tensor_of("data", TERSE_FP32, 3, 1);
    request.inputs[1] = tensor_of("mask", TERSE_BOOL, INT64_MAX, 300);
    request.inputs[1].has_shm = true;
    request.inputs[1].shm_offset = 4096;
    request.inputs[1].shm_size = UINT64_MAX;
    request.n_outputs = 1;
    terse_wire_tensor_init(&request.outputs[0]);
    request.outputs[0].name = terse_wire_text_of("prob");
    assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_OK);
    assert_int_equal(terse_wire_decode_request(bytes, size, &decoded_request, &error), TERSE_OK);
    assert_int_equal(decoded_request.op, TERSE_WIRE_INFER);
    assert_true(decoded_request.has_id && decoded_request.has_session && decoded_request.has_timeout);
    assert_true(decoded_request.id == UINT64_MAX && decoded_request.timeout_us == 70000);
    assert_true(decoded_request.has_sent && decoded_request.sent_ns == UINT64_MAX - 1);
    assert_true(decoded_request.trace);
    assert_memory_equal(decoded_request.session, request.session, TERSE_WIRE_SESSION_BYTES);
    assert_int_equal(decoded_request.priority, 9);
    assert_true(terse_wire_text_is(decoded_request.model, "größe") && terse_wire_text_is(decoded_request.version, "1"));
    assert_int_equal(decoded_request.n_inputs, 2);
    assert_true(terse_wire_text_is(decoded_request.inputs[1].name, "mask"));
    assert_int_equal(decoded_request.inputs[0].dtype, TERSE_FP32);
    assert_int_equal(decoded_request.inputs[1].dtype, TERSE_BOOL);
    assert_int_equal(decoded_request.inputs[1].rank, 2);
    assert_true(decoded_request.inputs[1].dims[0] == INT64_MAX && decoded_request.inputs[1].dims[1] == 784);
    assert_true(decoded_request.inputs[0].frame == 1 && decoded_request.inputs[1].frame == 300);
    assert_true(!decoded_request.inputs[0].has_shm && decoded_request.inputs[1].has_shm);
    assert_true(decoded_request.inputs[1].shm_offset == 4096 && decoded_request.inputs[1].shm_size == UINT64_MAX);
    assert_true(decoded_request.has_outputs && decoded_request.n_outputs == 1);
    assert_true(terse_wire_text_is(decoded_request.outputs[0].name, "prob"));
    assert_int_equal(decoded_request.outputs[0].rank, -1);
    /* Every shorter capacity is refused, every shorter header too. */
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut ? cut : 1);
        size_t unused;
        assert_int_equal(terse_wire_encode_request(&request, part, cut, &unused, &error), TERSE_RESOURCE_EXHAUSTED);
        memcpy(part, bytes, cut);
        assert_int_equal(terse_wire_decode_request(part, cut, &decoded_request, &error), TERSE_INVALID_ARGUMENT);
        free(part);
    }
}

static void a_reply_comes_back_as_it_was(void **state)
{
    (void)state;
    terse_error error;
    size_t size = 0;
    terse_wire_reply_init(&reply);
    reply.has_id = reply.has_timing = reply.has_outputs = reply.has_inputs = reply.has_models = true;
    reply.has_batchable = reply.has_max_batch = reply.batchable = true;
    reply.id = 5;
    reply.status = TERSE_DEADLINE_EXCEEDED;
    reply.error = terse_wire_text_of("too late");
    reply.model = terse_wire_text_of("m");
    reply.version = terse_wire_text_of("1");
    reply.queue_us = 127;
    reply.compute_us = 128;
    reply.batch = 65536;
    reply.has_retry_after = true;
    reply.retry_after_ms = 250;
    reply.has_trace = true;
    reply.trace = (terse_wire_trace){true, UINT64_MAX, 1000, 200000, UINT64_C(1) << 33, UINT64_C(1) << 34, 255};
    reply.max_batch = 32;
    reply.n_inputs = reply.n_outputs = 1;
    reply.inputs[0] = tensor_of("data", TERSE_INT64, -1, 0);
    reply.inputs[0].symbols[0] = terse_wire_text_of("N");
    reply.inputs[0].symbols[1] = (terse_wire_text){NULL, 0};
    reply.outputs[0] = tensor_of("prob", TERSE_FP32, 2, 1);
    reply.n_models = 20; /* more than a fixarray */
    for (uint32_t i = 0; i < reply.n_models; i++)
        reply.models[i] = (terse_wire_model){terse_wire_text_of("m"), terse_wire_text_of("1"), {NULL, 0}};
    assert_int_equal(terse_wire_encode_reply(&reply, bytes, sizeof bytes, &size, &error), TERSE_OK);
    assert_int_equal(terse_wire_decode_reply(bytes, size, &decoded_reply, &error), TERSE_OK);
    assert_true(decoded_reply.has_trace && decoded_reply.trace.has_received);
    assert_true(decoded_reply.trace.received_ns == UINT64_MAX && decoded_reply.trace.queued_ns == 1000);
    assert_true(decoded_reply.trace.dispatched_ns == 200000 && decoded_reply.trace.computed_ns == UINT64_C(1) << 33);
    assert_true(decoded_reply.trace.replied_ns == UINT64_C(1) << 34 && decoded_reply.trace.worker == 255);
    assert_true(decoded_reply.id == 5 && decoded_reply.status == TERSE_DEADLINE_EXCEEDED);
    assert_true(terse_wire_text_is(decoded_reply.error, "too late"));
    assert_true(decoded_reply.queue_us == 127 && decoded_reply.compute_us == 128 && decoded_reply.batch == 65536);
    assert_true(decoded_reply.has_retry_after && decoded_reply.retry_after_ms == 250);
    assert_true(decoded_reply.has_batchable && decoded_reply.batchable && decoded_reply.max_batch == 32);
    assert_true(decoded_reply.inputs[0].dims[0] == -1 && decoded_reply.inputs[0].dims[1] == 784);
    assert_true(terse_wire_text_is(decoded_reply.inputs[0].symbols[0], "N"));
    assert_null(decoded_reply.inputs[0].symbols[1].data);
    assert_true(decoded_reply.outputs[0].frame == 1 && decoded_reply.outputs[0].dims[0] == 2);
    assert_int_equal(decoded_reply.n_models, 20);
    assert_true(terse_wire_text_is(decoded_reply.models[19].name, "m") && !decoded_reply.models[19].state.data);
}

static void what_runs_a_daemon_comes_back_as_it_was(void **state)
{
    (void)state;
    static char path[TERSE_WIRE_MAX_PATH + 1];
    terse_error error = {0};
    size_t size = 0;
    memset(path, '/', sizeof path);
    terse_wire_request_init(&request);
    request.op = TERSE_WIRE_LOAD;
    request.has_id = request.has_max_batch = request.has_batch_timeout = request.has_workers = true;
    request.model = terse_wire_text_of("m");
    request.version = terse_wire_text_of("2");
    request.file = (terse_wire_text){path, TERSE_WIRE_MAX_PATH};
    request.max_batch = 8;
    request.batch_timeout_us = UINT64_C(1) << 40;
    request.workers = 0;
    assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_OK);
    assert_int_equal(terse_wire_decode_request(bytes, size, &decoded_request, &error), TERSE_OK);
    assert_int_equal(decoded_request.op, TERSE_WIRE_LOAD);
    assert_int_equal(decoded_request.file.length, TERSE_WIRE_MAX_PATH);
    assert_memory_equal(decoded_request.file.data, path, TERSE_WIRE_MAX_PATH);
    assert_true(decoded_request.has_max_batch && decoded_request.max_batch == 8);
    assert_true(decoded_request.has_batch_timeout && decoded_request.batch_timeout_us == UINT64_C(1) << 40);
    assert_true(decoded_request.has_workers && decoded_request.workers == 0);
    request.file.length++;
    assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "the file's path has 4096 bytes, allowed are 4095"));

    static const terse_wire_op without_file[] = {TERSE_WIRE_LOAD, TERSE_WIRE_UNLOAD, TERSE_WIRE_CONFIGURE};
    for (size_t i = 0; i < 3; i++) { /* what each needs: a model and a file, a model, nothing */
        terse_wire_request_init(&request);
        request.op = without_file[i];
        request.has_id = true;
        assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_OK);
        assert_int_equal(terse_wire_decode_request(bytes, size, &decoded_request, &error),
                         i == 2 ? TERSE_OK : TERSE_INVALID_ARGUMENT);
        request.model = terse_wire_text_of("m");
        assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_OK);
        assert_int_equal(terse_wire_decode_request(bytes, size, &decoded_request, &error),
                         i > 0 ? TERSE_OK : TERSE_INVALID_ARGUMENT);
        if (i == 0)
            assert_string_equal(error.message, "load: key 'file' is missing");
    }

    terse_wire_reply_init(&reply);
    reply.has_id = reply.has_max_batch = reply.has_batch_timeout = reply.has_workers = true;
    reply.max_batch = 3;
    reply.batch_timeout_us = 200;
    reply.workers = 256;
    assert_int_equal(terse_wire_encode_reply(&reply, bytes, sizeof bytes, &size, &error), TERSE_OK);
    assert_int_equal(terse_wire_decode_reply(bytes, size, &decoded_reply, &error), TERSE_OK);
    assert_true(decoded_reply.has_max_batch && decoded_reply.max_batch == 3);
    assert_true(decoded_reply.has_batch_timeout && decoded_reply.batch_timeout_us == 200);
    assert_true(decoded_reply.has_workers && decoded_reply.workers == 256);
}

/* "workers" of "stats" is a list, that of "configure" a number. */
static void the_workers_of_stats_are_passed_over(void **state)
{
    (void)state;
    hand h;
    terse_error error = {0};
    msgpack_packer *p = hand_begin(&h, 3);
    put_u64(p, "id", 7);
    put_text(p, "status", "OK");
    terse_pack_cstr(p, "workers");
    msgpack_pack_array(p, 2);
    msgpack_pack_map(p, 1);
    put_u64(p, "pid", 1);
    msgpack_pack_nil(p);
    assert_int_equal(terse_wire_decode_reply(h.buffer.data, h.buffer.size, &decoded_reply, &error), TERSE_OK);
    assert_false(decoded_reply.has_workers);
    msgpack_sbuffer_destroy(&h.buffer);
}

static void an_error_reply_is_valid_whatever_it_quotes(void **state)
{
    (void)state;
    terse_error error;
    uint8_t buffer[TERSE_WIRE_ERROR_BYTES];
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    text[10] = (char)0xc3; /* a character cut in its middle */
    const size_t size = terse_wire_encode_error(UINT64_MAX, TERSE_INVALID_ARGUMENT, text, buffer);
    assert_in_range(size, 1, TERSE_WIRE_ERROR_BYTES);
    assert_int_equal(terse_wire_decode_reply(buffer, size, &decoded_reply, &error), TERSE_OK);
    assert_int_equal(decoded_reply.error.length, TERSE_WIRE_MAX_TEXT);
    assert_int_equal(decoded_reply.error.data[10], '?');
    assert_false(decoded_reply.has_retry_after);
    const size_t longer =
        terse_wire_encode_rejection(UINT64_MAX, TERSE_RESOURCE_EXHAUSTED, text, UINT64_MAX - 1, buffer);
    assert_in_range(longer, size + 1, TERSE_WIRE_ERROR_BYTES);
    assert_int_equal(terse_wire_decode_reply(buffer, longer, &decoded_reply, &error), TERSE_OK);
    assert_true(decoded_reply.has_retry_after && decoded_reply.retry_after_ms == UINT64_MAX - 1);
}

static void strange_keys_are_passed_over(void **state)
{
    (void)state;
    hand h;
    terse_error error;
    msgpack_packer *p = hand_begin(&h, 6);
    put_text(p, "op", "fly");
    terse_pack_cstr(p, "later");
    msgpack_pack_array(p, 2);
    msgpack_pack_map(p, 1);
    msgpack_pack_nil(p);
    msgpack_pack_double(p, 1.5);
    msgpack_pack_int(p, -4);
    msgpack_pack_int(p, 12); /* a key that is a number */
    msgpack_pack_true(p);
    terse_pack_cstr(p, "model");
    msgpack_pack_nil(p);
    put_u64(p, "id", 7);
    put_u64(p, "v", 1);
    assert_int_equal(terse_wire_decode_request(h.buffer.data, h.buffer.size, &decoded_request, &error), TERSE_OK);
    assert_int_equal(decoded_request.op, TERSE_WIRE_UNKNOWN);
    assert_true(terse_wire_text_is(decoded_request.op_name, "fly"));
    assert_null(decoded_request.model.data);
    msgpack_sbuffer_destroy(&h.buffer);
}

static void wrong_types_twice_and_missing_are_refused_with_the_id(void **state)
{
    (void)state;
    hand h;
    msgpack_packer *p = hand_begin(&h, 2); /* the id stands behind the error */
    put_text(p, "timeout_us", "soon");
    put_u64(p, "id", 7);
    expect_refused(&h, "key 'timeout_us' is a string, allowed is an integer", true);

    p = hand_begin(&h, 3);
    put_u64(p, "id", 7);
    put_text(p, "model", "a");
    put_text(p, "model", "b");
    expect_refused(&h, "key 'model' is there twice", true);

    p = hand_begin(&h, 1);
    put_text(p, "id", "7");
    expect_refused(&h, "key 'id' is a string", false);

    p = hand_begin(&h, 1);
    put_text(p, "op", "live");
    expect_refused(&h, "key 'id' is missing", false);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    put_text(p, "op", "infer");
    expect_refused(&h, "infer: key 'model' is missing", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    put_u64(p, "v", 2);
    expect_refused(&h, "key 'v' is 2", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    put_u64(p, "priority", 10);
    expect_refused(&h, "key 'priority' is 10, allowed are 0 to 9", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    terse_pack_cstr(p, "session");
    terse_pack_bin(p, "short", 5);
    expect_refused(&h, "key 'session' has 5 bytes, allowed are 16", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    put_text(p, "model", "a\xff");
    expect_refused(&h, "key 'model' is no UTF-8", true);

    p = hand_begin(&h, 1);
    put_u64(p, "id", 7);
    msgpack_pack_nil(p);
    expect_refused(&h, "1 bytes lie behind", true);
}

static void bad_tensors_are_refused_by_name(void **state)
{
    (void)state;
    hand h;
    msgpack_packer *p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    terse_pack_cstr(p, "inputs");
    msgpack_pack_array(p, 1);
    msgpack_pack_map(p, 2);
    put_text(p, "name", "x");
    put_text(p, "dtype", "FP31");
    expect_refused(&h, "inputs[0]: dtype 'FP31' is not known", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    terse_pack_cstr(p, "inputs");
    msgpack_pack_array(p, 1);
    msgpack_pack_map(p, 1);
    terse_pack_cstr(p, "shape");
    msgpack_pack_array(p, 1);
    msgpack_pack_int64(p, -1);
    expect_refused(&h, "inputs[0]: dimension 0 of 'shape' is a negative integer", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    terse_pack_cstr(p, "inputs");
    msgpack_pack_array(p, 1);
    msgpack_pack_map(p, 1);
    terse_pack_cstr(p, "shape");
    msgpack_pack_array(p, 9);
    for (int i = 0; i < 9; i++)
        msgpack_pack_int(p, 1);
    expect_refused(&h, "key 'shape' has 9 entries, allowed are 8", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    terse_pack_cstr(p, "inputs");
    msgpack_pack_array(p, 65);
    for (int i = 0; i < 65; i++)
        msgpack_pack_map(p, 0);
    expect_refused(&h, "key 'inputs' has 65 entries, allowed are 64", true);

    p = hand_begin(&h, 2);
    put_u64(p, "id", 7);
    terse_pack_cstr(p, "inputs");
    msgpack_pack_array(p, 1);
    msgpack_pack_map(p, 1);
    put_text(p, "name", "x");
    expect_refused(&h, "inputs[0]: key 'dtype' is missing", true);
}

static void claims_beyond_the_bytes_cost_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } claims[] = {
        {"\xdf\x18\x00\x00\x00", 5},                 /* a map of 400 million pairs */
        {"\xdd\x18\x00\x00\x00", 5},                 /* an array */
        {"\x81\xdb\x18\x00\x00\x00", 6},             /* a key of 400 MB */
        {"\x81\xa5model\xdb\x18\x00\x00\x00", 12},   /* a text of 400 MB */
        {"\x81\xa6inputs\xdd\xff\xff\xff\xff", 13},  /* 2^32-1 inputs */
        {"\x81\xa7session\xc6\xff\xff\xff\xff", 14}, /* a session of 4 GB */
        {"\x81\xa1x\xc9\xff\xff\xff\xff\x01", 9},    /* an ext of 4 GB */
        {"\xc1", 1},                                 /* the byte that msgpack never uses */
        {"", 0},                                     /* nothing */
        {"\xc0", 1},                                 /* nil */
    };
    terse_error error;
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        /* An exact heap block: the sanitizer sees the first byte read beyond it. */
        char *copy = malloc(claims[i].size ? claims[i].size : 1);
        memcpy(copy, claims[i].bytes, claims[i].size);
        assert_int_equal(terse_wire_decode_request(copy, claims[i].size, &decoded_request, &error),
                         TERSE_INVALID_ARGUMENT);
        assert_false(decoded_request.has_id);
        assert_int_equal(terse_wire_decode_reply(copy, claims[i].size, &decoded_reply, &error), TERSE_INVALID_ARGUMENT);
        free(copy);
    }
    /* Deep nesting needs no stack. */
    static uint8_t deep[60000];
    memset(deep, 0x91, sizeof deep);
    deep[0] = 0x81;
    deep[1] = 0xa1;
    deep[2] = 'x';
    assert_int_equal(terse_wire_decode_request(deep, sizeof deep, &decoded_request, &error), TERSE_INVALID_ARGUMENT);
}

static void the_id_survives_a_cut(void **state)
{
    (void)state;
    terse_error error;
    static const char cut[] = "\x8b\xa2id\x07\xa5model\xdb\x18\x00\x00\x00";
    assert_int_equal(terse_wire_decode_request(cut, sizeof cut - 1, &decoded_request, &error), TERSE_INVALID_ARGUMENT);
    assert_true(decoded_request.has_id && decoded_request.id == 7);
}

static void random_damage_is_survived(void **state)
{
    (void)state;
    terse_error error;
    size_t size = 0;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    a_request_comes_back_as_it_was(NULL);
    assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_OK);
    uint8_t *copy = malloc(size);
    unsigned refused = 0;
    for (int round = 0; round < 20000; round++) {
        memcpy(copy, bytes, size);
        for (int n = 1 + rand() % 4; n > 0; n--)
            copy[(size_t)rand() % size] = (uint8_t)rand();
        if (terse_wire_decode_request(copy, size, &decoded_request, &error))
            refused++;
        (void)terse_wire_decode_reply(copy, size, &decoded_reply, &error);
    }
    free(copy);
    assert_in_range(refused, 1000, 20000);
}

/* Whatever numbers a request has, and whatever is damaged, a form reads it as it is read without one. */
static void forms_read_what_is_read_without_them(void **state)
{
    (void)state;
    static terse_wire_forms forms;
    static uint8_t with[TERSE_WIRE_HEADER_BYTES], without[TERSE_WIRE_HEADER_BYTES];
    static const uint64_t numbers[] = {0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX};
    terse_error error;
    size_t size = 0, size_with = 0, size_without = 0;
    unsigned hits = 0, bad = 0;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    a_request_comes_back_as_it_was(NULL);
    request.inputs[0].has_shm = true;
    for (int round = 0; round < 20000; round++) {
        terse_wire_request *like = NULL;
        const uint32_t last = forms.last;
        request.id = numbers[(size_t)rand() % 10];
        request.has_sent = rand() % 8 != 0;
        request.sent_ns = numbers[(size_t)rand() % 10] + (uint64_t)rand();
        request.inputs[0].shm_offset = numbers[(size_t)rand() % 10];
        request.inputs[0].shm_size = numbers[(size_t)rand() % 10];
        request.session[rand() % 16] = (uint8_t)rand();
        request.priority = (uint32_t)rand() % 3;
        assert_int_equal(terse_wire_encode_request(&request, bytes, sizeof bytes, &size, &error), TERSE_OK);
        for (int n = rand() % 4 ? 0 : 1 + rand() % 2; n > 0; n--)
            bytes[(size_t)rand() % size] = (uint8_t)rand();
        size -= rand() % 16 == 0;
        const int status = terse_wire_decode_request(bytes, size, &decoded_request, &error);
        assert_int_equal(terse_wire_decode_like(&forms, bytes, size, &like, &error), status);
        assert_true(like->has_id == decoded_request.has_id && (!like->has_id || like->id == decoded_request.id));
        bad += status != TERSE_OK;
        hits += !status && forms.last == last;
        if (status)
            continue;
        assert_int_equal(terse_wire_encode_request(&decoded_request, without, sizeof without, &size_without, &error),
                         0);
        assert_int_equal(terse_wire_encode_request(like, with, sizeof with, &size_with, &error), 0);
        assert_int_equal(size_with, size_without);
        assert_memory_equal(with, without, size_with);
    }
    assert_in_range(bad, 500, 20000);
    assert_in_range(hits, 1000, 20000); /* it is not always decoded anew */
}

/* The same of replies. */
static void forms_read_replies_as_they_are_read_without_them(void **state)
{
    (void)state;
    static terse_wire_reply_forms forms;
    static uint8_t with[TERSE_WIRE_HEADER_BYTES], without[TERSE_WIRE_HEADER_BYTES];
    static const uint64_t numbers[] = {0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX};
    terse_error error;
    size_t size = 0, size_with = 0, size_without = 0;
    unsigned hits = 0, bad = 0;
    const unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    a_reply_comes_back_as_it_was(NULL);
    reply.outputs[0].has_shm = true;
    for (int round = 0; round < 20000; round++) {
        const terse_wire_reply *like = NULL;
        const uint32_t last = forms.last;
        reply.id = numbers[(size_t)rand() % 10];
        reply.status = rand() % 16 ? TERSE_OK : TERSE_UNAVAILABLE;
        reply.queue_us = numbers[(size_t)rand() % 10];
        reply.compute_us = numbers[(size_t)rand() % 10];
        reply.batch = (uint32_t)numbers[(size_t)rand() % 8];
        reply.outputs[0].shm_offset = numbers[(size_t)rand() % 10];
        reply.outputs[0].shm_size = numbers[(size_t)rand() % 10];
        assert_int_equal(terse_wire_encode_reply(&reply, bytes, sizeof bytes, &size, &error), TERSE_OK);
        for (int n = rand() % 4 ? 0 : 1 + rand() % 2; n > 0; n--)
            bytes[(size_t)rand() % size] = (uint8_t)rand();
        size -= rand() % 16 == 0;
        const int status = terse_wire_decode_reply(bytes, size, &decoded_reply, &error);
        assert_int_equal(terse_wire_decode_reply_like(&forms, bytes, size, &like, &error), status);
        assert_true(like->has_id == decoded_reply.has_id && (!like->has_id || like->id == decoded_reply.id));
        bad += status != TERSE_OK;
        hits += !status && forms.last == last;
        if (status)
            continue;
        assert_int_equal(like->status, decoded_reply.status);
        assert_int_equal(terse_wire_encode_reply(&decoded_reply, without, sizeof without, &size_without, &error), 0);
        assert_int_equal(terse_wire_encode_reply(like, with, sizeof with, &size_with, &error), 0);
        assert_int_equal(size_with, size_without);
        assert_memory_equal(with, without, size_with);
    }
    assert_in_range(bad, 500, 20000);
    assert_in_range(hits, 1000, 20000); /* it is not always decoded anew */
}

/* Wherever a byte stands that ends a text, also where eight are looked at at once. */
static void texts_end_at_what_is_no_utf8(void **state)
{
    (void)state;
    char text[40];
    for (size_t length = 1; length < sizeof text; length++)
        for (size_t at = 0; at < length; at++)
            for (int byte = 0; byte < 256; byte++) {
                memset(text, 'a', sizeof text);
                text[at] = (char)byte;
                assert_int_equal(terse_wire_walk_utf8(text, length), byte == 0 || byte >= 0x80 ? at : length);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_comes_back_as_it_was),
        cmocka_unit_test(a_reply_comes_back_as_it_was),
        cmocka_unit_test(what_runs_a_daemon_comes_back_as_it_was),
        cmocka_unit_test(the_workers_of_stats_are_passed_over),
        cmocka_unit_test(an_error_reply_is_valid_whatever_it_quotes),
        cmocka_unit_test(strange_keys_are_passed_over),
        cmocka_unit_test(wrong_types_twice_and_missing_are_refused_with_the_id),
        cmocka_unit_test(bad_tensors_are_refused_by_name),
        cmocka_unit_test(claims_beyond_the_bytes_cost_nothing),
        cmocka_unit_test(the_id_survives_a_cut),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(forms_read_what_is_read_without_them),
        cmocka_unit_test(forms_read_replies_as_they_are_read_without_them),
        cmocka_unit_test(texts_end_at_what_is_no_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
