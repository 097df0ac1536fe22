/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/tune/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/bytes.h"

enum { PATIENCE_MS = 30000, ANSWER_MS = 15000, PAUSE_MS = 200 };

/* From the keeper: what it found, then what came of putting it back. */
typedef struct word {
    int status;
    terse_tune_setting setting;
    char text[sizeof((terse_error *)0)->message];
} word;

struct terse_keeper {
    pid_t pid;
    int from, to;
    terse_tune_setting setting;
};

static int open_client(const char *endpoint, unsigned connect_ms, terse_client **ret_client, terse_error *error)
{
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    options.endpoint = endpoint;
    options.connect_timeout_ms = connect_ms;
    const terse_status status = terse_client_open(&options, ret_client);
    return status ? terse_fail(error, status, "%s", terse_last_error()) : TERSE_OK;
}

int terse_keeper_set(terse_client *client, const char *model, const terse_tune_setting *setting, int timeout_ms,
                     terse_error *error)
{
    terse_live_settings live = TERSE_LIVE_SETTINGS_INIT;
    live.max_batch = setting->max_batch;
    live.batch_timeout_us = (int64_t)setting->timeout_us;
    live.workers = setting->workers;
    const terse_status status = terse_client_configure(client, model, &live, timeout_ms);
    return status ? terse_fail(error, status, "%s", terse_last_error()) : TERSE_OK;
}

static int read_settings(const char *endpoint, const char *model, unsigned connect_ms, terse_tune_setting *ret_setting,
                         terse_error *error)
{
    terse_client *client = NULL;
    terse_live_settings live = TERSE_LIVE_SETTINGS_INIT;
    int status = open_client(endpoint, connect_ms, &client, error);
    if (status)
        return status;
    const terse_status told = terse_client_configure(client, model, &live, (int)connect_ms);
    if (told)
        status = terse_fail(error, told, "%s", terse_last_error());
    else if (live.max_batch < 1 || live.batch_timeout_us < 0 || live.workers < 1)
        status = terse_fail(error, TERSE_INTERNAL, "the daemon does not tell its settings");
    else
        *ret_setting =
            (terse_tune_setting){(uint32_t)live.workers, (uint32_t)live.max_batch, (uint64_t)live.batch_timeout_us};
    terse_client_close(client);
    return status;
}

/* Until it is done, the daemon says that it cannot be, or nobody has answered for too long. */
static int put_back(const char *endpoint, const char *model, const terse_tune_setting *setting, terse_error *error)
{
    const uint64_t until = terse_now_ns() + (uint64_t)PATIENCE_MS * 1000000u;
    for (;;) {
        terse_client *client = NULL;
        int status = open_client(endpoint, ANSWER_MS, &client, error);
        if (!status)
            status = terse_keeper_set(client, model, setting, ANSWER_MS, error);
        terse_client_close(client);
        const bool may_pass = status == TERSE_UNAVAILABLE || status == TERSE_DEADLINE_EXCEEDED ||
                              status == TERSE_RESOURCE_EXHAUSTED || status == TERSE_SYSTEM;
        if (!may_pass || terse_now_ns() >= until)
            return status;
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000}, NULL);
    }
}

static void say(int to, int status, const terse_tune_setting *setting, const terse_error *error)
{
    word said = {.status = status, .setting = *setting};
    if (status)
        snprintf(said.text, sizeof said.text, "%s", error->message);
    terse_write_full(to, &said, sizeof said);
}

/* A session of its own: what ends the terminal's processes does not end this one. */
static void step_aside(void)
{
    setsid();
    for (size_t i = 0; i < 5; i++)
        signal((const int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}[i], SIG_IGN);
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; nothing >= 0 && fd < 3; fd++) /* whoever reads what we print shall not wait for this process */
        dup2(nothing, fd);
}

static void keep(const char *endpoint, const char *model, unsigned connect_ms, int from, int to)
{
    terse_tune_setting before = {0}, instead;
    terse_error error = {0};
    step_aside();
    int status = read_settings(endpoint, model, connect_ms, &before, &error);
    say(to, status, &before, &error);
    if (status)
        return;
    const bool told = terse_read_full(from, &instead, sizeof instead) == (int64_t)sizeof instead;
    const bool back = !told || instead.workers == 0;
    status = put_back(endpoint, model, back ? &before : &instead, &error);
    say(to, status, &before, &error);
}

static int hear(terse_keeper *keeper, word *ret_word, terse_error *error)
{
    if (terse_read_full(keeper->from, ret_word, sizeof *ret_word) != (int64_t)sizeof *ret_word)
        return terse_fail(error, TERSE_INTERNAL, "the process that keeps the settings is gone");
    ret_word->text[sizeof ret_word->text - 1] = 0;
    return ret_word->status ? terse_fail(error, (terse_status)ret_word->status, "%s", ret_word->text) : TERSE_OK;
}

static void finish(terse_keeper *keeper)
{
    close(keeper->from);
    close(keeper->to);
    while (waitpid(keeper->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(keeper);
}

int terse_keeper_begin(const char *endpoint, const char *model, unsigned connect_ms, terse_keeper **ret_keeper,
                       terse_error *error)
{
    int down[2], up[2];
    word found;
    terse_keeper *keeper = calloc(1, sizeof *keeper);
    if (!keeper)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    if (pipe2(down, O_CLOEXEC)) {
        free(keeper);
        return terse_fail(error, TERSE_SYSTEM, "no pipe: %s", strerror(errno));
    }
    if (pipe2(up, O_CLOEXEC) || (keeper->pid = fork()) < 0) {
        terse_fail(error, TERSE_SYSTEM, "no process to keep the settings: %s", strerror(errno));
        close(down[0]);
        close(down[1]);
        free(keeper);
        return (int)error->status;
    }
    if (keeper->pid == 0) {
        close(down[1]);
        close(up[0]);
        keep(endpoint, model, connect_ms, down[0], up[1]);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    keeper->to = down[1];
    keeper->from = up[0];
    const int status = hear(keeper, &found, error);
    if (status) {
        finish(keeper);
        return status;
    }
    keeper->setting = found.setting;
    *ret_keeper = keeper;
    return TERSE_OK;
}

terse_tune_setting terse_keeper_setting(const terse_keeper *keeper)
{
    return keeper->setting;
}

int terse_keeper_end(terse_keeper *keeper, const terse_tune_setting *instead, terse_error *error)
{
    static const terse_tune_setting back = {0};
    word done;
    if (!keeper)
        return TERSE_OK;
    terse_write_full(keeper->to, instead ? instead : &back, sizeof back);
    const int status = hear(keeper, &done, error);
    finish(keeper);
    return status;
}
