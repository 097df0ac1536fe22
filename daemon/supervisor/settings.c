/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/supervisor/settings.h"

#include <inttypes.h>
#include <string.h>

const terse_setting terse_settings[TERSE_N_SETTINGS] = {
#define ROW(id, where_, type_, name_, option_, argument_, unit_, default_, minimum_, maximum_, description_)           \
    [TERSE_SET_##id] = {                                                                                               \
        .where = (where_),                                                                                             \
        .type = TERSE_SETTING_##type_,                                                                                 \
        .name = (name_),                                                                                               \
        .option = (option_),                                                                                           \
        .argument = (argument_),                                                                                       \
        .unit = (unit_),                                                                                               \
        .fallback = (default_),                                                                                        \
        .minimum = (minimum_),                                                                                         \
        .maximum = (maximum_),                                                                                         \
        .description = (description_),                                                                                 \
    },
    TERSE_SETTINGS(ROW)
#undef ROW
};

const terse_setting *terse_setting_named(unsigned where, const char *name)
{
    for (int i = 0; i < TERSE_N_SETTINGS; i++)
        if ((terse_settings[i].where & where) && strcmp(terse_settings[i].name, name) == 0)
            return &terse_settings[i];
    return NULL;
}

/* How many letters must be written otherwise, left out or put in: Levenshtein's distance, of short names. */
static size_t distance(const char *a, const char *b)
{
    enum { MOST = 40 };
    size_t row[MOST + 1];
    const size_t n = strlen(b);
    if (strlen(a) > MOST || n > MOST)
        return MOST;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; *a; a++, i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            const size_t written = corner + (*a != b[j - 1]), put_in = row[j - 1] + 1, left_out = row[j] + 1;
            corner = row[j];
            row[j] = written < put_in ? written : put_in;
            row[j] = row[j] < left_out ? row[j] : left_out;
        }
    }
    return row[n];
}

const terse_setting *terse_setting_nearest(unsigned where, const char *name)
{
    const terse_setting *nearest = NULL;
    size_t least = strlen(name) / 3 + 1;
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        const size_t far = distance(name, terse_settings[i].name);
        if ((terse_settings[i].where & where) && far < least) {
            least = far;
            nearest = &terse_settings[i];
        }
    }
    return nearest;
}

const terse_setting *terse_setting_option(const char *option, size_t length)
{
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        const char *own = terse_settings[i].option;
        if (own && strlen(own) == length && memcmp(own, option, length) == 0)
            return &terse_settings[i];
    }
    return NULL;
}

/* Digits of `base`, all of them up to the first other character; false when there are none or too many. */
static bool read_digits(const char *text, unsigned base, const char **ret_rest, uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && (unsigned)(*at - '0') < base; at++)
        if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return false;
    *ret_rest = at;
    *ret_value = value;
    return at > text;
}

static bool read_bytes(const char *text, uint64_t *ret_value)
{
    const char *rest;
    uint64_t value;
    if (!read_digits(text, 10, &rest, &value))
        return false;
    static const char units[] = "KMG";
    const char *unit = *rest ? strchr(units, *rest) : NULL;
    if (unit) {
        if (__builtin_mul_overflow(value, UINT64_C(1) << (10 * (unit - units + 1)), &value))
            return false;
        rest++;
    }
    *ret_value = value;
    return *rest == 0;
}

/* "0.01" as 10000 millionths. */
static bool read_part(const char *text, uint64_t *ret_value)
{
    const char *rest;
    uint64_t whole, part = 0, unit = 1000000;
    if (!read_digits(text, 10, &rest, &whole) || whole > 1)
        return false;
    if (*rest == '.') {
        for (rest++; *rest >= '0' && *rest <= '9' && unit > 1; rest++)
            part += (uint64_t)(*rest - '0') * (unit /= 10);
    }
    *ret_value = whole * 1000000 + part;
    return *rest == 0;
}

/* The number of a word among those of "a|b|c". */
static bool read_choice(const char *text, const char *words, uint64_t *ret_value)
{
    const size_t length = strlen(text);
    for (uint64_t i = 0; *words; i++) {
        const size_t word = strcspn(words, "|");
        if (word == length && memcmp(words, text, word) == 0) {
            *ret_value = i;
            return true;
        }
        words += word + (words[word] == '|');
    }
    return false;
}

