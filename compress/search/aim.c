/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/search/aim.h"

#include <math.h>

static const double least_saves = 0.3,
                    most_saves = 1.3; /* beyond that it was another thing that made it fast or slow */
static const double tells = 0.04;     /* of the dense one's time: less saved says nothing */
static const double deeper = 0.985;   /* times differ by about that much */
static const double light = 0.97;     /* lighter than that is lighter than it has to be */
static const double same = 0.01;
static const double near_miss = 1.03;
static const double good_epochs = 8; /* fewer for one are better than still fewer for two */

double terse_aim_corrected(double dense, double model, double saves)
{
    return dense - saves * (dense - model);
}

double terse_aim_model(double dense, double wanted, double saves)
{
    return dense - (dense - wanted) / saves;
}

double terse_aim_learn(double saves, double dense, double model, double found)
{
    if (!(dense - model > tells * dense))
        return saves;
    return fmin(most_saves, fmax(least_saves, (dense - found) / (dense - model)));
}

double terse_aim_for(double target, bool bytes)
{
    return bytes ? target : deeper * target;
}

bool terse_aim_is_there(double found, double target)
{
    return found <= target && found > light * target;
}

double terse_aim_again(double aim, double found, double target)
{
    return aim * fmin(1.5, fmax(0.5, (found > target ? 0.995 : 0.999) * target / found));
}

bool terse_aim_is_same(double low, double high, double all)
{
    return high - low <= same * all;
}

double terse_aim_missed(double us, double target)
{
    return target > 0 && us > target ? ceil(100 * (us / target - 1)) : 0;
}

bool terse_aim_is_near(double us, double target)
{
    return target > 0 && us <= near_miss * target;
}

bool terse_aim_is_more_promising(double us_a, double drop_a, double us_b, double drop_b, double target)
{
    const bool at_a = us_a <= target, at_b = us_b <= target;
    return at_a != at_b ? at_a : drop_a != drop_b ? drop_a < drop_b : us_a < us_b;
}

bool terse_aim_bf16_may_win(double us_fp32, double us_int8, double target)
{
    const double least = 0.5 * us_fp32;
    return us_int8 > least || (target > 0 && least <= target);
}

int terse_aim_divide(double seconds, double build_seconds, double epoch_seconds, int64_t epochs, int n)
{
    const double wanted = build_seconds + (epochs > 0 ? (double)epochs : good_epochs) * epoch_seconds;
    int k = n;
    while (k > 1 && seconds / k < wanted)
        k--;
    return k > 1 ? k : 1;
}
