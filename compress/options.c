/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/options_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/memory.h"

enum { MAX_MODEL_NAME = 128 };

static int set_output(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "-o needs a file name, found ''");
    const size_t length = strlen(argument);
    options->output = argument;
    options->onnx = length >= 5 && strcmp(argument + length - 5, ".onnx") == 0;
    return TERSE_OK;
}

static int set_low_rank(terse_options *options, const char *argument, terse_error *error)
{
    return terse_low_rank_parse(argument, &options->low_rank, error);
}

/* AMOUNT[:KIND]; AMOUNT a share below 1, or percent. */
static int set_prune(terse_options *options, const char *argument, terse_error *error)
{
    char *end;
    double amount = strtod(argument, &end);
    bool good = end != argument;
    if (good && (*end == '%' || amount >= 1.0))
        amount /= 100.0;
    end += good && *end == '%';
    const char *kind = *end == ':' ? end + 1 : "4x1";
    good = good && (!*end || *end == ':') && amount > 0.0 && amount < 1.0;
    bool known = false;
    for (int i = 0; i < TERSE_PRUNE_KINDS; i++)
        if (strcmp(kind, terse_prune_kind_name((terse_prune_kind)i)) == 0) {
            options->prune_kind = (terse_prune_kind)i;
            known = true;
        }
    if (!good || !known)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--prune is '%.100s', allowed are AMOUNT (a share between 0 and 1, or 1 %% to 99 %%) and "
                          "AMOUNT:KIND with 4x1, unstructured, 2:4 or channels",
                          argument);
    if (options->prune_kind == TERSE_PRUNE_2TO4 && amount != 0.5)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--prune is '%.100s', 2:4 removes 0.5", argument);
    options->prune = amount;
    return TERSE_OK;
}

static const char *const quantize_modes[] = {[TERSE_QUANTIZE_NONE] = "none",
                                             [TERSE_QUANTIZE_INT8] = "int8",
                                             [TERSE_QUANTIZE_INT8_WEIGHTS] = "int8-weights",
                                             [TERSE_QUANTIZE_INT4_WEIGHTS] = "int4-weights"};

const char *terse_options_quantize(const terse_options *options, char text[TERSE_QUANTIZE_TEXT])
{
    const char *name = quantize_modes[options->quantize];
    if (options->quantize == TERSE_QUANTIZE_INT4_WEIGHTS)
        snprintf(text, TERSE_QUANTIZE_TEXT, "%s:%d", name, options->quantize_group);
    else
        snprintf(text, TERSE_QUANTIZE_TEXT, "%s", name);
    return text;
}

static int set_quantize(terse_options *options, const char *argument, terse_error *error)
{
    const size_t length = strcspn(argument, ":");
    options->quantize = TERSE_QUANTIZE_NONE;
    options->quantize_group = TERSE_QUANTIZE_GROUP;
    for (size_t i = TERSE_QUANTIZE_INT8; i < sizeof quantize_modes / sizeof quantize_modes[0]; i++)
        if (strlen(quantize_modes[i]) == length && strncmp(argument, quantize_modes[i], length) == 0)
            options->quantize = (terse_quantize_mode)i;
    const bool grouped = argument[length] == ':';
    if (options->quantize == TERSE_QUANTIZE_NONE || (grouped && options->quantize != TERSE_QUANTIZE_INT4_WEIGHTS))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--quantize is '%.100s', allowed are int8, int8-weights and int4-weights[:GROUP]", argument);
    if (!grouped)
        return TERSE_OK;
    char *end;
    const char *digits = argument + length + 1;
    const long group = strtol(digits, &end, 10);
    if (end == digits || *end || group < 8 || group > TERSE_QUANTIZE_MAX_GROUP || group % 8 != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--quantize int4-weights has group '%.100s', allowed are multiples of 8 from 8 to %d", digits,
                          TERSE_QUANTIZE_MAX_GROUP);
    options->quantize_group = (int)group;
    return TERSE_OK;
}

static int set_calibrate(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--calibrate needs a file name, found ''");
    options->calibrate = argument;
    return TERSE_OK;
}

