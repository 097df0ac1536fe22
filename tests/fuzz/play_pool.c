/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/play_pool.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/model.h"
#include "daemon/frontend/attach.h"
#include "tests/fuzz/play_arena.h"

enum { MEMORY = 1 << 20 };

/* Tensors' memory as a worker has it mapped: number 0 the slots, the others clients'. */
typedef struct memory {
    uint8_t *inputs, *outputs;
    uint64_t input_bytes, output_bytes;
    bool told; /* that it is there, or was */
} memory;

typedef struct worker {
    int fd; /* -1: dead */
    int32_t pid;
    uint32_t restarts, epoch;
    bool greeted, warmed, has_batch, untold;
    int wait_status;
    memory memories[TERSE_MAX_ARENAS];
    _Alignas(16) uint8_t batch[TERSE_MSG_BYTES];
} worker;

static worker workers[PLAY_WORKERS];
static int control = -1;
static int32_t next_pid;
static uint64_t next_serial;
static bool pending[TERSE_MODEL_SLOTS];
static uint32_t orders[128], n_orders, n_opened;
static _Alignas(16) uint8_t buffer[TERSE_MSG_BYTES];
bool play_pool_lied;
play_model play_models[PLAY_MODELS] = {
    {.name = "rows", .n_inputs = 1, .rank = 2, .batchable = true},
    {.name = "pair", .n_inputs = 2, .rank = 2},
    {.name = "grow", .n_inputs = 1, .rank = 2, .batchable = true, .grows = true},
};

uint8_t play_byte(play_input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static unsigned play_u16(play_input *in)
{
    const unsigned low = play_byte(in);
    return low | (unsigned)play_byte(in) << 8;
}

/* --- models ---------------------------------------------------------------------------------------------------- */

static int value_of(terse_graph *graph, const char *name, int64_t first, int64_t second)
{
    const int value = terse_graph_add_value(graph, name);
    assert(value >= 0);
    graph->values[value].dtype = TERSE_FP32;
    graph->values[value].rank = 2;
    graph->values[value].dims[0] = first;
    graph->values[value].dims[1] = second;
    return value;
}

static void make_model(play_model *model)
{
    terse_error error = {0};
    terse_graph *graph = terse_graph_new();
    assert(graph);
    const int64_t n = TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "N"));
    const int64_t width = model->grows ? TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "T")) : 4;
    const int64_t out = model->grows ? TERSE_DIM_OF_SYMBOL(terse_graph_symbol(graph, "M")) : 4;
    graph->inputs = terse_arena_alloc(graph->arena, 4 * sizeof *graph->inputs);
    graph->outputs = terse_arena_alloc(graph->arena, 4 * sizeof *graph->outputs);
    graph->inputs[graph->n_inputs++] = value_of(graph, "x", n, width);
    if (model->n_inputs > 1)
        graph->inputs[graph->n_inputs++] = value_of(graph, "b", n, width);
    graph->outputs[graph->n_outputs++] = value_of(graph, "y", n, out);
    terse_graph_add_node(graph, model->n_inputs > 1 ? TERSE_OP_ADD : TERSE_OP_RELU, "", graph->inputs, model->n_inputs,
                         graph->outputs, 1);
    graph->batchable = model->batchable;
    model->memfd = memfd_create(model->name, MFD_CLOEXEC);
    const terse_model about = {.tool = "fuzz", .source_sha256 = "", .command = ""};
    if (model->memfd < 0 || terse_model_write_fd(model->memfd, graph, &about, &error)) {
        fprintf(stderr, "play_pool: %s\n", error.message);
        abort();
    }
    model->bytes = (uint64_t)lseek(model->memfd, 0, SEEK_END);
    terse_graph_free(graph);
}

void play_pool_prepare(void)
{
    for (int i = 0; i < PLAY_MODELS; i++)
        make_model(&play_models[i]);
    for (int i = 0; i < PLAY_WORKERS; i++)
        workers[i].fd = -1;
}

/* --- the supervisor's messages --------------------------------------------------------------------------------- */

