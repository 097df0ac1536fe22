/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/pack.h"
#include "daemon/frontend/frontend.h"
#include "daemon/frontend/loop.h"

enum { REQUEST_BYTES = 4096, REPLY_BYTES = 1024, ACCEPT_AT_ONCE = 16 };
#define PATIENCE_NS UINT64_C(5000000000)

void terse_attach_init(terse_attach *attach)
{
    for (int i = 0; i < TERSE_MAX_ATTACHING; i++)
        attach->waiting[i].fd = -1;
}

void terse_attach_done(terse_attach *attach)
{
    for (uint32_t i = 0; i < attach->n_sockets; i++)
        terse_close_fdp(&attach->sockets[i]);
    attach->n_sockets = 0;
    for (int i = 0; i < TERSE_MAX_ATTACHING; i++)
        terse_close_fdp(&attach->waiting[i].fd);
}

static bool watch(const terse_frontend *fe, int fd, uint32_t events, uint64_t what)
{
    struct epoll_event event = {.events = events, .data.u64 = what};
    return epoll_ctl(fe->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void terse_attach_listen(terse_frontend *fe, int fd)
{
    terse_attach *attach = &fe->attach;
    if (attach->n_sockets == TERSE_MAX_ATTACH_SOCKETS || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0 ||
        !watch(fe, fd, EPOLLIN, TERSE_LOOP_ATTACH_SOCKET + attach->n_sockets)) {
        terse_control_give_up(fe, "cannot listen for shared memory: %s", strerror(errno));
        close(fd);
        return;
    }
    attach->sockets[attach->n_sockets++] = fd;
}

/* --- connections that have asked nothing yet ----------------------------------------------------------------- */

static void forget(terse_frontend *fe, uint32_t index)
{
    epoll_ctl(fe->epoll_fd, EPOLL_CTL_DEL, fe->attach.waiting[index].fd, NULL);
    terse_close_fdp(&fe->attach.waiting[index].fd);
}

/* A free place; when there is none the connection that asks nothing for longest is let go. */
static uint32_t place_for_one(terse_frontend *fe)
{
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < TERSE_MAX_ATTACHING; i++) {
        if (fe->attach.waiting[i].fd < 0)
            return i;
        if (fe->attach.waiting[i].since_ns < fe->attach.waiting[oldest].since_ns)
            oldest = i;
    }
    forget(fe, oldest);
    return oldest;
}

static void set_paused(terse_frontend *fe, bool paused)
{
    fe->attach.paused = paused;
    for (uint32_t i = 0; i < fe->attach.n_sockets; i++) {
        struct epoll_event event = {.events = paused ? 0 : EPOLLIN, .data.u64 = TERSE_LOOP_ATTACH_SOCKET + i};
        epoll_ctl(fe->epoll_fd, EPOLL_CTL_MOD, fe->attach.sockets[i], &event);
    }
}

void terse_attach_accept(terse_frontend *fe, uint32_t socket)
{
    for (int i = 0; socket < fe->attach.n_sockets && i < ACCEPT_AT_ONCE; i++) {
        const int fd = accept4(fe->attach.sockets[socket], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                terse_log(TERSE_LOG_WARNING, "a client cannot attach: %s", strerror(errno));
                set_paused(fe, true);
            }
            return;
        }
        const uint32_t index = place_for_one(fe);
        if (!watch(fe, fd, EPOLLIN, TERSE_LOOP_ATTACH_WAITING + index)) {
            close(fd);
            continue;
        }
        fe->attach.waiting[index].fd = fd;
        fe->attach.waiting[index].since_ns = fe->now_ns;
    }
}

void terse_attach_tick(terse_frontend *fe)
{
    if (fe->attach.paused)
        set_paused(fe, false);
    for (uint32_t i = 0; i < TERSE_MAX_ATTACHING; i++)
        if (fe->attach.waiting[i].fd >= 0 && fe->now_ns - fe->attach.waiting[i].since_ns > PATIENCE_NS)
            forget(fe, i);
}

/* --- what they ask ------------------------------------------------------------------------------------------- */

static int take_number(terse_pack_reader *reader, const char *key, uint64_t *ret_value, terse_error *error)
{
    terse_pack_item item;
    if (!terse_pack_next(reader, &item) || item.type != TERSE_PACK_UINT)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attach: key '%s' is not an integer from 0", key);
    *ret_value = item.u;
    return TERSE_OK;
}

