/* SPDX-License-Identifier: Apache-2.0 */
/* terse compress, terse distill: hand over to terse-compress, which alone links OpenBLAS, LAPACK and protobuf-c. */
#include "client/cli/cli.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* argv[0] tells terse-compress what is asked for. */
static int hand_over(const char *name, char **argv)
{
    char path[PATH_MAX];
    terse_error error;
    if (!terse_cli_helper("terse-compress", path, sizeof path)) {
        terse_fail(&error, TERSE_NOT_FOUND, "terse-compress is neither beside terse nor in ../lib/terse");
        return terse_cli_fail(name, &error);
    }
    execv(path, argv);
    terse_fail(&error, TERSE_SYSTEM, "cannot start '%s'", path);
    return terse_cli_fail(name, &error);
}

int terse_cli_compress(int argc, char **argv)
{
    (void)argc;
    return hand_over("compress", argv);
}

int terse_cli_distill(int argc, char **argv)
{
    (void)argc;
    return hand_over("distill", argv);
}
