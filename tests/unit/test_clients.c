/* SPDX-License-Identifier: Apache-2.0 */
/* Who a client is, by what ZeroMQ says of its connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/frontend/clients.h"

static terse_client identified(const char *address, uint32_t gate_pid)
{
    terse_client client = {.peer = 1};
    terse_client_identify(&client, address, gate_pid);
    return client;
}

static void the_kernel_vouches_for_local_clients(void **state)
{
    (void)state;
    const terse_client client = identified("localhost:1001:100:4294967295", 0);
    assert_false(client.remote);
    assert_int_equal(client.uid, 1001);
    assert_int_equal(client.pid, UINT32_MAX);
}

static void only_root_and_our_own_user_are_admins(void **state)
{
    char own[64];
    (void)state;
    snprintf(own, sizeof own, "localhost:%u:0:77", geteuid());
    const terse_client root = identified("localhost:0:0:77", 0), self = identified(own, 0);
    const terse_client other = identified("localhost:54321:0:77", 0), nobody = {.peer = 1};
    assert_true(terse_client_is_admin(&root));
    assert_true(terse_client_is_admin(&self));
    assert_false(terse_client_is_admin(&other));
    assert_false(terse_client_is_admin(&nobody)); /* not asked yet */
}

static void whoever_comes_through_the_gate_is_remote(void **state)
{
    (void)state;
    const terse_client client = identified("localhost:0:0:77", 77);
    assert_true(client.remote);
    assert_false(terse_client_is_admin(&client));
}

static void other_addresses_are_remote(void **state)
{
    static const char *const addresses[] = {"",
                                            "127.0.0.1",
                                            "::1",
                                            "fe80::1:0:0:77",
                                            "localhost",
                                            "localhost:",
                                            "localhost:0",
                                            "localhost:0:0",
                                            "localhost:0:0:",
                                            "localhost::0:77",
                                            "localhost:0:0:77:0",
                                            "localhost:-1:0:77",
                                            "localhost:4294967296:0:77",
                                            "localhost:0:0:99999999999999999999999",
                                            "localhost:0x0:0:77",
                                            " localhost:0:0:77"};
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        const terse_client client = identified(addresses[i], 0);
        assert_true(client.remote);
        assert_false(terse_client_is_admin(&client));
    }
    const terse_client client = identified(NULL, 0);
    assert_true(client.remote);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_vouches_for_local_clients),
        cmocka_unit_test(only_root_and_our_own_user_are_admins),
        cmocka_unit_test(whoever_comes_through_the_gate_is_remote),
        cmocka_unit_test(other_addresses_are_remote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
