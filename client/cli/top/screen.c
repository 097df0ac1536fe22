/* SPDX-License-Identifier: Apache-2.0 */
#define NCURSES_WIDECHAR 1
#include "client/cli/top/screen.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ncurses.h>
#include <term.h>

static bool utf8;
static SCREEN *terminal;
static attr_t looks[TERSE_SCREEN_BAD + 1];

static void prepare_looks(void)
{
    looks[TERSE_SCREEN_TITLE] = A_REVERSE;
    looks[TERSE_SCREEN_STRONG] = A_BOLD;
    looks[TERSE_SCREEN_FAINT] = A_DIM;
    looks[TERSE_SCREEN_BAD] = A_BOLD;
    /* Colours say nothing that words beside them do not. */
    if (getenv("NO_COLOR") || !has_colors() || start_color() == ERR || use_default_colors() == ERR)
        return;
    static const short colours[] = {
        [TERSE_SCREEN_GOOD] = COLOR_GREEN, [TERSE_SCREEN_BUSY] = COLOR_CYAN, [TERSE_SCREEN_BAD] = COLOR_RED};
    for (short look = TERSE_SCREEN_GOOD; look <= TERSE_SCREEN_BAD; look++)
        if (init_pair(look, colours[look], -1) == OK)
            looks[look] |= (attr_t)COLOR_PAIR(look);
}

static const char *why_not(void)
{
    const char *name = getenv("TERM");
    int error = 0;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return "standard input and output are no terminal";
    if (!name || !*name)
        return "TERM does not say what terminal this is";
    /* Looked at first: initscr would end the program. */
    if (setupterm(name, STDOUT_FILENO, &error) == ERR)
        return "the terminal that TERM names is not known here";
    const bool places = tigetstr("cup") && tigetstr("cup") != (char *)-1 && tigetstr("clear");
    del_curterm(cur_term);
    return places ? NULL : "the terminal that TERM names cannot place its cursor";
}

static bool open_screen(void)
{
    setlocale(LC_CTYPE, "");
    utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    terminal = newterm(getenv("TERM"), stdout, stdin);
    if (!terminal)
        return false;
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
    prepare_looks();
    return true;
}

static void close_screen(void)
{
    endwin();
    delscreen(terminal);
}

static void size(int *ret_rows, int *ret_columns)
{
    getmaxyx(stdscr, *ret_rows, *ret_columns);
}

static void wipe(void)
{
    erase();
}

static void put(int row, int column, terse_screen_look look, const char *text)
{
    const int rows = getmaxy(stdscr), width = getmaxx(stdscr);
    char plain[1024];
    if (row < 0 || row >= rows || column >= width)
        return;
    if (!utf8) { /* a byte a character, as the terminal has it */
        size_t n = 0;
        for (const char *at = text; *at && n + 1 < sizeof plain; at++)
            if (((unsigned char)*at & 0xc0) != 0x80)
                plain[n++] = (unsigned char)*at < 0x80 ? *at : '?';
        plain[n] = 0;
        text = plain;
    }
    int bytes = 0;
    for (int left = width - column; text[bytes]; bytes++)
        if (((unsigned char)text[bytes] & 0xc0) != 0x80 && left-- == 0)
            break;
    attr_set(looks[look], 0, NULL);
    mvaddnstr(row, column, text, bytes);
    attrset(A_NORMAL);
}

static void show(void)
{
    refresh();
}

static int key(int timeout_ms)
{
    struct pollfd watched = {.fd = STDIN_FILENO, .events = POLLIN};
    const int n = poll(&watched, 1, timeout_ms);
    if (n < 0 && errno != EINTR)
        return TERSE_KEY_END;
    const int got = getch();
    switch (got) {
    case ERR: /* readable and nothing to read: the other end of the terminal is closed */
        return n > 0 ? TERSE_KEY_END : TERSE_KEY_NONE;
    case KEY_RESIZE:
        return TERSE_KEY_RESIZE;
    case KEY_UP:
        return TERSE_KEY_UP;
    case KEY_DOWN:
        return TERSE_KEY_DOWN;
    case KEY_PPAGE:
        return TERSE_KEY_PAGE_UP;
    case KEY_NPAGE:
        return TERSE_KEY_PAGE_DOWN;
    case KEY_LEFT:
        return TERSE_KEY_LEFT;
    case KEY_RIGHT:
        return TERSE_KEY_RIGHT;
    default:
        return got < 256 ? got : TERSE_KEY_NONE;
    }
}

const terse_screen *terse_screen_get(void)
{
    static const terse_screen screen = {why_not, open_screen, close_screen, size, wipe, put, show, key};
    return &screen;
}
