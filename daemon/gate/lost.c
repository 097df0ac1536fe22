/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes
 *   A connection to the front end that fails while it is made, or breaks alone, is nothing that ZeroMQ tells: what was
 * sent into it waits for ever. Each remote has one, so there are as many as remotes; and where there are fewer, those
 * of a second ago who wait for an answer for as long are dropped: they connect and send again. Nobody who is served
 * loses more than a moment by it, and while all are there nothing is looked at but a number. */
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/gate/gate.h"

#define LONG_NS UINT64_C(1000000000)

static bool waits_long(const terse_gate *gate, const terse_gate_remote *remote)
{
    return remote->used && remote->n_asked > 0 && gate->now_ns - remote->asked_ns > LONG_NS;
}

/* Connected Unix streams are those to the front end, and nothing else. Descriptors are given out from below: what was
 * opened last lies no higher than as many as may be open. */
static uint32_t count_connections(const terse_gate *gate)
{
    uint32_t n = 0;
    const int end = (int)(gate->max_remotes * TERSE_GATE_FILES_OF_CLIENT) + 2 * TERSE_GATE_FILES_BESIDE;
    for (int fd = TERSE_CONTROL_FD + 1; fd < end; fd++) {
        struct sockaddr_un peer;
        socklen_t size = sizeof peer, type_size = sizeof(int);
        int type = 0;
        n += getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && peer.sun_family == AF_UNIX &&
             getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_STREAM;
    }
    return n;
}

void terse_gate_remotes_drop_lost(terse_gate *gate)
{
    uint32_t n_waiting = 0, n_old = 0;
    for (uint32_t i = 0; i < gate->max_remotes; i++) {
        const terse_gate_remote *remote = &gate->remotes[i];
        n_waiting += waits_long(gate, remote);
        n_old += remote->used && gate->now_ns - remote->made_ns > LONG_NS;
    }
    if (n_waiting == 0 || count_connections(gate) >= n_old)
        return;
    terse_log(TERSE_LOG_WARNING, "a connection to the front end is lost: %u clients that wait are to ask again",
              n_waiting);
    for (uint32_t i = 0; i < gate->max_remotes; i++)
        if (waits_long(gate, &gate->remotes[i]))
            terse_gate_remote_drop(gate, &gate->remotes[i]);
}
