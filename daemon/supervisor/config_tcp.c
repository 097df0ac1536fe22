/* SPDX-License-Identifier: Apache-2.0 */
/* What the configuration says of who may come in: endpoints, the group of the sockets, keys. */
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/curve.h"
#include "daemon/supervisor/config_internal.h"

static const char key_suffix[] = ".key";

/* --- keys ---------------------------------------------------------------------------------------------------- */

/* systemd's directory of credentials belongs to root, and an access list lets the service read what is in it. */
static bool is_credential(const char *path)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    const size_t length = directory ? strlen(directory) : 0;
    return length > 1 && strncmp(path, directory, length) == 0 && path[length] == '/' && !strstr(path, "/../");
}

static void read_server_key(terse_config *config)
{
    terse_curve_keys keys;
    terse_error error;
    const unsigned line = config->line[TERSE_SET_CURVE_SERVER_KEY];
    if (terse_curve_read(config->curve_server_key, is_credential(config->curve_server_key), &keys, &error))
        terse_config_complain(config, line, "curve_server_key: %s", error.message);
    else if (!terse_curve_decode(keys.secret_key, config->curve_secret))
        terse_config_complain(config, line, "curve_server_key: '%s' has no secret key; allowed: a key file with one",
                              config->curve_server_key);
    else
        config->curve = true;
    explicit_bzero(&keys, sizeof keys);
}

static void add_client_key(terse_config *config, const char *path, const char *text)
{
    uint8_t key[TERSE_CURVE_KEY];
    if (!terse_curve_decode(text, key))
        return;
    for (unsigned i = 0; i < config->n_client_keys; i++)
        if (memcmp(config->client_keys[i], key, sizeof key) == 0)
            return;
    if (config->n_client_keys == TERSE_MAX_CLIENT_KEYS) {
        terse_config_complain(config, config->line[TERSE_SET_CURVE_CLIENTS],
                              "curve_clients: '%s': there are %d keys already, allowed: %d", path,
                              TERSE_MAX_CLIENT_KEYS, TERSE_MAX_CLIENT_KEYS);
        return;
    }
    memcpy(config->client_keys[config->n_client_keys++], key, sizeof key);
}

/* One key a line, and behind it what it is for; comments begin with #, which some keys do as well. */
static void read_key_list(terse_config *config, const char *path)
{
    const unsigned config_line = config->line[TERSE_SET_CURVE_CLIENTS];
    FILE *file = fopen(path, "re");
    if (!file) {
        terse_config_complain(config, config_line, "curve_clients: cannot read '%s': %s", path, strerror(errno));
        return;
    }
    char *line = NULL;
    size_t room = 0;
    for (unsigned number = 1; getline(&line, &room, file) >= 0; number++) {
        char *word = line + strspn(line, " \t\r\n");
        word[strcspn(word, " \t\r\n")] = 0;
        uint8_t key[TERSE_CURVE_KEY];
        if (terse_curve_decode(word, key))
            add_client_key(config, path, word);
        else if (*word && *word != '#')
            terse_config_complain(
                config, config_line,
                "curve_clients: '%s', line %u: found '%.60s', allowed: a public key, 40 characters of "
                "Z85, or a comment",
                path, number, word);
    }
    free(line);
    fclose(file);
}

static void read_key_directory(terse_config *config, DIR *directory)
{
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const size_t length = strlen(entry->d_name), suffix = sizeof key_suffix - 1;
        char path[TERSE_PATH_BYTES];
        terse_curve_keys keys;
        terse_error error;
        if (entry->d_name[0] == '.' || length <= suffix || strcmp(entry->d_name + length - suffix, key_suffix) != 0)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", config->curve_clients, entry->d_name) >= (int)sizeof path)
            continue;
        if (terse_curve_read(path, true, &keys, &error))
            terse_config_complain(config, config->line[TERSE_SET_CURVE_CLIENTS], "curve_clients: %s", error.message);
        else
            add_client_key(config, path, keys.public_key);
    }
}

