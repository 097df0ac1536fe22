/* SPDX-License-Identifier: Apache-2.0 */
/* protocol.h: the messages between supervisor, front end, gate and workers.
 * Runs in: tersed, terse-frontend, terse-gate, terse-worker, terse-loader. Every message is one SOCK_SEQPACKET datagram
 * that starts with a terse_msg; descriptors travel beside it by SCM_RIGHTS. All programs are of one build: structs go
 * over as they are. Sizes are checked on receipt all the same.
 *
 * Sockets:
 *   control  supervisor <-> front end   (fd 3 of the front end)
 *   control  supervisor <-> worker      (fd 3 of the worker)
 *   data     front end  <-> worker      (made by the supervisor, one end sent to each; a new one when either is new)
 *
 * Life of a worker: supervisor sends MODEL (+memfd) for each model, then DATA (+socket) -> the front end, to which the
 * other end came with WORKER, sends HELLO (+ two memfds: input slots read-only, output slots) on the data
 * socket -> worker warms every model and sends WARMED on both sockets -> BATCH / DONE, one batch at a time.
 * EOF on the data socket means that the front end is gone: the worker waits for the next DATA on its control
 * socket. EOF on the control socket: the worker exits.
 *
 * Life of a front end: MODEL (+memfd) for each model, LISTEN (+listening socket) for each endpoint, WORKER (+data
 * socket) for each living worker, CONFIGURED; it answers SERVING once it polls. WORKER_EXIT tells a death with its wait
 * status. DRAIN: admit nothing more (UNAVAILABLE), finish all, flush replies, answer DRAINED. ALIVE is sent each
 * second; KILL_WORKER asks for the end of a hung one.
 *
 * Life of a gate (fd 3: supervisor <-> gate): GATE_CONFIGURED, GATE_KEYS, LISTEN (+listening tcp socket) for each such
 * endpoint, GATE_START; it answers SERVING, and GATE_ALIVE each second, which the supervisor hands on to the front end
 * as GATE. It brings clients to the front end over a Unix socket that only the daemon's user can reach, whose
 * listening end the front end has by a LISTEN that is `trusted`. GATE_FRONT tells it that the front end is a new one.
 *
 * Life of a loader (fd 3: supervisor <-> loader): it receives LOAD, answers LOADED (+ the sealed memfd when status is
 * OK) and exits.
 *
 * A model that comes while others are served: ADMIN from the front end (or SIGHUP) -> a loader as ever -> a worker on
 * trial, which gets MODEL and TRY, runs the model out of everybody's way, answers TRIED and is ended -> MODEL with
 * `pending` set to the front end, under an index that nothing else has -> from there MODEL on the data socket to one
 * worker after the other, which maps and warms it in small pieces between its batches and answers MODEL_WARMED -> when
 * all have it its name means the new index; MODEL_SWITCHED to the supervisor, which gives only that to new processes
 * -> when the old index has no request left UNLOAD to all workers, which answer UNLOADED -> MODEL_GONE to the
 * supervisor. MODEL_FAILED instead when a worker cannot warm it; MODEL_DROP from the supervisor ends it from the other
 * side and is answered by MODEL_GONE (or was crossed by MODEL_SWITCHED). MODEL_DRAIN takes a served one out.
 * An index comes back into use; `serial` never does. WARMED lists what a worker holds: a front end gives it what is
 * missing and takes away what it does not know, whatever either missed.
 *
 * A worker that is to go: WORKER_LEAVE to the front end, which gives it nothing more and answers WORKER_FREE. */
#ifndef TERSE_DAEMON_PROTOCOL_H
#define TERSE_DAEMON_PROTOCOL_H

#include <stdint.h>

#include "common/tensor.h"

enum {
    TERSE_CONTROL_FD = 3,
    TERSE_MAX_MODELS = 256,  /* names */
    TERSE_MODEL_SLOTS = 512, /* indices: versions on their way in and out beside those that serve */
    TERSE_MAX_WORKERS = 256,
    TERSE_MAX_BATCH = 1024,
    TERSE_MAX_IO = 64,           /* inputs, and outputs, of a served model */
    TERSE_WARM_COSTS = 12,       /* batch sizes that warming measures: 1, 2, 4 ... max_batch */
    TERSE_MAX_ARENAS = 1024,     /* clients' shared memories at once, and 1: number 0 stands for the slots */
    TERSE_MODEL_NAME = 128,      /* bytes of a served model's name, with its 0 */
    TERSE_VERSION_BYTES = 16,    /* and of its version */
    TERSE_MSG_BYTES = 192 * 1024 /* no message is larger */
};

