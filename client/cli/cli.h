/* SPDX-License-Identifier: Apache-2.0 */
/* cli.h: what the subcommands of `terse` share: option tables, errors on stderr, finding helper programs.
 * Runs in: terse. One file per subcommand; main.c has their list.
 *
 * Exit codes: 0 done, 1 the work failed (one line on stderr says what), 2 usage. */
#ifndef TERSE_CLI_CLI_H
#define TERSE_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"

enum { TERSE_CLI_DONE = 0, TERSE_CLI_FAILED = 1, TERSE_CLI_USAGE = 2 };

typedef enum terse_cli_kind {
    TERSE_CLI_FLAG,   /* bool *target */
    TERSE_CLI_TEXT,   /* const char **target */
    TERSE_CLI_TEXTS,  /* terse_cli_texts *target: the option repeats */
    TERSE_CLI_COUNT,  /* uint64_t *target, min..max */
    TERSE_CLI_NUMBER, /* double *target, min..max */
} terse_cli_kind;

enum { TERSE_CLI_MAX_TEXTS = 64 };
typedef struct terse_cli_texts {
    const char *texts[TERSE_CLI_MAX_TEXTS];
    int n;
} terse_cli_texts;

/* One row drives the parser and --help. The table ends with a row whose name is NULL. */
typedef struct terse_cli_option {
    const char *name; /* "batch", without dashes */
    char letter;      /* 'o' for -o, or 0 */
    terse_cli_kind kind;
    const char *argument; /* "B"; NULL for a flag */
    void *target;
    double min, max; /* COUNT, NUMBER */
    const char *help;
} terse_cli_option;

typedef struct terse_cli_usage {
    const char *name;      /* "run"; a program of its own: "terse-gateway" */
    const char *arguments; /* "MODEL.terse IN.npz -o OUT.npz" */
    const char *about;     /* a sentence or two */
    int min_positional, max_positional;
} terse_cli_usage;

/* Parses argv[1..]; "--help-table" alone prints the table as packaging/man/README.md says; positional arguments are
 * moved to ret_positional. Returns -1 to go on, else the exit code to end with (--help was printed, or one line on
 * stderr said what is wrong). */
int terse_cli_parse(const terse_cli_usage *usage, const terse_cli_option *options, int argc, char **argv,
                    const char **ret_positional, int *ret_n_positional);

/* Prints "terse NAME: MESSAGE" and returns TERSE_CLI_FAILED, or TERSE_CLI_USAGE. */
int terse_cli_fail(const char *name, const terse_error *error);
int terse_cli_usage_error(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Path of a helper program (terse-compress): beside `terse` itself, else in ../lib/terse. false when there is none. */
bool terse_cli_helper(const char *program, char *ret_path, unsigned long size);

/* --- what infer, status and bench share (remote.c) --- */

#include "client/terse.h"
#include "common/tensor.h"

/* The thread's last libterse failure as "terse NAME: ...". */
int terse_cli_fail_client(const char *name);
/* Opens a client; NULL after telling why (exit code TERSE_CLI_FAILED). */
terse_client *terse_cli_connect(const char *name, const char *endpoint, uint64_t connect_ms);
/* The same with a spinning client, and one that sends again up to `retries` times what the daemon refuses for now. */
terse_client *terse_cli_connect_as(const char *name, const char *endpoint, uint64_t connect_ms, uint64_t spin_us,
                                   uint64_t retries);
/* daemons.c: `each` for every endpoint of the list (NULL: $TERSE_ENDPOINT, else this host's), in its order. `name` is
 * what errors begin with: the command, and the endpoint when there are several. Returns TERSE_CLI_FAILED when one of
 * them failed; the others are done all the same. */
typedef int terse_cli_daemon(const char *name, const char *endpoint, bool several, void *context);
int terse_cli_each_daemon(const char *command, const char *endpoints, terse_cli_daemon *each, void *context);
/* 64-byte aligned tensors for every input of a signature: rows along axis 0 where it is free, other free sizes from
 * dims ("NAME=SIZE"), else 1. Random: floats in [-1, 1), integers 0 or 1. The caller frees each data. */
int terse_cli_random_inputs(const terse_signature *signature, uint64_t rows, const terse_cli_texts *dims, uint64_t seed,
                            terse_tensor *ret_inputs, terse_error *error);
/* Shared with `terse run`: fills a tensor's bytes; parses "NAME=SIZE" against a symbol. */
void terse_cli_fill_random(terse_tensor *tensor, uint64_t *state);
int terse_cli_dim_of(const terse_cli_texts *dims, const char *symbol, int64_t fallback, int64_t *ret_size,
                     terse_error *error);

/* --- trace.c --- */

/* Prints when the requests of these replies were where, as bars: each when there are few, else their mean. Those
 * without a trace are passed over. */
void terse_cli_print_traces(terse_reply *const *replies, int64_t n);

/* The subcommands: argv[0] is the subcommand's name. */
int terse_cli_compress(int argc, char **argv);
int terse_cli_distill(int argc, char **argv);
int terse_cli_inspect(int argc, char **argv);
int terse_cli_explain(int argc, char **argv);
int terse_cli_compare(int argc, char **argv);
int terse_cli_run(int argc, char **argv);
int terse_cli_infer(int argc, char **argv);
int terse_cli_status(int argc, char **argv);
int terse_cli_stats(int argc, char **argv);
int terse_cli_top(int argc, char **argv);
int terse_cli_keygen(int argc, char **argv);
int terse_cli_bench(int argc, char **argv);
int terse_cli_tune(int argc, char **argv);
int terse_cli_load(int argc, char **argv);
int terse_cli_unload(int argc, char **argv);
int terse_cli_configure(int argc, char **argv);

#endif
