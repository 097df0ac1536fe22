/* SPDX-License-Identifier: Apache-2.0 */
/* SIGHUP: the configuration is read again, the command line over it as at the start, and what it says is brought about
 * while requests come:
 *
 *   a model that is new, or whose file, version or threads are not what they were, or whose file is another one or has
 *   changed (device, inode, size, time): loaded; one that is not in it any more: unloaded; all others: their settings
 *   set; workers and limits: set; keys of clients: told to the gate, which ends connections of those that are gone.
 * What else has changed is named as wanting a restart.
 *
 * A model that somebody loaded by hand stays: as another version of a model whose entry has not changed, and under a
 * name that the configuration does not know. A mistake anywhere in the file changes nothing. Each load may fail for
 * itself; it is tried again with the next SIGHUP. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "common/bytes.h"
#include "daemon/log.h"
#include "daemon/supervisor/ask.h"
#include "daemon/supervisor/supervisor.h"

/* Each line that the configuration has to complain of becomes a line of the log. */
static void log_report(const char *report)
{
    while (*report) {
        const size_t length = strcspn(report, "\n");
        if (length)
            terse_log(TERSE_LOG_ERROR, "%.*s", (int)length, report);
        report += length + (report[length] == '\n');
    }
}

/* NULL: nothing is to change, and why is in the log. */
static terse_config *read_anew(terse_supervisor *s)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *report = open_memstream(&text, &bytes);
    terse_config *config = report ? s->reread(s->reread_user, report) : NULL;
    if (report)
        fclose(report);
    if (!config) {
        s->n_reread_failures++;
        terse_log(TERSE_LOG_ERROR, "SIGHUP: no memory to read the configuration: nothing changes");
    } else if (config->n_errors || config->n_usage) {
        s->n_reread_failures += config->n_errors + config->n_usage;
        log_report(text);
        terse_log(TERSE_LOG_ERROR, "SIGHUP: %u mistakes in the configuration: nothing changes",
                  config->n_errors + config->n_usage);
        terse_config_free(config);
        config = NULL;
    }
    free(text);
    return config;
}

/* Settings that stay as they are until a restart keep their value in what is in force. */
static void keep_settled(const terse_config *old, terse_config *config)
{
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        if (terse_setting_on_reload((terse_setting_id)i) != TERSE_RELOAD_RESTART || config->value[i] == old->value[i])
            continue;
        terse_log(TERSE_LOG_WARNING, "SIGHUP: %s is another now: that wants a restart", terse_settings[i].name);
        config->value[i] = old->value[i];
    }
    if (config->n_listen != old->n_listen || memcmp(config->listen, old->listen, sizeof old->listen) != 0)
        terse_log(TERSE_LOG_WARNING, "SIGHUP: listen is another now: that wants a restart");
    if (strcmp(config->listen_group, old->listen_group) != 0)
        terse_log(TERSE_LOG_WARNING, "SIGHUP: listen_group is another now: that wants a restart");
    config->n_listen = old->n_listen;
    memcpy(config->listen, old->listen, sizeof config->listen);
}

/* The daemon's own key, and whether there are keys at all, stay; those of clients are other ones from now on. */
static void keep_secret(terse_config *old, terse_config *config)
{
    if (config->curve == old->curve && memcmp(config->curve_secret, old->curve_secret, TERSE_KEY_BYTES) == 0)
        return;
    terse_log(TERSE_LOG_WARNING, "SIGHUP: curve_server_key is another now: that wants a restart");
    memcpy(config->curve_secret, old->curve_secret, TERSE_KEY_BYTES);
    if (config->curve != old->curve) { /* and then those of clients have no meaning, or none were told */
        uint8_t(*keys)[TERSE_KEY_BYTES] = config->client_keys;
        const unsigned n = config->n_client_keys;
        config->client_keys = old->client_keys;
        config->n_client_keys = old->n_client_keys;
        old->client_keys = keys;
        old->n_client_keys = n;
    }
    config->curve = old->curve;
}

