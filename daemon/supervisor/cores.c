/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/cores.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, MAX_CPUS = 1 << 16 };

/* The path of our group: in the unified hierarchy (controller NULL), or in that of one controller of version 1. */
static bool find_group(const char *root, const char *controller, char *ret_path)
{
    char line[PATH_BYTES];
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        controllers++;
        if (!controller) {
            found = *controllers == 0;
        } else {
            char *save = NULL;
            for (char *one = strtok_r(controllers, ",", &save); one && !found; one = strtok_r(NULL, ",", &save))
                found = strcmp(one, controller) == 0;
        }
        if (found)
            snprintf(ret_path, PATH_BYTES, "%s", path);
    }
    if (file)
        fclose(file);
    return found;
}

/* The first line of a group's file; false when it has none (the root of the hierarchy, a controller that is off). */
static bool read_group_file(const char *root, const char *mount, const char *group, const char *name, char *text,
                            int text_bytes)
{
    char path[3 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, mount, group, name);
    FILE *file = fopen(path, "re");
    const bool read = file && fgets(text, text_bytes, file);
    if (file)
        fclose(file);
    return read;
}

/* Calls `look` for the group and each of its parents: every one of them may hold a limit. In a container the path may
 * be the host's; what is mounted is then our group, and the walk ends there as well. */
static void walk(const char *root, const char *mount, const char *controller,
                 void (*look)(const char *root, const char *mount, const char *group, void *limit), void *limit)
{
    char group[PATH_BYTES];
    if (!find_group(root, controller, group))
        return;
    for (;;) {
        look(root, mount, group, limit);
        char *slash = strrchr(group, '/');
        if (!slash || !*group)
            return;
        *slash = 0;
    }
}

/* A quota of one and a half CPUs gives one worker: two would be stopped for a quarter of each period. */
static void lower_cores(uint64_t quota, uint64_t period, uint64_t *limit)
{
    if (period == 0)
        return;
    const uint64_t cores = quota / period;
    if (cores < *limit)
        *limit = cores ? cores : 1;
}

static void look_cpu_max(const char *root, const char *mount, const char *group, void *limit)
{
    char text[128];
    uint64_t quota, period;
    if (read_group_file(root, mount, group, "cpu.max", text, sizeof text) &&
        sscanf(text, "%" SCNu64 " %" SCNu64, &quota, &period) == 2)
        lower_cores(quota, period, limit);
}

static void look_cfs_quota(const char *root, const char *mount, const char *group, void *limit)
{
    char text[128];
    int64_t quota, period;
    if (!read_group_file(root, mount, group, "cpu.cfs_quota_us", text, sizeof text) ||
        sscanf(text, "%" SCNd64, &quota) != 1 || quota <= 0)
        return;
    if (read_group_file(root, mount, group, "cpu.cfs_period_us", text, sizeof text) &&
        sscanf(text, "%" SCNd64, &period) == 1 && period > 0)
        lower_cores((uint64_t)quota, (uint64_t)period, limit);
}

static void lower_memory(const char *root, const char *mount, const char *group, const char *name, uint64_t *limit)
{
    char text[128];
    uint64_t bytes;
    if (read_group_file(root, mount, group, name, text, sizeof text) && sscanf(text, "%" SCNu64, &bytes) == 1 &&
        bytes < *limit)
        *limit = bytes;
}

static void look_memory_max(const char *root, const char *mount, const char *group, void *limit)
{
    lower_memory(root, mount, group, "memory.max", limit);
}

static void look_memory_limit(const char *root, const char *mount, const char *group, void *limit)
{
    lower_memory(root, mount, group, "memory.limit_in_bytes", limit);
}

static unsigned count_affinity(void)
{
    for (size_t cpus = 1024; cpus <= MAX_CPUS; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        const size_t bytes = CPU_ALLOC_SIZE(cpus);
        if (!set)
            return 1;
        const int r = sched_getaffinity(0, bytes, set);
        const int n = r == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (r == 0)
            return n > 0 ? (unsigned)n : 1;
        if (errno != EINVAL) /* EINVAL: the machine has more CPUs than the set holds */
            return 1;
    }
    return 1;
}

unsigned terse_cores_usable(const char *root)
{
    uint64_t cores = count_affinity();
    walk(root, "", NULL, look_cpu_max, &cores);
    walk(root, "/cpu", "cpu", look_cfs_quota, &cores);
    return (unsigned)cores;
}

unsigned terse_cores_workers(const char *root, unsigned threads)
{
    const unsigned workers = terse_cores_usable(root) / (threads ? threads : 1);
    return workers ? workers : 1;
}

/* The number in the line of a file that begins with `key`. */
static bool read_line_of(const char *path, const char *key, uint64_t *ret_value)
{
    char line[256];
    const size_t length = strlen(key);
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file))
        found = strncmp(line, key, length) == 0 && sscanf(line + length, "%" SCNu64, ret_value) == 1;
    if (file)
        fclose(file);
    return found;
}

/* What a control group may still take: its limit less what it has, but for pages of files that are easily dropped. */
static void look_memory_left(const char *root, const char *mount, const char *group, void *left)
{
    char path[3 * PATH_BYTES];
    uint64_t limit = UINT64_MAX, current = UINT64_MAX, files = 0, *least = left;
    lower_memory(root, mount, group, "memory.max", &limit);
    lower_memory(root, mount, group, "memory.current", &current);
    if (limit == UINT64_MAX || current == UINT64_MAX)
        return;
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/memory.stat", root, mount, group);
    (void)read_line_of(path, "inactive_file ", &files);
    const uint64_t used = current > files ? current - files : 0, free_bytes = limit > used ? limit - used : 0;
    if (free_bytes < *least)
        *least = free_bytes;
}

uint64_t terse_cores_available(const char *root)
{
    char path[PATH_BYTES];
    uint64_t bytes = terse_cores_memory(root), kilobytes;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (read_line_of(path, "MemAvailable:", &kilobytes) && kilobytes < bytes / 1024)
        bytes = kilobytes * 1024;
    walk(root, "", NULL, look_memory_left, &bytes);
    return bytes;
}

uint64_t terse_cores_memory(const char *root)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_C(1) << 30;
    walk(root, "", NULL, look_memory_max, &bytes);
    walk(root, "/memory", "memory", look_memory_limit, &bytes);
    return bytes;
}
