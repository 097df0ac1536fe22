/* SPDX-License-Identifier: Apache-2.0 */
/* terse-gateway: HTTP for those who do not speak tersed's protocol. Options, the loop, beginning and end. */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/gateway/aside.h"
#include "client/gateway/asker.h"
#include "client/gateway/decimal.h"
#include "client/gateway/gateway.h"
#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"

enum { LISTEN_BACKLOG = 1024, TICK_MS = 500, SPARE_FILES = 192 };

/* --- options ---------------------------------------------------------------------------------------------- */

static int parse(int argc, char **argv, terse_gateway_options *o)
{
    bool version = false;
    const terse_cli_usage usage = {
        "terse-gateway", "[-e ENDPOINT] [--listen ADDRESS:PORT] [options]",
        "Serves the Open Inference Protocol (REST), metrics and a page over HTTP, as a client of tersed.", 0, 0};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &o->endpoint, 0, 0,
         "the daemon's (default: $TERSE_ENDPOINT, else this host's)"},
        {"listen", 0, TERSE_CLI_TEXT, "ADDRESS:PORT", &o->listen, 0, 0,
         "where HTTP is served (default 127.0.0.1:8000); port 0: any that is free"},
        {"max-body", 0, TERSE_CLI_COUNT, "BYTES", &o->max_body, 1024, 1e11, "of one request (default 67108864)"},
        {"max-memory", 0, TERSE_CLI_COUNT, "BYTES", &o->max_memory, 65536, 1e13,
         "of all requests and answers together (default 536870912)"},
        {"max-connections", 0, TERSE_CLI_COUNT, "N", &o->max_connections, 1, 60000,
         "at a time; more are answered 503 (default 1024)"},
        {"max-requests", 0, TERSE_CLI_COUNT, "N", &o->max_requests, 1, 60000,
         "inferences at a time; more are answered 503 (default 1024)"},
        {"transfer-s", 0, TERSE_CLI_COUNT, "S", &o->transfer_s, 1, 86400,
         "for a request to come whole, and for its answer to go (default 30)"},
        {"idle-s", 0, TERSE_CLI_COUNT, "S", &o->idle_s, 1, 86400,
         "that a connection may be silent between two requests (default 120)"},
        {"reconnect-ms", 0, TERSE_CLI_COUNT, "T", &o->reconnect_ms, 1, 1e9,
         "how long a daemon that was lost is waited for before requests are answered 503 (default 5000)"},
        {"drain-ms", 0, TERSE_CLI_COUNT, "T", &o->drain_ms, 0, 1e9,
         "after SIGTERM, for what is under way (default 10000)"},
        {"live-s", 0, TERSE_CLI_COUNT, "S", &o->step_s, 1, 60,
         "between two looks at the daemon, for the page (default 5)"},
        {"version", 0, TERSE_CLI_FLAG, NULL, &version, 0, 0, "print the version"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int code = terse_cli_parse(&usage, options, argc, argv, NULL, &n);
    if (code < 0 && version) {
        puts("terse-gateway " TERSE_VERSION);
        return TERSE_CLI_DONE;
    }
    return code;
}

/* --- the socket ------------------------------------------------------------------------------------------- */

/* "ADDRESS:PORT", the address in brackets when it has colons itself. */
static bool split(const char *text, char *address, size_t size, const char **ret_port)
{
    const char *colon = strrchr(text, ':');
    if (!colon || !colon[1])
        return false;
    size_t length = (size_t)(colon - text);
    if (length >= 2 && *text == '[' && colon[-1] == ']') {
        text++;
        length -= 2;
    } else if (memchr(text, ':', length)) {
        return false;
    }
    if (length == 0 || length >= size)
        return false;
    memcpy(address, text, length);
    address[length] = 0;
    *ret_port = colon + 1;
    return true;
}

