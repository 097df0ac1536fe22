/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes
 *   epoll tells of a peer that hung up even to those who asked for nothing, again and again: so who is held is taken
 * out of it altogether, and its end is seen when it comes back. The timer has the listener's own data in ZeroMQ's
 * epoll: its event is a call of accept4, from where terse_hold_turn is asked. It stays readable while somebody outside
 * may come in, because ZeroMQ accepts one at a time. */
#include "daemon/hold.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { OUTSIDE = 512, OF_ONE = 256, TURN_MS = 10, GO_ON_AT_ONCE = 2, COME_IN_AT_ONCE = 2, NOBODY = -1 };

typedef struct watched {
    struct epoll_event event; /* as ZeroMQ wants it */
    int epoll;
    bool known, held;
    int previous, next; /* of those who are held */
    uint64_t until_ns;
} watched;

typedef struct waiting {
    int fd;
    uint64_t key;
} waiting;

static struct {
    watched *watched;
    uint32_t n;
    int first, last; /* held: who came first */
    int timer, listener, timer_epoll;
    bool running, in_turn;
    uint32_t n_held, n_outside, coming_in; /* coming_in: how many more in this turn */
} hold = {.first = NOBODY, .last = NOBODY, .timer = -1, .listener = -1, .timer_epoll = -1};
/* hold.n_outside of them, in the order in which they came. Not in `hold`, which is not zero: the program would hold
 * them. */
static waiting outside[OUTSIDE];

bool terse_hold_open(uint32_t n)
{
    hold.watched = calloc(n, sizeof *hold.watched);
    hold.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (!hold.watched || hold.timer < 0)
        return false;
    hold.n = n;
    return true;
}

void terse_hold_done(void)
{
    for (uint32_t i = 0; i < hold.n_outside; i++)
        close(outside[i].fd);
    if (hold.timer >= 0)
        close(hold.timer);
    free(hold.watched);
    memset(&hold, 0, sizeof hold);
    hold.first = hold.last = NOBODY;
    hold.timer = hold.listener = hold.timer_epoll = -1;
}

/* Past tap_calls.c. */
static int control(int epoll, int op, int fd, struct epoll_event *event)
{
    return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
}

static watched *watched_of(int fd)
{
    return fd >= 0 && (uint32_t)fd < hold.n ? &hold.watched[fd] : NULL;
}

static void run_timer(bool wanted)
{
    const struct timespec turn = {.tv_nsec = wanted ? TURN_MS * 1000000 : 0};
    const struct itimerspec time = {turn, turn};
    if (wanted != hold.running && timerfd_settime(hold.timer, 0, &time, NULL) == 0)
        hold.running = wanted;
}

static void unlink_held(int fd)
{
    watched *w = &hold.watched[fd];
    if (w->previous != NOBODY)
        hold.watched[w->previous].next = w->next;
    else
        hold.first = w->next;
    if (w->next != NOBODY)
        hold.watched[w->next].previous = w->previous;
    else
        hold.last = w->previous;
    w->held = false;
    hold.n_held--;
}

/* false: the system refuses, and it is held on. */
static bool go_on(int fd)
{
    watched *w = &hold.watched[fd];
    if (control(w->epoll, EPOLL_CTL_ADD, fd, &w->event) != 0)
        return false;
    unlink_held(fd);
    return true;
}

/* The timer tells through a listener's data. When that listener goes nobody is held any more. */
static void lean_on(int epoll, int listener, const struct epoll_event *event)
{
    struct epoll_event tell = {.events = EPOLLIN, .data = event->data};
    if (hold.timer >= 0 && control(epoll, EPOLL_CTL_ADD, hold.timer, &tell) == 0) {
        hold.listener = listener;
        hold.timer_epoll = epoll;
    }
}

static void lean_no_more(void)
{
    control(hold.timer_epoll, EPOLL_CTL_DEL, hold.timer, NULL);
    hold.listener = hold.timer_epoll = -1;
    while (hold.first != NOBODY)
        if (!go_on(hold.first))
            unlink_held(hold.first);
}

