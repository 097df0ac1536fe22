/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes
 *   What a frame costs ZeroMQ: a message of 64 bytes, its body, and for a small body, which stays where it was read,
 * the 8 KiB buffer of that read. The body is counted when its length is read, for ZeroMQ makes room for it then.
 *   A peer of the protocol's versions 1 and 2, whose frames look otherwise, is charged as if each byte were a frame.
 *   The counters are atomic; what follows the frames is the I/O thread's alone. The main thread accepts as well (those
 * who ask for shared memory), so that who came in is atomic too. An entry's generation tells a connection from a later
 * one of the same number. */
#include "daemon/tap.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/bytes.h"

enum {
    MAX_DESCRIPTORS = 1 << 16,
    GREETING = 64,
    REVISION_AT = 10,
    FRAME_BYTES = 64,
    BUFFER_BYTES = 8192,
    INLINE_BODY = 33, /* a body of so many bytes lies in the message itself */
    OLD_BYTE = 64,    /* charged for a byte of an old protocol */
};

enum { FLAG_MORE = 1, FLAG_LONG = 2, FLAG_COMMAND = 4 };

typedef enum reading { IN_GREETING, AT_FLAGS, IN_LENGTH, IN_BODY, OLD, OTHER } reading;

typedef struct entry {
    _Atomic uint64_t cost; /* since the last whole message */
    _Atomic uint32_t generation;
    atomic_bool open, trusted, ended, known;
    _Atomic uint64_t since_ns; /* when its cost began to be more than nothing */
    _Atomic uint64_t user;     /* the uid and 1; 0: nobody knows */
    reading state;
    uint8_t flags, length_left, greeting_left;
    uint32_t n_parts; /* of the message that has not ended */
    uint64_t length;  /* of the body; what is left of it */
} entry;

static struct {
    _Atomic(entry *) entries;   /* set last: the rest is there by then */
    _Atomic uint8_t *listeners; /* kinds */
    uint32_t n;
    _Atomic uint32_t top; /* above every descriptor that was ever seen */
    terse_tap_limits limits;
    _Atomic uint32_t connections;
    _Atomic uint64_t refused, cut_off, dropped, bytes;
} tap;

bool terse_tap_open(const terse_tap_limits *limits)
{
    struct rlimit files;
    uint64_t n =
        getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < MAX_DESCRIPTORS ? files.rlim_cur : MAX_DESCRIPTORS;
    entry *entries = calloc(n, sizeof *entries);
    tap.listeners = calloc(n, sizeof *tap.listeners);
    if (!entries || !tap.listeners) {
        free(entries);
        return false;
    }
    tap.limits = *limits;
    tap.n = (uint32_t)n;
    atomic_store_explicit(&tap.entries, entries, memory_order_release);
    return true;
}

void terse_tap_done(void)
{
    free(atomic_exchange(&tap.entries, NULL));
    free((void *)tap.listeners);
    tap.listeners = NULL;
}

/* The table; NULL until it is open. */
static entry *table(void)
{
    return atomic_load_explicit(&tap.entries, memory_order_acquire);
}

void terse_tap_listener(int fd, int kind)
{
    if (table() && fd >= 0 && (uint32_t)fd < tap.n)
        atomic_store(&tap.listeners[fd], (uint8_t)kind);
}

static entry *entry_of(int fd)
{
    entry *entries = table();
    if (!entries || fd < 0 || (uint32_t)fd >= tap.n)
        return NULL;
    entry *e = &entries[fd];
    return atomic_load_explicit(&e->open, memory_order_acquire) ? e : NULL;
}

static entry *entry_of_id(terse_tap_id id)
{
    entry *e = entry_of(id.fd);
    return e && atomic_load_explicit(&e->generation, memory_order_relaxed) == id.generation ? e : NULL;
}

/* --- connections come and go ------------------------------------------------------------------------------------- */

static uint32_t count_user(uint32_t user)
{
    const entry *entries = table();
    const uint32_t top = atomic_load(&tap.top);
    uint32_t n = 0;
    for (uint32_t i = 0; i < top; i++) {
        const entry *e = &entries[i];
        n += atomic_load_explicit(&e->open, memory_order_relaxed) &&
             atomic_load_explicit(&e->user, memory_order_relaxed) == UINT64_C(1) + user;
    }
    return n;
}