typedef enum terse_msg_kind {
    /* supervisor -> front end, worker */
    TERSE_MSG_MODEL = 1,   /* terse_msg_model + sealed memfd */
    TERSE_MSG_DATA,        /* terse_msg + data socket (to a worker) */
    TERSE_MSG_LISTEN,      /* terse_msg_listen + listening socket */
    TERSE_MSG_WORKER,      /* terse_msg_worker + data socket (to the front end) */
    TERSE_MSG_WORKER_EXIT, /* terse_msg_worker */
    TERSE_MSG_CONFIGURED,  /* terse_msg_configured */
    TERSE_MSG_DRAIN,       /* terse_msg */
    /* supervisor -> loader, and its answer */
    TERSE_MSG_LOAD = 16, /* terse_msg_load */
    TERSE_MSG_LOADED,    /* terse_msg_loaded + sealed memfd when status is OK */
    TERSE_MSG_FREE,      /* terse_msg + memfd that nobody else has any more: to be closed behind everybody's back */
    /* front end -> supervisor */
    TERSE_MSG_SERVING = 32,   /* terse_msg: polls its sockets, all models and listeners are in place */
    TERSE_MSG_READY,          /* terse_msg: at least one worker has warmed every model (again after none had) */
    TERSE_MSG_ALIVE,          /* terse_msg_alive, each second */
    TERSE_MSG_KILL_WORKER,    /* terse_msg_worker: hung */
    TERSE_MSG_DRAINED,        /* terse_msg */
    TERSE_MSG_READ_ONLY = 48, /* terse_msg_read_only + memfd; answered with a descriptor that only reads it */
    /* front end -> worker (data socket) */
    TERSE_MSG_HELLO = 64, /* terse_msg_hello + input memfd (read-only descriptor) + output memfd */
    TERSE_MSG_BATCH,      /* terse_msg_batch, its tensors and its members */
    TERSE_MSG_ARENA = 80, /* terse_msg_arena + inputs (read-only descriptor) + outputs of a client's shared memory */
    TERSE_MSG_ARENA_GONE, /* terse_msg_arena */
    /* worker -> front end (data socket); WARMED to the supervisor too */
    TERSE_MSG_WARMED = 96, /* terse_msg_warmed, terse_msg_held and terse_msg_warm_cost */
    TERSE_MSG_DONE,        /* terse_msg_done and its output tensors */
    TERSE_MSG_MEMORY,      /* terse_msg_memory, once a second at most */
    /* supervisor -> front end */
    TERSE_MSG_WORKER_WAITS = 120, /* terse_msg_worker_waits: it is in a crash loop */

    /* models, settings and workers that come, change and go while others serve */
    /* supervisor -> front end */
    TERSE_MSG_MODEL_DROP = 128, /* terse_msg_model_state: a pending one will not be served */
    TERSE_MSG_MODEL_DRAIN,      /* terse_msg_model_state: a served one ends */
    TERSE_MSG_MODEL_LIMITS,     /* terse_msg_model: max_batch and times of a served one are these now */
    TERSE_MSG_WORKER_LEAVE,     /* terse_msg_worker: give it nothing more */
    TERSE_MSG_ADMIN_DONE,       /* terse_msg_admin_done */
    /* front end -> supervisor */
    TERSE_MSG_ADMIN = 144,    /* terse_msg_admin */
    TERSE_MSG_MODEL_SWITCHED, /* terse_msg_model_state: it serves now, the one of the same name drains */
    TERSE_MSG_MODEL_FAILED,   /* terse_msg_model_state: it was pending and is gone */
    TERSE_MSG_MODEL_GONE,     /* terse_msg_model_state: nobody has it any more */
    TERSE_MSG_WORKER_FREE,    /* terse_msg_worker: it has nothing to do and gets nothing more */
    /* supervisor -> worker on trial, and its answer */
    TERSE_MSG_TRY = 160, /* terse_msg */
    TERSE_MSG_TRIED,     /* terse_msg_tried */
    /* front end -> worker (data socket: MODEL too), and its answers */
    TERSE_MSG_UNLOAD = 176, /* terse_msg_model_state */
    TERSE_MSG_UNLOADED,     /* terse_msg_model_state */
    TERSE_MSG_MODEL_WARMED, /* terse_msg_model_state: not OK: the worker does not hold it, `error` says why */
    /* supervisor -> gate */
    TERSE_MSG_GATE_CONFIGURED = 200, /* terse_msg_gate_configured */
    TERSE_MSG_GATE_KEYS,             /* terse_msg_gate_keys: clients who may come in; at the start, and anew */
    TERSE_MSG_GATE_START,            /* terse_msg */
    TERSE_MSG_GATE_FRONT,            /* terse_msg: everything that was sent to the front end is lost */
    /* gate -> supervisor -> front end */
    TERSE_MSG_GATE_ALIVE = 216, /* terse_msg_gate */
    TERSE_MSG_GATE,             /* terse_msg_gate */
    /* supervisor -> front end */
    TERSE_MSG_SETTINGS = 232, /* terse_msg_settings, when configured */
} terse_msg_kind;

