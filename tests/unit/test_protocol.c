/* SPDX-License-Identifier: Apache-2.0 */
/* test_protocol.c: datagrams between our processes, with and without descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/protocol.h"

static char buffer[TERSE_MSG_BYTES];
static int pair[2];

static int open_pair(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair);
}

static int close_pair(void **state)
{
    (void)state;
    close(pair[0]);
    close(pair[1]);
    return 0;
}

static int count_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void a_message_arrives_with_its_descriptors(void **state)
{
    (void)state;
    terse_msg_worker sent = {.head = {TERSE_MSG_WORKER, sizeof sent}, .worker = 3, .pid = 99};
    int fds[4], got[4], n = -1;
    for (int i = 0; i < 4; i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(terse_msg_send(pair[0], &sent, sizeof sent, fds, 4));
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), sizeof sent);
    assert_int_equal(n, 4);
    assert_memory_equal(buffer, &sent, sizeof sent);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
        close(got[i]);
        close(fds[i]);
    }
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), -1);
    assert_int_equal(errno, EAGAIN);
}

static void the_largest_message_fits(void **state)
{
    (void)state;
    char *large = calloc(1, TERSE_MSG_BYTES);
    ((terse_msg *)(void *)large)->bytes = TERSE_MSG_BYTES;
    large[TERSE_MSG_BYTES - 1] = 42;
    int got[4], n;
    assert_true(terse_msg_send(pair[0], large, TERSE_MSG_BYTES, NULL, 0));
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), TERSE_MSG_BYTES);
    assert_int_equal(buffer[TERSE_MSG_BYTES - 1], 42);
    assert_false(terse_msg_send(pair[0], large, TERSE_MSG_BYTES + 1, NULL, 0));
    assert_false(terse_msg_send(pair[0], large, 4, NULL, 0));
    free(large);
}

static void a_lie_about_the_size_is_refused_and_its_descriptors_closed(void **state)
{
    (void)state;
    const int before = count_fds();
    terse_msg lie = {TERSE_MSG_DATA, 100};
    int fd = pair[0], got[4], n = -1;
    assert_true(terse_msg_send(pair[0], &lie, sizeof lie, &fd, 1));
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), -1);
    assert_int_equal(errno, EPROTO);
    assert_int_equal(n, 0);
    assert_int_equal(send(pair[0], "abc", 3, 0), 3);
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), -1);
    assert_int_equal(errno, EPROTO);
    assert_int_equal(count_fds(), before);
}

static void more_descriptors_than_four_are_closed(void **state)
{
    (void)state;
    const int before = count_fds();
    terse_msg message = {TERSE_MSG_DATA, sizeof message};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(6 * sizeof(int))];
    } control = {0};
    int fds[6] = {pair[0], pair[0], pair[0], pair[0], pair[0], pair[0]}, got[4], n = -1;
    struct iovec part = {&message, sizeof message};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    *rights = (struct cmsghdr){CMSG_LEN(sizeof fds), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(rights), fds, sizeof fds);
    assert_int_equal(sendmsg(pair[0], &header, 0), sizeof message);
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), sizeof message);
    assert_int_equal(n, 4);
    for (int i = 0; i < n; i++)
        close(got[i]);
    assert_int_equal(count_fds(), before);
}

static void a_full_socket_says_eagain_and_a_closed_one_ends(void **state)
{
    (void)state;
    terse_msg message = {TERSE_MSG_DRAIN, sizeof message};
    int got[4], n, sent = 0;
    while (sent < 100000 && terse_msg_send(pair[0], &message, sizeof message, NULL, 0))
        sent++;
    assert_in_range(sent, 1, 99999);
    assert_int_equal(errno, EAGAIN);
    close(pair[0]);
    pair[0] = -1;
    for (int i = 0; i < sent; i++)
        assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), sizeof message);
    assert_int_equal(terse_msg_receive(pair[1], buffer, got, &n), 0);
    assert_false(terse_msg_send(pair[1], &message, sizeof message, NULL, 0));
    assert_int_equal(errno, EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_message_arrives_with_its_descriptors, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(the_largest_message_fits, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(a_lie_about_the_size_is_refused_and_its_descriptors_closed, open_pair,
                                        close_pair),
        cmocka_unit_test_setup_teardown(more_descriptors_than_four_are_closed, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(a_full_socket_says_eagain_and_a_closed_one_ends, open_pair, close_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
