/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes: inih splits "name = value" and knows comments, but tells no line numbers (as Debian builds it), takes
 * an indented line for the continuation of the last value, cuts lines at 200 bytes and sections at 50, and reports its
 * first error only. So it reads through next_line() below, which counts, strips the indentation, keeps the whole line,
 * handles the sections itself and complains about each line that is none of them. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/supervisor/config_internal.h"

enum { LINE_BYTES = 8192 }; /* no line is longer */

typedef enum section {
    NOWHERE, /* before the first section */
    SERVER,
    MODEL,
    SKIPPED, /* a section with a mistake: its lines are not judged */
} section;

typedef struct reader {
    terse_config *config;
    FILE *stream;
    const char *path;
    unsigned line;  /* a place: with the file's number */
    unsigned given; /* the line of a setting that inih has not split yet; 0: none */
    char text[LINE_BYTES];
    bool cut; /* inih got only the beginning of the line */
    section section;
    terse_model_config *model;
    unsigned server_line;
} reader;

static char *strip(char *text)
{
    text += strspn(text, " \t\r\n\f\v");
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1]))
        text[--length] = 0;
    return text;
}

/* Reads one line into r->text, without its newline. False at the end of the file. */
static bool read_line(reader *r)
{
    size_t length = 0;
    bool zero = false;
    int c;
    while ((c = getc(r->stream)) != EOF && c != '\n') {
        zero |= c == 0;
        if (length < LINE_BYTES - 1)
            r->text[length] = (char)c;
        length++;
    }
    if (c == EOF && length == 0)
        return false;
    if (TERSE_LINE_OF(r->line + 1)) /* of a file that is longer the last lines share a number */
        r->line++;
    r->text[length < LINE_BYTES ? length : LINE_BYTES - 1] = 0;
    if (zero || length >= LINE_BYTES) {
        if (zero)
            terse_config_complain(r->config, r->line, "the line holds a 0 byte; allowed: text");
        else
            terse_config_complain(r->config, r->line, "the line has %zu bytes, allowed: %d", length, LINE_BYTES - 1);
        r->text[0] = 0;
    }
    if (TERSE_LINE_OF(r->line) == 1 && strncmp(r->text, "\xef\xbb\xbf", 3) == 0)
        memmove(r->text, r->text + 3, strlen(r->text + 3) + 1);
    return true;
}

static bool in_this_file(const reader *r, unsigned place)
{
    return place && TERSE_FILE_OF(place) == TERSE_FILE_OF(r->line);
}

static void enter_model(reader *r, char *name)
{
    const size_t length = strlen(name);
    if (length >= 2 && name[0] == '"' && name[length - 1] == '"') {
        name[length - 1] = 0;
        name++;
    }
    terse_model_config *model = terse_config_model(r->config, name);
    r->section = SKIPPED;
    if (model && in_this_file(r, model->section_line)) {
        terse_config_complain(r->config, r->line, "[model %.200s]: the model has a section at line %u; allowed: one",
                              name, TERSE_LINE_OF(model->section_line));
        return;
    }
    if (!model)
        model = terse_config_add(r->config, r->line, name, strlen(name));
    if (!model)
        return;
    model->section_line = r->line;
    r->model = model;
    r->section = MODEL;
}

static void enter_section(reader *r, char *text)
{
    char *end = strchr(text, ']');
    r->section = SKIPPED;
    if (!end) {
        terse_config_complain(r->config, r->line, "found '%.100s', allowed: [server] or [model NAME]", text);
        return;
    }
    const char *rest = strip(end + 1);
    if (*rest && *rest != ';' && *rest != '#') {
        terse_config_complain(r->config, r->line, "found '%.100s' behind the section, allowed: nothing", rest);
        return;
    }
    *end = 0;
    text = strip(text + 1);
    if (strcmp(text, "server") == 0) {
        if (r->server_line)
            terse_config_complain(r->config, r->line, "[server]: there is one at line %u; allowed: one",
                                  TERSE_LINE_OF(r->server_line));
        else
            r->server_line = r->line;
        r->section = SERVER;
    } else if (strncmp(text, "model", 5) == 0 && (text[5] == ' ' || text[5] == '\t'))
        enter_model(r, strip(text + 5));
    else
        terse_config_complain(r->config, r->line, "section [%.100s]: not known, allowed: [server], [model NAME]", text);
}

/* inih gives back nothing for a line whose comment begins before its '='. */
static void expect_taken(reader *r)
{
    if (r->given)
        terse_config_complain(r->config, r->given, "found no value, allowed: NAME = VALUE");
    r->given = 0;
}

