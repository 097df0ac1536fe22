/* SPDX-License-Identifier: Apache-2.0 */
/* terse: the command line. Each subcommand has a file of its own. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"compress", terse_cli_compress, "turn an ONNX file into a .terse file"},
    {"distill", terse_cli_distill, "train a smaller network to answer as another does"},
    {"inspect", terse_cli_inspect, "show what is in a .terse or .onnx file"},
    {"explain", terse_cli_explain, "show what was done to each layer of a .terse file, and why"},
    {"compare", terse_cli_compare, "run two models on the same samples: accuracy, error, time, size"},
    {"run", terse_cli_run, "run a .terse file without a daemon, or time it"},
    {"infer", terse_cli_infer, "send inputs to a daemon and store what comes back"},
    {"status", terse_cli_status, "show a daemon's models, workers and counters"},
    {"stats", terse_cli_stats, "print a daemon's counters and histograms, also as OpenMetrics"},
    {"top", terse_cli_top, "watch a daemon's models and workers as it goes on"},
    {"load", terse_cli_load, "serve a file, or a new version of a model, without a restart"},
    {"unload", terse_cli_unload, "take a model out of service"},
    {"configure", terse_cli_configure, "change settings of a running daemon"},
    {"keygen", terse_cli_keygen, "make keys for encrypted tcp"},
    {"bench", terse_cli_bench, "measure a daemon's latency and throughput"},
    {"tune", terse_cli_tune, "find the settings with which a daemon answers most by a deadline"},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out)
{
    fprintf(out, "usage: terse COMMAND [OPTIONS]\n\nCompresses neural networks and runs them on CPUs.\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].about);
    fprintf(out, "\nterse COMMAND --help tells more.\n");
}

/* For manuals and completions: packaging/man/README.md. */
static void print_table(void)
{
    printf("program\tterse\tCOMMAND [OPTIONS]\nabout\tCompresses neural networks and runs them on CPUs.\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("command\t%s\t%s\n", commands[i].name, commands[i].about);
    printf("option\t-h\t--help\t\tprint the commands\noption\t\t--version\t\tprint the version\n");
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error of write */
    if (argc < 2) {
        print_usage(stderr);
        return TERSE_CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return TERSE_CLI_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("terse %s\n", TERSE_VERSION);
        return TERSE_CLI_DONE;
    }
    if (strcmp(argv[1], "--help-table") == 0) {
        print_table();
        return TERSE_CLI_DONE;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            const int code = commands[i].run(argc - 1, argv + 1);
            /* Output that could not be written (a full disk, a closed pipe) is a failure. */
            if (fflush(stdout) != 0 || ferror(stdout)) {
                fprintf(stderr, "terse %s: cannot write to the standard output\n", argv[1]);
                return TERSE_CLI_FAILED;
            }
            return code;
        }
    fprintf(stderr, "terse: unknown command '%s' (see terse --help)\n", argv[1]);
    return TERSE_CLI_USAGE;
}
