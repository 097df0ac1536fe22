/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/tune/cost_fit.h"

#include <math.h>

int terse_cost_fit(const terse_cost_point *points, size_t n, terse_cost_line *ret_line)
{
    double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(points[i].us > 0) || !(points[i].rows > 0))
            continue;
        const double weight = 1 / (points[i].us * points[i].us);
        w += weight;
        wx += weight * points[i].rows;
        wy += weight * points[i].us;
        wxx += weight * points[i].rows * points[i].rows;
        wxy += weight * points[i].rows * points[i].us;
        used++;
    }
    if (used == 0)
        return 0;
    const double wide = w * wxx - wx * wx;
    double b = wide > 1e-12 * w * wxx ? (w * wxy - wx * wy) / wide : wxy / wxx, a = (wy - b * wx) / w;
    if (used == 1 || a < 0) { /* no part that does not grow */
        b = wxy / wxx;
        a = 0;
    }
    if (b < 0) { /* no part that grows */
        b = 0;
        a = wy / w;
    }
    *ret_line = (terse_cost_line){fmax(a, 0), b};
    return 1;
}

unsigned terse_cost_enough(const terse_cost_line *line, double extra_us, double gain, unsigned most)
{
    unsigned rows = 1;
    while (rows < most) {
        const double now = (line->a_us + extra_us) / rows + line->b_us;
        const double twice = (line->a_us + extra_us) / (2.0 * rows) + line->b_us;
        if (twice > now * (1 - gain))
            break;
        rows *= 2;
    }
    return rows < most ? rows : most;
}
