/* SPDX-License-Identifier: Apache-2.0 */
/* settings.h: every setting of tersed, one row each: the row drives the configuration file, the command line, --check,
 * --help and the manual.
 * Runs in: tersed. Owns nothing: the table is constant. */
#ifndef TERSE_SUPERVISOR_SETTINGS_H
#define TERSE_SUPERVISOR_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/status.h"

/* Where a setting may stand; one that may stand in both gives [server]'s value to the models that have none. */
enum {
    TERSE_IN_SERVER = 1,
    TERSE_IN_MODEL = 2,
    TERSE_IN_BOTH = 3,
};

typedef enum terse_setting_type {
    TERSE_SETTING_NUMBER,
    TERSE_SETTING_BYTES,  /* a number with an optional K, M or G (powers of 1024) behind it */
    TERSE_SETTING_MODE,   /* an octal file mode */
    TERSE_SETTING_FLAG,   /* yes or no */
    TERSE_SETTING_TEXT,   /* minimum and maximum are its bytes */
    TERSE_SETTING_PART,   /* 0 to 1 with up to six decimals, kept in millionths */
    TERSE_SETTING_CHOICE, /* one of the words in the argument's name, "a|b"; its number counts from 0 */
} terse_setting_type;

/* X(ID, where, type, name in the file, option or NULL, argument's name, unit, default, minimum, maximum, description)
 * A default of 0 with "(automatic)" in the description is worked out when tersed starts. */
