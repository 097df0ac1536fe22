/* SPDX-License-Identifier: Apache-2.0 */
/* What each role of the daemon can still do behind its filter, and what not: every call is tried in a process of its
 * own, once by the thread that installed the filter and once by one that ran before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/protocol.h"
#include "daemon/sandbox.h"

enum { L = 1 << TERSE_ROLE_LOADER, W = 1 << TERSE_ROLE_WORKER, F = 1 << TERSE_ROLE_FRONTEND, G = 1 << TERSE_ROLE_GATE };
enum { BEHAVED = 0, DENIED = 10, OTHER = 11 };

static int listener = -1, pair[2] = {-1, -1}, memory = -1, seqpacket[2] = {-1, -1};
static struct sockaddr_un address;
static char folder[] = "/tmp/terse-sandbox-XXXXXX";

/* --- what may be tried: 0 when it worked, -1 with errno ---------------------------------------------------------- */

static long open_file(void)
{
    return syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static long make_file(void)
{
    return syscall(SYS_openat, AT_FDCWD, "/tmp/terse-escaped", O_WRONLY | O_CREAT, 0600);
}

static long remove_file(void)
{
    return syscall(SYS_unlinkat, AT_FDCWD, "/tmp/terse-none", 0);
}

static long rename_file(void)
{
    return syscall(SYS_renameat2, AT_FDCWD, "/tmp/terse-none", AT_FDCWD, "/tmp/terse-none2", 0);
}

static long stat_path(void)
{
    char buffer[512];
    return syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", buffer, 0);
}

static long local_socket(void)
{
    return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
}

static long tcp_socket(void)
{
    return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}

static long tcp6_socket(void)
{
    return syscall(SYS_socket, AF_INET6, SOCK_STREAM, 0);
}

static long netlink_socket(void)
{
    return syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0);
}

static long bind_socket(void)
{
    return syscall(SYS_bind, pair[0], &address, sizeof address);
}

static long run_program(void)
{
    char *const none[] = {NULL};
    return syscall(SYS_execve, "/bin/true", none, none);
}

static long run_descriptor(void)
{
    char *const none[] = {NULL};
    return syscall(SYS_execveat, memory, "", none, none, AT_EMPTY_PATH);
}

static long new_process(void)
{
    const long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(0);
    return pid;
}

#ifdef SYS_fork
static long old_fork(void)
{
    const long pid = syscall(SYS_fork);
    if (pid == 0)
        _exit(0);
    return pid;
}
#endif

static void *nothing(void *unused)
{
    return unused;
}

static long new_thread(void)
{
    pthread_t thread;
    const int failed = pthread_create(&thread, NULL, nothing, NULL);
    errno = failed == EAGAIN ? EPERM : failed;
    return failed ? -1 : 0;
}

static long executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static long make_executable(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static long other_memory(void)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {&byte, 1};
    return syscall(SYS_process_vm_readv, getppid(), &here, 1, &there, 1, 0);
}

static long be_traced(void)
{
    return syscall(SYS_ptrace, 0 /* TRACEME */, 0, 0, 0);
}

static long signal_parent(void)
{
    return syscall(SYS_kill, getppid(), 0);
}

static long signal_other_thread(void)
{
    return syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static long change_user(void)
{
    return syscall(SYS_setuid, 1);
}

static long new_namespace(void)
{
    return syscall(SYS_unshare, CLONE_NEWUSER);
}

static long io_ring(void)
{
    char parameters[256] = {0};
    return syscall(SYS_io_uring_setup, 4, parameters);
}

static long be_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long raise_limit(void)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    return setrlimit(RLIMIT_NPROC, &all);
}

static long map_memory(void)
{
    return mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 0) == MAP_FAILED ? -1 : 0;
}

static long allocate(void)
{
    void *bytes = malloc(64 << 20);
    if (!bytes)
        return -1;
    memset(bytes, 1, 64 << 20);
    free(bytes);
    return 0;
}

