/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/open.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "common/bytes.h"

bool terse_cli_is_onnx(const char *path)
{
    const size_t length = strlen(path);
    return length > 5 && strcmp(path + length - 5, ".onnx") == 0;
}

/* Runs terse-compress on an .onnx file; the result is in a memfd. */
static int import_onnx(const char *command, const char *path, terse_cli_import import, int *ret_fd, bool *ret_told,
                       terse_error *error)
{
    char helper[PATH_MAX], output[64];
    if (!terse_cli_helper("terse-compress", helper, sizeof helper))
        return terse_fail(error, TERSE_NOT_FOUND, "terse-compress is neither beside terse nor in ../lib/terse");
    TERSE_AUTO(terse_close_fdp) int fd = memfd_create("terse-model", 0);
    if (fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot make a memfd");
    snprintf(output, sizeof output, "/proc/self/fd/%d", fd);
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot fork");
    if (child == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO); /* our standard output is for the result alone */
        execl(helper, command, import == TERSE_CLI_AS_IT_IS ? "--plain" : "--quiet", "--quiet", "-o", output, "--",
              path, (char *)NULL);
        _exit(127);
    }
    int wait_status;
    if (waitpid(child, &wait_status, 0) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot wait for terse-compress");
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0) {
        *ret_told = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) <= TERSE_CLI_USAGE;
        return terse_fail(error, TERSE_INTERNAL, "'%s' could not be imported", path);
    }
    *ret_fd = fd;
    fd = -1;
    return TERSE_OK;
}

uint64_t terse_cli_file_size(const char *path)
{
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file && fseek(file, 0, SEEK_END) == 0)
        size = ftell(file);
    if (file)
        fclose(file);
    return size > 0 ? (uint64_t)size : 0;
}

int terse_cli_open(const char *command, const char *path, terse_cli_import import, unsigned checks,
                   terse_model **ret_model, bool *ret_told, terse_error *error)
{
    TERSE_AUTO(terse_close_fdp) int fd = -1;
    char place[64];
    *ret_told = false;
    if (!terse_cli_is_onnx(path))
        return terse_model_open(path, checks, ret_model, error);
    const int status = import_onnx(command, path, import, &fd, ret_told, error);
    if (status != TERSE_OK)
        return status;
    snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    return terse_model_open(place, checks, ret_model, error);
}
