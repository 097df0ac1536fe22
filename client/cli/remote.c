/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

int terse_cli_fail_client(const char *name)
{
    fflush(stdout);
    fprintf(stderr, "terse %s: %s\n", name, terse_last_error());
    return TERSE_CLI_FAILED;
}

terse_client *terse_cli_connect(const char *name, const char *endpoint, uint64_t connect_ms)
{
    return terse_cli_connect_as(name, endpoint, connect_ms, 0, 0);
}

terse_client *terse_cli_connect_as(const char *name, const char *endpoint, uint64_t connect_ms, uint64_t spin_us,
                                   uint64_t retries)
{
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    options.endpoint = endpoint;
    options.connect_timeout_ms = (uint32_t)connect_ms;
    options.max_outstanding = 1 << 16;
    options.spin_us = (uint32_t)spin_us;
    options.max_retries = (uint32_t)retries;
    options.retry_budget_ms = 3600 * 1000;
    terse_client *client = NULL;
    if (terse_client_open(&options, &client) != TERSE_OK)
        terse_cli_fail_client(name);
    return client;
}

static uint64_t next_random(uint64_t *state) /* SplitMix64: Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void terse_cli_fill_random(terse_tensor *tensor, uint64_t *state)
{
    const int64_t n = terse_tensor_count(tensor);
    const size_t size = terse_dtype_size(tensor->dtype);
    memset(tensor->data, 0, (size_t)n * size);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t bits = next_random(state);
        if (tensor->dtype == TERSE_FP32)
            ((float *)tensor->data)[i] = (float)(int64_t)(bits >> 40) / (float)(1 << 23) - 1.0f;
        else
            ((uint8_t *)tensor->data)[(size_t)i * size] = bits & 1; /* little endian */
    }
}

int terse_cli_dim_of(const terse_cli_texts *dims, const char *symbol, int64_t fallback, int64_t *ret_size,
                     terse_error *error)
{
    int64_t size = fallback;
    for (int k = 0; k < dims->n; k++) {
        const char *text = dims->texts[k], *equals = strchr(text, '=');
        char *end = NULL;
        const long long given = equals ? strtoll(equals + 1, &end, 10) : -1;
        if (!equals || end == equals + 1 || *end || given < 0)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "--dim %s: NAME=SIZE is wanted, SIZE at least 0", text);
        if (strlen(symbol) == (size_t)(equals - text) && memcmp(symbol, text, strlen(symbol)) == 0)
            size = given;
    }
    *ret_size = size;
    return TERSE_OK;
}

int terse_cli_random_inputs(const terse_signature *signature, uint64_t rows, const terse_cli_texts *dims, uint64_t seed,
                            terse_tensor *ret_inputs, terse_error *error)
{
    for (int i = 0; i < terse_signature_count(signature, 0); i++) {
        const int64_t *shape = NULL;
        int64_t sizes[TERSE_MAX_RANK];
        const int rank = terse_signature_shape(signature, 0, i, &shape);
        for (int d = 0; d < rank; d++) {
            sizes[d] = shape[d];
            const char *symbol = terse_signature_symbol(signature, 0, i, d);
            const int status =
                symbol ? terse_cli_dim_of(dims, symbol, d == 0 ? (int64_t)rows : 1, &sizes[d], error) : TERSE_OK;
            if (status)
                return status;
        }
        const terse_dtype dtype = terse_signature_dtype(signature, 0, i);
        const int64_t count = terse_dims_count(sizes, rank);
        if (count < 0 || count > TERSE_MAX_TENSOR_BYTES / 8)
            return terse_fail(error, TERSE_INVALID_ARGUMENT, "input '%s' would be too large",
                              terse_signature_name(signature, 0, i));
        ret_inputs[i] = terse_tensor_view(
            aligned_alloc(64, terse_align((size_t)count * terse_dtype_size(dtype) + 1, 64)), dtype, rank, sizes);
        if (!ret_inputs[i].data)
            return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for input '%s'",
                              terse_signature_name(signature, 0, i));
        terse_cli_fill_random(&ret_inputs[i], &seed);
    }
    return TERSE_OK;
}