static void say(const void *message, uint32_t bytes, int fd)
{
    if (control >= 0)
        (void)terse_msg_send(control, message, bytes, &fd, fd >= 0);
}

static void send_model(unsigned kind, uint32_t index, bool is_pending, play_input *in)
{
    terse_msg_model message = {.head = {TERSE_MSG_MODEL, sizeof message}, .model = index, .threads = 1};
    const play_model *model = &play_models[kind];
    message.max_batch = 1 + play_byte(in) % 12;
    message.objective = play_byte(in) % 8 == 0;
    message.batch_timeout_us = play_byte(in) % 4 == 0 ? play_byte(in) * 10u : 0;
    message.deadline_ms = play_byte(in) % 8 == 0 ? 1 + play_byte(in) : 0;
    message.bytes = model->bytes;
    message.serial = ++next_serial;
    message.pending = is_pending;
    pending[index] = is_pending;
    strcpy(message.name, model->name);
    snprintf(message.version, sizeof message.version, "%d", is_pending ? 2 : 1);
    say(&message, sizeof message, model->memfd);
}

void play_worker_start(unsigned number)
{
    worker *w = &workers[number];
    int ends[2];
    if (w->fd >= 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return;
    w->fd = ends[0];
    w->pid = ++next_pid;
    w->greeted = w->warmed = w->has_batch = w->untold = false;
    const terse_msg_worker message = {
        .head = {TERSE_MSG_WORKER, sizeof message}, .worker = number, .pid = w->pid, .restarts = w->restarts++};
    say(&message, sizeof message, ends[1]);
    close(ends[1]);
}

static void tell_exit(unsigned number, bool hung, bool expected)
{
    worker *w = &workers[number];
    const terse_msg_worker message = {.head = {TERSE_MSG_WORKER_EXIT, sizeof message},
                                      .worker = number,
                                      .pid = w->pid,
                                      .restarts = w->restarts,
                                      .wait_status = w->wait_status,
                                      .killed_hung = hung,
                                      .expected = expected};
    say(&message, sizeof message, -1);
    w->untold = false;
}

static void unmap(memory *m)
{
    if (m->inputs) {
        munmap(m->inputs, m->input_bytes);
        munmap(m->outputs, m->output_bytes);
    }
    m->inputs = m->outputs = NULL;
}

static void map(memory *m, uint64_t input_bytes, uint64_t output_bytes, const int *fds)
{
    m->input_bytes = input_bytes;
    m->output_bytes = output_bytes;
    m->inputs = mmap(NULL, input_bytes, PROT_READ, MAP_SHARED, fds[0], 0);
    m->outputs = mmap(NULL, output_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
    assert(m->inputs != MAP_FAILED && m->outputs != MAP_FAILED);
    m->told = true;
}

static void let_go(worker *w)
{
    for (unsigned i = 0; i < TERSE_MAX_ARENAS; i++) {
        unmap(&w->memories[i]);
        w->memories[i].told = false;
    }
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

void play_worker_die(unsigned number, int wait_status, bool told)
{
    worker *w = &workers[number];
    if (w->fd < 0)
        return;
    let_go(w);
    w->wait_status = wait_status;
    w->untold = true;
    if (told)
        tell_exit(number, false, false);
}

static void send_listener(const char *endpoint, int fd)
{
    terse_msg_listen message = {.head = {TERSE_MSG_LISTEN, sizeof message}};
    assert(fd >= 0);
    snprintf(message.endpoint, sizeof message.endpoint, "%s", endpoint);
    say(&message, sizeof message, fd);
    close(fd);
}

int play_pool_start(play_input *in)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        abort();
    control = ends[0];
    next_pid = 100;
    next_serial = 0;
    n_orders = n_opened = 0;
    play_pool_lied = false;
    memset(pending, 0, sizeof pending);
    for (unsigned i = 0; i < PLAY_MODELS; i++)
        send_model(i, i, false, in);
    const unsigned n = 1 + play_byte(in) % PLAY_WORKERS;
    for (unsigned i = 0; i < n; i++) {
        workers[i].restarts = 0;
        play_worker_start(i);
    }
    send_listener("ipc:///clients", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    send_listener(TERSE_ATTACH_SCHEME "memory", play_arenas_listen());
    const unsigned tight = play_byte(in);
    const terse_msg_configured message = {
        .head = {TERSE_MSG_CONFIGURED, sizeof message},
        .n_models = PLAY_MODELS,
        .n_workers = n,
        .input_bytes = tight & 1 ? 16 << 10 : MEMORY,
        .output_bytes = tight & 2 ? 32 << 10 : MEMORY,
        .max_request_bytes = tight & 4 ? 2048 : 64 << 10,
        .max_queue_bytes = tight & 8 ? 8192 : 0,
        .max_client_bytes = tight & 16 ? 4096 : 0,
        .finished_bytes = tight & 32 ? 4096 : 1 << 18,
        .max_queue = tight & 64 ? 8 : 0,
        .max_client_outstanding = tight & 128 ? 4 : 0,
        .arena_bytes_per_uid = tight & 2 ? MEMORY / 4 : MEMORY,
        .arenas_per_uid = 4,
    };
    say(&message, sizeof message, -1);
    return ends[1];
}

void play_pool_hang_up(void)
{
    if (control >= 0)
        close(control);
    control = -1;
}

void play_pool_end(void)
{
    play_pool_hang_up();
    for (int i = 0; i < PLAY_WORKERS; i++)
        let_go(&workers[i]);
}

/* --- workers --------------------------------------------------------------------------------------------------- */

static void greet(worker *w, const terse_msg_hello *hello, const int *fds, int n_fds)
{
    assert(n_fds == 2 && !w->memories[0].told);
    w->epoch = hello->epoch;
    map(&w->memories[0], hello->input_bytes, hello->output_bytes, fds);
    w->greeted = true;
}

/* A client's memory comes and goes. A descriptor of its inputs by which they could be written would be a mistake. */
static void take_arena(worker *w, const terse_msg_arena *message, const int *fds, int n_fds)
{
    assert(message->arena > 0 && message->arena < TERSE_MAX_ARENAS);
    memory *m = &w->memories[message->arena];
    unmap(m);
    if (message->head.kind == TERSE_MSG_ARENA_GONE)
        return;
    assert(n_fds == 2);
    map(m, message->input_bytes, message->output_bytes, fds);
}

static void send_state(worker *w, unsigned kind, uint32_t model, uint64_t serial, terse_status status)
{
    terse_msg_model_state state = {
        .head = {kind, sizeof state}, .model = model, .serial = serial, .status = (int32_t)status, .error = "so it is"};
    (void)terse_msg_send(w->fd, &state, sizeof state, NULL, 0);
}

/* Takes what the front end sent; models are answered with `status`. */
static void hear(worker *w, terse_status status)
{
    int fds[4], n_fds = 0;
    while (w->fd >= 0) {
        const int64_t size = terse_msg_receive(w->fd, buffer, fds, &n_fds);
        const terse_msg *head = (const terse_msg *)(const void *)buffer;
        const terse_msg_model *model = (const terse_msg_model *)(const void *)buffer;
        const terse_msg_model_state *state = (const terse_msg_model_state *)(const void *)buffer;
        if (size > 0 && head->kind == TERSE_MSG_HELLO)
            greet(w, (const terse_msg_hello *)(const void *)buffer, fds, n_fds);
        else if (size > 0 && head->kind == TERSE_MSG_MODEL)
            send_state(w, TERSE_MSG_MODEL_WARMED, model->model, model->serial, status);
        else if (size > 0 && head->kind == TERSE_MSG_UNLOAD)
            send_state(w, TERSE_MSG_UNLOADED, state->model, state->serial, TERSE_OK);
        else if (size > 0 && (head->kind == TERSE_MSG_ARENA || head->kind == TERSE_MSG_ARENA_GONE))
            take_arena(w, (const terse_msg_arena *)(const void *)buffer, fds, n_fds);
        else if (size > 0 && head->kind == TERSE_MSG_BATCH) {
            assert(!w->has_batch);
            memcpy(w->batch, buffer, (size_t)size);
            w->has_batch = true;
        }
        for (int i = 0; i < n_fds; i++)
            close(fds[i]);
        if (size <= 0)
            return;
    }
}

static void warm(worker *w)
{
    const terse_msg_warmed message = {.head = {TERSE_MSG_WARMED, sizeof message}, .epoch = w->epoch};
    if (w->fd < 0 || !w->greeted || w->warmed)
        return;
    w->warmed = true;
    (void)terse_msg_send(w->fd, &message, sizeof message, NULL, 0);
}

static uint64_t word(const uint8_t **at)
{
    uint64_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return value;
}

static memory *memory_of(worker *w, uint64_t *offset)
{
    const uint64_t number = *offset >> TERSE_MSG_ARENA_SHIFT;
    *offset &= (UINT64_C(1) << TERSE_MSG_ARENA_SHIFT) - 1;
    assert(number < TERSE_MAX_ARENAS && w->memories[number].told);
    return &w->memories[number];
}

/* The byte that a member's input is full of; what a client shares it may have changed by now. */
static uint8_t fill_of(worker *w, uint64_t offset, uint64_t bytes, uint8_t otherwise)
{
    const bool shared = offset >> TERSE_MSG_ARENA_SHIFT;
    const memory *m = memory_of(w, &offset);
    if (!m->inputs) /* its client has gone, and nobody will look at the answer */
        return otherwise;
    assert(offset <= m->input_bytes && bytes <= m->input_bytes - offset);
    for (uint64_t k = 0; k < bytes; k++)
        assert(shared || m->inputs[offset + k] == m->inputs[offset]);
    return bytes ? m->inputs[offset] : otherwise;
}

/* Runs the batch: all that it names is where it may be. False when some output has no room for `per_row` bytes. */
static bool compute(worker *w, uint64_t per_row)
{
    const terse_msg_batch *batch = (const terse_msg_batch *)(const void *)w->batch;
    const terse_msg_tensor *inputs = (const terse_msg_tensor *)(const void *)(batch + 1);
    const uint8_t *at = (const uint8_t *)(inputs + batch->n_inputs);
    uint64_t total = 0;
    bool room = true;
    for (uint32_t m = 0; m < batch->n_members; m++) {
        const uint64_t rows = word(&at);
        uint8_t fill = 0;
        total += rows;
        for (uint32_t i = 0; i < batch->n_inputs; i++) {
            const uint64_t offset = word(&at);
            fill = fill_of(w, offset, inputs[i].bytes / batch->rows * rows, fill);
        }
        for (uint32_t i = 0; i < batch->n_outputs; i++) {
            uint64_t offset = word(&at);
            const uint64_t capacity = word(&at);
            if (capacity == TERSE_MSG_UNWANTED)
                continue;
            const memory *into = memory_of(w, &offset);
            assert(offset <= into->output_bytes && capacity <= into->output_bytes - offset);
            if (capacity < per_row * rows)
                room = false;
            else if (into->outputs)
                memset(into->outputs + offset, (uint8_t)~fill, per_row * rows);
        }
    }
    assert(total == batch->rows && at == w->batch + batch->head.bytes);
    return room;
}

static void done(worker *w, terse_status status, bool needs_room, int64_t columns)
{
    const terse_msg_batch *batch = (const terse_msg_batch *)(const void *)w->batch;
    const terse_msg_tensor *input = (const terse_msg_tensor *)(const void *)(batch + 1);
    struct {
        terse_msg_done done;
        terse_msg_tensor output;
    } answer = {.done = {.head = {TERSE_MSG_DONE, sizeof answer},
                         .batch = batch->batch,
                         .epoch = batch->epoch,
                         .model = batch->model,
                         .status = (int32_t)status,
                         .n_outputs = 1,
                         .compute_ns = 1000},
                .output = {.dtype = TERSE_FP32, .rank = 2}};
    assert(batch->n_outputs == 1);
    answer.output.dims[0] = batch->rows > input->dims[0] ? batch->rows : input->dims[0];
    answer.output.dims[1] = columns;
    answer.output.bytes = (uint64_t)(answer.output.dims[0] * columns) * 4;
    strcpy(answer.done.error, "the worker says so");
    if (status == TERSE_OK && !compute(w, answer.output.bytes / batch->rows))
        needs_room = true;
    answer.done.needs_room = needs_room;
    w->has_batch = false; /* without room it comes again */
    (void)terse_msg_send(w->fd, &answer, sizeof answer, NULL, 0);
}

static int64_t columns_of(const worker *w, int64_t wanted)
{
    const terse_msg_batch *batch = (const terse_msg_batch *)(const void *)w->batch;
    return play_models[batch->model % PLAY_MODELS].grows ? wanted : 4;
}

static void nonsense(worker *w, play_input *in)
{
    play_pool_lied = true;
    static _Alignas(16) uint8_t bytes[512];
    const uint32_t kinds[] = {TERSE_MSG_DONE, TERSE_MSG_WARMED, TERSE_MSG_MODEL_WARMED, TERSE_MSG_UNLOADED, 7, 0};
    terse_msg_done message = {.head = {kinds[play_byte(in) % 6], 0}};
    const terse_msg_batch *batch = (const terse_msg_batch *)(const void *)w->batch;
    message.batch = batch->batch - (play_byte(in) % 4 == 0);
    message.epoch = batch->epoch;
    message.model = batch->model;
    message.status = play_byte(in) % 4 == 0 ? (int32_t)play_u16(in) - 40 : 0;
    message.n_outputs = play_byte(in) % 3;
    message.needs_room = play_byte(in) & 1;
    message.head.bytes = 8 + play_u16(in) % (sizeof bytes - 8);
    memcpy(bytes, &message, sizeof message);
    for (size_t i = sizeof message, n = play_byte(in) % 96; n > 0 && i < sizeof bytes; i++, n--)
        bytes[i] = play_byte(in);
    if (terse_msg_send(w->fd, bytes, message.head.bytes, NULL, 0))
        w->has_batch = false; /* who knows what it was taken for; heal puts it right */
}

void play_worker_step(unsigned number, play_input *in)
{
    worker *w = &workers[number];
    const unsigned what = play_byte(in);
    hear(w, what % 16 == 15 ? TERSE_INTERNAL : TERSE_OK);
    warm(w);
    if (w->fd < 0 || !w->has_batch)
        return;
    switch (what % 16) {
    case 0:
        nonsense(w, in);
        break;
    case 1:
        done(w, (terse_status)(1 + play_byte(in) % 16), false, 4);
        break;
    case 2:
        done(w, TERSE_OK, true, columns_of(w, play_u16(in)));
        break;
    default:
        done(w, TERSE_OK, false, columns_of(w, what & 16 ? play_u16(in) % 2048 : play_byte(in)));
    }
}

/* --- the supervisor -------------------------------------------------------------------------------------------- */

static void take_order(const terse_msg_admin *order)
{
    if (n_orders < 128)
        orders[n_orders++] = order->token;
}

/* Now and then it cannot: then the front end makes do without. */
static void open_read_only(const terse_msg_read_only *message, int fd)
{
    char path[64];
    terse_msg_read_only answer = *message;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const int opened = ++n_opened % 4 == 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    say(&answer, sizeof answer, opened);
    if (opened >= 0)
        close(opened);
}

/* What the front end tells: hung workers are killed, those that may go are ended. */
void play_pool_supervise(void)
{
    int fds[4], n_fds = 0;
    while (control >= 0) {
        const int64_t size = terse_msg_receive(control, buffer, fds, &n_fds);
        const terse_msg_worker *about = (const terse_msg_worker *)(const void *)buffer;
        const terse_msg_model_state *state = (const terse_msg_model_state *)(const void *)buffer;
        if (size > 0 && about->head.kind == TERSE_MSG_READ_ONLY && n_fds > 0)
            open_read_only((const terse_msg_read_only *)(const void *)buffer, fds[0]);
        for (int i = 0; i < n_fds; i++)
            close(fds[i]);
        if (size <= 0)
            return;
        if (about->head.kind == TERSE_MSG_ADMIN)
            take_order((const terse_msg_admin *)(const void *)buffer);
        else if ((about->head.kind == TERSE_MSG_MODEL_FAILED || about->head.kind == TERSE_MSG_MODEL_GONE ||
                  about->head.kind == TERSE_MSG_MODEL_SWITCHED) &&
                 state->model < TERSE_MODEL_SLOTS)
            pending[state->model] = false;
        else if ((about->head.kind == TERSE_MSG_KILL_WORKER || about->head.kind == TERSE_MSG_WORKER_FREE) &&
                 about->worker < PLAY_WORKERS && workers[about->worker].pid == about->pid &&
                 workers[about->worker].fd >= 0) {
            const bool hung = about->head.kind == TERSE_MSG_KILL_WORKER;
            const unsigned number = about->worker;
            play_worker_die(number, hung ? SIGKILL : 0, false);
            tell_exit(number, hung, !hung);
        }
    }
}

static void answer_order(terse_status status)
{
    if (n_orders == 0)
        return;
    const terse_msg_admin_done message = {.head = {TERSE_MSG_ADMIN_DONE, sizeof message},
                                          .token = orders[--n_orders],
                                          .status = (int32_t)status,
                                          .workers = 2,
                                          .error = "the supervisor says so"};
    say(&message, sizeof message, -1);
}

void play_supervisor_step(play_input *in)
{
    const unsigned what = play_byte(in), number = play_byte(in) % PLAY_WORKERS;
    play_pool_supervise();
    switch (what % 8) {
    case 0:
        answer_order(what & 8 ? TERSE_OK : TERSE_INTERNAL);
        break;
    case 1:
        if (workers[number].untold)
            tell_exit(number, what & 8, what & 16);
        break;
    case 2:
        play_worker_start(number);
        break;
    case 3: /* a new version of a model, under the next index */
        if (next_serial < 16)
            send_model(number % PLAY_MODELS, (uint32_t)next_serial, true, in);
        break;
    case 4: {
        const terse_msg_worker_waits message = {.head = {TERSE_MSG_WORKER_WAITS, sizeof message},
                                                .worker = number,
                                                .failures = 3,
                                                .wait_ms = play_byte(in)};
        if (workers[number].fd < 0)
            say(&message, sizeof message, -1);
        break;
    }
    case 5: { /* of no known kind, or of the wrong size */
        terse_msg head = {play_byte(in) | 1u << 8, sizeof head};
        if (what & 8)
            head.kind = TERSE_MSG_WORKER_EXIT;
        say(&head, sizeof head, -1);
        break;
    }
    case 6: {
        const terse_msg_worker message = {
            .head = {TERSE_MSG_WORKER_LEAVE, sizeof message}, .worker = number, .pid = workers[number].pid};
        if (workers[number].fd >= 0)
            say(&message, sizeof message, -1);
        break;
    }
    default: {
        const uint32_t index = play_byte(in) % 16;
        terse_msg_model_state message = {
            .head = {TERSE_MSG_MODEL_DROP, sizeof message}, .model = index, .serial = index + 1};
        if (!pending[index]) /* served, or never heard of */
            message.head.kind = TERSE_MSG_MODEL_DRAIN;
        if (pending[index] || what & 16)
            say(&message, sizeof message, -1);
        if (what & 32) /* somebody may listen there later as well */
            send_listener("ipc:///late", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        break;
    }
    }
}

void play_pool_heal(void)
{
    play_pool_supervise();
    while (n_orders > 0)
        answer_order(TERSE_OK);
    for (unsigned i = 0; i < PLAY_WORKERS; i++) {
        worker *w = &workers[i];
        if (w->fd < 0 && w->untold)
            tell_exit(i, false, false);
        play_worker_start(i);
        hear(w, TERSE_OK);
        warm(w);
        if (w->has_batch)
            done(w, TERSE_OK, false, columns_of(w, 5));
    }
}

void play_pool_drain(void)
{
    const terse_msg message = {TERSE_MSG_DRAIN, sizeof message};
    say(&message, sizeof message, -1);
}

bool play_pool_owes(void)
{
    return n_orders > 0;
}
