/* SPDX-License-Identifier: Apache-2.0 */
/* libzmq and libzip bring two dozen other libraries along (Kerberos, C++, OpenSSL): loading them takes several times as
 * long as all else that `terse run` does before it computes, and it needs them for .npz files alone. So this program is
 * linked with neither: what client/ and common/npz call is found here, and here goes to look for it at the first call.
 * libzmq comes under its own name, for libterse, which is in here, and the front end are linked with it. libzip comes
 * with terse-npz.so, a helper like terse-compress: common/npz_archive.c with the libraries it is linked with, so that
 * ldd and package tools find them as they find any program's. libzstd, for packed models, is smaller than those, but a
 * tenth of what a start takes. */
#include "client/cli/cli.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include <zmq.h>
#include <zstd.h>

#include "common/npz_archive.h"

/* The Makefile asks for the name that the library gives itself where this is built. */
static void *find(const char *library, const char *function)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL); /* the same one each time */
    void *found = handle ? dlsym(handle, function) : NULL;
    if (!found) {
        fprintf(stderr, "terse: %s: %s\n", library, dlerror());
        exit(TERSE_CLI_FAILED);
    }
    return found;
}

#define FORWARD(library, result, name, parameters, arguments)                                                          \
    result name parameters                                                                                             \
    {                                                                                                                  \
        static result(*function) parameters;                                                                           \
        if (!function)                                                                                                 \
            *(void **)&function = find(library, #name);                                                                \
        return function arguments;                                                                                     \
    }
#define ZMQ(...) FORWARD(TERSE_ZMQ_SONAME, __VA_ARGS__)

#define ZSTD(...) FORWARD(TERSE_ZSTD_SONAME, __VA_ARGS__)

ZSTD(size_t, ZSTD_decompress, (void *to, size_t capacity, const void *from, size_t size), (to, capacity, from, size))
ZSTD(unsigned, ZSTD_isError, (size_t code), (code))
ZSTD(const char *, ZSTD_getErrorName, (size_t code), (code))

ZMQ(void *, zmq_ctx_new, (void), ())
ZMQ(int, zmq_ctx_term, (void *context), (context))
ZMQ(int, zmq_errno, (void), ())
ZMQ(int, zmq_curve_keypair, (char *public_key, char *secret_key), (public_key, secret_key))
ZMQ(const char *, zmq_strerror, (int number), (number))
ZMQ(void *, zmq_socket, (void *context, int type), (context, type))
ZMQ(int, zmq_close, (void *socket), (socket))
ZMQ(int, zmq_connect, (void *socket, const char *address), (socket, address))
ZMQ(int, zmq_socket_monitor, (void *socket, const char *address, int events), (socket, address, events))
ZMQ(int, zmq_setsockopt, (void *socket, int option, const void *value, size_t size), (socket, option, value, size))
ZMQ(int, zmq_getsockopt, (void *socket, int option, void *value, size_t *size), (socket, option, value, size))
ZMQ(int, zmq_poll, (zmq_pollitem_t * items, int n, long timeout), (items, n, timeout))
ZMQ(int, zmq_msg_init, (zmq_msg_t * message), (message))
ZMQ(int, zmq_msg_init_size, (zmq_msg_t * message, size_t size), (message, size))
ZMQ(int, zmq_msg_close, (zmq_msg_t * message), (message))
ZMQ(int, zmq_msg_copy, (zmq_msg_t * to, zmq_msg_t *from), (to, from))
ZMQ(int, zmq_msg_move, (zmq_msg_t * to, zmq_msg_t *from), (to, from))
ZMQ(int, zmq_msg_send, (zmq_msg_t * message, void *socket, int flags), (message, socket, flags))
ZMQ(int, zmq_msg_recv, (zmq_msg_t * message, void *socket, int flags), (message, socket, flags))
ZMQ(int, zmq_msg_more, (const zmq_msg_t *message), (message))
ZMQ(void *, zmq_msg_data, (zmq_msg_t * message), (message))
ZMQ(size_t, zmq_msg_size, (const zmq_msg_t *message), (message))

static int find_in_npz(const char *function, void **ret_found, terse_error *error)
{
    char path[PATH_MAX];
    if (!terse_cli_helper("terse-npz.so", path, sizeof path))
        return terse_fail(error, TERSE_NOT_FOUND,
                          ".npz archives need terse-npz.so, which is neither beside terse nor in ../lib/terse");
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* the same one each time */
    void *found = handle ? dlsym(handle, function) : NULL;
    if (!found)
        return terse_fail(error, TERSE_NOT_FOUND, "cannot load '%s': %s", path, dlerror());
    *ret_found = found;
    return TERSE_OK;
}

int terse_npz_unpack(const char *path, terse_npz_take *take, void *user, terse_error *error)
{
    int (*unpack)(const char *, terse_npz_take *, void *, terse_error *);
    const int status = find_in_npz("terse_npz_unpack", (void **)&unpack, error);
    return status ? status : unpack(path, take, user, error);
}

int terse_npz_pack(int n, const char *const *names, const uint8_t *const *bytes, const size_t *sizes,
                   uint8_t **ret_bytes, size_t *ret_size, terse_error *error)
{
    int (*pack)(int, const char *const *, const uint8_t *const *, const size_t *, uint8_t **, size_t *, terse_error *);
    const int status = find_in_npz("terse_npz_pack", (void **)&pack, error);
    return status ? status : pack(n, names, bytes, sizes, ret_bytes, ret_size, error);
}
