/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor.h: tersed itself: the parent of loaders, front end and workers.
 * Runs in: tersed, one thread. Ownership: see each field; the configuration is borrowed.
 *
 * supervisor.c holds the phases and the signals, models.c the loaders and trials, operations.c what changes while
 * others are served, reread.c SIGHUP, front.c, gate.c and pool.c those children, notify.c what the service manager is
 * told. They share this one struct. */
#ifndef TERSE_SUPERVISOR_SUPERVISOR_H
#define TERSE_SUPERVISOR_SUPERVISOR_H

#include "daemon/supervisor/child.h"
#include "daemon/supervisor/config.h"
#include "daemon/supervisor/listeners.h"
#include "daemon/supervisor/store.h"

/* X(ID, text in logs and status) */
#define TERSE_PHASES(X)                                                                                                \
    X(LOADING, "loading")   /* loaders run, nothing else does */                                                       \
    X(STARTING, "starting") /* front end and workers run, none has warmed every model yet */                           \
    X(SERVING, "serving")                                                                                              \
    X(DRAINING, "draining") /* told to stop: the front end answers what it has */                                      \
    X(STOPPING, "stopping") /* every child is told to go */                                                            \
    X(FINISHED, "finished")

typedef enum terse_phase {
#define PHASE_ID(id, text) TERSE_PHASE_##id,
    TERSE_PHASES(PHASE_ID)
#undef PHASE_ID
} terse_phase;

enum {
    TERSE_START_ATTEMPTS = 5, /* before the first success; later on there is no end to them */
    TERSE_STOP_MS = 3000,     /* from closed control sockets to SIGKILL */
};

typedef struct terse_programs {
    char loader[TERSE_PATH_BYTES], frontend[TERSE_PATH_BYTES], gate[TERSE_PATH_BYTES], worker[TERSE_PATH_BYTES];
} terse_programs;

/* X(ID, text in logs) */
#define TERSE_MODEL_STATES(X)                                                                                          \
    X(NONE, "not there")                                                                                               \
    X(LOADING, "loading")   /* its loader runs */                                                                      \
    X(TRYING, "on trial")   /* a worker of its own runs it */                                                          \
    X(PENDING, "warming")   /* the front end gives it to the workers */                                                \
    X(DROPPING, "dropping") /* the front end is told to give it up again */                                            \
    X(SERVING, "serving")                                                                                              \
    X(DRAINING, "draining") /* serves no more; the front end finishes what it has */

typedef enum terse_model_state {
#define MODEL_ID(id, text) TERSE_MODEL_##id,
    TERSE_MODEL_STATES(MODEL_ID)
#undef MODEL_ID
} terse_model_state;

typedef struct terse_operation terse_operation;

/* Where the gate meets the front end: a socket in a directory that only the daemon's user can enter. */
typedef struct terse_gate_socket {
    char directory[TERSE_ENDPOINT_BYTES], path[TERSE_ENDPOINT_BYTES]; /* "": there is no gate */
    int fd;
} terse_gate_socket;

/* One load of one file: a version of a model. */
typedef struct terse_supervised_model {
    unsigned index; /* known by it to all processes */
    terse_model_state state;
    terse_model_config *config; /* its own copy; NULL: the slot is free */
    terse_child loader, trial;
    int memory;                    /* the sealed memfd, kept for every later front end and worker; -1: not loaded */
    char stored[TERSE_STORE_NAME]; /* the service manager keeps the memory under this name; "": it does not */
    uint64_t bytes, serial;
    uint32_t n_costs;
    terse_msg_warm_cost costs[TERSE_WARM_COSTS];
    bool live;               /* loaded while others are served */
    bool answered;           /* its loader, or its trial, has spoken, well or not */
    terse_operation *unload; /* who wants to hear that it is gone; NULL: nobody */
} terse_supervised_model;

/* Reads the configuration again, the command line over the file; mistakes go to `report`. NULL: no memory. */
typedef terse_config *terse_reread(void *user, FILE *report);

typedef struct terse_supervisor {
    terse_config *config; /* in force */
    terse_reread *reread;
    void *reread_user;
    const terse_programs *programs;
    sd_event *loop;
    terse_phase phase;
    terse_store store;
    terse_listeners listeners;
    terse_supervised_model *models; /* TERSE_MODEL_SLOTS */
    unsigned n_models;              /* that were there to be loaded at the start */
    unsigned next_model, n_loading, n_bad_models;
    uint64_t next_serial;
    /* operations.c */
    terse_operation *operation; /* a load under way */
    terse_operation *first_waiting, *last_waiting;
    unsigned n_waiting;
    unsigned n_rereading; /* operations of SIGHUP that are not done */
    bool rereading;
    unsigned n_reread_failures; /* mistakes, and operations that failed */
    pid_t asked[16];            /* who sent SIGHUP and may want to hear how it ended */
    unsigned n_asked;
    struct {
        uint8_t session[16];
        uint64_t id;
        terse_msg_admin_done done;
    } finished[16]; /* the last ones: whoever lost the answer asks again */
    unsigned n_finished;
    sd_event_source *operation_timer;
    terse_child frontend, gate;
    terse_gate_socket gate_socket;
    bool workers_warm; /* the front end has one that warmed every model */
    uint64_t alive_ns; /* when the front end last showed life */
    terse_msg_alive alive;
    terse_child *workers; /* TERSE_MAX_WORKERS */
    unsigned n_workers;   /* wanted: those beyond are on their way out */
    uint64_t input_bytes, output_bytes, arena_bytes;
    sd_event_source *stop_timer, *watchdog_timer;
    uint64_t watchdog_us;
    char status[512]; /* what the service manager was told last */
    int exit_code;
} terse_supervisor;

