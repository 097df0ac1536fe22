/* SPDX-License-Identifier: Apache-2.0 */
/* terse-worker: runs one batch at a time for the front end. tersed starts it with the control socket as descriptor 3.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bytes.h"
#include "daemon/begin.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"
#include "daemon/worker/worker.h"

/* Something failed here and not in the front end: nobody would ever send this process a batch again. The supervisor
 * starts another. */
static _Noreturn void give_up(const char *what)
{
    terse_log(TERSE_LOG_ERROR, "%s: %s", what, strerror(errno));
    _exit(1);
}

static bool is_gone(void)
{
    return errno == EPIPE || errno == ECONNRESET;
}

static void leave_front_end(terse_worker *worker)
{
    terse_worker_live_abandon(worker);
    if (worker->data_fd >= 0)
        close(worker->data_fd);
    worker->data_fd = -1;
    terse_worker_unmap_all(worker);
}

static void tell_warmed(terse_worker *worker)
{
    terse_msg_warmed warmed = {
        .head = {TERSE_MSG_WARMED, sizeof warmed},
        .worker = worker->index,
        .epoch = worker->epoch,
        .private_bytes = worker->sizes.private_bytes,
        .shared_bytes = worker->sizes.shared_bytes,
    };
    uint8_t *at = worker->answer + sizeof warmed;
    for (uint32_t i = 0; i < worker->n_models; i++)
        if (worker->models[i].model) {
            const terse_msg_held held = {.model = i, .serial = worker->models[i].serial};
            memcpy(at, &held, sizeof held);
            at += sizeof held;
            warmed.n_held++;
        }
    for (uint32_t i = 0; i < worker->n_models; i++) {
        memcpy(at, worker->models[i].costs, worker->models[i].n_costs * sizeof worker->models[i].costs[0]);
        at += worker->models[i].n_costs * sizeof worker->models[i].costs[0];
    }
    warmed.head.bytes = (uint32_t)(at - worker->answer);
    memcpy(worker->answer, &warmed, sizeof warmed);
    if (!terse_msg_send(worker->control_fd, worker->answer, warmed.head.bytes, NULL, 0) && !is_gone())
        give_up("cannot tell the supervisor");
    if (!terse_msg_send(worker->data_fd, worker->answer, warmed.head.bytes, NULL, 0) && !is_gone())
        give_up("cannot tell the front end");
}

static void take_hello(terse_worker *worker, const terse_msg_hello *hello, const int *fds)
{
    if (worker->open_error.status == TERSE_SYSTEM) /* the model is good, and the next process may have room for it */
        _exit(1);
    if (!terse_worker_map(&worker->memories[0], hello->input_bytes, hello->output_bytes, fds))
        give_up("cannot map the slots of the front end");
    worker->spin_ns = hello->spin_us * UINT64_C(1000);
    worker->index = hello->worker;
    worker->epoch = hello->epoch;
    terse_worker_start_threads(worker);
    terse_worker_warm(worker);
    malloc_trim(0); /* what reading the models left behind */
    terse_worker_sizes_open(worker);
    if (!worker->confined) {
        terse_sandbox_filter(TERSE_ROLE_WORKER);
        worker->confined = true;
    }
    tell_warmed(worker);
}

static void take_batch(terse_worker *worker, size_t size)
{
    const uint32_t bytes = terse_worker_run(worker, size);
    errno = EPROTO;
    if (bytes == 0)
        give_up("cannot understand a batch");
    if (!terse_msg_send(worker->data_fd, worker->answer, bytes, NULL, 0) && !is_gone())
        give_up("cannot answer a batch");
    terse_worker_sizes_tell(worker);
}

