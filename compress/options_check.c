/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/options_check.h"

/* What ONNX has no operators for, told before any work. */
int terse_options_check_onnx(const terse_options *o, terse_error *error)
{
    const char *option = o->quantize == TERSE_QUANTIZE_INT8_WEIGHTS   ? "--quantize int8-weights"
                         : o->quantize == TERSE_QUANTIZE_INT4_WEIGHTS ? "--quantize int4-weights"
                         : o->bf16                                    ? "--float bf16"
                         : o->pack                                    ? "--pack zstd"
                                                                      : NULL;
    if (!o->onnx)
        return TERSE_OK;
    if (option)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s cannot be written as ONNX ('%.200s'), allowed are --low-rank, --prune, --cluster "
                          "and --quantize int8, or an output that ends in .terse",
                          option, o->output);
    if (o->plain)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--plain makes no ONNX ('%.200s')", o->output);
    return TERSE_OK;
}

int terse_options_check_rounding(const terse_options *o, terse_error *error)
{
    char text[TERSE_QUANTIZE_TEXT];
    if (o->rounding && o->quantize != TERSE_QUANTIZE_INT8 && o->quantize != TERSE_QUANTIZE_INT4_WEIGHTS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--rounding goes with --quantize int8 and int4-weights only, found %s%s",
                          o->quantize ? "--quantize " : "none", o->quantize ? terse_options_quantize(o, text) : "");
    if (o->rounding > TERSE_ROUNDING_NEAREST && !o->calibrate)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--rounding %s needs samples: --calibrate DATA.npz",
                          terse_rounding_name(o->rounding));
    if (o->rounding > TERSE_ROUNDING_NEAREST && o->cluster)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--rounding %s does not go with --cluster, which chooses integers itself",
                          terse_rounding_name(o->rounding));
    return TERSE_OK;
}

int terse_options_check_recover(const terse_options *o, terse_error *error)
{
    const terse_recover_options *r = &o->recover;
    if (o->correct && (!o->calibrate || (!o->low_rank.target && o->prune == 0)))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--correct statistics goes with --low-rank or --prune, and with --calibrate DATA.npz");
    if (!r->text && (r->checkpoint || r->resume))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s goes with --recover only",
                          r->checkpoint ? "--checkpoint" : "--resume");
    if (r->resume && !r->checkpoint)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--resume needs --checkpoint FILE");
    if (r->text && !o->calibrate)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--recover needs samples: --calibrate DATA.npz");
    if (r->text && !o->low_rank.target && o->prune == 0 && !o->quantize && !o->goal.plan &&
        !terse_goal_is_set(&o->goal))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--recover goes with --low-rank, --prune or --quantize: without them nothing is lost");
    return TERSE_OK;
}

/* A search, and a plan, say what becomes of the layers: nothing else may. */
int terse_options_check_search(const terse_options *o, terse_error *error)
{
    const bool searching = terse_goal_is_set(&o->goal);
    const char *option = o->low_rank.target     ? "--low-rank"
                         : o->prune > 0         ? "--prune"
                         : o->quantize          ? "--quantize"
                         : o->cluster           ? "--cluster"
                         : o->bf16              ? "--float bf16"
                         : o->keep_float        ? "--keep-float"
                         : o->keep_int8         ? "--keep-int8"
                         : o->correct           ? "--correct"
                         : o->calibration       ? "--calibration"
                         : o->plain             ? "--plain"
                         : searching && o->onnx ? "-o MODEL.onnx (write the plan's network with --plan instead)"
                                                : NULL;
    const int status = terse_goal_check(&o->goal, error);
    if (status != TERSE_OK || (!searching && !o->goal.plan))
        return status;
    if (option)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s does not go with %s, which decides that for each layer",
                          option, searching ? "a search" : "--plan");
    if (searching && (o->recover.checkpoint || o->recover.resume))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s does not go with a search, which goes on from its --plan",
                          o->recover.checkpoint ? "--checkpoint" : "--resume");
    if (searching && o->goal.seconds > 0 && o->recover.seconds >= o->goal.seconds)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--recover is '%.20s' of the search's --time, which is %g s: allowed is less",
                          o->recover.text, o->goal.seconds);
    if (searching && !o->calibrate)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "a search needs samples: --calibrate DATA.npz");
    return TERSE_OK;
}
