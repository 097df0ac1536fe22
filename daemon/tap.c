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
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/hold.h"
#include "daemon/log.h"
#include "daemon/standing.h"

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

/* What a connection may owe, less when others of the same peer came to nothing just now, and how soon it pays that
 * back: a hundredth of a core, a thousandth when it has brought nothing good for a second; all who owe together a
 * hundredth. What work is in nanoseconds, as far as it is known here: a call, a message or a part
 * that no request can have, and a connection that comes and goes for nothing. */
#define MAY_OWE_NS INT64_C(1000000)
#define MAY_OWE_WATCHED_NS INT64_C(150000)
#define PAYS 100
#define PAYS_OF_USELESS 1000
#define GOOD_FOR_NS UINT64_C(1000000000)
#define LEAST_HOLD_NS INT64_C(20000000)
#define MOST_HOLD_NS INT64_C(1000000000)
enum { CALL_NS = 2000, MESSAGE_NS = 2000, PART_NS = 10000, USELESS_NS = 150000 };
enum { SMALL_ROOM = 1024, MOST_OF_REQUEST = 66, MANY_PARTS = 8 };
enum { SMALL_WINDOW = 32768, LARGE_WINDOW = 4 << 20 };

typedef struct entry {
    _Atomic uint64_t cost;                   /* since the last whole message */
    _Atomic uint32_t generation, good_parts; /* good_parts: of good messages, the main thread's */
    atomic_bool open, trusted, ended, known;
    _Atomic uint64_t since_ns; /* when its cost began to be more than nothing */
    _Atomic uint64_t user;     /* the uid and 1; 0: nobody knows */
    reading state;
    uint8_t flags, length_left, greeting_left;
    uint32_t n_parts;  /* of the message that has not ended */
    uint64_t length;   /* of the body; what is left of it */
    bool owes;         /* much: counted in n_owing */
    bool met, watched; /* it was handed over; others of its peer came to nothing, and it has brought nothing yet */
    int64_t owed_ns, prepaid_ns, hold_ns; /* hold_ns: how long it was held last */
    uint64_t paid_ns;                     /* when what it owes was counted last */
    uint64_t good_ns;                     /* when a good message was seen last, or when it came */
    uint32_t good_seen;                   /* of good_parts */
    uint32_t work_ns;                     /* what was read since then */
    uint64_t key;                         /* whose it is: standing.h; 0: nobody's, who never waits */
} entry;

static struct {
    _Atomic(entry *) entries;   /* set last: the rest is there by then */
    _Atomic uint8_t *listeners; /* kinds */
    uint32_t n;
    _Atomic uint32_t top; /* above every descriptor that was ever seen */
    terse_tap_limits limits;
    _Atomic uint32_t connections;
    _Atomic uint64_t refused, cut_off, dropped, bytes, held, delayed;
    terse_standing standing; /* the I/O thread's, as is n_owing */
    uint32_t n_owing;
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
    memset(&tap.standing, 0, sizeof tap.standing);
    if (!terse_hold_open(tap.n))
        terse_log(TERSE_LOG_WARNING, "no timer: whoever floods is read all the same");
    atomic_store_explicit(&tap.entries, entries, memory_order_release);
    return true;
}

void terse_tap_done(void)
{
    terse_hold_done();
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
    if (!table() || fd < 0 || (uint32_t)fd >= tap.n)
        return;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); /* it is asked with nobody there (hold.h) */
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

/* A process of a user, or an address. */
static uint64_t key_of(int fd, const struct ucred *peer)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    if (peer) {
        const uint32_t who[] = {peer->uid, (uint32_t)peer->pid};
        return terse_standing_key(who, sizeof who);
    }
    if (getpeername(fd, (struct sockaddr *)&address, &size) != 0)
        return 0;
    if (address.ss_family == AF_INET6)
        return terse_standing_key(&((const struct sockaddr_in6 *)&address)->sin6_addr, 8); /* one network, one host */
    return terse_standing_key(&((const struct sockaddr_in *)&address)->sin_addr, sizeof(struct in_addr));
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
    e->met = e->watched = false;
    e->owed_ns = e->prepaid_ns = e->hold_ns = 0;
    e->paid_ns = e->good_ns = terse_now_ns();
    e->good_seen = e->work_ns = 0;
    e->key = trusted || e->state == OTHER ? 0 : key_of(fd, has_user ? &peer : NULL);
    atomic_store_explicit(&e->good_parts, 0, memory_order_relaxed);
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