typedef struct terse_msg {
    uint32_t kind;  /* terse_msg_kind */
    uint32_t bytes; /* of the whole message */
} terse_msg;

/* What batches of a model are formed for; numbers as in the setting. */
typedef enum terse_objective {
    TERSE_OBJECTIVE_LATENCY = 0,
    TERSE_OBJECTIVE_ENERGY = 1,
} terse_objective;

typedef struct terse_msg_model {
    terse_msg head;
    uint32_t model; /* index, the same in every process */
    uint32_t max_batch;
    uint32_t threads;                                        /* that may share a batch, 1 to TERSE_MAX_THREADS */
    uint32_t objective;                                      /* terse_objective */
    uint64_t batch_timeout_us, deadline_ms, hang_timeout_ms; /* 0: none / automatic */
    uint64_t bytes;                                          /* of the memfd */
    char name[TERSE_MODEL_NAME];
    char version[TERSE_VERSION_BYTES];
    uint64_t serial;  /* names this load of it, for ever */
    uint32_t pending; /* to the front end: it does not serve yet */
    uint32_t n_costs; /* what a trial or a worker measured, batches of so many rows; 0: none has yet */
    struct {
        uint64_t rows, ns;
    } costs[TERSE_WARM_COSTS];
} terse_msg_model;

/* Which load of which model, and what there is to say of it. */
typedef struct terse_msg_model_state {
    terse_msg head;
    uint32_t model;
    int32_t status; /* terse_status */
    uint64_t serial;
    char error[512];
} terse_msg_model_state;

typedef enum terse_admin_kind {
    TERSE_ADMIN_LOAD,
    TERSE_ADMIN_UNLOAD,
    TERSE_ADMIN_CONFIGURE,
} terse_admin_kind;

/* What a client that may do so wants. A client that lost its connection asks again under the same session and id: it is
 * the same order. */
typedef struct terse_msg_admin {
    terse_msg head;
    uint32_t kind;  /* terse_admin_kind */
    uint32_t token; /* the front end's, back in ADMIN_DONE */
    uint64_t id;
    uint8_t session[16];
    uint32_t has_session;
    uint32_t has_max_batch, has_batch_timeout, has_workers;
    uint64_t max_batch, batch_timeout_us, workers;
    char name[TERSE_MODEL_NAME]; /* "" (CONFIGURE): all models */
    char version[TERSE_VERSION_BYTES];
    char path[4096];
} terse_msg_admin;

typedef struct terse_msg_admin_done {
    terse_msg head;
    uint32_t token;
    int32_t status;   /* terse_status */
    uint32_t workers; /* how many there are to be */
    uint32_t pad;
    char error[512];
} terse_msg_admin_done;

typedef struct terse_msg_load {
    terse_msg head;
    char path[4096];
    uint64_t max_bytes; /* a file that is larger has no room; 0: any */
    uint64_t behind;    /* 1: others are served meanwhile and go first */
} terse_msg_load;

typedef struct terse_msg_loaded {
    terse_msg head;
    int32_t status; /* terse_status */
    uint32_t batchable;
    uint64_t bytes; /* of the memfd */
    char error[512];
} terse_msg_loaded;

typedef struct terse_msg_listen {
    terse_msg head;
    char endpoint[256]; /* as configured: ipc:///run/terse/tersed.sock, tcp://127.0.0.1:5555 */
    uint32_t trusted;   /* only the gate comes in there */
} terse_msg_listen;

