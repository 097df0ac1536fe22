/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes
 *   Replies are taken from a remote's connection to the front end only while the client takes them: when ZeroMQ has
 * OWED_BYTES of them for it, or its pipe is full, they stay with the front end, whose limits for slow clients hold. Who
 * takes nothing for STUCK_NS is dropped.
 *   A connection to the front end that was lost is not made again: what was unanswered on it is lost, and only the loss
 * of its own connection tells a client to send it again. So both go together. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "daemon/gate/gate.h"

enum { SEND_MARK = 16384, RECEIVE_MARK = 256, BRING_AT_ONCE = 64 };
/* The front end's own thread for sockets answers these whatever it does: a connection that is silent for so long is
 * broken. */
enum { BEAT_MS = 2000, SILENT_MS = 10000 };
#define NOBODY TERSE_GATE_NOBODY
#define OWED_BYTES (UINT64_C(16) << 20)
#define STUCK_NS UINT64_C(10000000000)

static uint32_t bucket_of(const terse_gate *gate, uint32_t id)
{
    return (id * UINT32_C(2654435769) >> 7) & (gate->n_buckets - 1);
}

bool terse_gate_remotes_init(terse_gate *gate, uint32_t max)
{
    gate->n_buckets = 64;
    while (gate->n_buckets < max)
        gate->n_buckets *= 2;
    gate->remotes = calloc(max, sizeof *gate->remotes);
    gate->buckets = malloc(gate->n_buckets * sizeof *gate->buckets);
    if (!gate->remotes || !gate->buckets)
        return false;
    memset(gate->buckets, 0xff, gate->n_buckets * sizeof *gate->buckets);
    gate->max_remotes = max;
    gate->unused = gate->touched = NOBODY;
    for (uint32_t i = max; i-- > 0;) {
        gate->remotes[i].next = gate->unused;
        gate->unused = i;
    }
    return true;
}

static bool set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

