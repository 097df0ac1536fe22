/* SPDX-License-Identifier: Apache-2.0 */
/* gather.h: what the operators that read indices share: GatherND and ScatterND.
 * Runs in: terse-worker, terse run, terse-compress. Owns nothing. */
#ifndef TERSE_OPS_GATHER_H
#define TERSE_OPS_GATHER_H

#include "common/ops/op.h"

/* Checks the first `count` elements of indices; element i must be within -size..size-1 of sizes[i % n_sizes]. Fails
 * naming the element, the index found and those allowed. */
int terse_gather_check(const terse_tensor *indices, int64_t count, const int64_t *sizes, int64_t n_sizes,
                       terse_error *error);

/* Tuple `t` of indices, `depth` checked numbers, as one index into axes of these sizes. */
static inline int64_t terse_gather_offset(const terse_tensor *indices, int64_t t, const int64_t *sizes, int depth)
{
    int64_t offset = 0;
    for (int d = 0; d < depth; d++) {
        const int64_t index = terse_op_index(indices, t * depth + d);
        offset = offset * sizes[d] + (index < 0 ? index + sizes[d] : index);
    }
    return offset;
}

#endif
