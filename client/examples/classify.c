/* SPDX-License-Identifier: Apache-2.0 */
/* classify: sends numbers to a model and prints the classes it finds most likely.
 *
 *     classify MODEL [ENDPOINT] < numbers
 *
 * The numbers (separated by white space) fill the model's first input; whole rows of it, one to its max_batch.
 * cc classify.c -o classify $(pkg-config --cflags --libs libterse) */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <terse.h>

static int fail(const char *what)
{
    fprintf(stderr, "classify: %s: %s\n", what, terse_last_error());
    return 1;
}

/* The numbers on the standard input; *ret_n is how many there are. */
static float *read_numbers(size_t *ret_n)
{
    float *numbers = NULL;
    size_t n = 0, capacity = 0;
    for (float number; scanf("%f", &number) == 1; numbers[n++] = number)
        if (n == capacity &&
            !(numbers = realloc(numbers, (capacity = capacity ? capacity * 2 : 1024) * sizeof *numbers)))
            exit(1);
    *ret_n = n;
    return numbers;
}

static void print_best(const float *row, int64_t classes, int64_t number, const uint64_t us[2])
{
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (row[c] > row[best])
            best = c;
    printf("row %" PRId64 ": class %" PRId64 " (score %.2f); queue %" PRIu64 " us, compute %" PRIu64 " us\n", number,
           best, (double)row[best], us[0], us[1]);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return fprintf(stderr, "usage: classify MODEL [ENDPOINT] < numbers\n"), 2;
    terse_client_options options = TERSE_CLIENT_OPTIONS_INIT;
    options.endpoint = argc > 2 ? argv[2] : NULL; /* NULL: the daemon of this host */
    terse_client *client;
    if (terse_client_open(&options, &client) != TERSE_OK)
        return fail("connect");
    terse_signature *signature;
    if (terse_client_metadata(client, argv[1], 5000, &signature) != TERSE_OK)
        return fail("metadata");

    /* The shape of the first input, with as many rows as there are numbers for. */
    const int64_t *wanted;
    int64_t dims[8], row = 1;
    const int rank = terse_signature_shape(signature, 0, 0, &wanted);
    for (int i = 1; i < rank; i++)
        row *= dims[i] = wanted[i] < 0 ? 1 : wanted[i];
    size_t n;
    float *numbers = read_numbers(&n);
    if (n == 0 || row == 0 || (int64_t)n % row)
        return fprintf(stderr, "classify: found %zu numbers, a row has %" PRId64 "\n", n, row), 1;
    dims[0] = (int64_t)n / row;

    terse_request *request = terse_request_new(argv[1]);
    if (!request ||
        terse_request_add_input(request, terse_signature_name(signature, 0, 0), TERSE_FP32, rank, dims, numbers))
        return fail("request");
    terse_request_set_timeout(request, 2 * 1000 * 1000);
    terse_reply *reply;
    if (terse_client_infer(client, request, &reply) != TERSE_OK)
        return fail("infer");
    const int64_t *shape;
    uint64_t us[2];
    terse_reply_timing(reply, &us[0], &us[1], NULL);
    if (terse_reply_shape(reply, 0, &shape) == 2)
        for (int64_t i = 0; i < shape[0]; i++)
            print_best((const float *)terse_reply_data(reply, 0, NULL) + i * shape[1], shape[1], i, us);

    terse_reply_free(reply);
    terse_request_free(request);
    terse_signature_free(signature);
    terse_client_close(client);
    free(numbers);
    return 0;
}
