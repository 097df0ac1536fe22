/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "compress/low_rank/low_rank.h"

static int refuse(const char *text, terse_error *error)
{
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "--low-rank is '%.100s', allowed are a share of energy above 0 and at most 1 (0.95), of "
                      "multiply-accumulates (50%%), a speed-up (1.5x), a rank (64), ranks of layers "
                      "(NAME=64,NAME=16x24) and auto, each with :svd, :channel, :tucker or :spatial behind it",
                      text);
}

/* "NAME=64,NAME=16x24": names may hold anything but ',' and '='. */
static bool is_list(const char *text, size_t length)
{
    const char *end = text + length;
    while (text < end) {
        const char *comma = memchr(text, ',', (size_t)(end - text)), *stop = comma ? comma : end;
        const char *equals = memchr(text, '=', (size_t)(stop - text));
        if (!equals || equals == text)
            return false;
        for (int part = 0; part < 2; part++) {
            char *after;
            const long rank = strtol(equals + 1, &after, 10);
            if (after == equals + 1 || equals[1] < '0' || equals[1] > '9' || rank < 1)
                return false;
            if (after == stop)
                break;
            if (*after != 'x' || part == 1)
                return false;
            equals = after;
        }
        text = comma ? comma + 1 : end;
        if (comma && text == end)
            return false;
    }
    return true;
}

int terse_low_rank_parse(const char *text, terse_low_rank_options *options, terse_error *error)
{
    terse_low_rank_options o = *options;
    size_t length = strlen(text);
    o.form = TERSE_FORM_BEST;
    for (terse_low_rank_form form = TERSE_FORM_SVD; form <= TERSE_FORM_SPATIAL; form++) {
        const char *name = terse_low_rank_form_name(form);
        const size_t n = strlen(name);
        if (length > n && text[length - n - 1] == ':' && strncmp(text + length - n, name, n) == 0) {
            o.form = form;
            length -= n + 1;
            break;
        }
    }
    char *end;
    const double number = strtod(text, &end);
    const bool percent = end == text + length - 1 && *end == '%';
    o.ranks = text;
    if (length == 4 && strncmp(text, "auto", 4) == 0) {
        o.target = TERSE_LOW_RANK_AUTO;
    } else if (length > 0 && end != text && percent && number > 0 && number <= 100) {
        o.target = TERSE_LOW_RANK_SHARE;
        o.amount = number / 100;
    } else if (length > 0 && end != text && end == text + length - 1 && *end == 'x' && number > 1 && number <= 100) {
        o.target = TERSE_LOW_RANK_SPEED;
        o.amount = number;
    } else if (length > 0 && end == text + length && number > 0 && number <= 1) {
        o.target = TERSE_LOW_RANK_ENERGY;
        o.amount = number;
    } else if (length > 0 && strspn(text, "0123456789") == length && number >= 2 && number < 1e9) {
        o.target = TERSE_LOW_RANK_RANKS;
        o.amount = number;
    } else if (length > 0 && is_list(text, length)) {
        o.target = TERSE_LOW_RANK_RANKS;
        o.amount = 0;
    } else {
        return refuse(text, error);
    }
    *options = o;
    return TERSE_OK;
}
