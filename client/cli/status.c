/* SPDX-License-Identifier: Apache-2.0 */
/* terse status: what a daemon says of itself. */
#include "client/cli/cli.h"
#include "client/cli/msgpack_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/bytes.h"
#include "common/pack.h"

static uint64_t number(const msgpack_object *map, const char *key)
{
    const msgpack_object *found = terse_pack_find(map, key);
    return found && found->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? found->via.u64 : 0;
}

static void print_text_of(const msgpack_object *map, const char *key, int width)
{
    const msgpack_object *found = terse_pack_find(map, key);
    const bool text = found && found->type == MSGPACK_OBJECT_STR;
    printf("%-*.*s ", width, text ? (int)found->via.str.size : 1, text ? found->via.str.ptr : "?");
}

static void print_models(const msgpack_object *models)
{
    printf("%-24s %-8s %-10s %12s %10s %12s %10s\n", "MODEL", "VERSION", "STATE", "REQUESTS", "ERRORS", "BATCHES",
           "MEAN ROWS");
    for (uint32_t i = 0; models && models->type == MSGPACK_OBJECT_MAP && i < models->via.map.size; i++) {
        const msgpack_object_kv *entry = &models->via.map.ptr[i];
        const msgpack_object *errors = terse_pack_find(&entry->val, "errors");
        uint64_t failed = 0;
        for (uint32_t e = 0; errors && errors->type == MSGPACK_OBJECT_MAP && e < errors->via.map.size; e++)
            if (errors->via.map.ptr[e].val.type == MSGPACK_OBJECT_POSITIVE_INTEGER)
                failed += errors->via.map.ptr[e].val.via.u64;
        const uint64_t batches = number(&entry->val, "batches");
        printf("%-24.*s ", (int)entry->key.via.str.size, entry->key.via.str.ptr);
        print_text_of(&entry->val, "version", 8);
        print_text_of(&entry->val, "state", 10);
        printf("%12" PRIu64 " %10" PRIu64 " %12" PRIu64 " %10.2f\n", number(&entry->val, "requests"), failed, batches,
               batches ? (double)number(&entry->val, "rows") / (double)batches : 0.0);
    }
}

/* Versions that are on their way in or out. */
static void print_changes(const msgpack_object *changes)
{
    for (uint32_t i = 0; changes && changes->type == MSGPACK_OBJECT_ARRAY && i < changes->via.array.size; i++) {
        print_text_of(&changes->via.array.ptr[i], "model", 24);
        print_text_of(&changes->via.array.ptr[i], "version", 8);
        print_text_of(&changes->via.array.ptr[i], "state", 10);
        putchar('\n');
    }
}

static void print_workers(const msgpack_object *workers)
{
    printf("\n%-8s %-10s %-10s %10s %16s\n", "WORKER", "PID", "STATE", "RESTARTS", "PRIVATE BYTES");
    for (uint32_t i = 0; workers && workers->type == MSGPACK_OBJECT_ARRAY && i < workers->via.array.size; i++) {
        const msgpack_object *worker = &workers->via.array.ptr[i];
        printf("%-8" PRIu32 " %-10" PRIu64 " ", i, number(worker, "pid"));
        print_text_of(worker, "state", 10);
        printf("%10" PRIu64 " %16" PRIu64, number(worker, "restarts"), number(worker, "private_bytes"));
        if (terse_pack_find(worker, "next_start_ms"))
            printf("  %" PRIu64 " failed starts, next start in %" PRIu64 " ms", number(worker, "failed_starts"),
                   number(worker, "next_start_ms"));
        putchar('\n');
    }
}

static void print_settings(const msgpack_object *settings)
{
    printf("%-24s %-28s %-14s %s\n", "SETTING", "VALUE", "UNIT", "FROM");
    for (uint32_t i = 0; settings && settings->type == MSGPACK_OBJECT_MAP && i < settings->via.map.size; i++) {
        const msgpack_object_kv *entry = &settings->via.map.ptr[i];
        printf("%-24.*s ", (int)entry->key.via.str.size, entry->key.via.str.ptr);
        print_text_of(&entry->val, "value", 28);
        print_text_of(&entry->val, "unit", 14);
        print_text_of(&entry->val, "from", 0);
        putchar('\n');
    }
}

/* contracts: models is a list in `status --json`, each with its name, while the wire has a map by name. */
static void print_json(const msgpack_object *stats, const char *endpoint)
{
    terse_json json = terse_json_to(stdout);
    terse_json_object(&json, NULL);
    if (endpoint)
        terse_json_text_n(&json, "endpoint", endpoint, strlen(endpoint));
    const msgpack_object *models = terse_pack_find(stats, "models");
    terse_json_array(&json, "models");
    for (uint32_t i = 0; models && models->type == MSGPACK_OBJECT_MAP && i < models->via.map.size; i++) {
        const msgpack_object_kv *entry = &models->via.map.ptr[i];
        terse_json_object(&json, NULL);
        terse_json_text_n(&json, "name", entry->key.via.str.ptr, entry->key.via.str.size);
        for (uint32_t k = 0; entry->val.type == MSGPACK_OBJECT_MAP && k < entry->val.via.map.size; k++) {
            char key[64];
            const msgpack_object *name = &entry->val.via.map.ptr[k].key;
            snprintf(key, sizeof key, "%.*s", (int)name->via.str.size, name->via.str.ptr);
            terse_msgpack_json(&json, key, &entry->val.via.map.ptr[k].val);
        }
        terse_json_end(&json);
    }
    terse_json_end(&json);
    for (uint32_t i = 0; i < stats->via.map.size; i++) {
        char key[64];
        const msgpack_object *name = &stats->via.map.ptr[i].key;
        snprintf(key, sizeof key, "%.*s", (int)name->via.str.size, name->via.str.ptr);
        if (strcmp(key, "models") != 0 && strcmp(key, "v") != 0 && strcmp(key, "id") != 0 && strcmp(key, "status") != 0)
            terse_msgpack_json(&json, key, &stats->via.map.ptr[i].val);
    }
    terse_json_end(&json);
    putchar('\n');
}

