/* SPDX-License-Identifier: Apache-2.0 */
/* child.h: one child process: its slot, its state, its control socket and the delay before it is started again.
 * Runs in: tersed. Ownership: a child owns its pidfd, link and event sources while it lives; the slot outlives it. */
#ifndef TERSE_SUPERVISOR_CHILD_H
#define TERSE_SUPERVISOR_CHILD_H

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/supervisor/link.h"

/* X(ID, text in logs and status) */
#define TERSE_CHILD_STATES(X)                                                                                          \
    X(NONE, "not started")                                                                                             \
    X(STARTING, "starting") /* runs, has not reported to be ready */                                                   \
    X(READY, "ready")                                                                                                  \
    X(STOPPING, "stopping") /* its control socket is closed: it exits by itself */                                     \
    X(KILLED, "killed")     /* SIGKILL is sent */                                                                      \
    X(WAITING, "waiting")   /* died too often; its timer starts it again */                                            \
    X(DEAD, "dead")

typedef enum terse_child_state {
#define STATE_ID(id, text) TERSE_CHILD_##id,
    TERSE_CHILD_STATES(STATE_ID)
#undef STATE_ID
} terse_child_state;

const char *terse_child_state_name(terse_child_state state);

typedef struct terse_child terse_child;

typedef struct terse_child_events {
    /* A message (head checked); `fd` is -1 or the callee's to keep or close. */
    void (*message)(terse_child *child, const terse_msg *message, int fd);
    /* It is gone and its slot is free: start it again, or not. */
    void (*exited)(terse_child *child, int wait_status);
    void (*timer)(terse_child *child);
} terse_child_events;

struct terse_child {
    char name[32]; /* in logs: "worker 3" */
    unsigned index;
    terse_child_state state;
    void *owner;
    const terse_child_events *events;
    sd_event *loop; /* borrowed */
    pid_t pid;      /* 0: none */
    int pidfd;
    terse_link link;
    sd_event_source *exit_source, *io_source, *timer_source;
    uint64_t started_ns;
    bool was_ready;    /* this process reported so once */
    bool killed_hung;  /* we killed it on the front end's word */
    bool leaving;      /* it is to go and not to come back */
    unsigned restarts; /* processes before this one */
    unsigned failures; /* starts in a row that came to nothing */
    uint64_t due_ns;   /* WAITING: when it is started again */
};

void terse_child_init(terse_child *child, sd_event *loop, const terse_child_events *events, void *owner,
                      const char *name, unsigned index);
void terse_child_done(terse_child *child); /* a running one is killed and not waited for */
/* Alive as a process, whatever its state. */
bool terse_child_runs(const terse_child *child);
/* Runs, and is meant to go on. */
bool terse_child_serves(const terse_child *child);

/* Starts path with the arguments; the state becomes STARTING. The child must not run. */
int terse_child_start(terse_child *child, const char *path, char *const *argv, terse_error *error);
/* Sends a message; a child that cannot be reached is killed (its exit is then reported as ever). */
void terse_child_send(terse_child *child, terse_msg_kind kind, terse_msg *message, uint32_t bytes, int fd);
void terse_child_ready(terse_child *child);
void terse_child_stop(terse_child *child); /* closes its control socket */
void terse_child_kill(terse_child *child); /* SIGKILL */
/* events->timer is called once, after so many milliseconds, unless the child exits before. 0 cancels. */
void terse_child_arm(terse_child *child, uint64_t after_ms);

/* Waits before the next start: WAITING until events->timer. terse_child_wait_ms: what is left of that. */
void terse_child_wait(terse_child *child, uint64_t delay_ms);
uint64_t terse_child_wait_ms(const terse_child *child);

/* Judges an exit: counts failed starts in a row and returns the milliseconds to wait before the next, 0: none. */
uint64_t terse_child_back_off(terse_child *child, int wait_status, uint64_t lived_ms);

/* "exit status 3", "signal 11 (Segmentation fault)". */
const char *terse_wait_status_text(int wait_status, char *text, size_t size);

#endif
