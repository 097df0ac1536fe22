/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/distill/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/options.h"

typedef struct option {
    const char *name;     /* "--data" */
    char letter;          /* 'o' for -o, 0 for none */
    const char *argument; /* NULL when it takes none */
    const char *help;
    int (*set)(terse_distill_options *options, const char *name, const char *argument, terse_error *error);
} option;

enum { DEFAULT_EPOCHS = 200 };

static int file_name(const char *name, const char *argument, const char **to, terse_error *error)
{
    if (!*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s needs a file name, found ''", name);
    *to = argument;
    return TERSE_OK;
}

static int number(const char *name, const char *argument, double low, double high, double *to, terse_error *error)
{
    char *end;
    const double found = strtod(argument, &end);
    if (end == argument || *end || !(found >= low && found <= high))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s is '%.100s', allowed is a number from %g to %g", name,
                          argument, low, high);
    *to = found;
    return TERSE_OK;
}

static int whole(const char *name, const char *argument, int64_t low, int64_t high, int64_t *to, terse_error *error)
{
    char *end;
    const long long found = strtoll(argument, &end, 10);
    if (end == argument || *end || found < low || found > high)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s is '%.100s', allowed is a whole number from %lld to %lld",
                          name, argument, (long long)low, (long long)high);
    *to = found;
    return TERSE_OK;
}

#define SETTER(what)                                                                                                   \
    static int set_##what(terse_distill_options *o, const char *name, const char *argument, terse_error *error)

SETTER(output)
{
    const size_t length = strlen(argument);
    const bool onnx = length > 5 && strcmp(argument + length - 5, ".onnx") == 0;
    if (!onnx && !(length > 6 && strcmp(argument + length - 6, ".terse") == 0))
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s is '%.200s', allowed are names that end in .onnx or .terse", name, argument);
    o->output = argument;
    return TERSE_OK;
}

SETTER(student)
{
    return file_name(name, argument, &o->student, error);
}

SETTER(data)
{
    return file_name(name, argument, &o->data, error);
}

SETTER(validate)
{
    return file_name(name, argument, &o->validate, error);
}

SETTER(checkpoint)
{
    return file_name(name, argument, &o->train.checkpoint, error);
}

SETTER(model_name)
{
    return file_name(name, argument, &o->name, error);
}

SETTER(width)
{
    return number(name, argument, 0.001, 1, &o->width, error);
}

SETTER(epochs)
{
    return whole(name, argument, 1, 1000000, &o->train.epochs, error);
}

/* "600", "90s", "10m", "2h". */
SETTER(time)
{
    char *end;
    const double found = strtod(argument, &end);
    const double unit = !*end || strcmp(end, "s") == 0 ? 1
                        : strcmp(end, "m") == 0        ? 60
                        : strcmp(end, "h") == 0        ? 3600
                                                       : 0;
    if (end == argument || unit == 0 || !(found * unit >= 0.1 && found * unit <= 1e7))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s is '%.100s', allowed are times such as 90s, 10m and 2h",
                          name, argument);
    o->train.seconds = found * unit;
    return TERSE_OK;
}

SETTER(temperature)
{
    return number(name, argument, 0.01, 1000, &o->train.temperature, error);
}

SETTER(batch)
{
    return whole(name, argument, 1, 65536, &o->train.batch, error);
}

SETTER(lr)
{
    return number(name, argument, 1e-8, 10, &o->train.lr, error);
}

SETTER(decay)
{
    return number(name, argument, 0, 100, &o->train.decay, error);
}

SETTER(features)
{
    return number(name, argument, 0, 1e6, &o->train.features, error);
}

SETTER(patience)
{
    return whole(name, argument, 0, 1000000, &o->train.patience, error);
}

SETTER(seed)
{
    int64_t seed = 0;
    const int status = whole(name, argument, 0, INT64_MAX, &seed, error);
    o->train.seed = (uint64_t)seed;
    return status;
}

SETTER(threads)
{
    int64_t n = 0;
    const int status = whole(name, argument, 1, 2, &n, error);
    o->train.n_threads = (int)n;
    return status;
}

/* "800M", "2G", or bytes. */
SETTER(mem)
{
    char *end;
    const double found = strtod(argument, &end);
    const double unit = !*end                   ? 1
                        : strcmp(end, "K") == 0 ? 1024.0
                        : strcmp(end, "M") == 0 ? 1048576.0
                        : strcmp(end, "G") == 0 ? 1073741824.0
                                                : 0;
    if (end == argument || unit == 0 || !(found * unit >= 1 && found * unit <= 1e15))
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s is '%.100s', allowed are sizes such as 800M and 2G", name,
                          argument);
    o->train.max_bytes = (size_t)(found * unit);
    return TERSE_OK;
}

