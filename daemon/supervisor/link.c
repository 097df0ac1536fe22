/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct terse_link_message {
    terse_link_message *next;
    int fd;
    uint32_t bytes;
    _Alignas(8) unsigned char data[];
};

int terse_link_open(terse_link *link, int *ret_child_end, terse_error *error)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot create a control socket");
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
        terse_fail(error, TERSE_SYSTEM, "cannot prepare a control socket");
        close(ends[0]);
        close(ends[1]);
        return TERSE_SYSTEM;
    }
    *link = (terse_link){.fd = ends[0]};
    *ret_child_end = ends[1];
    return TERSE_OK;
}

static void drop_first(terse_link *link)
{
    terse_link_message *message = link->first;
    link->first = message->next;
    if (!link->first)
        link->last = NULL;
    link->n_queued--;
    if (message->fd >= 0)
        close(message->fd);
    free(message);
}

void terse_link_close(terse_link *link)
{
    while (link->first)
        drop_first(link);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}

static bool enqueue(terse_link *link, const terse_msg *message, int fd)
{
    if (link->n_queued >= TERSE_LINK_MESSAGES) {
        errno = ENOBUFS;
        return false;
    }
    terse_link_message *queued = malloc(sizeof *queued + message->bytes);
    if (!queued)
        return false;
    *queued = (terse_link_message){.fd = fd, .bytes = message->bytes};
    memcpy(queued->data, message, message->bytes);
    if (fd >= 0 && (queued->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
        free(queued);
        return false;
    }
    if (link->last)
        link->last->next = queued;
    else
        link->first = queued;
    link->last = queued;
    link->n_queued++;
    return true;
}

bool terse_link_send(terse_link *link, terse_msg_kind kind, terse_msg *message, uint32_t bytes, int fd)
{
    message->kind = kind;
    message->bytes = bytes;
    if (link->fd < 0) {
        errno = EPIPE;
        return false;
    }
    if (!link->first) {
        if (terse_msg_send(link->fd, message, bytes, &fd, fd >= 0))
            return true;
        if (errno != EAGAIN)
            return false;
    }
    return enqueue(link, message, fd);
}

bool terse_link_flush(terse_link *link)
{
    while (link->first) {
        if (!terse_msg_send(link->fd, link->first->data, link->first->bytes, &link->first->fd, link->first->fd >= 0))
            return errno == EAGAIN;
        drop_first(link);
    }
    return true;
}
