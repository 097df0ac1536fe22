/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/play_arena.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/ring.h"
#include "daemon/frontend/arenas.h"

enum {
    PLACES = 8,
    INPUT_BYTES = 8192, /* of one input at one place */
    OUTPUT_BYTES = 4096,
    N_INPUTS = 2,
    ALL_INPUTS = PLACES * N_INPUTS * INPUT_BYTES,
    ALL_OUTPUTS = PLACES * OUTPUT_BYTES,
    N_FDS = 5,
};

typedef struct play_arena {
    int connection; /* -1: none */
    int fds[N_FDS]; /* once it is welcome: inputs, outputs, rings, doorbells to ring and to hear */
    bool welcome, wild;
    uint8_t token[TERSE_WIRE_ARENA_BYTES];
    uint8_t *inputs, *outputs, *rings;
    terse_ring submission, completion;
    uint64_t ids[PLACES]; /* 0: free */
} play_arena;

static play_arena arenas[PLAY_ARENAS];
static struct sockaddr_un address;
static socklen_t address_bytes;
static uint8_t buffer[TERSE_ARENA_RING_BYTES];

static uint64_t rings_bytes(void)
{
    return 2 * (TERSE_RING_HEAD_BYTES + (uint64_t)TERSE_ARENA_RING_BYTES);
}

int play_arenas_listen(void)
{
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    address_bytes = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address.sun_family) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &address_bytes) != 0)
        abort();
    for (unsigned i = 0; i < PLAY_ARENAS; i++)
        arenas[i] = (play_arena){.connection = -1};
    return fd;
}

static void leave(play_arena *a)
{
    if (a->connection >= 0)
        close(a->connection);
    if (a->welcome) {
        munmap(a->inputs, ALL_INPUTS);
        munmap(a->outputs, ALL_OUTPUTS);
        munmap(a->rings, rings_bytes());
        for (int i = 0; i < N_FDS; i++)
            close(a->fds[i]);
    }
    *a = (play_arena){.connection = -1};
}

void play_arenas_leave(void)
{
    for (unsigned i = 0; i < PLAY_ARENAS; i++)
        leave(&arenas[i]);
}

void play_arenas_end(void)
{
    play_arenas_leave();
}

/* --- attaching ------------------------------------------------------------------------------------------------- */

static uint8_t *put_key(uint8_t *at, const char *key, uint32_t value)
{
    const size_t length = strlen(key);
    *at++ = (uint8_t)(0xa0 | length);
    memcpy(at, key, length);
    at += length;
    *at++ = 0xce;
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(value >> shift);
    return at;
}

static void attach(play_arena *a, play_input *in)
{
    static const uint8_t begin[] = "\x84\xa1v\x01\xa2op\xa6"
                                   "attach";
    uint8_t bytes[128], *end = bytes + sizeof begin - 1;
    const unsigned what = play_byte(in);
    a->connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->connection < 0 || connect(a->connection, (struct sockaddr *)&address, address_bytes) != 0) {
        leave(a);
        return;
    }
    memcpy(bytes, begin, sizeof begin - 1);
    end = put_key(end, "input_bytes", ALL_INPUTS);
    end = put_key(end, "output_bytes", ALL_OUTPUTS);
    if (what % 8 == 7) /* of which the answer cannot make a good one */
        for (unsigned n = 1 + what / 64; n > 0; n--) {
            bytes[play_byte(in) % (end - bytes)] = play_byte(in);
            a->wild = true;
        }
    (void)send(a->connection, bytes, (size_t)(end - bytes), MSG_NOSIGNAL);
}

static void map(play_arena *a, const int *fds)
{
    memcpy(a->fds, fds, sizeof a->fds);
    a->welcome = true;
    a->inputs = mmap(NULL, ALL_INPUTS, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    a->outputs = mmap(NULL, ALL_OUTPUTS, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
    a->rings = mmap(NULL, rings_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fds[2], 0);
    assert(a->inputs != MAP_FAILED && a->outputs != MAP_FAILED && a->rings != MAP_FAILED);
    terse_ring_open(&a->submission, a->rings, TERSE_ARENA_RING_BYTES);
    terse_ring_open(&a->completion, a->rings + TERSE_RING_HEAD_BYTES + TERSE_ARENA_RING_BYTES, TERSE_ARENA_RING_BYTES);
}

/* True: it has no connection any more. */
static bool hear(play_arena *a)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(N_FDS * sizeof(int))];
    } control;
    static const char before[] = "\xa5"
                                 "arena\xc4\x10";
    struct iovec part = {.iov_base = buffer, .iov_len = 4096};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    const ssize_t got = recvmsg(a->connection, &message, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return false;
    const struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    const uint8_t *token = got > 0 ? memmem(buffer, (size_t)got, before, sizeof before - 1) : NULL;
    assert(!rights || (rights->cmsg_len == CMSG_LEN(N_FDS * sizeof(int)) && token && !a->welcome));
    if (!rights || a->wild) {
        int fds[N_FDS] = {0};
        if (rights)
            memcpy(fds, CMSG_DATA(rights), sizeof fds);
        for (int i = 0; rights && i < N_FDS; i++)
            close(fds[i]);
        if (got == 0 || !a->welcome)
            leave(a);
        return a->connection < 0;
    }
    memcpy(a->token, token + sizeof before - 1, sizeof a->token);
    int fds[N_FDS];
    memcpy(fds, CMSG_DATA(rights), sizeof fds);
    map(a, fds);
    return false;
}

