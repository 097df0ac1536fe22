/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. Every quantized network gets one form: DequantizeLinear -> a float operator -> QuantizeLinear, or,
 * where the scale is known only when it runs, DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul. What is quantized
 * there is UINT8, INT8 and INT32; all else has an error by its name. */
#include "compress/onnx/internal.h"

#include <string.h>

static terse_node *node_of(terse_onnx_builder *builder, int index)
{
    return &builder->graph->nodes[index];
}

/* `output_dtype` becomes terse's number. FP32 is what all floats are, and the precision of the quotient is double. */
int terse_onnx_rewrite_quantize(terse_onnx_builder *builder, int index, terse_error *error)
{
    terse_node *node = node_of(builder, index);
    const terse_attr *stated = terse_node_attr(node, "output_dtype");
    const int32_t number = !stated ? 0 : stated->i < 0 || stated->i > INT32_MAX ? -1 : (int32_t)stated->i;
    const terse_dtype dtype = terse_onnx_dtype(number);
    terse_onnx_attribute_drop(node, "output_dtype");
    terse_onnx_attribute_drop(node, "precision");
    terse_onnx_attribute_drop(node, "saturate"); /* of FP8, which is refused */
    if (number == 0)
        return TERSE_OK;
    const bool is_float = dtype == TERSE_FP32 || dtype == TERSE_FP16 || dtype == TERSE_BF16;
    if (node->op == TERSE_OP_DEQUANTIZE_LINEAR ? is_float : dtype == TERSE_UINT8 || dtype == TERSE_INT8) {
        if (node->op == TERSE_OP_QUANTIZE_LINEAR && !terse_node_set_int(builder->graph, node, "output_dtype", dtype))
            return terse_onnx_no_memory(error);
        return TERSE_OK;
    }
    terse_onnx_unsupported(builder->report, node->name, "output_dtype %s of op '%s'", terse_onnx_dtype_name(number),
                           terse_op_name(node->op));
    return TERSE_OK;
}
