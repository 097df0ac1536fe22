/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/bench/traffic.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BURST = 16, MOST_BURST = 4096, LINE = 512 };
#define MOST_MOMENTS ((size_t)1 << 24)

/* A number behind which only blanks or a comment stand; 1, 0 for a line without any, -1 for anything else. */
static int read_line(const char *line, double *ret_moment)
{
    const char *at = line + strspn(line, " \t\r\n");
    if (!*at || *at == '#')
        return 0;
    char *end;
    *ret_moment = strtod(at, &end);
    end += strspn(end, " \t\r\n");
    return end == at || (*end && *end != '#') || !isfinite(*ret_moment) ? -1 : 1;
}

static int add_moment(terse_traffic *traffic, size_t *capacity, double moment, terse_error *error)
{
    if (traffic->n == *capacity) {
        const size_t more = *capacity ? *capacity * 2 : 1024;
        double *grown = more > MOST_MOMENTS ? NULL : realloc(traffic->moments, more * sizeof *grown);
        if (!grown)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "the trace has more than %zu lines, allowed are %zu",
                              traffic->n, MOST_MOMENTS);
        traffic->moments = grown;
        *capacity = more;
    }
    traffic->moments[traffic->n++] = moment;
    return TERSE_OK;
}

static int read_moments(FILE *file, const char *path, terse_traffic *traffic, terse_error *error)
{
    char line[LINE];
    size_t capacity = 0;
    double moment = 0;
    for (unsigned long number = 1; fgets(line, sizeof line, file); number++) {
        const int found = strlen(line) == sizeof line - 1 ? -1 : read_line(line, &moment);
        line[strcspn(line, "\r\n")] = 0;
        if (found < 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "%s:%lu: '%.40s', allowed is one number of seconds on a line", path, number, line);
        if (found == 0)
            continue;
        if (traffic->n > 0 && moment < traffic->moments[traffic->n - 1])
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s:%lu: %.9g is earlier than the line before, %.9g", path,
                              number, moment, traffic->moments[traffic->n - 1]);
        if (add_moment(traffic, &capacity, moment, error))
            return (int)error->status;
    }
    if (ferror(file))
        return terse_fail(error, TERSE_SYSTEM, "cannot read '%s': %s", path, strerror(errno));
    if (traffic->n < 2 || !(traffic->moments[traffic->n - 1] > traffic->moments[0]))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "'%s' has %zu moments, wanted are two different ones at least",
                          path, traffic->n);
    return TERSE_OK;
}

static int read_trace(const char *path, terse_traffic *traffic, terse_error *error)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return terse_fail(error, TERSE_NOT_FOUND, "cannot open the trace '%s': %s", path, strerror(errno));
    const int status = read_moments(file, path, traffic, error);
    fclose(file);
    if (status)
        return status;
    const double first = traffic->moments[0];
    for (size_t i = 0; i < traffic->n; i++)
        traffic->moments[i] -= first;
    const double last = traffic->moments[traffic->n - 1];
    traffic->span = last + last / (double)(traffic->n - 1);
    return TERSE_OK;
}

int terse_traffic_read(const char *text, terse_traffic *ret_traffic, terse_error *error)
{
    terse_traffic traffic = {.text = text, .burst = BURST};
    if (strcmp(text, "poisson") == 0) {
        traffic.kind = TERSE_TRAFFIC_POISSON;
    } else if (strcmp(text, "constant") == 0) {
        traffic.kind = TERSE_TRAFFIC_CONSTANT;
    } else if (strcmp(text, "burst") == 0) {
        traffic.kind = TERSE_TRAFFIC_BURST;
    } else if (strncmp(text, "burst:", 6) == 0) {
        char *end;
        traffic.kind = TERSE_TRAFFIC_BURST;
        errno = 0;
        traffic.burst = strtoull(text + 6, &end, 10);
        if (errno || *end || end == text + 6 || text[6] == '-' || traffic.burst < 1 || traffic.burst > MOST_BURST)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "the traffic is '%s', allowed behind burst: are whole numbers from 1 to %d", text,
                              MOST_BURST);
    } else if (strncmp(text, "trace:", 6) == 0 && text[6]) {
        traffic.kind = TERSE_TRAFFIC_TRACE;
        const int status = read_trace(text + 6, &traffic, error);
        if (status) {
            terse_traffic_done(&traffic);
            return status;
        }
    } else {
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "the traffic is '%s', allowed are poisson, constant, burst, burst:N and trace FILE", text);
    }
    *ret_traffic = traffic;
    return TERSE_OK;
}

void terse_traffic_done(terse_traffic *traffic)
{
    free(traffic->moments);
    traffic->moments = NULL;
}

double terse_traffic_rate(const terse_traffic *traffic)
{
    return traffic->kind == TERSE_TRAFFIC_TRACE ? (double)traffic->n / traffic->span : 0;
}

int terse_traffic_join(int argc, char **argv, char *room, size_t size)
{
    for (int i = 1; i + 1 < argc && strcmp(argv[i], "--") != 0; i++) {
        const bool apart = strcmp(argv[i], "--traffic") == 0 && strcmp(argv[i + 1], "trace") == 0;
        const int last = apart ? i + 2 : i + 1;
        if ((!apart && strcmp(argv[i], "--traffic=trace") != 0) || last >= argc)
            continue;
        const int n = snprintf(room, size, "--traffic=trace:%s", argv[last]);
        if (n < 0 || (size_t)n >= size)
            break;
        argv[i] = room;
        for (int k = last + 1; k <= argc; k++)
            argv[i + k - last] = k < argc ? argv[k] : NULL;
        return argc - (last - i);
    }
    return argc;
}

static double uniform(uint64_t *state) /* in (0, 1]: xorshift64* (Vigna 2016) */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)((*state * 0x2545f4914f6cdd1du >> 11) + 1) / 9007199254740992.0;
}

terse_arrivals terse_arrivals_begin(const terse_traffic *traffic, double rate, uint64_t seed)
{
    uint64_t state = seed * 2654435761u + 88172645463325252u;
    if (state == 0)
        state = 1;
    const double own = terse_traffic_rate(traffic);
    return (terse_arrivals){.traffic = traffic, .rate = rate > 0 ? rate : own, .state = state};
}

double terse_arrivals_next(terse_arrivals *a)
{
    const terse_traffic *traffic = a->traffic;
    const double due = a->due;
    switch (traffic->kind) {
    case TERSE_TRAFFIC_POISSON:
        a->due += -log(uniform(&a->state)) / a->rate;
        return due;
    case TERSE_TRAFFIC_CONSTANT:
        a->due += 1 / a->rate;
        return due;
    case TERSE_TRAFFIC_BURST:
        if (++a->left >= traffic->burst) {
            a->left = 0;
            a->due += -log(uniform(&a->state)) * (double)traffic->burst / a->rate;
        }
        return due;
    case TERSE_TRAFFIC_TRACE: {
        const double stretch = terse_traffic_rate(traffic) / a->rate;
        const double at = a->begun + traffic->moments[a->left] * stretch;
        if (++a->left == traffic->n) {
            a->left = 0;
            a->begun += traffic->span * stretch;
        }
        return at;
    }
    }
    return due;
}