static int refuse(const terse_setting *setting, const char *text, terse_error *error)
{
    const char *unit = *setting->unit ? " " : "";
    if (setting->type == TERSE_SETTING_CHOICE)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s: found '%.100s', allowed: %s", setting->name, text,
                          setting->argument);
    if (setting->type == TERSE_SETTING_MODE)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s: found '%.100s', allowed: octal %04" PRIo64 "..%04" PRIo64,
                          setting->name, text, setting->minimum, setting->maximum);
    if (setting->type == TERSE_SETTING_PART)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s: found '%.100s', allowed: a number 0..1 with at most six decimals", setting->name, text);
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "%s: found '%.100s', allowed: a whole number %" PRIu64 "..%" PRIu64 "%s%s%s", setting->name, text,
                      setting->minimum, setting->maximum, unit, setting->unit,
                      setting->type == TERSE_SETTING_BYTES ? ", K, M or G may follow"
                      : *setting->unit                     ? ", written without a unit"
                                                           : "");
}

int terse_setting_parse(const terse_setting *setting, const char *text, uint64_t *ret_value, terse_error *error)
{
    uint64_t value = 0;
    bool read = false;
    const char *rest = "";
    switch (setting->type) {
    case TERSE_SETTING_TEXT: {
        const size_t length = strlen(text);
        if (length < setting->minimum || length > setting->maximum)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "%s: found %zu bytes of text, allowed: %" PRIu64 "..%" PRIu64 " bytes", setting->name,
                              length, setting->minimum, setting->maximum);
        return TERSE_OK;
    }
    case TERSE_SETTING_FLAG:
        if (strcmp(text, "yes") && strcmp(text, "no"))
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s: found '%.100s', allowed: yes, no", setting->name,
                              text);
        *ret_value = strcmp(text, "yes") == 0;
        return TERSE_OK;
    case TERSE_SETTING_CHOICE:
        read = read_choice(text, setting->argument, &value);
        break;
    case TERSE_SETTING_MODE:
        read = read_digits(text, 8, &rest, &value) && !*rest;
        break;
    case TERSE_SETTING_PART:
        read = read_part(text, &value);
        break;
    case TERSE_SETTING_BYTES:
        read = read_bytes(text, &value);
        break;
    case TERSE_SETTING_NUMBER:
        read = read_digits(text, 10, &rest, &value) && !*rest;
        break;
    }
    if (!read || value < setting->minimum || value > setting->maximum)
        return refuse(setting, text, error);
    *ret_value = value;
    return TERSE_OK;
}

static void print_range(FILE *out, const terse_setting *s)
{
    if (s->type == TERSE_SETTING_TEXT)
        return;
    const bool automatic = strstr(s->description, "(automatic") != NULL;
    if (s->type == TERSE_SETTING_FLAG)
        fprintf(out, " [%s]", s->fallback ? "yes" : "no");
    else if (s->type == TERSE_SETTING_PART)
        fprintf(out, " [%g; 0..1]", (double)s->fallback / 1e6);
    else if (s->type == TERSE_SETTING_CHOICE)
        fprintf(out, " [%.*s]", (int)strcspn(s->argument, "|"), s->argument);
    else if (s->type == TERSE_SETTING_MODE)
        fprintf(out, " [%04" PRIo64 "]", s->fallback);
    else if (automatic)
        fprintf(out, " [automatic; %" PRIu64 "..%" PRIu64 "]", s->minimum, s->maximum);
    else
        fprintf(out, " [%" PRIu64 "; %" PRIu64 "..%" PRIu64 "]", s->fallback, s->minimum, s->maximum);
}

/* "  LEFT   text": the text wraps at 100 columns behind column 30. */
static void print_row(FILE *out, const char *left, const terse_setting *s)
{
    int column = fprintf(out, "  %-27s", left);
    for (const char *word = s->description; *word;) {
        const int length = (int)strcspn(word, " ");
        if (column + 1 + length > 100)
            column = fprintf(out, "\n%*s", 29, "") - 1;
        column += fprintf(out, " %.*s", length, word);
        word += length;
        word += strspn(word, " ");
    }
    print_range(out, s);
    fputc('\n', out);
}

void terse_settings_print_options(FILE *out)
{
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        const terse_setting *s = &terse_settings[i];
        char left[64];
        if (!s->option)
            continue;
        snprintf(left, sizeof left, "%s %s", s->option, s->argument);
        print_row(out, left, s);
    }
}

void terse_settings_print_file(FILE *out)
{
    static const struct {
        unsigned where;
        const char *title;
    } sections[] = {{TERSE_IN_SERVER, "[server]"}, {TERSE_IN_MODEL, "[model NAME]"}};
    for (size_t part = 0; part < 2; part++) {
        fprintf(out, "%s\n", sections[part].title);
        for (int i = 0; i < TERSE_N_SETTINGS; i++) {
            const terse_setting *s = &terse_settings[i];
            char left[64];
            if (!(s->where & sections[part].where))
                continue;
            snprintf(left, sizeof left, "%s = %s", s->name, s->argument);
            print_row(out, left, s);
        }
    }
}

