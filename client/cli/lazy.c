/* SPDX-License-Identifier: Apache-2.0 */
/* libzmq brings a dozen other libraries along (Kerberos, C++): loading them takes several times as long as all else
 * that `terse run` does before it computes, and it needs none. So this program is not linked with it: what client/
 * calls is found here, and here goes to look for it at the first call. libzip stays linked: whoever collects a
 * program's libraries with ldd finds it nowhere else, while tersed's front end shows libzmq. */
#include "client/cli/cli.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <zmq.h>

/* The Makefile asks for the names that these libraries give themselves where this is built. */
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
