/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_frontend.c: a whole life of the front end: clients, workers and a supervisor do what the input says, then all
 * are well again, and the front end drains.
 *
 * The front end is the real one, its main and its loop; around it are play_zmq.h (the clients' socket and the clock)
 * and play_pool.h (supervisor and workers). Whenever the loop waits, the next step of the input is played. What must
 * hold: every request with an id is answered exactly once (one sent again: at least once, at most as often as it was
 * sent), unless its client is gone or lost replies as a slow reader, which are counted; a reply holds the bytes that
 * follow from its own request; at the end no request lives, no slot is taken, and every count of a client is zero.
 *
 * Clients with shared memory (play_arena.h) do so too, through their rings or over the socket. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/begin.h"
#include "daemon/frontend/loop.h"
#include "daemon/sandbox.h"
#define REPLAY_SPARSE
#include "tests/fuzz/play_arena.h"
#include "tests/fuzz/play_pool.h"
#include "tests/fuzz/play_zmq.h"
#include "tests/fuzz/replay.h"

/* The front end's own main, with the control socket where this program has it. */
static int control_fd = -1;
static int run_loop(terse_frontend *fe);
int frontend_main(void);
#define TERSE_CONTROL_FD control_fd
#define terse_loop_run run_loop
#define terse_begin(name) true
#define main frontend_main
#include "daemon/frontend/main.c" /* NOLINT */
#undef main
#undef terse_loop_run
#undef terse_begin

enum { MAX_ASKED = 1024, MAX_TURNS = 4000, WAIT_FOR_END = 1000 };

/* Messages that carried one id. */
typedef struct asked {
    uint64_t id;
    unsigned n_sent, n_answers;
    bool lossy; /* a client that sent it is gone, or it was sent from several places */
    uint8_t fill;
} asked;

static asked table[MAX_ASKED];
static unsigned n_asked;
static uint64_t next_id;
static play_input input;
static terse_frontend *front;
static bool drain_told, over;
static unsigned turns;
static uint8_t header[TERSE_WIRE_HEADER_BYTES + 64];
static uint8_t frames[8][8192];
static terse_wire_request request;
static terse_wire_reply reply;

int __real_epoll_wait(int fd, struct epoll_event *events, int n, int ms);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int n, int ms);
int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *time, const sigset_t *mask);
void __wrap_terse_log(terse_log_priority priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
void __wrap_terse_log_with(const terse_log_about *about, terse_log_priority priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_frontend: %s\n", what);
    abort();
}

/* Formatted, so that a wrong argument shows; printed when somebody wants to see it. */
static void show(terse_log_priority priority, const char *format, va_list args)
{
    static int shown = -1;
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    if (shown < 0)
        shown = getenv("TERSE_FUZZ_LOG") != NULL;
    if (shown)
        fprintf(stderr, "<%d> %s\n", (int)priority, line);
}

void __wrap_terse_log(terse_log_priority priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    show(priority, format, args);
    va_end(args);
}

void __wrap_terse_log_with(const terse_log_about *about, terse_log_priority priority, const char *format, ...)
{
    va_list args;
    (void)about;
    va_start(args, format);
    show(priority, format, args);
    va_end(args);
}

/* --- clients --------------------------------------------------------------------------------------------------- */

static asked *find(uint64_t id)
{
    for (unsigned i = 0; i < n_asked; i++)
        if (table[i].id == id)
            return &table[i];
    return NULL;
}

/* Notes what must be answered. */
static void note(const uint8_t *bytes, size_t size, uint8_t fill, unsigned peer)
{
    static uint64_t sender[MAX_ASKED];
    terse_error error;
    (void)terse_wire_decode_request(bytes, size, &request, &error);
    if (!request.has_id)
        return;
    asked *about = find(request.id);
    if (!about) {
        about = &table[n_asked++];
        *about = (asked){.id = request.id, .fill = fill};
        sender[about - table] = peer;
    }
    about->n_sent++;
    about->lossy = about->lossy || sender[about - table] != peer;
}

static void check_bytes(const asked *about, const uint8_t *bytes, size_t size)
{
    for (size_t k = 0; bytes && k < size && about->n_sent == 1 && !play_pool_lied; k++)
        require(bytes[k] == 255 - about->fill, "a reply has its own bytes");
}

static void take_reply(unsigned peer, const play_part *parts, unsigned n)
{
    (void)peer;
    terse_error error = {0};
    require(n >= 1 && terse_wire_decode_reply(parts[0].data, parts[0].size, &reply, &error) == TERSE_OK,
            "a reply reads");
    require(reply.has_id, "a reply names its request");
    asked *about = find(reply.id);
    require(about != NULL, "a reply is to a request");
    about->n_answers++;
    require(about->n_answers <= about->n_sent, "no request is answered twice");
    require(reply.status == TERSE_OK || (n == 1 && (reply.error.length > 0 || play_pool_lied)), "an error says why");
    unsigned n_frames = 0;
    for (uint32_t i = 0; i < reply.n_outputs; i++)
        n_frames += !reply.outputs[i].has_shm;
    require(n == 1 || n == 1 + n_frames, "a frame for each output");
    for (unsigned i = 1; i < n; i++)
        check_bytes(about, parts[i].data, parts[i].size);
    for (uint32_t i = 0; i < reply.n_outputs && !play_pool_lied; i++)
        if (reply.outputs[i].has_shm)
            check_bytes(about, play_arena_output(reply.id, reply.outputs[i].shm_offset, reply.outputs[i].shm_size),
                        reply.outputs[i].shm_size);
    play_arena_answered(reply.id);
}

static void take_completion(const void *bytes, size_t size)
{
    take_reply(PLAY_PEERS, &(play_part){bytes, size}, 1);
}

static void session_of(terse_wire_request *r, unsigned choice)
{
    r->has_session = choice % 4 != 0;
    memset(r->session, (int)(choice % 4), sizeof r->session);
}

/* A request as a good client makes it; the input says which. With `arena` >= 0 its tensors lie there when there is
 * room, and *ret_laid is true. Returns how many frames there are. */
static unsigned good_request(unsigned peer, int arena, play_part *parts, size_t *ret_size, bool *ret_laid)
{
    const unsigned what = play_byte(&input), how = play_byte(&input);
    const terse_wire_op ops[] = {TERSE_WIRE_LIVE,     TERSE_WIRE_READY,     TERSE_WIRE_MODELS,
                                 TERSE_WIRE_METADATA, TERSE_WIRE_STATS,     TERSE_WIRE_CANCEL,
                                 TERSE_WIRE_LOAD,     TERSE_WIRE_CONFIGURE, TERSE_WIRE_UNLOAD};
    terse_wire_request *r = &request;
    terse_wire_request_init(r);
    const play_model *model = &play_models[what % PLAY_MODELS];
    unsigned n = 0;
    r->op = what & 128 ? ops[how % 9] : TERSE_WIRE_INFER;
    r->has_id = true;
    r->id = how >= 250 && next_id > 1 ? next_id - 1 - play_byte(&input) % (next_id - 1) : next_id++;
    session_of(r, peer + (what >> 3));
    r->model = terse_wire_text_of(model->name);
    r->target = next_id > 2 ? next_id - 2 - play_byte(&input) % (next_id - 2) : 0;
    r->has_target = r->op == TERSE_WIRE_CANCEL;
    r->file = terse_wire_text_of("/models/next.terse");
    if (r->op == TERSE_WIRE_CONFIGURE)
        r->has_max_batch = true, r->max_batch = how;
    if (r->op != TERSE_WIRE_INFER && r->op != TERSE_WIRE_LOAD)
        r->file = (terse_wire_text){0};
    if (r->op == TERSE_WIRE_INFER) {
        r->file = (terse_wire_text){0};
        r->has_timeout = how & 1;
        r->timeout_us = how & 2 ? play_byte(&input) : play_byte(&input) * 1000u;
        r->priority = (how >> 2) % 10;
        const int64_t rows = 1 + play_byte(&input) % 6, width = model->grows ? 1 + play_byte(&input) : 4;
        const uint8_t fill = play_byte(&input);
        for (; n < (unsigned)model->n_inputs; n++) {
            terse_wire_tensor *t = &r->inputs[r->n_inputs++];
            terse_wire_tensor_init(t);
            t->name = terse_wire_text_of(n ? "b" : "x");
            t->dtype = TERSE_FP32;
            t->rank = 2;
            t->dims[0] = rows;
            t->dims[1] = width;
            t->frame = n + 1;
            memset(frames[n], fill, sizeof frames[n]);
            parts[1 + n] = (play_part){frames[n], (size_t)(rows * width) * 4};
        }
    }
    terse_error error = {0};
    *ret_laid = arena >= 0 && n > 0 && !find(r->id) && play_arena_lay((unsigned)arena, r, frames[0][0]);
    require(terse_wire_encode_request(r, header, TERSE_WIRE_HEADER_BYTES, ret_size, &error) == TERSE_OK, error.message);
    return *ret_laid ? 0 : n;
}

/* Damage: to bytes of the header, its length, the frames' sizes and their number. */
static unsigned damage(play_part *parts, unsigned n_frames, size_t *size)
{
    for (unsigned n = 1 + play_byte(&input) % 4; n > 0; n--) {
        const unsigned what = play_byte(&input), where = play_byte(&input), by = play_byte(&input);
        switch (what % 6) {
        case 0:
        case 1:
            if (*size > 0)
                header[(where | (what & 64u) << 2) % *size] = (uint8_t)by;
            break;
        case 2:
            *size = *size ? where % *size : 0;
            break;
        case 3:
            header[*size] = (uint8_t)by;
            *size += *size < TERSE_WIRE_HEADER_BYTES;
            break;
        case 4:
            if (n_frames > 0)
                parts[1 + where % n_frames].size = (what & 64 ? by * 32u : by) % sizeof frames[0];
            break;
        default:
            n_frames = where % 80 < PLAY_PARTS - 2 ? where % 80 : n_frames;
            for (unsigned i = 0; i < n_frames; i++)
                if (!parts[1 + i].data)
                    parts[1 + i] = (play_part){frames[7], by % 16u};
        }
    }
    return n_frames;
}

static void client_step(unsigned what)
{
    static play_part parts[PLAY_PARTS];
    const unsigned peer = what % PLAY_PEERS;
    size_t size = 0;
    if (n_asked + 1 >= MAX_ASKED)
        return;
    play_connect(peer);
    memset(parts, 0, sizeof parts);
    bool laid = false;
    unsigned n = good_request(peer, -1, parts, &size, &laid);
    const uint8_t fill = n ? frames[0][0] : 0;
    const unsigned kind = what >> 3 & 7;
    if (kind == 1)
        n = damage(parts, n, &size);
    parts[0] = (play_part){header, size};
    if (kind != 2)
        note(header, size, fill, peer);
    play_send(peer, kind == 2, parts, kind == 3 && size == 0 ? 0 : 1 + n);
    if (kind == 4) { /* the same once more, from here or from elsewhere */
        const unsigned other = play_byte(&input) % PLAY_PEERS;
        play_connect(other);
        note(header, size, fill, other);
        play_send(other, false, parts, 1 + n);
    }
}

static void lose(void)
{
    for (unsigned i = 0; i < n_asked; i++) /* whose they are is not kept: all but those that were answered */
        table[i].lossy = true;
}

static void disconnect(unsigned peer)
{
    if (!play_connected(peer))
        return;
    lose();
    play_disconnect(peer);
}

/* A request of a client with shared memory, through its ring or over the socket. */
static void arena_request(unsigned what)
{
    static play_part parts[PLAY_PARTS];
    const unsigned arena = what % 4 % PLAY_ARENAS, peer = what >> 2 & 1;
    const bool ring = what & 8, damaged = what >> 4 == 1;
    size_t size = 0;
    bool laid = false;
    if (n_asked + 1 >= MAX_ASKED || !play_arena_good(arena))
        return;
    memset(parts, 0, sizeof parts);
    unsigned n = good_request(peer, (int)arena, parts, &size, &laid);
    const uint8_t fill = n || laid ? frames[0][0] : 0;
    if (damaged) {
        n = damage(parts, n, &size);
        play_pool_lied = true; /* it may name the tensors of another */
    }
    if (ring) {
        if (play_arena_submit(arena, header, size, what & 64))
            note(header, size, fill, PLAY_PEERS + arena);
        return;
    }
    play_connect(peer);
    parts[0] = (play_part){header, size};
    note(header, size, fill, peer);
    play_send(peer, false, parts, 1 + n);
}

static void arena_step(unsigned what)
{
    const unsigned arena = what % 4 % PLAY_ARENAS;
    if (what >> 2 & 1) {
        arena_request(what >> 1);
    } else if (what >> 3 & 1) {
        for (unsigned n = what >> 4; n > 0 && play_arena_read(arena, take_completion);)
            n--;
    } else if (play_arena_step(arena, &input)) {
        lose();
    }
}

/* --- the play -------------------------------------------------------------------------------------------------- */

static void step(void)
{
    const unsigned kind = play_byte(&input), what = play_byte(&input);
    play_now_ns += 1000;
    switch (kind % 12) {
    case 0:
    case 1:
    case 2:
    case 3:
        client_step(what);
        break;
    case 4:
    case 5:
        play_worker_step(what % PLAY_WORKERS, &input);
        break;
    case 6:
        if (what < 4)
            disconnect(play_byte(&input) % PLAY_PEERS);
        else
            for (unsigned n = what >> 3 & 7; n > 0 && play_read(what % PLAY_PEERS, take_reply);)
                n--;
        break;
    case 7:
        play_worker_die(what % PLAY_WORKERS, what & 4 ? 11 : what & 8 ? 9 : 0, what & 16);
        break;
    case 8:
        play_supervisor_step(&input);
        break;
    case 10:
    case 11:
        arena_step(what);
        break;
    default: /* the clock goes on by up to 2.5 s, or 17 s */
        play_now_ns += (uint64_t)what * what * (kind & 64 ? 260000 : kind & 32 ? 40000 : 100);
    }
}

static void check_clients(void)
{
    for (uint32_t b = 0; b < front->clients.n_buckets; b++)
        for (const terse_client *c = front->clients.buckets[b]; c; c = c->next)
            require(!c->outstanding && !c->requests && !c->input_bytes && !c->work_ns && !c->owed_bytes && !c->pins &&
                        !c->n_late && !c->slow,
                    "a client holds nothing at the end");
    require(!front->clients.n_asking && !front->clients.work_ns, "nor do all together");
}

/* Before it is told to end: everything has come back. */
static void check_end(void)
{
    unsigned missing = 0;
    for (unsigned p = 0; p < PLAY_PEERS; p++)
        while (play_read(p, take_reply))
            ;
    terse_reply_collect(front);
    for (unsigned i = 0; i < n_asked; i++)
        missing += table[i].n_answers == 0 && !table[i].lossy;
    require(missing <= front->dropped_replies, "every request is answered");
    require(front->n_live == 0 && front->queue.n_requests == 0 && front->queue.n_bytes == 0, "no request lives");
    require(front->queue.heap_size == 0 && front->sessions.n == 0, "no deadline and no session stay");
    require(terse_pins_out(front->pins) == 0, "no pin is out");
    require(front->arenas.n == 0 && front->arenas.n_leaving == 0, "no client's memory stays");
    require(terse_slots_used(front->inputs) == 0 && terse_slots_used(front->outputs) == 0, "no slot is taken");
    check_clients();
    for (uint32_t i = 0; i < front->n_models; i++)
        for (const terse_lane *lane = front->models[i] ? front->models[i]->lanes : NULL; lane; lane = lane->next)
            require(lane->n_users == 0 && lane->n_requests == 0 && lane->n_rows == 0, "a lane is empty at the end");
}

/* All well again: everything is read, answered and replaced; then the end is asked for. */
static void heal(void)
{
    require(++turns < MAX_TURNS, "it comes to an end");
    for (unsigned p = 0; p < PLAY_PEERS; p++)
        while (play_read(p, take_reply))
            ;
    for (unsigned a = 0; a < PLAY_ARENAS; a++)
        while (play_arena_read(a, take_completion))
            ;
    if (turns % 8 == 0) /* the clock goes on in turns without events only */
        play_arenas_ring();
    play_pool_heal();
    if (drain_told || front->n_live > 0 || play_unread() || turns <= 8 || play_pool_owes() || front->clients.slow ||
        terse_ring_pending(front))
        return;
    play_arenas_leave();
    if (front->arenas.n == 0 && front->arenas.n_leaving == 0) {
        drain_told = true;
        play_pool_drain();
    }
}

static void play(void)
{
    uint32_t outstanding = 0;
    if (input.at < input.end)
        step();
    else
        heal();
    for (uint32_t b = 0; b < front->clients.n_buckets; b++)
        for (const terse_client *c = front->clients.buckets[b]; c; c = c->next)
            outstanding += c->outstanding;
    for (uint32_t i = 1; i < TERSE_MAX_ARENAS; i++)
        outstanding += front->arenas.at[i] ? front->arenas.at[i]->client.outstanding : 0;
    for (uint32_t i = 0; i < TERSE_MAX_ORDERS; i++)
        outstanding -= front->orders[i].client != NULL;
    require(outstanding == front->n_live, "every request is one client's");
    require(front->queue.n_requests <= front->n_live, "who waits lives");
}

int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *time, const sigset_t *mask)
{
    (void)mask;
    play();
    const int found = __real_epoll_wait(fd, events, n, 0);
    if (found == 0 && input.at >= input.end) {
        const uint64_t ns = (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
        play_now_ns += ns < UINT64_C(61000000000) ? ns : UINT64_C(61000000000);
    }
    return found;
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int n, int ms)
{
    if (ms == WAIT_FOR_END && front->drained_told && !over) {
        over = true;
        check_end();
        play_pool_hang_up();
    }
    return __real_epoll_wait(fd, events, n, 0);
}

static int run_loop(terse_frontend *fe)
{
    front = fe;
    const int code = terse_loop_run(fe);
    require(code != 0 || over, "it ends when it is told to");
    return code;
}

/* The kernel counts descriptors that lie in closed sockets until it collects them, which is later than the next hundred
 * of cases; who is not root may have as many on their way as may be open. */
static void raise_descriptors(void)
{
    struct rlimit descriptors;
    require(getrlimit(RLIMIT_NOFILE, &descriptors) == 0, "the limit of descriptors is known");
    descriptors.rlim_cur = descriptors.rlim_max;
    require(setrlimit(RLIMIT_NOFILE, &descriptors) == 0, "the limit of descriptors is raised");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool prepared;
    if (!prepared) {
        raise_descriptors();
        setenv("TERSE_NO_SECCOMP", "1", 1);
        play_pool_prepare();
        prepared = true;
    }
    input = (play_input){data, data + size};
    n_asked = turns = 0;
    next_id = 1;
    drain_told = over = false;
    play_now_ns = UINT64_C(1000000000);
    play_reset(1 + play_byte(&input) % 16);
    control_fd = play_pool_start(&input);
    front = NULL;
    (void)frontend_main();
    require(front != NULL, "the front end starts");
    close(control_fd);
    play_arenas_end();
    play_pool_end();
    play_reset(1);
    return 0;
}
