/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/outcome.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/gateway/values.h"

enum { MAX_CLASSES = 1 << 20 }; /* values of an output of which classes are wanted: sorting takes long */

/* How one output goes out. */
typedef struct form {
    bool binary;
    unsigned classes;
    size_t rows, columns; /* with classes: where they are looked for */
    terse_text texts;     /* with classes: what the texts are, as JSON or binary */
} form;

static form form_of(const terse_wish *wish, int index)
{
    if (wish->n_outputs == 0)
        return (form){.binary = wish->binary};
    if (index >= wish->n_outputs) /* the daemon gives what was asked for */
        return (form){0};
    return (form){.binary = wish->outputs[index].binary, .classes = wish->outputs[index].classes};
}

bool terse_outcome_is_binary(const terse_wish *wish, int index)
{
    const form f = form_of(wish, index);
    return f.binary && !f.classes;
}

/* --- classes ---------------------------------------------------------------------------------------------- */

typedef struct candidate {
    double value;
    size_t index;
} candidate;

/* The largest first, NaN last; among equals the first. */
static int compare(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    const bool x_none = isnan(x->value), y_none = isnan(y->value);
    if (x_none != y_none)
        return x_none - y_none;
    if (!x_none && x->value != y->value)
        return x->value < y->value ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void put_class(form *f, bool first, double value, size_t index)
{
    char word[400];
    const int n = snprintf(word, sizeof word, "%f:%zu", value, index);
    const uint32_t length = (uint32_t)n;
    if (f->binary) {
        terse_text_put(&f->texts, &length, sizeof length);
        terse_text_put(&f->texts, word, length);
    } else {
        terse_text_format(&f->texts, "%s\"%s\"", first ? "" : ",", word);
    }
}

/* The best classes of each row (axis 0, unless it is the only one) as texts "VALUE:INDEX". */
static terse_status classify(const terse_reply *reply, int index, form *f, terse_error *error)
{
    const int64_t *dims = NULL;
    size_t bytes = 0;
    const terse_dtype dtype = terse_reply_dtype(reply, index);
    const int rank = terse_reply_shape(reply, index, &dims);
    const void *data = terse_reply_data(reply, index, &bytes);
    const size_t count = bytes / terse_dtype_size(dtype);
    f->rows = rank > 1 ? (size_t)dims[0] : 1;
    f->columns = f->rows ? count / f->rows : 0;
    if (count > MAX_CLASSES)
        return (terse_status)terse_fail(error, TERSE_INVALID_ARGUMENT,
                                        "output '%.200s': no classes of %zu values of %s can be given, %d are the most",
                                        terse_reply_name(reply, index), count, terse_dtype_name(dtype), MAX_CLASSES);
    if (f->classes > f->columns)
        f->classes = (unsigned)f->columns;
    candidate *all = malloc(f->columns * sizeof *all + 1);
    if (!all)
        return (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for the classes");
    for (size_t row = 0; row < f->rows; row++) {
        for (size_t i = 0; i < f->columns; i++)
            all[i] = (candidate){terse_values_at(dtype, data, row * f->columns + i), i};
        qsort(all, f->columns, sizeof *all, compare);
        for (unsigned k = 0; k < f->classes; k++)
            put_class(f, row == 0 && k == 0, all[k].value, all[k].index);
    }
    free(all);
    return TERSE_OK;
}

/* --- the answer ------------------------------------------------------------------------------------------- */

static void put_shape(const terse_reply *reply, int index, const form *f, terse_text *body)
{
    const int64_t *dims = NULL;
    const int rank = terse_reply_shape(reply, index, &dims);
    terse_text_cstr(body, ",\"shape\":[");
    if (f->classes && rank > 1)
        terse_text_format(body, "%zu,%u", f->rows, f->classes);
    else if (f->classes)
        terse_text_format(body, "%u", f->classes);
    else
        for (int d = 0; d < rank; d++)
            terse_text_format(body, "%s%" PRId64, d ? "," : "", dims[d]);
    terse_text_cstr(body, "]");
}

static terse_status put_output(const terse_reply *reply, int index, form *f, terse_text *body, terse_error *error)
{
    size_t bytes = 0;
    const terse_dtype dtype = terse_reply_dtype(reply, index);
    const void *data = terse_reply_data(reply, index, &bytes);
    const terse_status status = f->classes ? classify(reply, index, f, error) : TERSE_OK;
    if (status)
        return status;
    terse_text_cstr(body, index ? ",{\"name\":" : "{\"name\":");
    terse_text_json(body, terse_reply_name(reply, index));
    terse_text_format(body, ",\"datatype\":\"%s\"", f->classes ? "BYTES" : terse_dtype_name(dtype));
    put_shape(reply, index, f, body);
    if (f->binary) {
        terse_text_format(body, ",\"parameters\":{\"binary_data_size\":%zu}", f->classes ? f->texts.size : bytes);
    } else {
        terse_text_cstr(body, ",\"data\":");
        if (f->classes) {
            terse_text_cstr(body, "[");
            terse_text_put(body, f->texts.data, f->texts.size);
            terse_text_cstr(body, "]");
        } else {
            terse_values_write(body, dtype, data, bytes / terse_dtype_size(dtype));
        }
    }
    terse_text_cstr(body, "}");
    return TERSE_OK;
}

static void put_head(const terse_reply *reply, const char *model, const terse_wish *wish, terse_text *body)
{
    terse_text_cstr(body, "{");
    if (wish->has_id) {
        terse_text_cstr(body, "\"id\":");
        terse_text_json(body, wish->id.data);
        terse_text_cstr(body, ",");
    }
    terse_text_cstr(body, "\"model_name\":");
    terse_text_json(body, model);
    terse_text_cstr(body, ",\"model_version\":");
    terse_text_json(body, terse_reply_version(reply));
    terse_text_cstr(body, ",\"outputs\":[");
}

terse_status terse_outcome_write(const terse_reply *reply, const char *model, const terse_wish *wish, terse_text *body,
                                 size_t *ret_header_size, terse_error *error)
{
    const int n = terse_reply_n_outputs(reply);
    form forms[TERSE_WISH_OUTPUTS] = {0};
    bool any_binary = false;
    terse_status status = TERSE_OK;
    put_head(reply, model, wish, body);
    for (int i = 0; i < n && !status; i++) {
        forms[i] = form_of(wish, i);
        any_binary |= forms[i].binary;
        status = put_output(reply, i, &forms[i], body, error);
    }
    terse_text_cstr(body, "]}");
    const size_t json = body->size;
    for (int i = 0; i < n && !status; i++) {
        size_t bytes = 0;
        const void *data = terse_reply_data(reply, i, &bytes);
        if (forms[i].binary && forms[i].classes)
            terse_text_put(body, forms[i].texts.data, forms[i].texts.size);
        else if (forms[i].binary)
            terse_text_put(body, data, bytes);
    }
    for (int i = 0; i < n; i++) {
        body->broken |= forms[i].texts.broken;
        terse_text_free(&forms[i].texts);
    }
    if (!status && body->broken)
        status = (terse_status)terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for an answer");
    if (!status)
        *ret_header_size = any_binary ? json : 0;
    return status;
}