/* A message with a descriptor, which is then mapped: how models and arenas come to a worker that runs. */
static long take_descriptor(void)
{
    static _Alignas(8) uint8_t buffer[TERSE_MSG_BYTES];
    const terse_msg message = {TERSE_MSG_MODEL, sizeof message};
    int fds[4], n_fds = 0;
    if (!terse_msg_send(seqpacket[0], &message, sizeof message, &memory, 1) ||
        terse_msg_receive(seqpacket[1], buffer, fds, &n_fds) != sizeof message || n_fds != 1)
        return -1;
    void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fds[0], 0);
    return page == MAP_FAILED || munmap(page, 4096) != 0 || close(fds[0]) != 0 ? -1 : 0;
}

static long send_descriptor(void)
{
    const terse_msg message = {TERSE_MSG_MODEL, sizeof message};
    return terse_msg_send(seqpacket[0], &message, sizeof message, &memory, 1) ? 0 : -1;
}

/* The parent of all these has a connection waiting. */
static long take_connection(void)
{
    const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct ucred peer;
    socklen_t size = sizeof peer;
    return fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || close(fd) != 0 ? -1 : 0;
}

static long connect_local(void)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : connect(fd, (const struct sockaddr *)&address, sizeof address);
}

static long make_eventfd(void)
{
    return eventfd(0, EFD_CLOEXEC);
}

static long make_sealed_memory(void)
{
    const int fd = memfd_create("terse-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 || ftruncate(fd, 4096) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0 ? -1 : 0;
}

static long make_memory(void)
{
    return memfd_create("terse-test", MFD_CLOEXEC);
}

/* What, who may, and whether trying it ends those who may not. */
static const struct {
    const char *name;
    long (*act)(void);
    unsigned may;
    bool deadly;
} acts[] = {
    {"open a file", open_file, 0, false},
    {"make a file", make_file, 0, false},
    {"remove a file", remove_file, 0, false},
    {"rename a file", rename_file, 0, false},
    {"look at a path", stat_path, 0, false},
    {"make a Unix socket", local_socket, G, false},
    {"make a TCP socket", tcp_socket, 0, false},
    {"make a TCP socket over IPv6", tcp6_socket, 0, false},
    {"make a netlink socket", netlink_socket, 0, false},
    {"bind a socket", bind_socket, 0, false},
    {"run a program", run_program, 0, true},
    {"run a program from memory", run_descriptor, 0, true},
    {"make a process", new_process, 0, true},
#ifdef SYS_fork
    {"fork", old_fork, 0, true},
#endif
    {"start a thread", new_thread, 0, false},
    {"map executable memory", executable_memory, 0, false},
    {"make memory executable", make_executable, 0, false},
    {"read another process's memory", other_memory, 0, true},
    {"trace", be_traced, 0, true},
    {"signal another process", signal_parent, 0, false},
    {"signal another process's thread", signal_other_thread, 0, false},
    {"become another user", change_user, 0, true},
    {"make a namespace", new_namespace, 0, true},
    {"make an io_uring", io_ring, 0, true},
    {"become dumpable again", be_dumpable, 0, false},
    {"raise a limit", raise_limit, 0, false},
    {"map memory", map_memory, L | W | F | G, false},
    {"allocate 64 MiB", allocate, L | W | F | G, false},
    {"receive a descriptor and map it", take_descriptor, W | F | G, false},
    {"send a descriptor", send_descriptor, L | W | F | G, false},
    {"accept a connection and ask who it is", take_connection, F | G, false},
    {"connect to a Unix socket", connect_local, G, false},
    {"make an eventfd", make_eventfd, F | G, false},
    {"make a memory", make_memory, F, false},
    {"make a sealed memory of a size", make_sealed_memory, F, false},
};
enum { N_ACTS = sizeof acts / sizeof acts[0] };

/* --- trying ------------------------------------------------------------------------------------------------------ */

static sem_t runs, go, gone;
static size_t chosen;
static int outcome;

static int judge(size_t act)
{
    errno = 0;
    if (acts[act].act() >= 0)
        return BEHAVED;
    return errno == EPERM ? DENIED : OTHER;
}

static void *earlier_thread(void *unused)
{
    sem_post(&runs);
    sem_wait(&go);
    outcome = judge(chosen);
    sem_post(&gone);
    return unused;
}

/* In a child: the verdict is its exit status. */
static void try_it(terse_role role, size_t act, bool by_earlier_thread)
{
    pthread_t thread;
    chosen = act;
    terse_sandbox_drop();
    if (by_earlier_thread && pthread_create(&thread, NULL, earlier_thread, NULL) != 0)
        _exit(99);
    while (by_earlier_thread && sem_wait(&runs) != 0)
        ;
    if (!terse_sandbox_filter(role))
        _exit(98);
    if (!by_earlier_thread)
        _exit(judge(act));
    sem_post(&go);
    while (sem_wait(&gone) != 0)
        ;
    _exit(outcome);
}

static void wait_for_connection(void)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    close(fd); /* it stays in the backlog */
}

