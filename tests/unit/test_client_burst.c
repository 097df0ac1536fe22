/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_burst.c: a daemon dies behind more answers than a client has read. */
#include "tests/unit/client_fake.h"

#include "client/links.h"

enum { ASKED = 100 };

/* What the daemon sent before it went is all there, and the client does not know yet that it went. */
static void die(fake *f, const terse_client *client)
{
    const int patience_ms = 20000;
    zmq_pollitem_t end = {client->links[0].monitor, 0, ZMQ_POLLIN, 0};
    zmq_setsockopt(f->router, ZMQ_LINGER, &patience_ms, sizeof patience_ms);
    fake_unbind(f);
    assert_int_equal(zmq_poll(&end, 1, patience_ms), 1);
}

static int receive(terse_client *client, int most)
{
    zmq_msg_t frames[TERSE_LINK_FRAMES];
    int n = 0, n_messages = 0;
    while (n_messages < most && terse_links_receive(&client->links[0], frames, &n)) {
        assert_int_equal(n, 2);
        zmq_msg_close(&frames[0]);
        zmq_msg_close(&frames[1]);
        n_messages++;
    }
    return n_messages;
}

/* See common/frames.h: without it the hundredth frame, the second one of a message, ends the process. */
static void a_daemon_that_dies_behind_many_answers_kills_nobody(void **state)
{
    (void)state;
    fake f;
    fake_init(&f);
    terse_client *client = connect_to(&f);
    for (int i = 0; i < ASKED; i++)
        submit(client, (float)i);
    while (f.n_held < ASKED)
        assert_true(fake_take(&f, 20000));
    for (int i = 0; i < ASKED; i++)
        fake_answer(&f, &f.held[i], &(float){(float)i});
    zmq_pollitem_t first = {client->links[0].socket, 0, ZMQ_POLLIN, 0};
    assert_int_equal(zmq_poll(&first, 1, 20000), 1);
    assert_int_equal(receive(client, 1), 1); /* no more, or the connection may be found empty, and looked after */
    die(&f, client);
    assert_in_range(receive(client, ASKED), 1, ASKED - 1);
    terse_client_close(client);
    zmq_ctx_term(f.context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_that_dies_behind_many_answers_kills_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