#define TERSE_SETTINGS(X)                                                                                              \
    X(LISTEN, TERSE_IN_SERVER, TEXT, "listen", "--listen", "ENDPOINT", "", 0, 1, 255,                                  \
      "where clients connect: ipc://PATH or tcp://ADDRESS:PORT; may be given several times")                           \
    X(LISTEN_MODE, TERSE_IN_SERVER, MODE, "listen_mode", NULL, "MODE", "", 0660, 0600, 0777,                           \
      "permissions of the ipc sockets: who may write may send requests")                                               \
    X(LISTEN_GROUP, TERSE_IN_SERVER, TEXT, "listen_group", NULL, "GROUP", "", 0, 1, 63,                                \
      "group of the ipc sockets, by name or number")                                                                   \
    X(CURVE_SERVER_KEY, TERSE_IN_SERVER, TEXT, "curve_server_key", "--curve-server-key", "FILE", "", 0, 1, 4000,       \
      "tcp is encrypted (CURVE) with the secret key in this file, which `terse keygen` makes")                         \
    X(CURVE_CLIENTS, TERSE_IN_SERVER, TEXT, "curve_clients", "--curve-clients", "PATH", "", 0, 1, 4000,                \
      "who may come in over tcp: a directory of *.key files, or a file with a public key a line")                      \
    X(INSECURE_TCP, TERSE_IN_SERVER, FLAG, "insecure_tcp", NULL, "yes|no", "", 0, 0, 1,                                \
      "let tcp listen on other addresses than loopback without keys: anyone who reaches it may send requests")         \
    X(WORKERS, TERSE_IN_SERVER, NUMBER, "workers", "--workers", "N", "processes", 0, 1, 256,                           \
      "worker processes (automatic: the CPUs that this process may use, divided by threads_per_worker)")               \
    X(THREADS, TERSE_IN_BOTH, NUMBER, "threads_per_worker", "--threads-per-worker", "N", "threads", 1, 1, 64,          \
      "most threads that share one batch, where measuring shows that to be faster; never more than CPUs")              \
    X(MODEL_DIR, TERSE_IN_SERVER, TEXT, "model_dir", "--model-dir", "DIR", "", 0, 1, 4000,                             \
      "serve every DIR/NAME.terse as the model NAME")                                                                  \
    X(FILE, TERSE_IN_MODEL, TEXT, "file", NULL, "FILE", "", 0, 1, 4095,                                                \
      "the model's .terse file (without it: NAME.terse in model_dir)")                                                 \
    X(VERSION, TERSE_IN_MODEL, TEXT, "version", NULL, "TEXT", "", 0, 1, 15, "the version told to clients (\"1\")")     \
    X(MAX_BATCH, TERSE_IN_BOTH, NUMBER, "max_batch", "--max-batch", "B", "rows", 32, 1, 1024,                          \
      "most rows that run together; 1 turns batching off")                                                             \
    X(BATCH_TIMEOUT, TERSE_IN_BOTH, NUMBER, "batch_timeout_us", "--batch-timeout-us", "T", "microseconds", 0, 0,       \
      10000000, "how long an idle worker may wait for a batch to fill")                                                \
    X(DEADLINE, TERSE_IN_BOTH, NUMBER, "deadline_ms", "--deadline-ms", "T", "milliseconds", 0, 0, 86400000,            \
      "deadline of requests that bring none; 0: none")                                                                 \
    X(HANG_TIMEOUT, TERSE_IN_BOTH, NUMBER, "hang_timeout_ms", "--hang-timeout-ms", "T", "milliseconds", 0, 0,          \
      86400000, "kill a worker whose batch takes longer; 0 (automatic): by what batches of that size take")            \
    X(OBJECTIVE, TERSE_IN_BOTH, CHOICE, "objective", "--objective", "latency|energy", "", 0, 0, 1,                     \
      "latency: no worker waits, batches as small as throughput allows; energy: batches fill up while deadlines "      \
      "allow")                                                                                                         \
    X(MAX_QUEUE, TERSE_IN_SERVER, NUMBER, "max_queue", "--max-queue", "N", "requests", 0, 1, 1000000,                  \
      "most requests that wait, all models together (automatic: what is answered in half of a request's time)")        \
    X(MAX_QUEUE_BYTES, TERSE_IN_SERVER, BYTES, "max_queue_bytes", NULL, "N", "bytes", 0, 4096, UINT64_C(1) << 40,      \
      "most tensor bytes of requests that wait (automatic: as max_queue, and input_bytes at most)")                    \
    X(MAX_CLIENT, TERSE_IN_SERVER, NUMBER, "max_client_outstanding", NULL, "N", "requests", 0, 1, 1000000,             \
      "most unanswered requests of one connection (automatic: twice what others leave free of max_queue, or 16384)")   \
    X(MAX_CLIENT_BYTES, TERSE_IN_SERVER, BYTES, "max_client_bytes", NULL, "N", "bytes", 0, 4096, UINT64_C(1) << 40,    \
      "most tensor bytes of unanswered requests of one connection (automatic: half of input_bytes)")                   \
    X(MAX_REQUEST, TERSE_IN_SERVER, BYTES, "max_request_bytes", "--max-request-bytes", "N", "bytes", 64 << 20, 4096,   \
      UINT64_C(1) << 34, "most tensor bytes of one request")                                                           \
    X(MAX_TCP, TERSE_IN_SERVER, NUMBER, "max_tcp_connections", NULL, "N", "connections", 1024, 1, 16384,               \
      "most connections over tcp, all together")                                                                       \
    X(MAX_USER, TERSE_IN_SERVER, NUMBER, "max_user_connections", NULL, "N", "connections", 4096, 1, 65536,             \
      "most connections of one user over ipc")                                                                         \
    X(GATE_MEMORY, TERSE_IN_SERVER, BYTES, "gate_memory_bytes", NULL, "N", "bytes", 0, 1 << 20, UINT64_C(1) << 40,     \
      "memory of the process that serves tcp (automatic: 16 times max_request_bytes, at least 512M)")                  \
    X(INPUT_MEMORY, TERSE_IN_SERVER, BYTES, "input_bytes", NULL, "N", "bytes", 0, 1 << 20, UINT64_C(1) << 40,          \
      "memory for the tensors of waiting requests (automatic: an eighth of the memory, 64M to 1G)")                    \
    X(OUTPUT_MEMORY, TERSE_IN_SERVER, BYTES, "output_bytes", NULL, "N", "bytes", 0, 1 << 20, UINT64_C(1) << 40,        \
      "memory for the tensors of replies (automatic: as input_bytes)")                                                 \
    X(FINISHED_MEMORY, TERSE_IN_SERVER, BYTES, "finished_bytes", NULL, "N", "bytes", 8 << 20, 0, UINT64_C(1) << 36,    \
      "memory for replies that were sent, for clients that lose one and ask again; 0: such a request runs again")      \
    X(ARENA_BYTES, TERSE_IN_SERVER, BYTES, "arena_bytes_per_uid", NULL, "N", "bytes", 0, 1 << 12, UINT64_C(1) << 40,   \
      "most memory shared with the clients of one user (automatic: a quarter of the memory, 128M to 4G)")              \
    X(ARENAS, TERSE_IN_SERVER, NUMBER, "arenas_per_uid", NULL, "N", "arenas", 64, 0, 1023,                             \
      "most clients of one user with shared memory; 0: nobody gets any")                                               \
    X(SPIN, TERSE_IN_SERVER, NUMBER, "spin_us", "--spin-us", "T", "microseconds", 0, 0, 1000,                          \
      "how long front end and workers look for more before they sleep: less latency for a busy CPU")                   \
    X(STATISTICS, TERSE_IN_SERVER, FLAG, "statistics", NULL, "yes|no", "", 1, 0, 1,                                    \
      "keep histograms of latencies and batch sizes, for stats and top; no: only counters")                            \
    X(TRACE_SAMPLE, TERSE_IN_SERVER, PART, "trace_sample", NULL, "PART", "", 0, 0, 1000000,                            \
      "log when which part of so many of the requests was done: 0.01 is one of a hundred, at most 200 a second")       \
    X(LOAD_TIMEOUT, TERSE_IN_SERVER, NUMBER, "load_timeout_ms", NULL, "T", "milliseconds", 60000, 100, 86400000,       \
      "most time to load one model")                                                                                   \
    X(WARM_TIMEOUT, TERSE_IN_SERVER, NUMBER, "warm_timeout_ms", NULL, "T", "milliseconds", 120000, 100, 86400000,      \
      "most time for a new worker to run every model once")                                                            \
    X(FRONTEND_TIMEOUT, TERSE_IN_SERVER, NUMBER, "frontend_timeout_ms", NULL, "T", "milliseconds", 10000, 2000,        \
      86400000, "replace a front end that shows no life for so long")                                                  \
    X(DRAIN_TIMEOUT, TERSE_IN_SERVER, NUMBER, "drain_timeout_ms", NULL, "T", "milliseconds", 30000, 0, 86400000,       \
      "most time to answer what is queued when told to stop")