enum { KEY_V, KEY_OP, KEY_INPUTS, KEY_OUTPUTS, N_KEYS };
static const char *const keys[N_KEYS] = {"v", "op", "input_bytes", "output_bytes"};

/* One key and its value; strangers are passed over. */
static int take_pair(terse_pack_reader *reader, uint64_t *values, bool *seen, terse_error *error)
{
    terse_pack_item item;
    int key = 0;
    if (!terse_pack_next(reader, &item) || item.type != TERSE_PACK_STR)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attach: a key is no string");
    while (key < N_KEYS && !terse_pack_is(&item, keys[key], strlen(keys[key])))
        key++;
    if (key == N_KEYS)
        return terse_pack_skip(reader) ? TERSE_OK
                                       : terse_fail(error, TERSE_INVALID_ARGUMENT, "attach: the map is cut off");
    if (seen[key])
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attach: key '%s' is there twice", keys[key]);
    seen[key] = true;
    if (key != KEY_OP)
        return take_number(reader, keys[key], &values[key], error);
    if (!terse_pack_next(reader, &item) || !terse_pack_is(&item, "attach", 6))
        return terse_fail(error, TERSE_UNIMPLEMENTED, "attach: key 'op' is not 'attach'");
    return TERSE_OK;
}

static int decode(const void *bytes, size_t size, uint64_t *values, terse_error *error)
{
    terse_pack_reader reader = terse_pack_reader_over(bytes, size);
    terse_pack_item map;
    bool seen[N_KEYS] = {0};
    if (!terse_pack_next(&reader, &map) || map.type != TERSE_PACK_MAP)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "attach: the datagram is no msgpack map");
    for (uint32_t i = 0; i < map.length; i++) {
        const int status = take_pair(&reader, values, seen, error);
        if (status)
            return status;
    }
    for (int key = KEY_OP; key < N_KEYS; key++)
        if (!seen[key])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "attach: key '%s' is missing", keys[key]);
    if (seen[KEY_V] && values[KEY_V] != TERSE_WIRE_VERSION)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "key 'v' is %" PRIu64 ", the protocol's version here is %d",
                          values[KEY_V], TERSE_WIRE_VERSION);
    return TERSE_OK;
}

/* --- what they get ------------------------------------------------------------------------------------------- */

static bool send_answer(int connection, const terse_pack_buffer *text, const int *fds, size_t n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(5 * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = text->data, .iov_len = text->size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (n_fds > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, n_fds * sizeof(int));
    }
    return !text->full && sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)text->size;
}

static void pack_u64(msgpack_packer *packer, const char *key, uint64_t value)
{
    terse_pack_cstr(packer, key);
    msgpack_pack_uint64(packer, value);
}

static void refuse(int connection, const terse_error *error)
{
    uint8_t bytes[REPLY_BYTES];
    terse_pack_buffer text = {.data = bytes, .capacity = sizeof bytes};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &text, terse_pack_buffer_write);
    msgpack_pack_map(&packer, 3);
    pack_u64(&packer, "v", TERSE_WIRE_VERSION);
    terse_pack_cstr(&packer, "status");
    terse_pack_cstr(&packer, terse_status_name(error->status));
    terse_pack_cstr(&packer, "error");
    terse_pack_cstr(&packer, error->message);
    send_answer(connection, &text, NULL, 0);
}

static bool welcome(const terse_client_arena *arena)
{
    uint8_t bytes[REPLY_BYTES];
    terse_pack_buffer text = {.data = bytes, .capacity = sizeof bytes};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &text, terse_pack_buffer_write);
    msgpack_pack_map(&packer, 6);
    pack_u64(&packer, "v", TERSE_WIRE_VERSION);
    terse_pack_cstr(&packer, "status");
    terse_pack_cstr(&packer, terse_status_name(TERSE_OK));
    terse_pack_cstr(&packer, "arena");
    terse_pack_bin(&packer, arena->token, sizeof arena->token);
    pack_u64(&packer, "input_bytes", arena->input_bytes);
    pack_u64(&packer, "output_bytes", arena->output_bytes);
    pack_u64(&packer, "ring_bytes", TERSE_ARENA_RING_BYTES);
    const terse_arena_fds *fds = &arena->fds;
    const int all[5] = {fds->inputs, fds->outputs, fds->rings, fds->submit, fds->complete};
    return send_answer(arena->connection, &text, all, 5);
}

