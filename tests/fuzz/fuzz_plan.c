/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_plan.c: any bytes as plan.json: refused with one line, or read so that what is written of it is the same plan.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/bytes.h"
#include "compress/search/plan.h"
#include "tests/fuzz/replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int fd = memfd_create("plan", MFD_CLOEXEC);
    char path[64], back[64], a[TERSE_PLAN_TEXT], b[TERSE_PLAN_TEXT];
    terse_search_plan plan = {0}, again = {0};
    terse_error error = {0};
    if (fd < 0 || !terse_write_full(fd, data, size))
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (terse_search_plan_read(path, &plan, &error) != TERSE_OK) {
        assert(error.message[0] && !strchr(error.message, '\n'));
        close(fd);
        return 0;
    }
    snprintf(back, sizeof back, "/tmp/terse_fuzz_plan_%d.json", (int)getpid());
    if (terse_search_plan_write(&plan, back, &error) == TERSE_OK) {
        const int status = terse_search_plan_read(back, &again, &error);
        assert(status == TERSE_OK);
        terse_search_plan_key(&plan, a);
        terse_search_plan_key(&again, b);
        assert(strcmp(a, b) == 0 && plan.n_tuned == again.n_tuned && plan.n_measured == again.n_measured);
        unlink(back);
    }
    terse_search_plan_done(&plan);
    terse_search_plan_done(&again);
    close(fd);
    return 0;
}