static bool same_keys(const terse_config *a, const terse_config *b)
{
    bool same = a->n_client_keys == b->n_client_keys;
    for (unsigned i = 0; same && i < a->n_client_keys; i++)
        same = memcmp(a->client_keys[i], b->client_keys[i], TERSE_KEY_BYTES) == 0;
    return same;
}

static bool is_another(const terse_model_config *a, const terse_model_config *b)
{
    return strcmp(a->file, b->file) != 0 || strcmp(a->version, b->version) != 0 ||
           a->value[TERSE_SET_THREADS] != b->value[TERSE_SET_THREADS] ||
           memcmp(&a->mark, &b->mark, sizeof a->mark) != 0;
}

static void apply_model(terse_supervisor *s, const terse_config *old, const terse_model_config *wanted)
{
    terse_supervised_model *served = terse_models_serving(s, wanted->name);
    const terse_model_config *before = terse_config_model(old, wanted->name);
    if (served && before && !is_another(before, wanted)) {
        memcpy(served->config->value, wanted->value, sizeof served->config->value);
        terse_models_send_one(served, TERSE_MSG_MODEL_LIMITS, &s->frontend);
        return;
    }
    terse_model_config *config = malloc(sizeof *config);
    if (!config) {
        terse_log(TERSE_LOG_ERROR, "model '%s': not loaded: no memory", wanted->name);
        s->n_reread_failures++;
        return;
    }
    *config = *wanted;
    terse_operations_load(s, config);
}

/* Whoever sent SIGHUP and waits (ask.h) hears how it ended: "" is well. Nobody waits: nothing happens. */
static void tell_asked(terse_supervisor *s, const char *why)
{
    for (unsigned i = 0; i < s->n_asked; i++)
        terse_ask_answer(s->asked[i], why);
    s->n_asked = 0;
}

static void notify_reloading(void)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reading the configuration again",
               terse_now_ns() / 1000);
}

void terse_reread_begin(terse_supervisor *s, pid_t asked)
{
    if (s->n_asked < sizeof s->asked / sizeof s->asked[0])
        s->asked[s->n_asked++] = asked;
    if (s->phase != TERSE_PHASE_SERVING) {
        char why[128];
        snprintf(why, sizeof why, "nothing is read again while the daemon is %s", terse_phase_name(s->phase));
        terse_log(TERSE_LOG_WARNING, "SIGHUP: %s", why);
        tell_asked(s, why);
        return;
    }
    terse_log(TERSE_LOG_NOTICE, "SIGHUP: reading the configuration again");
    notify_reloading();
    s->rereading = true;
    terse_config *config = read_anew(s), *old = s->config;
    if (config) {
        keep_settled(old, config);
        keep_secret(old, config);
        s->config = config;
        if (!same_keys(old, config)) /* in another order too: a directory has none, and the gate compares */
            terse_gate_send_keys(s);
        s->n_rereading++; /* until all is asked for, so that none of it is the last */
        for (unsigned i = 0; i < old->n_models; i++)
            if (!terse_config_model(config, old->models[i].name) && terse_models_serving(s, old->models[i].name))
                terse_operations_unload(s, old->models[i].name);
        for (unsigned i = 0; i < config->n_models; i++)
            apply_model(s, old, &config->models[i]);
        terse_config_free(old);
        terse_pool_resize(s, terse_supervisor_workers(config));
        terse_front_configure(s);
        s->n_rereading--;
    }
    if (s->n_rereading == 0)
        terse_reread_end(s);
}

void terse_reread_end(terse_supervisor *s)
{
    if (!s->rereading)
        return;
    s->rereading = false;
    terse_log(TERSE_LOG_NOTICE, "SIGHUP: done");
    *s->status = 0; /* told anew behind READY */
    terse_notify_status(s, "READY=1\n");
    char why[128] = "";
    if (s->n_reread_failures)
        snprintf(why, sizeof why, "%u mistake%s; the log has them", s->n_reread_failures,
                 s->n_reread_failures == 1 ? "" : "s");
    s->n_reread_failures = 0;
    tell_asked(s, why);
}