static int listen_at(const struct addrinfo *place)
{
    const int one = 1;
    const int fd = socket(place->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        bind(fd, place->ai_addr, place->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
        return fd;
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* The service manager's socket when there is one, else our own. */
static int open_socket(const char *where, terse_error *error)
{
    char address[256];
    const char *port = NULL;
    const int given = sd_listen_fds(1);
    if (given == 1)
        return SD_LISTEN_FDS_START;
    if (given > 1) {
        terse_fail(error, TERSE_INVALID_ARGUMENT, "%d sockets were given, one is wanted", given);
        return -1;
    }
    if (!split(where, address, sizeof address, &port)) {
        terse_fail(error, TERSE_INVALID_ARGUMENT, "--listen is '%.200s', allowed is ADDRESS:PORT", where);
        return -1;
    }
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *places = NULL;
    const int failed = getaddrinfo(address, port, &hints, &places);
    if (failed) {
        terse_fail(error, TERSE_INVALID_ARGUMENT, "--listen is '%.200s': %s", where, gai_strerror(failed));
        return -1;
    }
    const int fd = listen_at(places);
    freeaddrinfo(places);
    if (fd < 0)
        terse_fail(error, TERSE_SYSTEM, "cannot listen at %.200s", where);
    return fd;
}

static void tell_where(int fd)
{
    char host[128] = "?", port[16] = "?";
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    const bool colons = strchr(host, ':') != NULL;
    terse_log(TERSE_LOG_INFO, "serves http://%s%s%s:%s/", colons ? "[" : "", host, colons ? "]" : "", port);
}

/* --- the loop --------------------------------------------------------------------------------------------- */

static bool watch(const terse_gateway *gateway, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return fd >= 0 && epoll_ctl(gateway->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void take_client(terse_gateway *gateway)
{
    terse_share *share = NULL;
    terse_client *client = gateway->client ? NULL : terse_asker_take_client(gateway->asker, &share);
    if (!client)
        return;
    if (!watch(gateway, terse_client_fd(client))) {
        terse_log(TERSE_LOG_ERROR, "cannot wait for the daemon's answers: %s", terse_last_error());
        terse_share_free(share);
        terse_client_close(client);
        return;
    }
    gateway->client = client;
    gateway->share = share;
    terse_log(TERSE_LOG_INFO, "has found a daemon at %s",
              gateway->options->endpoint ? gateway->options->endpoint : terse_default_endpoint());
    sd_notify(0, "STATUS=serving");
}

static void take_answers(terse_gateway *gateway)
{
    uint64_t rings;
    if (read(gateway->wake_fd, &rings, sizeof rings) < 0) {
        /* nobody rang: what is there is taken all the same */
    }
    for (terse_exchange *exchange; (exchange = terse_asker_take(gateway->asker));)
        terse_serve_resume(exchange);
    terse_infer_go_on(gateway);
    take_client(gateway);
}

static int wait_ms(const terse_gateway *gateway)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    if (MHD_get_timeout(gateway->http, &ms) == MHD_YES && ms < TICK_MS)
        return (int)ms;
    return TICK_MS;
}

static void turn(terse_gateway *gateway)
{
    struct epoll_event events[4];
    const int n = epoll_wait(gateway->epoll_fd, events, 4, wait_ms(gateway));
    for (int i = 0; i < n; i++) {
        struct signalfd_siginfo signal_info;
        if (events[i].data.fd == gateway->wake_fd)
            take_answers(gateway);
        else if (events[i].data.fd == gateway->signal_fd &&
                 read(gateway->signal_fd, &signal_info, sizeof signal_info) > 0)
            gateway->draining = true;
        else if (gateway->client && events[i].data.fd == terse_client_fd(gateway->client))
            terse_infer_take(gateway);
    }
    MHD_run(gateway->http);
    terse_serve_sweep(gateway, terse_now_ns());
}

/* Connections that the system has taken in for us are served as those that we have. */
static void accept_waiting(terse_gateway *gateway)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(gateway->http, MHD_DAEMON_INFO_LISTEN_FD);
    struct pollfd waiting = {.fd = info ? info->listen_fd : -1, .events = POLLIN};
    for (int i = 0; i < LISTEN_BACKLOG && poll(&waiting, 1, 0) > 0; i++)
        turn(gateway);
}

static void serve(terse_gateway *gateway)
{
    while (!gateway->draining)
        turn(gateway);
    sd_notify(0, "STOPPING=1\nSTATUS=answering what is under way");
    terse_log(TERSE_LOG_INFO, "ends: %" PRIu64 " requests are under way", gateway->n_exchanges);
    accept_waiting(gateway);
    const int fd = (int)MHD_quiesce_daemon(gateway->http);
    if (fd >= 0)
        close(fd);
    const uint64_t until = terse_now_ns() + gateway->options->drain_ms * 1000000u;
    while ((gateway->n_exchanges > 0 || terse_serve_unread(gateway)) && terse_now_ns() < until)
        turn(gateway);
}

/* Suspended connections must not be when libmicrohttpd ends. */
static void end(terse_gateway *gateway)
{
    if (gateway->asker)
        terse_asker_stop(gateway->asker);
    if (gateway->aside)
        terse_aside_stop(gateway->aside);
    if (gateway->http && gateway->asker) {
        take_answers(gateway);
        terse_infer_abandon(gateway);
        MHD_run(gateway->http);
    }
    terse_serve_stop(gateway);
    if (gateway->aside)
        terse_aside_free(gateway->aside);
    if (gateway->asker)
        terse_asker_free(gateway->asker);
    terse_share_free(gateway->share);
    terse_client_close(gateway->client);
    close(gateway->epoll_fd);
    close(gateway->signal_fd);
    close(gateway->wake_fd);
}

/* Files for all connections; fewer connections where the system does not give so many. */
static void want_files(terse_gateway_options *options)
{
    struct rlimit files;
    const rlim_t wanted = options->max_connections + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    files.rlim_cur = files.rlim_max = wanted < files.rlim_max ? wanted : files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < wanted) {
        options->max_connections = files.rlim_cur > SPARE_FILES + 1 ? files.rlim_cur - SPARE_FILES : 1;
        terse_log(TERSE_LOG_WARNING, "takes %" PRIu64 " connections only: so many files are allowed",
                  options->max_connections);
    }
}

static int begin(terse_gateway *gateway, terse_gateway_options *options, terse_error *error)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    signal(SIGPIPE, SIG_IGN);
    gateway->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    gateway->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    gateway->signal_fd = signalfd(-1, &ends, SFD_NONBLOCK | SFD_CLOEXEC);
    if (!watch(gateway, gateway->wake_fd) || !watch(gateway, gateway->signal_fd))
        return terse_fail(error, TERSE_SYSTEM, "cannot set up the loop");
    const int fd = open_socket(options->listen, error);
    if (fd < 0)
        return error->status;
    want_files(options);
    int status = terse_serve_start(gateway, fd, error);
    if (!status) {
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(gateway->http, MHD_DAEMON_INFO_EPOLL_FD);
        if (!info || !watch(gateway, info->epoll_fd))
            return terse_fail(error, TERSE_SYSTEM, "cannot wait for connections");
        status = terse_aside_start(gateway->wake_fd, &gateway->aside, error);
        if (!status)
            status = terse_asker_start(options, gateway->wake_fd, &gateway->asker, error);
    }
    if (!status)
        tell_where(fd);
    return status;
}

/* Whether the daemon is reached over tcp. */
static bool is_remote(const terse_gateway_options *options)
{
    return strstr(options->endpoint ? options->endpoint : terse_default_endpoint(), "tcp://") != NULL;
}

int main(int argc, char **argv)
{
    terse_gateway_options options = {.listen = "127.0.0.1:8000",
                                     .max_body = 64 << 20,
                                     .max_memory = 512 << 20,
                                     .max_connections = 1024,
                                     .max_requests = 1024,
                                     .transfer_s = 30,
                                     .idle_s = 120,
                                     .reconnect_ms = 5000,
                                     .drain_ms = 10000,
                                     .step_s = 5};
    const int code = parse(argc, argv, &options);
    if (code >= 0)
        return code;
    static terse_gateway gateway;
    terse_error error = {0};
    gateway.options = &options;
    terse_log_init("terse-gateway");
    terse_decimal_init();
    terse_sandbox_drop();
    const int status = begin(&gateway, &options, &error);
    if (!status) {
        terse_sandbox_filter(is_remote(&options) ? TERSE_ROLE_REMOTE : TERSE_ROLE_GATEWAY);
        sd_notify(0, "READY=1\nSTATUS=looking for a daemon");
        serve(&gateway);
    } else {
        fprintf(stderr, "terse-gateway: %s\n", error.message);
    }
    end(&gateway);
    return status ? TERSE_CLI_FAILED : TERSE_CLI_DONE;
}
