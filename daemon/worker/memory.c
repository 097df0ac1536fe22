/* SPDX-License-Identifier: Apache-2.0 */
/* What the process takes, for who asks. smaps_rollup knows it best and walks all page tables for that; afterwards
 * statm, which costs a microsecond or two, tells how much it has become. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/worker/worker.h"

#define TELL_NS UINT64_C(1000000000)

/* The sum of the Private_ lines of smaps_rollup; 0 where there is none. */
static uint64_t private_of_smaps(void)
{
    char text[4096];
    uint64_t kilobytes = 0;
    TERSE_AUTO(terse_close_fdp) int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    const int64_t size = fd >= 0 ? terse_read_full(fd, text, sizeof text - 1) : -1;
    if (size <= 0)
        return 0;
    text[size] = 0;
    for (const char *at = text; (at = strstr(at, "\nPrivate_")); at++) {
        const char *colon = strchr(at + 1, ':');
        if (colon)
            kilobytes += strtoull(colon + 1, NULL, 10);
    }
    return kilobytes * 1024;
}

/* Pages of its own and pages of files and shared memory, in bytes. false: it cannot be told. */
static bool read_statm(int fd, uint64_t *ret_private, uint64_t *ret_shared)
{
    char text[128];
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t size, resident, shared;
    const ssize_t n = fd > 0 && lseek(fd, 0, SEEK_SET) == 0 ? read(fd, text, sizeof text - 1) : -1;
    if (n <= 0)
        return false;
    text[n] = 0;
    if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, &size, &resident, &shared) != 3 || shared > resident)
        return false;
    *ret_private = (resident - shared) * page;
    *ret_shared = shared * page;
    return true;
}

void terse_worker_sizes_open(terse_worker *worker)
{
    terse_worker_sizes *sizes = &worker->sizes;
    if (sizes->fd != 0)
        return;
    sizes->fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    sizes->base_bytes = sizes->private_bytes = private_of_smaps();
    if (!read_statm(sizes->fd, &sizes->base_statm, &sizes->shared_bytes) && sizes->fd > 0) {
        close(sizes->fd);
        sizes->fd = -1;
    }
}

void terse_worker_sizes_tell(terse_worker *worker)
{
    terse_worker_sizes *sizes = &worker->sizes;
    uint64_t statm;
    const uint64_t now = sizes->fd > 0 ? terse_now_ns() : 0;
    if (sizes->fd <= 0 || now - sizes->told_ns < TELL_NS || !read_statm(sizes->fd, &statm, &sizes->shared_bytes))
        return;
    const uint64_t known = sizes->base_bytes + statm;
    sizes->told_ns = now;
    sizes->private_bytes = known > sizes->base_statm ? known - sizes->base_statm : 0;
    const terse_msg_memory message = {.head = {TERSE_MSG_MEMORY, sizeof message},
                                      .private_bytes = sizes->private_bytes,
                                      .shared_bytes = sizes->shared_bytes};
    /* No room, or nobody there: nothing but a number is missed. */
    (void)terse_msg_send(worker->data_fd, &message, sizeof message, NULL, 0);
}
