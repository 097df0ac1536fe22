/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/play_zmq.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <zmq.h>

typedef struct part {
    void *data;
    size_t size;
    zmq_free_fn *release;
    void *hint;
    const char *address;
    bool more;
} part;

_Static_assert(sizeof(part) <= sizeof(zmq_msg_t), "a part lies in a zmq_msg_t");

typedef struct message {
    struct message *next;
    unsigned n;
    part parts[PLAY_PARTS];
} message;

typedef struct peer {
    bool connected;
    uint32_t number; /* a new one for each connection */
    message *first, *last;
    unsigned n;
} peer;

static peer peers[PLAY_PEERS];
static message *inbox, *inbox_last, *outgoing; /* outgoing: begun, for `towards` */
static unsigned taken;                         /* parts of the first message in the inbox */
static peer *towards;
static unsigned capacity;
static uint32_t next_number = 1;
static int bell = -1, listeners[64];
static unsigned n_listeners;
uint64_t play_now_ns;
uint64_t __wrap_terse_now_ns(void);

uint64_t __wrap_terse_now_ns(void)
{
    return play_now_ns;
}

static void drop(part *p)
{
    if (p->release)
        p->release(p->data, p->hint);
    else
        free(p->data);
    *p = (part){0};
}

static void drop_message(message *m)
{
    for (unsigned i = 0; i < m->n; i++)
        drop(&m->parts[i]);
    free(m);
}

static void drop_all(message **first)
{
    for (message *m; (m = *first);) {
        *first = m->next;
        drop_message(m);
    }
}

static part copy_of(const void *data, size_t size)
{
    part p = {.data = malloc(size ? size : 1), .size = size};
    assert(p.data);
    if (size > 0)
        memcpy(p.data, data, size);
    return p;
}

/* Any call on the socket takes note of what was told. */
static void hear(void)
{
    uint64_t count;
    if (bell >= 0 && read(bell, &count, sizeof count) < 0)
        return;
}

void play_reset(unsigned pipe)
{
    for (unsigned i = 0; i < PLAY_PEERS; i++)
        drop_all(&peers[i].first);
    memset(peers, 0, sizeof peers);
    drop_all(&inbox);
    inbox_last = NULL;
    if (outgoing)
        drop_message(outgoing);
    outgoing = NULL;
    taken = 0;
    next_number = 1;
    capacity = pipe;
}

void play_connect(unsigned i)
{
    if (!peers[i].connected)
        peers[i] = (peer){.connected = true, .number = next_number++};
}

void play_disconnect(unsigned i)
{
    peers[i].connected = false;
    drop_all(&peers[i].first);
    peers[i].last = NULL;
    peers[i].n = 0;
}

bool play_connected(unsigned i)
{
    return peers[i].connected;
}

void play_send(unsigned i, bool own_name, const play_part *parts, unsigned n)
{
    uint8_t id[5] = {0};
    message *m = calloc(1, sizeof *m);
    assert(m && n + 1 <= PLAY_PARTS && peers[i].connected);
    memcpy(id + 1, &peers[i].number, 4);
    m->parts[m->n++] = own_name ? copy_of("somebody", 8) : copy_of(id, sizeof id);
    for (unsigned k = 0; k < n; k++)
        m->parts[m->n++] = copy_of(parts[k].data, parts[k].size);
    for (unsigned k = 0; k < m->n; k++)
        m->parts[k].more = k + 1 < m->n;
    m->parts[0].address = i % 4 == 3 ? "10.0.0.1" : i % 4 == 2 ? "localhost:77:77:5" : "localhost:0:0:4";
    if (inbox)
        inbox_last->next = m;
    else
        inbox = m;
    inbox_last = m;
    const uint64_t one = 1;
    if (bell >= 0 && write(bell, &one, sizeof one) < 0)
        return;
}

bool play_unread(void)
{
    return inbox != NULL;
}

bool play_read(unsigned i, void (*read)(unsigned, const play_part *, unsigned))
{
    message *m = peers[i].first;
    play_part parts[PLAY_PARTS];
    if (!m)
        return false;
    peers[i].first = m->next;
    peers[i].n--;
    for (unsigned k = 0; k < m->n; k++)
        parts[k] = (play_part){m->parts[k].data, m->parts[k].size};
    read(i, parts, m->n);
    drop_message(m);
    return true;
}

/* --- what the front end calls ---------------------------------------------------------------------------------- */

static part *of(const zmq_msg_t *msg)
{
    return (part *)(uintptr_t)msg;
}

void *zmq_ctx_new(void)
{
    return &peers;
}

