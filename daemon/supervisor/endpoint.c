/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parse_ipc(const char *path, terse_endpoint *endpoint, terse_error *error)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&endpoint->address;
    const size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "endpoint 'ipc://%.200s': its path has %zu bytes, allowed: 1..%zu", path, length,
                          sizeof address->sun_path - 1);
    /* Whoever runs on this host could connect to an abstract address: it has no permissions. */
    if (*path == '@' || *path == '*')
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "endpoint 'ipc://%.200s': found '%c', allowed: the path of a file", path, *path);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length + 1);
    endpoint->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    endpoint->local = true;
    return TERSE_OK;
}

static bool parse_port(const char *text, in_port_t *ret_port)
{
    if (strcmp(text, "*") == 0) {
        *ret_port = 0;
        return true;
    }
    const size_t length = strlen(text);
    if (length == 0 || length > 5 || strspn(text, "0123456789") != length)
        return false;
    const long port = strtol(text, NULL, 10);
    *ret_port = htons((in_port_t)port);
    return port <= 65535;
}

static int parse_tcp(const char *text, terse_endpoint *endpoint, terse_error *error)
{
    static const char allowed[] = "allowed: tcp://ADDRESS:PORT with a numeric address, [IPv6], localhost or *";
    const char *colon = strrchr(text, ':');
    char host[64];
    in_port_t port;
    if (!colon || (size_t)(colon - text) >= sizeof host || !parse_port(colon + 1, &port))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "endpoint 'tcp://%.200s': %s", text, allowed);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;

    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
    const size_t length = strlen(host);
    const bool bracketed = length > 2 && host[0] == '[' && host[length - 1] == ']';
    if (bracketed)
        host[length - 1] = 0;
    if (strcmp(host, "localhost") == 0)
        v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (strcmp(host, "*") == 0)
        v4.sin_addr.s_addr = htonl(INADDR_ANY);
    else if (bracketed && inet_pton(AF_INET6, host + 1, &v6.sin6_addr) == 1) {
        memcpy(&endpoint->address, &v6, sizeof v6);
        endpoint->address_bytes = sizeof v6;
        endpoint->loopback = IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
        return TERSE_OK;
    } else if (bracketed || inet_pton(AF_INET, host, &v4.sin_addr) != 1)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "endpoint 'tcp://%.200s': %s", text, allowed);
    memcpy(&endpoint->address, &v4, sizeof v4);
    endpoint->address_bytes = sizeof v4;
    endpoint->loopback = ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    return TERSE_OK;
}

int terse_endpoint_parse(const char *text, terse_endpoint *ret_endpoint, terse_error *error)
{
    terse_endpoint endpoint = {.local = false};
    const size_t length = strlen(text);
    int r;
    if (length >= TERSE_ENDPOINT_BYTES)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "endpoint '%.40s...' has %zu bytes, allowed: %d", text, length,
                          TERSE_ENDPOINT_BYTES - 1);
    if (strncmp(text, "ipc://", 6) == 0)
        r = parse_ipc(text + 6, &endpoint, error);
    else if (strncmp(text, "tcp://", 6) == 0)
        r = parse_tcp(text + 6, &endpoint, error);
    else
        r = terse_fail(error, TERSE_INVALID_ARGUMENT, "endpoint '%.200s': allowed: ipc://PATH and tcp://ADDRESS:PORT",
                       text);
    if (r == TERSE_OK)
        *ret_endpoint = endpoint;
    return r;
}

int terse_endpoint_of(const struct sockaddr *address, socklen_t address_bytes, char *text, terse_error *error)
{
    char host[INET6_ADDRSTRLEN];
    if (address->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        const size_t offset = offsetof(struct sockaddr_un, sun_path);
        if (address_bytes <= offset || un->sun_path[0] == 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "the socket has no path");
        snprintf(text, TERSE_ENDPOINT_BYTES, "ipc://%.*s", (int)(address_bytes - offset), un->sun_path);
        return TERSE_OK;
    }
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(text, TERSE_ENDPOINT_BYTES, "tcp://%s:%u", host, ntohs(v4->sin_port));
        return TERSE_OK;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(text, TERSE_ENDPOINT_BYTES, "tcp://[%s]:%u", host, ntohs(v6->sin6_port));
        return TERSE_OK;
    }
    return terse_fail(error, TERSE_INVALID_ARGUMENT, "the socket has address family %d, allowed: unix, IPv4, IPv6",
                      address->sa_family);
}

int terse_endpoint_default(char *text, terse_error *error)
{
    const char *runtime = getenv("RUNTIME_DIRECTORY"); /* systemd's; a list when the unit names several */
    const char *user = getenv("XDG_RUNTIME_DIR");
    int length;
    if (runtime && *runtime)
        length = snprintf(text, TERSE_ENDPOINT_BYTES, "ipc://%.*s/tersed.sock", (int)strcspn(runtime, ":"), runtime);
    else if (geteuid() == 0)
        length = snprintf(text, TERSE_ENDPOINT_BYTES, "ipc:///run/terse/tersed.sock");
    else if (user && *user)
        length = snprintf(text, TERSE_ENDPOINT_BYTES, "ipc://%s/terse/tersed.sock", user);
    else
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "no endpoint: XDG_RUNTIME_DIR is not set; set it or give --listen ENDPOINT");
    if (length >= TERSE_ENDPOINT_BYTES)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the default endpoint has %d bytes, allowed: %d; give --listen", length,
                          TERSE_ENDPOINT_BYTES - 1);
    return TERSE_OK;
}

bool terse_endpoint_same(const terse_endpoint *a, const terse_endpoint *b)
{
    if (a->address.ss_family != b->address.ss_family)
        return false;
    if (a->address.ss_family == AF_UNIX)
        return strcmp(((const struct sockaddr_un *)&a->address)->sun_path,
                      ((const struct sockaddr_un *)&b->address)->sun_path) == 0;
    if (a->address.ss_family == AF_INET) {
        const struct sockaddr_in *x = (const struct sockaddr_in *)&a->address;
        const struct sockaddr_in *y = (const struct sockaddr_in *)&b->address;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)&a->address;
    const struct sockaddr_in6 *y = (const struct sockaddr_in6 *)&b->address;
    return x->sin6_port == y->sin6_port && memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
}
