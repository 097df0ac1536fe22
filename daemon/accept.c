/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"

/* A quarter of the descriptors that are left when the first client comes, and no more than so many, are kept. */
enum { MOST_KEPT = 1024 };
#define QUIET_NS UINT64_C(10000000000)

/* The listeners are ZeroMQ's one thread's, those of shared memory the main thread's. */
static _Atomic int spare = -1;
static int limit;                  /* of descriptors */
static _Atomic int end_of_clients; /* descriptors from here on are not for them; 0: not known yet */
static _Atomic uint64_t told_ns;

bool terse_accept_prepare(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return false;
    limit = files.rlim_cur < INT32_MAX ? (int)files.rlim_cur : INT32_MAX;
    spare = eventfd(0, EFD_CLOEXEC);
    return spare >= 0;
}

static int end_for_clients(int fd)
{
    int end = atomic_load(&end_of_clients);
    if (end == 0 && fd >= 0) {
        const int quarter = (limit - fd) / 4;
        end = limit - (quarter < 1 ? 1 : quarter < MOST_KEPT ? quarter : MOST_KEPT);
        atomic_store(&end_of_clients, end);
    }
    return end;
}

static void tell(void)
{
    const uint64_t now = terse_now_ns();
    uint64_t last = atomic_load(&told_ns);
    if ((last == 0 || now - last > QUIET_NS) && atomic_compare_exchange_strong(&told_ns, &last, now))
        terse_log(TERSE_LOG_WARNING, "no descriptors for more clients, %d are allowed in all: some are turned away",
                  limit);
}

/* Nothing is left: the spare one makes room for as long as it takes to end the connection that waits first. */
static void turn_away(int listener)
{
    const int taken = atomic_exchange(&spare, -1);
    if (taken < 0)
        return;
    close(taken);
    const int fd = (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    atomic_store(&spare, eventfd(0, EFD_CLOEXEC));
}

int terse_accept_judge(int listener, int fd)
{
    if (fd >= 0 && fd < end_for_clients(fd))
        return fd;
    if (fd < 0 && errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
        return -1;
    if (fd >= 0)
        close(fd);
    else
        turn_away(listener);
    tell();
    errno = ECONNABORTED; /* the client's own end, for all that ZeroMQ knows */
    return -1;
}
