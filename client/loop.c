/* SPDX-License-Identifier: Apache-2.0 */
#include "client/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/arena.h"
#include "client/links.h"
#include "common/bytes.h"

int terse_loop_descriptor(void *socket)
{
    int fd = -1;
    if (!socket)
        return fd;
    size_t size = sizeof fd;
    zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
    return fd;
}

static bool has_events(void *socket, int wanted)
{
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 && (events & wanted);
}

static bool watch(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return fd >= 0 && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

int terse_client_fd(terse_client *client)
{
    if (client->epoll_fd >= 0)
        return client->epoll_fd;
    client->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bool watched =
        client->epoll_fd >= 0 && watch(client->epoll_fd, client->event_fd) && watch(client->epoll_fd, client->timer_fd);
    for (int i = 0; i < client->n_links && watched; i++)
        watched =
            watch(client->epoll_fd, client->links[i].socket_fd) && watch(client->epoll_fd, client->links[i].monitor_fd);
    if (!watched) {
        CLIENT_FAIL(TERSE_SYSTEM, "cannot make a descriptor to watch");
        terse_loop_close(client);
        return -1;
    }
    terse_loop_watch_arena(client);
    terse_loop_update(client);
    return client->epoll_fd;
}

void terse_loop_watch_arena(terse_client *client)
{
    const terse_client_arena *arena = client->arena;
    if (client->epoll_fd < 0 || !arena)
        return;
    watch(client->epoll_fd, arena->connection); /* again: it is there already */
    if (arena->state == ARENA_ATTACHED)
        watch(client->epoll_fd, arena->complete_fd);
}

void terse_loop_update(terse_client *client)
{
    if (client->epoll_fd < 0)
        return;
    bool ready = client->done_first || (client->arena && !terse_ring_arm(client->arena));
    for (int i = 0; i < client->n_links && !ready; i++) {
        const terse_link *link = &client->links[i];
        const int wanted = terse_client_wants_out(client, link) ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN;
        ready = has_events(link->socket, wanted) || has_events(link->monitor, ZMQ_POLLIN);
    }
    uint64_t count = 1;
    if (ready && !client->event_set)
        client->event_set = write(client->event_fd, &count, sizeof count) == (ssize_t)sizeof count;
    else if (!ready && client->event_set)
        client->event_set = read(client->event_fd, &count, sizeof count) < 0;
    const uint64_t next = terse_client_next_event_ns(client);
    if (next == client->timer_set_ns)
        return;
    client->timer_set_ns = next;
    struct itimerspec when = {.it_value = {0, 0}}; /* 0 stops it */
    if (next != UINT64_MAX)
        when.it_value = (struct timespec){(time_t)(next / 1000000000u), (long)(next % 1000000000u) | 1};
    timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void terse_loop_close(terse_client *client)
{
    terse_close_fdp(&client->epoll_fd);
    terse_close_fdp(&client->timer_fd);
    terse_close_fdp(&client->event_fd);
}
