/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_view.c: what a daemon tells of itself, from whoever answers at its endpoint. What is read can be shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/view/view.h"
#include "tests/fuzz/replay.h"

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_view: %s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    terse_error error = {0};
    terse_view *view = NULL;
    char *text = NULL;
    size_t bytes = 0;
    const int status = terse_view_read(data, size, &view, &error);
    if (status) {
        require(status == (int)error.status && error.message[0] && !view, "a failure says why");
        return 0;
    }
    require(view->n_models <= TERSE_VIEW_MODELS && view->n_workers <= TERSE_VIEW_WORKERS, "limits");
    for (unsigned i = 0; i < view->n_models; i++) {
        terse_view_interval in;
        terse_view_between(view, view, &view->models[i], &in);
        require(in.total_us.count == 0, "nothing is between a look and itself");
        terse_view_between(view, NULL, &view->models[i], &in);
        require(in.p50_us <= in.p99_us && in.p99_us <= (double)(UINT64_C(1) << 40), "percentiles");
    }
    require(!terse_view_openmetrics(view, &text, &bytes, &error), error.message);
    require(bytes > 6 && strcmp(text + bytes - 6, "# EOF\n") == 0, "the text has its end");
    free(text);
    terse_view_free(view);
    return 0;
}
