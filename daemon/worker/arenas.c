/* SPDX-License-Identifier: Apache-2.0 */
/* The memories in which tensors lie: slots and clients' arenas. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/log.h"
#include "daemon/worker/worker.h"

bool terse_worker_map(terse_worker_memory *memory, uint64_t input_bytes, uint64_t output_bytes, const int *fds)
{
    void *inputs = mmap(NULL, input_bytes, PROT_READ, MAP_SHARED, fds[0], 0);
    void *outputs = mmap(NULL, output_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
    if (inputs == MAP_FAILED || outputs == MAP_FAILED) {
        const int why = errno;
        if (inputs != MAP_FAILED)
            munmap(inputs, input_bytes);
        if (outputs != MAP_FAILED)
            munmap(outputs, output_bytes);
        errno = why;
        return false;
    }
    *memory = (terse_worker_memory){inputs, outputs, input_bytes, output_bytes};
    return true;
}

void terse_worker_unmap(terse_worker_memory *memory)
{
    if (memory->inputs) {
        munmap((void *)(uintptr_t)memory->inputs, memory->input_bytes);
        munmap(memory->outputs, memory->output_bytes);
    }
    *memory = (terse_worker_memory){0};
}

void terse_worker_unmap_all(terse_worker *worker)
{
    for (uint32_t i = 0; i < TERSE_MAX_ARENAS; i++)
        terse_worker_unmap(&worker->memories[i]);
}

void terse_worker_take_arena(terse_worker *worker, const terse_msg_arena *message, const int *fds)
{
    if (message->arena == 0 || message->arena >= TERSE_MAX_ARENAS) {
        terse_log(TERSE_LOG_ERROR, "shared memory number %" PRIu32, message->arena);
        return;
    }
    terse_worker_memory *memory = &worker->memories[message->arena];
    terse_worker_unmap(memory);
    /* Without it its batches fail, each with an error of its own. */
    if (!terse_worker_map(memory, message->input_bytes, message->output_bytes, fds))
        terse_log(TERSE_LOG_ERROR, "cannot map %" PRIu64 " bytes of a client's memory: %s",
                  message->input_bytes + message->output_bytes, strerror(errno));
}

void terse_worker_drop_arena(terse_worker *worker, const terse_msg_arena *message)
{
    if (message->arena > 0 && message->arena < TERSE_MAX_ARENAS)
        terse_worker_unmap(&worker->memories[message->arena]);
}