void terse_attach_read_only(terse_frontend *fe, uint32_t number, int *fd)
{
    terse_client_arena *arena = number < TERSE_MAX_ARENAS ? fe->arenas.at[number] : NULL;
    if (!arena || arena->gone || arena->input_fd >= 0)
        return;
    /* Without one the workers' own mappings are all that keeps them from writing. */
    arena->input_fd = *fd >= 0 ? *fd : fcntl(arena->fds.inputs, F_DUPFD_CLOEXEC, 0);
    *fd = -1;
    if (arena->input_fd < 0 || !welcome(arena))
        terse_arenas_drop(fe, arena);
    terse_arena_fds_close(&arena->fds);
}

static int attach(terse_frontend *fe, int connection, const void *bytes, size_t size, terse_error *error)
{
    struct ucred peer;
    socklen_t peer_bytes = sizeof peer;
    uint64_t values[N_KEYS] = {0};
    terse_client_arena *arena = NULL;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0)
        return terse_fail(error, TERSE_SYSTEM, "nobody tells who asks");
    int status = decode(bytes, size, values, error);
    if (!status && fe->draining)
        status = terse_fail(error, TERSE_UNAVAILABLE, "the daemon is shutting down");
    if (!status)
        status = terse_arenas_open(&fe->arenas, peer.uid, values[KEY_INPUTS], values[KEY_OUTPUTS], &arena, error);
    if (status)
        return status;
    arena->pid = peer.pid;
    arena->client.pid = (uint32_t)peer.pid;
    arena->connection = connection;
    if (!watch(fe, connection, EPOLLIN | EPOLLRDHUP, TERSE_LOOP_ARENA + arena->number) ||
        !watch(fe, arena->submit_fd, EPOLLIN | EPOLLET, TERSE_LOOP_RING + arena->number)) {
        terse_log(TERSE_LOG_ERROR, "cannot watch a shared memory: %s", strerror(errno));
        terse_arenas_drop(fe, arena);
    } else if (!terse_control_read_only(fe, arena->number, arena->fds.inputs)) {
        int none = -1;
        terse_attach_read_only(fe, arena->number, &none);
    }
    return TERSE_OK;
}

/* One datagram; descriptors that come with it are not taken. -1: none yet. */
static ssize_t receive(int fd, uint8_t *buffer, bool *ret_cut)
{
    struct iovec part = {.iov_base = buffer, .iov_len = REQUEST_BYTES};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t got;
    do
        got = recvmsg(fd, &message, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    *ret_cut = got > 0 && (message.msg_flags & MSG_TRUNC);
    return got < 0 && errno != EAGAIN ? 0 : got;
}

void terse_attach_hear(terse_frontend *fe, uint32_t waiting)
{
    uint8_t buffer[REQUEST_BYTES];
    terse_error error;
    bool cut = false;
    int fd = waiting < TERSE_MAX_ATTACHING ? fe->attach.waiting[waiting].fd : -1;
    if (fd < 0)
        return;
    const ssize_t got = receive(fd, buffer, &cut);
    if (got < 0)
        return;
    if (got == 0) {
        forget(fe, waiting);
        return;
    }
    epoll_ctl(fe->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    fe->attach.waiting[waiting].fd = -1;
    int status = cut ? terse_fail(&error, TERSE_INVALID_ARGUMENT, "attach: more than %d bytes", REQUEST_BYTES)
                     : attach(fe, fd, buffer, (size_t)got, &error);
    if (!status)
        return; /* the arena has the connection */
    refuse(fd, &error);
    close(fd);
}

void terse_attach_hear_arena(terse_frontend *fe, uint32_t number)
{
    uint8_t buffer[REQUEST_BYTES];
    terse_error error;
    bool cut = false;
    terse_client_arena *arena = number < TERSE_MAX_ARENAS ? fe->arenas.at[number] : NULL;
    if (!arena || arena->gone)
        return;
    const ssize_t got = receive(arena->connection, buffer, &cut);
    if (got == 0) {
        terse_arenas_drop(fe, arena);
    } else if (got > 0) {
        terse_fail(&error, TERSE_INVALID_ARGUMENT, "attach: this connection has its shared memory already");
        refuse(arena->connection, &error);
    }
}