static int set_calibration(terse_options *options, const char *argument, terse_error *error)
{
    for (int i = 0; i < TERSE_CALIBRATIONS; i++)
        if (strcmp(argument, terse_calibration_name((terse_calibration)i)) == 0) {
            options->calibration = (terse_calibration)i;
            return TERSE_OK;
        }
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "--calibration is '%.100s', allowed are auto, minmax, moving, percentile, entropy and mse",
                      argument);
}

static int set_rounding(terse_options *options, const char *argument, terse_error *error)
{
    for (int i = TERSE_ROUNDING_NEAREST; i < TERSE_ROUNDINGS; i++)
        if (strcmp(argument, terse_rounding_name((terse_rounding)i)) == 0) {
            options->rounding = (terse_rounding)i;
            return TERSE_OK;
        }
    return terse_fail(error, TERSE_INVALID_ARGUMENT,
                      "--rounding is '%.100s', allowed are nearest, gptq, adaround and auto", argument);
}

static int set_keep_float(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--keep-float is '', allowed are auto, none and names of nodes with commas between");
    options->keep_float = argument;
    return TERSE_OK;
}

static int set_keep_int8(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--keep-int8 is '', allowed are auto, none and names of nodes with commas between");
    options->keep_int8 = argument;
    return TERSE_OK;
}

