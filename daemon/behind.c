/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/behind.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, text, strlen(text));
    close(fd);
}

/* Design notes
 *   Who is SCHED_IDLE still keeps others waiting: the scheduler owes them nothing when they have just had more than
 * their share of a processor beside each other, and lets it run for up to half a millisecond and more when they come
 * back (EEVDF, measured). And it cannot yield the way to memory: copying and hashing 200 MB pushes a worker's weights
 * out of the cache that both share. So it takes turns of TURN_US and rests RESTS times as long, whatever it does: the
 * alarm's handler sleeps. The timer starts again when its signal is taken, so there are no alarms during a rest.
 *   Turns are counted in processor time, and waiting for the processor is rest. It is the main thread's time, whose
 * handler it is: that of the whole process is known to the tick of 4 ms only where RLIMIT_CPU is set, as a loader's is.
 */
enum { TURN_US = 100, RESTS = 6, LONGEST_REST_US = 20000 };

static int64_t began_ns, used_before_ns; /* of this turn: the clock, and processor time until then */

static int64_t read_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return 0;
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void begin_turn(void)
{
    began_ns = read_ns(CLOCK_MONOTONIC);
    used_before_ns = read_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void rest(int number)
{
    const int saved = errno;
    const int64_t used = read_ns(CLOCK_THREAD_CPUTIME_ID) - used_before_ns;
    (void)number;
    if (used >= TURN_US * 1000 / 2) {
        const int64_t wanted = used * (1 + RESTS), most = (int64_t)LONGEST_REST_US * 1000;
        const int64_t until = began_ns + (wanted < most ? wanted : most);
        const struct timespec then = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
        begin_turn();
    }
    errno = saved;
}

static void take_turns(void)
{
    const struct sigaction action = {.sa_handler = rest, .sa_flags = SA_RESTART};
    const struct itimerval turn = {{0, TURN_US}, {0, TURN_US}};
    begin_turn();
    if (sigaction(SIGALRM, &action, NULL) == 0)
        setitimer(ITIMER_REAL, &turn, NULL);
}

void terse_behind_all(void)
{
    const struct sched_param none = {.sched_priority = 0};
    put("/proc/self/oom_score_adj", "1000");
    setpriority(PRIO_PROCESS, 0, 19);
    sched_setscheduler(0, SCHED_IDLE, &none);
    take_turns();
}