typedef enum terse_setting_id {
#define ROW_ID(id, ...) TERSE_SET_##id,
    TERSE_SETTINGS(ROW_ID)
#undef ROW_ID
        TERSE_N_SETTINGS,
} terse_setting_id;

typedef struct terse_setting {
    unsigned where;
    terse_setting_type type;
    const char *name, *option, *argument, *unit;
    uint64_t fallback, minimum, maximum;
    const char *description;
} terse_setting;

extern const terse_setting terse_settings[TERSE_N_SETTINGS];

/* The row of a name in a section (TERSE_IN_SERVER or TERSE_IN_MODEL), or of an option; NULL when there is none. */
const terse_setting *terse_setting_named(unsigned where, const char *name);
/* The one that was meant by a name that is none; NULL when none is near. */
const terse_setting *terse_setting_nearest(unsigned where, const char *name);
const terse_setting *terse_setting_option(const char *option, size_t length);

/* Reads a value. TEXT: only its length is checked and *ret_value is not touched. The message tells what was found and
 * what is allowed. */
int terse_setting_parse(const terse_setting *setting, const char *text, uint64_t *ret_value, terse_error *error);

/* What a new value in the file does when it is read again (SIGHUP). */
typedef enum terse_setting_reload {
    TERSE_RELOAD_RESTART, /* nothing: it wants a restart, and is logged */
    TERSE_RELOAD_AT_ONCE,
    TERSE_RELOAD_MODEL, /* models that it stands for are loaded again */
} terse_setting_reload;
terse_setting_reload terse_setting_on_reload(terse_setting_id id);

/* A value as the file has it; "automatic" where it is worked out. */
void terse_setting_format(const terse_setting *setting, uint64_t value, char *text, size_t size);

/* Prints the rows: those with an option, as --help has them, or the whole file's manual. */
void terse_settings_print_options(FILE *out);
void terse_settings_print_file(FILE *out);
/* Every row for manuals and completions, a line each, words parted by tabs: packaging/man/README.md. */
void terse_settings_print_table(FILE *out);

#endif
