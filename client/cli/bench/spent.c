/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/bench/spent.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/look.h"
#include "common/bytes.h"

typedef struct process {
    char name[16];
    int parent;
    uint64_t ticks, started;
} process;

static bool read_text(const char *path, char *text, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const int64_t n = fd < 0 ? -1 : terse_read_full(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* proc(5): pid (name) state ppid ... utime stime are the 14th and 15th, starttime the 22nd; the name may have blanks.
 */
static bool read_process(int pid, process *ret)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!read_text(path, text, sizeof text))
        return false;
    const char *name = strchr(text, '('), *end = strrchr(text, ')');
    uint64_t user, kernel;
    if (!name || !end || end < name ||
        sscanf(end + 1,
               " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %*d %*d %*d %*d %*d %*d %" SCNu64,
               &ret->parent, &user, &kernel, &ret->started) != 4)
        return false;
    snprintf(ret->name, sizeof ret->name, "%.*s", (int)(end - name - 1), name + 1);
    ret->ticks = user + kernel;
    return true;
}

/* The supervisor of the daemon that answered: 0 when it is none of this host's. */
static int supervisor_of(const terse_view *view)
{
    for (unsigned i = 0; i < view->n_workers; i++) {
        const uint64_t pid = view->workers[i].pid;
        process worker, parent;
        if (pid > 0 && pid < INT32_MAX && read_process((int)pid, &worker) && strcmp(worker.name, "terse-worker") == 0 &&
            worker.parent > 1 && read_process(worker.parent, &parent) && strcmp(parent.name, "tersed") == 0)
            return worker.parent;
    }
    return 0;
}

static void add_process(terse_spent *spent, int pid, const process *p)
{
    if (spent->n == TERSE_SPENT_PROCESSES)
        return;
    spent->processes[spent->n].pid = pid;
    spent->processes[spent->n].started = p->started;
    spent->processes[spent->n++].ticks = p->ticks;
}

static void look_at_processes(int supervisor, terse_spent *spent)
{
    process p;
    DIR *folder = opendir("/proc");
    if (folder && read_process(supervisor, &p))
        add_process(spent, supervisor, &p);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        const int pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
        if (pid > 1 && read_process(pid, &p) && p.parent == supervisor)
            add_process(spent, pid, &p);
    }
    if (folder)
        closedir(folder);
}

static bool read_number(const char *zone, const char *file, uint64_t *ret)
{
    char path[512], text[64];
    snprintf(path, sizeof path, "/sys/class/powercap/%.200s/%s", zone, file);
    return read_text(path, text, sizeof text) && sscanf(text, "%" SCNu64, ret) == 1;
}

/* Packages are "intel-rapl:N"; what is "intel-rapl:N:M" is a part of one. AMD's have the same names. */
static void look_at_energy(terse_spent *spent)
{
    DIR *folder = opendir("/sys/class/powercap");
    for (struct dirent *entry; folder && (entry = readdir(folder)) && spent->n_zones < TERSE_SPENT_ZONES;) {
        const char *colon = strncmp(entry->d_name, "intel-rapl:", 11) == 0 ? entry->d_name + 11 : NULL;
        const unsigned i = spent->n_zones;
        if (!colon || strchr(colon, ':') || !read_number(entry->d_name, "energy_uj", &spent->uj[i]))
            continue;
        if (!read_number(entry->d_name, "max_energy_range_uj", &spent->most_uj[i]))
            spent->most_uj[i] = UINT64_MAX;
        spent->n_zones++;
    }
    if (folder)
        closedir(folder);
}

void terse_spent_look(terse_client *client, const char *endpoint, int timeout_ms, terse_spent *ret_spent)
{
    terse_view *view = NULL;
    terse_error error;
    *ret_spent = (terse_spent){0};
    if (!endpoint)
        endpoint = terse_default_endpoint();
    if (strncmp(endpoint, "ipc://", 6) != 0 || strchr(endpoint, ','))
        return;
    if (terse_cli_look(client, timeout_ms, &view, &error) == TERSE_OK) {
        const int supervisor = supervisor_of(view);
        if (supervisor)
            look_at_processes(supervisor, ret_spent);
        if (ret_spent->n)
            look_at_energy(ret_spent);
    }
    terse_view_free(view);
}

bool terse_spent_seconds(const terse_spent *before, const terse_spent *after, double *ret_seconds)
{
    const long per_second = sysconf(_SC_CLK_TCK);
    uint64_t ticks = 0;
    if (!before->n || !after->n || per_second <= 0)
        return false;
    for (unsigned i = 0; i < after->n; i++) { /* a process that has come since then began with nothing */
        uint64_t had = 0;
        for (unsigned k = 0; k < before->n; k++)
            if (before->processes[k].pid == after->processes[i].pid &&
                before->processes[k].started == after->processes[i].started)
                had = before->processes[k].ticks;
        ticks += after->processes[i].ticks > had ? after->processes[i].ticks - had : 0;
    }
    *ret_seconds = (double)ticks / (double)per_second;
    return true;
}

bool terse_spent_joules(const terse_spent *before, const terse_spent *after, double *ret_joules)
{
    uint64_t sum = 0;
    if (!before->n_zones || before->n_zones != after->n_zones)
        return false;
    for (unsigned i = 0; i < after->n_zones; i++)
        sum += after->uj[i] >= before->uj[i] ? after->uj[i] - before->uj[i]
                                             : after->most_uj[i] - before->uj[i] + after->uj[i];
    *ret_joules = (double)sum / 1e6;
    return true;
}
