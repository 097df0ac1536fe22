/* SPDX-License-Identifier: Apache-2.0 */
#include "compress/energy.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static bool read_counter(const char *folder, const char *name, double *ret_joules)
{
    char path[512];
    unsigned long long microjoules;
    snprintf(path, sizeof path, "%.200s/%.200s/energy_uj", folder, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    const bool good = fscanf(file, "%llu", &microjoules) == 1;
    fclose(file);
    if (good)
        *ret_joules += (double)microjoules / 1e6;
    return good;
}

bool terse_energy_read_in(const char *folder, double *ret_joules)
{
    DIR *list = opendir(folder);
    double sum = 0;
    int n = 0;
    bool good = list != NULL;
    for (const struct dirent *entry; good && (entry = readdir(list));) {
        /* packages are "intel-rapl:N", also where they are AMD's; "intel-rapl:N:M" is a part of one */
        if (strncmp(entry->d_name, "intel-rapl:", 11) != 0 || strchr(entry->d_name + 11, ':'))
            continue;
        good = read_counter(folder, entry->d_name, &sum);
        n++;
    }
    if (list)
        closedir(list);
    if (good && n > 0)
        *ret_joules = sum;
    return good && n > 0;
}

bool terse_energy_read(double *ret_joules)
{
    return terse_energy_read_in("/sys/class/powercap", ret_joules);
}
