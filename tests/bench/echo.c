/* SPDX-License-Identifier: Apache-2.0 */
/* echo: what libzmq alone can do on this machine, with the very client and header that tersed is measured with.
 *
 *     echo serve  ENDPOINT                                     a ROUTER that sends every message back as it came
 *     echo hops SECONDS                                        two socketpair round trips, one inside the other,
 * between three processes: what four wake-ups cost here echo client ENDPOINT MODEL INPUT FLOATS OUTSTANDING SECONDS   a
 * bare DEALER; prints one line of JSON
 *
 * The client's header is an ordinary infer request of [1, FLOATS] FP32 zeros whose id, packed at a fixed width, is
 * changed in place for every message. It looks for the id in the answer by its place after the key, in both kinds of
 * answer. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <msgpack.h>
#include <zmq.h>

#include "common/bytes.h"

enum { MAX_OUTSTANDING = 4096, MAX_SAMPLES = 8 << 20 };

static void die(const char *what)
{
    fprintf(stderr, "echo: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

static void serve(const char *endpoint)
{
    void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
    const int zero = 0;
    zmq_setsockopt(router, ZMQ_SNDHWM, &zero, sizeof zero);
    zmq_setsockopt(router, ZMQ_RCVHWM, &zero, sizeof zero);
    if (zmq_bind(router, endpoint) < 0)
        die(endpoint);
    puts("serving");
    fflush(stdout);
    for (;;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, router, 0) < 0)
            die("receive");
        zmq_msg_send(&part, router, zmq_msg_more(&part) ? ZMQ_SNDMORE : 0);
    }
}

static void put_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str(packer, strlen(text));
    msgpack_pack_str_body(packer, text, strlen(text));
}

/* Packs the header; the returned offset is where the id's 8 big-endian bytes stand. */
static size_t pack_header(msgpack_sbuffer *header, const char *model, const char *input, int floats)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, header, msgpack_sbuffer_write);
    msgpack_pack_map(&packer, 5);
    put_text(&packer, "v");
    msgpack_pack_int(&packer, 1);
    put_text(&packer, "id");
    msgpack_pack_fix_uint64(&packer, 0);
    const size_t at = header->size - 8;
    put_text(&packer, "op");
    put_text(&packer, "infer");
    put_text(&packer, "model");
    put_text(&packer, model);
    put_text(&packer, "inputs");
    msgpack_pack_array(&packer, 1);
    msgpack_pack_map(&packer, 4);
    put_text(&packer, "name");
    put_text(&packer, input);
    put_text(&packer, "dtype");
    put_text(&packer, "FP32");
    put_text(&packer, "shape");
    msgpack_pack_array(&packer, 2);
    msgpack_pack_int(&packer, 1);
    msgpack_pack_int(&packer, floats);
    put_text(&packer, "frame");
    msgpack_pack_int(&packer, 1);
    return at;
}

/* The number behind the key "id", in any of msgpack's widths. */
static uint64_t id_of(const uint8_t *bytes, size_t size)
{
    const uint8_t *key = memmem(bytes, size, "\xa2id", 3);
    if (!key || key + 12 > bytes + size) {
        fprintf(stderr, "echo: an answer has no id\n");
        exit(1);
    }
    key += 3;
    const int width = *key < 0x80 ? 0 : *key == 0xcc ? 1 : *key == 0xcd ? 2 : *key == 0xce ? 4 : 8;
    uint64_t id = width ? 0 : *key;
    for (int i = 1; i <= width; i++)
        id = id << 8 | key[i];
    return id;
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sends back whatever comes in at `from`, after asking at `to` (-1: at once). */
static void relay(int from, int to)
{
    uint64_t word;
    while (read(from, &word, sizeof word) == (ssize_t)sizeof word) {
        if (to >= 0 && (write(to, &word, sizeof word) < 0 || read(to, &word, sizeof word) <= 0))
            break;
        if (write(from, &word, sizeof word) < 0)
            break;
    }
    _exit(0);
}

static void hops(double seconds)
{
    int near[2], far[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, near) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, far) < 0)
        die("socketpair");
    if (fork() == 0) {
        close(near[0]);
        close(far[1]);
        relay(near[1], far[0]);
    }
    if (fork() == 0) {
        close(near[0]);
        close(near[1]);
        close(far[0]);
        relay(far[1], -1);
    }
    close(near[1]);
    close(far[0]);
    close(far[1]);
    uint64_t *samples = malloc(MAX_SAMPLES * sizeof *samples), n = 0, word = 0;
    const uint64_t start = terse_now_ns(), from = start + 300000000u, end = from + (uint64_t)(seconds * 1e9);
    for (uint64_t now = start; samples && now < end && n < MAX_SAMPLES;) {
        const uint64_t sent = now;
        if (write(near[0], &word, sizeof word) < 0 || read(near[0], &word, sizeof word) <= 0)
            die("socketpair");
        now = terse_now_ns();
        if (sent >= from)
            samples[n++] = now - sent;
    }
    if (n == 0)
        die("hops");
    qsort(samples, n, sizeof *samples, compare);
    printf("{\"p50_us\": %.1f, \"p99_us\": %.1f}\n", (double)samples[n / 2] / 1e3, (double)samples[n * 99 / 100] / 1e3);
}

