/* SPDX-License-Identifier: Apache-2.0 */
/* sink: what hostile clients cost whoever has to share a machine with them, and nothing else: it shakes hands as a
 * ROUTER does, reads all that comes and throws it away.
 *
 *     sink PATH       prints "serving" once it listens on that Unix socket; ends when it is killed */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { EVENTS = 64, BYTES = 65536 };

static void die(const char *what)
{
    fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll");
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    memcpy(address.sun_path, path, strlen(path));
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, SOMAXCONN) != 0)
        die(path);
    return fd;
}

/* ZMTP 3.0: the greeting, and READY of a ROUTER. */
static void greet(int fd)
{
    static const unsigned char ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\6ROUTER";
    unsigned char greeting[64] = {0xff, [9] = 0x7f, [10] = 3, [12] = 'N', 'U', 'L', 'L'};
    (void)!send(fd, greeting, sizeof greeting, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)!send(fd, ready, sizeof ready - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int main(int argc, char **argv)
{
    static char bytes[BYTES];
    struct epoll_event events[EVENTS];
    if (argc != 2) {
        fputs("usage: sink PATH\n", stderr);
        return 2;
    }
    const int listener = listen_at(argv[1]), epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll");
    watch(epoll, listener);
    puts("serving");
    fflush(stdout);
    for (;;) {
        const int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            const int fd = events[i].data.fd;
            if (fd == listener) {
                const int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (peer < 0)
                    continue;
                greet(peer);
                watch(epoll, peer);
                continue;
            }
            const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
            if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
                close(fd);
        }
    }
}