/* inih's source of lines: an empty line stands for everything that inih need not see. */
static char *next_line(char *buffer, int size, void *user)
{
    reader *r = user;
    expect_taken(r);
    if (!read_line(r))
        return NULL;
    const char *text = strip(r->text);
    memmove(r->text, text, strlen(text) + 1);
    if (*r->text == '[') {
        enter_section(r, r->text);
        *r->text = 0;
    } else if (*r->text && *r->text != ';' && *r->text != '#') {
        if (strpbrk(r->text, "=:")) {
            r->given = r->line;
        } else {
            terse_config_complain(r->config, r->line, "found '%.100s', allowed: NAME = VALUE", r->text);
            *r->text = 0;
        }
    }
    /* inih drops what fills its line, and newer versions the next lines with it: it sees the name alone then. */
    r->cut = strlen(r->text) + 2 >= (size_t)size;
    if (r->cut)
        snprintf(buffer, (size_t)size, "%.*s=\n",
                 (int)(strcspn(r->text, "=:") < (size_t)size - 3 ? strcspn(r->text, "=:") : (size_t)size - 3), r->text);
    else
        snprintf(buffer, (size_t)size, "%s", r->text);
    return buffer;
}

/* The value of a line that is too long for inih. */
static const char *whole_value(reader *r)
{
    char *value = strpbrk(r->text, "=:");
    if (!value)
        return "";
    for (char *c = value + 1; *c; c++)
        if (*c == ';' && isspace((unsigned char)c[-1]))
            *c = 0;
    return strip(value + 1);
}

static void add_listen(reader *r, const char *value)
{
    terse_config *config = r->config;
    if (config->by_option[TERSE_SET_LISTEN])
        return;
    if (config->n_listen > 0 && !in_this_file(r, config->listen_line[0]))
        config->n_listen = 0; /* an earlier file's */
    if (config->n_listen == TERSE_MAX_LISTEN) {
        terse_config_complain(config, r->line, "listen: there are %d already, allowed: %d", TERSE_MAX_LISTEN,
                              TERSE_MAX_LISTEN);
        return;
    }
    config->listen_line[config->n_listen] = r->line;
    snprintf(config->listen[config->n_listen++], TERSE_ENDPOINT_BYTES, "%s", value);
}

/* A relative file is one beside the file that names it, wherever tersed was started. */
static void set_path(reader *r, const char *what, char *path, const char *value)
{
    const char *slash = strrchr(r->path, '/');
    const int directory = *value != '/' && slash ? (int)(slash - r->path) + 1 : 0;
    const int length = snprintf(path, TERSE_PATH_BYTES, "%.*s%s", directory, r->path, value);
    if (length >= TERSE_PATH_BYTES)
        terse_config_complain(r->config, r->line, "%s: the path has %d bytes, allowed: %d", what, length,
                              TERSE_PATH_BYTES - 1);
}

static void store_text(reader *r, terse_setting_id id, const char *value)
{
    if (id == TERSE_SET_LISTEN)
        add_listen(r, value);
    else if (id == TERSE_SET_MODEL_DIR && !r->config->by_option[id])
        set_path(r, "model_dir", r->config->model_dir, value);
    else if (id == TERSE_SET_CURVE_SERVER_KEY && !r->config->by_option[id])
        set_path(r, "curve_server_key", r->config->curve_server_key, value);
    else if (id == TERSE_SET_CURVE_CLIENTS && !r->config->by_option[id])
        set_path(r, "curve_clients", r->config->curve_clients, value);
    else if (id == TERSE_SET_LISTEN_GROUP)
        snprintf(r->config->listen_group, sizeof r->config->listen_group, "%s", value);
    else if (id == TERSE_SET_FILE && !r->model->by_option)
        set_path(r, "file", r->model->file, value);
    else if (id == TERSE_SET_VERSION)
        snprintf(r->model->version, sizeof r->model->version, "%s", value);
}

