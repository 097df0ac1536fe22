/* SPDX-License-Identifier: Apache-2.0 */
/* options_check.h: options that do not go together, for options.c. Runs in: terse-compress. Owns nothing. */
#ifndef TERSE_COMPRESS_OPTIONS_CHECK_H
#define TERSE_COMPRESS_OPTIONS_CHECK_H

#include "compress/options.h"

int terse_options_check_onnx(const terse_options *options, terse_error *error);
int terse_options_check_rounding(const terse_options *options, terse_error *error);
int terse_options_check_recover(const terse_options *options, terse_error *error);
int terse_options_check_search(const terse_options *options, terse_error *error);

#endif
