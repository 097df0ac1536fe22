/* SPDX-License-Identifier: Apache-2.0 */
/* offsets.c: places the groups of a plan in one arena so that groups alive at the same time do not overlap.
 *
 * Largest group first, each into the smallest gap between the groups already placed that are alive with it (Pisarchyk
 * and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020, section 5.3). That takes
 * O(groups^2) steps, so graphs with thousands of groups are placed in execution order instead, as a heap would. */
#include "common/graph/plan.h"

#include <stdlib.h>

enum { MANY_GROUPS = 3000, MANY_ALIVE = 1000, ALIGNMENT = 64 };

static bool in_arena(const terse_group *group)
{
    return group->kind == TERSE_GROUP_ARENA && group->size > 0;
}

static size_t room_of(const terse_group *group)
{
    return terse_align(group->size, ALIGNMENT);
}

/* Groups that mostly live in a caller's buffer come last, so that they do not spread the others. */
static int by_size(const void *a, const void *b, void *context)
{
    const terse_group *groups = context;
    const int ia = *(const int *)a, ib = *(const int *)b;
    const terse_group *ga = &groups[ia], *gb = &groups[ib];
    if ((ga->output < 0) != (gb->output < 0))
        return ga->output < 0 ? -1 : 1;
    if (ga->size != gb->size)
        return ga->size > gb->size ? -1 : 1;
    return ia < ib ? -1 : ia > ib;
}

/* Where the group fits best, at `floor` or above, among the placed ones (sorted by offset) that are alive with it. */
static size_t best_gap(const terse_group *groups, const int *placed, int n_placed, const terse_group *group,
                       size_t floor)
{
    const size_t size = room_of(group);
    size_t best = SIZE_MAX, best_slack = SIZE_MAX, top = floor;
    for (int i = 0; i < n_placed; i++) {
        const terse_group *other = &groups[placed[i]];
        if (other->end < group->start || other->start > group->end)
            continue;
        if (other->offset > top && other->offset - top >= size && other->offset - top - size < best_slack) {
            best = top;
            best_slack = other->offset - top - size;
        }
        if (other->offset + room_of(other) > top)
            top = other->offset + room_of(other);
    }
    return best == SIZE_MAX ? top : best;
}

static void insert_by_offset(const terse_group *groups, int *placed, int n_placed, int added)
{
    int at = n_placed;
    for (; at > 0 && groups[placed[at - 1]].offset > groups[added].offset; at--)
        placed[at] = placed[at - 1];
    placed[at] = added;
}

/* The first n entries of `order` become the placed groups, sorted by offset, as the rest shrinks. */
static size_t assign_by_size(terse_group *groups, int n_groups, int *order)
{
    int n = 0;
    for (int g = 0; g < n_groups; g++)
        if (in_arena(&groups[g]))
            order[n++] = g;
    qsort_r(order, (size_t)n, sizeof *order, by_size, groups);
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        terse_group *group = &groups[order[i]];
        group->offset = best_gap(groups, order, i, group, 0);
        if (group->offset + room_of(group) > total)
            total = group->offset + room_of(group);
        insert_by_offset(groups, order, i, order[i]);
    }
    return total;
}

static int by_start(const void *a, const void *b, void *context)
{
    const terse_group *groups = context;
    const int ia = *(const int *)a, ib = *(const int *)b;
    if (groups[ia].start != groups[ib].start)
        return groups[ia].start < groups[ib].start ? -1 : 1;
    return ia < ib ? -1 : ia > ib;
}

/* In the order of their first nodes; the room of groups that have ended is given out again. With more than MANY_ALIVE
 * of them alive their room is kept for good, and a new arena begins above it. */
static size_t assign_by_time(terse_group *groups, int n_groups, int *order)
{
    int n = 0, n_alive = 0;
    for (int g = 0; g < n_groups; g++)
        if (in_arena(&groups[g]))
            order[n++] = g;
    qsort_r(order, (size_t)n, sizeof *order, by_start, groups);
    size_t total = 0, floor = 0;
    for (int i = 0; i < n; i++) {
        const int added = order[i];
        terse_group *group = &groups[added];
        int kept = 0;
        for (int j = 0; j < n_alive; j++)
            if (groups[order[j]].end >= group->start)
                order[kept++] = order[j];
        n_alive = kept;
        if (n_alive == MANY_ALIVE) {
            n_alive = 0;
            floor = total;
        }
        group->offset = best_gap(groups, order, n_alive, group, floor);
        if (group->offset + room_of(group) > total)
            total = group->offset + room_of(group);
        insert_by_offset(groups, order, n_alive++, added);
    }
    return total;
}

size_t terse_offsets_assign(terse_group *groups, int n_groups, int *order)
{
    return n_groups > MANY_GROUPS ? assign_by_time(groups, n_groups, order) : assign_by_size(groups, n_groups, order);
}

size_t terse_offsets_separate(terse_group *groups, int n_groups)
{
    size_t total = 0;
    for (int g = 0; g < n_groups; g++)
        if (in_arena(&groups[g])) {
            groups[g].offset = total;
            total += room_of(&groups[g]);
        }
    return total;
}
