/* SPDX-License-Identifier: Apache-2.0 */
#include "client/internal.h"

static _Thread_local terse_error last_error;

terse_error *terse_client_error_slot(void)
{
    return &last_error;
}

const char *terse_last_error(void)
{
    return last_error.message;
}

const char *terse_version(void)
{
    return TERSE_VERSION;
}
