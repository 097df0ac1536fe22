/* SPDX-License-Identifier: Apache-2.0 */
/* config.h: what tersed is to do: the command line over the configuration file over the defaults.
 * Runs in: tersed. Ownership: a terse_config owns all of its text and models; `report` is borrowed.
 *
 * Use: terse_config_new; the command line's settings (they win, so they come first); terse_config_read; then
 * terse_config_finish, which looks at the files. Every mistake is printed to `report` at once, as
 * "FILE:LINE: what, found, allowed", and counted: nothing stops at the first one. */
#ifndef TERSE_SUPERVISOR_CONFIG_H
#define TERSE_SUPERVISOR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/protocol.h"
#include "daemon/supervisor/endpoint.h"
#include "daemon/supervisor/settings.h"

/* A place in the configuration: the number of its file (0: the file itself, then those of its drop-in directory) above
 * the line; 0 is no place. */
enum { TERSE_LINE_BITS = 20, TERSE_MAX_FILES = 256 };
#define TERSE_LINE_OF(place) ((place) & ((1u << TERSE_LINE_BITS) - 1))
#define TERSE_FILE_OF(place) ((place) >> TERSE_LINE_BITS)

enum { TERSE_MAX_LISTEN = 16, TERSE_PATH_BYTES = 4096, TERSE_MAX_CLIENT_KEYS = 4 * TERSE_GATE_KEYS };

/* Tells whether a file is still the one that it was. */
typedef struct terse_file_mark {
    uint64_t device, inode, bytes, changed_ns;
} terse_file_mark;

typedef struct terse_model_config {
    char name[TERSE_MODEL_NAME];
    char file[TERSE_PATH_BYTES];
    char version[TERSE_VERSION_BYTES];
    uint64_t value[TERSE_N_SETTINGS]; /* after finish: of every setting that may stand in a [model] */
    unsigned line[TERSE_N_SETTINGS];  /* the place that sets it; 0: none does */
    unsigned section_line;            /* of [model NAME], the last one; 0: it has none */
    bool by_option;                   /* --model NAME=FILE */
    terse_file_mark mark;             /* after finish: the file as it was then */
} terse_model_config;

typedef struct terse_config {
    uint64_t value[TERSE_N_SETTINGS];
    unsigned line[TERSE_N_SETTINGS];
    bool by_option[TERSE_N_SETTINGS];
    char listen[TERSE_MAX_LISTEN][TERSE_ENDPOINT_BYTES];
    unsigned listen_line[TERSE_MAX_LISTEN];
    unsigned n_listen;
    char model_dir[TERSE_PATH_BYTES];
    char curve_server_key[TERSE_PATH_BYTES], curve_clients[TERSE_PATH_BYTES]; /* "": none */
    char listen_group[64];
    gid_t listen_gid; /* after finish; -1: the group is not changed */
    bool curve;       /* after finish: tcp is encrypted, with these keys */
    uint8_t curve_secret[TERSE_KEY_BYTES];
    uint8_t (*client_keys)[TERSE_KEY_BYTES];
    unsigned n_client_keys;
    terse_model_config *models; /* after finish: sorted by name */
    unsigned n_models;
    char path[TERSE_PATH_BYTES]; /* of the file; "" without one */
    char **files;                /* all that were read, by number */
    unsigned n_files;
    FILE *report;
    unsigned n_errors; /* of the file, or of what it names */
    unsigned n_usage;  /* of the command line */
} terse_config;

terse_config *terse_config_new(FILE *report); /* NULL when memory is out */
void terse_config_free(terse_config *config);
void terse_config_freep(terse_config **config);

/* One option of the command line: a setting, or --model's "NAME=FILE". */
void terse_config_option(terse_config *config, const terse_setting *setting, const char *value);
void terse_config_option_model(terse_config *config, const char *name_and_file);

/* Reads a file, then path.d's *.conf in the order of their names: what a later one sets wins over what an earlier one
 * sets, its lines of `listen` take the place of all before. A relative file is one beside the file that names it. */
void terse_config_read(terse_config *config, const char *path);
/* One file; `path` names it in the messages. */
void terse_config_read_stream(terse_config *config, const char *path, FILE *stream);

/* Lists model_dir, gives every model its values and checks files and endpoints. */
void terse_config_finish(terse_config *config);

/* A file as it is now; all 0 when there is none. */
terse_file_mark terse_config_mark(const char *file);
/* A line for each setting of [server] as terse_msg_settings has it; what has no room is left out. */
void terse_config_describe(const terse_config *config, char *text, size_t size);
/* The model of a name; NULL: there is none. */
terse_model_config *terse_config_model(const terse_config *config, const char *name);
/* Whether a model may have this name. */
int terse_config_check_name(const char *name, size_t length, terse_error *error);
/* Settings for a model that the configuration does not name: its section's where it has one, else [server]'s. */
void terse_config_settle(const terse_config *config, terse_model_config *model);
/* Whether clients may come in at an endpoint, as far as keys and insecure_tcp go (config_tcp.c). */
int terse_config_allow(const terse_config *config, const char *text, const terse_endpoint *endpoint,
                       terse_error *error);

#endif
