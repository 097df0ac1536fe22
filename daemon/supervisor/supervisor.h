/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor.h: tersed itself: the parent of loaders, front end and workers.
 * Runs in: tersed, one thread. Ownership: see each field; the configuration is borrowed.
 *
 * supervisor.c holds the phases and the signals, models.c the loaders, front.c and pool.c those children,
 * notify.c what the service manager is told. They share this one struct. */
#ifndef TERSE_SUPERVISOR_SUPERVISOR_H
#define TERSE_SUPERVISOR_SUPERVISOR_H

#include "daemon/supervisor/child.h"
#include "daemon/supervisor/config.h"
#include "daemon/supervisor/listeners.h"

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
    char loader[TERSE_PATH_BYTES], frontend[TERSE_PATH_BYTES], worker[TERSE_PATH_BYTES];
} terse_programs;

typedef struct terse_supervised_model {
    const terse_model_config *config;
    terse_child loader;
    int memory; /* the sealed memfd, kept for every later front end and worker; -1: not loaded */
    uint64_t bytes;
    bool answered; /* its loader has spoken, well or not */
} terse_supervised_model;

typedef struct terse_supervisor {
    const terse_config *config;
    const terse_programs *programs;
    sd_event *loop;
    terse_phase phase;
    terse_listeners listeners;
    terse_supervised_model *models;
    unsigned n_models, next_model, n_loading, n_bad_models;
    terse_child frontend;
    bool workers_warm; /* the front end has one that warmed every model */
    uint64_t alive_ns; /* when the front end last showed life */
    terse_msg_alive alive;
    terse_child *workers;
    unsigned n_workers;
    uint64_t input_bytes, output_bytes, arena_bytes;
    sd_event_source *stop_timer, *watchdog_timer;
    uint64_t watchdog_us;
    char status[512]; /* what the service manager was told last */
    int exit_code;
} terse_supervisor;

const char *terse_phase_name(terse_phase phase);

/* Runs until it is told to stop; returns the exit code. The configuration is checked and has models. */
int terse_supervisor_run(const terse_config *config, const terse_programs *programs);

/* --- between the files of the supervisor --- */
void terse_supervisor_loaded(terse_supervisor *s);  /* every loader has answered */
void terse_supervisor_ready(terse_supervisor *s);   /* the front end serves and a worker is warm */
void terse_supervisor_drained(terse_supervisor *s); /* nothing is left to answer, or nobody who could */
void terse_supervisor_reaped(terse_supervisor *s);  /* a child is gone; the last one ends the phase STOPPING */
void terse_supervisor_fail(terse_supervisor *s);    /* stop with exit code 1; the reason has been logged */

int terse_models_init(terse_supervisor *s, terse_error *error);
void terse_models_load(terse_supervisor *s); /* starts as many loaders as there are cores */
/* Sends MODEL for each model. */
void terse_models_send(const terse_supervisor *s, terse_child *to);
void terse_models_done(terse_supervisor *s);

void terse_front_init(terse_supervisor *s);
void terse_front_start(terse_supervisor *s);
void terse_front_drain(terse_supervisor *s);
/* Tells the front end of a worker: its exit (wait status), or its new data socket. */
void terse_front_tell_exit(terse_supervisor *s, const terse_child *worker, int wait_status);
/* Tells it of a worker that waits for its next start. */
void terse_front_tell_waiting(terse_supervisor *s, const terse_child *worker);
void terse_front_tell_worker(terse_supervisor *s, const terse_child *worker, int data);
/* Shows no sign of life although it should. */
bool terse_front_silent(const terse_supervisor *s);

int terse_pool_init(terse_supervisor *s, terse_error *error);
void terse_pool_start(terse_supervisor *s);
/* Makes the data socket between a worker and the front end, when both are there. */
void terse_pool_connect(terse_supervisor *s, terse_child *worker);
void terse_pool_kill_hung(terse_supervisor *s, const terse_msg_worker *which);
void terse_pool_done(terse_supervisor *s);

int terse_notify_init(terse_supervisor *s, terse_error *error);
/* Tells the service manager the state, when it has changed, in front of it `lines` ("READY=1\n"). */
void terse_notify_status(terse_supervisor *s, const char *lines);
void terse_notify_done(terse_supervisor *s);

#endif
