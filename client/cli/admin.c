/* SPDX-License-Identifier: Apache-2.0 */
/* terse load, unload, configure: what changes a daemon while it runs. */
#include "client/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

#define ENDPOINT_HELP                                                                                                  \
    "the daemon's, or several, by commas, for each in turn (default: $TERSE_ENDPOINT, else this host's)"
#define CONNECT_HELP "how long to wait for a daemon (default 5000)"
#define WAIT_HELP "how long to wait for its answer (default: as long as it takes)"

typedef struct order {
    const char *endpoint;
    uint64_t connect_ms, wait_ms; /* wait_ms 0: as long as it takes */
    bool as_json;
    const char *model, *path, *version;
    terse_live_settings settings;
} order;

static int wait_of(const order *o)
{
    return o->wait_ms ? (int)o->wait_ms : -1;
}

/* The outcome on one line, or as JSON; a failure on stderr. */
static int tell(const char *name, const order *o, const char *endpoint, terse_status status, const char *done)
{
    const char *model = o->model;
    if (status)
        return terse_cli_fail_client(name);
    if (o->as_json) {
        terse_json json = terse_json_to(stdout);
        terse_json_object(&json, NULL);
        if (endpoint)
            terse_json_text_n(&json, "endpoint", endpoint, strlen(endpoint));
        terse_json_text_n(&json, "model", model, strlen(model));
        terse_json_end(&json);
        putchar('\n');
    } else {
        printf("%s%smodel '%s' %s\n", endpoint ? endpoint : "", endpoint ? ": " : "", model, done);
    }
    return TERSE_CLI_DONE;
}

static int load_into(const char *name, const char *endpoint, bool several, void *context)
{
    const order *o = context;
    terse_client *client = terse_cli_connect(name, endpoint, o->connect_ms);
    if (!client)
        return TERSE_CLI_FAILED;
    const terse_status status = terse_client_load(client, o->model, o->path, o->version, wait_of(o));
    const int code = tell(name, o, several ? endpoint : NULL, status, "is served from the new file");
    terse_client_close(client);
    return code;
}

int terse_cli_load(int argc, char **argv)
{
    order o = {.connect_ms = 5000};
    const char *positional[2];
    const terse_cli_usage usage = {
        "load", "[-e ENDPOINT] NAME FILE.terse [--model-version V]",
        "Serves a file as NAME: a new model, or a new version of one that is served. The new version takes over once "
        "the\n"
        "daemon has verified, run and warmed it; when anything is wrong with it nothing changes.",
        2, 2};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &o.endpoint, 0, 0, ENDPOINT_HELP},
        {"model-version", 0, TERSE_CLI_TEXT, "V", &o.version, 0, 0, "the version told to clients (default 1)"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &o.connect_ms, 1, 1e9, CONNECT_HELP},
        {"wait-ms", 0, TERSE_CLI_COUNT, "T", &o.wait_ms, 1, 1e9, WAIT_HELP},
        {"json", 0, TERSE_CLI_FLAG, NULL, &o.as_json, 0, 0, "print the outcome as one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, positional, &n);
    if (parsed >= 0)
        return parsed;
    char path[PATH_MAX]; /* the daemon stands in another folder */
    if (!realpath(positional[1], path)) {
        terse_error error;
        terse_fail(&error, TERSE_NOT_FOUND, "cannot find '%.300s': %s", positional[1], strerror(errno));
        return terse_cli_fail("load", &error);
    }
    o.model = positional[0];
    o.path = path;
    return terse_cli_each_daemon("load", o.endpoint, load_into, &o);
}

static int unload_from(const char *name, const char *endpoint, bool several, void *context)
{
    const order *o = context;
    terse_client *client = terse_cli_connect(name, endpoint, o->connect_ms);
    if (!client)
        return TERSE_CLI_FAILED;
    const terse_status status = terse_client_unload(client, o->model, wait_of(o));
    const int code = tell(name, o, several ? endpoint : NULL, status, "is not served any more");
    terse_client_close(client);
    return code;
}