int zmq_ctx_term(void *context)
{
    (void)context;
    return 0;
}

void *zmq_socket(void *context, int type)
{
    (void)context;
    (void)type;
    bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return &inbox;
}

int zmq_close(void *socket)
{
    (void)socket;
    while (n_listeners > 0)
        close(listeners[--n_listeners]);
    close(bell);
    bell = -1;
    return 0;
}

int zmq_setsockopt(void *socket, int option, const void *value, size_t size)
{
    (void)socket;
    if (option != ZMQ_USE_FD)
        return 0;
    assert(n_listeners < sizeof listeners / sizeof listeners[0] && size == sizeof(int));
    memcpy(&listeners[n_listeners++], value, size);
    return 0;
}

int zmq_getsockopt(void *socket, int option, void *value, size_t *size)
{
    (void)socket, (void)size;
    assert(option == ZMQ_FD);
    memcpy(value, &bell, sizeof bell);
    return 0;
}

int zmq_bind(void *socket, const char *endpoint)
{
    (void)socket, (void)endpoint;
    return 0;
}

const char *zmq_strerror(int number)
{
    return strerror(number);
}

int zmq_msg_init(zmq_msg_t *msg)
{
    *of(msg) = (part){0};
    return 0;
}

int zmq_msg_init_size(zmq_msg_t *msg, size_t size)
{
    *of(msg) = (part){.data = malloc(size ? size : 1), .size = size};
    return of(msg)->data ? 0 : -1;
}

int zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t size, zmq_free_fn *release, void *hint)
{
    *of(msg) = (part){.data = data, .size = size, .release = release, .hint = hint};
    return 0;
}

int zmq_msg_close(zmq_msg_t *msg)
{
    drop(of(msg));
    return 0;
}

int zmq_msg_move(zmq_msg_t *to, zmq_msg_t *from)
{
    drop(of(to));
    *of(to) = *of(from);
    *of(from) = (part){0};
    return 0;
}

void *zmq_msg_data(zmq_msg_t *msg)
{
    return of(msg)->data;
}

size_t zmq_msg_size(const zmq_msg_t *msg)
{
    return of(msg)->size;
}

int zmq_msg_more(const zmq_msg_t *msg)
{
    return of(msg)->more;
}

const char *zmq_msg_gets(const zmq_msg_t *msg, const char *property)
{
    return strcmp(property, "Peer-Address") == 0 ? of(msg)->address : NULL;
}

int zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags)
{
    (void)socket, (void)flags;
    hear();
    if (!inbox) {
        errno = EAGAIN;
        return -1;
    }
    drop(of(msg));
    *of(msg) = inbox->parts[taken];
    inbox->parts[taken++] = (part){0};
    if (taken == inbox->n) {
        message *m = inbox;
        inbox = m->next;
        drop_message(m);
        taken = 0;
    }
    return (int)of(msg)->size;
}

static int begin(const part *id)
{
    peer *found = NULL;
    for (unsigned i = 0; i < PLAY_PEERS; i++)
        if (peers[i].connected && id->size == 5 && memcmp((const uint8_t *)id->data + 1, &peers[i].number, 4) == 0)
            found = &peers[i];
    if (!found || found->n >= capacity) {
        errno = found ? EAGAIN : EHOSTUNREACH;
        return -1;
    }
    towards = found;
    outgoing = calloc(1, sizeof *outgoing);
    assert(outgoing);
    return (int)id->size;
}

static int add(part p, bool more)
{
    assert(outgoing->n < PLAY_PARTS);
    outgoing->parts[outgoing->n++] = p;
    if (!more) {
        if (towards->first)
            towards->last->next = outgoing;
        else
            towards->first = outgoing;
        towards->last = outgoing;
        towards->n++;
        outgoing = NULL;
    }
    return (int)p.size;
}

int zmq_send(void *socket, const void *data, size_t size, int flags)
{
    (void)socket;
    hear();
    if (!outgoing)
        return begin(&(part){.data = (void *)(uintptr_t)data, .size = size});
    return add(copy_of(data, size), flags & ZMQ_SNDMORE);
}

int zmq_msg_send(zmq_msg_t *msg, void *socket, int flags)
{
    (void)socket;
    hear();
    const part p = *of(msg);
    const int sent = outgoing ? add(p, flags & ZMQ_SNDMORE) : begin(&p);
    if (sent < 0)
        return sent;
    if (!outgoing || outgoing->n > 0)
        *of(msg) = (part){0};
    else
        drop(of(msg)); /* the name: not a part */
    return sent;
}
