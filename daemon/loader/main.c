/* SPDX-License-Identifier: Apache-2.0 */
/* terse-loader: started by tersed for one model file; the control socket is descriptor 3. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/behind.h"
#include "daemon/loader/loader.h"
#include "daemon/log.h"
#include "daemon/pages.h"
#include "daemon/protocol.h"

int main(void)
{
    terse_log_init("terse-loader");
    TERSE_AUTO(terse_freep) uint8_t *buffer = malloc(TERSE_MSG_BYTES);
    int fds[4], n_fds = 0;
    if (!buffer)
        return 1;
    const int64_t size = terse_msg_receive(TERSE_CONTROL_FD, buffer, fds, &n_fds);
    if (size == sizeof(terse_msg) && ((const terse_msg *)buffer)->kind == TERSE_MSG_FREE) {
        terse_behind_all();
        return 0; /* the end of this process gives the memory back */
    }
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
    const terse_msg_load *load = (const terse_msg_load *)buffer;
    if (size != (int64_t)sizeof *load || load->head.kind != TERSE_MSG_LOAD) {
        if (size < 0 && errno != ENOTSOCK && errno != EBADF)
            terse_log(TERSE_LOG_ERROR, "cannot hear tersed: %s", strerror(errno));
        else
            terse_log(TERSE_LOG_ERROR, "terse-loader is started by tersed, not by hand");
        return 1;
    }
    char path[sizeof load->path];
    snprintf(path, sizeof path, "%.*s", (int)sizeof path - 1, load->path);

    terse_msg_loaded answer = {.head = {TERSE_MSG_LOADED, sizeof answer}};
    terse_loaded loaded = {.fd = -1};
    terse_error error = {0};
    if (load->behind)
        terse_behind_all();
    /* To make one takes 0.3 ms in one piece: with others to serve that is more than a turn. */
    const uint64_t large = load->behind ? 0 : terse_pages_at_hand();
    answer.status = terse_loader_load(path, load->max_bytes, large, terse_loader_confine, &loaded, &error);
    answer.bytes = loaded.bytes;
    answer.batchable = loaded.batchable;
    snprintf(answer.error, sizeof answer.error, "%s", error.message);
    if (terse_msg_send(TERSE_CONTROL_FD, &answer, sizeof answer, &loaded.fd, answer.status == TERSE_OK))
        return 0;
    terse_log(TERSE_LOG_ERROR, "cannot hand '%s' to tersed: %s", path, strerror(errno));
    return 1;
}
