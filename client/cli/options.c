/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "terse run" for `run`; a program of its own ("terse-gateway") has its whole name. */
static const char *before(const char *name)
{
    return strncmp(name, "terse-", 6) == 0 ? "" : "terse ";
}

int terse_cli_fail(const char *name, const terse_error *error)
{
    fflush(stdout);
    fprintf(stderr, "%s%s: %s\n", before(name), name, error->message);
    return TERSE_CLI_FAILED;
}

int terse_cli_usage_error(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s%s: ", before(name), name);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (see %s%s --help)\n", before(name), name);
    va_end(args);
    return TERSE_CLI_USAGE;
}

static int print_help(const terse_cli_usage *usage, const terse_cli_option *options)
{
    printf("usage: %s%s %s\n\n%s\n\n", before(usage->name), usage->name, usage->arguments, usage->about);
    for (const terse_cli_option *o = options; o->name; o++) {
        char left[64];
        const int n = snprintf(left, sizeof left, "%s%c%s--%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ',
                               o->letter ? ", " : "  ", o->name);
        if (o->argument && n > 0 && (size_t)n < sizeof left)
            snprintf(left + n, sizeof left - (size_t)n, " %s", o->argument);
        printf("  %-28s %s\n", left, o->help);
    }
    printf("  %-28s %s\n", "    --help", "print this");
    return TERSE_CLI_DONE;
}

/* A word of the table that manuals and completions are made of: what would part words becomes a blank. */
static void print_word(const char *text, char end)
{
    for (; *text; text++)
        putchar(*text == '\t' || *text == '\n' ? ' ' : *text);
    putchar(end);
}

static int print_table(const terse_cli_usage *usage, const terse_cli_option *options)
{
    printf("program\t%s%s\t%s\n", before(usage->name), usage->name, usage->arguments);
    fputs("about\t", stdout);
    print_word(usage->about, '\n');
    for (const terse_cli_option *o = options; o->name; o++) {
        if (o->letter)
            printf("option\t-%c\t--%s\t%s\t", o->letter, o->name, o->argument ? o->argument : "");
        else
            printf("option\t\t--%s\t%s\t", o->name, o->argument ? o->argument : "");
        print_word(o->help, '\n');
    }
    printf("option\t-h\t--help\t\tprint this\n");
    return TERSE_CLI_DONE;
}

static int store(const terse_cli_usage *usage, const terse_cli_option *option, const char *text)
{
    char *end = NULL;
    errno = 0;
    switch (option->kind) {
    case TERSE_CLI_FLAG:
        *(bool *)option->target = true;
        return -1;
    case TERSE_CLI_TEXT:
        *(const char **)option->target = text;
        return -1;
    case TERSE_CLI_TEXTS: {
        terse_cli_texts *texts = option->target;
        if (texts->n == TERSE_CLI_MAX_TEXTS)
            return terse_cli_usage_error(usage->name, "--%s is there more than %d times", option->name,
                                         TERSE_CLI_MAX_TEXTS);
        texts->texts[texts->n++] = text;
        return -1;
    }
    case TERSE_CLI_COUNT: {
        const uint64_t value = strtoull(text, &end, 10);
        if (errno || *end || end == text || strchr(text, '-') || (double)value < option->min ||
            (double)value > option->max)
            return terse_cli_usage_error(usage->name, "--%s is '%s', allowed are whole numbers from %.0f to %.0f",
                                         option->name, text, option->min, option->max);
        *(uint64_t *)option->target = value;
        return -1;
    }
    case TERSE_CLI_NUMBER: {
        const double value = strtod(text, &end);
        if (errno || *end || end == text || !isfinite(value) || value < option->min || value > option->max)
            return terse_cli_usage_error(usage->name, "--%s is '%s', allowed are numbers from %g to %g", option->name,
                                         text, option->min, option->max);
        *(double *)option->target = value;
        return -1;
    }
    }
    return TERSE_CLI_USAGE;
}

static const terse_cli_option *find(const terse_cli_option *options, const char *name, size_t length, char letter)
{
    for (const terse_cli_option *o = options; o->name; o++)
        if (letter ? o->letter == letter : strlen(o->name) == length && memcmp(o->name, name, length) == 0)
            return o;
    return NULL;
}

/* Handles argv[*at] (an option) and moves *at over its argument. */
static int parse_option(const terse_cli_usage *usage, const terse_cli_option *options, int argc, char **argv, int *at)
{
    const char *text = argv[*at], *value = NULL;
    const terse_cli_option *option;
    if (text[1] == '-') {
        const char *equals = strchr(text, '=');
        option = find(options, text + 2, equals ? (size_t)(equals - text - 2) : strlen(text + 2), 0);
        value = equals ? equals + 1 : NULL;
    } else {
        option = find(options, NULL, 0, text[1]);
        value = text[2] ? text + 2 : NULL;
    }
    if (!option)
        return terse_cli_usage_error(usage->name, "unknown option '%s'", text);
    if (option->kind == TERSE_CLI_FLAG && value)
        return terse_cli_usage_error(usage->name, "--%s takes no value", option->name);
    if (option->kind != TERSE_CLI_FLAG && !value) {
        if (*at + 1 >= argc)
            return terse_cli_usage_error(usage->name, "--%s wants a value (%s)", option->name, option->argument);
        value = argv[++*at];
    }
    return store(usage, option, value);
}

int terse_cli_parse(const terse_cli_usage *usage, const terse_cli_option *options, int argc, char **argv,
                    const char **ret_positional, int *ret_n_positional)
{
    int n = 0;
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else if (!only_positional && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            return print_help(usage, options);
        } else if (i == 1 && argc == 2 && strcmp(argv[i], "--help-table") == 0) {
            return print_table(usage, options);
        } else if (!only_positional && argv[i][0] == '-' && argv[i][1]) {
            const int code = parse_option(usage, options, argc, argv, &i);
            if (code >= 0)
                return code;
        } else if (n == usage->max_positional) {
            return terse_cli_usage_error(usage->name, "'%s' is one argument too many", argv[i]);
        } else {
            ret_positional[n++] = argv[i];
        }
    }
    if (n < usage->min_positional)
        return terse_cli_usage_error(usage->name, "wants: %s", usage->arguments);
    *ret_n_positional = n;
    return -1;
}

bool terse_cli_helper(const char *program, char *ret_path, unsigned long size)
{
    static const char *const places[] = {"", "../lib/terse/"};
    char own[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    if (length <= 0)
        return false;
    own[length] = 0;
    *(strrchr(own, '/') + 1) = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const int n = snprintf(ret_path, size, "%s%s%s", own, places[i], program);
        if (n > 0 && (unsigned long)n < size && access(ret_path, R_OK) == 0) /* a library need not be executable */
            return true;
    }
    return false;
}