static void store(reader *r, const char *name, const char *text)
{
    terse_config *config = r->config;
    const bool in_model = r->section == MODEL;
    const terse_setting *setting = terse_setting_named(in_model ? TERSE_IN_MODEL : TERSE_IN_SERVER, name);
    const char *const where = in_model ? "[model NAME]" : "[server]";
    if (!setting) {
        const terse_setting *nearest = terse_setting_nearest(in_model ? TERSE_IN_MODEL : TERSE_IN_SERVER, name);
        if (terse_setting_named(TERSE_IN_BOTH, name))
            terse_config_complain(config, r->line, "%s: not allowed in %s, only in %s", name, where,
                                  in_model ? "[server]" : "[model NAME]");
        else
            terse_config_complain(config, r->line, "%s: not known in %s%s%s; `tersed --help` lists the settings", name,
                                  where, nearest ? ", nearest is " : "", nearest ? nearest->name : "");
        return;
    }
    const ptrdiff_t id = setting - terse_settings;
    unsigned *const line = in_model ? &r->model->line[id] : &config->line[id];
    if (in_this_file(r, *line) && id != TERSE_SET_LISTEN) {
        terse_config_complain(config, r->line, "%s: set at line %u already; allowed: once", name, TERSE_LINE_OF(*line));
        return;
    }
    *line = r->line;
    uint64_t value = 0;
    terse_error error;
    if (terse_setting_parse(setting, text, &value, &error) != TERSE_OK)
        terse_config_complain(config, r->line, "%s", error.message);
    else if (setting->type == TERSE_SETTING_TEXT)
        store_text(r, (terse_setting_id)id, text);
    else if (in_model)
        r->model->value[id] = value;
    else if (!config->by_option[id])
        config->value[id] = value;
}

static int take(void *user, const char *inih_section, const char *name, const char *value)
{
    reader *r = user;
    (void)inih_section; /* cut at 50 bytes */
    r->given = 0;
    if (r->section == NOWHERE)
        terse_config_complain(r->config, r->line,
                              "%s: stands before the first section, allowed: [server] or [model NAME] "
                              "first",
                              name);
    else if (r->section != SKIPPED)
        store(r, name, r->cut ? whole_value(r) : value);
    return 1;
}

/* The number of a file that is read now; false, with a complaint, when that cannot be. */
static bool add_file(terse_config *config, const char *path, unsigned *ret_number)
{
    char **files = realloc(config->files, (config->n_files + 1) * sizeof *files);
    char *copy = files ? strdup(path) : NULL;
    if (files)
        config->files = files;
    if (!copy) {
        terse_config_complain(config, 0, "cannot read '%s': %s", path, strerror(ENOMEM));
        return false;
    }
    *ret_number = config->n_files;
    config->files[config->n_files++] = copy;
    return true;
}

void terse_config_read_stream(terse_config *config, const char *path, FILE *stream)
{
    reader *r = calloc(1, sizeof *r);
    unsigned number;
    if (!r || !add_file(config, path, &number)) {
        if (!r)
            terse_config_complain(config, 0, "cannot read '%s': %s", path, strerror(errno));
        free(r);
        return;
    }
    if (number == 0)
        snprintf(config->path, sizeof config->path, "%s", path);
    r->config = config;
    r->stream = stream;
    r->path = config->files[number];
    r->line = number << TERSE_LINE_BITS;
    ini_parse_stream(next_line, r, take, r);
    expect_taken(r);
    if (ferror(stream))
        terse_config_complain(config, 0, "cannot read '%s': %s", path, strerror(errno));
    free(r);
}

static void read_one(terse_config *config, const char *path)
{
    FILE *stream = fopen(path, "re");
    if (!stream) {
        terse_config_complain(config, 0, "cannot read the configuration '%s': %s", path, strerror(errno));
        return;
    }
    terse_config_read_stream(config, path, stream);
    fclose(stream);
}

/* Hidden names are files that are still being written, or an editor's. */
static int is_drop_in(const struct dirent *entry)
{
    const size_t length = strlen(entry->d_name);
    return entry->d_name[0] != '.' && length > 5 && strcmp(entry->d_name + length - 5, ".conf") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

void terse_config_read(terse_config *config, const char *path)
{
    char directory[TERSE_PATH_BYTES], file[TERSE_PATH_BYTES + 300];
    struct dirent **found = NULL;
    read_one(config, path);
    if (snprintf(directory, sizeof directory, "%s.d", path) >= (int)sizeof directory)
        return;
    const int n = scandir(directory, &found, is_drop_in, by_bytes);
    if (n < 0 && errno != ENOENT && errno != ENOTDIR)
        terse_config_complain(config, 0, "cannot list '%s': %s", directory, strerror(errno));
    if (n >= TERSE_MAX_FILES)
        terse_config_complain(config, 0, "'%s' holds %d files, allowed: %d", directory, n, TERSE_MAX_FILES - 1);
    for (int i = 0; i < n; i++) {
        snprintf(file, sizeof file, "%s/%s", directory, found[i]->d_name);
        if (n < TERSE_MAX_FILES)
            read_one(config, file);
        free(found[i]);
    }
    free(found);
}
