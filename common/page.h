/* SPDX-License-Identifier: Apache-2.0 */
/* page.h: a page of HTML that stands alone: no script, no other file. Well-formed as XML too, so that any parser reads
 * it. Runs in: terse, terse-compress. Ownership: a terse_page owns its file until it is closed; it appears under its
 * name when it is whole. */
#ifndef TERSE_COMMON_PAGE_H
#define TERSE_COMMON_PAGE_H

#include <stdio.h>

#include "common/bytes.h"

typedef struct terse_page {
    FILE *out; /* the body is written here */
    terse_atomic_file file;
} terse_page;

/* Begins a page; `style` (may be "") stands behind the style that all have. SYSTEM when it cannot be written. */
int terse_page_open(const char *path, const char *title, const char *style, terse_page *ret_page, terse_error *error);
/* Ends it. Whatever comes back, the page is closed. */
int terse_page_close(terse_page *page, terse_error *error);
/* Text that is not ours: markup in it stays text, control characters vanish, bytes that are no UTF-8 become '?'. */
void terse_page_text(FILE *out, const char *text);

#endif
