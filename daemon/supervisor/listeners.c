/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/log.h"

enum { BACKLOG = 1024 };

/* Creates the directory of a socket, not its parents: everyone may pass through root's, nobody through a user's. */
static int make_directory(const char *path, terse_error *error)
{
    char directory[TERSE_ENDPOINT_BYTES];
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return TERSE_OK;
    memcpy(directory, path, (size_t)(slash - path));
    directory[slash - path] = 0;
    const mode_t old = umask(0);
    const int r = mkdir(directory, geteuid() == 0 ? 0755 : 0700);
    umask(old);
    if (r < 0 && errno != EEXIST)
        return terse_fail(error, TERSE_SYSTEM, "cannot create the directory '%s'", directory);
    return TERSE_OK;
}

/* A socket file stays behind when a daemon is killed; only a refused connection proves that. */
static int remove_stale(const char *path, int type, const terse_endpoint *endpoint, terse_error *error)
{
    struct stat info;
    if (lstat(path, &info) < 0)
        return errno == ENOENT ? TERSE_OK : terse_fail(error, TERSE_SYSTEM, "cannot look at '%s'", path);
    if (!S_ISSOCK(info.st_mode))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' exists and is not a socket; it stays as it is", path);
    TERSE_AUTO(terse_close_fdp) int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot create a socket");
    if (connect(fd, (const struct sockaddr *)&endpoint->address, endpoint->address_bytes) == 0 || errno == EAGAIN)
        return terse_fail(error, TERSE_UNAVAILABLE, "another tersed is listening at '%s'", path);
    if (errno != ECONNREFUSED && errno != ENOENT && errno != EPROTOTYPE)
        return terse_fail(error, TERSE_SYSTEM, "cannot tell whether anyone listens at 'ipc://%s'", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return terse_fail(error, TERSE_SYSTEM, "cannot remove the stale socket '%s'", path);
    return TERSE_OK;
}

static int bind_local(terse_listener *listener, int type, const terse_endpoint *endpoint, const terse_config *config,
                      terse_error *error)
{
    const char *path = ((const struct sockaddr_un *)&endpoint->address)->sun_path;
    int r = make_directory(path, error);
    if (r == TERSE_OK)
        r = remove_stale(path, type, endpoint, error);
    if (r != TERSE_OK)
        return r;
    /* The file has its permissions from its first moment. One thread: nobody else sees this umask. */
    const mode_t old = umask(0777 & ~(mode_t)config->value[TERSE_SET_LISTEN_MODE]);
    const int bound = bind(listener->fd, (const struct sockaddr *)&endpoint->address, endpoint->address_bytes);
    umask(old);
    if (bound < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot listen at '%s'", listener->endpoint);
    struct stat info;
    listener->pin = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (listener->pin >= 0 && fstat(listener->pin, &info) == 0) {
        listener->device = info.st_dev;
        listener->inode = info.st_ino;
        memcpy(listener->path, path, strlen(path) + 1);
    }
    /* Nobody can connect before listen(). */
    if (config->listen_gid != (gid_t)-1 && chown(path, (uid_t)-1, config->listen_gid) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot give '%s' to the group '%s' (listen_group)", path,
                          config->listen_group);
    return TERSE_OK;
}

static int bind_tcp(terse_listener *listener, const terse_endpoint *endpoint, terse_error *error)
{
    const int on = 1;
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (endpoint->address.ss_family == AF_INET6)
        setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(listener->fd, (const struct sockaddr *)&endpoint->address, endpoint->address_bytes) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot listen at '%s'", listener->endpoint);
    struct sockaddr_storage bound;
    socklen_t bytes = sizeof bound;
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &bytes) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot tell the port of '%s'", listener->endpoint);
    return terse_endpoint_of((const struct sockaddr *)&bound, bytes, listener->endpoint, error);
}

static int open_one(terse_listeners *listeners, const char *text, const terse_config *config, terse_error *error)
{
    terse_endpoint endpoint;
    int r = terse_endpoint_parse(text, &endpoint, error);
    if (r != TERSE_OK)
        return r;
    terse_listener *listener = &listeners->at[listeners->n];
    *listener = (terse_listener){.pin = -1, .fd = socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (listener->fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot create a socket for '%s'", text);
    listeners->n++;
    snprintf(listener->endpoint, sizeof listener->endpoint, "%s", text);
    listener->tcp = !endpoint.local;
    r = endpoint.local ? bind_local(listener, SOCK_STREAM, &endpoint, config, error)
                       : bind_tcp(listener, &endpoint, error);
    if (r == TERSE_OK && listen(listener->fd, BACKLOG) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot listen at '%s'", text);
    return r;
}

static void close_one(terse_listener *listener)
{
    struct stat info;
    if (listener->path[0] && lstat(listener->path, &info) == 0 && info.st_dev == listener->device &&
        info.st_ino == listener->inode && unlink(listener->path) < 0)
        terse_log(TERSE_LOG_WARNING, "cannot remove '%s': %s", listener->path, strerror(errno));
    if (listener->pin >= 0)
        close(listener->pin);
    close(listener->fd);
}

/* The path of an activated socket for shared memory; false when it is none: SOCK_SEQPACKET at the path of a file. */
static bool attach_path(int fd, char *ret_path)
{
    struct sockaddr_un address = {0};
    socklen_t bytes = sizeof address;
    if (sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) <= 0 || getsockname(fd, (struct sockaddr *)&address, &bytes) < 0 ||
        !address.sun_path[0])
        return false;
    return snprintf(ret_path, TERSE_ENDPOINT_BYTES, "attach:%.*s", (int)sizeof address.sun_path, address.sun_path) <
           TERSE_ENDPOINT_BYTES;
}

static int take_stream(terse_listener *listener, const terse_config *config, terse_error *error)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof address;
    terse_endpoint endpoint;
    if (sd_is_socket(listener->fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 ||
        getsockname(listener->fd, (struct sockaddr *)&address, &bytes) < 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "descriptor %d of the service manager is not a listening stream socket", listener->fd);
    int r = terse_endpoint_of((const struct sockaddr *)&address, bytes, listener->endpoint, error);
    if (r == TERSE_OK)
        r = terse_endpoint_parse(listener->endpoint, &endpoint, error);
    if (r == TERSE_OK)
        r = terse_config_allow(config, listener->endpoint, &endpoint, error);
    if (r != TERSE_OK)
        return terse_error_prefix(error, "descriptor %d of the service manager", listener->fd);
    listener->tcp = !endpoint.local;
    return TERSE_OK;
}

/* Those for shared memory come behind the others, as when they are made here. */
static int take_activated(terse_listeners *listeners, terse_store *store, bool shared, const terse_config *config,
                          terse_error *error)
{
    for (unsigned i = 0; i < store->n_sockets; i++) {
        terse_listener *listener = &listeners->at[listeners->n];
        char path[TERSE_ENDPOINT_BYTES];
        if (store->sockets[i] < 0 || attach_path(store->sockets[i], path) != shared)
            continue;
        if (listeners->n == (shared ? 3 : 1) * TERSE_MAX_LISTEN)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "the service manager passes more sockets than are allowed: %d", TERSE_MAX_LISTEN);
        *listener = (terse_listener){.pin = -1, .fd = store->sockets[i]};
        if (shared) {
            memcpy(listener->endpoint, path, sizeof path);
        } else {
            const int r = take_stream(listener, config, error);
            if (r != TERSE_OK)
                return r;
        }
        store->sockets[i] = -1;
        listeners->n++;
    }
    return TERSE_OK;
}

static bool covered(const terse_listeners *listeners, unsigned n_activated, const char *text)
{
    terse_endpoint wanted, have;
    if (terse_endpoint_parse(text, &wanted, NULL) != TERSE_OK)
        return false;
    for (unsigned i = 0; i < n_activated; i++)
        if (terse_endpoint_parse(listeners->at[i].endpoint, &have, NULL) == TERSE_OK &&
            terse_endpoint_same(&wanted, &have))
            return true;
    return false;
}

static int open_all(terse_listeners *listeners, terse_store *store, const terse_config *config, terse_error *error)
{
    int r = store ? take_activated(listeners, store, false, config, error) : TERSE_OK;
    const unsigned n_activated = listeners->n;
    for (unsigned i = 0; i < config->n_listen && r == TERSE_OK; i++) {
        if (covered(listeners, n_activated, config->listen[i]))
            continue;
        if (listeners->n == TERSE_MAX_LISTEN)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "more than %d endpoints with those of the service manager",
                              TERSE_MAX_LISTEN);
        r = open_one(listeners, config->listen[i], config, error);
    }
    if (r == TERSE_OK && listeners->n == 0) {
        char text[TERSE_ENDPOINT_BYTES];
        r = terse_endpoint_default(text, error);
        if (r == TERSE_OK)
            r = open_one(listeners, text, config, error);
    }
    return r;
}

/* --- shared memory ------------------------------------------------------------------------------------------- */

/* Opened already: by the service manager. */
static bool has_attach(const terse_listeners *listeners, const char *path)
{
    for (unsigned i = 0; i < listeners->n; i++)
        if (strncmp(listeners->at[i].endpoint, "attach:", 7) == 0 && strcmp(listeners->at[i].endpoint + 7, path) == 0)
            return true;
    return false;
}

static int open_attach(terse_listeners *listeners, const char *path, const terse_config *config, terse_error *error)
{
    char text[TERSE_ENDPOINT_BYTES + 16];
    terse_endpoint endpoint;
    if (has_attach(listeners, path) || listeners->n == sizeof listeners->at / sizeof listeners->at[0])
        return TERSE_OK;
    snprintf(text, sizeof text, "ipc://%s", path);
    int r = terse_endpoint_parse(text, &endpoint, error);
    if (r != TERSE_OK)
        return r;
    terse_listener *listener = &listeners->at[listeners->n];
    *listener = (terse_listener){.pin = -1, .fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (listener->fd < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot create a socket for '%s'", path);
    snprintf(listener->endpoint, sizeof listener->endpoint, "attach:%s", path);
    r = bind_local(listener, SOCK_SEQPACKET, &endpoint, config, error);
    if (r == TERSE_OK && listen(listener->fd, BACKLOG) < 0)
        r = terse_fail(error, TERSE_SYSTEM, "cannot listen at '%s'", path);
    if (r == TERSE_OK)
        listeners->n++;
    else
        close_one(listener);
    return r;
}

/* `n`: the listeners for requests, which come first. */
static void open_attach_sockets(terse_listeners *listeners, unsigned n, const terse_config *config)
{
    char path[TERSE_ENDPOINT_BYTES + 16];
    terse_error error;
    bool first = true;
    for (unsigned i = 0; i < n; i++) {
        if (strncmp(listeners->at[i].endpoint, "ipc://", 6) != 0)
            continue;
        const char *beside = listeners->at[i].endpoint + 6;
        snprintf(path, sizeof path, "%s.attach", beside);
        if (open_attach(listeners, path, config, &error) != TERSE_OK)
            terse_log(TERSE_LOG_WARNING, "no shared memory at 'ipc://%s': %s", beside, error.message);
        const char *slash = strrchr(beside, '/');
        snprintf(path, sizeof path, "%.*sattach.sock", slash ? (int)(slash + 1 - beside) : 0, beside);
        if (first && open_attach(listeners, path, config, &error) != TERSE_OK)
            terse_log(TERSE_LOG_INFO, "shared memory is at '%s.attach' only: %s", beside, error.message);
        first = false;
    }
}

int terse_listeners_open(terse_listeners *listeners, terse_store *store, const terse_config *config, terse_error *error)
{
    listeners->n = 0;
    int r = open_all(listeners, store, config, error);
    const unsigned n = listeners->n;
    if (r == TERSE_OK && store)
        r = take_activated(listeners, store, true, config, error);
    if (r == TERSE_OK && config->value[TERSE_SET_ARENAS] > 0)
        open_attach_sockets(listeners, n, config);
    if (r != TERSE_OK)
        terse_listeners_close(listeners);
    return r;
}

void terse_listeners_close(terse_listeners *listeners)
{
    for (unsigned i = 0; i < listeners->n; i++)
        close_one(&listeners->at[i]);
    listeners->n = 0;
}
