/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/ask.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/bytes.h"

enum { ANSWER_BYTES = 512 };

static socklen_t address_of(pid_t pid, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    const int length = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "terse-reload-%d", (int)pid);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

void terse_ask_answer(pid_t asked, const char *why)
{
    struct sockaddr_un address;
    const socklen_t bytes = address_of(asked, &address);
    TERSE_AUTO(terse_close_fdp) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (asked > 0 && fd >= 0)
        (void)!sendto(fd, why, strlen(why), MSG_NOSIGNAL, (const struct sockaddr *)&address, bytes);
}

static int complain(const char *what)
{
    fprintf(stderr, "tersed: --reload: %s\n", what);
    return 1;
}

/* Until the daemon answers, or is gone. */
static int await(int fd, int pidfd)
{
    struct pollfd polled[2] = {{.fd = fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    char answer[ANSWER_BYTES];
    for (;;) {
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            return complain(strerror(errno));
        const ssize_t got = recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
        if (got == 0)
            return 0;
        if (got > 0) {
            answer[got] = 0;
            return complain(answer);
        }
        if (polled[1].revents)
            return complain("the daemon ended");
    }
}

int terse_ask_reload(const char *text)
{
    struct sockaddr_un address;
    char *end;
    const long pid = strtol(text, &end, 10);
    if (*end || end == text || pid <= 0 || pid > INT32_MAX) {
        fprintf(stderr, "tersed: --reload: found '%s', allowed: the number of a process\n", text);
        return 2;
    }
    TERSE_AUTO(terse_close_fdp) int pidfd = pidfd_open((pid_t)pid, 0);
    TERSE_AUTO(terse_close_fdp) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const socklen_t bytes = address_of(getpid(), &address);
    if (pidfd < 0 || fd < 0 || bind(fd, (const struct sockaddr *)&address, bytes) < 0 ||
        pidfd_send_signal(pidfd, SIGHUP, NULL, 0) < 0)
        return complain(strerror(errno));
    return await(fd, pidfd);
}
