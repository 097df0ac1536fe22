/* SPDX-License-Identifier: Apache-2.0 */
/* faults.so: makes one system call of one of the daemon's processes fail. For tests, by LD_PRELOAD; children inherit
 * it.
 *
 * TERSE_FAULT=PROGRAM:CALL:N:TIMES:ERRNO   the N-th CALL of a process of that PROGRAM fails with ERRNO, in the first
 *                                          TIMES processes that come so far. CALL "clock" steps the wall clock
 *                                          instead, "poison" makes workers heed poisoned inputs (below)
 * TERSE_FAULT_STATE=FILE                   16 bytes, shared by all processes: calls of that name seen, failures made
 *
 * Counting is per process: what is replaced counts from the beginning. Nothing is opened later than at the start: the
 * daemon's processes give up the right to. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "daemon/protocol.h"

#define PUBLIC __attribute__((visibility("default")))

typedef struct shared_state {
    _Atomic uint64_t seen, failed;
} shared_state;

static char wanted[64];
static unsigned long nth, times;
static int error;
static shared_state *state;
static _Atomic unsigned long count;

__attribute__((constructor)) static void begin(void)
{
    char program[64];
    const char *spec = getenv("TERSE_FAULT"), *path = getenv("TERSE_FAULT_STATE");
    if (!spec || !path || sscanf(spec, "%63[^:]:%63[^:]:%lu:%lu:%d", program, wanted, &nth, &times, &error) != 5 ||
        strcmp(program, program_invocation_short_name) != 0) {
        *wanted = 0;
        return;
    }
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    void *memory =
        fd < 0 ? MAP_FAILED
               : (void *)syscall(SYS_mmap, NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)0);
    if (memory == MAP_FAILED)
        abort();
    syscall(SYS_close, fd);
    state = memory;
}

static bool fails(const char *call)
{
    if (!state || strcmp(call, wanted) != 0)
        return false;
    atomic_fetch_add(&state->seen, 1);
    if (atomic_fetch_add(&count, 1) + 1 != nth)
        return false;
    if (atomic_fetch_add(&state->failed, 1) >= times) {
        atomic_fetch_sub(&state->failed, 1);
        return false;
    }
    errno = error;
    return true;
}

/* The call itself, found when it is first made. */
#define REAL(result, name, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (!real)                                                                                                         \
    *(void **)&real = dlsym(RTLD_NEXT, name)

PUBLIC pid_t fork(void)
{
    REAL(pid_t, "fork", void);
    return fails("fork") ? -1 : real();
}

PUBLIC int memfd_create(const char *name, unsigned flags)
{
    REAL(int, "memfd_create", const char *, unsigned);
    return fails("memfd_create") ? -1 : real(name, flags);
}

PUBLIC int ftruncate(int fd, off_t length)
{
    REAL(int, "ftruncate", int, off_t);
    return fails("ftruncate") ? -1 : real(fd, length);
}

/* The memory of the requests' inputs, in a worker: the only shared one that it may just read. */
static const uint8_t *inputs;
static size_t inputs_bytes;

static void remember(const uint8_t *memory, size_t length, int protection, int flags)
{
    if (memory == MAP_FAILED || protection != PROT_READ || !(flags & MAP_SHARED))
        return;
    inputs = memory;
    inputs_bytes = length;
}

PUBLIC void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    REAL(void *, "mmap", void *, size_t, int, int, int, off_t);
    if (fails("mmap"))
        return MAP_FAILED;
    void *memory = real(address, length, protection, flags, fd, offset);
    remember(memory, length, protection, flags);
    return memory;
}

PUBLIC int socket(int domain, int type, int protocol)
{
    REAL(int, "socket", int, int, int);
    return fails("socket") ? -1 : real(domain, type, protocol);
}

PUBLIC int socketpair(int domain, int type, int protocol, int ends[2])
{
    REAL(int, "socketpair", int, int, int, int *);
    return fails("socketpair") ? -1 : real(domain, type, protocol, ends);
}

PUBLIC int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    REAL(int, "bind", int, const struct sockaddr *, socklen_t);
    return fails("bind") ? -1 : real(fd, address, size);
}

PUBLIC int pipe2(int ends[2], int flags)
{
    REAL(int, "pipe2", int *, int);
    return fails("pipe2") ? -1 : real(ends, flags);
}

PUBLIC ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    return fails("write") ? -1 : real(fd, data, size);
}

