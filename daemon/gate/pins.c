/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "daemon/gate/gate.h"

enum { COUNT_FROM = 1024 }; /* smaller ones are bounded by the high-water marks */

/* As in the front end's pins: what the main thread wrote is seen by the thread that gives a message back. */
static atomic_uint handed;

typedef struct pin {
    zmq_msg_t message; /* the bytes */
    _Atomic uint64_t *total;
    terse_gate_account *account;
    uint64_t bytes;
} pin;

terse_gate_account *terse_gate_account_new(void)
{
    terse_gate_account *account = calloc(1, sizeof *account);
    if (account)
        atomic_init(&account->users, 1);
    return account;
}

void terse_gate_account_release(terse_gate_account *account)
{
    if (account && atomic_fetch_sub(&account->users, 1) == 1)
        free(account);
}

/* In ZeroMQ's thread, or in ours when a message is thrown away. */
static void release(void *data, void *hint)
{
    (void)data;
    pin *p = hint;
    (void)atomic_load_explicit(&handed, memory_order_acquire);
    atomic_fetch_sub(p->total, p->bytes);
    if (p->account)
        atomic_fetch_sub(&p->account->bytes, p->bytes);
    terse_gate_account_release(p->account);
    zmq_msg_close(&p->message);
    free(p);
}

void terse_gate_pin(zmq_msg_t *part, _Atomic uint64_t *total, terse_gate_account *account)
{
    zmq_msg_t outer;
    pin *p = zmq_msg_size(part) >= COUNT_FROM ? malloc(sizeof *p) : NULL;
    if (!p)
        return;
    p->total = total;
    p->account = account;
    p->bytes = zmq_msg_size(part);
    zmq_msg_init(&p->message);
    zmq_msg_move(&p->message, part);
    if (zmq_msg_init_data(&outer, zmq_msg_data(&p->message), p->bytes, release, p) != 0) {
        zmq_msg_move(part, &p->message);
        zmq_msg_close(&p->message);
        free(p);
        return;
    }
    atomic_store_explicit(&handed, atomic_load_explicit(&handed, memory_order_relaxed) + 1, memory_order_release);
    atomic_fetch_add(total, p->bytes);
    if (account) {
        atomic_fetch_add(&account->bytes, p->bytes);
        atomic_fetch_add(&account->users, 1);
    }
    zmq_msg_move(part, &outer);
    zmq_msg_close(&outer);
}