typedef struct terse_msg_worker {
    terse_msg head;
    uint32_t worker; /* 0..n-1 */
    int32_t pid;
    uint32_t restarts;
    int32_t wait_status;  /* WORKER_EXIT: as waitpid gives it */
    uint32_t killed_hung; /* WORKER_EXIT: by our own KILL_WORKER */
    uint32_t expected;    /* WORKER_EXIT: it was told to go */
} terse_msg_worker;

/* A worker whose starts failed in a row is started again after a delay. Told when that begins, and to a new front end;
 * WORKER ends it. */
typedef struct terse_msg_worker_waits {
    terse_msg head;
    uint32_t worker, restarts;
    uint32_t failures; /* in a row */
    uint32_t wait_ms;  /* until the next start */
} terse_msg_worker_waits;

typedef struct terse_msg_configured {
    terse_msg head;
    uint32_t n_models, n_workers;
    uint64_t input_bytes, output_bytes;         /* sizes of the slot memories */
    uint64_t max_request_bytes;                 /* the tensors of one request */
    uint64_t max_queue_bytes, max_client_bytes; /* 0: automatic, as the next two */
    uint64_t finished_bytes;                    /* for replies that were sent */
    uint32_t max_queue;                         /* requests waiting, all models */
    uint32_t max_client_outstanding;
    uint64_t arena_bytes_per_uid; /* shared memory of all clients of one user */
    uint32_t arenas_per_uid;
    uint32_t spin_us;              /* front end and workers look again for so long before they sleep */
    uint32_t max_user_connections; /* of one user over ipc */
    uint32_t statistics;           /* whether histograms are kept */
    uint32_t trace_millionths;     /* of the requests are logged */
} terse_msg_configured;

enum { TERSE_KEY_BYTES = 32, TERSE_GATE_KEYS = 4096 };

typedef struct terse_msg_gate_configured {
    terse_msg head;
    uint32_t max_connections;
    uint32_t curve;             /* whether `secret_key` is there and only clients with a known key come in */
    uint64_t memory_bytes;      /* beside what it starts with */
    uint64_t max_request_bytes; /* the tensors of one request */
    uint8_t secret_key[TERSE_KEY_BYTES];
    char frontend[256]; /* endpoint */
} terse_msg_gate_configured;

typedef struct terse_msg_gate_keys {
    terse_msg head;
    uint32_t n;
    uint8_t first, last, pad[2];                    /* of a list, which is in force when its last message is there */
    uint8_t keys[TERSE_GATE_KEYS][TERSE_KEY_BYTES]; /* public ones; the message ends behind the last */
} terse_msg_gate_keys;

/* Who the gate is and what it did since it started. */
typedef struct terse_msg_gate {
    terse_msg head;
    int32_t pid; /* 0: it is gone */
    uint32_t restarts;
    uint32_t connections, clients; /* now: of tcp, and of those who have sent a request */
    uint64_t forwarded, replies;
    uint64_t refused_connections, refused_keys, refused_requests;
    uint64_t cut_off, dropped; /* connections: messages without end, replies that nobody reads */
    uint64_t held, delayed;    /* connections: not read for a while, let in later */
    uint64_t memory_bytes;     /* of unfinished messages and unread replies, now */
} terse_msg_gate;

/* What is in force, for who asks ("stats"): a line for each setting of [server], words parted by tabs: name, value,
 * unit, where it is from. The message ends behind the text's 0. */
typedef struct terse_msg_settings {
    terse_msg head;
    char text[16384];
} terse_msg_settings;

typedef struct terse_msg_alive {
    terse_msg head;
    uint64_t served, failed, queued, clients; /* totals since its start; queued and clients now */
} terse_msg_alive;

/* A process behind a filter cannot open what it has by another mode: the supervisor does. The answer comes without a
 * descriptor when it could not either. */
typedef struct terse_msg_read_only {
    terse_msg head;
    uint32_t arena, pad;
} terse_msg_read_only;

typedef struct terse_msg_hello {
    terse_msg head;
    uint32_t worker;
    uint32_t epoch; /* of this front end: every BATCH and DONE carries it */
    uint64_t input_bytes, output_bytes;
    uint32_t spin_us, pad;
} terse_msg_hello;

