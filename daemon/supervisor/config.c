/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/config.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/supervisor/config_internal.h"

static const char suffix[] = ".terse";

terse_config *terse_config_new(FILE *report)
{
    terse_config *config = calloc(1, sizeof *config);
    if (!config)
        return NULL;
    config->report = report;
    config->models = calloc(TERSE_MAX_MODELS, sizeof *config->models);
    if (!config->models) {
        free(config);
        return NULL;
    }
    for (int i = 0; i < TERSE_N_SETTINGS; i++)
        config->value[i] = terse_settings[i].fallback;
    return config;
}

void terse_config_free(terse_config *config)
{
    if (!config)
        return;
    free(config->models);
    free(config->client_keys);
    for (unsigned i = 0; i < config->n_files; i++)
        free(config->files[i]);
    free(config->files);
    explicit_bzero(config->curve_secret, sizeof config->curve_secret);
    free(config);
}

void terse_config_freep(terse_config **config)
{
    terse_config_free(*config);
    *config = NULL;
}

void terse_config_complain(terse_config *config, unsigned line, const char *format, ...)
{
    va_list args;
    char text[1024];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (line)
        fprintf(config->report, "%s:%u: %s\n", config->files[TERSE_FILE_OF(line)], TERSE_LINE_OF(line), text);
    else
        fprintf(config->report, "tersed: %s\n", text);
    config->n_errors++;
}

terse_model_config *terse_config_model(const terse_config *config, const char *name)
{
    for (unsigned i = 0; i < config->n_models; i++)
        if (strcmp(config->models[i].name, name) == 0)
            return &config->models[i];
    return NULL;
}

/* A name is told to clients and stands in options, logs and file names. */
int terse_config_check_name(const char *name, size_t length, terse_error *error)
{
    if (length == 0 || length >= TERSE_MODEL_NAME)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "model name '%.40s' has %zu bytes, allowed: 1..%d", name,
                          length, TERSE_MODEL_NAME - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f || name[i] == '/' || name[i] == '=')
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "model name '%.*s': byte 0x%02x, allowed: no control characters, '/' and '='",
                              (int)length, name, (unsigned char)name[i]);
    return TERSE_OK;
}

terse_model_config *terse_config_add(terse_config *config, unsigned line, const char *name, size_t length)
{
    terse_error error;
    if (terse_config_check_name(name, length, &error) != TERSE_OK) {
        terse_config_complain(config, line, "%s", error.message);
        return NULL;
    }
    if (config->n_models == TERSE_MAX_MODELS) {
        terse_config_complain(config, line, "model '%.*s': there are %d already, allowed: %d", (int)length, name,
                              TERSE_MAX_MODELS, TERSE_MAX_MODELS);
        return NULL;
    }
    terse_model_config *model = &config->models[config->n_models++];
    memset(model, 0, sizeof *model);
    memcpy(model->name, name, length);
    memcpy(model->version, "1", 2);
    return model;
}

void terse_config_option(terse_config *config, const terse_setting *setting, const char *value)
{
    const ptrdiff_t id = setting - terse_settings;
    terse_error error;
    if (terse_setting_parse(setting, value, &config->value[id], &error) != TERSE_OK) {
        fprintf(config->report, "tersed: %s: %s\n", setting->option, error.message);
        config->n_usage++;
        return;
    }
    config->by_option[id] = true;
    if (id == TERSE_SET_MODEL_DIR)
        snprintf(config->model_dir, sizeof config->model_dir, "%s", value);
    if (id == TERSE_SET_CURVE_SERVER_KEY)
        snprintf(config->curve_server_key, sizeof config->curve_server_key, "%s", value);
    if (id == TERSE_SET_CURVE_CLIENTS)
        snprintf(config->curve_clients, sizeof config->curve_clients, "%s", value);
    if (id != TERSE_SET_LISTEN)
        return;
    if (config->n_listen == TERSE_MAX_LISTEN) {
        fprintf(config->report, "tersed: --listen %s: there are %d already, allowed: %d\n", value, TERSE_MAX_LISTEN,
                TERSE_MAX_LISTEN);
        config->n_usage++;
        return;
    }
    snprintf(config->listen[config->n_listen++], TERSE_ENDPOINT_BYTES, "%s", value);
}

