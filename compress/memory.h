/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h: what a run of `terse compress` needs, told before the work, and what becomes of it under --mem.
 * Runs in: terse-compress (and the tests). Ownership: borrows what it is given.
 *
 * Design notes. The need is that of the hungriest step, made of what the steps hold: weights in several forms, samples
 * (read twice over), numbers of many samples at one layer, second moments of the widest layer and of all. Under a bound
 * that is less, numbers and moments wait in files (spill.h), which changes no bit of the result; weights, samples and
 * the moments of the widest layer stay, and where those alone are too much nothing is begun. */
#ifndef TERSE_COMPRESS_MEMORY_H
#define TERSE_COMPRESS_MEMORY_H

#include "common/npz.h"
#include "compress/options.h"

typedef struct terse_memory {
    uint64_t weights, samples, numbers, moments; /* bytes at once, in the hungriest step; the program is in `weights` */
    uint64_t need;                               /* their sum */
    uint64_t least;                              /* the same where numbers and moments wait in files */
} terse_memory;

/* What the network and its samples are to the estimate. */
typedef struct terse_memory_of {
    uint64_t file;            /* bytes of the ONNX file */
    uint64_t matrices, other; /* of the weights of Gemm and MatMul; of all other constants */
    uint64_t samples, sample; /* of all samples; of one */
    int64_t n_samples;        /* 0: no samples */
    uint64_t macs;            /* of one sample */
    uint64_t live, all;       /* numbers of one sample: at most held at once; of all layers */
    uint64_t widest, squares; /* second moments, FP64, of the widest layer that has them; of all layers */
    uint64_t widest_weights;  /* of the layer that has the largest weights, FP64 */
    int64_t text_rows;        /* texts that a writer has at a time (texts.h); 0: no language model */
} terse_memory_of;

/* data: NULL without samples. One sample is computed. */
int terse_memory_look(const terse_graph *graph, uint64_t file_bytes, const terse_npz *data, terse_memory_of *ret_of,
                      terse_error *error);
terse_memory terse_memory_estimate(const terse_memory_of *of, const terse_options *options);
/* "about 1.3 GiB of memory: weights 0.2, samples 0.4, numbers of layers 0.5, second moments 0.2" */
enum { TERSE_MEMORY_TEXT = 256 };
const char *terse_memory_text(const terse_memory *memory, char text[TERSE_MEMORY_TEXT]);

/* Bytes from "2G", "500M", "800000k"; K, M, G are powers of 1024. 0: none of that. */
uint64_t terse_memory_parse(const char *text);
/* What this process may still take: the machine's free memory, or what its control groups leave. UINT64_MAX: not known.
 * `root`: "" but for tests. */
uint64_t terse_memory_free(const char *root);

#endif
