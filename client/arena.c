/* SPDX-License-Identifier: Apache-2.0 */
#include "client/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/loop.h"
#include "common/bytes.h"
#include "common/pack.h"

enum { N_FDS = 5, ANSWER_BYTES = 4096, RETRY_NS = 20 * 1000 * 1000, ATTACH_MS = 5000 };

/* What an answer brings: descriptors are the reader's. */
typedef struct answer {
    terse_status status;
    char error[TERSE_WIRE_MAX_TEXT + 1];
    uint8_t token[TERSE_WIRE_ARENA_BYTES];
    bool has_token;
    uint64_t input_bytes, output_bytes, ring_bytes;
    int fds[N_FDS];
    int n_fds;
} answer;

/* --- asking -------------------------------------------------------------------------------------------------- */

/* "ipc:///run/terse/tersed.sock" -> /run/terse/tersed.sock.attach */
static terse_status attach_address(const terse_client *client, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strncmp(client->endpoint, "ipc://", 6) != 0)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT,
                           "endpoint '%.300s': memory is shared with daemons of this host (ipc://)", client->endpoint);
    const int length = snprintf(address->sun_path, sizeof address->sun_path, "%s.attach", client->endpoint + 6);
    if (length < 0 || (size_t)length >= sizeof address->sun_path)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "endpoint '%.300s' has %zu bytes, too many to attach there",
                           client->endpoint, strlen(client->endpoint));
    return TERSE_OK;
}

static terse_status ask(const terse_client *client, uint64_t input_bytes, uint64_t output_bytes, int *ret_connection)
{
    uint8_t bytes[256];
    struct sockaddr_un address;
    terse_pack_buffer text = {.data = bytes, .capacity = sizeof bytes};
    msgpack_packer packer;
    const terse_status status = attach_address(client, &address);
    if (status)
        return status;
    TERSE_AUTO(terse_close_fdp) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return CLIENT_FAIL(TERSE_UNAVAILABLE, "no shared memory at '%s': %s", address.sun_path, strerror(errno));
    msgpack_packer_init(&packer, &text, terse_pack_buffer_write);
    msgpack_pack_map(&packer, 4);
    terse_pack_cstr(&packer, "v");
    msgpack_pack_int(&packer, TERSE_WIRE_VERSION);
    terse_pack_cstr(&packer, "op");
    terse_pack_cstr(&packer, "attach");
    terse_pack_cstr(&packer, "input_bytes");
    msgpack_pack_uint64(&packer, input_bytes);
    terse_pack_cstr(&packer, "output_bytes");
    msgpack_pack_uint64(&packer, output_bytes);
    if (send(fd, text.data, text.size, MSG_NOSIGNAL) != (ssize_t)text.size)
        return CLIENT_FAIL(TERSE_UNAVAILABLE, "no shared memory at '%s': %s", address.sun_path, strerror(errno));
    *ret_connection = fd;
    fd = -1;
    return TERSE_OK;
}

/* --- the answer ---------------------------------------------------------------------------------------------- */

static terse_status status_named(const terse_pack_item *item)
{
    for (int s = TERSE_OK; s <= TERSE_SYSTEM; s++)
        if (terse_pack_is(item, terse_status_name((terse_status)s), strlen(terse_status_name((terse_status)s))))
            return (terse_status)s;
    return TERSE_INTERNAL;
}

static void read_pair(terse_pack_reader *reader, const terse_pack_item *key, answer *a)
{
    terse_pack_item item;
    const terse_pack_reader before = *reader;
    if (!terse_pack_next(reader, &item))
        return;
    if (terse_pack_is(key, "status", 6))
        a->status = status_named(&item);
    else if (terse_pack_is(key, "error", 5) && item.type == TERSE_PACK_STR)
        snprintf(a->error, sizeof a->error, "%.*s", (int)(item.length < 1000 ? item.length : 1000), item.data);
    else if (terse_pack_is(key, "arena", 5) && item.type == TERSE_PACK_BIN && item.length == sizeof a->token) {
        memcpy(a->token, item.data, sizeof a->token);
        a->has_token = true;
    } else if (terse_pack_is(key, "input_bytes", 11) && item.type == TERSE_PACK_UINT)
        a->input_bytes = item.u;
    else if (terse_pack_is(key, "output_bytes", 12) && item.type == TERSE_PACK_UINT)
        a->output_bytes = item.u;
    else if (terse_pack_is(key, "ring_bytes", 10) && item.type == TERSE_PACK_UINT)
        a->ring_bytes = item.u;
    *reader = before;
    terse_pack_skip(reader);
}