/* What is no stream does not speak ZeroMQ's protocol: it is counted, no more. */
static bool is_stream(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

bool terse_tap_accepted(int listener, int fd)
{
    entry *entries = table();
    if (!entries)
        return true;
    if (fd < 0 || (uint32_t)fd >= tap.n) {
        atomic_fetch_add(&tap.refused, 1);
        return false;
    }
    entry *e = &entries[fd];
    (void)atomic_load_explicit(&e->open, memory_order_acquire); /* whoever had the number before has closed it */
    const bool trusted =
        listener >= 0 && (uint32_t)listener < tap.n && atomic_load(&tap.listeners[listener]) == TERSE_TAP_TRUSTED;
    struct ucred peer;
    socklen_t size = sizeof peer;
    const bool has_user = !trusted && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid != 0;
    atomic_store(&e->user, has_user ? UINT64_C(1) + peer.uid : 0);
    const bool full = !trusted && atomic_load(&tap.connections) >= tap.limits.connections;
    const bool users_full =
        has_user && tap.limits.connections_per_user && count_user(peer.uid) >= tap.limits.connections_per_user;
    if (full || users_full) {
        atomic_fetch_add(&tap.refused, 1);
        return false;
    }
    for (uint32_t top = atomic_load(&tap.top); top <= (uint32_t)fd;)
        if (atomic_compare_exchange_weak(&tap.top, &top, (uint32_t)fd + 1))
            break;
    e->state = is_stream(fd) ? IN_GREETING : OTHER;
    e->greeting_left = GREETING;
    e->n_parts = 0;
    atomic_store(&e->cost, 0);
    atomic_store(&e->trusted, trusted);
    atomic_store(&e->ended, false);
    atomic_store(&e->known, false);
    atomic_fetch_add(&e->generation, 1);
    if (!trusted)
        atomic_fetch_add(&tap.connections, 1);
    atomic_store_explicit(&e->open, true, memory_order_release);
    return true;
}

void terse_tap_closed(int fd)
{
    entry *e = entry_of(fd);
    if (!e)
        return;
    if (!atomic_load(&e->trusted))
        atomic_fetch_sub(&tap.connections, 1);
    atomic_store(&e->open, false);
    atomic_fetch_sub(&tap.bytes, atomic_exchange(&e->cost, 0));
}

/* --- what a connection costs ------------------------------------------------------------------------------------- */

static void begin_body(entry *e, uint64_t *cost, bool *keeps_buffer)
{
    e->state = e->length ? IN_BODY : AT_FLAGS;
    if (e->flags & FLAG_COMMAND) /* answered at once and gone */
        return;
    e->n_parts = e->flags & FLAG_MORE ? e->n_parts + 1 : 0;
    *cost += FRAME_BYTES + (e->length < UINT64_MAX / 4 ? e->length : UINT64_MAX / 4);
    *keeps_buffer |= e->length > INLINE_BODY && e->length < BUFFER_BYTES;
}

/* A greeting of version 3 has 64 bytes, of which the eleventh tells the version; older ones are shorter. */
static bool old_greeting(const entry *e, uint8_t byte)
{
    const int at = GREETING - e->greeting_left;
    return (at == 0 && byte != 0xff) || (at == 9 && !(byte & 1)) || (at == REVISION_AT && byte < 3);
}

static void read_byte(entry *e, uint8_t byte, uint64_t *cost, bool *keeps_buffer)
{
    switch (e->state) {
    case IN_GREETING:
        if (old_greeting(e, byte))
            e->state = OLD;
        else if (--e->greeting_left == 0)
            e->state = AT_FLAGS;
        break;
    case AT_FLAGS:
        e->flags = byte;
        e->length = 0;
        e->length_left = byte & FLAG_LONG ? 8 : 1;
        e->state = IN_LENGTH;
        break;
    default:
        e->length = e->length << 8 | byte;
        if (--e->length_left == 0)
            begin_body(e, cost, keeps_buffer);
    }
}

static uint64_t cost_of(entry *e, const uint8_t *data, size_t got)
{
    uint64_t cost = 0;
    bool keeps_buffer = false;
    for (size_t at = 0; at < got && e->n_parts <= TERSE_TAP_MOST_PARTS;) {
        const size_t left = got - at;
        if (e->state == OLD) {
            cost += OLD_BYTE * (uint64_t)left;
            break;
        }
        if (e->state == IN_BODY) {
            const uint64_t part = e->length < left ? e->length : left;
            at += part;
            e->length -= part;
            if (e->length == 0)
                e->state = AT_FLAGS;
            continue;
        }
        read_byte(e, data[at++], &cost, &keeps_buffer);
    }
    return cost + (keeps_buffer ? BUFFER_BYTES : 0);
}

/* Beyond all of the room: who has cost most for longest goes first. Somebody's large request comes in and is gone
 * again; a message without end is there to stay. */
static void end_worst(void)
{
    entry *worst = NULL;
    double most = 0;
    const uint64_t now_ns = terse_now_ns();
    const uint32_t top = atomic_load(&tap.top);
    entry *entries = table();
    for (uint32_t i = 0; i < top; i++) {
        entry *e = &entries[i];
        const uint64_t age_ns = now_ns - atomic_load_explicit(&e->since_ns, memory_order_relaxed);
        const double cost = (double)atomic_load_explicit(&e->cost, memory_order_relaxed) * (double)age_ns;
        if (cost > most && atomic_load(&e->open) && !atomic_load(&e->trusted) && !atomic_load(&e->ended)) {
            worst = e;
            most = cost;
        }
    }
    if (!worst || atomic_exchange(&worst->ended, true))
        return;
    atomic_fetch_add(&tap.cut_off, 1);
    /* What it has is on its way out: nobody else goes for it. */
    atomic_fetch_sub(&tap.bytes, atomic_exchange(&worst->cost, 0));
    shutdown((int)(worst - entries), SHUT_RDWR);
}

bool terse_tap_received(int fd, const void *data, size_t got, size_t room)
{
    (void)room;
    entry *e = entry_of(fd);
    if (!e || atomic_load_explicit(&e->trusted, memory_order_relaxed))
        return true;
    if (atomic_load_explicit(&e->ended, memory_order_relaxed))
        return false; /* what was still in the socket's buffer */
    const uint64_t more = e->state == OTHER ? 0 : cost_of(e, data, got);
    if (more == 0)
        return true;
    const uint64_t before = atomic_fetch_add(&e->cost, more), cost = before + more;
    if (before == 0)
        atomic_store_explicit(&e->since_ns, terse_now_ns(), memory_order_relaxed);
    const uint64_t total = atomic_fetch_add(&tap.bytes, more) + more;
    if (cost > tap.limits.connection_bytes || e->n_parts > TERSE_TAP_MOST_PARTS) {
        if (!atomic_exchange(&e->ended, true))
            atomic_fetch_add(&tap.cut_off, 1);
        return false;
    }
    if (total > tap.limits.total_bytes)
        end_worst();
    return !atomic_load_explicit(&e->ended, memory_order_relaxed);
}

/* --- the main thread --------------------------------------------------------------------------------------------- */

terse_tap_id terse_tap_find(const char *fd_text)
{
    char *end = NULL;
    const long fd = fd_text && *fd_text ? strtol(fd_text, &end, 10) : -1;
    const entry *e = fd >= 0 && fd < MAX_DESCRIPTORS && !*end ? entry_of((int)fd) : NULL;
    if (!e)
        return (terse_tap_id){.fd = -1};
    return (terse_tap_id){.fd = (int)fd, .generation = atomic_load(&e->generation)};
}

bool terse_tap_is_trusted(terse_tap_id id)
{
    const entry *e = entry_of_id(id);
    return e && atomic_load(&e->trusted);
}

bool terse_tap_is_open(terse_tap_id id)
{
    return entry_of_id(id) != NULL;
}

void terse_tap_took(terse_tap_id id)
{
    entry *e = entry_of_id(id);
    if (e && atomic_load_explicit(&e->cost, memory_order_relaxed))
        atomic_fetch_sub(&tap.bytes, atomic_exchange(&e->cost, 0));
}

void terse_tap_drop(terse_tap_id id)
{
    entry *e = entry_of_id(id);
    if (!e || atomic_exchange(&e->ended, true))
        return;
    atomic_fetch_add(&tap.dropped, 1);
    shutdown(id.fd, SHUT_RDWR);
}

void terse_tap_know(terse_tap_id id)
{
    entry *e = entry_of_id(id);
    if (e)
        atomic_store(&e->known, true);
}

void terse_tap_drop_unknown(void)
{
    for (uint32_t i = 0, top = atomic_load(&tap.top); i < top; i++) {
        const entry *e = entry_of((int)i);
        if (e && !atomic_load(&e->known) && !atomic_load(&e->trusted))
            terse_tap_drop((terse_tap_id){.fd = (int)i, .generation = atomic_load(&e->generation)});
    }
}

terse_tap_counts terse_tap_count(void)
{
    return (terse_tap_counts){
        .connections = atomic_load(&tap.connections),
        .refused = atomic_load(&tap.refused),
        .cut_off = atomic_load(&tap.cut_off),
        .dropped = atomic_load(&tap.dropped),
        .bytes = atomic_load(&tap.bytes),
    };
}

void terse_tap_trim(void)
{
    enum { MOST_CALLS = 30 };
    static uint64_t seen, trimmed;
    static int waited;
    const uint64_t ended = atomic_load(&tap.cut_off);
    /* Not while it goes on: whoever wants memory meanwhile would wait, and fetch back what was given away. */
    if (ended != trimmed && (ended == seen || ++waited >= MOST_CALLS)) {
        malloc_trim(0);
        trimmed = ended;
        waited = 0;
    }
    seen = ended;
}
