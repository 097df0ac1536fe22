/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 1024, RECORD_BYTES = 4096 };

static const char *program_name = "tersed";
static bool journal;
static int journal_fd = -1;

/* The variable is inherited by whatever a service starts, with its stderr or another one: systemd's documentation has a
 * program compare the file. */
static bool goes_to_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat info;
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &info) == 0 &&
           info.st_dev == device && info.st_ino == inode;
}

/* Never waits: a journal that does not keep up gets the line by stderr, or not at all. */
static int open_journal(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

void terse_log_init(const char *program)
{
    program_name = program;
    journal = goes_to_journal();
    if (journal && journal_fd < 0)
        journal_fd = open_journal();
}

/* The journal stamps lines itself and knows the program of the unit, but not which of its children spoke. */
static int write_prefix(char *line, terse_log_priority priority)
{
    if (journal)
        return snprintf(line, LINE_BYTES, "<%d>%s: ", (int)priority, program_name);
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    const int length = (int)strftime(line, LINE_BYTES, "%H:%M:%S", &local);
    return length +
           snprintf(line + length, LINE_BYTES - (size_t)length, ".%03ld %s: ", now.tv_nsec / 1000000, program_name);
}

/* --- the journal's record -------------------------------------------------------------------------------------- */

typedef struct record {
    char text[RECORD_BYTES];
    size_t used;
} record;

/* A value is one line: what would begin another field does not. What has no room is left out, whole. */
static void add_field(record *r, const char *name, const char *value, size_t length)
{
    const size_t name_length = strlen(name);
    if (r->used + name_length + length + 2 > sizeof r->text)
        return;
    char *at = r->text + r->used;
    memcpy(at, name, name_length);
    at[name_length] = '=';
    memcpy(at + name_length + 1, value, length);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)at[name_length + 1 + i] < 0x20 || at[name_length + 1 + i] == 0x7f)
            at[name_length + 1 + i] = '?';
    at[name_length + 1 + length] = '\n';
    r->used += name_length + length + 2;
}

/* "worker 3" and "terse-worker[3]": the number; a bare number is itself. */
static void add_worker(record *r, const char *who)
{
    const char *digits = who ? strpbrk(who, "0123456789") : NULL;
    const size_t length = digits ? strspn(digits, "0123456789") : 0;
    if (length)
        add_field(r, "WORKER", digits, length);
}

static bool write_record(const terse_log_about *about, terse_log_priority priority, const char *message, size_t length)
{
    record r = {.used = 0};
    char number[32];
    const size_t name = strcspn(program_name, "[");
    add_field(&r, "MESSAGE", message, length);
    snprintf(number, sizeof number, "%d", (int)priority);
    add_field(&r, "PRIORITY", number, strlen(number));
    add_field(&r, "SYSLOG_IDENTIFIER", program_name, name);
    if (about->worker || strncmp(program_name, "terse-worker[", 13) == 0)
        add_worker(&r, about->worker ? about->worker : program_name);
    if (about->model)
        add_field(&r, "MODEL", about->model, strlen(about->model));
    if (about->request) {
        snprintf(number, sizeof number, "%" PRIu64, *about->request);
        add_field(&r, "REQUEST_ID", number, strlen(number));
    }
    if (about->status)
        add_field(&r, "STATUS", about->status, strlen(about->status));
    for (unsigned i = 0; i < about->n_numbers; i++) {
        snprintf(number, sizeof number, "%" PRIu64, about->numbers[i].value);
        add_field(&r, about->numbers[i].name, number, strlen(number));
    }
    if (about->reason)
        add_field(&r, "REASON", about->reason, strlen(about->reason));
    return write(journal_fd, r.text, r.used) == (ssize_t)r.used;
}

/* --- lines ------------------------------------------------------------------------------------------------------ */

static void write_line(const terse_log_about *about, terse_log_priority priority, const char *format, va_list args)
{
    const int saved = errno;
    char line[LINE_BYTES + 1];
    size_t used = (size_t)write_prefix(line, priority);
    if (used >= LINE_BYTES)
        used = 0; /* an absurdly long program name */
    const size_t prefix = used;
    errno = saved;
    const int length = vsnprintf(line + used, LINE_BYTES - used, format, args);
    if (length > 0)
        for (const size_t end = used + (size_t)length; used < end && line[used]; used++)
            if ((unsigned char)line[used] < 0x20 || line[used] == 0x7f)
                line[used] = '?';
    if (journal_fd < 0 || !write_record(about, priority, line + prefix, used - prefix)) {
        line[used++] = '\n';
        /* Nothing can be done about a log that cannot be written. */
        if (write(STDERR_FILENO, line, used) < 0)
            errno = saved;
    }
    errno = saved;
}

void terse_log(terse_log_priority priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line(&(const terse_log_about){0}, priority, format, args);
    va_end(args);
}

void terse_log_with(const terse_log_about *about, terse_log_priority priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line(about, priority, format, args);
    va_end(args);
}