/* What came and went for nothing is charged to whoever it was. */
static void judge_closed(const entry *e)
{
    const bool useless = atomic_load(&e->ended) || !atomic_load_explicit(&e->good_parts, memory_order_relaxed);
    if (e->met && useless && !e->prepaid_ns)
        terse_standing_charge(&tap.standing, e->key, USELESS_NS, terse_now_ns());
}

void terse_tap_closed(int fd)
{
    entry *e = entry_of(fd);
    if (!e)
        return;
    terse_hold_forget(fd);
    if (e->owes)
        tap.n_owing--;
    e->owes = false;
    if (e->key)
        judge_closed(e);
    if (!atomic_load(&e->trusted))
        atomic_fetch_sub(&tap.connections, 1);
    atomic_store(&e->open, false);
    atomic_fetch_sub(&tap.bytes, atomic_exchange(&e->cost, 0));
}

/* --- who waits outside ---------------------------------------------------------------------------------------------
 */

terse_tap_what terse_tap_kind(int fd)
{
    if (!table() || fd < 0 || (uint32_t)fd >= tap.n)
        return TERSE_TAP_NOTHING;
    if (atomic_load_explicit(&tap.listeners[fd], memory_order_relaxed))
        return TERSE_TAP_LISTENER;
    const entry *e = entry_of(fd);
    return e && e->key ? TERSE_TAP_CONNECTION : TERSE_TAP_NOTHING;
}

/* Over tcp megabytes would be on their way before anybody who is not read has to wait. (A Unix socket counts what is on
 * its way for its sender.) */