static int set_float(terse_options *options, const char *argument, terse_error *error)
{
    options->bf16 = strcmp(argument, "bf16") == 0;
    if (!options->bf16 && strcmp(argument, "fp32") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--float is '%.100s', allowed are fp32 and bf16", argument);
    return TERSE_OK;
}

static int set_correct(terse_options *options, const char *argument, terse_error *error)
{
    options->correct = strcmp(argument, "statistics") == 0;
    if (!options->correct && strcmp(argument, "none") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--correct is '%.100s', allowed are none and statistics",
                          argument);
    return TERSE_OK;
}

static int set_recover(terse_options *options, const char *argument, terse_error *error)
{
    return terse_recover_parse(argument, &options->recover, error);
}

static int set_checkpoint(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--checkpoint needs a file name, found ''");
    options->recover.checkpoint = argument;
    return TERSE_OK;
}

static int set_resume(terse_options *options, const char *argument, terse_error *error)
{
    (void)argument;
    (void)error;
    options->recover.resume = true;
    return TERSE_OK;
}

static int set_max_drop(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_max_drop(&options->goal, argument, error);
}

static int set_target_ms(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_target_ms(&options->goal, argument, error);
}

static int set_target_speedup(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_target_speedup(&options->goal, argument, error);
}

static int set_target_size(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_target_size(&options->goal, argument, error);
}

static int set_time(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_time(&options->goal, argument, error);
}

static int set_threads(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_threads(&options->goal, argument, error);
}

static int set_batch(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_batch(&options->goal, argument, error);
}

static int set_seed(terse_options *options, const char *argument, terse_error *error)
{
    return terse_goal_set_seed(&options->goal, argument, error);
}

static int set_plan(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--plan needs a file name, found ''");
    options->goal.plan = argument;
    return TERSE_OK;
}

static int set_cluster(terse_options *options, const char *argument, terse_error *error)
{
    char *end;
    const long bits = strtol(argument, &end, 10);
    if (end == argument || *end || bits < 1 || bits > TERSE_CLUSTER_MAX_BITS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--cluster is '%.100s', allowed are 1 to %d bits", argument,
                          TERSE_CLUSTER_MAX_BITS);
    options->cluster = (int)bits;
    return TERSE_OK;
}

static int set_pack(terse_options *options, const char *argument, terse_error *error)
{
    options->pack = strcmp(argument, "zstd") == 0;
    if (!options->pack && strcmp(argument, "none") != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--pack is '%.100s', allowed are zstd and none", argument);
    return TERSE_OK;
}

static int set_mem(terse_options *options, const char *argument, terse_error *error)
{
    options->mem = terse_memory_parse(argument);
    return options->mem
               ? TERSE_OK
               : terse_fail(error, TERSE_INVALID_ARGUMENT,
                            "--mem is '%.100s', allowed are bytes above 0, also as 500M, 2G or 1.5GiB", argument);
}

static int set_validate(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--validate needs a file name, found ''");
    options->validate = argument;
    return TERSE_OK;
}

static int set_report(terse_options *options, const char *argument, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--report needs a file name, found ''");
    options->report = argument;
    return TERSE_OK;
}

static int set_name(terse_options *options, const char *argument, terse_error *error)
{
    const size_t length = strlen(argument);
    bool good = length >= 1 && length <= MAX_MODEL_NAME;
    for (size_t i = 0; i < length; i++)
        good = good && (unsigned char)argument[i] > ' ' && argument[i] != '/' && argument[i] != 127;
    if (!good)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--name is '%.100s', allowed are 1 to %d characters without blanks and '/'", argument,
                          MAX_MODEL_NAME);
    options->name = argument;
    return TERSE_OK;
}

static int set_no_tune(terse_options *options, const char *argument, terse_error *error)
{
    (void)argument;
    (void)error;
    options->no_tune = true;
    return TERSE_OK;
}

static int set_json(terse_options *options, const char *argument, terse_error *error)
{
    (void)argument;
    (void)error;
    options->json = true;
    return TERSE_OK;
}

static int set_quiet(terse_options *options, const char *argument, terse_error *error)
{
    (void)argument;
    (void)error;
    options->quiet = true;
    return TERSE_OK;
}

static int set_plain(terse_options *options, const char *argument, terse_error *error)
{
    (void)argument;
    (void)error;
    options->plain = true;
    return TERSE_OK;
}

static int set_help(terse_options *options, const char *argument, terse_error *error)
{
    (void)argument;
    (void)error;
    options->help = true;
    return TERSE_OK;
}

const terse_option terse_options_table[] = {
    {"--output", 'o', "MODEL.terse",
     "write the model there; the file appears when it is whole; MODEL.onnx: factors, zeros, clusters "
     "and --quantize int8 as ONNX, for other runtimes",
     false, set_output},
    {"--low-rank", 0, "HOW[:FORM]",
     "factor Gemm, MatMul and Conv weights where that saves work. HOW: 0.95 keeps that share of what a layer puts out "
     "(of its squared singular values without --calibrate), 50% leaves that share of all multiply-accumulates, spread "
     "over the layers where it hurts least, 1.5x makes them that much faster as measured, 64 or NAME=64,NAME=16x24 are "
     "ranks, auto goes as low as the outputs bear "
     "(without --calibrate: EVBMF). FORM of k x k convolutions: channel, tucker or spatial, else the best for each",
     false, set_low_rank},
    {"--prune", 0, "AMOUNT[:KIND]",
     "set this share of each layer's weights to zero (0.5 or 50%), where the network loses least: with --calibrate by "
     "what the outputs of the layers lose on the samples, else by size. KIND: 4x1 (default: four outputs keep or lose "
     "the same input, so that it also runs faster), unstructured, 2:4, or channels: whole channels go until this share "
     "of "
     "all multiply-accumulates does, and what is left is a smaller dense network",
     false, set_prune},
    {"--quantize", 0, "MODE",
     "int8: weights and activations in 8 bits, ranges from --calibrate; int8-weights: weights of Gemm, MatMul and Conv "
     "in 8 bits, activations as they are; int4-weights[:GROUP]: weights "
     "of Gemm and MatMul in 4 bits, GROUP rows (32) sharing a scale",
     false, set_quantize},
    {"--calibrate", 0, "DATA.npz",
     "samples that ranges of activations are taken from, for --quantize int8, for which weights are rounded, for "
     "int4-weights, and that factors are fitted to, for --low-rank: the inputs by name, axis 0 = samples",
     false, set_calibrate},
    {"--calibration", 0, "METHOD",
     "how: minmax, moving, percentile, entropy, mse, or auto (the default): for each tensor the one of them that costs "
     "least at the output of the layers that read it",
     false, set_calibration},
    {"--rounding", 0, "HOW",
     "of weights with --quantize int8 or int4-weights, on the samples of --calibrate: nearest, gptq, adaround, or "
     "auto: "
     "for each layer the one whose output loses least on samples that it was not fitted to (default: nearest for int8, "
     "auto for int4-weights)",
     false, set_rounding},
    {"--keep-float", 0, "LAYERS",
     "what stays FP32 with --quantize int8: auto (the default: layers found sensitive, as far as they are cheap), "
     "none, or "
     "names of nodes with commas between",
     false, set_keep_float},
    {"--keep-int8", 0, "LAYERS",
     "what keeps weights of 8 bits with --quantize int4-weights: auto (the default; with --calibrate the products that "
     "cost most for their bytes, for at most a fifth more bytes), none, or names of nodes with commas between",
     false, set_keep_int8},
    {"--correct", 0, "WHAT",
     "statistics: behind --low-rank and --prune with --calibrate, mean and deviation of what each layer gives, channel "
     "by channel, become what they were, where samples that this was not fitted to agree (default: none)",
     false, set_correct},
    {"--float", 0, "TYPE",
     "bf16: weights of products and what flows between them in 16 bits, accumulated in 32: twice the speed where the "
     "CPU has AVX512-BF16, half the bytes everywhere; with --quantize int8 that is for what stays FP32 (default: fp32)",
     false, set_float},
    {"--recover", 0, "EPOCHS|TIME|none",
     "train what --low-rank, --prune and --quantize make against the network as it came, on the samples of --calibrate "
     "(no labels; a tenth is held out and says what is kept): 20 walks over them at most, or 90s, 10m, 2h (in front of "
     "which a language model writes more samples, for a third of that). Zeros stay zero, factors stay factors. Ctrl-C "
     "ends it and writes the best so far. With a search: how much of --time goes to networks that lose too much until "
     "they are trained (default: the last third; none: nothing)",
     false, set_recover},
    {"--checkpoint", 0, "FILE", "the state of --recover, written behind every epoch", false, set_checkpoint},
    {"--resume", 0, NULL,
     "go on from --checkpoint where that file exists; wants the same command (with --no-tune, where ranks are "
     "chosen by time)",
     false, set_resume},
    {"--cluster", 0, "BITS",
     "let each layer have at most 2^BITS different weights (BITS 1 to 8; of 1 two and zero), chosen, with --calibrate, "
     "by what its outputs "
     "lose "
     "on the samples: the file has a codebook and a short number for each. Zeros stay zero; with --quantize int8 the "
     "integers are clustered",
     false, set_cluster},
    {"--pack", 0, "CODER",
     "zstd: store each tensor in as few bytes as it takes without loss (a codebook, zeros left out, zstd), expanded "
     "once "
     "when the model is loaded (default: none)",
     false, set_pack},
    {"--max-drop", 0, "PCT",
     "search: choose how many channels go and, for each layer, what it becomes, so that the network is as fast as it "
     "can be (with --pack zstd: the file as small) and loses at most so many points of top-1 (outputs that are no "
     "classes: percent of their power) "
     "on "
     "the half of --calibrate's samples that nothing is fitted to; without labels, what the network itself expects to "
     "lose. Times are measured here. The best so far is always in -o; Ctrl-C ends it",
     false, set_max_drop},
    {"--target-ms", 0, "MS", "search: at most so many milliseconds a run, with the least drop", false, set_target_ms},
    {"--target-size", 0, "BYTES",
     "search: a file of at most so many bytes (also 800k, 0.8M, 1MiB), with the least drop", false, set_target_size},
    {"--target-speedup", 0, "X", "search: X times as fast as the fastest dense network, with the least drop", false,
     set_target_speedup},
    {"--time", 0, "TIME", "what a search may take: 90s, 10m, 2h (default: 10m)", false, set_time},
    {"--threads", 0, "N", "threads of the runs that a search times (default: 1)", false, set_threads},
    {"--batch", 0, "N", "samples of one such run (default: 1)", false, set_batch},
    {"--seed", 0, "N", "of the lots that a search draws (default: 0)", false, set_seed},
    {"--plan", 0, "FILE.json",
     "do what the plan says, which a search has written (to OUTPUT.plan.json) and which may be changed: the same bytes "
     "for the same input. With a search: the plan goes there, and where it is there already, the search goes on from "
     "it",
     false, set_plan},
    {"--mem", 0, "SIZE",
     "stay below so much memory (500M, 2G): what samples are in a layer, and second moments, wait in files in $TMPDIR "
     "(else /var/tmp) where they would take more, which changes no bit of the result; told before any work where even "
     "that is too little (default: no bound, and a warning where less is free than is needed)",
     false, set_mem},
    {"--validate", 0, "DATA.npz",
     "compare before and after on these samples: the inputs by name, axis 0 = samples, and optionally labels", false,
     set_validate},
    {"--report", 0, "OUT.html",
     "write a page that stands alone: figures before and after and, with --validate, error and time of each layer",
     false, set_report},
    {"--no-tune", 0, NULL,
     "fixed algorithms and tiles instead of measured ones: the same input and options then give the same bytes", false,
     set_no_tune},
    {"--name", 0, "NAME", "the model's name (default: the input's file name without its ending)", false, set_name},
    {"--json", 0, NULL, "print one JSON object as the last line", false, set_json},
    {"--quiet", 'q', NULL, "print no report and no warnings", false, set_quiet},
    {"--plain", 0, NULL, "import only: no pass changes the graph", true, set_plain},
    {"--help", 'h', NULL, "print this", false, set_help},
};
const int terse_options_n = sizeof terse_options_table / sizeof terse_options_table[0];

/* The option that an argument names, and its value where it stands behind '=' or the letter. */
static const terse_option *find(const char *text, const char **ret_value)
{
    for (int i = 0; i < terse_options_n; i++) {
        const terse_option *option = &terse_options_table[i];
        const size_t length = strlen(option->name);
        *ret_value = NULL;
        if (strncmp(text, option->name, length) == 0 && (text[length] == 0 || text[length] == '=')) {
            if (text[length] == '=')
                *ret_value = text + length + 1;
            return option;
        }
        if (option->letter && text[0] == '-' && text[1] == option->letter && (option->argument || !text[2])) {
            if (text[2])
                *ret_value = text + 2;
            return option;
        }
    }
    return NULL;
}

static int set_operand(terse_options *options, const char *text, terse_error *error)
{
    if (options->input)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "one MODEL.onnx is needed, found '%.200s' and '%.200s'",
                          options->input, text);
    if (!*text)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "MODEL.onnx is '', needed is a file name");
    options->input = text;
    return TERSE_OK;
}

