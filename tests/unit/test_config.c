/* SPDX-License-Identifier: Apache-2.0 */
/* What tersed makes of a command line and a configuration file: every mistake told once, with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/supervisor/config.h"

typedef struct fixture {
    terse_config *config;
    FILE *stream;
    char *report; /* what was complained about so far, after told() */
    size_t report_bytes;
    char folder[32];
} fixture;

static int begin(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->stream = open_memstream(&f->report, &f->report_bytes);
    f->config = terse_config_new(f->stream);
    strcpy(f->folder, "/tmp/terse-config-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return 0;
}

static int end(void **state)
{
    fixture *f = *state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", f->folder);
    assert_int_equal(system(command), 0);
    terse_config_free(f->config);
    fclose(f->stream);
    free(f->report);
    free(f);
    return 0;
}

/* "FOLDER/NAME", which exists when made here; one text at a time. */
static const char *file(const fixture *f, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    const int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

static void read_text(fixture *f, const char *text)
{
    FILE *stream = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    char path[64];
    assert_non_null(stream);
    snprintf(path, sizeof path, "%s/t.conf", f->folder);
    terse_config_read_stream(f->config, path, stream);
    fclose(stream);
}

static void read_format(fixture *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void read_format(fixture *f, const char *format, ...)
{
    char text[16384];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    read_text(f, text);
}

static const char *told(fixture *f)
{
    fflush(f->stream);
    return f->report;
}

/* Exactly so many complaints, one of them at that line and with those words. */
static void assert_told(fixture *f, unsigned n, unsigned line, const char *words)
{
    char where[96];
    snprintf(where, sizeof where, "%s/t.conf:%u: ", f->folder, line);
    unsigned n_lines = 0;
    bool found = false;
    for (const char *at = told(f); *at; at = strchr(at, '\n') + 1) {
        const size_t length = (size_t)(strchr(at, '\n') - at);
        char *one = strndup(at, length);
        n_lines++;
        found |= (line == 0 || strncmp(one, where, strlen(where)) == 0) && strstr(one, words);
        free(one);
    }
    if (!found || n_lines != n)
        print_message("# wanted %u with line %u '%s', told: %s", n, line, words, told(f));
    assert_true(found);
    assert_int_equal(n_lines, n);
    assert_int_equal(f->config->n_errors + f->config->n_usage, n);
}

static void reads_every_setting_where_it_may_stand(void **state)
{
    fixture *f = *state;
    read_format(f,
                "; a comment\n# another\n\n[server]\nlisten = ipc:///run/x.sock\n  listen: tcp://127.0.0.1:5555\n"
                "workers=3\nmax_batch = 16 ; behind a value\nmax_request_bytes = 8M\nlisten_mode = 0600\n"
                "insecure_tcp = no\n[model a]\nfile = %s\nmax_batch = 4\nversion = 2.1\n[model b]\nfile = a.terse\n",
                file(f, "a.terse"));
    terse_config_finish(f->config);
    assert_string_equal(told(f), "");
    const terse_config *c = f->config;
    assert_int_equal(c->n_listen, 2);
    assert_string_equal(c->listen[1], "tcp://127.0.0.1:5555");
    assert_int_equal(c->value[TERSE_SET_WORKERS], 3);
    assert_int_equal(c->value[TERSE_SET_MAX_REQUEST], 8 << 20);
    assert_int_equal(c->value[TERSE_SET_LISTEN_MODE], 0600);
    assert_int_equal(c->n_models, 2);
    assert_int_equal(c->models[0].value[TERSE_SET_MAX_BATCH], 4);
    assert_string_equal(c->models[0].version, "2.1");
    assert_int_equal(c->models[1].value[TERSE_SET_MAX_BATCH], 16);
    assert_string_equal(c->models[1].version, "1");
    assert_string_equal(c->models[1].file, file(f, "a.terse")); /* a relative file is beside the configuration */
}

static void tells_every_mistake_with_its_line(void **state)
{
    fixture *f = *state;
    read_format(f,
                "workers = 1\n"               /* 1: before any section */
                "[server]\nwrokers = 2\n"     /* 3 */
                "workers = 0\n"               /* 4 */
                "batch_timeout_us = 5ms\n"    /* 5 */
                "max_batch = 4096\n"          /* 6 */
                "just words\n"                /* 7 */
                "file = x\n"                  /* 8 */
                "listen = udp://1.2.3.4:5\n"  /* 9 */
                "listen = tcp://0.0.0.0:80\n" /* 10 */
                "[clients]\nanything = 1\n"   /* 11; 12 is not judged */
                "[model a]\nfile = %s\n"      /* 13 */
                "[model b]\nfile = no.terse\n"
                "[model a]\n"   /* 17 */
                "[model c]\n"   /* 18 */
                "[model c\n"    /* 19 */
                "[server]\n"    /* 20 */
                "workers = 1\n" /* 21 */
                "x ; y = 3\n" /* 22 */,
                file(f, "a.terse"));
    terse_config_finish(f->config);
    const struct {
        unsigned line;
        const char *words;
    } wanted[] = {{1, "before the first section"},
                  {3, "wrokers: not known in [server], nearest is workers"},
                  {4, "workers: found '0', allowed: a whole number 1..256"},
                  {5, "found '5ms', allowed: a whole number 0..10000000 microseconds, written without a unit"},
                  {6, "max_batch: found '4096', allowed: a whole number 1..1024 rows"},
                  {7, "found 'just words', allowed: NAME = VALUE"},
                  {8, "file: not allowed in [server]"},
                  {9, "listen: endpoint 'udp://1.2.3.4:5'"},
                  {10, "can be reached from other hosts"},
                  {11, "section [clients]: not known"},
                  {16, "model 'b': cannot read"},
                  {17, "has a section at line 13"},
                  {18, "[model c]: no file"},
                  {19, "found '[model c'"},
                  {20, "there is one at line 2"},
                  {21, "workers: set at line 4 already"},
                  {22, "allowed: NAME = VALUE"}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        assert_told(f, sizeof wanted / sizeof wanted[0], wanted[i].line, wanted[i].words);
}

static void the_command_line_wins(void **state)
{
    fixture *f = *state;
    char model[300];
    snprintf(model, sizeof model, "a=%s", file(f, "mine.terse"));
    terse_config_option_model(f->config, model);
    terse_config_option(f->config, terse_setting_option("--max-batch", 11), "1");
    terse_config_option(f->config, terse_setting_option("--listen", 8), "ipc:///run/mine.sock");
    read_format(f,
                "[server]\nlisten = ipc:///run/theirs.sock\nmax_batch = 8\n[model a]\nfile = %s\nmax_batch = 4\n"
                "deadline_ms = 7\n",
                file(f, "theirs.terse"));
    terse_config_finish(f->config);
    assert_string_equal(told(f), "");
    assert_int_equal(f->config->n_listen, 1);
    assert_string_equal(f->config->listen[0], "ipc:///run/mine.sock");
    assert_int_equal(f->config->n_models, 1);
    assert_string_equal(f->config->models[0].file, file(f, "mine.terse"));
    assert_int_equal(f->config->models[0].value[TERSE_SET_MAX_BATCH], 1);
    assert_int_equal(f->config->models[0].value[TERSE_SET_DEADLINE], 7);
}

static void a_bad_command_line_is_usage(void **state)
{
    fixture *f = *state;
    terse_config_option(f->config, terse_setting_option("--workers", 9), "-1");
    terse_config_option(f->config, terse_setting_option("--max-batch", 11), "18446744073709551617");
    terse_config_option_model(f->config, "nameonly");
    terse_config_option_model(f->config, "=file");
    assert_told(f, 4, 0, "--workers: workers: found '-1'");
    assert_int_equal(f->config->n_usage, 4);
}

static void a_model_is_named_once(void **state)
{
    fixture *f = *state;
    char model[300];
    snprintf(model, sizeof model, "a=%s", file(f, "a.terse"));
    terse_config_option_model(f->config, model);
    terse_config_option_model(f->config, model);
    terse_config_finish(f->config);
    assert_told(f, 1, 0, "the model 'a' was named before");
}

static void serves_every_file_of_a_directory(void **state)
{
    fixture *f = *state;
    file(f, "zeta.terse");
    file(f, "alpha.terse");
    file(f, ".hidden.terse");
    file(f, "notes.txt");
    file(f, ".terse");
    read_format(f, "[server]\nmodel_dir = %s\n[model zeta]\nmax_batch = 2\n", f->folder);
    terse_config_finish(f->config);
    assert_string_equal(told(f), "");
    assert_int_equal(f->config->n_models, 2);
    assert_string_equal(f->config->models[0].name, "alpha");
    assert_string_equal(f->config->models[1].name, "zeta");
    assert_int_equal(f->config->models[1].value[TERSE_SET_MAX_BATCH], 2);
}

static void no_model_at_all_is_a_mistake(void **state)
{
    fixture *f = *state;
    read_format(f, "[server]\nmodel_dir = %s\n", f->folder);
    terse_config_finish(f->config);
    assert_told(f, 1, 2, "holds no *.terse file");
}

static void a_directory_is_no_model(void **state)
{
    fixture *f = *state;
    read_format(f, "[model a]\nfile = %s\n", f->folder);
    terse_config_finish(f->config);
    assert_told(f, 1, 2, "is a directory, allowed: a regular file");
}

static void long_lines_and_names_are_whole(void **state)
{
    fixture *f = *state;
    char name[100], deep[160], path[300];
    memset(name, 'n', 80);
    name[80] = 0;
    memset(deep, 'd', 150);
    deep[150] = 0;
    snprintf(path, sizeof path, "%s/%s", f->folder, deep);
    assert_int_equal(mkdir(path, 0700), 0);
    strncat(path, "/model.terse", sizeof path - strlen(path) - 1);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    read_format(f, "[model %s]\nfile = %s   ; and why this one\n", name, path);
    terse_config_finish(f->config);
    assert_string_equal(told(f), "");
    assert_string_equal(f->config->models[0].name, name);
    assert_string_equal(f->config->models[0].file, path);
}

static void hostile_text_is_told_and_nothing_more(void **state)
{
    fixture *f = *state;
    static char text[3 * 8192];
    memset(text, 'x', sizeof text - 1);
    memcpy(text, "[server]\n", 9);
    text[20] = '\n';
    memcpy(text + 21, "a\033[31m=\001\n", 9);
    read_text(f, text);
    for (const char *c = told(f); *c; c++)
        assert_true(*c == '\n' || (unsigned char)*c >= 0x20);
    assert_told(f, 3, 4, "bytes, allowed: 8191");
}

static void a_default_lies_in_its_range(void **state)
{
    (void)state;
    for (int i = 0; i < TERSE_N_SETTINGS; i++) {
        const terse_setting *s = &terse_settings[i];
        const bool automatic = strstr(s->description, "(automatic") != NULL;
        if (s->type != TERSE_SETTING_TEXT && !automatic)
            assert_in_range(s->fallback, s->minimum, s->maximum);
        assert_ptr_equal(terse_setting_named(s->where, s->name), s);
    }
}

static void a_choice_is_one_of_its_words(void **state)
{
    (void)state;
    uint64_t value = 7;
    terse_error error;
    const terse_setting *sample = terse_setting_named(TERSE_IN_SERVER, "trace_sample");
    static const struct {
        const char *text;
        uint64_t millionths;
    } parts[] = {{"0", 0}, {"1", 1000000}, {"0.01", 10000}, {"0.000001", 1}, {"1.000000", 1000000}, {"0.", 0}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_int_equal(terse_setting_parse(sample, parts[i].text, &value, &error), TERSE_OK);
        assert_int_equal(value, parts[i].millionths);
    }
    static const char *const no_parts[] = {"", ".5", "1.1", "2", "-0.1", "0.0000001", "0.1x", "1e-2", "0,5"};
    for (size_t i = 0; i < sizeof no_parts / sizeof no_parts[0]; i++)
        assert_int_equal(terse_setting_parse(sample, no_parts[i], &value, &error), TERSE_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "0..1"));
    const terse_setting *objective = terse_setting_named(TERSE_IN_MODEL, "objective");
    assert_int_equal(terse_setting_parse(objective, "energy", &value, &error), TERSE_OK);
    assert_int_equal(value, TERSE_OBJECTIVE_ENERGY);
    assert_int_equal(terse_setting_parse(objective, "latency", &value, &error), TERSE_OK);
    assert_int_equal(value, TERSE_OBJECTIVE_LATENCY);
    static const char *const wrong[] = {"", "laten", "latencyx", "latency|energy", "|", "1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(terse_setting_parse(objective, wrong[i], &value, &error), TERSE_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "allowed: latency|energy"));
    }
}

static void endpoints_are_parsed_whole(void **state)
{
    (void)state;
    const struct {
        const char *text;
        bool good, local, loopback;
    } cases[] = {
        {"ipc:///run/x", true, true, false},
        {"ipc://x", true, true, false},
        {"tcp://127.0.0.1:5555", true, false, true},
        {"tcp://127.9.9.9:*", true, false, true},
        {"tcp://localhost:0", true, false, true},
        {"tcp://[::1]:65535", true, false, true},
        {"tcp://*:5555", true, false, false},
        {"tcp://[::]:1", true, false, false},
        {"tcp://10.0.0.1:1", true, false, false},
        {"ipc://", false, false, false},
        {"ipc://@abstract", false, false, false},
        {"tcp://127.0.0.1", false, false, false},
        {"tcp://127.0.0.1:65536", false, false, false},
        {"tcp://127.0.0.1:-1", false, false, false},
        {"tcp://127.0.0.1: 1", false, false, false},
        {"tcp://example.org:80", false, false, false},
        {"tcp://::1:80", false, false, false},
        {"tcp://[127.0.0.1]:80", false, false, false},
        {"inproc://x", false, false, false},
        {"", false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        terse_endpoint endpoint;
        terse_error error;
        const int r = terse_endpoint_parse(cases[i].text, &endpoint, &error);
        if ((r == TERSE_OK) != cases[i].good)
            print_message("# endpoint '%s'\n", cases[i].text);
        assert_int_equal(r == TERSE_OK, cases[i].good);
        if (r == TERSE_OK) {
            assert_int_equal(endpoint.local, cases[i].local);
            assert_int_equal(endpoint.loopback, cases[i].loopback);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(reads_every_setting_where_it_may_stand),
        TEST(tells_every_mistake_with_its_line),
        TEST(the_command_line_wins),
        TEST(a_bad_command_line_is_usage),
        TEST(a_model_is_named_once),
        TEST(serves_every_file_of_a_directory),
        TEST(no_model_at_all_is_a_mistake),
        TEST(a_directory_is_no_model),
        TEST(long_lines_and_names_are_whole),
        TEST(hostile_text_is_told_and_nothing_more),
        TEST(a_default_lies_in_its_range),
        TEST(a_choice_is_one_of_its_words),
        TEST(endpoints_are_parsed_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