static void read_client_keys(terse_config *config)
{
    const unsigned line = config->line[TERSE_SET_CURVE_CLIENTS];
    const unsigned errors = config->n_errors;
    terse_curve_keys keys;
    free(config->client_keys);
    config->client_keys = calloc(TERSE_MAX_CLIENT_KEYS, sizeof *config->client_keys);
    config->n_client_keys = 0;
    if (!config->client_keys) {
        terse_config_complain(config, line, "curve_clients: no memory");
        return;
    }
    DIR *directory = opendir(config->curve_clients);
    if (directory) {
        read_key_directory(config, directory);
        closedir(directory);
    } else if (errno != ENOTDIR)
        terse_config_complain(config, line, "curve_clients: cannot read '%s': %s", config->curve_clients,
                              strerror(errno));
    else if (terse_curve_read(config->curve_clients, true, &keys, NULL) == TERSE_OK)
        add_client_key(config, config->curve_clients, keys.public_key);
    else
        read_key_list(config, config->curve_clients);
    if (config->n_client_keys == 0 && config->n_errors == errors)
        terse_config_complain(config, line,
                              "curve_clients: '%s' has no key; allowed: at least one, in a *%s file of a "
                              "directory or in a file with a key a line",
                              config->curve_clients, key_suffix);
}

static void read_keys(terse_config *config)
{
    const bool server = config->curve_server_key[0], clients = config->curve_clients[0];
    if (server)
        read_server_key(config);
    if (clients)
        read_client_keys(config);
    if (server && !clients)
        terse_config_complain(config, config->line[TERSE_SET_CURVE_SERVER_KEY],
                              "curve_server_key without curve_clients: nobody could come in; allowed: both");
    if (clients && !server)
        terse_config_complain(config, config->line[TERSE_SET_CURVE_CLIENTS],
                              "curve_clients without curve_server_key: nothing would be encrypted; allowed: both");
}

/* --- endpoints ------------------------------------------------------------------------------------------------- */

int terse_config_allow(const terse_config *config, const char *text, const terse_endpoint *endpoint, terse_error *error)
{
    if (endpoint->local || endpoint->loopback || config->curve || config->value[TERSE_SET_INSECURE_TCP])
        return TERSE_OK;
    return terse_fail(error, TERSE_PERMISSION_DENIED,
                      "'%s' can be reached from other hosts, without encryption or keys; allowed: loopback, "
                      "curve_server_key and curve_clients, or insecure_tcp = yes",
                      text);
}

static void check_endpoints(terse_config *config)
{
    terse_endpoint endpoints[TERSE_MAX_LISTEN];
    for (unsigned i = 0; i < config->n_listen; i++) {
        const unsigned line = config->listen_line[i];
        terse_error error;
        endpoints[i].address.ss_family = AF_UNSPEC;
        if (terse_endpoint_parse(config->listen[i], &endpoints[i], &error) != TERSE_OK) {
            terse_config_complain(config, line, "listen: %s", error.message);
            continue;
        }
        /* A key file with a mistake has been told already. */
        if (!config->curve_server_key[0] &&
            terse_config_allow(config, config->listen[i], &endpoints[i], &error) != TERSE_OK)
            terse_config_complain(config, line, "listen: %s", error.message);
        for (unsigned k = 0; k < i; k++)
            if (endpoints[k].address.ss_family != AF_UNSPEC && terse_endpoint_same(&endpoints[k], &endpoints[i]))
                terse_config_complain(config, line, "listen: '%s' is listed twice; allowed: once", config->listen[i]);
    }
}

static void check_group(terse_config *config)
{
    const struct group *group = getgrnam(config->listen_group);
    const char *text = config->listen_group;
    config->listen_gid = (gid_t)-1;
    if (group)
        config->listen_gid = group->gr_gid;
    else if (*text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 10)
        config->listen_gid = (gid_t)strtoul(text, NULL, 10);
    else
        terse_config_complain(config, config->line[TERSE_SET_LISTEN_GROUP],
                              "listen_group: found no group '%s', allowed: a group's name or number", text);
}

/* A flood must be cut off before the gate's memory ends: unfinished messages, requests that wait for the front end
 * and replies that wait for clients have a quarter each. */
static void check_gate_memory(terse_config *config)
{
    const uint64_t bytes = config->value[TERSE_SET_GATE_MEMORY], least = 8 * config->value[TERSE_SET_MAX_REQUEST];
    if (bytes && bytes < least)
        terse_config_complain(config, config->line[TERSE_SET_GATE_MEMORY],
                              "gate_memory_bytes: found %" PRIu64 ", allowed: at least 8 times max_request_bytes, "
                              "%" PRIu64,
                              bytes, least);
}

void terse_config_check_access(terse_config *config)
{
    config->listen_gid = (gid_t)-1;
    if (config->listen_group[0])
        check_group(config);
    read_keys(config);
    check_endpoints(config);
    check_gate_memory(config);
}