/* Takes the descriptors of a message; what is beyond N_FDS was cut off by the kernel. */
static void take_fds(struct msghdr *message, answer *a)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n && a->n_fds < N_FDS; i++)
            memcpy(&a->fds[a->n_fds++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
}

static bool plausible(const answer *a)
{
    return a->n_fds == N_FDS && a->has_token && a->input_bytes > 0 && a->output_bytes > 0 &&
           a->ring_bytes >= TERSE_RING_MIN_BYTES && a->ring_bytes <= 1 << 30 &&
           (a->ring_bytes & (a->ring_bytes - 1)) == 0 && a->input_bytes < (uint64_t)1 << 48 &&
           a->output_bytes < (uint64_t)1 << 48;
}

/* One datagram of the daemon. UNAVAILABLE: it hung up. */
static terse_status hear(int connection, answer *a)
{
    uint8_t bytes[ANSWER_BYTES];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(N_FDS * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    *a = (answer){.status = TERSE_INTERNAL, .fds = {-1, -1, -1, -1, -1}};
    const ssize_t got = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0)
        return CLIENT_FAIL(TERSE_UNAVAILABLE, "the daemon hung up when it was asked for shared memory");
    take_fds(&message, a);
    terse_pack_reader reader = terse_pack_reader_over(bytes, (size_t)got);
    terse_pack_item item;
    const uint32_t n = terse_pack_next(&reader, &item) && item.type == TERSE_PACK_MAP ? item.length : 0;
    for (uint32_t i = 0; i < n && terse_pack_next(&reader, &item); i++)
        read_pair(&reader, &item, a);
    if (a->status == TERSE_OK && plausible(a))
        return TERSE_OK;
    for (int i = 0; i < a->n_fds; i++)
        close(a->fds[i]);
    return a->status == TERSE_OK ? CLIENT_FAIL(TERSE_INTERNAL, "the daemon's answer to 'attach' cannot be used")
                                 : CLIENT_FAIL(a->status, "%s", a->error);
}

/* --- mapping ------------------------------------------------------------------------------------------------- */

static uint8_t *map(int fd, uint64_t bytes)
{
    struct stat info;
    /* A file that is shorter than was said would end us with SIGBUS. */
    if (fstat(fd, &info) < 0 || info.st_size < 0 || (uint64_t)info.st_size < bytes)
        return NULL;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return base == MAP_FAILED ? NULL : base;
}

/* Copies what was ever written, not the holes. By the system, not by stores: it fills fresh pages without clearing them
 * before, and without a fault for each. */
static bool copy_written(int from_fd, const uint8_t *from, int to_fd, uint64_t bytes)
{
    for (off_t at = 0; at >= 0 && (uint64_t)at < bytes;) {
        off_t data = lseek(from_fd, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO; /* nothing but a hole is left */
        const off_t hole = lseek(from_fd, data, SEEK_HOLE);
        const uint64_t end = hole < 0 || (uint64_t)hole > bytes ? bytes : (uint64_t)hole;
        while ((uint64_t)data < end) {
            const ssize_t done = pwrite(to_fd, from + data, end - (uint64_t)data, data);
            if (done <= 0 && errno != EINTR)
                return false;
            data += done > 0 ? done : 0;
        }
        at = (off_t)end;
    }
    return true;
}

/* The new memory at the old address, with the old content. */
static bool replace(int old_fd, uint8_t **base, int fresh_fd, uint8_t *fresh, uint64_t bytes)
{
    if (!*base) {
        *base = fresh;
        return true;
    }
    return copy_written(old_fd, *base, fresh_fd, bytes) &&
           mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, *base) != MAP_FAILED;
}

static void close_fds(terse_client_arena *arena)
{
    terse_close_fdp(&arena->input_fd);
    terse_close_fdp(&arena->output_fd);
    terse_close_fdp(&arena->submit_fd);
    terse_close_fdp(&arena->complete_fd);
}

static void adopt(terse_client_arena *arena, answer *a)
{
    close_fds(arena);
    arena->input_fd = a->fds[0];
    arena->output_fd = a->fds[1];
    terse_close_fdp(&a->fds[2]);
    arena->submit_fd = a->fds[3];
    arena->complete_fd = a->fds[4];
    memcpy(arena->token, a->token, sizeof arena->token);
    terse_ring_open(&arena->submission, arena->rings, arena->ring_bytes);
    terse_ring_open(&arena->completion, arena->rings + TERSE_RING_HEAD_BYTES + arena->ring_bytes, arena->ring_bytes);
    arena->state = ARENA_ATTACHED;
    arena->armed = arena->hung_up = false;
}

/* Takes an answer over: all of it, or nothing. */
static terse_status take(terse_client_arena *arena, answer *a)
{
    const bool again = arena->inputs != NULL;
    const uint64_t rings = 2 * (TERSE_RING_HEAD_BYTES + a->ring_bytes);
    terse_status status = TERSE_OK;
    if (again && (a->input_bytes != arena->input_bytes || a->output_bytes != arena->output_bytes))
        status = CLIENT_FAIL(TERSE_INTERNAL, "the daemon gives shared memory of another size than before");
    uint8_t *fresh[3] = {NULL, NULL, NULL};
    if (!status) {
        fresh[0] = map(a->fds[0], a->input_bytes);
        fresh[1] = map(a->fds[1], a->output_bytes);
        fresh[2] = map(a->fds[2], rings);
    }
    if (!status && (!fresh[0] || !fresh[1] || !fresh[2]))
        status = CLIENT_FAIL(TERSE_SYSTEM, "cannot map the shared memory");
    if (!status && (!replace(arena->input_fd, &arena->inputs, a->fds[0], fresh[0], a->input_bytes) ||
                    !replace(arena->output_fd, &arena->outputs, a->fds[1], fresh[1], a->output_bytes)))
        status = CLIENT_FAIL(TERSE_SYSTEM, "cannot map the shared memory again");
    if (status) {
        const uint64_t sizes[3] = {a->input_bytes, a->output_bytes, rings};
        for (int i = 0; i < 3; i++)
            if (fresh[i] && fresh[i] != arena->inputs && fresh[i] != arena->outputs)
                munmap(fresh[i], sizes[i]);
        for (int i = 0; i < N_FDS; i++)
            terse_close_fdp(&a->fds[i]);
        return status;
    }
    if (arena->rings)
        munmap(arena->rings, 2 * (TERSE_RING_HEAD_BYTES + arena->ring_bytes));
    arena->rings = fresh[2];
    arena->input_bytes = a->input_bytes;
    arena->output_bytes = a->output_bytes;
    arena->ring_bytes = a->ring_bytes;
    adopt(arena, a);
    return TERSE_OK;
}

/* --- attaching again ----------------------------------------------------------------------------------------- */

static void lose(terse_client_arena *arena, uint64_t now)
{
    if (arena->state == ARENA_ATTACHED)
        arena->lost_since_ns = now;
    arena->retry_ns = arena->state == ARENA_ATTACHED ? now : now + RETRY_NS;
    arena->state = ARENA_LOST;
    terse_close_fdp(&arena->connection);
}

static bool readable(int fd)
{
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    return poll(&watched, 1, 0) > 0;
}

static void take_answer(terse_client_arena *arena, uint64_t now)
{
    answer a;
    uint8_t old_token[TERSE_WIRE_ARENA_BYTES];
    memcpy(old_token, arena->token, sizeof old_token);
    if (!readable(arena->connection))
        return;
    if (hear(arena->connection, &a) != TERSE_OK || take(arena, &a) != TERSE_OK) {
        lose(arena, now);
        return;
    }
    terse_client_arena_renewed(arena->client, old_token);
    terse_loop_watch_arena(arena->client);
}

void terse_arena_process(terse_client *client, bool look)
{
    terse_client_arena *arena = client->arena;
    const uint64_t now = terse_now_ns();
    /* An attached connection has nothing to say but its end. */
    const bool broken = arena->completion.broken || arena->submission.broken;
    if (arena->state == ARENA_ATTACHED && (broken || ((look || arena->hung_up) && readable(arena->connection))))
        lose(arena, now);
    if (arena->state == ARENA_ASKED)
        take_answer(arena, now);
    if (arena->state != ARENA_LOST || now < arena->retry_ns)
        return;
    if (ask(client, arena->input_bytes, arena->output_bytes, &arena->connection) == TERSE_OK)
        arena->state = ARENA_ASKED;
    else
        arena->retry_ns = now + RETRY_NS;
    terse_loop_watch_arena(client);
}

/* --- the interface ------------------------------------------------------------------------------------------- */

static terse_status attach(terse_client_arena *arena, uint64_t input_bytes, uint64_t output_bytes)
{
    answer a;
    terse_status status = ask(arena->client, input_bytes, output_bytes, &arena->connection);
    if (status)
        return status;
    struct pollfd watched = {.fd = arena->connection, .events = POLLIN};
    int n;
    do
        n = poll(&watched, 1, ATTACH_MS);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return CLIENT_FAIL(TERSE_UNAVAILABLE, "the daemon gave no shared memory within %d ms", ATTACH_MS);
    status = hear(arena->connection, &a);
    return status ? status : take(arena, &a);
}

static void free_arena(terse_client_arena *arena)
{
    terse_close_fdp(&arena->connection);
    close_fds(arena);
    if (arena->inputs)
        munmap(arena->inputs, arena->input_bytes);
    if (arena->outputs)
        munmap(arena->outputs, arena->output_bytes);
    if (arena->rings)
        munmap(arena->rings, 2 * (TERSE_RING_HEAD_BYTES + arena->ring_bytes));
    terse_ranges_done(&arena->input_ranges);
    terse_ranges_done(&arena->output_ranges);
    free(arena);
}

terse_status terse_arena_attach(terse_client *client, size_t input_bytes, size_t output_bytes,
                                terse_client_arena **ret_arena)
{
    if (client->arena)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "this client has shared memory already: one is allowed");
    const terse_status one = terse_client_want_one(client, "shared memory");
    if (one)
        return one;
    terse_client_arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a shared memory");
    arena->client = client;
    arena->connection = arena->input_fd = arena->output_fd = arena->submit_fd = arena->complete_fd = -1;
    const terse_status status = attach(arena, input_bytes, output_bytes);
    if (status) {
        free_arena(arena);
        return status;
    }
    arena->input_ranges.size = arena->input_bytes;
    arena->output_ranges.size = arena->output_bytes;
    client->arena = arena;
    terse_loop_watch_arena(client);
    *ret_arena = arena;
    return TERSE_OK;
}