PUBLIC ssize_t read(int fd, void *data, size_t size)
{
    REAL(ssize_t, "read", int, void *, size_t);
    return fails("read") ? -1 : real(fd, data, size);
}

PUBLIC ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(ssize_t, "sendmsg", int, const struct msghdr *, int);
    return fails("sendmsg") ? -1 : real(fd, message, flags);
}

/* A batch with an input that starts with the float 6660 crashes its worker, with 6661 it hangs, with 6662 it stops. */
static void take_poison(const uint8_t *data, size_t size)
{
    const terse_msg_batch *head = (const terse_msg_batch *)(const void *)data;
    if (size < sizeof *head || head->head.kind != TERSE_MSG_BATCH || !inputs)
        return;
    const size_t stride = 1 + head->n_inputs + 2 * (size_t)head->n_outputs;
    const uint64_t *member =
        (const uint64_t *)(const void *)(data + sizeof *head + head->n_inputs * sizeof(terse_msg_tensor));
    for (uint32_t i = 0; i < head->n_members; i++, member += stride) {
        float first = 0;
        if (member[1] + sizeof first <= inputs_bytes)
            memcpy(&first, inputs + member[1], sizeof first);
        if (first == 6660)
            raise(SIGSEGV);
        else if (first == 6661)
            for (;;)
                pause();
        else if (first == 6662)
            syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), SIGSTOP);
    }
}

PUBLIC ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(ssize_t, "recvmsg", int, struct msghdr *, int);
    if (fails("recvmsg"))
        return -1;
    const ssize_t size = real(fd, message, flags);
    if (size > 0 && state && strcmp(wanted, "poison") == 0)
        take_poison(message->msg_iov[0].iov_base, (size_t)size);
    return size;
}

PUBLIC int epoll_create1(int flags)
{
    REAL(int, "epoll_create1", int);
    return fails("epoll_create1") ? -1 : real(flags);
}

PUBLIC int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    REAL(int, "epoll_ctl", int, int, int, struct epoll_event *);
    return what == EPOLL_CTL_ADD && fails("epoll_ctl") ? -1 : real(epoll, what, fd, event);
}

/* What stands before the C library itself (daemon/tap_calls.c, daemon/hold.c) makes the call this way. */
PUBLIC long syscall(long number, ...)
{
    REAL(long, "syscall", long, ...);
    va_list list;
    va_start(list, number);
    long given[6];
    for (int i = 0; i < 6; i++)
        given[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_epoll_ctl && given[1] == EPOLL_CTL_ADD && fails("epoll_ctl"))
        return -1;
    return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

/* What ZeroMQ does for its connections. */
PUBLIC ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
    REAL(ssize_t, "sendto", int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    return fails("sendto") ? -1 : real(fd, data, size, flags, to, to_size);
}

PUBLIC int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    REAL(int, "connect", int, const struct sockaddr *, socklen_t);
    return fails("connect") ? -1 : real(fd, address, size);
}

PUBLIC int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    REAL(int, "setsockopt", int, int, int, const void *, socklen_t);
    return fails("setsockopt") ? -1 : real(fd, level, option, value, size);
}

PUBLIC int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    REAL(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return fails("pthread_create") ? error : real(thread, attributes, run, argument);
}

PUBLIC int eventfd(unsigned value, int flags)
{
    REAL(int, "eventfd", unsigned, int);
    return fails("eventfd") ? -1 : real(value, flags);
}

PUBLIC int fcntl(int fd, int what, ...)
{
    REAL(int, "fcntl", int, int, ...);
    va_list args;
    va_start(args, what);
    void *argument = va_arg(args, void *);
    va_end(args);
    return fails("fcntl") ? -1 : real(fd, what, argument);
}

/* Steps of an hour, back and forth with every look: whoever measures a time by this clock sees nonsense. */
static int64_t step(void)
{
    if (!state || strcmp(wanted, "clock") != 0)
        return 0;
    atomic_fetch_add(&state->seen, 1);
    atomic_fetch_add(&state->failed, 1);
    return atomic_fetch_add(&count, 1) % 2 ? 3600 : -3600;
}

PUBLIC int clock_gettime(clockid_t clock, struct timespec *time)
{
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    const int r = real(clock, time);
    if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
        time->tv_sec += step();
    return r;
}

PUBLIC time_t time(time_t *ret_time)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret_time)
        *ret_time = now.tv_sec;
    return now.tv_sec;
}

PUBLIC int gettimeofday(struct timeval *ret_time, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *ret_time = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}
