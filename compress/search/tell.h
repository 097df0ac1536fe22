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
/* Of each single technique the best that reaches the goal; where none does, the one that loses least beyond the dense
 * one. At most `most` of them; returns how many. */
int terse_tell_techniques(const terse_search_plan *plan, const terse_measured **list, int most);
/* "int8, 4x1" of "int8, 4x1 (2)"; writes and returns `text`. */
const char *terse_tell_technique(const terse_measured *measured, char text[TERSE_PLAN_LABEL]);

#endif
