/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/several.h"

#include <stdlib.h>

#include "client/gateway/asker.h"
#include "client/view/view.h"

/* A scrape has some seconds for all daemons, and one that is away must not take them: who cannot be connected to is
 * tried again at the next scrape. */
enum { MAX_ENDPOINTS = 64, CONNECT_MS = 200, RECONNECT_MS = 200 };

struct terse_several {
    char *names; /* what `endpoints` point into */
    const char *endpoints[MAX_ENDPOINTS];
    terse_client *clients[MAX_ENDPOINTS];
    size_t n;
};

int terse_several_new(const char *endpoints, terse_several **ret_several, terse_error *error)
{
    *ret_several = NULL;
    if (!strchr(endpoints, ','))
        return TERSE_OK;
    terse_several *several = calloc(1, sizeof *several);
    if (!several || !(several->names = strdup(endpoints))) {
        free(several);
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory");
    }
    char *left = several->names;
    for (const char *name; several->n < MAX_ENDPOINTS && (name = strsep(&left, ","));) {
        bool again = false; /* two samples of the same labels are no text */
        for (size_t i = 0; i < several->n; i++)
            again |= strcmp(several->endpoints[i], name) == 0;
        if (!again)
            several->endpoints[several->n++] = name;
    }
    if (left) {
        terse_several_free(several);
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "more than %d endpoints", MAX_ENDPOINTS);
    }
    *ret_several = several;
    return TERSE_OK;
}

void terse_several_free(terse_several *several)
{
    if (!several)
        return;
    for (size_t i = 0; i < several->n; i++)
        terse_client_close(several->clients[i]);
    free(several->names);
    free(several);
}

/* --- one text of several ---------------------------------------------------------------------------------- */

static const char family_mark[] = "# TYPE ", end_mark[] = "# EOF\n";

static bool begins(const char *line, const char *word)
{
    return strncmp(line, word, strlen(word)) == 0;
}

static const char *line_after(const char *line)
{
    const char *end = strchr(line, '\n');
    return end ? end + 1 : line + strlen(line);
}

/* Where the next family begins, or the text ends. */
static const char *family_after(const char *line)
{
    do
        line = line_after(line);
    while (*line && !begins(line, family_mark) && !begins(line, end_mark));
    return line;
}

/* The family that has the same first line, its name and type; NULL: the text has none. */
static const char *find_family(const char *text, const char *wanted)
{
    const size_t length = (size_t)(line_after(wanted) - wanted);
    while (*text && !begins(text, end_mark)) {
        if (strncmp(text, wanted, length) == 0)
            return text;
        text = family_after(text);
    }
    return NULL;
}

/* "name{a="b"} 1" becomes "name{endpoint="E",a="b"} 1". */
static void put_sample(terse_text *to, const char *endpoint, const char *line)
{
    const char *behind = line_after(line);
    const size_t name = strcspn(line, "{ ");
    terse_text_put(to, line, name);
    terse_text_cstr(to, "{endpoint=\"");
    for (const char *c = endpoint; *c; c++) {
        if (*c == '\\' || *c == '"')
            terse_text_put(to, "\\", 1);
        terse_text_put(to, *c == '\n' ? " " : c, 1);
    }
    terse_text_cstr(to, line[name] == '{' ? "\"," : "\"}");
    const char *rest = line + name + (line[name] == '{');
    terse_text_put(to, rest, (size_t)(behind - rest));
}

static void put_samples(terse_text *to, const char *endpoint, const char *family)
{
    const char *end = family_after(family);
    for (const char *line = family; line < end; line = line_after(line))
        if (*line != '#')
            put_sample(to, endpoint, line);
}

static void put_head(terse_text *to, const char *family)
{
    const char *end = family_after(family);
    for (const char *line = family; line < end; line = line_after(line))
        if (*line == '#')
            terse_text_put(to, line, (size_t)(line_after(line) - line));
}

/* All that daemons of one version say they say in the same order; what only later ones have comes behind. */
void terse_several_merge(terse_text *to, const char *const *endpoints, const char *const *texts, size_t n)
{
    terse_text_cstr(to, "# TYPE terse_endpoint_up gauge\n# HELP terse_endpoint_up Whether the daemon answered.\n");
    for (size_t i = 0; i < n; i++)
        put_sample(to, endpoints[i], texts[i] ? "terse_endpoint_up 1\n" : "terse_endpoint_up 0\n");
    for (size_t i = 0; i < n; i++) {
        const char *family = texts[i] ? texts[i] : end_mark;
        for (; *family && !begins(family, end_mark); family = family_after(family)) {
            bool known = false;
            for (size_t k = 0; k < i; k++)
                known |= texts[k] && find_family(texts[k], family);
            if (known)
                continue;
            put_head(to, family);
            for (size_t k = i; k < n; k++) {
                const char *same = texts[k] ? find_family(texts[k], family) : NULL;
                if (same)
                    put_samples(to, endpoints[k], same);
            }
        }
    }
}

/* --- asking ----------------------------------------------------------------------------------------------- */

/* The text of daemon `i`, to be freed; NULL: it does not answer. */
static char *ask(terse_several *several, size_t i, terse_error *error)
{
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    options.endpoint = several->endpoints[i];
    options.connect_timeout_ms = CONNECT_MS;
    options.reconnect_timeout_ms = RECONNECT_MS;
    terse_view *view = NULL;
    char *text = NULL;
    size_t size = 0;
    if (!several->clients[i]) {
        const terse_status status = terse_client_open(&options, &several->clients[i]);
        if (status) {
            terse_fail(error, status, "%s", terse_last_error());
            return NULL;
        }
    }
    if (terse_about_view(several->clients[i], &view, error) == TERSE_OK)
        terse_view_openmetrics(view, &text, &size, error);
    terse_view_free(view);
    return text;
}

terse_status terse_several_metrics(terse_several *several, terse_answer *answer, terse_error *error)
{
    char *texts[MAX_ENDPOINTS] = {NULL};
    bool any = false;
    for (size_t i = 0; i < several->n; i++)
        any |= (texts[i] = ask(several, i, error)) != NULL;
    if (any) {
        terse_several_merge(&answer->body, several->endpoints, (const char *const *)texts, several->n);
        terse_text_cstr(&answer->body, end_mark);
        answer->status = MHD_HTTP_OK;
        answer->type = TERSE_VIEW_OPENMETRICS_TYPE;
    }
    for (size_t i = 0; i < several->n; i++)
        free(texts[i]);
    return any ? TERSE_OK : TERSE_UNAVAILABLE;
}
