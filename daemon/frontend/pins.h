/* SPDX-License-Identifier: Apache-2.0 */
/* pins.h: output slots that ZeroMQ still sends from.
 * Runs in: frontend; terse_pin_release runs on ZeroMQ's thread, all else on ours.
 * Ownership: a pin holds one output slot until the last message that points into it is sent; then it comes back
 * through a lock-free stack (pushed there, taken here all at once), and with it the bytes that its client owes. */
#ifndef TERSE_FRONTEND_PINS_H
#define TERSE_FRONTEND_PINS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct terse_client;
typedef struct terse_pins terse_pins;

typedef struct terse_pin {
    terse_pins *pins;
    struct terse_pin *next;
    struct terse_client *client;
    atomic_uint messages; /* that still point into the slot */
    uint32_t slot;        /* TERSE_SLOT_NONE: `copy` instead */
    void *copy;           /* heap bytes, freed with the pin */
    uint64_t bytes;       /* counted against the client */
} terse_pin;

/* wake_fd: an eventfd that is rung when something came back and terse_pins_await was called before. */
terse_pins *terse_pins_new(int wake_fd);
void terse_pins_free(terse_pins *pins);
terse_pin *terse_pins_take(terse_pins *pins); /* NULL: no memory. Counts no message yet. */
/* One message more holds it. After all else of it is set, and before zmq_msg_init_data. */
void terse_pin_hold(terse_pin *pin);
/* For zmq_msg_init_data: data is not looked at, hint is the pin. */
void terse_pin_release(void *data, void *hint);
/* All pins that came back, linked by next; give each back with terse_pins_give. */
terse_pin *terse_pins_collect(terse_pins *pins);
void terse_pins_give(terse_pins *pins, terse_pin *pin);
void terse_pins_await(terse_pins *pins);
uint32_t terse_pins_out(const terse_pins *pins); /* how many are out */

#endif
