/* SPDX-License-Identifier: Apache-2.0 */
/* tersed: reads the command line and the configuration, finds its helpers, runs the supervisor. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/supervisor/ask.h"
#include "daemon/supervisor/cores.h"
#include "daemon/supervisor/supervisor.h"

#define DEFAULT_CONFIG "/etc/terse/tersed.conf"

typedef struct command_line {
    const char *config, *libexec, *reload;
    bool check, help, version;
} command_line;

#define ABOUT "serves compressed neural networks to ZeroMQ clients"
#define ARGUMENTS "[--config FILE] [--model NAME=FILE]... [OPTION VALUE]..."

/* The options that are no settings. */
static const struct {
    const char *letter, *name, *argument, *help;
} own_options[] = {
    {"", "--config", "FILE", "the configuration (" DEFAULT_CONFIG " when that exists)"},
    {"", "--model", "NAME=FILE", "serve FILE as NAME; may be given several times"},
    {"", "--libexec", "DIR", "where terse-frontend, terse-gate, terse-worker and terse-loader are"},
    {"", "--reload", "PID", "have that tersed read its configuration again; wait until it is in force"},
    {"", "--check", "", "check the configuration, print every mistake, start nothing"},
    {"-h", "--help", "", "print this"},
    {"", "--version", "", "print the version"},
};
enum { N_OWN = sizeof own_options / sizeof own_options[0], N_OWN_FIRST = 2 };

static void print_own(int first, int end)
{
    for (int i = first; i < end; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s %s", own_options[i].letter, *own_options[i].letter ? ", " : "",
                 own_options[i].name, own_options[i].argument);
        printf("  %-27s %s\n", left, own_options[i].help);
    }
}

/* For manuals and completions: packaging/man/README.md. */
static void print_table(void)
{
    printf("program\ttersed\t" ARGUMENTS "\nabout\t" ABOUT "\n");
    for (int i = 0; i < N_OWN; i++)
        printf("option\t%s\t%s\t%s\t%s\n", own_options[i].letter, own_options[i].name, own_options[i].argument,
               own_options[i].help);
    terse_settings_print_table(stdout);
}

static void print_help(void)
{
    printf("tersed: " ABOUT "\n\nusage: tersed " ARGUMENTS "\n\n");
    print_own(0, N_OWN_FIRST);
    terse_settings_print_options(stdout);
    print_own(N_OWN_FIRST, N_OWN);
    printf("\nAn option wins over the configuration file, whose settings are:\n\n");
    terse_settings_print_file(stdout);
    printf(
        "\nA line is NAME = VALUE; comments begin with ; or #. Settings in [model NAME] win over those in [server].\n"
        "SIGTERM answers what is queued, then stops; a second one stops at once.\n"
        "Exit codes: 0 done, 1 the work failed, 2 usage.\n");
}

static int usage(const char *what, const char *argument)
{
    fprintf(stderr, "tersed: %s '%s'; `tersed --help` lists the options\n", what, argument);
    return 2;
}

/* The value of "--name VALUE" or "--name=VALUE" for the option `name`; *at moves to the last argument used. NULL: this
 * is another option. A value that is missing is "". */
static const char *value_of(char **argv, int argc, int *at, const char *name, bool *ret_missing)
{
    const size_t length = strlen(name);
    const char *argument = argv[*at];
    if (strncmp(argument, name, length) != 0 || (argument[length] && argument[length] != '='))
        return NULL;
    if (argument[length] == '=')
        return argument + length + 1;
    if (*at + 1 >= argc) {
        *ret_missing = true;
        return "";
    }
    return argv[++*at];
}

/* True when argv[*at] is an option with a value, which is then taken. */
static bool take_value(char **argv, int argc, int *at, command_line *line, terse_config *config, bool *ret_missing)
{
    const char *value;
    if ((value = value_of(argv, argc, at, "--config", ret_missing)) != NULL)
        line->config = value;
    else if ((value = value_of(argv, argc, at, "--libexec", ret_missing)) != NULL)
        line->libexec = value;
    else if ((value = value_of(argv, argc, at, "--reload", ret_missing)) != NULL)
        line->reload = value;
    else if ((value = value_of(argv, argc, at, "--model", ret_missing)) != NULL) {
        if (!*ret_missing)
            terse_config_option_model(config, value);
    } else {
        const char *argument = argv[*at];
        const terse_setting *setting = terse_setting_option(argument, strcspn(argument, "="));
        if (!setting)
            return false;
        value = value_of(argv, argc, at, setting->option, ret_missing);
        if (!*ret_missing)
            terse_config_option(config, setting, value);
    }
    return true;
}

/* What SIGHUP needs to read it all again. */
typedef struct arguments {
    int argc;
    char **argv;
} arguments;