int terse_cli_unload(int argc, char **argv)
{
    order o = {.connect_ms = 5000};
    const char *positional[1];
    const terse_cli_usage usage = {"unload", "[-e ENDPOINT] NAME",
                                   "Takes a model out of service: what it has is answered, then its memory is freed.",
                                   1, 1};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &o.endpoint, 0, 0, ENDPOINT_HELP},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &o.connect_ms, 1, 1e9, CONNECT_HELP},
        {"wait-ms", 0, TERSE_CLI_COUNT, "T", &o.wait_ms, 1, 1e9, WAIT_HELP},
        {"json", 0, TERSE_CLI_FLAG, NULL, &o.as_json, 0, 0, "print the outcome as one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, positional, &n);
    if (parsed >= 0)
        return parsed;
    o.model = positional[0];
    return terse_cli_each_daemon("unload", o.endpoint, unload_from, &o);
}

static void print_setting(terse_json *json, const char *name, int64_t value)
{
    if (value < 0)
        return;
    if (json)
        terse_json_int(json, name, value);
    else
        printf("%s = %" PRId64 "\n", name, value);
}

static void print_settings(const order *o, const char *endpoint, const terse_live_settings *settings)
{
    const char *model = o->model;
    terse_json json = terse_json_to(stdout);
    if (!o->as_json && endpoint)
        printf("%s\n", endpoint);
    if (o->as_json) {
        terse_json_object(&json, NULL);
        if (endpoint)
            terse_json_text_n(&json, "endpoint", endpoint, strlen(endpoint));
        if (model)
            terse_json_text_n(&json, "model", model, strlen(model));
    }
    print_setting(o->as_json ? &json : NULL, "max_batch", settings->max_batch);
    print_setting(o->as_json ? &json : NULL, "batch_timeout_us", settings->batch_timeout_us);
    print_setting(o->as_json ? &json : NULL, "workers", settings->workers);
    if (o->as_json) {
        terse_json_end(&json);
        putchar('\n');
    }
}

static int configure_one(const char *name, const char *endpoint, bool several, void *context)
{
    const order *o = context;
    terse_client *client = terse_cli_connect(name, endpoint, o->connect_ms);
    if (!client)
        return TERSE_CLI_FAILED;
    terse_live_settings settings = o->settings;
    int code = TERSE_CLI_DONE;
    if (terse_client_configure(client, o->model, &settings, wait_of(o)))
        code = terse_cli_fail_client(name);
    else
        print_settings(o, several ? endpoint : NULL, &settings);
    terse_client_close(client);
    return code;
}

int terse_cli_configure(int argc, char **argv)
{
    enum { UNSET = 1 << 30 };
    order o = {.connect_ms = 5000};
    uint64_t max_batch = UNSET, timeout_us = UNSET, workers = UNSET;
    const char *positional[1] = {NULL};
    const terse_cli_usage usage = {
        "configure", "[-e ENDPOINT] [NAME] [--max-batch B] [--batch-timeout-us T] [--workers N]",
        "Changes settings of a running daemon: of the model NAME, or of all. Prints those in force. The configuration\n"
        "file stays as it is: a restart brings its settings back.",
        0, 1};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &o.endpoint, 0, 0, ENDPOINT_HELP},
        {"max-batch", 0, TERSE_CLI_COUNT, "B", &max_batch, 1, 1024, "most rows that run together"},
        {"batch-timeout-us", 0, TERSE_CLI_COUNT, "T", &timeout_us, 0, 1e7,
         "how long an idle worker may wait for a batch to fill"},
        {"workers", 0, TERSE_CLI_COUNT, "N", &workers, 1, 256, "worker processes"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &o.connect_ms, 1, 1e9, CONNECT_HELP},
        {"wait-ms", 0, TERSE_CLI_COUNT, "T", &o.wait_ms, 1, 1e9, WAIT_HELP},
        {"json", 0, TERSE_CLI_FLAG, NULL, &o.as_json, 0, 0, "print the settings as one JSON object"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, positional, &n);
    if (parsed >= 0)
        return parsed;
    const terse_live_settings unset = TERSE_LIVE_SETTINGS_INIT;
    o.model = n > 0 ? positional[0] : NULL;
    o.settings = unset;
    o.settings.max_batch = max_batch == UNSET ? -1 : (int64_t)max_batch;
    o.settings.batch_timeout_us = timeout_us == UNSET ? -1 : (int64_t)timeout_us;
    o.settings.workers = workers == UNSET ? -1 : (int64_t)workers;
    return terse_cli_each_daemon("configure", o.endpoint, configure_one, &o);
}