static bool keys_are_text(const msgpack_object *map)
{
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *value = &map->via.map.ptr[i].val;
        if (map->via.map.ptr[i].key.type != MSGPACK_OBJECT_STR ||
            (value->type == MSGPACK_OBJECT_MAP && !keys_are_text(value)))
            return false;
    }
    return true;
}

static bool wait_until_ready(terse_client *client, uint64_t wait_ms)
{
    const uint64_t until = terse_now_ns() + wait_ms * 1000000u;
    const struct timespec pause = {0, 10 * 1000 * 1000};
    while (terse_client_ready(client, NULL, (int)wait_ms) != TERSE_OK) {
        if (terse_now_ns() >= until)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

typedef struct wanted {
    bool as_json, settings;
    uint64_t connect_ms, wait_ms;
    int shown;
} wanted;

static void print_all(const msgpack_object *stats)
{
    print_models(terse_pack_find(stats, "models"));
    print_changes(terse_pack_find(stats, "changes"));
    print_workers(terse_pack_find(stats, "workers"));
    printf("\n%" PRIu64 " clients, %" PRIu64 " requests waiting, up for %.0f s\n", number(stats, "clients"),
           number(stats, "queued"), (double)number(stats, "uptime_us") / 1e6);
}

/* `endpoint`: to be told, or NULL. */
static int print_stats(const char *name, const terse_stats *stats, const char *endpoint, wanted *w)
{
    size_t size;
    const void *bytes = terse_stats_msgpack(stats, &size);
    msgpack_zone zone;
    msgpack_object object;
    terse_error error = {0};
    int code = TERSE_CLI_DONE;
    msgpack_zone_init(&zone, 8192);
    if (terse_pack_unpack(bytes, size, 1 << 20, &zone, &object, &error) || object.type != MSGPACK_OBJECT_MAP ||
        !keys_are_text(&object)) {
        code = terse_cli_fail(name, &error);
    } else if (w->as_json) {
        print_json(&object, endpoint);
    } else {
        if (endpoint)
            printf("%s%s\n", w->shown ? "\n" : "", endpoint);
        if (w->settings)
            print_settings(terse_pack_find(&object, "settings"));
        else
            print_all(&object);
    }
    w->shown++;
    msgpack_zone_destroy(&zone);
    return code;
}

static int show(const char *name, const char *endpoint, bool several, void *context)
{
    wanted *w = context;
    terse_client *client = terse_cli_connect(name, endpoint, w->connect_ms);
    if (!client)
        return TERSE_CLI_FAILED;
    terse_stats *stats = NULL;
    int code;
    if ((w->wait_ms && !wait_until_ready(client, w->wait_ms)) || terse_client_stats(client, (int)w->connect_ms, &stats))
        code = terse_cli_fail_client(name);
    else
        code = print_stats(name, stats, several ? endpoint : NULL, w);
    terse_stats_free(stats);
    terse_client_close(client);
    return code;
}

int terse_cli_status(int argc, char **argv)
{
    const char *endpoint = NULL;
    wanted w = {.connect_ms = 5000};
    const terse_cli_usage usage = {"status", "[-e ENDPOINT] [--settings | --json]",
                                   "Shows a daemon's models, workers and counters.", 0, 0};
    const terse_cli_option options[] = {
        {"endpoint", 'e', TERSE_CLI_TEXT, "ENDPOINT", &endpoint, 0, 0,
         "the daemon's, or several, by commas, for each in turn (default: $TERSE_ENDPOINT, else this host's)"},
        {"connect-ms", 0, TERSE_CLI_COUNT, "T", &w.connect_ms, 1, 1e9, "how long to wait for a daemon (default 5000)"},
        {"wait-ms", 0, TERSE_CLI_COUNT, "T", &w.wait_ms, 1, 1e9, "wait until every model is ready; fail after T ms"},
        {"settings", 0, TERSE_CLI_FLAG, NULL, &w.settings, 0, 0, "show the settings in force, and where each is from"},
        {"json", 0, TERSE_CLI_FLAG, NULL, &w.as_json, 0, 0,
         "print everything as one JSON object; of several daemons one a line, which begins with its endpoint"},
        {NULL, 0, TERSE_CLI_FLAG, NULL, NULL, 0, 0, NULL},
    };
    int n;
    const int parsed = terse_cli_parse(&usage, options, argc, argv, NULL, &n);
    if (parsed >= 0)
        return parsed;
    return terse_cli_each_daemon("status", endpoint, show, &w);
}
