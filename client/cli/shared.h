/* SPDX-License-Identifier: Apache-2.0 */
/* shared.h: requests of the subcommands whose tensors lie in memory shared with the daemon (--shm). */
#ifndef TERSE_CLI_SHARED_H
#define TERSE_CLI_SHARED_H

#include "client/terse.h"
#include "common/tensor.h"

/* What a request is made of: arrays by the model's input names. */
typedef struct terse_cli_arrays {
    const terse_signature *signature;
    const terse_tensor *tensors;
    const char *const *names; /* an empty one stands for the model's one input */
    int n;
} terse_cli_arrays;

/* Bytes that one such request takes of the inputs and of the outputs. */
void terse_cli_shared_bytes(const terse_cli_arrays *arrays, size_t *ret_inputs, size_t *ret_outputs);
/* Takes places, copies the arrays there and names them in the request; outputs whose sizes the signature does not tell
 * are asked for as ever. */
terse_status terse_cli_place(terse_request *request, const terse_cli_arrays *arrays, terse_client_arena *arena);

#endif
