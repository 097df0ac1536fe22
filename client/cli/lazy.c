/* SPDX-License-Identifier: Apache-2.0 */
/* libzmq and libzip bring twenty other libraries along (Kerberos, OpenSSL, C++): loading them takes several times as
 * long as all else that `terse run` does before it computes, and it needs neither, but for .npz files. So this program
 * is not linked with them: what client/ and common/ call is found here, and here goes to look for it at the first call.
 */
#include "client/cli/cli.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <zip.h>
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
#define ZIP(...) FORWARD(TERSE_ZIP_SONAME, __VA_ARGS__)

ZMQ(void *, zmq_ctx_new, (void), ())
ZMQ(int, zmq_ctx_term, (void *context), (context))
ZMQ(int, zmq_errno, (void), ())
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

ZIP(zip_t *, zip_open, (const char *path, int flags, int *ret_error), (path, flags, ret_error))
ZIP(zip_t *, zip_open_from_source, (zip_source_t * source, int flags, zip_error_t *error), (source, flags, error))
ZIP(int, zip_close, (zip_t * archive), (archive))
ZIP(void, zip_discard, (zip_t * archive), (archive))
ZIP(const char *, zip_strerror, (zip_t * archive), (archive))
ZIP(void, zip_error_init, (zip_error_t * error), (error))
ZIP(void, zip_error_init_with_code, (zip_error_t * error, int code), (error, code))
ZIP(const char *, zip_error_strerror, (zip_error_t * error), (error))
ZIP(void, zip_error_fini, (zip_error_t * error), (error))
ZIP(zip_int64_t, zip_get_num_entries, (zip_t * archive, zip_flags_t flags), (archive, flags))
ZIP(const char *, zip_get_name, (zip_t * archive, zip_uint64_t index, zip_flags_t flags), (archive, index, flags))
ZIP(zip_file_t *, zip_fopen_index, (zip_t * archive, zip_uint64_t index, zip_flags_t flags), (archive, index, flags))
ZIP(zip_int64_t, zip_fread, (zip_file_t * file, void *buffer, zip_uint64_t size), (file, buffer, size))
ZIP(const char *, zip_file_strerror, (zip_file_t * file), (file))
ZIP(int, zip_fclose, (zip_file_t * file), (file))
ZIP(zip_int64_t, zip_file_add, (zip_t * archive, const char *name, zip_source_t *source, zip_flags_t flags),
    (archive, name, source, flags))
ZIP(int, zip_set_file_compression, (zip_t * archive, zip_uint64_t index, zip_int32_t method, zip_uint32_t level),
    (archive, index, method, level))
ZIP(int, zip_file_set_dostime,
    (zip_t * archive, zip_uint64_t index, zip_uint16_t time, zip_uint16_t date, zip_flags_t flags),
    (archive, index, time, date, flags))
ZIP(zip_source_t *, zip_source_buffer, (zip_t * archive, const void *data, zip_uint64_t size, int owned),
    (archive, data, size, owned))
ZIP(zip_source_t *, zip_source_buffer_create, (const void *data, zip_uint64_t size, int owned, zip_error_t *error),
    (data, size, owned, error))
ZIP(void, zip_source_keep, (zip_source_t * source), (source))
ZIP(void, zip_source_free, (zip_source_t * source), (source))
ZIP(int, zip_source_open, (zip_source_t * source), (source))
ZIP(zip_int64_t, zip_source_read, (zip_source_t * source, void *buffer, zip_uint64_t size), (source, buffer, size))
ZIP(int, zip_source_stat, (zip_source_t * source, zip_stat_t *stat), (source, stat))
