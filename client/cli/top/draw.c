/* SPDX-License-Identifier: Apache-2.0 */
/* What stands where: three lines of the daemon, its models, its workers, the keys. 80 columns hold every table; more
 * make room for longer names and further columns. */
#include "client/cli/top/top.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

enum {
    LINE = 512,
    CELL = 32,
    HEAD_ROWS = 3,
    LEAST_NAME = 19,
    /* of a model among models */ BATCH_NAME = 8,
    /* fewer among workers */ WIDE = 108
};

/* --- numbers in few characters -------------------------------------------------------------------------------------
 */

static const char *time_text(double us, char text[CELL])
{
    if (us < 999.5)
        snprintf(text, CELL, us < 9.95 ? "%.1fus" : "%.0fus", us);
    else if (us < 999500)
        snprintf(text, CELL, us < 9995 ? "%.2fms" : us < 99950 ? "%.1fms" : "%.0fms", us / 1e3);
    else
        snprintf(text, CELL, us < 99.95e6 ? "%.1fs" : "%.0fs", us / 1e6);
    return text;
}

/* Nothing was measured: no number. */
static const char *percentile_text(const terse_buckets *buckets, double share, char text[CELL])
{
    if (buckets->count == 0)
        return strcpy(text, "-");
    return time_text(terse_buckets_percentile(buckets, share), text);
}

static const char *rate_text(double rate, char text[CELL])
{
    if (rate < 1e5)
        snprintf(text, CELL, rate < 99.95 ? "%.1f" : "%.0f", rate);
    else
        snprintf(text, CELL, rate < 9.995e6 ? "%.0fk" : "%.1fM", rate < 9.995e6 ? rate / 1e3 : rate / 1e6);
    return text;
}

static const char *bytes_text(uint64_t bytes, char text[CELL])
{
    static const char units[] = "BKMGTP";
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1000 && unit < 5; unit++)
        value /= 1024;
    snprintf(text, CELL, unit && value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return text;
}

static const char *duration_text(double seconds, char text[CELL])
{
    const unsigned long s = (unsigned long)seconds;
    if (s < 120)
        snprintf(text, CELL, "%lu s", s);
    else if (s < 7200)
        snprintf(text, CELL, "%lu min", s / 60);
    else if (s < 172800)
        snprintf(text, CELL, "%lu h %02lu min", s / 3600, s / 60 % 60);
    else
        snprintf(text, CELL, "%lu days", s / 86400);
    return text;
}

/* `columns` columns of a text that the daemon gave: cut, padded, without what a terminal would take for orders. A
 * character counts as one column; the few that are wider shift their own line. */
static const char *name_text(const char *name, int columns, char *text, size_t size)
{
    const size_t length = strlen(name);
    size_t used = 0, i = 0;
    int at = 0;
    for (; i < length && at < columns && used + 5 < size; at++) {
        const size_t n = terse_json_utf8(name + i, length - i);
        const unsigned char c = (unsigned char)name[i];
        const bool control = n == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)name[i + 1] < 0xa0);
        if (i + n < length && at == columns - 1) { /* more follows than fits */
            text[used++] = '~';
            i = length;
            continue;
        }
        memcpy(text + used, control ? "?" : name + i, control ? 1 : n);
        used += control ? 1 : n;
        i += n ? n : 1;
    }
    for (; at < columns && used + 1 < size; at++)
        text[used++] = ' ';
    text[used] = 0;
    return text;
}

/* --- the daemon ------------------------------------------------------------------------------------------------------
 */

