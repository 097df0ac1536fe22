/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of models in large pages, and in small ones where there are no others: the bytes are the same, the mapping is
 * where and as large as was asked for, and nothing of it is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/pages.h"

enum { MEGA = 1 << 20 };

static const size_t sizes[] = {1, 4096, MEGA - 1, MEGA, 2 * MEGA, 2 * MEGA + 1, 3 * MEGA, 5 * MEGA + 4095};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

static int make(size_t bytes)
{
    const int fd = memfd_create("terse-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static void assert_unmapped(const uint8_t *base, size_t bytes)
{
    unsigned char there;
    for (size_t at = 0; at < bytes; at += 4096) {
        assert_int_equal(mincore((uint8_t *)(uintptr_t)base + at, 1, &there), -1);
        assert_int_equal(errno, ENOMEM);
    }
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        const size_t bytes = sizes[i];
        const int fd = make(bytes);
        terse_pages_enlarge(fd, bytes, i % 2 ? UINT64_MAX : terse_pages_at_hand());
        assert_int_equal(lseek(fd, 0, SEEK_END), bytes);
        uint8_t *image = terse_pages_map(fd, bytes, PROT_READ | PROT_WRITE, MAP_SHARED);
        assert_ptr_not_equal(image, MAP_FAILED);
        for (size_t at = 0; at < bytes; at++) {
            assert_int_equal(image[at], 0);
            image[at] = (uint8_t)(at * 7 + at / 4096);
        }
        terse_pages_unmap(image, bytes);
        assert_unmapped(image, bytes);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
        const uint8_t *base = terse_pages_map(fd, bytes, PROT_READ, MAP_PRIVATE);
        assert_ptr_not_equal(base, MAP_FAILED);
        assert_true(bytes < MEGA || (uintptr_t)base % (2 * MEGA) == 0);
        for (size_t at = 0; at < bytes; at++)
            assert_int_equal(base[at], (uint8_t)(at * 7 + at / 4096));
        terse_pages_unmap((void *)(uintptr_t)base, bytes);
        assert_unmapped(base, bytes);
        close(fd);
    }
}

static void what_cannot_be_mapped_is_said(void **state)
{
    (void)state;
    const size_t bytes = 3 * MEGA;
    const int fd = make(bytes);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    errno = 0;
    assert_ptr_equal(terse_pages_map(fd, bytes, PROT_READ | PROT_WRITE, MAP_SHARED), MAP_FAILED);
    assert_int_equal(errno, EPERM);
    terse_pages_enlarge(fd, bytes, UINT64_MAX); /* cannot: and does no harm */
    close(fd);
    errno = 0;
    assert_ptr_equal(terse_pages_map(fd, bytes, PROT_READ, MAP_SHARED), MAP_FAILED);
    assert_int_equal(errno, EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_cannot_be_mapped_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
