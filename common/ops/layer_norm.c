/* SPDX-License-Identifier: Apache-2.0 */
/* LayerNormalization: a row is everything from `axis` on. Scale and bias of another shape than the row's are spread
 * over a row in scratch. */
#include <inttypes.h>

#include "common/ops/support.h"

typedef struct layer_params {
    int64_t rows, width;
    float epsilon;
    int rank; /* of the row */
    int64_t dims[TERSE_MAX_RANK];
    bool spread[3];
    size_t room[3]; /* scratch, for inputs 1 and 2; 0: a row that nobody wants */
} layer_params;

static int check_operand(const terse_op_plan *plan, int index, const char *what, layer_params *params, size_t *total,
                         terse_error *error)
{
    const terse_tensor *tensor = terse_op_input(plan, index);
    int status = terse_op_expect(plan, index, what, 1u << TERSE_FP32, error);
    if (status != TERSE_OK)
        return status;
    bool fits = true;
    for (int i = 0; i < tensor->rank; i++) {
        const int at = params->rank - tensor->rank + i;
        fits = fits && (tensor->dims[i] == 1 || (at >= 0 && tensor->dims[i] == params->dims[at]));
    }
    if (!fits) {
        char text[128], row[128];
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "input %d (%s) of shape %s does not broadcast to %s", index,
                          what, terse_dims_text(tensor->dims, tensor->rank, text, sizeof text),
                          terse_dims_text(params->dims, params->rank, row, sizeof row));
    }
    params->spread[index] = terse_tensor_count(tensor) != params->width;
    return params->spread[index] ? TERSE_RESERVE(total, &params->room[index], error, params->width) : TERSE_OK;
}

static int plan_layer(terse_op_plan *plan, terse_error *error)
{
    int axis = 0;
    int status = terse_op_expect(plan, 0, "X", 1u << TERSE_FP32, error);
    if (status == TERSE_OK)
        status = terse_op_axis(terse_node_int(plan->node, "axis", -1), plan->inputs[0]->rank, &axis, error);
    if (status != TERSE_OK)
        return status;
    const terse_tensor *x = plan->inputs[0];
    layer_params *params = terse_op_params(plan, sizeof *params, error);
    if (!params)
        return TERSE_RESOURCE_EXHAUSTED;
    *params = (layer_params){.rows = terse_dims_count(x->dims, axis),
                             .width = terse_dims_count(x->dims + axis, x->rank - axis),
                             .epsilon = (float)terse_node_float(plan->node, "epsilon", 1e-5),
                             .rank = x->rank - axis};
    int64_t dims[TERSE_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        dims[i] = i < axis ? x->dims[i] : 1;
        if (i >= axis)
            params->dims[i - axis] = x->dims[i];
    }
    size_t total = 0;
    status = TERSE_RESERVE(&total, &params->room[0], error, plan->n_outputs > 1 ? params->width : 0);
    if (status == TERSE_OK)
        status = check_operand(plan, 1, "Scale", params, &total, error);
    if (status == TERSE_OK && terse_op_input(plan, 2))
        status = check_operand(plan, 2, "B", params, &total, error);
    plan->scratch_bytes = total;
    for (int i = 0; i < 3 && status == TERSE_OK; i++)
        status = terse_op_output(plan, i, TERSE_FP32, x->rank, i == 0 ? x->dims : dims, error);
    return status;
}

static const float *load_operand(const terse_op_call *call, int index)
{
    const layer_params *p = call->params;
    const terse_tensor *tensor = index < call->n_inputs ? call->inputs[index] : NULL;
    if (!tensor || !p->spread[index])
        return tensor ? tensor->data : NULL;
    float *row = terse_support_at(call->scratch, p->room[index]);
    for (int64_t i = 0; i < p->width; i++) {
        int64_t rest = i, offset = 0, stride = 1;
        for (int axis = p->rank - 1, from = tensor->rank - 1; from >= 0; axis--, from--) {
            const int64_t at = axis >= 0 ? rest % p->dims[axis] : 0;
            rest /= axis >= 0 ? p->dims[axis] : 1;
            offset += tensor->dims[from] == 1 ? 0 : at * stride;
            stride *= tensor->dims[from];
        }
        row[i] = ((const float *)tensor->data)[offset];
    }
    return row;
}

static int run_layer(const terse_op_call *call, terse_error *error)
{
    (void)error;
    const layer_params *p = call->params;
    const float *x = call->inputs[0]->data, *scale = load_operand(call, 1), *bias = load_operand(call, 2);
    float *y = call->outputs[0].data, *unwanted = terse_support_at(call->scratch, p->room[0]);
    float *means = call->n_outputs > 1 ? call->outputs[1].data : NULL;
    float *inverses = call->n_outputs > 2 ? call->outputs[2].data : NULL;
    if (p->width == 0)
        return TERSE_OK;
    for (int64_t i = 0; i < p->rows; i++) {
        float mean, inverse;
        call->kernels->layer_norm_f32(x + i * p->width, scale, bias, p->epsilon, y ? y + i * p->width : unwanted,
                                      p->width, &mean, &inverse);
        if (means)
            means[i] = mean;
        if (inverses)
            inverses[i] = inverse;
    }
    return TERSE_OK;
}

const terse_op_impl terse_op_layer_normalization = {
    .name = "LayerNormalization",
    .min_inputs = 2,
    .max_inputs = 3,
    .min_outputs = 1,
    .max_outputs = 3,
    .flags = TERSE_OP_IN_PLACE,
    .plan = plan_layer,
    .run = run_layer,
};