/* --- harm ------------------------------------------------------------------------------------------------------ */

static void write_over(play_arena *a, play_input *in)
{
    const unsigned what = play_byte(in);
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += what & 1 ? 8 : 24)
        value |= (uint64_t)play_byte(in) << shift;
    if (what & 2)
        value *= 8;
    terse_ring_shared *shared = what & 4 ? a->completion.shared : a->submission.shared;
    switch (what >> 3 & 3) {
    case 0:
        shared->put = value;
        break;
    case 1:
        shared->taken = value;
        break;
    case 2:
        shared->reader_sleeps = shared->writer_sleeps = (uint32_t)value;
        break;
    default: { /* a header, or what is behind it, under way */
        uint8_t *at = what & 4 ? a->completion.bytes : a->submission.bytes;
        for (unsigned n = 8; n > 0; n--)
            at[(value + n) % 4096] = play_byte(in);
    }
    }
    a->wild = true;
}

bool play_arena_step(unsigned i, play_input *in)
{
    play_arena *a = &arenas[i];
    const unsigned what = play_byte(in);
    if (a->connection < 0) {
        attach(a, in);
        return false;
    }
    if (what % 8 < 5 || !a->welcome) {
        const bool had = a->welcome;
        play_pool_supervise();
        return hear(a) && had;
    }
    if (what % 8 == 5) /* it asks again, or says something else */
        (void)send(a->connection, &what, 1 + what / 128, MSG_NOSIGNAL);
    else if (what % 8 == 6)
        write_over(a, in);
    else
        leave(a);
    return what % 8 > 5;
}

bool play_arena_good(unsigned i)
{
    return arenas[i].welcome && !arenas[i].wild;
}

/* --- requests -------------------------------------------------------------------------------------------------- */

bool play_arena_lay(unsigned i, terse_wire_request *request, uint8_t fill)
{
    play_arena *a = &arenas[i];
    unsigned place = 0;
    while (place < PLACES && a->ids[place])
        place++;
    if (place == PLACES || request->n_inputs > N_INPUTS)
        return false;
    a->ids[place] = request->id;
    request->has_arena = true;
    memcpy(request->arena, a->token, sizeof a->token);
    for (uint32_t k = 0; k < request->n_inputs; k++) {
        terse_wire_tensor *t = &request->inputs[k];
        t->frame = 0;
        t->has_shm = true;
        t->shm_offset = (uint64_t)(place * N_INPUTS + k) * INPUT_BYTES;
        t->shm_size = (uint64_t)(t->dims[0] * t->dims[1]) * 4;
        assert(t->shm_size <= INPUT_BYTES);
        memset(a->inputs + t->shm_offset, fill, t->shm_size);
    }
    request->has_outputs = true;
    request->n_outputs = 1;
    terse_wire_tensor_init(&request->outputs[0]);
    request->outputs[0].name = terse_wire_text_of("y");
    request->outputs[0].has_shm = true;
    request->outputs[0].shm_offset = place * OUTPUT_BYTES;
    request->outputs[0].shm_size = OUTPUT_BYTES;
    return true;
}

void play_arena_answered(uint64_t id)
{
    for (unsigned i = 0; i < PLAY_ARENAS; i++)
        for (unsigned place = 0; place < PLACES; place++)
            if (arenas[i].ids[place] == id)
                arenas[i].ids[place] = 0;
}

const uint8_t *play_arena_output(uint64_t id, uint64_t offset, uint64_t size)
{
    for (unsigned i = 0; i < PLAY_ARENAS; i++)
        for (unsigned place = 0; place < PLACES; place++)
            if (arenas[i].ids[place] == id && arenas[i].welcome) {
                assert(offset == place * OUTPUT_BYTES && size <= OUTPUT_BYTES);
                return arenas[i].outputs + offset;
            }
    return NULL;
}

bool play_arena_submit(unsigned i, const void *header, size_t size, bool rings)
{
    play_arena *a = &arenas[i];
    if (terse_ring_put(&a->submission, header, (uint32_t)size) != TERSE_RING_DONE)
        return false;
    const uint64_t one = 1;
    if ((terse_ring_tell(&a->submission) || rings) && write(a->fds[3], &one, sizeof one) < 0)
        return true;
    return true;
}

bool play_arena_read(unsigned i, void (*read)(const void *header, size_t size))
{
    play_arena *a = &arenas[i];
    uint32_t bytes = 0;
    if (!play_arena_good(i) || terse_ring_take(&a->completion, buffer, sizeof buffer, &bytes) != TERSE_RING_DONE)
        return false;
    const uint64_t one = 1;
    if (terse_ring_release(&a->completion) && write(a->fds[3], &one, sizeof one) < 0)
        return false;
    read(buffer, bytes);
    return true;
}

void play_arenas_ring(void)
{
    const uint64_t one = 1;
    for (unsigned i = 0; i < PLAY_ARENAS; i++)
        if (arenas[i].welcome && write(arenas[i].fds[3], &one, sizeof one) < 0)
            continue;
}