static void draw_head(const terse_top *top, uint64_t now_ns)
{
    const terse_view *view = top->view;
    char line[LINE], a[CELL], b[CELL], c[CELL], name[256];
    snprintf(line, sizeof line, "terse top  %s", name_text(top->endpoint, 44, name, sizeof name));
    top->screen->put(0, 0, TERSE_SCREEN_STRONG, line);
    if (top->lost_ns) {
        snprintf(line, sizeof line, "no answer for %s, asking again: %.200s",
                 duration_text((double)(now_ns - top->lost_ns) / 1e9, a), top->why);
        top->screen->put(1, 0, TERSE_SCREEN_BAD, line);
    }
    if (!view)
        return;
    snprintf(line, sizeof line, "%sup %s", top->paused ? "PAUSED  " : "",
             duration_text((double)view->uptime_us / 1e6, a));
    top->screen->put(0, 57, top->paused ? TERSE_SCREEN_STRONG : TERSE_SCREEN_PLAIN, line);
    if (!top->lost_ns) {
        snprintf(line, sizeof line,
                 "clients %" PRIu64 ", connections %" PRIu64 "; served %" PRIu64 ", failed %" PRIu64
                 ", malformed %" PRIu64,
                 view->clients, view->connections, view->served, view->failed, view->malformed);
        top->screen->put(1, 0, TERSE_SCREEN_PLAIN, line);
    }
    snprintf(line, sizeof line,
             "waiting %" PRIu64 " (%s); tensors of requests %s, of replies %s; shared with clients %s", view->queued,
             bytes_text(view->queued_bytes, name), bytes_text(view->input_bytes_used, a),
             bytes_text(view->output_bytes_used, b), bytes_text(view->arena_bytes, c));
    top->screen->put(2, 0, TERSE_SCREEN_PLAIN, line);
}

/* --- models ----------------------------------------------------------------------------------------------------------
 */

typedef struct row {
    const terse_view_model *model;
    terse_view_interval in;
} row;

static const terse_top *sorted_by;

static double weight(const row *r)
{
    switch (sorted_by->sort) {
    case TERSE_TOP_RATE:
        return r->in.requests;
    case TERSE_TOP_QUEUE:
        return (double)r->model->queued;
    case TERSE_TOP_ROWS:
        return r->in.mean_rows;
    case TERSE_TOP_P50:
        return r->in.p50_us;
    case TERSE_TOP_P99:
        return r->in.p99_us;
    default:
        return r->in.refused;
    }
}

/* Most first, and by name among equals, so that lines do not jump. */
static int compare(const void *a, const void *b)
{
    const row *x = a, *y = b;
    int order = 0;
    if (sorted_by->sort != TERSE_TOP_NAME)
        order = (weight(x) < weight(y)) - (weight(x) > weight(y));
    if (order == 0)
        order = strcmp(x->model->name, y->model->name);
    return sorted_by->reversed ? -order : order;
}

const char *terse_top_sort_name(terse_top_sort sort)
{
    static const char *const names[] = {"name", "rate", "queue", "batch", "p50", "p99", "refused"};
    return names[sort];
}

static int name_columns(int columns)
{
    const int more = columns - (columns >= WIDE ? WIDE : 80);
    return LEAST_NAME + (more > 40 ? 40 : more > 0 ? more : 0);
}

static void draw_model(const terse_top *top, const row *r, int at, int columns)
{
    char line[LINE], name[256], version[CELL], rate[CELL], p50[CELL], p99[CELL], refused[CELL], mean[CELL], wait[CELL],
        run[CELL];
    const terse_view_model *m = r->model;
    if (r->in.batches > 0)
        snprintf(mean, sizeof mean, "%.1f", r->in.mean_rows);
    else
        strcpy(mean, "-");
    int n = snprintf(line, sizeof line, "%s %s %8s %6" PRIu64 " %5" PRIu64 " %6s %7s %7s %9s",
                     name_text(m->name, name_columns(columns), name, sizeof name),
                     name_text(m->version, 5, version, sizeof version), rate_text(r->in.requests, rate), m->queued,
                     m->running, mean, percentile_text(&r->in.total_us, 0.5, p50),
                     percentile_text(&r->in.total_us, 0.99, p99), rate_text(r->in.refused, refused));
    if (columns >= WIDE && n > 0 && n < LINE)
        snprintf(line + n, sizeof line - (size_t)n, " %9s %9s %8s", percentile_text(&r->in.queue_us, 0.99, wait),
                 percentile_text(&r->in.compute_us, 0.5, run), bytes_text(m->queued_bytes, rate));
    top->screen->put(at, 0, r->in.refused > 0 ? TERSE_SCREEN_BAD : TERSE_SCREEN_PLAIN, line);
}

/* Who was refused, and why, in a line under its model. */
static void draw_refused(const terse_top *top, const row *r, int at)
{
    char line[LINE];
    int n = snprintf(line, sizeof line, "   refused%s:", top->since_start ? "" : "/s");
    for (unsigned i = 0; i < r->in.rejected.n && n > 0 && n < LINE - 80; i++) {
        const uint64_t count = r->in.rejected.at[i].count;
        char rate[CELL];
        if (count == 0)
            continue;
        if (top->since_start)
            snprintf(rate, sizeof rate, "%" PRIu64, count);
        else
            rate_text(r->in.seconds > 0 ? (double)count / r->in.seconds : 0, rate);
        n += snprintf(line + n, sizeof line - (size_t)n, " %s %s", r->in.rejected.at[i].name, rate);
    }
    top->screen->put(at, 0, TERSE_SCREEN_BAD, line);
}