terse_setting_reload terse_setting_on_reload(terse_setting_id id)
{
    switch (id) {
    case TERSE_SET_FILE:
    case TERSE_SET_VERSION:
    case TERSE_SET_THREADS:
        return TERSE_RELOAD_MODEL;
    case TERSE_SET_WORKERS:
    case TERSE_SET_MODEL_DIR:
    case TERSE_SET_CURVE_CLIENTS:
    case TERSE_SET_MAX_QUEUE:
    case TERSE_SET_MAX_QUEUE_BYTES:
    case TERSE_SET_MAX_CLIENT:
    case TERSE_SET_MAX_CLIENT_BYTES:
    case TERSE_SET_STATISTICS:
    case TERSE_SET_TRACE_SAMPLE:
    case TERSE_SET_LOAD_TIMEOUT:
    case TERSE_SET_WARM_TIMEOUT:
    case TERSE_SET_FRONTEND_TIMEOUT:
    case TERSE_SET_DRAIN_TIMEOUT:
        return TERSE_RELOAD_AT_ONCE;
    default: /* settings of models are told to the front end; the rest was given to processes when they started */
        return terse_settings[id].where == TERSE_IN_BOTH ? TERSE_RELOAD_AT_ONCE : TERSE_RELOAD_RESTART;
    }
}

static void format_number(const terse_setting *s, uint64_t value, char *text, size_t size)
{
    static const char units[] = "KMGT";
    int unit = -1;
    for (; s->type == TERSE_SETTING_BYTES && unit < 2 && value && value % 1024 == 0; unit++)
        value /= 1024;
    snprintf(text, size, "%" PRIu64 "%.*s", value, unit >= 0, unit >= 0 ? &units[unit] : "");
}

/* Word number `value` of "a|b|c". */
static void format_choice(const terse_setting *s, uint64_t value, char *text, size_t size)
{
    const char *words = s->argument;
    for (; value > 0 && strchr(words, '|'); value--)
        words = strchr(words, '|') + 1;
    snprintf(text, size, "%.*s", (int)strcspn(words, "|"), words);
}

static void format_value(const terse_setting *s, uint64_t value, char *text, size_t size)
{
    if (s->type == TERSE_SETTING_MODE)
        snprintf(text, size, "%04" PRIo64, value);
    else if (s->type == TERSE_SETTING_PART)
        snprintf(text, size, "%g", (double)value / 1e6);
    else if (s->type == TERSE_SETTING_FLAG)
        snprintf(text, size, "%s", value ? "yes" : "no");
    else if (s->type == TERSE_SETTING_CHOICE)
        format_choice(s, value, text, size);
    else
        format_number(s, value, text, size);
}

void terse_setting_format(const terse_setting *setting, uint64_t value, char *text, size_t size)
{
    if (value == 0 && strstr(setting->description, "(automatic"))
        snprintf(text, size, "automatic");
    else
        format_value(setting, value, text, size);
}

static void print_value(FILE *out, const terse_setting *s, uint64_t value)
{
    char text[64];
    format_value(s, value, text, sizeof text);
    fputs(text, out);
}

void terse_settings_print_table(FILE *out)
{
    static const char *const places[] = {
        [TERSE_IN_SERVER] = "server", [TERSE_IN_MODEL] = "model", [TERSE_IN_BOTH] = "both"};
    static const char *const reloads[] = {[TERSE_RELOAD_RESTART] = "wants a restart",
                                          [TERSE_RELOAD_AT_ONCE] = "at once",
                                          [TERSE_RELOAD_MODEL] = "the model is loaded again"};
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        const terse_setting *s = &terse_settings[i];
        const bool numbers =
            s->type != TERSE_SETTING_TEXT && s->type != TERSE_SETTING_CHOICE && s->type != TERSE_SETTING_FLAG;
        fprintf(out, "setting\t%s\t%s\t%s\t%s\t%s\t", places[s->where], s->name, s->argument,
                s->option ? s->option : "", s->unit);
        if (strstr(s->description, "(automatic"))
            fputs("automatic", out);
        else if (s->type != TERSE_SETTING_TEXT)
            print_value(out, s, s->fallback);
        fputc('\t', out);
        if (numbers) {
            print_value(out, s, s->minimum);
            fputs(" to ", out);
            print_value(out, s, s->maximum);
        } else if (s->type != TERSE_SETTING_TEXT) {
            for (const char *c = s->argument; *c; c++)
                fputs(*c == '|' ? ", " : (char[]){*c, 0}, out);
        }
        fprintf(out, "\t%s\t%s\n", s->description, reloads[terse_setting_on_reload((terse_setting_id)i)]);
    }
}
