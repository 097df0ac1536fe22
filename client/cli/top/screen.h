/* SPDX-License-Identifier: Apache-2.0 */
/* screen.h: a terminal as rows of text: what `terse top` needs of ncurses.
 * Runs in: terse, by way of terse-screen.so, which is screen.c with libncursesw: loading that library would cost every
 * other command a part of its start. One screen per process; it owns the terminal between open and close. */
#ifndef TERSE_CLI_TOP_SCREEN_H
#define TERSE_CLI_TOP_SCREEN_H

#include <stdbool.h>

typedef enum terse_screen_look {
    TERSE_SCREEN_PLAIN,
    TERSE_SCREEN_TITLE, /* of a table */
    TERSE_SCREEN_STRONG,
    TERSE_SCREEN_FAINT,
    TERSE_SCREEN_GOOD,
    TERSE_SCREEN_BUSY,
    TERSE_SCREEN_BAD,
} terse_screen_look;

/* What `key` gives beside characters. */
enum {
    TERSE_KEY_NONE = -1, /* nothing in that time */
    TERSE_KEY_END = -2,  /* the terminal is gone */
    TERSE_KEY_RESIZE = -3,
    TERSE_KEY_UP = -4,
    TERSE_KEY_DOWN = -5,
    TERSE_KEY_PAGE_UP = -6,
    TERSE_KEY_PAGE_DOWN = -7,
    TERSE_KEY_LEFT = -8,
    TERSE_KEY_RIGHT = -9,
};

typedef struct terse_screen {
    /* Why what stands before the program cannot be drawn on; NULL when it can. */
    const char *(*why_not)(void);
    /* false: the terminal cannot be prepared. */
    bool (*open)(void);
    void (*close)(void);
    void (*size)(int *ret_rows, int *ret_columns);
    void (*clear)(void);
    /* UTF-8 without control characters; what goes beyond the right edge is cut. */
    void (*put)(int row, int column, terse_screen_look look, const char *text);
    void (*show)(void);
    int (*key)(int timeout_ms); /* waits so long at most; a signal ends the wait too */
} terse_screen;

/* What terse finds in terse-screen.so. */
__attribute__((visibility("default"))) const terse_screen *terse_screen_get(void);

#endif