int terse_hold_control(int epoll, int op, int fd, struct epoll_event *event, bool listener)
{
    watched *w = watched_of(fd);
    if (!w)
        return control(epoll, op, fd, event);
    if (w->held && op == EPOLL_CTL_MOD) {
        w->event = *event;
        return 0;
    }
    if (w->held && op == EPOLL_CTL_DEL) {
        terse_hold_forget(fd);
        return 0;
    }
    const int r = control(epoll, op, fd, event);
    if (r == 0 && op == EPOLL_CTL_DEL) {
        if (fd == hold.listener)
            lean_no_more();
        w->known = false;
    } else if (r == 0) {
        *w = (watched){.event = *event, .epoll = epoll, .known = true, .previous = NOBODY, .next = NOBODY};
        if (listener && hold.listener < 0)
            lean_on(epoll, fd, event);
    }
    return r;
}

bool terse_hold_connection(int fd, uint64_t until_ns)
{
    watched *w = watched_of(fd);
    if (!w || !w->known || w->held || hold.listener < 0 || hold.timer_epoll != w->epoll ||
        control(w->epoll, EPOLL_CTL_DEL, fd, NULL) != 0)
        return false;
    w->held = true;
    w->until_ns = until_ns;
    w->previous = hold.last;
    w->next = NOBODY;
    if (hold.last != NOBODY)
        hold.watched[hold.last].next = fd;
    else
        hold.first = fd;
    hold.last = fd;
    hold.n_held++;
    run_timer(true);
    return true;
}

bool terse_hold_holds(int fd)
{
    const watched *w = watched_of(fd);
    return w && w->held;
}

void terse_hold_forget(int fd)
{
    watched *w = watched_of(fd);
    if (w && w->held)
        unlink_held(fd);
    if (w)
        w->known = false;
}

/* --- outside ------------------------------------------------------------------------------------------------------ */

static waiting take_out(uint32_t i)
{
    const waiting one = outside[i];
    memmove(&outside[i], &outside[i + 1], (--hold.n_outside - i) * sizeof one);
    return one;
}

static bool hung_up(int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLRDHUP};
    return poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

bool terse_hold_outside(int fd, uint64_t key)
{
    uint32_t of_one = 0;
    if (hold.listener < 0)
        return false;
    for (uint32_t i = 0; i < hold.n_outside; i++)
        of_one += outside[i].key == key;
    for (uint32_t i = 0; (of_one >= OF_ONE || hold.n_outside == OUTSIDE) && i < hold.n_outside;) {
        if ((hold.n_outside < OUTSIDE && outside[i].key != key) || !hung_up(outside[i].fd)) {
            i++;
            continue;
        }
        of_one -= outside[i].key == key;
        close(take_out(i).fd);
    }
    if (of_one >= OF_ONE || hold.n_outside == OUTSIDE)
        return false;
    outside[hold.n_outside++] = (waiting){fd, key};
    run_timer(true);
    return true;
}

/* Those who have gone meanwhile never meet ZeroMQ. */
static int let_in(terse_hold_may_enter *may_enter)
{
    for (uint32_t i = 0; hold.coming_in > 0 && i < hold.n_outside;) {
        if (!may_enter(outside[i].fd, outside[i].key)) {
            i++;
            continue;
        }
        const int fd = take_out(i).fd;
        if (!hung_up(fd)) {
            hold.coming_in--;
            return fd;
        }
        close(fd);
    }
    return -1;
}

static void let_go_on(uint64_t now_ns)
{
    int left = GO_ON_AT_ONCE;
    for (int fd = hold.first, next; fd != NOBODY && left > 0; fd = next) {
        next = hold.watched[fd].next;
        if (hold.watched[fd].until_ns > now_ns)
            continue;
        go_on(fd);
        left--;
    }
}

int terse_hold_turn(uint64_t now_ns, terse_hold_may_enter *may_enter)
{
    uint64_t turns;
    if (!hold.running)
        return -1;
    struct pollfd look = {.fd = hold.timer, .events = POLLIN};
    if (!hold.in_turn && poll(&look, 1, 0) <= 0)
        return -1;
    if (!hold.in_turn) {
        let_go_on(now_ns);
        hold.coming_in = COME_IN_AT_ONCE;
        hold.in_turn = true;
    }
    const int fd = let_in(may_enter);
    if (fd >= 0)
        return fd;
    hold.in_turn = false;
    (void)!read(hold.timer, &turns, sizeof turns);
    run_timer(hold.n_held || hold.n_outside);
    return -1;
}
