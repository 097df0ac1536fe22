/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/passes/passes.h"

const terse_pass terse_passes_list[] = {
    {"dynamic", "dynamic quantization as products of dequantized bytes", TERSE_PASSES_PREPARE, terse_pass_dynamic},
    {"unsign", "quantized activations to UINT8, quantized weights to INT8", TERSE_PASSES_PREPARE, terse_pass_unsign},
    {"products", "Gemm and MatMul by a constant in normal form", TERSE_PASSES_PREPARE, terse_pass_products},
    {"fold", "BatchNormalization, constants per channel, Pad and scales into weights", TERSE_PASSES_PREPARE,
     terse_pass_fold},
    {"patterns", "Gelu, HardSwish, HardSigmoid, LayerNormalization out of small operators", TERSE_PASSES_PREPARE,
     terse_pass_patterns},
    {"fuse", "activations and residual additions into products and convolutions", TERSE_PASSES_PREPARE,
     terse_pass_fuse},
    {"channels_last", "convolutions, pools and what is between them to channels-last", TERSE_PASSES_FINISH,
     terse_pass_channels_last},
    {"transposes", "Transposes merged, cancelled, or Reshapes where nothing moves", TERSE_PASSES_FINISH,
     terse_pass_transposes},
    {"attention", "attention over heads as one node without Transposes", TERSE_PASSES_FINISH, terse_pass_attention},
    {"lower_dynamic", "products of bytes whose scale is known at run time", TERSE_PASSES_FINISH,
     terse_pass_lower_dynamic},
    {"lower", "DequantizeLinear, float operator, QuantizeLinear as one operator on bytes", TERSE_PASSES_FINISH,
     terse_pass_lower},
    {"dequantize", "constants in bytes that nobody reads as bytes to FP32", TERSE_PASSES_FINISH, terse_pass_dequantize},
    {"bf16", "marked products and what is between them to BF16", TERSE_PASSES_FINISH, terse_pass_bf16},
    {"pack", "constant weights in the layout of the kernels", TERSE_PASSES_FINISH, terse_pass_pack},
};
const int terse_passes_n = sizeof terse_passes_list / sizeof terse_passes_list[0];

int terse_passes_run(terse_graph *graph, terse_passes_stage stage, terse_error *error)
{
    for (int i = 0; i < terse_passes_n; i++) {
        const terse_pass *pass = &terse_passes_list[i];
        if (pass->stage != stage)
            continue;
        if (pass->run(graph, error) != TERSE_OK)
            return terse_error_prefix(error, "pass '%s'", pass->name);
    }
    return TERSE_OK;
}
