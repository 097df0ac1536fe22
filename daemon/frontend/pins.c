/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/frontend/pins.h"

#include <stdlib.h>
#include <unistd.h>

/* ZeroMQ hands a message from thread to thread by means of its own. Pairing a store before with a load behind makes
 * what a pin holds seen whatever those means are, and lets ThreadSanitizer see that it is. */
static atomic_uint handed;

struct terse_pins {
    _Atomic(terse_pin *) back;
    atomic_bool awaited;
    int wake_fd;
    terse_pin *unused;
    uint32_t n_out;
};

terse_pins *terse_pins_new(int wake_fd)
{
    terse_pins *pins = calloc(1, sizeof *pins);
    if (pins)
        pins->wake_fd = wake_fd;
    return pins;
}

void terse_pins_free(terse_pins *pins)
{
    if (!pins)
        return;
    for (terse_pin *pin = pins->unused, *next; pin; pin = next) {
        next = pin->next;
        free(pin);
    }
    free(pins);
}

terse_pin *terse_pins_take(terse_pins *pins)
{
    terse_pin *pin = pins->unused;
    if (pin)
        pins->unused = pin->next;
    else if (!(pin = calloc(1, sizeof *pin)))
        return NULL;
    pin->pins = pins;
    pin->next = NULL;
    pin->client = NULL;
    pin->copy = NULL;
    pin->bytes = 0;
    pin->slot = UINT32_MAX;
    atomic_init(&pin->messages, 0);
    pins->n_out++;
    return pin;
}

void terse_pin_hold(terse_pin *pin)
{
    atomic_fetch_add_explicit(&pin->messages, 1, memory_order_relaxed);
    atomic_store_explicit(&handed, atomic_load_explicit(&handed, memory_order_relaxed) + 1, memory_order_release);
}

void terse_pin_release(void *data, void *hint)
{
    (void)data;
    terse_pin *pin = hint;
    (void)atomic_load_explicit(&handed, memory_order_acquire);
    /* acq_rel: whoever is last sees every other's reads of the slot done before it is given back. */
    if (atomic_fetch_sub_explicit(&pin->messages, 1, memory_order_acq_rel) != 1)
        return;
    terse_pins *pins = pin->pins;
    pin->next = atomic_load_explicit(&pins->back, memory_order_relaxed);
    /* seq_cst on both sides of `back` and `awaited`: either we see that we are awaited, or the other side, which sets
     * `awaited` before it looks a last time, sees our pin. */
    while (!atomic_compare_exchange_weak(&pins->back, &pin->next, pin))
        ;
    if (atomic_load(&pins->awaited) && atomic_exchange(&pins->awaited, false)) {
        const uint64_t one = 1;
        if (write(pins->wake_fd, &one, sizeof one) < 0)
            return; /* the counter is full: it rings already */
    }
}

terse_pin *terse_pins_collect(terse_pins *pins)
{
    if (!atomic_load_explicit(&pins->back, memory_order_relaxed))
        return NULL;
    return atomic_exchange(&pins->back, NULL);
}

void terse_pins_give(terse_pins *pins, terse_pin *pin)
{
    free(pin->copy);
    pin->copy = NULL;
    pin->next = pins->unused;
    pins->unused = pin;
    pins->n_out--;
}

void terse_pins_await(terse_pins *pins)
{
    atomic_store(&pins->awaited, true);
}

uint32_t terse_pins_out(const terse_pins *pins)
{
    return pins->n_out;
}
