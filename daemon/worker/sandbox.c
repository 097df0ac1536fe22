/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker/worker.h"

#include <sys/prctl.h>

void terse_worker_sandbox(void)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
