/* SPDX-License-Identifier: Apache-2.0 */
#include "common/curve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"

enum { FILE_BYTES = 16384 };

static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

bool terse_curve_decode(const char *text, uint8_t ret_key[TERSE_CURVE_KEY])
{
    uint8_t key[TERSE_CURVE_KEY];
    if (strlen(text) != TERSE_CURVE_TEXT - 1)
        return false;
    for (int word = 0; word < TERSE_CURVE_KEY / 4; word++) {
        uint64_t value = 0;
        for (int i = 0; i < 5; i++) {
            const char *digit = strchr(digits, text[5 * word + i]);
            if (!digit)
                return false;
            value = 85 * value + (uint64_t)(digit - digits);
        }
        if (value > UINT32_MAX)
            return false;
        for (int i = 0; i < 4; i++)
            key[4 * word + i] = (uint8_t)(value >> (24 - 8 * i));
    }
    memcpy(ret_key, key, sizeof key);
    return true;
}

void terse_curve_encode(const uint8_t key[TERSE_CURVE_KEY], char ret_text[TERSE_CURVE_TEXT])
{
    for (int word = 0; word < TERSE_CURVE_KEY / 4; word++) {
        uint32_t value = 0;
        for (int i = 0; i < 4; i++)
            value = value << 8 | key[4 * word + i];
        for (int i = 4; i >= 0; i--, value /= 85)
            ret_text[5 * word + i] = digits[value % 85];
    }
    ret_text[TERSE_CURVE_TEXT - 1] = 0;
}

/* A line's value when it is `name` = "VALUE": 1, with the key checked; 0: another line; -1: no key. */
static int take_line(char *line, const char *name, char *ret_text)
{
    uint8_t key[TERSE_CURVE_KEY];
    line += strspn(line, " \t");
    const size_t length = strlen(name);
    if (strncmp(line, name, length) != 0)
        return 0;
    line += length;
    line += strspn(line, " \t");
    if (*line != '=')
        return 0;
    line++;
    line += strspn(line, " \t\"");
    /* A Z85 text may hold what looks like a comment: its length ends it. */
    if (strlen(line) < TERSE_CURVE_TEXT - 1 ||
        line[TERSE_CURVE_TEXT - 1 + strspn(line + TERSE_CURVE_TEXT - 1, " \t\"\r")])
        return -1;
    line[TERSE_CURVE_TEXT - 1] = 0;
    if (!terse_curve_decode(line, key))
        return -1;
    memcpy(ret_text, line, TERSE_CURVE_TEXT);
    return 1;
}

static int parse(const char *path, char *text, terse_curve_keys *keys, terse_error *error)
{
    unsigned number = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        number++;
        int taken = take_line(line, "public-key", keys->public_key);
        if (taken == 0)
            taken = take_line(line, "secret-key", keys->secret_key);
        if (taken < 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT,
                              "'%s', line %u: found no key, allowed: 40 characters of Z85 in quotes", path, number);
    }
    if (!keys->public_key[0])
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s' is no key file: found no public-key = \"...\"; `terse keygen` makes key files", path);
    return TERSE_OK;
}

static int check_owner(const char *path, const struct stat *info, terse_error *error)
{
    if (info->st_mode & 077)
        return terse_fail(error, TERSE_PERMISSION_DENIED,
                          "'%s' holds a secret key and has mode %04o, allowed: 0600 or 0400 (chmod 600)", path,
                          (unsigned)(info->st_mode & 07777));
    if (info->st_uid != 0 && info->st_uid != geteuid())
        return terse_fail(error, TERSE_PERMISSION_DENIED,
                          "'%s' holds a secret key and belongs to user %u, allowed: root and user %u", path,
                          (unsigned)info->st_uid, (unsigned)geteuid());
    return TERSE_OK;
}

int terse_curve_read(const char *path, bool shared, terse_curve_keys *ret_keys, terse_error *error)
{
    char text[FILE_BYTES + 1];
    struct stat info;
    terse_curve_keys keys = {{0}, {0}};
    TERSE_AUTO(terse_close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot read the key file '%s'", path);
    if (!S_ISREG(info.st_mode) || info.st_size > FILE_BYTES)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "'%s' is no key file: found %s, allowed: a file of at most %d bytes", path,
                          S_ISREG(info.st_mode) ? "more" : "no regular file", FILE_BYTES);
    const int64_t size = terse_read_full(fd, text, FILE_BYTES);
    if (size < 0)
        return terse_fail(error, TERSE_SYSTEM, "cannot read the key file '%s'", path);
    text[size] = 0;
    int status = parse(path, text, &keys, error);
    if (!status && keys.secret_key[0] && !shared)
        status = check_owner(path, &info, error);
    explicit_bzero(text, sizeof text);
    if (!status)
        *ret_keys = keys;
    explicit_bzero(&keys, sizeof keys);
    return status;
}
