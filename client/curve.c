/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of a client: CURVE, ZeroMQ's encryption, over tcp. */
#include <stdlib.h>
#include <string.h>

#include "client/links.h"
#include "common/curve.h"

static const char *option_or(const char *option, const char *variable)
{
    const char *value = option && *option ? option : getenv(variable);
    return value && *value ? value : NULL;
}

/* The server's key is public: its text, or a file that has it. */
static int read_server_key(const char *text, terse_curve_keys *ret_keys, terse_error *error)
{
    uint8_t key[TERSE_CURVE_KEY];
    if (!terse_curve_decode(text, key))
        return terse_curve_read(text, false, ret_keys, error);
    memcpy(ret_keys->public_key, text, TERSE_CURVE_TEXT);
    return TERSE_OK;
}

static terse_status set_keys(const terse_link *link, const char *server, const char *own)
{
    terse_curve_keys theirs = {{0}, {0}}, ours = {{0}, {0}};
    terse_error *error = terse_client_error_slot();
    int status = read_server_key(server, &theirs, error);
    if (!status)
        status = terse_curve_read(own, false, &ours, error);
    if (!status && !ours.secret_key[0])
        status = terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "'%.300s' has no secret key; allowed: the .key_secret file that `terse keygen` makes", own);
    if (!status && (zmq_setsockopt(link->socket, ZMQ_CURVE_SERVERKEY, theirs.public_key, TERSE_CURVE_TEXT) < 0 ||
                    zmq_setsockopt(link->socket, ZMQ_CURVE_PUBLICKEY, ours.public_key, TERSE_CURVE_TEXT) < 0 ||
                    zmq_setsockopt(link->socket, ZMQ_CURVE_SECRETKEY, ours.secret_key, TERSE_CURVE_TEXT) < 0))
        status = terse_fail(error, TERSE_UNIMPLEMENTED, "this libzmq takes no keys: %s", zmq_strerror(zmq_errno()));
    explicit_bzero(&ours, sizeof ours);
    return (terse_status)status;
}

/* Of a list with as many entries as there are links the one of this link; else all of it, for every link. NULL: no
 * memory. */
static char *own_part(const terse_client *client, const terse_link *link, const char *list)
{
    int n = 1;
    for (const char *c = list; *c; c++)
        n += *c == ',';
    if (client->n_links == 1 || n != client->n_links)
        return strdup(list);
    for (ptrdiff_t i = link - client->links; i > 0; i--)
        list += strcspn(list, ",") + 1;
    return strndup(list, strcspn(list, ","));
}

terse_status terse_client_set_keys(const terse_client *client, terse_link *link, const terse_client_options *options)
{
    if (strncmp(link->endpoint, "tcp://", 6) != 0)
        return TERSE_OK;
    const char *server = option_or(options->curve_server, "TERSE_CURVE_SERVER");
    const char *own = option_or(options->curve_key, "TERSE_CURVE_KEY");
    if (!server && !own)
        return TERSE_OK;
    if (!server || !own)
        return CLIENT_FAIL(TERSE_INVALID_ARGUMENT, "%s is given without %s; allowed: both, or none",
                           server ? "curve_server" : "curve_key", server ? "curve_key" : "curve_server");
    char *part = own_part(client, link, server);
    const terse_status status =
        part ? set_keys(link, part, own) : CLIENT_FAIL(TERSE_RESOURCE_EXHAUSTED, "out of memory for a key");
    free(part);
    return status;
}