const char *terse_phase_name(terse_phase phase);

/* Runs until it is told to stop; returns the exit code. The configuration is checked and has models; it is taken over.
 * `reread` is asked on SIGHUP. */
int terse_supervisor_run(terse_config *config, const terse_programs *programs, terse_reread *reread, void *user);

/* --- between the files of the supervisor --- */
void terse_supervisor_loaded(terse_supervisor *s);  /* every loader has answered */
void terse_supervisor_ready(terse_supervisor *s);   /* the front end serves and a worker is warm */
void terse_supervisor_drained(terse_supervisor *s); /* nothing is left to answer, or nobody who could */
void terse_supervisor_reaped(terse_supervisor *s);  /* a child is gone; the last one ends the phase STOPPING */
void terse_supervisor_fail(terse_supervisor *s);    /* stop with exit code 1; the reason has been logged */
unsigned terse_supervisor_workers(const terse_config *config); /* how many it asks for */

int terse_models_init(terse_supervisor *s, terse_error *error);
void terse_models_load(terse_supervisor *s); /* starts as many loaders as there are cores */
/* Sends MODEL for each model that serves. */
void terse_models_send(const terse_supervisor *s, terse_child *to);
/* Keeps what a worker has measured (a WARMED) for those who come later. false: it is no such message. */
bool terse_models_learn(terse_supervisor *s, const terse_msg *message);
void terse_models_send_one(const terse_supervised_model *model, terse_msg_kind kind, terse_child *to);
void terse_models_send_state(const terse_supervised_model *model, terse_msg_kind kind, terse_child *to);
terse_supervised_model *terse_models_serving(const terse_supervisor *s, const char *name); /* NULL: none */
unsigned terse_models_count(const terse_supervisor *s);                     /* that serve, or are loaded at the start */
void terse_models_keep(terse_supervisor *s, terse_supervised_model *model); /* for the next tersed */
/* Starts to load `config` (taken over when that succeeds) behind everybody's back; operations.c hears how it ends. */
int terse_models_begin(terse_supervisor *s, terse_model_config *config, terse_supervised_model **ret_model,
                       terse_error *error);
void terse_models_release(terse_supervised_model *model); /* its memory is given up, what prepares it is killed */
void terse_models_done(terse_supervisor *s);

/* operations.c */
void terse_operations_order(terse_supervisor *s, const terse_msg_admin *order);
/* SIGHUP's, which nobody waits for: a load takes `config` over, an unload has only a name. */
void terse_operations_load(terse_supervisor *s, terse_model_config *config);
void terse_operations_unload(terse_supervisor *s, const char *name);
void terse_operations_tried(terse_supervisor *s, terse_supervised_model *model); /* sound: it may be warmed */
void terse_operations_failed(terse_supervisor *s, terse_supervised_model *model, terse_status status, const char *why);
void terse_operations_message(terse_supervisor *s, const terse_msg_model_state *message); /* of the front end */
void terse_operations_front_gone(terse_supervisor *s);
void terse_operations_front_started(terse_supervisor *s);
void terse_operations_stop(terse_supervisor *s); /* answers all that is not done: the daemon ends */

/* reread.c */
void terse_reread_begin(terse_supervisor *s, pid_t asked); /* SIGHUP of this process */
void terse_reread_end(terse_supervisor *s);                /* all that it asked for is done or has failed */

void terse_front_init(terse_supervisor *s);
void terse_front_start(terse_supervisor *s);
void terse_front_drain(terse_supervisor *s);
void terse_front_configure(terse_supervisor *s); /* tells it the limits that may have changed */
/* Tells the front end of a worker: its exit (wait status), or its new data socket. */
void terse_front_tell_exit(terse_supervisor *s, const terse_child *worker, int wait_status);
/* Tells it of a worker that waits for its next start. */
void terse_front_tell_waiting(terse_supervisor *s, const terse_child *worker);
void terse_front_tell_worker(terse_supervisor *s, const terse_child *worker, int data);
/* Shows no sign of life although it should. */
bool terse_front_silent(const terse_supervisor *s);

/* gate.c: nothing of it does anything when no listener is a tcp one. */
void terse_gate_init(terse_supervisor *s);
void terse_gate_send_keys(terse_supervisor *s); /* those of the configuration, in the place of all before */
int terse_gate_open(terse_supervisor *s, terse_error *error);
void terse_gate_start(terse_supervisor *s);
/* To a new front end, before it is configured: where the gate comes in, and who it is. */
void terse_gate_introduce(terse_supervisor *s);
void terse_gate_front_ended(terse_supervisor *s); /* its clients shall connect again */
void terse_gate_done(terse_supervisor *s);

int terse_pool_init(terse_supervisor *s, terse_error *error);
void terse_pool_start(terse_supervisor *s);
/* Makes the data socket between a worker and the front end, when both are there. */
void terse_pool_connect(terse_supervisor *s, terse_child *worker);
void terse_pool_kill_hung(terse_supervisor *s, const terse_msg_worker *which);
/* Starts workers, or lets the last ones finish what they have and go. */
void terse_pool_resize(terse_supervisor *s, unsigned n_workers);
void terse_pool_free(terse_supervisor *s, const terse_msg_worker *which); /* one that is to go has nothing to do */
void terse_pool_front_gone(terse_supervisor *s);
void terse_pool_done(terse_supervisor *s);

int terse_notify_init(terse_supervisor *s, terse_error *error);
/* Tells the service manager the state, when it has changed, in front of it `lines` ("READY=1\n"). */
void terse_notify_status(terse_supervisor *s, const char *lines);
void terse_notify_done(terse_supervisor *s);

#endif
