/* SPDX-License-Identifier: Apache-2.0 */
/* distill.h: the subcommand `terse distill`.
 * Runs in: terse-compress, which `terse` starts with the subcommand's name as argv[0]. */
#ifndef TERSE_DISTILL_DISTILL_H
#define TERSE_DISTILL_DISTILL_H

/* Returns the exit code: 0 done, 1 the work failed (one line on stderr says what), 2 wrong usage. */
int terse_distill_main(int argc, char **argv);

#endif