static void title(const terse_top *top, int at, int columns, const char *text)
{
    char line[LINE];
    snprintf(line, sizeof line, "%-*s", columns < LINE - 1 ? columns : LINE - 1, text);
    top->screen->put(at, 0, TERSE_SCREEN_TITLE, line);
}

static row *gather(const terse_top *top)
{
    row *rows = calloc(top->view->n_models + 1, sizeof *rows);
    for (unsigned i = 0; rows && i < top->view->n_models; i++) {
        rows[i].model = &top->view->models[i];
        terse_view_between(top->view, top->since_start ? NULL : top->earlier, rows[i].model, &rows[i].in);
    }
    if (rows) {
        sorted_by = top;
        qsort(rows, top->view->n_models, sizeof *rows, compare);
    }
    return rows;
}

/* Uses rows at..at+rows-1 of the screen; returns how many it used. */
static int draw_models(terse_top *top, int at, int n_rows, int columns)
{
    char line[LINE];
    const int n_models = (int)top->view->n_models;
    snprintf(line, sizeof line, "%-*s VER      REQ/s  QUEUE   RUN  BATCH     P50     P99 REFUSED%s",
             name_columns(columns), "MODEL", top->since_start ? "  " : "/s");
    if (columns >= WIDE)
        snprintf(line + strlen(line), sizeof line - strlen(line), " QUEUE P99 COMP. P50    BYTES");
    title(top, at, columns, line);
    row *rows = gather(top);
    if (!rows)
        return 1;
    if (top->scroll > n_models - 1)
        top->scroll = n_models > 0 ? n_models - 1 : 0;
    int used = 1, i = top->scroll;
    for (; i < n_models && used < n_rows; i++) {
        const bool more = i + 1 < n_models, refused = terse_view_sum(&rows[i].in.rejected) > 0;
        if (used + 1 + (refused ? 1 : 0) > n_rows - (more ? 1 : 0) && used > 1)
            break;
        draw_model(top, &rows[i], at + used++, columns);
        if (refused && used < n_rows)
            draw_refused(top, &rows[i], at + used++);
    }
    if (i < n_models || top->scroll > 0) {
        snprintf(line, sizeof line, "   %d of %d models (up, down)", i - top->scroll, n_models);
        top->screen->put(at + (used < n_rows ? used++ : used), 0, TERSE_SCREEN_FAINT, line);
    }
    for (unsigned k = 0; k < top->view->n_changes && used < n_rows; k++) {
        char name[256], version[CELL];
        const terse_view_change *change = &top->view->changes[k];
        snprintf(line, sizeof line, "%s %s %s", name_text(change->model, name_columns(columns), name, sizeof name),
                 name_text(change->version, 5, version, sizeof version), change->state);
        top->screen->put(at + used++, 0, TERSE_SCREEN_FAINT, line);
    }
    free(rows);
    return used;
}

/* --- workers ---------------------------------------------------------------------------------------------------------
 */

/* The part of the time between the looks in which it had a batch; of all time since the start as since_start has it. */
static double busy_part(const terse_top *top, unsigned i)
{
    const terse_view *then = top->since_start ? NULL : top->earlier;
    const terse_view_worker *worker = &top->view->workers[i];
    const bool same = then && i < then->n_workers && then->workers[i].busy_us <= worker->busy_us;
    const uint64_t busy = worker->busy_us - (same ? then->workers[i].busy_us : 0);
    const uint64_t all = top->view->uptime_us - (same ? then->uptime_us : 0);
    const double part = all ? (double)busy / (double)all : 0;
    return part > 1 ? 1 : part;
}

