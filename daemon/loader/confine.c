/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/loader/loader.h"

#include <sys/resource.h>

#include "daemon/sandbox.h"

enum { PROCESSOR_SECONDS = 600 };

static void limit(int resource, rlim_t value)
{
    const struct rlimit both = {value, value};
    setrlimit((__rlimit_resource_t)resource, &both);
}

void terse_loader_confine(uint64_t bytes)
{
    limit(RLIMIT_CPU, PROCESSOR_SECONDS);
    /* No limit of descriptors: the kernel would hold it against all that this user has under way in sockets, and refuse
     * to hand the model over (ETOOMANYREFS). The filter lets none be opened. */
    terse_sandbox_drop(); /* not before the file is open: root may read what others own */
    if (terse_sandbox_absent())
        return;
    /* The copy's mapping, and a header of at most 32 MiB unpacked. */
    limit(RLIMIT_AS, (rlim_t)bytes + ((rlim_t)2 << 30));
    terse_sandbox_filter(TERSE_ROLE_LOADER);
}
