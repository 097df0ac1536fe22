/* SPDX-License-Identifier: Apache-2.0 */
/* top.h: what the files of `terse top` share: what is known of the daemon, and how it is to be shown.
 * Runs in: terse. Ownership: the struct owns both views; the screen is the process's. */
#ifndef TERSE_CLI_TOP_TOP_H
#define TERSE_CLI_TOP_TOP_H

#include "client/cli/top/screen.h"
#include "client/view/view.h"

typedef enum terse_top_sort {
    TERSE_TOP_NAME,
    TERSE_TOP_RATE,
    TERSE_TOP_QUEUE,
    TERSE_TOP_ROWS,
    TERSE_TOP_P50,
    TERSE_TOP_P99,
    TERSE_TOP_REFUSED,
    TERSE_TOP_SORTS
} terse_top_sort;

typedef struct terse_top {
    const terse_screen *screen;
    const char *endpoint;
    uint64_t interval_ms;
    terse_view *view, *earlier; /* the last look, and the one before of the same process; NULL: there was none */
    terse_top_sort sort;
    bool reversed, paused, since_start, help;
    int scroll;       /* models passed over at the top */
    uint64_t lost_ns; /* since when it does not answer; 0: it does */
    char why[256];    /* it does not */
} terse_top;

/* Draws all of it. */
void terse_top_draw(terse_top *top, uint64_t now_ns);
/* "rate" ...: what models are sorted by. */
const char *terse_top_sort_name(terse_top_sort sort);

#endif
