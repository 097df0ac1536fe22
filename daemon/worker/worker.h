/* SPDX-License-Identifier: Apache-2.0 */
/* worker.h: a worker's one struct: models, slot memories, sockets.
 * Runs in: terse-worker, no ZeroMQ; one thread, but for those of `threads` while a plan runs. Ownership: the struct
 * owns all below it; weights are pages of the sealed memfd that every process maps, never touched for writing.
 *
 * Rooms: main.c hears the sockets; models.c maps and warms; live.c does so, and lets go, between batches; trial.c runs
 * a model that nobody is served from yet; batch.c runs one batch; arenas.c maps clients'
 * memory. */
#ifndef TERSE_WORKER_WORKER_H
#define TERSE_WORKER_WORKER_H

#include "common/graph/engine.h"
#include "common/model.h"
#include "daemon/protocol.h"

typedef struct terse_worker_model {
    terse_model *model; /* NULL: none of this number, or it could not be read */
    terse_engine *engine;
    void *base;
    size_t bytes;
    uint32_t max_batch, threads;
    uint64_t serial;
    bool warmed;
    bool computes_indices; /* nodes make integers that may decide an address */
    terse_msg_warm_cost costs[TERSE_WARM_COSTS];
    uint32_t n_costs;
} terse_worker_model;

/* Memory that grows to what the largest batch needs and stays. */
typedef struct terse_worker_buffer {
    uint8_t *data;
    size_t bytes;
} terse_worker_buffer;

/* Where the tensors of a batch lie: the slots of the front end (number 0), or a client's shared memory. */
typedef struct terse_worker_memory {
    const uint8_t *inputs; /* NULL: not mapped */
    uint8_t *outputs;
    uint64_t input_bytes, output_bytes;
} terse_worker_memory;

/* A mapping that is given up bit by bit. */
typedef struct terse_worker_leaving {
    uint8_t *base;
    size_t bytes;
    uint32_t model;
    uint64_t serial; /* 0: nobody waits to hear of it */
} terse_worker_leaving;

enum { TERSE_WORKER_LEAVING = 16 };

typedef enum terse_worker_stage {
    TERSE_STAGE_NONE,
    TERSE_STAGE_PAGES, /* page tables are filled */
    TERSE_STAGE_PLAN,  /* plans are made, and run where that is quick */
} terse_worker_stage;

/* memory.c: what the process takes. /proc is out of reach later, so its file stays open. */
typedef struct terse_worker_sizes {
    int fd;              /* /proc/self/statm; 0: not opened yet, -1: there is none */
    uint64_t base_bytes; /* private ones when it first served, of smaps_rollup, which takes long */
    uint64_t base_statm; /* what statm said then */
    uint64_t private_bytes, shared_bytes, told_ns;
} terse_worker_sizes;

typedef struct terse_worker {
    int control_fd, data_fd; /* data_fd -1: no front end */
    uint32_t index, epoch;
    bool confined; /* its filter of system calls is in force */
    terse_worker_sizes sizes;
    terse_worker_model models[TERSE_MODEL_SLOTS];
    uint32_t n_models; /* highest index + 1 */
    /* live.c */
    terse_worker_stage stage; /* of the model that is being warmed between batches */
    uint32_t warming;
    size_t populated;
    uint64_t trial_ns; /* what one row of it took on trial; 0: unknown */
    terse_worker_leaving leaving[TERSE_WORKER_LEAVING];
    uint32_t n_leaving;
    uint64_t live_due_ns; /* the next piece of that work */
    bool on_trial;
    terse_error open_error;                         /* of the model that the supervisor sent last */
    terse_threads *threads;                         /* NULL: no model wants more than one */
    terse_worker_memory memories[TERSE_MAX_ARENAS]; /* 0: the slots, not mapped before HELLO */
    uint64_t spin_ns;
    terse_worker_buffer gathered, results;
    _Alignas(16) uint8_t message[TERSE_MSG_BYTES], answer[TERSE_MSG_BYTES];
} terse_worker;

/* models.c */
void terse_worker_add_model(terse_worker *worker, const terse_msg_model *message, int fd);
/* Maps and reads a model without touching its pages; false with its error, and nothing is there. */
bool terse_worker_open_model(terse_worker *worker, const terse_msg_model *message, int fd, terse_error *error);
/* Ends engine and model; the mapping is the caller's. */
void terse_worker_close_model(terse_worker_model *served);
/* Starts the threads that the models want and cannot be had behind the filter of system calls. */
void terse_worker_start_threads(terse_worker *worker);
/* Runs every model of which it is not known what its batches take, where its shapes are known. */
void terse_worker_warm(terse_worker *worker);
/* Measures one model with 1, 2, 4 ... rows, as far as time goes. Fails when not even one row can run; a model whose
 * shapes are not known from itself is not run. */
int terse_worker_measure(terse_worker *worker, uint32_t index, terse_error *error);
/* Makes the plan of so many rows, and runs it if `run`. */
int terse_worker_plan(terse_worker *worker, uint32_t index, int64_t rows, bool run, terse_error *error);

/* memory.c */
void terse_worker_sizes_open(terse_worker *worker); /* before the filter of system calls */
/* Tells the front end, once a second at most: for when a batch has been answered. */
void terse_worker_sizes_tell(terse_worker *worker);

/* arenas.c */
/* Maps two memories. false, with errno: the system gives none. */
bool terse_worker_map(terse_worker_memory *memory, uint64_t input_bytes, uint64_t output_bytes, const int *fds);
void terse_worker_unmap(terse_worker_memory *memory);
void terse_worker_unmap_all(terse_worker *worker);
void terse_worker_take_arena(terse_worker *worker, const terse_msg_arena *message, const int *fds);
void terse_worker_drop_arena(terse_worker *worker, const terse_msg_arena *message);

/* live.c: models that come and go while the worker serves. */
void terse_worker_live_take(terse_worker *worker, const terse_msg_model *message, int fd);
void terse_worker_live_drop(terse_worker *worker, const terse_msg_model_state *which);
void terse_worker_live_abandon(terse_worker *worker);          /* the front end that wanted it is gone */
uint64_t terse_worker_live_due_ns(const terse_worker *worker); /* when the next piece is; UINT64_MAX: there is none */
void terse_worker_live_step(terse_worker *worker);             /* a tenth of a millisecond of that work */

/* trial.c: runs what the supervisor sent, out of everybody's way, and tells. */
void terse_worker_try(terse_worker *worker);

/* batch.c: runs the BATCH in worker->message (size bytes) and leaves DONE in worker->answer; returns its bytes, 0 for a
 * message that cannot be a batch. */
uint32_t terse_worker_run(terse_worker *worker, size_t size);
/* Grows a buffer; false: no memory. What was in it is lost. */
bool terse_worker_reserve(terse_worker_buffer *buffer, size_t bytes);

#endif