/* One message of the front end. false: it is gone. */
static bool hear_front_end(terse_worker *worker)
{
    int fds[4], n_fds = 0;
    const int64_t size = terse_msg_receive(worker->data_fd, worker->message, fds, &n_fds);
    if (size < 0 && errno == EAGAIN)
        return true;
    if (size < 0)
        give_up("cannot hear the front end");
    if (size == 0)
        return false;
    const terse_msg *head = (const terse_msg *)(const void *)worker->message;
    if (head->kind == TERSE_MSG_HELLO && size == sizeof(terse_msg_hello) && n_fds == 2 && !worker->memories[0].inputs) {
        const terse_msg_hello hello = *(const terse_msg_hello *)(const void *)worker->message;
        take_hello(worker, &hello, fds);
    } else if (head->kind == TERSE_MSG_ARENA && size == sizeof(terse_msg_arena) && n_fds == 2) {
        terse_worker_take_arena(worker, (const terse_msg_arena *)(const void *)worker->message, fds);
    } else if (head->kind == TERSE_MSG_ARENA_GONE && size == sizeof(terse_msg_arena)) {
        terse_worker_drop_arena(worker, (const terse_msg_arena *)(const void *)worker->message);
    } else if (head->kind == TERSE_MSG_BATCH && worker->memories[0].inputs) {
        take_batch(worker, (size_t)size);
    } else if (head->kind == TERSE_MSG_MODEL && size == sizeof(terse_msg_model) && n_fds == 1 &&
               worker->memories[0].inputs) {
        terse_worker_live_take(worker, (const terse_msg_model *)(const void *)worker->message, fds[0]);
    } else if (head->kind == TERSE_MSG_UNLOAD && size == sizeof(terse_msg_model_state)) {
        terse_worker_live_drop(worker, (const terse_msg_model_state *)(const void *)worker->message);
    } else {
        terse_log(TERSE_LOG_WARNING, "the front end sent a message of kind %" PRIu32 " that is not awaited",
                  head->kind);
    }
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
    return true;
}

/* One message of the supervisor. false: it is gone. */
static bool hear_supervisor(terse_worker *worker)
{
    int fds[4], n_fds = 0;
    const int64_t size = terse_msg_receive(worker->control_fd, worker->message, fds, &n_fds);
    if (size < 0 && errno == EAGAIN)
        return true;
    if (size < 0)
        give_up("cannot hear the supervisor");
    if (size == 0)
        return false;
    const terse_msg *head = (const terse_msg *)(const void *)worker->message;
    if (head->kind == TERSE_MSG_MODEL && size == sizeof(terse_msg_model) && n_fds == 1) {
        terse_worker_add_model(worker, (const terse_msg_model *)(const void *)worker->message, fds[0]);
    } else if (head->kind == TERSE_MSG_DATA && n_fds == 1) {
        leave_front_end(worker);
        worker->data_fd = fds[0];
        fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK);
        n_fds = 0;
    } else if (head->kind == TERSE_MSG_TRY) {
        terse_worker_try(worker);
    } else {
        terse_log(TERSE_LOG_WARNING, "the supervisor sent a message of kind %" PRIu32 " that is not known here",
                  head->kind);
    }
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
    return true;
}

/* For messages until the clock says `until_ns`; UINT64_MAX: for ever. */
static int wait_until(struct pollfd watched[2], uint64_t until_ns)
{
    if (until_ns == UINT64_MAX)
        return poll(watched, 2, -1);
    const uint64_t now = terse_now_ns(), left = until_ns > now ? until_ns - now : 0;
    const struct timespec time = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
    return ppoll(watched, 2, &time, NULL);
}

static void serve(terse_worker *worker)
{
    uint64_t busy_ns = 0; /* when there was something last */
    for (;;) {
        struct pollfd watched[2] = {{.fd = worker->data_fd, .events = POLLIN},
                                    {.fd = worker->control_fd, .events = POLLIN}};
        /* What is left to do for models that come and go is done while nobody asks for anything. */
        const bool spins = worker->spin_ns && terse_now_ns() - busy_ns < worker->spin_ns;
        const uint64_t due = terse_worker_live_due_ns(worker);
        const int n = wait_until(watched, spins ? 0 : due);
        if (n < 0 && errno != EINTR)
            return;
        if (n == 0 && due <= terse_now_ns())
            terse_worker_live_step(worker);
        else if (n == 0)
            sched_yield();
        if (watched[0].revents && !hear_front_end(worker))
            leave_front_end(worker);
        if (watched[1].revents && !hear_supervisor(worker))
            return;
        if (n > 0 && worker->spin_ns)
            busy_ns = terse_now_ns();
    }
}

int main(int argc, char **argv)
{
    if (!terse_begin("terse-worker"))
        return 2;
    fcntl(TERSE_CONTROL_FD, F_SETFL, fcntl(TERSE_CONTROL_FD, F_GETFL) | O_NONBLOCK);
    terse_worker *worker = calloc(1, sizeof *worker);
    if (!worker) {
        terse_log(TERSE_LOG_ERROR, "no memory");
        return 1;
    }
    worker->control_fd = TERSE_CONTROL_FD;
    worker->on_trial = argc > 1 && strcmp(argv[1], "trial") == 0;
    worker->data_fd = -1;
    serve(worker);
    _exit(0); /* the kernel takes back faster what it gave */
}
