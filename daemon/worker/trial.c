/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/behind.h"
#include "daemon/log.h"
#include "daemon/pages.h"
#include "daemon/sandbox.h"
#include "daemon/worker/worker.h"

/* A model that is to replace another, or to join others, is run here before anybody is served from it: a model that
 * crashes, hangs or needs more memory than there is ends this process and no other. It gets what nobody else wants of
 * the processors, and behind the same filter of system calls. */
void terse_worker_try(terse_worker *worker)
{
    terse_error error = {0};
    terse_msg_tried tried = {.head = {TERSE_MSG_TRIED, sizeof tried}};
    uint32_t index = 0;
    while (index < worker->n_models && !worker->models[index].model)
        index++;
    worker->on_trial = true;
    terse_behind_all();
    terse_worker_start_threads(worker);
    terse_sandbox_filter(TERSE_ROLE_WORKER);
    worker->confined = true;
    if (index == worker->n_models)
        tried.status = terse_fail(&error, worker->open_error.status ? worker->open_error.status : TERSE_INTERNAL, "%s",
                                  *worker->open_error.message ? worker->open_error.message : "there is no model");
    else
        tried.status = terse_worker_measure(worker, index, &error);
    for (uint32_t i = 0; !tried.status && i < worker->models[index].n_costs; i++)
        tried.costs[tried.n_costs++] = worker->models[index].costs[i];
    if (index < worker->n_models) { /* now, in pieces: at its end it would go in one */
        const terse_worker_model served = worker->models[index];
        terse_worker_close_model(&worker->models[index]);
        terse_pages_unmap(served.base, served.bytes);
    }
    if (tried.status)
        snprintf(tried.error, sizeof tried.error, "%.255s", error.message);
    if (!terse_msg_send(worker->control_fd, &tried, sizeof tried, NULL, 0))
        terse_log(TERSE_LOG_WARNING, "cannot tell the supervisor: %s", strerror(errno));
}