/* 0, or 2 after telling what is wrong. */
static int read_arguments(int argc, char **argv, command_line *line, terse_config *config)
{
    for (int i = 1; i < argc; i++) {
        bool missing = false;
        if (strcmp(argv[i], "--check") == 0)
            line->check = true;
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            line->help = true;
        else if (strcmp(argv[i], "--version") == 0)
            line->version = true;
        else if (!take_value(argv, argc, &i, line, config, &missing))
            return usage(argv[i][0] == '-' ? "unknown option" : "unexpected argument", argv[i]);
        if (missing)
            return usage("no value for", argv[i]);
    }
    return 0;
}

static bool find_helper(const char *directory, const char *name, char *ret_path)
{
    return snprintf(ret_path, TERSE_PATH_BYTES, "%s/%s", directory, name) < TERSE_PATH_BYTES &&
           access(ret_path, X_OK) == 0;
}

/* --libexec, else beside this program (a build tree), else PREFIX/lib/terse when it stands in PREFIX/bin. */
static bool find_helpers(const char *libexec, terse_programs *programs)
{
    char own[TERSE_PATH_BYTES], installed[TERSE_PATH_BYTES + 16];
    const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    own[length > 0 ? length : 0] = 0;
    char *slash = strrchr(own, '/');
    if (slash)
        *slash = 0;
    snprintf(installed, sizeof installed, "%s/../lib/terse", own);
    const struct {
        const char *name;
        char *path;
    } helpers[] = {{"terse-loader", programs->loader},
                   {"terse-frontend", programs->frontend},
                   {"terse-gate", programs->gate},
                   {"terse-worker", programs->worker}};
    bool all = true;
    for (size_t i = 0; i < sizeof helpers / sizeof helpers[0]; i++) {
        const bool found = libexec ? find_helper(libexec, helpers[i].name, helpers[i].path)
                                   : find_helper(own, helpers[i].name, helpers[i].path) ||
                                         find_helper(installed, helpers[i].name, helpers[i].path);
        /* The gate is looked for when an endpoint wants it. */
        if (found || helpers[i].path == programs->gate)
            continue;
        if (libexec)
            fprintf(stderr, "tersed: %s: not found in '%s' (--libexec)\n", helpers[i].name, libexec);
        else
            fprintf(stderr, "tersed: %s: not found in '%s' and '%s'\n", helpers[i].name, own, installed);
        all = false;
    }
    return all;
}

/* Descriptors 0..2 exist, so that no socket of ours takes their place; as many others as we may have. */
static void prepare_descriptors(void)
{
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
        ;
    if (fd >= 0)
        close(fd);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int check_only(const terse_config *config)
{
    unsigned workers = (unsigned)config->value[TERSE_SET_WORKERS];
    if (!workers)
        workers = terse_cores_workers("", (unsigned)config->value[TERSE_SET_THREADS]);
    if (config->n_files)
        printf("%s", config->path);
    if (config->n_files > 1)
        printf(" and %u of %s.d", config->n_files - 1, config->path);
    printf("%scorrect: %u model%s, %u worker%s\n", config->n_files ? ": " : "", config->n_models,
           config->n_models == 1 ? "" : "s", workers, workers == 1 ? "" : "s");
    return 0;
}

static void read_file(const command_line *line, terse_config *config)
{
    const char *path = line->config;
    if (!path && access(DEFAULT_CONFIG, F_OK) == 0)
        path = DEFAULT_CONFIG;
    if (path)
        terse_config_read(config, path);
    terse_config_finish(config);
}

static terse_config *read_again(void *user, FILE *report)
{
    const arguments *given = user;
    command_line line = {.config = NULL};
    terse_config *config = terse_config_new(report);
    if (!config)
        return NULL;
    read_arguments(given->argc, given->argv, &line, config); /* as at the start, when it was right */
    read_file(&line, config);
    return config;
}

int main(int argc, char **argv)
{
    __attribute__((cleanup(terse_config_freep))) terse_config *config = terse_config_new(stderr);
    command_line line = {.config = NULL};
    prepare_descriptors();
    terse_log_init("tersed");
    if (!config) {
        fprintf(stderr, "tersed: %s\n", strerror(errno));
        return 1;
    }
    if (argc == 2 && strcmp(argv[1], "--help-table") == 0) {
        print_table();
        return 0;
    }
    const int wrong = read_arguments(argc, argv, &line, config);
    if (wrong)
        return wrong;
    if (line.help) {
        print_help();
        return 0;
    }
    if (line.version) {
        printf("tersed %s\n", TERSE_VERSION);
        return 0;
    }
    if (line.reload)
        return terse_ask_reload(line.reload);
    read_file(&line, config);
    if (config->n_errors)
        return 1;
    if (config->n_usage)
        return 2;
    if (line.check)
        return check_only(config);
    terse_programs programs;
    if (!find_helpers(line.libexec, &programs))
        return 1;
    arguments given = {argc, argv};
    terse_config *const taken = config;
    config = NULL;
    return terse_supervisor_run(taken, &programs, read_again, &given);
}
