/* SPDX-License-Identifier: Apache-2.0 */
#include "client/gateway/intake.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/gateway/values.h"
#include "common/bytes.h"

enum { MAX_INPUTS = 64, UNKNOWN = -1, LEAST_PRIORITY = 10 };

static const char an_object_of_parameters[] = "an object of parameters";

typedef struct reading reading;

/* One input as its object is read, whose members may come in any order. */
typedef struct input {
    reading *r;
    terse_scan_text name;
    terse_tensor tensor; /* dtype NONE, rank UNKNOWN until they are read; data: what was decoded */
    void *decoded;       /* what `data` points to when it came as JSON: ours to free */
    const char *text;    /* where the member "data" begins; NULL: there is none */
    int64_t binary_bytes;
    bool has_name;
} input;

/* One of the outputs that are asked for. */
typedef struct output {
    reading *r;
    terse_scan_text name;
    int at; /* in the wish */
} output;

struct reading {
    terse_scan scan;
    const char *binary, *end; /* what is left behind the JSON */
    bool has_header;
    terse_request *request;
    terse_wish *wish;
    terse_loan *loan;
    char *names[MAX_INPUTS]; /* of the inputs so far */
    int n_inputs;
    bool has_inputs, has_outputs;
    terse_error *error;
};

static bool refuse(reading *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(reading *r, const char *format, ...)
{
    char text[sizeof r->error->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    terse_fail(r->error, TERSE_INVALID_ARGUMENT, "%s", text);
    return false;
}

static bool out_of_memory(reading *r)
{
    terse_fail(r->error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a request");
    return false;
}

static bool libterse_refuses(reading *r, terse_status status)
{
    if (status)
        terse_fail(r->error, status, "%s", terse_last_error());
    return status == TERSE_OK;
}

/* --- inputs ----------------------------------------------------------------------------------------------- */

static bool read_dtype(reading *r, input *in)
{
    terse_scan_text text;
    if (!terse_scan_string(&r->scan, "the name of a datatype", &text))
        return false;
    in->tensor.dtype = terse_dtype_from_name(text.data, text.length);
    if (in->tensor.dtype)
        return true;
    return terse_scan_is(&text, "BYTES")
               ? refuse(r, "datatype BYTES is not taken: models served here take numbers")
               : refuse(r,
                        "datatype '%.40s' is not known; BOOL, INT8 to INT64, UINT8 to UINT64, FP16, BF16, FP32 and "
                        "FP64 are",
                        text.data);
}

static bool read_size(void *user, const terse_scan_text *name)
{
    input *in = user;
    (void)name;
    if (in->tensor.rank == TERSE_MAX_RANK)
        return refuse(in->r, "a shape has at most %d sizes", TERSE_MAX_RANK);
    return terse_scan_int(&in->r->scan, "a size", 0, TERSE_MAX_TENSOR_BYTES, &in->tensor.dims[in->tensor.rank++]);
}

static bool read_shape(reading *r, input *in)
{
    in->tensor.rank = 0;
    return terse_scan_items(&r->scan, "a shape, an array of sizes,", read_size, in);
}

/* Parameters that nobody here knows are passed over; those that would be missed are refused. */
static bool skip_parameter(reading *r, const terse_scan_text *name)
{
    if (strncmp(name->data, "shared_memory_", 14) == 0)
        return refuse(r, "shared memory is not to be had through the gateway (parameter '%s')", name->data);
    return terse_scan_skip(&r->scan);
}

static bool read_input_parameter(void *user, const terse_scan_text *name)
{
    input *in = user;
    if (!terse_scan_is(name, "binary_data_size"))
        return skip_parameter(in->r, name);
    return terse_scan_int(&in->r->scan, "binary_data_size", 0, TERSE_MAX_TENSOR_BYTES, &in->binary_bytes);
}

/* Numbers out of JSON, once type and shape are known. */
static bool decode(reading *r, input *in)
{
    r->scan.at = in->text;
    if (terse_values_read(&r->scan, &in->tensor, r->error) != TERSE_OK)
        return false;
    in->decoded = in->tensor.data;
    return true;
}

/* A member that came before: what was read by the first must not become another by the second. */
static bool is_there(const input *in, const terse_scan_text *key)
{
    return (in->has_name && terse_scan_is(key, "name")) || (in->tensor.dtype && terse_scan_is(key, "datatype")) ||
           (in->tensor.rank != UNKNOWN && terse_scan_is(key, "shape")) || (in->text && terse_scan_is(key, "data"));
}

static bool read_input_member(void *user, const terse_scan_text *key)
{
    input *in = user;
    reading *r = in->r;
    if (is_there(in, key))
        return refuse(r, "'%s' is there twice", key->data);
    if (terse_scan_is(key, "name")) {
        in->has_name = true;
        return terse_scan_string(&r->scan, "the name of an input", &in->name);
    }
    if (terse_scan_is(key, "datatype"))
        return read_dtype(r, in);
    if (terse_scan_is(key, "shape"))
        return read_shape(r, in);
    if (terse_scan_is(key, "parameters"))
        return terse_scan_members(&r->scan, an_object_of_parameters, read_input_parameter, in);
    if (!terse_scan_is(key, "data"))
        return terse_scan_skip(&r->scan);
    terse_scan_peek(&r->scan);
    in->text = r->scan.at;
    /* Mostly it comes last, and is read once. */
    return in->tensor.dtype && in->tensor.rank != UNKNOWN ? decode(r, in) : terse_scan_skip(&r->scan);
}

static bool take_binary(reading *r, input *in)
{
    char shape[128];
    const int64_t count = terse_dims_count(in->tensor.dims, in->tensor.rank);
    const int64_t bytes = count * (int64_t)terse_dtype_size(in->tensor.dtype);
    if (!r->has_header)
        return refuse(r, "binary_data_size wants the header Inference-Header-Content-Length");
    if (in->text)
        return refuse(r, "'data' and binary_data_size exclude each other");
    if (count < 0 || bytes != in->binary_bytes)
        return refuse(r, "binary_data_size is %" PRId64 ", %s of %s has %" PRId64 " bytes", in->binary_bytes,
                      terse_dtype_name(in->tensor.dtype),
                      terse_dims_text(in->tensor.dims, in->tensor.rank, shape, sizeof shape), bytes);
    if (bytes > r->end - r->binary)
        return refuse(r, "binary_data_size is %" PRId64 ", %zd bytes are left in the body", bytes, r->end - r->binary);
    in->tensor.data = (void *)(uintptr_t)r->binary;
    r->binary += bytes;
    return true;
}

static bool finish_input(reading *r, input *in)
{
    if (!in->tensor.dtype)
        return refuse(r, "'datatype' is missing");
    if (in->tensor.rank == UNKNOWN)
        return refuse(r, "'shape' is missing");
    if (in->binary_bytes != UNKNOWN)
        return take_binary(r, in);
    if (!in->text)
        return refuse(r, "neither 'data' nor the parameter 'binary_data_size' is there");
    if (in->tensor.data)
        return true;
    const char *behind = r->scan.at;
    const bool decoded = decode(r, in);
    r->scan.at = behind;
    return decoded;
}

/* The input in shared memory, its form noted; NULL: it travels as usual. */
static void *lend(terse_loan *loan, const input *in)
{
    const int64_t head[] = {in->tensor.dtype, in->tensor.rank};
    terse_loan_note(loan, "i", 1);
    terse_loan_note(loan, in->name.data, in->name.length + 1);
    terse_loan_note(loan, head, sizeof head);
    terse_loan_note(loan, in->tensor.dims, (size_t)in->tensor.rank * sizeof in->tensor.dims[0]);
    return terse_loan_input(loan, in->tensor.data,
                            (size_t)terse_dims_count(in->tensor.dims, in->tensor.rank) *
                                terse_dtype_size(in->tensor.dtype));
}

static bool add_input(reading *r, input *in)
{
    for (int i = 0; i < r->n_inputs; i++)
        if (strcmp(r->names[i], in->name.data) == 0)
            return refuse(r, "it is there twice");
    if (r->n_inputs == MAX_INPUTS)
        return refuse(r, "a request has at most %d inputs", MAX_INPUTS);
    if (!(r->names[r->n_inputs] = strdup(in->name.data)))
        return out_of_memory(r);
    r->n_inputs++;
    void *place = r->loan ? lend(r->loan, in) : NULL;
    if (place)
        return libterse_refuses(r,
                                terse_request_place_input(r->request, in->name.data, in->tensor.dtype, in->tensor.rank,
                                                          in->tensor.dims, terse_loan_arena(r->loan), place));
    return libterse_refuses(r, terse_request_add_input(r->request, in->name.data, in->tensor.dtype, in->tensor.rank,
                                                       in->tensor.dims, in->tensor.data));
}

static bool read_input(void *user, const terse_scan_text *name)
{
    reading *r = user;
    input in = {.r = r, .tensor.rank = UNKNOWN, .binary_bytes = UNKNOWN};
    (void)name;
    bool whole =
        terse_scan_members(&r->scan, "an object for each input", read_input_member, &in) && finish_input(r, &in);
    if (whole && !in.has_name)
        whole = refuse(r, "'name' is missing");
    if (whole)
        whole = add_input(r, &in);
    free(in.decoded);
    if (!whole && in.has_name)
        terse_error_prefix(r->error, "input '%.200s'", in.name.data);
    else if (!whole)
        terse_error_prefix(r->error, "input %d", r->n_inputs);
    return whole;
}

static bool read_array(reading *r, const char *what, terse_scan_take *read_one, bool *seen)
{
    if (*seen)
        return refuse(r, "'%s' is there twice", what);
    *seen = true;
    return terse_scan_items(&r->scan, "an array", read_one, r);
}

/* --- outputs ---------------------------------------------------------------------------------------------- */

static bool read_output_parameter(void *user, const terse_scan_text *name)
{
    const output *out = user;
    reading *r = out->r;
    int64_t classes = 0;
    if (terse_scan_is(name, "binary_data")) {
        r->wish->outputs[out->at].said = true;
        return terse_scan_bool(&r->scan, "binary_data, true or false,", &r->wish->outputs[out->at].binary);
    }
    if (!terse_scan_is(name, "classification"))
        return skip_parameter(r, name);
    if (!terse_scan_int(&r->scan, "classification", 0, TERSE_WISH_CLASSES, &classes))
        return false;
    r->wish->outputs[out->at].classes = (uint16_t)classes;
    return true;
}

static bool read_output_member(void *user, const terse_scan_text *key)
{
    output *out = user;
    terse_scan *scan = &out->r->scan;
    if (terse_scan_is(key, "name"))
        return terse_scan_string(scan, "the name of an output", &out->name);
    if (terse_scan_is(key, "parameters"))
        return terse_scan_members(scan, an_object_of_parameters, read_output_parameter, out);
    return terse_scan_skip(scan);
}

static bool read_output(void *user, const terse_scan_text *name)
{
    reading *r = user;
    output out = {.r = r, .at = r->wish->n_outputs};
    (void)name;
    if (out.at == TERSE_WISH_OUTPUTS)
        return refuse(r, "at most %d outputs may be asked for", TERSE_WISH_OUTPUTS);
    r->wish->outputs[out.at].said = r->wish->outputs[out.at].binary = false;
    r->wish->outputs[out.at].classes = 0;
    if (!terse_scan_members(&r->scan, "an object for each output", read_output_member, &out))
        return false;
    r->wish->n_outputs++;
    if (r->loan) {
        terse_loan_note(r->loan, "o", 1);
        terse_loan_note(r->loan, out.name.data, out.name.length + 1);
    }
    return libterse_refuses(r, terse_request_add_output(r->request, out.name.data));
}

/* --- the request ------------------------------------------------------------------------------------------ */

static bool read_parameter(void *user, const terse_scan_text *name)
{
    reading *r = user;
    int64_t number = 0;
    if (terse_scan_is(name, "binary_data_output"))
        return terse_scan_bool(&r->scan, "binary_data_output, true or false,", &r->wish->binary);
    if (terse_scan_is(name, "timeout")) {
        if (!terse_scan_int(&r->scan, "timeout in microseconds", 0, INT64_MAX / 8000, &number))
            return false;
        terse_request_set_timeout(r->request, (uint64_t)number);
        return true;
    }
    if (!terse_scan_is(name, "priority"))
        return terse_scan_skip(&r->scan);
    /* Triton's 1 is the most urgent and 0 stands for nothing said; libterse's 9 is the most urgent. */
    if (!terse_scan_int(&r->scan, "priority", 0, INT64_MAX, &number))
        return false;
    terse_request_set_priority(r->request,
                               number == 0 || number > LEAST_PRIORITY ? 0 : LEAST_PRIORITY - (unsigned)number);
    return true;
}

static bool read_request_member(void *user, const terse_scan_text *key)
{
    reading *r = user;
    if (terse_scan_is(key, "inputs"))
        return read_array(r, "inputs", read_input, &r->has_inputs);
    if (terse_scan_is(key, "outputs"))
        return read_array(r, "outputs", read_output, &r->has_outputs);
    if (terse_scan_is(key, "parameters"))
        return terse_scan_members(&r->scan, an_object_of_parameters, read_parameter, r);
    if (!terse_scan_is(key, "id"))
        return terse_scan_skip(&r->scan);
    r->wish->has_id = true;
    return terse_scan_string(&r->scan, "an id, a text,", &r->wish->id);
}

static bool read_request(reading *r)
{
    if (!terse_scan_members(&r->scan, "an object", read_request_member, r) || !terse_scan_done(&r->scan))
        return false;
    if (!r->has_inputs)
        return refuse(r, "'inputs' is missing");
    if (r->binary != r->end)
        return refuse(r, "%zd bytes follow the tensors that the JSON tells of", r->end - r->binary);
    for (int i = 0; i < r->wish->n_outputs; i++)
        if (!r->wish->outputs[i].said)
            r->wish->outputs[i].binary = r->wish->binary;
    return true;
}

static bool begin(reading *r, const terse_intake *intake)
{
    if (intake->has_header && intake->header_size > intake->size)
        return refuse(r, "Inference-Header-Content-Length is %zu, the body has %zu bytes", intake->header_size,
                      intake->size);
    const size_t json = intake->has_header ? intake->header_size : intake->size;
    r->scan = terse_scan_over(intake->body, json, r->error);
    r->binary = intake->body + json;
    r->end = intake->body + intake->size;
    r->has_header = intake->has_header;
    if ((r->loan = intake->loan)) {
        terse_loan_note(r->loan, intake->model, strlen(intake->model) + 1);
        terse_loan_note(r->loan, intake->version, strlen(intake->version) + 1);
    }
    if (!(r->request = terse_request_new(intake->model)))
        return libterse_refuses(r, TERSE_INVALID_ARGUMENT);
    return libterse_refuses(r, terse_request_set_version(r->request, *intake->version ? intake->version : NULL));
}

terse_status terse_intake_read(const terse_intake *intake, terse_request **ret_request, terse_wish *ret_wish,
                               terse_error *error)
{
    reading r = {.wish = ret_wish, .error = error};
    ret_wish->has_id = ret_wish->binary = false;
    ret_wish->n_outputs = 0;
    const bool whole = begin(&r, intake) && read_request(&r);
    for (int i = 0; i < r.n_inputs; i++)
        free(r.names[i]);
    if (!whole) {
        terse_request_free(r.request);
        return error->status;
    }
    *ret_request = r.request;
    return TERSE_OK;
}