void terse_arena_detach(terse_client_arena *arena)
{
    if (!arena)
        return;
    terse_client *client = arena->client;
    terse_client_arena_detached(client);
    client->arena = NULL;
    free_arena(arena);
    terse_loop_update(client);
}

void *terse_arena_inputs(const terse_client_arena *arena, size_t *ret_bytes)
{
    if (ret_bytes)
        *ret_bytes = arena->input_bytes;
    return arena->inputs;
}

void *terse_arena_outputs(const terse_client_arena *arena, size_t *ret_bytes)
{
    if (ret_bytes)
        *ret_bytes = arena->output_bytes;
    return arena->outputs;
}

static void *take_range(terse_ranges *ranges, uint8_t *base, size_t bytes, const char *what)
{
    const int64_t at = terse_ranges_take(ranges, bytes);
    if (at == TERSE_RANGE_NONE) {
        CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "no room for %zu bytes among the %s of the shared memory (%" PRIu64 ")",
                    bytes, what, ranges->size);
        return NULL;
    }
    return base + at;
}

void *terse_arena_take_input(terse_client_arena *arena, size_t bytes)
{
    return take_range(&arena->input_ranges, arena->inputs, bytes, "inputs");
}

void *terse_arena_take_output(terse_client_arena *arena, size_t bytes)
{
    return take_range(&arena->output_ranges, arena->outputs, bytes, "outputs");
}

bool terse_arena_offset(const uint8_t *base, uint64_t size, const void *data, uint64_t bytes, uint64_t *ret_offset)
{
    const uintptr_t at = (uintptr_t)data, start = (uintptr_t)base;
    if (at < start || at - start > size || bytes > size - (at - start))
        return false;
    *ret_offset = at - start;
    return true;
}

void terse_arena_give(terse_client_arena *arena, void *range)
{
    uint64_t at = 0;
    if (terse_arena_offset(arena->inputs, arena->input_bytes, range, 1, &at))
        terse_ranges_give(&arena->input_ranges, at);
    else if (terse_arena_offset(arena->outputs, arena->output_bytes, range, 1, &at))
        terse_ranges_give(&arena->output_ranges, at);
}
