/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/look.h"

int terse_cli_look(terse_client *client, int timeout_ms, terse_view **ret_view, terse_error *error)
{
    terse_stats *stats = NULL;
    const terse_status asked = terse_client_stats(client, timeout_ms, &stats);
    if (asked)
        return terse_fail(error, asked, "%s", terse_last_error());
    size_t bytes = 0;
    const void *msgpack = terse_stats_msgpack(stats, &bytes);
    const int status = terse_view_read(msgpack, bytes, ret_view, error);
    terse_stats_free(stats);
    return status;
}
