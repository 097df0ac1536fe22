/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/capability.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif

enum {
    L = 1 << TERSE_ROLE_LOADER,
    W = 1 << TERSE_ROLE_WORKER,
    F = 1 << TERSE_ROLE_FRONTEND,
    G = 1 << TERSE_ROLE_GATE,
    R = 1 << TERSE_ROLE_REMOTE,
    H = 1 << TERSE_ROLE_GATEWAY | R,
    SERVERS = F | G | H,
    RUNNING = W | SERVERS,
    ALL = L | RUNNING,
    MAX_WORKER_FILES = 4096,
};

/* The most frequent first: kernels before 5.11 go through the list from its head. */
static const struct {
    int call;
    unsigned roles;
} allowed[] = {
    {SCMP_SYS(recvmsg), RUNNING},
    {SCMP_SYS(sendmsg), ALL},
    {SCMP_SYS(futex), ALL},
    {SCMP_SYS(epoll_pwait2), SERVERS},
    {SCMP_SYS(epoll_wait), SERVERS},
    {SCMP_SYS(epoll_pwait), SERVERS},
    {SCMP_SYS(recvfrom), SERVERS},
    {SCMP_SYS(sendto), SERVERS},
    {SCMP_SYS(read), ALL},
    {SCMP_SYS(write), ALL},
    {SCMP_SYS(poll), RUNNING},
    {SCMP_SYS(ppoll), RUNNING},
    {SCMP_SYS(madvise), ALL},
    {SCMP_SYS(munmap), ALL},
    {SCMP_SYS(mremap), ALL},
    {SCMP_SYS(brk), ALL},
    {SCMP_SYS(close), ALL},
    {SCMP_SYS(fcntl), ALL},
    {SCMP_SYS(lseek), ALL},
    {SCMP_SYS(fstat), ALL},
    {SCMP_SYS(epoll_ctl), SERVERS},
    {SCMP_SYS(timerfd_settime), SERVERS},
    {SCMP_SYS(accept4), SERVERS},
    {SCMP_SYS(accept), SERVERS},
    {SCMP_SYS(getsockopt), SERVERS},
    {SCMP_SYS(setsockopt), SERVERS},
    {SCMP_SYS(getsockname), SERVERS},
    {SCMP_SYS(getpeername), SERVERS},
    {SCMP_SYS(shutdown), SERVERS},
    {SCMP_SYS(eventfd2), SERVERS},
    {SCMP_SYS(connect), G | H},
    {SCMP_SYS(epoll_create1), H}, /* a gateway opens its clients when their daemon comes */
    {SCMP_SYS(sched_getaffinity), H},
    {SCMP_SYS(timerfd_create), H},
    {SCMP_SYS(pwrite64), H}, /* memory shared with a front end that is another one now */
    {SCMP_SYS(timerfd_settime), H},
    {SCMP_SYS(bind), R}, /* what looking up a host takes */
    {SCMP_SYS(sendmmsg), R},
    {SCMP_SYS(ioctl), R},
    {SCMP_SYS(memfd_create), F},
    {SCMP_SYS(pipe2), F},
    {SCMP_SYS(pread64), F},
    {SCMP_SYS(ftruncate), F},
    {SCMP_SYS(fallocate), F},
    {SCMP_SYS(clock_gettime), ALL},
    {SCMP_SYS(clock_nanosleep), ALL}, /* a loader's rests */
    {SCMP_SYS(nanosleep), RUNNING},
    {SCMP_SYS(sched_yield), RUNNING},
    {SCMP_SYS(sched_getparam), SERVERS},
    {SCMP_SYS(sched_getscheduler), SERVERS},
    {SCMP_SYS(getpid), RUNNING},
    {SCMP_SYS(gettid), RUNNING},
    {SCMP_SYS(geteuid), SERVERS},
    {SCMP_SYS(getrandom), ALL},
    {SCMP_SYS(rt_sigaction), RUNNING},
    {SCMP_SYS(rt_sigprocmask), RUNNING},
    {SCMP_SYS(rt_sigreturn), ALL},
    {SCMP_SYS(set_robust_list), RUNNING}, /* a thread's first calls: it may have been started just now */
    {SCMP_SYS(rseq), RUNNING},
    {SCMP_SYS(restart_syscall), ALL},
    {SCMP_SYS(exit), ALL},
    {SCMP_SYS(exit_group), ALL},
};

/* No library makes these by accident. */
static const int deadly[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(bpf),
    SCMP_SYS(mount),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(setuid),
    SCMP_SYS(setgid),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(open_by_handle_at),
};