static void client(char **argv)
{
    const char *endpoint = argv[0], *model = argv[1], *input = argv[2];
    const int floats = atoi(argv[3]), outstanding = atoi(argv[4]);
    const double seconds = atof(argv[5]);
    void *context = zmq_ctx_new(), *dealer = zmq_socket(context, ZMQ_DEALER);
    const int zero = 0;
    zmq_setsockopt(dealer, ZMQ_SNDHWM, &zero, sizeof zero);
    zmq_setsockopt(dealer, ZMQ_RCVHWM, &zero, sizeof zero);
    zmq_setsockopt(dealer, ZMQ_LINGER, &zero, sizeof zero);
    if (outstanding < 1 || outstanding > MAX_OUTSTANDING || floats < 1 || zmq_connect(dealer, endpoint) < 0)
        die(endpoint);
    msgpack_sbuffer header = {0};
    const size_t id_at = pack_header(&header, model, input, floats);
    float *zeros = calloc((size_t)floats, sizeof *zeros);
    static uint64_t sent_ns[MAX_OUTSTANDING];
    uint64_t *samples = malloc(MAX_SAMPLES * sizeof *samples), n = 0, sent = 0, answered = 0;
    const uint64_t start = terse_now_ns(), from = start + 300000000u, end = from + (uint64_t)(seconds * 1e9);
    bool ok = true;
    for (uint64_t now = start; now < end || answered < sent;) {
        for (; now < end && sent - answered < (uint64_t)outstanding; sent++) {
            for (int i = 0; i < 8; i++)
                header.data[id_at + (size_t)i] = (char)(sent >> 8 * (7 - i));
            sent_ns[sent % MAX_OUTSTANDING] = now = terse_now_ns();
            zmq_send(dealer, header.data, header.size, ZMQ_SNDMORE);
            zmq_send(dealer, zeros, (size_t)floats * sizeof *zeros, 0);
        }
        if (answered == sent)
            break;
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, dealer, 0) < 0)
            die("receive");
        const uint64_t id = id_of(zmq_msg_data(&part), zmq_msg_size(&part));
        ok = ok && (zmq_msg_more(&part) || memmem(zmq_msg_data(&part), zmq_msg_size(&part), "OK", 2));
        while (zmq_msg_more(&part))
            zmq_msg_recv(&part, dealer, 0);
        zmq_msg_close(&part);
        now = terse_now_ns();
        answered++;
        if (sent_ns[id % MAX_OUTSTANDING] >= from && now < end && n < MAX_SAMPLES)
            samples[n++] = now - sent_ns[id % MAX_OUTSTANDING];
    }
    if (n == 0 || !ok) {
        fprintf(stderr, "echo: %s\n", n ? "an answer was an error" : "no answers");
        exit(1);
    }
    qsort(samples, n, sizeof *samples, compare);
    printf("{\"rate\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", (double)n / seconds, (double)samples[n / 2] / 1e3,
           (double)samples[n * 99 / 100] / 1e3);
    zmq_close(dealer);
    zmq_ctx_term(context);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        serve(argv[2]);
    else if (argc == 3 && strcmp(argv[1], "hops") == 0)
        hops(atof(argv[2]));
    else if (argc == 8 && strcmp(argv[1], "client") == 0)
        client(argv + 2);
    else
        return fprintf(stderr, "usage: echo serve ENDPOINT | hops SECONDS | client ENDPOINT MODEL INPUT FLOATS "
                               "OUTSTANDING SECONDS\n"),
               2;
    return 0;
}