void terse_config_option_model(terse_config *config, const char *name_and_file)
{
    const char *equals = strchr(name_and_file, '=');
    terse_error error;
    if (!equals || !equals[1] || strlen(equals + 1) >= TERSE_PATH_BYTES) {
        fprintf(config->report, "tersed: --model: found '%.200s', allowed: NAME=FILE\n", name_and_file);
        config->n_usage++;
        return;
    }
    const size_t length = (size_t)(equals - name_and_file);
    if (terse_config_check_name(name_and_file, length, &error) != TERSE_OK) {
        fprintf(config->report, "tersed: --model: %s\n", error.message);
        config->n_usage++;
        return;
    }
    char name[TERSE_MODEL_NAME] = "";
    memcpy(name, name_and_file, length);
    if (terse_config_model(config, name)) {
        terse_config_complain(config, 0, "--model %s: the model '%s' was named before; allowed: once", name_and_file,
                              name);
        return;
    }
    terse_model_config *model = terse_config_add(config, 0, name, length);
    if (!model)
        return;
    model->by_option = true;
    snprintf(model->file, sizeof model->file, "%s", equals + 1);
}

/* --- finish: what needs the whole configuration, and the file system ------------------------------------------- */

/* The line that named a model's file: 0 for the command line and for model_dir. */
static unsigned file_line(const terse_model_config *model)
{
    return model->by_option ? 0 : model->line[TERSE_SET_FILE];
}

static terse_file_mark mark_of(const struct stat *info)
{
    return (terse_file_mark){
        .device = info->st_dev,
        .inode = info->st_ino,
        .bytes = (uint64_t)info->st_size,
        .changed_ns = (uint64_t)info->st_mtim.tv_sec * 1000000000 + (uint64_t)info->st_mtim.tv_nsec,
    };
}

terse_file_mark terse_config_mark(const char *file)
{
    struct stat info = {0};
    (void)stat(file, &info);
    return mark_of(&info);
}

static void check_file(terse_config *config, terse_model_config *model)
{
    struct stat info = {0};
    if (stat(model->file, &info) < 0 || access(model->file, R_OK) < 0)
        terse_config_complain(config, file_line(model), "model '%s': cannot read '%s': %s", model->name, model->file,
                              strerror(errno));
    else if (!S_ISREG(info.st_mode))
        terse_config_complain(config, file_line(model), "model '%s': '%s' is %s, allowed: a regular file", model->name,
                              model->file, S_ISDIR(info.st_mode) ? "a directory" : "not a file");
    model->mark = mark_of(&info);
}

/* A setting for a model that model_dir serves has its section; a file= there wins over the directory's. */
static void add_from_directory(terse_config *config, const char *file, size_t name_length)
{
    char name[TERSE_MODEL_NAME] = "";
    terse_model_config *model = NULL;
    if (name_length < sizeof name) {
        memcpy(name, file, name_length);
        model = terse_config_model(config, name);
    }
    if (model && model->file[0])
        return;
    if (!model)
        model = terse_config_add(config, config->line[TERSE_SET_MODEL_DIR], file, name_length);
    if (model && snprintf(model->file, sizeof model->file, "%s/%s", config->model_dir, file) >= (int)sizeof model->file)
        terse_config_complain(config, config->line[TERSE_SET_MODEL_DIR], "model_dir: the path of '%s' is too long",
                              name);
}

static void list_directory(terse_config *config)
{
    const unsigned line = config->line[TERSE_SET_MODEL_DIR];
    DIR *directory = opendir(config->model_dir);
    if (!directory) {
        terse_config_complain(config, line, "model_dir: cannot list '%s': %s", config->model_dir, strerror(errno));
        return;
    }
    unsigned found = 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const size_t length = strlen(entry->d_name);
        /* Hidden names are files that are still being written. */
        if (entry->d_name[0] == '.' || length < sizeof suffix || strcmp(entry->d_name + length - 6, suffix) != 0)
            continue;
        found++;
        add_from_directory(config, entry->d_name, length - (sizeof suffix - 1));
    }
    closedir(directory);
    if (found == 0 && config->n_models == 0)
        terse_config_complain(config, line, "model_dir: '%s' holds no *.terse file; allowed: at least one model",
                              config->model_dir);
}

