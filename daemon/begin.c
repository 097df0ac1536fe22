/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/begin.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "daemon/log.h"
#include "daemon/protocol.h"
#include "daemon/sandbox.h"

bool terse_begin(const char *name)
{
    terse_log_init(name);
    terse_sandbox_drop();
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(TERSE_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
        terse_log(TERSE_LOG_ERROR, "descriptor %d is no control socket: tersed starts this program", TERSE_CONTROL_FD);
        return false;
    }
    fcntl(TERSE_CONTROL_FD, F_SETFD, FD_CLOEXEC);
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return true;
}