/* A client's shared memory, told to a worker before the first batch that lies in it. GONE: unmap it. */
typedef struct terse_msg_arena {
    terse_msg head;
    uint32_t arena; /* 1..TERSE_MAX_ARENAS - 1 */
    uint32_t pad;
    uint64_t input_bytes, output_bytes;
} terse_msg_arena;

typedef struct terse_msg_warmed {
    terse_msg head;
    uint32_t worker, epoch;
    uint64_t private_bytes; /* of the worker, informative, as terse_msg_memory has them */
    uint64_t shared_bytes;
    uint32_t n_held; /* so many terse_msg_held follow, the costs behind them */
    uint32_t pad;
} terse_msg_warmed;

/* What a worker takes now: alone, and of what others have too. */
typedef struct terse_msg_memory {
    terse_msg head;
    uint64_t private_bytes, shared_bytes;
} terse_msg_memory;

/* A model that a worker holds. */
typedef struct terse_msg_held {
    uint32_t model, pad;
    uint64_t serial;
} terse_msg_held;

/* Behind terse_msg_warmed and terse_msg_held: what warming measured, at most TERSE_WARM_COSTS for each model. Only for
 * models whose inputs have no symbols but the batch. The supervisor tells those who come later with MODEL, and they
 * need not measure again. */
typedef struct terse_msg_warm_cost {
    uint32_t model, rows;
    uint64_t ns;
} terse_msg_warm_cost;

typedef struct terse_msg_tried {
    terse_msg head;
    int32_t status; /* terse_status */
    uint32_t n_costs;
    terse_msg_warm_cost costs[TERSE_WARM_COSTS];
    char error[256];
} terse_msg_tried;

/* A tensor's shape in a message. */
typedef struct terse_msg_tensor {
    uint32_t dtype;
    int32_t rank;
    int64_t dims[TERSE_MAX_RANK]; /* BATCH: of the whole batch (dims[0] = rows); DONE: of the whole batch */
    uint64_t bytes;               /* dense bytes of the whole batch */
} terse_msg_tensor;

/* The capacity of an output that a member does not want: nothing is written for it. */
#define TERSE_MSG_UNWANTED UINT64_MAX

/* BATCH: terse_msg_batch, then n_inputs terse_msg_tensor, then per member: uint64_t rows, then n_inputs input offsets
 * (uint64_t, into the input memfd), then n_outputs {offset, capacity} pairs (into the output memfd). The upper bits of
 * an offset name the client's memory in which it counts (terse_msg_at), 0 for the slots. A batch of one
 * member carries its tensors as they are; with more, every input is the concatenation of the members' rows. */
typedef struct terse_msg_batch {
    terse_msg head;
    uint64_t batch;
    uint32_t epoch, model;
    uint32_t n_inputs, n_outputs, n_members;
    uint32_t rows; /* all members */
} terse_msg_batch;

#define TERSE_MSG_ARENA_SHIFT 48
static inline uint64_t terse_msg_at(uint32_t arena, uint64_t offset)
{
    return (uint64_t)arena << TERSE_MSG_ARENA_SHIFT | offset;
}

/* DONE: terse_msg_done, then n_outputs terse_msg_tensor (absent unless status is OK or needs_room).
 * Each member's output i has bytes * member rows / rows bytes (all bytes for a batch of one). needs_room: some
 * capacity was too small; nothing was written; send it again with room for the stated bytes. */
typedef struct terse_msg_done {
    terse_msg head;
    uint64_t batch;
    uint32_t epoch, model;
    int32_t status; /* terse_status; not OK: the batch as a whole failed, `error` says why */
    uint32_t needs_room;
    uint32_t n_outputs;
    uint32_t pad;
    uint64_t compute_ns;
    char error[256];
} terse_msg_done;

/* Sends one message with up to 4 descriptors; retries EINTR. Returns false with errno (EAGAIN when full). */
_Bool terse_msg_send(int fd, const void *message, uint32_t bytes, const int *fds, int n_fds);
/* Receives one message into `buffer` (TERSE_MSG_BYTES). Returns its bytes (head.bytes agrees), 0 at EOF, -1 with errno
 * (EAGAIN: none; EPROTO: malformed). Descriptors (CLOEXEC) go to ret_fds, at most 4; surplus ones are closed. */
int64_t terse_msg_receive(int fd, void *buffer, int *ret_fds, int *ret_n_fds);

#endif
