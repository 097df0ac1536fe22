/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's rooms one by one: cores, back-off, links, listening sockets, starting a program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/supervisor/child.h"
#include "daemon/supervisor/cores.h"
#include "daemon/supervisor/listeners.h"
#include "daemon/supervisor/spawn.h"
#include "daemon/supervisor/supervisor.h"

static char folder[32];

static int begin(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/terse-super-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* Writes FOLDER/path, with its directories. */
static void put(const char *path, const char *text)
{
    char whole[512], command[600];
    snprintf(whole, sizeof whole, "%s/%s", folder, path);
    snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s')\"", whole);
    assert_int_equal(system(command), 0);
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void without_a_quota_all_allowed_cpus_count(void **state)
{
    (void)state;
    cpu_set_t set;
    put("proc/self/cgroup", "0::/\n");
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    assert_int_equal(terse_cores_usable(folder), CPU_COUNT(&set));
}

static void the_strictest_quota_above_us_counts(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a.slice/b.service\n");
    put("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n");
    put("sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n");
    assert_int_equal(terse_cores_usable(folder), 1);
    put("sys/fs/cgroup/a.slice/b.service/cpu.max", "1000 100000\n");
    assert_int_equal(terse_cores_usable(folder), 1);
}

static void the_first_version_of_control_groups_counts_too(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/m\n3:cpuset:/\n2:cpu,cpuacct:/x\n0::/\n");
    put("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "50000\n");
    put("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "50000\n");
    put("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "12345678\n");
    assert_int_equal(terse_cores_usable(folder), 1);
    assert_int_equal(terse_cores_memory(folder), 12345678);
}

static void memory_is_the_lowest_limit(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/a/b\n");
    put("sys/fs/cgroup/a/memory.max", "1000000\n");
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_int_equal(terse_cores_memory(folder), 1000000);
}

static void what_is_available_is_what_nobody_uses(void **state)
{
    (void)state;
    put("proc/meminfo", "MemTotal: 900000 kB\nMemFree: 1000 kB\nMemAvailable:    3000 kB\n");
    put("proc/self/cgroup", "0::/a/b\n");
    assert_int_equal(terse_cores_available(folder), 3000 * 1024);
    put("sys/fs/cgroup/a/memory.max", "1000000\n");
    assert_int_equal(terse_cores_available(folder), 1000000); /* what it has is not known */
    put("sys/fs/cgroup/a/memory.current", "700000\n");
    assert_int_equal(terse_cores_available(folder), 300000);
    put("sys/fs/cgroup/a/memory.stat", "anon 600000\nactive_file 50000\ninactive_file 50000\n");
    assert_int_equal(terse_cores_available(folder), 350000);
    put("sys/fs/cgroup/a/b/memory.max", "100\n");
    put("sys/fs/cgroup/a/b/memory.current", "200\n");
    assert_int_equal(terse_cores_available(folder), 0);
}

static void back_off_grows_with_failed_starts_only(void **state)
{
    (void)state;
    terse_child child = {.was_ready = false};
    const int crash = W_EXITCODE(0, SIGSEGV), foreign = W_EXITCODE(0, SIGKILL);
    const uint64_t wanted[] = {0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        assert_int_equal(terse_child_back_off(&child, crash, 10), wanted[i]);
    for (int i = 0; i < 1000; i++)
        assert_in_range(terse_child_back_off(&child, crash, 10), 1, 5000);
    child.was_ready = true;
    assert_int_equal(terse_child_back_off(&child, foreign, 10), 0); /* somebody else killed a good one */
    assert_int_equal(child.failures, 0);
    assert_int_equal(terse_child_back_off(&child, crash, 10), 0);
    assert_int_equal(child.failures, 1);
    assert_int_equal(terse_child_back_off(&child, crash, 5000), 0); /* it lived: counting starts over */
    assert_int_equal(child.failures, 0);
    child.killed_hung = true;
    assert_int_equal(terse_child_back_off(&child, foreign, 10), 0);
    assert_int_equal(child.failures, 1);
}

static void every_state_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i <= TERSE_CHILD_DEAD; i++)
        assert_true(strlen(terse_child_state_name((terse_child_state)i)) > 1);
}

/* What does not fit into the socket arrives later, in order, each with its descriptor. */
static void a_full_link_queues_in_order(void **state)
{
    (void)state;
    static _Alignas(8) unsigned char buffer[TERSE_MSG_BYTES];
    enum { MESSAGES = 2000 };
    terse_link link;
    terse_error error;
    int child_end = -1;
    assert_int_equal(terse_link_open(&link, &child_end, &error), TERSE_OK);
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        terse_msg_model message = {.model = i};
        assert_true(terse_link_send(&link, TERSE_MSG_MODEL, &message.head, sizeof message, i % 3 ? -1 : null));
    }
    assert_true(link.n_queued > 0);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        int fds[4], n_fds;
        assert_int_equal(terse_msg_receive(child_end, buffer, fds, &n_fds), sizeof(terse_msg_model));
        const terse_msg_model *message = (const terse_msg_model *)buffer;
        assert_int_equal(message->model, i);
        assert_int_equal(n_fds, i % 3 == 0);
        for (int k = 0; k < n_fds; k++)
            close(fds[k]);
        assert_true(terse_link_flush(&link));
    }
    assert_null(link.first);
    close(child_end);
    terse_msg message = {0};
    assert_false(terse_link_send(&link, TERSE_MSG_DRAIN, &message, sizeof message, -1));
    assert_int_equal(errno, EPIPE);
    terse_link_close(&link);
    close(null);
}

/* A child that reads nothing costs a bounded queue, then an error. */
static void a_stuck_child_is_noticed(void **state)
{
    (void)state;
    terse_link link;
    terse_error error;
    int child_end = -1;
    assert_int_equal(terse_link_open(&link, &child_end, &error), TERSE_OK);
    terse_msg message = {0};
    unsigned sent = 0;
    while (terse_link_send(&link, TERSE_MSG_DRAIN, &message, sizeof message, -1))
        assert_true(++sent < 4 * TERSE_LINK_MESSAGES);
    assert_int_equal(errno, ENOBUFS);
    terse_link_close(&link);
    close(child_end);
}

static terse_config *listening_at(const char *endpoint)
{
    terse_config *config = terse_config_new(stderr);
    terse_config_option(config, terse_setting_option("--listen", 8), endpoint);
    config->listen_gid = (gid_t)-1; /* no group is named; zero is root's, which is not everybody's to give */
    return config;
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    (void)state;
    char endpoint[96], path[64];
    terse_error error = {0};
    terse_listeners first, second;
    struct stat info;
    snprintf(path, sizeof path, "%s/new/t.sock", folder); /* the directory is made */
    snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
    terse_config *config = listening_at(endpoint);
    assert_int_equal(terse_listeners_open(&first, NULL, config, &error), TERSE_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISSOCK(info.st_mode));
    assert_int_equal(info.st_mode & 0777, 0660);
    assert_int_equal(terse_listeners_open(&second, NULL, config, &error), TERSE_UNAVAILABLE);
    assert_non_null(strstr(error.message, "another tersed is listening"));
    assert_int_equal(stat(path, &info), 0);

    close(first.at[0].fd); /* as a killed daemon leaves it */
    first.at[0].fd = -1;
    assert_int_equal(terse_listeners_open(&second, NULL, config, &error), TERSE_OK);
    terse_listeners_close(&first); /* the file is not its own any more */
    assert_int_equal(stat(path, &info), 0);
    terse_listeners_close(&second);
    assert_int_equal(stat(path, &info), -1);

    put("new/t.sock", "a file of somebody's");
    assert_int_equal(terse_listeners_open(&second, NULL, config, &error), TERSE_INVALID_ARGUMENT);
    assert_int_equal(stat(path, &info), 0);
    terse_config_free(config);
}

static void a_free_port_is_named_in_the_endpoint(void **state)
{
    (void)state;
    terse_listeners listeners;
    terse_error error = {0};
    terse_config *config = listening_at("tcp://127.0.0.1:*");
    assert_int_equal(terse_listeners_open(&listeners, NULL, config, &error), TERSE_OK);
    unsigned port = 0;
    assert_int_equal(sscanf(listeners.at[0].endpoint, "tcp://127.0.0.1:%u", &port), 1);
    assert_in_range(port, 1, 65535);
    assert_true(fcntl(listeners.at[0].fd, F_GETFD) & FD_CLOEXEC);
    terse_listeners_close(&listeners);
    terse_config_free(config);
}

static void a_program_that_is_not_there_is_an_error_at_once(void **state)
{
    (void)state;
    char *argv[] = {(char[]){"nothing"}, NULL};
    pid_t pid = 0;
    int pidfd = -1;
    terse_error error = {0};
    const int control = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(terse_spawn("/nonexistent/nothing", argv, control, &pid, &pidfd, &error), TERSE_SYSTEM);
    assert_non_null(strstr(error.message, "'/nonexistent/nothing': No such file"));
    assert_int_equal(pid, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* it is reaped */
    assert_int_equal(errno, ECHILD);
    close(control);
}

/* Of all that is open here a child has 0, 1, 2 and its control socket. */
static void a_child_inherits_its_control_socket_only(void **state)
{
    (void)state;
    char out[64], text[512] = "";
    char *argv[] = {(char[]){"sh"}, (char[]){"-c"},
                    (char[]){"exec >&3; ls /proc/$$/fd; ulimit -c; echo \"$NOTIFY_SOCKET\""}, NULL};
    snprintf(out, sizeof out, "%s/out", folder);
    const int control = open(out, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const int leaky = open("/dev/null", O_RDONLY); /* inheritable, by mistake */
    pid_t pid;
    int pidfd, status;
    terse_error error;
    setenv("NOTIFY_SOCKET", "/run/x", 1);
    assert_int_equal(terse_spawn("/bin/sh", argv, control, &pid, &pidfd, &error), TERSE_OK);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_true(pread(control, text, sizeof text - 1, 0) > 0);
    assert_string_equal(text, "0\n1\n2\n3\n0\n\n");
    unsetenv("NOTIFY_SOCKET");
    close(control);
    close(leaky);
    close(pidfd);
}

/* What the first worker measured is for all who come later, of the load that it measured and no other. */
static void what_a_worker_measured_is_kept_for_the_next(void **state)
{
    (void)state;
    struct {
        terse_msg_warmed warmed;
        terse_msg_held held[2];
        terse_msg_warm_cost costs[4];
    } message = {.warmed = {.head = {TERSE_MSG_WARMED, sizeof message}, .n_held = 2},
                 .held = {{.model = 1, .serial = 7}, {.model = 3, .serial = 8}},
                 .costs = {{1, 1, 100}, {1, 2, 150}, {3, 1, 900}, {5, 1, 10}}};
    terse_supervisor *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->models = calloc(TERSE_MODEL_SLOTS, sizeof *s->models);
    assert_non_null(s->models);
    for (unsigned i = 0; i < TERSE_MODEL_SLOTS; i++) {
        s->models[i].index = i;
        s->models[i].state = TERSE_MODEL_SERVING;
        s->models[i].serial = i == 1 ? 7 : 9;
    }
    assert_true(terse_models_learn(s, &message.warmed.head));
    assert_int_equal(s->models[1].n_costs, 2);
    assert_int_equal(s->models[1].costs[1].rows, 2);
    assert_int_equal(s->models[1].costs[1].ns, 150);
    assert_int_equal(s->models[3].n_costs, 0); /* another load has its place by now */
    assert_int_equal(s->models[5].n_costs, 0); /* it does not even hold it */
    message.costs[0].ns = 5000;
    assert_true(terse_models_learn(s, &message.warmed.head));
    assert_int_equal(s->models[1].costs[0].ns, 100); /* the first word stands */
    message.warmed.n_held = 1000;
    assert_false(terse_models_learn(s, &message.warmed.head));
    message.warmed.n_held = 2;
    message.warmed.head.bytes -= 3;
    assert_false(terse_models_learn(s, &message.warmed.head));
    free(s->models);
    free(s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(without_a_quota_all_allowed_cpus_count),
        TEST(the_strictest_quota_above_us_counts),
        TEST(the_first_version_of_control_groups_counts_too),
        TEST(memory_is_the_lowest_limit),
        TEST(what_is_available_is_what_nobody_uses),
        TEST(back_off_grows_with_failed_starts_only),
        TEST(every_state_has_a_name),
        TEST(a_full_link_queues_in_order),
        TEST(a_stuck_child_is_noticed),
        TEST(a_stale_socket_is_replaced_and_a_live_one_is_not),
        TEST(a_free_port_is_named_in_the_endpoint),
        TEST(a_program_that_is_not_there_is_an_error_at_once),
        TEST(a_child_inherits_its_control_socket_only),
        TEST(what_a_worker_measured_is_kept_for_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