/* A connection to the front end, watched under the remote's number. */
static bool connect_front(terse_gate *gate, terse_gate_remote *remote)
{
    int fd = -1;
    size_t size = sizeof fd;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = (uint64_t)(remote - gate->remotes)};
    remote->dealer = zmq_socket(gate->context, ZMQ_DEALER);
    return remote->dealer && set_option(remote->dealer, ZMQ_LINGER, 0) &&
           set_option(remote->dealer, ZMQ_RECONNECT_IVL, -1) &&
           set_option(remote->dealer, ZMQ_HEARTBEAT_IVL, BEAT_MS) &&
           set_option(remote->dealer, ZMQ_HEARTBEAT_TIMEOUT, SILENT_MS) &&
           set_option(remote->dealer, ZMQ_SNDHWM, SEND_MARK) && set_option(remote->dealer, ZMQ_RCVHWM, RECEIVE_MARK) &&
           zmq_connect(remote->dealer, gate->settings.frontend) == 0 &&
           zmq_getsockopt(remote->dealer, ZMQ_FD, &fd, &size) == 0 &&
           epoll_ctl(gate->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static terse_gate_remote *make(terse_gate *gate, uint32_t id, zmq_msg_t *part)
{
    if (gate->unused == NOBODY)
        terse_gate_sweep(gate);
    if (gate->unused == NOBODY)
        return NULL;
    const uint32_t index = gate->unused;
    terse_gate_remote *remote = &gate->remotes[index];
    remote->id = id;
    remote->n_held = 0;
    remote->n_asked = 0;
    remote->frames = (terse_frames){0};
    remote->made_ns = remote->moved_ns = gate->now_ns;
    remote->connection = terse_tap_find(zmq_msg_gets(part, "__fd"));
    remote->account = terse_gate_account_new();
    memset(remote->key, 0, sizeof remote->key);
    (void)terse_gate_key_of(part, remote->key);
    terse_tap_know(remote->connection);
    if (!remote->account || !connect_front(gate, remote)) {
        terse_log(TERSE_LOG_WARNING, "cannot connect to the front end for a client: %s", zmq_strerror(errno));
        if (remote->dealer)
            zmq_close(remote->dealer);
        terse_gate_account_release(remote->account);
        remote->dealer = NULL;
        return NULL;
    }
    gate->unused = remote->next;
    remote->used = true;
    remote->next = gate->buckets[bucket_of(gate, id)];
    gate->buckets[bucket_of(gate, id)] = index;
    gate->n_remotes++;
    return remote;
}

terse_gate_remote *terse_gate_remote_of(terse_gate *gate, uint32_t id, zmq_msg_t *part)
{
    for (uint32_t i = gate->buckets[bucket_of(gate, id)]; i != NOBODY; i = gate->remotes[i].next)
        if (gate->remotes[i].id == id)
            return &gate->remotes[i];
    return make(gate, id, part);
}

static void close_parts(zmq_msg_t *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        zmq_msg_close(&parts[i]);
}

static void give_back(terse_gate *gate, uint32_t index)
{
    gate->remotes[index].next = gate->unused;
    gate->unused = index;
}

static void close_remote(terse_gate *gate, terse_gate_remote *remote)
{
    const uint32_t index = (uint32_t)(remote - gate->remotes);
    uint32_t *at = &gate->buckets[bucket_of(gate, remote->id)];
    while (*at != index)
        at = &gate->remotes[*at].next;
    *at = remote->next;
    close_parts(remote->held, remote->n_held);
    zmq_close(remote->dealer); /* which takes its descriptor out of epoll */
    terse_gate_account_release(remote->account);
    gate->n_slow -= remote->slow;
    gate->n_remotes--;
    remote->used = remote->slow = false;
    remote->n_held = 0;
    remote->dealer = NULL;
    remote->account = NULL;
    if (!remote->touched) /* else it is given back when the touched are gone through */
        give_back(gate, index);
}

void terse_gate_remote_drop(terse_gate *gate, terse_gate_remote *remote)
{
    terse_tap_drop(remote->connection);
    close_remote(gate, remote);
}

void terse_gate_remotes_drop_all(terse_gate *gate)
{
    for (uint32_t i = 0; i < gate->max_remotes; i++)
        if (gate->remotes[i].used)
            terse_gate_remote_drop(gate, &gate->remotes[i]);
}

void terse_gate_remotes_drop_strangers(terse_gate *gate)
{
    for (uint32_t i = 0; i < gate->max_remotes; i++)
        if (gate->remotes[i].used && !terse_gate_knows(gate, gate->remotes[i].key))
            terse_gate_remote_drop(gate, &gate->remotes[i]);
    terse_tap_drop_unknown();
}

void terse_gate_remotes_done(terse_gate *gate)
{
    for (uint32_t i = 0; i < gate->max_remotes; i++)
        if (gate->remotes[i].used)
            close_remote(gate, &gate->remotes[i]);
    free(gate->remotes);
    free(gate->buckets);
}

/* --- replies ----------------------------------------------------------------------------------------------------- */

bool terse_gate_send_to(terse_gate *gate, uint32_t id, zmq_msg_t *parts, uint32_t n)
{
    uint8_t peer[1 + sizeof id] = {0};
    memcpy(peer + 1, &id, sizeof id);
    if (zmq_send(gate->router, peer, sizeof peer, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (zmq_msg_send(&parts[i], gate->router, (i + 1 < n ? ZMQ_SNDMORE : 0) | ZMQ_DONTWAIT) < 0) {
            errno = EHOSTUNREACH; /* only the first part can be put off */
            return false;
        }
    return true;
}

static void become_slow(terse_gate *gate, terse_gate_remote *remote)
{
    if (remote->slow)
        return;
    gate->n_slow++;
    remote->slow = true;
    remote->moved_ns = gate->now_ns;
    remote->moved_bytes = atomic_load(&remote->account->bytes);
}

/* One whole message of the front end. Its parts come together: after the first none is waited for. */
static uint32_t take_reply(terse_gate_remote *remote, zmq_msg_t *parts)
{
    uint32_t n = 0;
    terse_frames_begin(&remote->frames, remote->dealer);
    for (bool more = true; more;) {
        zmq_msg_t surplus, *part = n < TERSE_GATE_PARTS ? &parts[n] : &surplus;
        zmq_msg_init(part);
        int got;
        do
            got = zmq_msg_recv(part, remote->dealer, n ? 0 : ZMQ_DONTWAIT);
        while (got < 0 && errno == EINTR);
        terse_frames_count(&remote->frames, got >= 0);
        if (got < 0)
            return 0;
        more = zmq_msg_more(part);
        if (part == &surplus)
            zmq_msg_close(part); /* the front end sends none of these */
        else
            n++;
    }
    terse_frames_end(&remote->frames, n);
    return n;
}

static void hold(terse_gate_remote *remote, zmq_msg_t *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        zmq_msg_init(&remote->held[i]);
        zmq_msg_move(&remote->held[i], &parts[i]);
        zmq_msg_close(&parts[i]);
    }
    remote->n_held = n;
}

/* Sends a reply that was just taken. False: the remote takes no more now, or is gone. */
static bool pass_on(terse_gate *gate, terse_gate_remote *remote, zmq_msg_t *parts, uint32_t n)
{
    if (terse_gate_send_to(gate, remote->id, parts, n)) {
        gate->replies++;
        return true;
    }
    if (errno == EAGAIN) {
        hold(remote, parts, n);
        become_slow(gate, remote);
    } else {
        close_parts(parts, n);
        close_remote(gate, remote);
    }
    return false;
}

static bool is_full(terse_gate *gate, const terse_gate_remote *remote, uint64_t most)
{
    return atomic_load(&remote->account->bytes) > most || atomic_load(&gate->reply_bytes) > gate->share_bytes;
}

/* Whether there may be more behind what was brought. */
static bool bring(terse_gate *gate, terse_gate_remote *remote)
{
    zmq_msg_t parts[TERSE_GATE_PARTS];
    for (unsigned i = 0; i < BRING_AT_ONCE; i++) {
        if (remote->slow)
            return false;
        if (is_full(gate, remote, OWED_BYTES)) {
            become_slow(gate, remote);
            return false;
        }
        const uint32_t n = take_reply(remote, parts);
        for (uint32_t part = 0; part < n; part++)
            terse_gate_pin(&parts[part], &gate->reply_bytes, remote->account);
        if (n == 0)
            return false;
        remote->n_asked -= remote->n_asked > 0;
        remote->asked_ns = gate->now_ns;
        if (!pass_on(gate, remote, parts, n))
            return false;
    }
    return true;
}

void terse_gate_remote_touch(terse_gate *gate, uint32_t index)
{
    terse_gate_remote *remote = &gate->remotes[index];
    if (!remote->used || remote->touched)
        return;
    remote->touched = true;
    remote->next_touched = gate->touched;
    gate->touched = index;
}

bool terse_gate_bring_back(terse_gate *gate)
{
    uint32_t at = gate->touched;
    gate->touched = NOBODY;
    while (at != NOBODY) {
        const uint32_t index = at;
        terse_gate_remote *remote = &gate->remotes[index];
        at = remote->next_touched;
        const bool more = remote->used && bring(gate, remote);
        remote->touched = false;
        if (more)
            terse_gate_remote_touch(gate, index);
        else if (!remote->used)
            give_back(gate, index);
    }
    return gate->touched != NOBODY;
}

/* --- time -------------------------------------------------------------------------------------------------------- */

static void retry(terse_gate *gate, terse_gate_remote *remote)
{
    const uint64_t bytes = atomic_load(&remote->account->bytes);
    /* Who has taken something, or has nothing to take because all together have too much, is not to blame. */
    if (bytes < remote->moved_bytes || (bytes == 0 && remote->n_held == 0))
        remote->moved_ns = gate->now_ns;
    remote->moved_bytes = bytes;
    if (gate->now_ns - remote->moved_ns > STUCK_NS) {
        terse_log(TERSE_LOG_NOTICE, "a client over tcp has read no reply for %d s: dropped",
                  (int)(STUCK_NS / UINT64_C(1000000000)));
        gate->dropped++;
        terse_gate_remote_drop(gate, remote);
        return;
    }
    if (remote->n_held) {
        if (!terse_gate_send_to(gate, remote->id, remote->held, remote->n_held)) {
            if (errno != EAGAIN)
                close_remote(gate, remote);
            return;
        }
        remote->n_held = 0;
        remote->moved_ns = gate->now_ns;
        gate->replies++;
    }
    if (is_full(gate, remote, OWED_BYTES / 2))
        return;
    remote->slow = false;
    gate->n_slow--;
    terse_gate_remote_touch(gate, (uint32_t)(remote - gate->remotes));
}

void terse_gate_retry_slow(terse_gate *gate)
{
    for (uint32_t i = 0; gate->n_slow && i < gate->max_remotes; i++)
        if (gate->remotes[i].used && gate->remotes[i].slow)
            retry(gate, &gate->remotes[i]);
}

void terse_gate_sweep(terse_gate *gate)
{
    for (uint32_t i = 0; i < gate->max_remotes; i++)
        if (gate->remotes[i].used && !terse_tap_is_open(gate->remotes[i].connection))
            close_remote(gate, &gate->remotes[i]);
}
