/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 4, SURPLUS_FDS = 32 };

_Bool terse_msg_send(int fd, const void *message, uint32_t bytes, const int *fds, int n_fds)
{
    if (n_fds < 0 || n_fds > MAX_FDS || bytes < sizeof(terse_msg) || bytes > TERSE_MSG_BYTES) {
        errno = EINVAL;
        return 0;
    }
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = (void *)(uintptr_t)message, .iov_len = bytes};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (n_fds > 0) {
        const size_t payload = (size_t)n_fds * sizeof(int);
        memset(&control, 0, sizeof control);
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(payload);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(payload);
        memcpy(CMSG_DATA(rights), fds, payload);
    }
    ssize_t sent;
    do
        sent = sendmsg(fd, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)bytes; /* a datagram goes whole or not at all */
}

/* Takes the descriptors of a received datagram: the first MAX_FDS stay, the others are closed. */
static int take_fds(struct msghdr *header, int *fds)
{
    int n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (n < MAX_FDS)
                fds[n++] = fd;
            else
                close(fd);
        }
    }
    return n;
}

int64_t terse_msg_receive(int fd, void *buffer, int *ret_fds, int *ret_n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SURPLUS_FDS * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = buffer, .iov_len = TERSE_MSG_BYTES};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
    ssize_t got;
    do
        got = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    *ret_n_fds = 0;
    if (got < 0)
        return errno == ECONNRESET ? 0 : -1; /* the peer died with messages of ours unread: the end as well */
    const int n = take_fds(&header, ret_fds);
    if (got == 0 && n == 0)
        return 0;
    const terse_msg *head = buffer;
    if ((size_t)got < sizeof *head || head->bytes != (size_t)got || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        for (int i = 0; i < n; i++)
            close(ret_fds[i]);
        errno = EPROTO;
        return -1;
    }
    *ret_n_fds = n;
    return got;
}
