/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <linux/close_range.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/protocol.h"

/* The kernel's choice when memory is short: children come back, the supervisor must not go first. */
static const char oom_score[] = "200";

static void prepare_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void prepare_limits(void)
{
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, oom_score, sizeof oom_score - 1); /* a wish: refused in some containers */
        close(fd);
    }
}

/* In the child; returns with errno when something failed. */
static void become(const char *path, char *const *argv, int control, pid_t parent)
{
    prepare_signals();
    setpgid(0, 0); /* out of reach of a terminal; the session stays one: the kernel may schedule sessions as groups */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return;
    if (getppid() != parent) /* it died before that took effect */
        _exit(127);
    prepare_limits();
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        return;
    if (control == TERSE_CONTROL_FD ? fcntl(control, F_SETFD, 0) < 0 : dup2(control, TERSE_CONTROL_FD) < 0)
        return;
    close_range(TERSE_CONTROL_FD + 1, ~0U, CLOSE_RANGE_CLOEXEC); /* all are CLOEXEC already: a second lock */
    unsetenv("NOTIFY_SOCKET"); /* the service manager listens to the supervisor only */
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    execv(path, argv);
}

/* A pipe whose writing end does not stand where the control socket goes. */
static int open_report(int *ret_read, int *ret_write)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    const int moved = fcntl(ends[1], F_DUPFD_CLOEXEC, TERSE_CONTROL_FD + 1);
    const int saved = errno;
    close(ends[1]);
    if (moved < 0) {
        close(ends[0]);
        errno = saved;
        return -1;
    }
    *ret_read = ends[0];
    *ret_write = moved;
    return 0;
}

int terse_spawn(const char *path, char *const *argv, int control, pid_t *ret_pid, int *ret_pidfd, terse_error *error)
{
    int read_end = -1, write_end = -1;
    if (open_report(&read_end, &write_end) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot start '%s'", path);
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid == 0) {
        become(path, argv, control, parent);
        const int failed = errno;
        (void)!write(write_end, &failed, sizeof failed);
        _exit(127);
    }
    int failed = errno;
    close(write_end);
    /* The end of the pipe is exec's success; the child does nothing long before it. */
    const bool reported = pid > 0 && terse_read_full(read_end, &failed, sizeof failed) == sizeof failed;
    close(read_end);
    if (pid > 0 && !reported) {
        const int pidfd = pidfd_open(pid, 0);
        if (pidfd >= 0) {
            *ret_pid = pid;
            *ret_pidfd = pidfd;
            return TERSE_OK;
        }
        failed = errno;
        kill(pid, SIGKILL); /* not reaped yet, so the number is still its own */
    }
    if (pid > 0)
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    errno = failed;
    return terse_fail(error, TERSE_SYSTEM, "cannot start '%s'", path);
}