bool terse_sandbox_absent(void)
{
    return SANITIZED || getenv("TERSE_NO_SECCOMP") != NULL;
}

/* Those in the bounding set would come back only by a new program, which nobody here can start. */
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
        prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none) != 0 && errno != EPERM) /* EPERM: a filter around us; it has taken them */
        terse_log(TERSE_LOG_WARNING, "cannot drop capabilities: %s", strerror(errno));
}

void terse_sandbox_drop(void)
{
    if (terse_sandbox_absent())
        return;
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    drop_capabilities();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* A wish: the service manager's filter may refuse to set limits, and what is lower already stays. */
static void limit(int resource, rlim_t value)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)resource, &now) != 0 || now.rlim_max < value)
        return;
    const struct rlimit both = {value, value};
    setrlimit((__rlimit_resource_t)resource, &both);
}

static int allow_remote(scmp_filter_ctx filter)
{
    static const int families[] = {AF_INET, AF_INET6, AF_NETLINK};
    const struct scmp_arg_cmp reading = SCMP_A2_64(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY);
    int failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, reading);
    for (size_t i = 0; !failed && i < sizeof families / sizeof families[0]; i++)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                  SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
    return failed;
}

static int allow_calls(scmp_filter_ctx filter, unsigned role)
{
    int failed = 0;
    for (size_t i = 0; !failed && i < sizeof allowed / sizeof allowed[0]; i++)
        if (allowed[i].roles & role)
            failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i].call, 0);
    /* Memory, but none that can be executed; fstat as newer C libraries ask for it; signals to ourselves (abort). */
    const struct scmp_arg_cmp not_executable = SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    const struct scmp_arg_cmp of_descriptor = SCMP_A3_64(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH);
    const struct scmp_arg_cmp to_ourselves = SCMP_A0_64(SCMP_CMP_EQ, (scmp_datum_t)getpid());
    const struct scmp_arg_cmp local = SCMP_A0_64(SCMP_CMP_EQ, AF_UNIX);
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, not_executable);
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, not_executable);
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1, of_descriptor);
    if (!failed && (role & RUNNING))
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, to_ourselves);
    /* ZeroMQ's threads begin with their plain priority and a name, and abort when they cannot; one may not have come to
     * that yet. */
    const struct scmp_arg_cmp plain = SCMP_A1_64(SCMP_CMP_EQ, SCHED_OTHER), name = SCMP_A0_64(SCMP_CMP_EQ, PR_SET_NAME);
    if (!failed && (role & SERVERS))
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sched_setscheduler), 1, plain);
    if (!failed && (role & SERVERS))
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, name);
    if (!failed && (role & (G | H)))
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, local);
    const struct scmp_arg_cmp thread = SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD);
    if (!failed && (role & H))
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, thread);
    return !failed && (role & R) ? allow_remote(filter) : failed;
}

static int forbid_calls(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp process = SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
    int failed = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(clone), 1, process);
    /* Its flags cannot be seen: the C library takes clone() instead. */
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    for (size_t i = 0; !failed && i < sizeof deadly / sizeof deadly[0]; i++) {
        const int r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
        failed = r == -EDOM || r == -EINVAL ? 0 : r; /* a call that this machine does not have */
    }
    return failed;
}

static int load_filter(terse_role role)
{
    const bool loader = role == TERSE_ROLE_LOADER;
    scmp_filter_ctx filter = seccomp_init(loader ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return -ENOMEM;
    /* Every thread: those of ZeroMQ and those that share batches run already. */
    int failed = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!failed)
        failed = allow_calls(filter, 1u << role);
    if (!failed && !loader)
        failed = forbid_calls(filter);
    if (!failed)
        failed = seccomp_load(filter);
    seccomp_release(filter);
    return failed;
}

bool terse_sandbox_filter(terse_role role)
{
    if (terse_sandbox_absent())
        return false;
    /* The log's first line reads the time zone's file, which is not to be had later. */
    tzset();
    if (role != TERSE_ROLE_LOADER && role != TERSE_ROLE_GATEWAY && role != TERSE_ROLE_REMOTE)
        limit(RLIMIT_NPROC, 0); /* no threads either: a gateway has them when its daemon comes */
    if (role == TERSE_ROLE_WORKER)
        limit(RLIMIT_NOFILE, MAX_WORKER_FILES);
    const int failed = load_filter(role);
    if (failed)
        terse_log(TERSE_LOG_WARNING, "no system call filter here: %s", strerror(failed < 0 ? -failed : failed));
    return !failed;
}
