/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

static const char *program_name = "tersed";
static bool journal;

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

void terse_log_init(const char *program)
{
    program_name = program;
    journal = goes_to_journal();
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

void terse_log(terse_log_priority priority, const char *format, ...)
{
    const int saved = errno;
    char line[LINE_BYTES + 1];
    size_t used = (size_t)write_prefix(line, priority);
    if (used >= LINE_BYTES)
        used = 0; /* an absurdly long program name */
    va_list args;
    va_start(args, format);
    errno = saved;
    const int length = vsnprintf(line + used, LINE_BYTES - used, format, args);
    va_end(args);
    if (length > 0)
        for (const size_t end = used + (size_t)length; used < end && line[used]; used++)
            if ((unsigned char)line[used] < 0x20 || line[used] == 0x7f)
                line[used] = '?';
    line[used++] = '\n';
    /* Nothing can be done about a log that cannot be written. */
    if (write(STDERR_FILENO, line, used) < 0)
        errno = saved;
    errno = saved;
}
