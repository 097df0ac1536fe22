/* SPDX-License-Identifier: Apache-2.0 */
/* Design notes. As ONNX defines Resize: an output coordinate x maps to a coordinate u of the input; the neighbours of u
 * get weights that depend on u - floor(u) alone. Neighbours outside are the edge's, or (exclude_outside) get no
 * weight, the rest being scaled to a sum of 1. With antialias and scale < 1 the weight function is stretched by
 * 1 / scale. Weights that fall on the same element are added here, so that a table row is a dense run.
 *
 * A scale that is out / in up to fp32 rounding is taken to be that ratio: then halves come out exactly and rounding
 * modes decide as they should. */
#include "common/ops/resize_taps.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Of one axis: 44 seconds of sound at 48 kHz by cubic weights. A probe of shapes makes such a table dozens of times. */
enum { MAX_WEIGHTS = 1 << 23 };

static int choose(const terse_node *node, const char *name, const char *fallback, const char *const *names, int n,
                  int *ret_index, terse_error *error)
{
    const char *text = terse_node_text(node, name, fallback);
    char allowed[200] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_index = i;
            return TERSE_OK;
        }
        strncat(allowed, i ? ", " : "", sizeof allowed - strlen(allowed) - 1);
        strncat(allowed, names[i], sizeof allowed - strlen(allowed) - 1);
    }
    return terse_fail(error, TERSE_UNIMPLEMENTED, "attribute %s is '%.40s', allowed: %s", name, text, allowed);
}

int terse_resize_rule(const terse_node *node, resize_rule *ret_rule, terse_error *error)
{
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const coordinates[] = {"half_pixel",          "half_pixel_symmetric", "pytorch_half_pixel",
                                              "align_corners",       "asymmetric",           "tf_crop_and_resize",
                                              "tf_half_pixel_for_nn"};
    static const char *const nearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
    int mode = 0, coordinate = 0, rounding = 0;
    int status = choose(node, "mode", "nearest", modes, 3, &mode, error);
    if (status == TERSE_OK)
        status = choose(node, "coordinate_transformation_mode", "half_pixel", coordinates, 7, &coordinate, error);
    if (status == TERSE_OK)
        status = choose(node, "nearest_mode", "round_prefer_floor", nearest, 4, &rounding, error);
    if (status != TERSE_OK)
        return status;
    *ret_rule = (resize_rule){.mode = (resize_mode)mode,
                              .antialias = terse_node_int(node, "antialias", 0) != 0,
                              .exclude_outside = terse_node_int(node, "exclude_outside", 0) != 0,
                              .cubic_a = terse_node_float(node, "cubic_coeff_a", -0.75)};
    ret_rule->coordinates = (resize_coordinates)coordinate;
    ret_rule->nearest = (resize_nearest)rounding;
    return TERSE_OK;
}

static bool is_ratio(const resize_axis *axis)
{
    const double ratio = (double)axis->out / (double)axis->in;
    return fabs(axis->scale - ratio) <= 1e-6 * ratio;
}

bool terse_resize_identity(const resize_rule *rule, const resize_axis *axis)
{
    return axis->in == axis->out && is_ratio(axis) && rule->coordinates != RESIZE_TF_CROP_AND_RESIZE &&
           rule->coordinates != RESIZE_TF_HALF_PIXEL_FOR_NN;
}

/* x / scale */
static double unscale(const resize_axis *axis, double x)
{
    return is_ratio(axis) ? x * (double)axis->in / (double)axis->out : x / axis->scale;
}

static double coordinate_of(const resize_rule *rule, const resize_axis *axis, int64_t out)
{
    const double x = (double)out, in = (double)axis->in, size = (double)axis->out;
    switch (rule->coordinates) {
    case RESIZE_HALF_PIXEL:
        return unscale(axis, x + 0.5) - 0.5;
    case RESIZE_HALF_PIXEL_SYMMETRIC: {
        const double adjustment = is_ratio(axis) ? 1 : size / (axis->scale * in);
        return in / 2 * (1 - adjustment) + unscale(axis, x + 0.5) - 0.5;
    }
    case RESIZE_PYTORCH_HALF_PIXEL:
        return axis->out > 1 ? unscale(axis, x + 0.5) - 0.5 : 0;
    case RESIZE_ALIGN_CORNERS:
        return axis->out > 1 ? x * (in - 1) / (size - 1) : 0;
    case RESIZE_ASYMMETRIC:
        return unscale(axis, x);
    case RESIZE_TF_HALF_PIXEL_FOR_NN:
        return unscale(axis, x + 0.5);
    case RESIZE_TF_CROP_AND_RESIZE:
        break;
    }
    /* in fp32, as the regions are: a tie then falls as it does elsewhere */
    const float start = (float)axis->roi_start, end = (float)axis->roi_end, last = (float)(axis->in - 1);
    if (axis->out > 1)
        return (double)(start * last + (float)out * (end - start) * last / (float)(axis->out - 1));
    return (double)(0.5f * (start + end) * last);
}

