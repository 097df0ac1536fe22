/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/onnx/internal.h"

#include <stdlib.h>

/* A field of two bytes in the file can become a struct of a few hundred, so what protobuf-c may hold at once and ask
 * for in all is tied to the file's size: real files stay below 3 and 5 times. The second limit also bounds the time
 * that merging a message given in thousands of pieces can take. */
enum { FREE_BYTES = 1 << 20, MAX_LIVE_FACTOR = 16, MAX_TOTAL_FACTOR = 64 };

/* In front of every block, keeping its alignment. */
typedef union head {
    size_t size;
    max_align_t align;
} head;

static void *grant(void *context, size_t size)
{
    terse_onnx_parsed *parsed = context;
    if (size > parsed->max_live - parsed->live || size + sizeof(head) > parsed->max_total - parsed->total) {
        parsed->exhausted = true;
        return NULL;
    }
    head *block = malloc(sizeof *block + size);
    if (!block) {
        parsed->exhausted = true;
        return NULL;
    }
    block->size = size;
    parsed->live += size;
    parsed->total += size + sizeof *block;
    return block + 1;
}

static void take_back(void *context, void *pointer)
{
    if (!pointer)
        return;
    terse_onnx_parsed *parsed = context;
    head *block = (head *)pointer - 1;
    parsed->live -= block->size;
    free(block);
}

int terse_onnx_parse(const void *bytes, size_t size, terse_onnx_parsed *parsed, terse_error *error)
{
    *parsed = (terse_onnx_parsed){0};
    if (size == 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the file is empty");
    if (size > (size_t)TERSE_MAX_TENSOR_BYTES)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "the file has %zu bytes, at most %lld are allowed", size,
                          (long long)TERSE_MAX_TENSOR_BYTES);
    parsed->allocator = (ProtobufCAllocator){.alloc = grant, .free = take_back, .allocator_data = parsed};
    parsed->max_live = FREE_BYTES + (uint64_t)size * MAX_LIVE_FACTOR;
    parsed->max_total = FREE_BYTES + (uint64_t)size * MAX_TOTAL_FACTOR;
    parsed->model = onnx__model__unpack(&parsed->allocator, size, bytes);
    if (parsed->model)
        return TERSE_OK;
    if (parsed->exhausted)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "parsing needs more memory than %zu bytes of ONNX justify (%llu bytes)", size,
                          (unsigned long long)parsed->max_live);
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "%zu bytes that are not a whole ONNX model (protobuf does not parse)", size);
}

void terse_onnx_parsed_done(terse_onnx_parsed *parsed)
{
    if (parsed->model)
        onnx__model__free_unpacked(parsed->model, &parsed->allocator);
    parsed->model = NULL;
}
