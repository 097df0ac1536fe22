/* SPDX-License-Identifier: Apache-2.0 */
/* intake.h: the body of an infer request becomes a request of libterse and a wish for the form of the answer.
 * Runs in: terse-gateway. Ownership: the request is the caller's.
 *
 * The body is JSON (the Open Inference Protocol), behind which the bytes of binary tensors may follow (Triton's binary
 * tensor data extension). Nothing is allocated on its word: data is counted against what has come. */
#ifndef TERSE_GATEWAY_INTAKE_H
#define TERSE_GATEWAY_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/gateway/scan.h"
#include "client/gateway/share.h"
#include "client/terse.h"

enum { TERSE_WISH_OUTPUTS = 64, TERSE_WISH_CLASSES = 1024 };

/* How the answer is to look. */
typedef struct terse_wish {
    bool has_id;
    terse_scan_text id;
    bool binary; /* outputs of which nothing else is said */
    int n_outputs;
    struct {
        bool said, binary;         /* said: by the output itself; else `binary` of the request holds */
        uint16_t classes;          /* so many best classes as texts, instead of the numbers; 0: the numbers */
    } outputs[TERSE_WISH_OUTPUTS]; /* in the order asked; none: all that the model has */
} terse_wish;

typedef struct terse_intake {
    const char *model, *version; /* "" for any */
    const char *body;
    size_t size;
    bool has_header; /* the JSON has header_size bytes, binary tensors follow */
    size_t header_size;
    terse_loan *loan; /* takes the tensors that may be shared with the daemon; NULL: none may */
} terse_intake;

terse_status terse_intake_read(const terse_intake *intake, terse_request **ret_request, terse_wish *ret_wish,
                               terse_error *error);

#endif
