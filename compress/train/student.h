/* SPDX-License-Identifier: Apache-2.0 */
/* student.h: a smaller network of the same kind, with fresh weights: what a teacher's knowledge is distilled into when
 * no student is given.
 * Runs in: terse-compress (and the tests). Ownership: the student owns its weights; bytes of constants that stay are
 * the teacher's, which must outlive it. */
#ifndef TERSE_TRAIN_STUDENT_H
#define TERSE_TRAIN_STUDENT_H

#include "common/graph/graph.h"

typedef struct terse_student_summary {
    int n_layers, n_narrowed;                  /* products with constant weights; those with fewer outputs */
    int64_t parameters_before, parameters_now; /* numbers in them */
} terse_student_summary;

/* Widths (output channels of Conv, Gemm, MatMul by a constant) times `width` (0 < width <= 1), rounded to a multiple of
 * 4 (of 1 below 8). What reaches an output, or an operator whose channels cannot be followed (attention's heads,
 * Split), keeps its width. Weights: normal with variance 2 / inputs (He et al., arXiv:1502.01852, equation 10), the
 * same for the same seed. `teacher` is as imported: canonical ONNX form, nothing fused. */
int terse_student_derive(const terse_graph *teacher, double width, uint64_t seed, terse_graph **ret_student,
                         terse_student_summary *ret_summary, terse_error *error);

#endif
