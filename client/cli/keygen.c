/* SPDX-License-Identifier: Apache-2.0 */
/* terse keygen: a pair of CURVE keys in two files, as CZMQ and pyzmq have them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <zmq.h>

#include "client/cli/cli.h"
#include "common/bytes.h"
#include "common/curve.h"

/* New files only: who overwrites a key locks out everybody who has the old one. */
static int write_file(const char *path, mode_t mode, const char *text, terse_error *error)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return errno == EEXIST ? terse_fail(error, TERSE_INVALID_ARGUMENT,
                                            "'%s' exists already; it stays as it is: choose another name", path)
                               : terse_fail(error, TERSE_SYSTEM, "cannot create '%s'", path);
    const size_t size = strlen(text);
    const bool written = write(fd, text, size) == (ssize_t)size && fsync(fd) == 0;
    const int status = written ? TERSE_OK : terse_fail(error, TERSE_SYSTEM, "cannot write '%s'", path);
    close(fd);
    if (status)
        unlink(path);
    return status;
}

static int make_keys(const char *name, terse_error *error)
{
    char path[4096], text[512];
    terse_curve_keys keys;
    if (zmq_curve_keypair(keys.public_key, keys.secret_key) < 0)
        return terse_fail(error, TERSE_UNIMPLEMENTED, "this libzmq makes no keys: %s", zmq_strerror(zmq_errno()));
    snprintf(text, sizeof text,
             "# secret: whoever has this file is its owner\nmetadata\ncurve\n    public-key = \"%s\"\n"
             "    secret-key = \"%s\"\n",
             keys.public_key, keys.secret_key);
    explicit_bzero(keys.secret_key, sizeof keys.secret_key);
    snprintf(path, sizeof path, "%s.key_secret", name);
    int status = write_file(path, 0600, text, error);
    explicit_bzero(text, sizeof text);
    if (status)
        return status;
    snprintf(text, sizeof text, "metadata\ncurve\n    public-key = \"%s\"\n", keys.public_key);
    snprintf(path, sizeof path, "%s.key", name);
    status = write_file(path, 0644, text, error);
    if (status) {
        snprintf(path, sizeof path, "%s.key_secret", name);
        unlink(path);
        return status;
    }
    printf("%s\n", keys.public_key);
    return TERSE_OK;
}

int terse_cli_keygen(int argc, char **argv)
{
    const terse_cli_usage usage = {
        "keygen", "NAME",
        "Makes a pair of keys for encrypted tcp: NAME.key_secret stays with its owner (mode 0600), NAME.key is for\n"
        "the other side: the daemon's for clients, a client's for the daemon's curve_clients. Prints the public key.\n"
        "Clients take theirs from $TERSE_CURVE_KEY (a .key_secret file) and the daemon's from $TERSE_CURVE_SERVER\n"
        "(a .key file or the key itself).",
        1, 1};
    const terse_cli_option options[] = {{NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL}};
    const char *name;
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, &name, &n);
    if (parsed >= 0)
        return parsed;
    terse_error error = {0};
    if (strlen(name) < 1 || strlen(name) > 4000) {
        terse_fail(&error, TERSE_INVALID_ARGUMENT, "the name has %zu bytes, allowed are 1 to 4000", strlen(name));
        return terse_cli_fail("keygen", &error);
    }
    return make_keys(name, &error) ? terse_cli_fail("keygen", &error) : TERSE_CLI_DONE;
}
