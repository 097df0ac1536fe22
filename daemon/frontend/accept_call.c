/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's accept4 for this program and all libraries in it: accept.h says why. */
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/frontend/accept.h"

__attribute__((visibility("default"))) int accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
    return terse_accept_judge(fd, (int)syscall(SYS_accept4, fd, address, bytes, flags));
}
