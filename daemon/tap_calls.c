/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's calls that ZeroMQ makes for its connections. The dynamic linker finds these first, because the
 * program that they are linked into comes before every library. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/accept.h"
#include "daemon/hold.h"
#include "daemon/tap.h"

#define SEEN __attribute__((visibility("default")))

/* ZeroMQ's listeners are asked with nobody at the door too, when the wait of somebody is over. */
SEEN int accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
    const int waited = terse_tap_waited(fd);
    if (waited >= 0) {
        if (address)
            getpeername(waited, address, bytes);
        return waited;
    }
    const int taken = terse_accept_judge(fd, (int)syscall(SYS_accept4, fd, address, bytes, flags));
    if (taken < 0 || terse_tap_accepted(fd, taken)) {
        if (taken >= 0 && terse_tap_waits(fd, taken)) {
            errno = EAGAIN;
            return -1;
        }
        return taken;
    }
    syscall(SYS_close, taken);
    errno = ECONNABORTED; /* which whoever accepts must expect */
    return -1;
}

SEEN int accept(int fd, struct sockaddr *address, socklen_t *bytes)
{
    return accept4(fd, address, bytes, 0);
}

SEEN ssize_t recv(int fd, void *buffer, size_t room, int flags)
{
    room = terse_tap_room(fd, room);
    if (room == 0) {
        errno = EAGAIN;
        return -1;
    }
    const ssize_t got = (ssize_t)syscall(SYS_recvfrom, fd, buffer, room, flags, NULL, NULL);
    if (got > 0 && !(flags & MSG_PEEK) && !terse_tap_received(fd, buffer, (size_t)got, room))
        return 0; /* the end of the connection */
    return got;
}

/* ZeroMQ sends nothing more after an error and waits for one of receiving, which need not come: then nobody would ever
 * know. */
SEEN ssize_t send(int fd, const void *data, size_t bytes, int flags)
{
    const ssize_t sent = sendto(fd, data, bytes, flags, NULL, 0);
    const int error = errno;
    if (sent < 0 && error != EAGAIN && error != EINTR)
        shutdown(fd, SHUT_RDWR);
    errno = error;
    return sent;
}

SEEN int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    switch (terse_tap_kind(fd)) {
    case TERSE_TAP_NOTHING:
        return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
    case TERSE_TAP_LISTENER:
        return terse_hold_control(epoll, op, fd, event, true);
    default:
        return terse_hold_control(epoll, op, fd, event, false);
    }
}

/* ThreadSanitizer follows descriptors by the calls that it stands before, and a bare one is not among them: without
 * word of their ends ZeroMQ's thread would seem to race with whoever had a number before. */
#ifdef __SANITIZE_THREAD__
void __sanitizer_syscall_pre_impl_close(long fd); /* of linux_syscall_hooks.h, which gcc does not have */
#else
#define __sanitizer_syscall_pre_impl_close(fd) ((void)0)
#endif

SEEN int close(int fd)
{
    terse_tap_closed(fd);
    __sanitizer_syscall_pre_impl_close(fd);
    return (int)syscall(SYS_close, fd);
}