static void check_memory(terse_config *config)
{
    static const terse_setting_id memories[] = {TERSE_SET_INPUT_MEMORY, TERSE_SET_OUTPUT_MEMORY};
    for (size_t i = 0; i < 2; i++) {
        const uint64_t bytes = config->value[memories[i]];
        if (bytes && bytes < config->value[TERSE_SET_MAX_REQUEST])
            terse_config_complain(config, config->line[memories[i]],
                                  "%s: found %" PRIu64 ", allowed: at least max_request_bytes, %" PRIu64,
                                  terse_settings[memories[i]].name, bytes, config->value[TERSE_SET_MAX_REQUEST]);
    }
}

/* The command line wins over the model's section, which wins over [server]. */
static void resolve_values(const terse_config *config, terse_model_config *model)
{
    for (int i = 0; i < TERSE_N_SETTINGS; i++)
        if (terse_settings[i].where == TERSE_IN_BOTH && (!model->line[i] || config->by_option[i]))
            model->value[i] = config->value[i];
}

void terse_config_settle(const terse_config *config, terse_model_config *model)
{
    const terse_model_config *known = terse_config_model(config, model->name);
    if (known)
        memcpy(model->value, known->value, sizeof model->value);
    else
        resolve_values(config, model);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const terse_model_config *)a)->name, ((const terse_model_config *)b)->name);
}

void terse_config_finish(terse_config *config)
{
    if (config->model_dir[0])
        list_directory(config);
    for (unsigned i = 0; i < config->n_models; i++) {
        terse_model_config *model = &config->models[i];
        resolve_values(config, model);
        if (model->file[0])
            check_file(config, model);
        else if (!model->line[TERSE_SET_FILE])
            terse_config_complain(config, model->section_line,
                                  "[model %s]: no file; allowed: file = FILE, or a %s%s in "
                                  "model_dir",
                                  model->name, model->name, suffix);
    }
    if (config->n_models == 0 && config->n_errors + config->n_usage == 0)
        terse_config_complain(config, 0,
                              "no model; allowed: at least one (--model NAME=FILE, --model-dir DIR, or the "
                              "configuration file's [model NAME])");
    terse_config_check_access(config);
    check_memory(config);
    qsort(config->models, config->n_models, sizeof *config->models, by_name);
}

/* --- what is in force ------------------------------------------------------------------------------------------ */

static void describe_text(const terse_config *config, int id, char *text, size_t size)
{
    const char *one = id == TERSE_SET_MODEL_DIR          ? config->model_dir
                      : id == TERSE_SET_LISTEN_GROUP     ? config->listen_group
                      : id == TERSE_SET_CURVE_SERVER_KEY ? config->curve_server_key
                      : id == TERSE_SET_CURVE_CLIENTS    ? config->curve_clients
                                                         : "";
    snprintf(text, size, "%s", one);
    for (unsigned i = 0; id == TERSE_SET_LISTEN && i < config->n_listen; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s", i ? " " : "", config->listen[i]);
    }
}

void terse_config_describe(const terse_config *config, char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        const terse_setting *setting = &terse_settings[i];
        char value[TERSE_PATH_BYTES], line[TERSE_PATH_BYTES * 2 + 128];
        if (!(setting->where & TERSE_IN_SERVER))
            continue;
        if (setting->type == TERSE_SETTING_TEXT)
            describe_text(config, i, value, sizeof value);
        else
            terse_setting_format(setting, config->value[i], value, sizeof value);
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\t", setting->name, value, setting->unit);
        if (config->by_option[i])
            length += snprintf(line + length, sizeof line - (size_t)length, "%s\n", setting->option);
        else if (config->line[i])
            length += snprintf(line + length, sizeof line - (size_t)length, "%s:%u\n",
                               config->files[TERSE_FILE_OF(config->line[i])], TERSE_LINE_OF(config->line[i]));
        else
            length += snprintf(line + length, sizeof line - (size_t)length, "default\n");
        if (used + (size_t)length >= size)
            break;
        memcpy(text + used, line, (size_t)length);
        used += (size_t)length;
    }
    text[used] = 0;
}
