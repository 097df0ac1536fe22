/* SPDX-License-Identifier: Apache-2.0 */
/* tell.h: what a search found, for the report: for people, as JSON, as a part of the page.
 * Runs in: terse-compress. Owns nothing. */
#ifndef TERSE_SEARCH_TELL_H
#define TERSE_SEARCH_TELL_H

#include <stdio.h>

#include "common/json.h"
#include "compress/search/plan.h"

void terse_tell_search_print(const terse_search_plan *plan, FILE *out);
/* The member "search" of the object that is open. */
void terse_tell_search_json(const terse_search_plan *plan, terse_json *json);
/* tell_html.c: sections of a page; `escaped` writes text that is not ours. */
void terse_tell_search_html(const terse_search_plan *plan, void (*escaped)(FILE *out, const char *text), FILE *out);
/* The one that was chosen, or NULL. */
const terse_measured *terse_tell_chosen(const terse_search_plan *plan);
/* The best of one technique alone that loses no more than the chosen one, and half a point; by speed, or by bytes.
 * NULL: none. */
const terse_measured *terse_tell_rival(const terse_search_plan *plan, bool by_size);

#endif
