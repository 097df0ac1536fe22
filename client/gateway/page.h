/* SPDX-License-Identifier: Apache-2.0 */
/* page.h: the page that terse-gateway serves, as page/index.html has it, and the policy that lets a browser run nothing
 * else.
 * Runs in: terse-gateway. The page is part of the program. */
#ifndef TERSE_GATEWAY_PAGE_H
#define TERSE_GATEWAY_PAGE_H

#include <stddef.h>

const char *terse_page(size_t *ret_size);
/* The value of Content-Security-Policy: scripts and styles by their digests. Made at the first call. */
const char *terse_page_policy(void);

#endif