int terse_options_parse(int argc, char **argv, terse_options *ret_options, terse_error *error)
{
    terse_options options = {0};
    terse_goal_init(&options.goal);
    bool operands_only = false;
    for (int i = 1; i < argc; i++) {
        int status;
        if (operands_only || argv[i][0] != '-' || !argv[i][1]) {
            status = set_operand(&options, argv[i], error);
        } else if (strcmp(argv[i], "--") == 0) {
            operands_only = true;
            continue;
        } else {
            const char *value;
            const terse_option *option = find(argv[i], &value);
            if (!option)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "unknown option '%.200s'", argv[i]);
            if (value && !option->argument)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s takes no value, found '%.200s'", option->name,
                                  value);
            if (option->argument && !value && i + 1 >= argc)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s needs %s", option->name, option->argument);
            status = option->set(&options, option->argument && !value ? argv[++i] : value, error);
        }
        if (status != TERSE_OK)
            return status;
        if (options.help)
            break;
    }
    if (!options.help && !options.input)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "MODEL.onnx is missing");
    if (!options.help && !options.output)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "-o MODEL.terse is missing");
    const int searches = options.help ? TERSE_OK : terse_options_check_search(&options, error);
    if (searches != TERSE_OK)
        return searches;
    if (!options.help && options.quantize == TERSE_QUANTIZE_INT8 && !options.calibrate)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--quantize int8 needs --calibrate DATA.npz");
    int fits = options.help ? TERSE_OK : terse_options_check_recover(&options, error);
    if (fits == TERSE_OK && !options.help)
        fits = terse_options_check_rounding(&options, error);
    if (fits != TERSE_OK)
        return fits;
    if (options.calibrate && options.quantize != TERSE_QUANTIZE_INT8 &&
        options.quantize != TERSE_QUANTIZE_INT4_WEIGHTS && !options.low_rank.target && options.prune == 0 &&
        options.cluster == 0 && !options.recover.text && !terse_goal_is_set(&options.goal) && !options.goal.plan)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--calibrate goes with --low-rank, --prune, --cluster, --quantize int8 and int4-weights, a "
                          "search and --plan only");
    if (options.quantize != TERSE_QUANTIZE_INT8 && (options.calibration || options.keep_float))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s goes with --quantize int8 only",
                          options.calibration ? "--calibration" : "--keep-float");
    if (options.keep_int8 && options.quantize != TERSE_QUANTIZE_INT4_WEIGHTS)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--keep-int8 goes with --quantize int4-weights only");
    if (options.bf16 && options.quantize && options.quantize != TERSE_QUANTIZE_INT8)
        return terse_fail(
            error, TERSE_INVALID_ARGUMENT,
            "--float bf16 goes with --quantize int8 only (what that keeps FP32 becomes BF16), found '%s', "
            "whose activations are FP32",
            terse_options_quantize(&options, (char[TERSE_QUANTIZE_TEXT]){0}));
    if (options.cluster && options.quantize && options.quantize != TERSE_QUANTIZE_INT8)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--cluster goes with FP32 weights and with --quantize int8, found --quantize %s",
                          terse_options_quantize(&options, (char[TERSE_QUANTIZE_TEXT]){0}));
    if (options.plain && (options.low_rank.target || options.prune > 0 || options.cluster || options.quantize ||
                          options.validate || options.bf16))
        return terse_fail(
            error, TERSE_INVALID_ARGUMENT,
            "--plain goes with none of --low-rank, --prune, --cluster, --quantize, --float bf16 and --validate");
    const int status = options.help ? TERSE_OK : terse_options_check_onnx(&options, error);
    if (status == TERSE_OK)
        *ret_options = options;
    return status;
}

