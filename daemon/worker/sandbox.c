/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/worker/worker.h"

/* A worker that has warmed hears sockets, maps memory and computes. Everything else fails with EPERM: no file is
 * opened, no socket made, no program started, no page made executable. Failing is enough, dying would turn a forgotten
 * call of some C library into an outage. */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* their reports open files and start programs */
#else
enum { SANITIZED = 0 };
#endif

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef OUR_ARCH
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define VERDICT(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), VERDICT(SECCOMP_RET_ALLOW)
#define DENIED (SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA))

static struct sock_filter filter[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0),
    VERDICT(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
    ALLOW(SYS_recvmsg),
    ALLOW(SYS_sendmsg),
    ALLOW(SYS_ppoll),
#ifdef SYS_poll
    ALLOW(SYS_poll),
#endif
    ALLOW(SYS_read),
    ALLOW(SYS_write),
    ALLOW(SYS_close),
    ALLOW(SYS_fcntl),
    ALLOW(SYS_lseek),
    ALLOW(SYS_fstat),
    ALLOW(SYS_munmap),
    ALLOW(SYS_mremap),
    ALLOW(SYS_madvise),
    ALLOW(SYS_brk),
    ALLOW(SYS_futex),
    ALLOW(SYS_clock_gettime),
    ALLOW(SYS_getpid),
    ALLOW(SYS_gettid),
    ALLOW(SYS_tgkill), /* abort */
    ALLOW(SYS_sched_yield),
    ALLOW(SYS_getrandom),
    ALLOW(SYS_rt_sigaction),
    ALLOW(SYS_rt_sigprocmask),
    ALLOW(SYS_rt_sigreturn),
    ALLOW(SYS_restart_syscall),
    ALLOW(SYS_exit),
    ALLOW(SYS_exit_group),
    /* Memory, but never executable: the third argument of both has the protection. */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 1, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 0, 3),
    LOAD(args[2]), /* the low half on both little-endian machines */
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
    VERDICT(SECCOMP_RET_ALLOW),
    VERDICT(DENIED),
};

static bool install(void)
{
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    /* For all threads: those that share batches run already. */
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}
#else
static bool install(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}
#endif

void terse_worker_sandbox(void)
{
    static bool done;
    if (done || SANITIZED || getenv("TERSE_NO_SECCOMP"))
        return;
    done = true;
    /* The log's first line reads the time zone's file, which is not to be had later. */
    tzset();
    if (!install())
        terse_log(TERSE_LOG_NOTICE, "no system call filter here: %s", strerror(errno));
}