/* "flip,shift:2,mix" in any order; "none". */
SETTER(augment)
{
    const char *at = argument;
    while (*at) {
        const size_t length = strcspn(at, ",");
        char *end;
        if (length == 4 && strncmp(at, "flip", 4) == 0) {
            o->train.flip = true;
        } else if (length == 3 && strncmp(at, "mix", 3) == 0) {
            o->train.mix = true;
        } else if (length > 6 && strncmp(at, "shift:", 6) == 0 && at[6] >= '1' && at[6] <= '9') {
            const long pixels = strtol(at + 6, &end, 10);
            if (end != at + length || pixels > 64)
                break;
            o->train.shift = (int)pixels;
        } else {
            break;
        }
        at += length;
        at += *at == ',' && at[1];
    }
    if (*at || !*argument)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "%s is '%.100s', allowed are flip, shift:PIXELS (1 to 64) and mix with commas between", name,
                          argument);
    return TERSE_OK;
}

SETTER(resume)
{
    (void)name;
    (void)argument;
    (void)error;
    o->train.resume = true;
    return TERSE_OK;
}

SETTER(json)
{
    (void)name;
    (void)argument;
    (void)error;
    o->json = true;
    return TERSE_OK;
}

SETTER(quiet)
{
    (void)name;
    (void)argument;
    (void)error;
    o->quiet = true;
    return TERSE_OK;
}

SETTER(help)
{
    (void)name;
    (void)argument;
    (void)error;
    o->help = true;
    return TERSE_OK;
}

static const option table[] = {
    {"--output", 'o', "OUT.onnx|OUT.terse", "write the student there; the file appears when it is whole", set_output},
    {"--data", 0, "DATA.npz", "samples without labels: the inputs by name, axis 0 = samples; a tenth is held out",
     set_data},
    {"--student", 0, "STUDENT.onnx",
     "the network to train, with the teacher's inputs and outputs, from the weights that it has (default: made from "
     "the "
     "teacher, see --width)",
     set_student},
    {"--width", 0, "SHARE",
     "without --student: the teacher's architecture with this share of the channels of every layer and fresh weights "
     "(default: 0.35)",
     set_width},
    {"--epochs", 0, "N", "walks over all samples at most (default: 200 without --time)", set_epochs},
    {"--time", 0, "TIME", "90s, 10m, 2h: train at most that long (the result then depends on the machine's speed)",
     set_time},
    {"--temperature", 0, "T", "softens the teacher's and student's answers where they are compared (default: 2)",
     set_temperature},
    {"--features", 0, "WEIGHT",
     "also compare tensors in between that have equal names and shapes in both networks, by squared error (default: 0)",
     set_features},
    {"--batch", 0, "N", "samples a step (default: 32)", set_batch},
    {"--lr", 0, "RATE", "the highest learning rate: Adam, warm-up, then a cosine down to zero (default: 0.003)",
     set_lr},
    {"--decay", 0, "X", "weight decay, decoupled (default: 0)", set_decay},
    {"--augment", 0, "WAYS",
     "flip, shift:PIXELS, mix (with another sample), with commas between: more inputs out of few (default: none)",
     set_augment},
    {"--patience", 0, "N", "stop after N epochs without a better held-out agreement (default: never)", set_patience},
    {"--seed", 0, "N", "of all random choices (default: 0)", set_seed},
    {"--threads", 0, "N", "1 or 2 (default: whichever is measured to be faster); the result is the same", set_threads},
    {"--mem", 0, "BYTES", "800M, 2G: run fewer samples at a time so that training stays below that", set_mem},
    {"--validate", 0, "V.npz", "compare teacher and student on these samples at the end, with labels where it has them",
     set_validate},
    {"--checkpoint", 0, "FILE", "the state of the training, written behind every epoch", set_checkpoint},
    {"--resume", 0, NULL, "go on from --checkpoint where that file exists: the same result, bit for bit", set_resume},
    {"--name", 0, "NAME", "the model's name (default: the output's file name without its ending)", set_model_name},
    {"--json", 0, NULL, "print one JSON object as the last line", set_json},
    {"--quiet", 'q', NULL, "print no progress and no report", set_quiet},
    {"--help", 'h', NULL, "print this", set_help},
};
enum { N_OPTIONS = sizeof table / sizeof table[0] };

