/* SPDX-License-Identifier: Apache-2.0 */
/* Commands for daemons, of which -e may name several: what they do is done with each of them in turn. */
#include "client/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 }; /* as of one client */

static int parts(const char *list)
{
    int n = 1;
    for (const char *c = list; *c; c++)
        n += *c == ',';
    return n;
}

/* Part i of a list; NULL when there is no memory. */
static char *part(const char *list, int i)
{
    while (i-- > 0)
        list += strcspn(list, ",") + 1;
    return strndup(list, strcspn(list, ","));
}

/* Before anything is done with the first. */
static int check(const char *command, const char *list, int n)
{
    terse_error error = {0};
    if (n > MOST)
        terse_fail(&error, TERSE_INVALID_ARGUMENT, "endpoint '%.300s' names %d daemons, at most %d are allowed", list,
                   n, MOST);
    else if (*list == ',' || strstr(list, ",,") || list[strlen(list) - 1] == ',')
        terse_fail(&error, TERSE_INVALID_ARGUMENT,
                   "endpoint '' cannot be used: the list '%.300s' has a comma too many (ipc://PATH and tcp://HOST:PORT "
                   "can)",
                   list);
    else
        return TERSE_CLI_DONE;
    return terse_cli_fail(command, &error);
}

int terse_cli_each_daemon(const char *command, const char *endpoints, terse_cli_daemon *each, void *context)
{
    const char *from = getenv("TERSE_ENDPOINT");
    const char *list = endpoints ? endpoints : from && *from ? from : NULL;
    const int n = list ? parts(list) : 1;
    if (n == 1)
        return each(command, list, false, context);
    if (check(command, list, n))
        return TERSE_CLI_FAILED;
    /* Keys in a list as long as that of endpoints are one for each. */
    const char *keys = getenv("TERSE_CURVE_SERVER");
    char *all_keys = keys && parts(keys) == n ? strdup(keys) : NULL;
    int code = TERSE_CLI_DONE;
    for (int i = 0; i < n; i++) {
        char *endpoint = part(list, i), *key = all_keys ? part(all_keys, i) : NULL, *name = NULL;
        if (key)
            setenv("TERSE_CURVE_SERVER", key, 1);
        const bool memory = endpoint && asprintf(&name, "%s: %s", command, endpoint) >= 0;
        if (!memory || each(name, endpoint, true, context) != TERSE_CLI_DONE)
            code = TERSE_CLI_FAILED;
        free(memory ? name : NULL);
        free(endpoint);
        free(key);
    }
    if (all_keys)
        setenv("TERSE_CURVE_SERVER", all_keys, 1);
    free(all_keys);
    return code;
}