static int64_t nearest_of(const resize_rule *rule, double u)
{
    switch (rule->nearest) {
    case RESIZE_ROUND_PREFER_FLOOR:
        return (int64_t)ceil(u - 0.5);
    case RESIZE_ROUND_PREFER_CEIL:
        return (int64_t)floor(u + 0.5);
    case RESIZE_FLOOR:
        return (int64_t)floor(u);
    case RESIZE_CEIL:
        break;
    }
    return (int64_t)ceil(u);
}

/* The weight of an element at distance d (in stretched units). */
static double weight_of(const resize_rule *rule, double d)
{
    const double a = rule->cubic_a;
    d = fabs(d);
    if (rule->mode == RESIZE_LINEAR)
        return d < 1 ? 1 - d : 0;
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

static int64_t clamp(int64_t value, int64_t most)
{
    return value < 0 ? 0 : value > most ? most : value;
}

/* Weights of output `out` around u, elements floor(u) - reach + 1 .. floor(u) + reach. */
static void fill_row(const resize_rule *rule, const resize_axis *axis, double u, int64_t reach, double stretch,
                     int64_t out)
{
    float *weights = axis->weights + out * axis->taps;
    const int64_t base = (int64_t)floor(u), last = axis->in - 1;
    int64_t first = clamp(base - reach + 1, last);
    if (first > axis->in - axis->taps)
        first = axis->in - axis->taps;
    double sum = 0;
    for (int64_t i = base - reach + 1; i <= base + reach; i++)
        if (!rule->exclude_outside || (i >= 0 && i <= last))
            sum += weight_of(rule, ((double)i - u) * stretch);
    const bool scaled = rule->exclude_outside || rule->antialias;
    for (int64_t i = base - reach + 1; i <= base + reach; i++) {
        const double weight = weight_of(rule, ((double)i - u) * stretch) / (scaled ? sum : 1);
        if (!rule->exclude_outside || (i >= 0 && i <= last))
            weights[clamp(i, last) - first] += (float)weight;
    }
    axis->first[out] = first;
}

int terse_resize_taps(const resize_rule *rule, terse_arena *arena, resize_axis *axis, terse_error *error)
{
    const double stretch = rule->antialias && axis->scale < 1 ? axis->scale : 1;
    const int64_t reach =
        rule->mode == RESIZE_NEAREST ? 0 : (int64_t)ceil((rule->mode == RESIZE_CUBIC ? 2 : 1) / stretch);
    axis->taps = rule->mode == RESIZE_NEAREST ? 1 : 2 * reach < axis->in ? 2 * reach : axis->in;
    int64_t weights;
    if (__builtin_mul_overflow(axis->taps, axis->out, &weights) || weights > MAX_WEIGHTS)
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED,
                          "resizing an axis from %" PRId64 " to %" PRId64 " needs too large a table", axis->in,
                          axis->out);
    axis->first = terse_arena_alloc(arena, (size_t)axis->out * sizeof *axis->first);
    if (rule->mode != RESIZE_NEAREST)
        axis->weights = terse_arena_alloc(arena, (size_t)weights * sizeof *axis->weights);
    if (!axis->first || (rule->mode != RESIZE_NEAREST && !axis->weights))
        return terse_fail(error, TERSE_RESOURCE_EXHAUSTED, "out of memory for a table of %" PRId64 " weights", weights);
    for (int64_t i = 0; i < axis->out; i++) {
        const double u = coordinate_of(rule, axis, i), last = (double)(axis->in - 1);
        if (rule->coordinates == RESIZE_TF_CROP_AND_RESIZE && !(u >= 0 && u <= last))
            axis->first[i] = -1;
        else if (rule->mode == RESIZE_NEAREST)
            axis->first[i] = clamp(nearest_of(rule, u), axis->in - 1);
        else
            fill_row(rule, axis, u, reach, stretch, i);
    }
    return TERSE_OK;
}
