/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/loader/loader.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <seccomp.h>

#include "daemon/log.h"

enum { PROCESSOR_SECONDS = 600 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void limit(int resource, rlim_t value)
{
    const struct rlimit both = {value, value};
    setrlimit((__rlimit_resource_t)resource, &both);
}

#ifndef SANITIZED
static void filter_calls(void)
{
    /* Memory, the descriptors that are open, the clock, the end. No open, no socket, no exec, no signals to others. */
    static const int allowed[] = {
        SCMP_SYS(read),          SCMP_SYS(write),     SCMP_SYS(sendmsg),      SCMP_SYS(close),  SCMP_SYS(fcntl),
        SCMP_SYS(fstat),         SCMP_SYS(lseek),     SCMP_SYS(newfstatat),   SCMP_SYS(munmap), SCMP_SYS(mremap),
        SCMP_SYS(madvise),       SCMP_SYS(brk),       SCMP_SYS(futex),        SCMP_SYS(exit),   SCMP_SYS(exit_group),
        SCMP_SYS(clock_gettime), SCMP_SYS(getrandom), SCMP_SYS(rt_sigreturn),
    };
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int failed = filter ? 0 : -1;
    for (size_t i = 0; !failed && i < sizeof allowed / sizeof allowed[0]; i++)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
    /* Memory, but none that can be executed. */
    const struct scmp_arg_cmp not_executable = SCMP_A2_64(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, not_executable);
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, not_executable);
    if (!failed)
        failed = seccomp_load(filter);
    if (filter)
        seccomp_release(filter);
    if (failed) /* a kernel without seccomp, or an emulator: the other limits hold */
        terse_log(TERSE_LOG_WARNING, "no system call filter here: %s", strerror(failed < 0 ? -failed : failed));
}
#endif

void terse_loader_confine(uint64_t bytes)
{
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, PROCESSOR_SECONDS);
    limit(RLIMIT_NOFILE, 16);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#ifndef SANITIZED
    /* The copy's mapping, and a header of at most 32 MiB unpacked. */
    limit(RLIMIT_AS, (rlim_t)bytes + ((rlim_t)2 << 30));
    filter_calls();
#else
    (void)bytes;
#endif
}