void terse_options_print_wrapped(FILE *out, const char *text, int indent)
{
    int column = indent;
    while (*text) {
        const size_t length = strcspn(text, " ");
        if (column > indent && column + (int)length > 100) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        column += fprintf(out, "%.*s", (int)length, text);
        text += length;
        if (*text == ' ') {
            column += fprintf(out, " ");
            text++;
        }
    }
    fputc('\n', out);
}

#define ARGUMENTS "MODEL.onnx -o MODEL.terse [options]"
#define ABOUT "Turns an ONNX file into a .terse file and reports what was done."

void terse_options_print_table(FILE *out)
{
    fprintf(out, "program\tterse compress\t" ARGUMENTS "\nabout\t" ABOUT "\n");
    for (int i = 0; i < terse_options_n; i++) {
        const terse_option *o = &terse_options_table[i];
        const char letter[3] = {'-', o->letter, 0};
        if (!o->hidden)
            fprintf(out, "option\t%s\t%s\t%s\t%s\n", o->letter ? letter : "", o->name, o->argument ? o->argument : "",
                    o->help);
    }
}

void terse_options_help(FILE *out)
{
    fprintf(out, "usage: terse compress " ARGUMENTS "\n" ABOUT "\n\n");
    for (int i = 0; i < terse_options_n; i++) {
        const terse_option *option = &terse_options_table[i];
        if (option->hidden)
            continue;
        char letter[5] = "";
        if (option->letter)
            snprintf(letter, sizeof letter, "-%c, ", option->letter);
        char left[64];
        snprintf(left, sizeof left, "  %s%s%s%s", letter, option->name, option->argument ? " " : "",
                 option->argument ? option->argument : "");
        fprintf(out, "%-30s", left);
        terse_options_print_wrapped(out, option->help, 30);
    }
    fprintf(out, "\nExit codes: 0 done, 1 the work failed, 2 wrong usage.\n");
}
