/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/behind.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, text, strlen(text));
    close(fd);
}

void terse_behind_all(void)
{
    const struct sched_param none = {.sched_priority = 0};
    put("/proc/self/oom_score_adj", "1000");
    setpriority(PRIO_PROCESS, 0, 19);
    sched_setscheduler(0, SCHED_IDLE, &none);
}