static const option *find(const char *text, const char **ret_value)
{
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &table[i];
        const size_t length = strlen(o->name);
        *ret_value = NULL;
        if (strncmp(text, o->name, length) == 0 && (text[length] == 0 || text[length] == '=')) {
            *ret_value = text[length] == '=' ? text + length + 1 : NULL;
            return o;
        }
        if (o->letter && text[0] == '-' && text[1] == o->letter && (o->argument || !text[2])) {
            *ret_value = text[2] ? text + 2 : NULL;
            return o;
        }
    }
    return NULL;
}

static int check_whole(terse_distill_options *o, terse_error *error)
{
    if (!o->teacher)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "TEACHER.onnx is missing");
    if (!o->data)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--data DATA.npz is missing");
    if (!o->output)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "-o OUT.onnx or OUT.terse is missing");
    if (o->student && o->width != 0)
        return terse_fail(error, TERSE_INVALID_ARGUMENT,
                          "--width is for a student made from the teacher, not for --student");
    if (o->train.resume && !o->train.checkpoint)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "--resume needs --checkpoint FILE");
    o->width = o->width == 0 ? 0.35 : o->width;
    o->train.lr = o->train.lr == 0 ? 3e-3 : o->train.lr;
    if (o->train.epochs == 0 && o->train.seconds == 0)
        o->train.epochs = DEFAULT_EPOCHS;
    return TERSE_OK;
}

static int set_operand(terse_distill_options *o, const char *text, terse_error *error)
{
    if (o->teacher)
        return terse_fail(error, TERSE_INVALID_ARGUMENT, "one TEACHER.onnx is needed, found '%.200s' and '%.200s'",
                          o->teacher, text);
    return file_name("TEACHER.onnx", text, &o->teacher, error);
}

int terse_distill_options_parse(int argc, char **argv, terse_distill_options *ret_options, terse_error *error)
{
    terse_distill_options o = {.train = {.batch_statistics = true}};
    bool operands_only = false;
    for (int i = 1; i < argc && !o.help; i++) {
        const char *value;
        int status;
        if (!operands_only && strcmp(argv[i], "--") == 0) {
            operands_only = true;
            continue;
        }
        if (operands_only || argv[i][0] != '-' || !argv[i][1]) {
            status = set_operand(&o, argv[i], error);
        } else {
            const option *found = find(argv[i], &value);
            if (!found)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "unknown option '%.200s'", argv[i]);
            if (value && !found->argument)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s takes no value, found '%.200s'", found->name,
                                  value);
            if (found->argument && !value && i + 1 >= argc)
                return terse_fail(error, TERSE_INVALID_ARGUMENT, "%s needs %s", found->name, found->argument);
            status = found->set(&o, found->name, found->argument && !value ? argv[++i] : value, error);
        }
        if (status != TERSE_OK)
            return status;
    }
    const int status = o.help ? TERSE_OK : check_whole(&o, error);
    if (status == TERSE_OK)
        *ret_options = o;
    return status;
}

#define ARGUMENTS "TEACHER.onnx --data DATA.npz -o OUT.onnx|OUT.terse [options]"
#define ABOUT "Trains a smaller network to answer as TEACHER.onnx does, on samples without labels."

void terse_distill_options_print_table(FILE *out)
{
    fprintf(out, "program\tterse distill\t" ARGUMENTS "\nabout\t" ABOUT "\n");
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &table[i];
        const char letter[3] = {'-', o->letter, 0};
        fprintf(out, "option\t%s\t%s\t%s\t%s\n", o->letter ? letter : "", o->name, o->argument ? o->argument : "",
                o->help);
    }
}

void terse_distill_options_help(FILE *out)
{
    fprintf(out, "usage: terse distill " ARGUMENTS "\n" ABOUT "\n\n");
    for (int i = 0; i < N_OPTIONS; i++) {
        char letter[5] = "", left[64];
        if (table[i].letter)
            snprintf(letter, sizeof letter, "-%c, ", table[i].letter);
        snprintf(left, sizeof left, "  %s%s%s%s", letter, table[i].name, table[i].argument ? " " : "",
                 table[i].argument ? table[i].argument : "");
        fprintf(out, "%-30s", left);
        if (strlen(left) >= 30)
            fprintf(out, "\n%*s", 30, "");
        terse_options_print_wrapped(out, table[i].help, 30);
    }
    fprintf(out, "\nCtrl-C ends the training: the best student so far is written.\n"
                 "Exit codes: 0 done, 1 the work failed, 2 wrong usage.\n");
}