static void check(terse_role role, size_t act, bool by_earlier_thread)
{
    if (acts[act].act == take_connection)
        wait_for_connection();
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        try_it(role, act, by_earlier_thread);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    const bool may = acts[act].may & 1u << role;
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    bool good;
    if (may)
        good = WIFEXITED(status) && WEXITSTATUS(status) == BEHAVED;
    else if (role == TERSE_ROLE_LOADER || acts[act].deadly)
        good = killed;
    else
        good = WIFEXITED(status) && WEXITSTATUS(status) == DENIED;
    if (!good)
        fail_msg("role %d, %s%s: status 0x%x", (int)role, acts[act].name, by_earlier_thread ? ", earlier thread" : "",
                 (unsigned)status);
}

static void try_all(terse_role role)
{
    if (terse_sandbox_absent())
        skip();
    for (size_t act = 0; act < N_ACTS; act++) {
        check(role, act, false);
        if (role != TERSE_ROLE_LOADER) /* which has one thread */
            check(role, act, true);
    }
}

static void a_loader_only_computes(void **state)
{
    (void)state;
    try_all(TERSE_ROLE_LOADER);
}

static void a_worker_only_takes_memory_and_computes(void **state)
{
    (void)state;
    try_all(TERSE_ROLE_WORKER);
}

static void a_front_end_only_talks_to_who_comes(void **state)
{
    (void)state;
    try_all(TERSE_ROLE_FRONTEND);
}

static void a_gate_only_connects_within_the_host(void **state)
{
    (void)state;
    try_all(TERSE_ROLE_GATE);
}

/* Without any filter each of them works or fails for another reason: else the tests above could not fail. */
static void most_of_it_works_outside(void **state)
{
    (void)state;
    if (terse_sandbox_absent())
        skip();
    for (size_t act = 0; act < N_ACTS; act++) {
        if (acts[act].act == take_connection)
            wait_for_connection();
        const pid_t pid = fork();
        if (pid == 0)
            _exit(judge(act));
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status)); /* nothing kills */
        if (acts[act].may)
            assert_int_equal(WEXITSTATUS(status), BEHAVED);
    }
}

/* Nobody but root may take them out of the bounding set; there, no_new_privs makes them worth nothing to anybody else.
 */
static bool has_no_capability(bool was_root)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, now) != 0)
        return false;
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        if (now[i].effective || now[i].permitted || now[i].inheritable)
            return false;
    return !was_root || prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) <= 0;
}

static void privileges_are_gone_for_good(void **state)
{
    (void)state;
    if (terse_sandbox_absent())
        skip();
    const pid_t pid = fork();
    if (pid == 0) {
        terse_sandbox_drop();
        struct rlimit core;
        getrlimit(RLIMIT_CORE, &core);
        const bool good = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 &&
                          core.rlim_max == 0 && has_no_capability(geteuid() == 0) && syscall(SYS_chroot, "/") != 0;
        _exit(good ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int open_all(void **state)
{
    (void)state;
    sem_init(&runs, 0, 0);
    sem_init(&go, 0, 0);
    sem_init(&gone, 0, 0);
    if (!mkdtemp(folder))
        return -1;
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memory = memfd_create("terse-test", MFD_CLOEXEC);
    return bind(listener, (const struct sockaddr *)&address, sizeof address) || listen(listener, 1000) ||
           ftruncate(memory, 4096) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
           socketpair(AF_UNIX, SOCK_SEQPACKET, 0, seqpacket);
}

static int close_all(void **state)
{
    (void)state;
    unlink(address.sun_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loader_only_computes),
        cmocka_unit_test(a_worker_only_takes_memory_and_computes),
        cmocka_unit_test(a_front_end_only_talks_to_who_comes),
        cmocka_unit_test(a_gate_only_connects_within_the_host),
        cmocka_unit_test(most_of_it_works_outside),
        cmocka_unit_test(privileges_are_gone_for_good),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
