/* SPDX-License-Identifier: Apache-2.0 */
/* play_pool.h: the supervisor and the workers that the front end sees while it is fuzzed, at the other ends of real
 * sockets. Workers answer as asked: well, with an error, with nonsense, not at all; and die. What a good answer holds
 * follows from the inputs (every byte of an output is the complement of the inputs' bytes), so that a reply that got
 * the bytes of another request is seen. */
#ifndef TERSE_FUZZ_PLAY_POOL_H
#define TERSE_FUZZ_PLAY_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/protocol.h"

enum { PLAY_WORKERS = 3, PLAY_MODELS = 3 };

/* The bytes of the input, read one after the other; zeros behind its end. */
typedef struct play_input {
    const uint8_t *at, *end;
} play_input;
uint8_t play_byte(play_input *in);

typedef struct play_model {
    const char *name;
    int n_inputs, rank;
    bool batchable, grows; /* grows: the size of its output is the worker's to say */
    int memfd;
    uint64_t bytes;
} play_model;
extern play_model play_models[PLAY_MODELS];
extern bool play_pool_lied; /* a worker answered with nonsense, or a client named other tensors than its own: what
                             * replies hold is not known */

void play_pool_prepare(void); /* once: makes the models */
/* Opens the control socket, whose other end becomes the front end's, and queues all that a supervisor sends first. */
int play_pool_start(play_input *in);
void play_pool_end(void);

void play_worker_step(unsigned worker, play_input *in); /* one answer, as the input has it */
void play_worker_start(unsigned worker);
void play_worker_die(unsigned worker, int wait_status, bool told);
void play_supervisor_step(play_input *in);
void play_pool_supervise(void); /* takes what the front end told the supervisor */
/* Everybody does what is to be done: takes all messages, answers all batches, replaces the dead. */
void play_pool_heal(void);
void play_pool_drain(void);
bool play_pool_owes(void); /* the supervisor has orders that it has not answered */
void play_pool_hang_up(void);

#endif