static void draw_worker(const terse_top *top, unsigned i, int at, int columns)
{
    const terse_view_worker *w = &top->view->workers[i];
    char line[LINE], state[CELL], batch[256], rows[CELL] = "", age[CELL] = "", own[CELL], shared[CELL];
    const terse_screen_look look = strcmp(w->state, "idle") == 0   ? TERSE_SCREEN_GOOD
                                   : strcmp(w->state, "busy") == 0 ? TERSE_SCREEN_BUSY
                                                                   : TERSE_SCREEN_BAD;
    if (*w->model) {
        snprintf(rows, sizeof rows, "%" PRIu64, w->rows);
        time_text((double)w->since_us, age);
    }
    if (w->next_start_ms)
        snprintf(rows, sizeof rows, "+%" PRIu64 "ms", w->next_start_ms);
    snprintf(line, sizeof line, "%4" PRIu64 " %8" PRIu64 " %s %s %5s %7s %3.0f%% %8" PRIu64 " %7s %6s", w->number,
             w->pid, name_text(w->state, 10, state, sizeof state),
             name_text(w->model, name_columns(columns) - BATCH_NAME, batch, sizeof batch), rows, age,
             100 * busy_part(top, i), w->restarts, bytes_text(w->private_bytes, own),
             bytes_text(w->shared_bytes, shared));
    top->screen->put(at, 0, look, line);
}

static void draw_workers(const terse_top *top, int at, int n_rows, int columns)
{
    char line[LINE];
    const int n = (int)top->view->n_workers;
    snprintf(line, sizeof line, "  NO      PID STATE      %-*s  ROWS     FOR BUSY RESTARTS PRIVATE SHARED",
             name_columns(columns) - BATCH_NAME, "BATCH OF");
    title(top, at, columns, line);
    for (int i = 0; i < n && i + 1 < n_rows; i++) {
        if (i + 2 == n_rows && i + 1 < n) {
            snprintf(line, sizeof line, "   and %d more workers", n - i);
            top->screen->put(at + 1 + i, 0, TERSE_SCREEN_FAINT, line);
            return;
        }
        draw_worker(top, (unsigned)i, at + 1 + i, columns);
    }
}

/* --- all of it
 * --------------------------------------------------------------------------------------------------------- */

static void draw_help(const terse_top *top)
{
    static const char *const lines[] = {
        "q        quit                      p, space  pause: keep what is shown",
        "s, S     sort by the next, the     r         turn the order round",
        "         column before             up, down  other models, where there are many",
        "c        since the daemon's start, or since the last look",
        "+ -      look less often, more often         h, ?  this help",
        "",
        "REQ/s    requests that came; QUEUE those that wait, RUN those in batches",
        "BATCH    mean rows of a batch; P50 and P99 from arrival to reply",
        "REFUSED  requests that got no result, and why: late could not have been done in",
        "         time, expired was not, queue_full and client_full found no place,",
        "         standing_queue waited too long, no_room found no memory, invalid does",
        "         not fit the model",
        "BUSY     the part of the time in which a worker had a batch; FOR how long this",
        "PRIVATE  memory of a worker alone; SHARED what others have too: models, tensors",
    };
    for (int i = 0; i < (int)(sizeof lines / sizeof lines[0]); i++)
        top->screen->put(HEAD_ROWS + 1 + i, 0, TERSE_SCREEN_PLAIN, lines[i]);
}

static void draw_foot(const terse_top *top, int rows)
{
    char line[LINE], interval[CELL];
    snprintf(line, sizeof line, "q quit  p pause  s sort: %s  r turn%s  c: %s  +- every %s  h help",
             terse_top_sort_name(top->sort), top->reversed ? "ed" : "", top->since_start ? "since start" : "now",
             time_text((double)top->interval_ms * 1000, interval));
    top->screen->put(rows - 1, 0, TERSE_SCREEN_FAINT, line);
}

void terse_top_draw(terse_top *top, uint64_t now_ns)
{
    int rows, columns;
    top->screen->size(&rows, &columns);
    top->screen->clear();
    draw_head(top, now_ns);
    if (top->help) {
        draw_help(top);
    } else if (top->view) {
        /* Workers get the lines that they need, but no more than half; models the rest. */
        const int room = rows - HEAD_ROWS - 3;
        int for_workers = (int)top->view->n_workers + 1;
        if (for_workers > room / 2)
            for_workers = room / 2;
        const int used = draw_models(top, HEAD_ROWS + 1, room - for_workers, columns);
        if (for_workers > 1)
            draw_workers(top, HEAD_ROWS + 2 + used, for_workers, columns);
    }
    draw_foot(top, rows);
    top->screen->show();
}
