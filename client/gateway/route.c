/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/route.h"

#include <string.h>

/* The first that fits wins. The first * is a model, the second a version. */
static const struct {
    const char *pattern;
    terse_route_kind kind;
    bool post;
} routes[] = {
    {"v2/health/live", TERSE_ROUTE_LIVE, false},
    {"v2/health/ready", TERSE_ROUTE_READY, false},
    {"v2/models/stats", TERSE_ROUTE_STATS, false},
    {"v2/models/*/infer", TERSE_ROUTE_INFER, true},
    {"v2/models/*/versions/*/infer", TERSE_ROUTE_INFER, true},
    {"v2/models/*/ready", TERSE_ROUTE_MODEL_READY, false},
    {"v2/models/*/versions/*/ready", TERSE_ROUTE_MODEL_READY, false},
    {"v2/models/*/config", TERSE_ROUTE_CONFIG, false},
    {"v2/models/*/versions/*/config", TERSE_ROUTE_CONFIG, false},
    {"v2/models/*/stats", TERSE_ROUTE_STATS, false},
    {"v2/models/*/versions/*/stats", TERSE_ROUTE_STATS, false},
    {"v2/models/*", TERSE_ROUTE_MODEL, false},
    {"v2/models/*/versions/*", TERSE_ROUTE_MODEL, false},
    {"v2", TERSE_ROUTE_SERVER, false},
    {"v2/repository/index", TERSE_ROUTE_INDEX, true},
    {"v2/repository/models/*/load", TERSE_ROUTE_ELSEWHERE, true},
    {"v2/repository/models/*/unload", TERSE_ROUTE_ELSEWHERE, true},
    {"metrics", TERSE_ROUTE_METRICS, false},
    {"", TERSE_ROUTE_PAGE, false},
    {"live", TERSE_ROUTE_PICTURE, false},
};

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A name out of the path, %XX resolved; no byte 0, at least one byte, and not longer than a name may be. */
static bool read_name(const char *from, size_t length, char *to)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        int c = (unsigned char)from[i];
        if (c == '%') {
            if (i + 2 >= length || hex(from[i + 1]) < 0 || hex(from[i + 2]) < 0)
                return false;
            c = hex(from[i + 1]) * 16 + hex(from[i + 2]);
            i += 2;
        }
        if (c == 0 || n == TERSE_ROUTE_NAME)
            return false;
        to[n++] = (char)c;
    }
    to[n] = 0;
    return n > 0;
}

static bool fits(const char *pattern, const char *path, const char *end, terse_route *route)
{
    char *names[] = {route->model, route->version};
    int n = 0;
    route->model[0] = route->version[0] = 0;
    while (*pattern && path < end) {
        const size_t wanted = strcspn(pattern, "/");
        const char *slash = memchr(path, '/', (size_t)(end - path));
        const size_t found = (size_t)((slash ? slash : end) - path);
        if (*pattern == '*' ? n > 1 || !read_name(path, found, names[n++])
                            : wanted != found || memcmp(pattern, path, wanted) != 0)
            return false;
        pattern += wanted + (pattern[wanted] == '/');
        path += found + (slash != NULL);
        if (slash && path == end && *pattern == 0) /* "v2/" is "v2" */
            return true;
    }
    return *pattern == 0 && path == end;
}

bool terse_route_find(const char *target, terse_route *ret_route)
{
    const char *end = target + strcspn(target, "?#");
    const char *path = target + (*target == '/');
    ret_route->kind = TERSE_ROUTE_NONE;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!fits(routes[i].pattern, path, end, ret_route))
            continue;
        ret_route->kind = routes[i].kind;
        ret_route->post = routes[i].post;
        ret_route->pattern = routes[i].pattern;
        return true;
    }
    return false;
}