static void set_window(int fd, int bytes)
{
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

bool terse_tap_waits(int listener, int fd)
{
    entry *e = entry_of(fd);
    if (terse_tap_kind(listener) != TERSE_TAP_LISTENER || !e || !e->key)
        return false;
    const uint64_t now_ns = terse_now_ns();
    e->watched = terse_standing_suspects(&tap.standing, e->key, now_ns);
    if (e->watched)
        set_window(fd, SMALL_WINDOW);
    e->met = !e->watched || terse_standing_wait(&tap.standing, e->key, now_ns) == 0;
    if (e->met)
        return false;
    if (terse_hold_outside(fd, e->key)) {
        atomic_fetch_add(&tap.delayed, 1);
    } else {
        atomic_fetch_add(&tap.refused, 1);
        close(fd);
    }
    return true;
}

static bool may_enter(int fd, uint64_t key)
{
    (void)fd;
    return terse_standing_wait(&tap.standing, key, terse_now_ns()) == 0;
}

/* It pays beforehand what it takes if it comes to nothing: those who wait with it wait for that. */
int terse_tap_waited(int listener)
{
    if (terse_tap_kind(listener) != TERSE_TAP_LISTENER)
        return -1;
    const int fd = terse_hold_turn(terse_now_ns(), may_enter);
    entry *e = entry_of(fd);
    if (!e)
        return fd;
    e->met = true;
    e->prepaid_ns = USELESS_NS;
    terse_standing_charge(&tap.standing, e->key, USELESS_NS, terse_now_ns());
    return fd;
}

/* --- what a connection costs ------------------------------------------------------------------------------------- */

static void begin_body(entry *e, uint64_t *cost, bool *keeps_buffer)
{
    e->state = e->length ? IN_BODY : AT_FLAGS;
    if (!(e->flags & FLAG_MORE))
        e->work_ns += MESSAGE_NS;
    else if (e->n_parts >= (e->watched ? MANY_PARTS : MOST_OF_REQUEST))
        e->work_ns += PART_NS;
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

static int64_t may_owe(const entry *e)
{
    return e->watched ? MAY_OWE_WATCHED_NS : MAY_OWE_NS;
}

/* Of so many nanoseconds one is paid back. */
static int64_t pays(const entry *e, uint64_t now_ns)
{
    const bool useless = now_ns - e->good_ns > GOOD_FOR_NS;
    const int64_t alone = useless ? PAYS_OF_USELESS : PAYS, together = (int64_t)tap.n_owing * PAYS;
    return together > alone ? together : alone;
}

/* Good messages pay for themselves, time for the others. */
static void pay(entry *e, int fd, uint64_t now_ns)
{
    const uint32_t good = atomic_load_explicit(&e->good_parts, memory_order_relaxed);
    e->owed_ns -=
        (int64_t)(now_ns - e->paid_ns) / pays(e, now_ns) + (int64_t)(good - e->good_seen) * (CALL_NS + MESSAGE_NS);
    if (e->owed_ns < 0)
        e->owed_ns = 0;
    e->paid_ns = now_ns;
    if (good == e->good_seen)
        return;
    e->good_seen = good;
    e->good_ns = now_ns;
    if (e->watched)
        set_window(fd, LARGE_WINDOW);
    e->watched = false;
    terse_standing_refund(&tap.standing, e->key, (uint64_t)e->prepaid_ns);
    e->prepaid_ns = e->hold_ns = 0;
}

/* The rest of a large body is no work. A message without end is held for twice as long each time. */
static void owe(entry *e, int fd, bool in_body, size_t got)
{
    const uint64_t now_ns = terse_now_ns();
    pay(e, fd, now_ns);
    e->owed_ns += e->work_ns + (in_body && got >= SMALL_ROOM ? 0 : CALL_NS);
    e->work_ns = 0;
    const bool owes = e->owed_ns > may_owe(e) / 4;
    tap.n_owing += (uint32_t)owes - (uint32_t)e->owes;
    e->owes = owes;
    if (e->owed_ns <= may_owe(e))
        return;
    const int64_t wait_ns = (e->owed_ns - may_owe(e)) * pays(e, now_ns);
    const int64_t longer_ns = e->hold_ns && e->n_parts >= MANY_PARTS ? 2 * e->hold_ns : LEAST_HOLD_NS;
    e->hold_ns = wait_ns > longer_ns ? wait_ns : longer_ns;
    if (e->hold_ns > MOST_HOLD_NS)
        e->hold_ns = MOST_HOLD_NS;
    if (terse_hold_connection(fd, now_ns + (uint64_t)e->hold_ns))
        atomic_fetch_add(&tap.held, 1);
}

/* Of those who owe much and have gone nothing more is read. */
static bool has_gone(const entry *e, int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLRDHUP};
    return e->owed_ns > may_owe(e) / 2 && poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* Whoever owes much is read in small pieces. */
size_t terse_tap_room(int fd, size_t room)
{
    const entry *e = entry_of(fd);
    if (!e || !e->key)
        return room;
    if (terse_hold_holds(fd))
        return 0;
    const size_t most = e->state == IN_BODY && e->length > SMALL_ROOM ? e->length : SMALL_ROOM;
    return e->owed_ns > may_owe(e) / 2 && room > most ? most : room;
}

bool terse_tap_received(int fd, const void *data, size_t got, size_t room)
{
    (void)room;
    entry *e = entry_of(fd);
    if (!e || atomic_load_explicit(&e->trusted, memory_order_relaxed))
        return true;
    if (atomic_load_explicit(&e->ended, memory_order_relaxed))
        return false; /* what was still in the socket's buffer */
    const bool in_body = e->state == IN_BODY;
    const uint64_t more = e->state == OTHER ? 0 : cost_of(e, data, got);
    if (e->key && has_gone(e, fd))
        return false;
    if (e->key)
        owe(e, fd, in_body, got);
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

void terse_tap_good(terse_tap_id id, uint32_t n_parts)
{
    entry *e = entry_of_id(id);
    if (e)
        atomic_store_explicit(&e->good_parts, atomic_load_explicit(&e->good_parts, memory_order_relaxed) + n_parts,
                              memory_order_relaxed);
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
        .held = atomic_load(&tap.held),
        .delayed = atomic_load(&tap.delayed),
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
