/* SPDX-License-Identifier: Apache-2.0 */
/* networks.h: the dense convolutions of known networks, for timing. */
#ifndef TERSE_TESTS_KERNELS_NETWORKS_H
#define TERSE_TESTS_KERNELS_NETWORKS_H

#include "harness.h"

/* One layer of a network: square maps and kernels. `times`: how often the network has it. */
typedef struct layer {
    int size, channels, filters, kernel, stride, pad, times;
} layer;

static const layer squeezenet[] = {{224, 3, 64, 3, 2, 0, 1},  {55, 64, 16, 1, 1, 0, 1},  {55, 16, 64, 1, 1, 0, 2},
                                   {55, 16, 64, 3, 1, 1, 2},  {55, 128, 16, 1, 1, 0, 1}, {27, 128, 32, 1, 1, 0, 1},
                                   {27, 32, 128, 1, 1, 0, 2}, {27, 32, 128, 3, 1, 1, 2}, {27, 256, 32, 1, 1, 0, 1},
                                   {13, 256, 48, 1, 1, 0, 1}, {13, 48, 192, 1, 1, 0, 2}, {13, 48, 192, 3, 1, 1, 2},
                                   {13, 384, 48, 1, 1, 0, 1}, {13, 384, 64, 1, 1, 0, 1}, {13, 64, 256, 1, 1, 0, 2},
                                   {13, 64, 256, 3, 1, 1, 2}, {13, 512, 64, 1, 1, 0, 1}, {13, 512, 1000, 1, 1, 0, 1}};
static const layer resnet50[] = {{224, 3, 64, 7, 2, 3, 1},    {56, 64, 64, 1, 1, 0, 1},    {56, 64, 64, 3, 1, 1, 3},
                                 {56, 64, 256, 1, 1, 0, 4},   {56, 256, 64, 1, 1, 0, 2},   {56, 256, 128, 1, 1, 0, 1},
                                 {56, 128, 128, 3, 2, 1, 1},  {28, 128, 512, 1, 1, 0, 4},  {56, 256, 512, 1, 2, 0, 1},
                                 {28, 512, 128, 1, 1, 0, 3},  {28, 128, 128, 3, 1, 1, 3},  {28, 512, 256, 1, 1, 0, 1},
                                 {28, 256, 256, 3, 2, 1, 1},  {14, 256, 1024, 1, 1, 0, 6}, {28, 512, 1024, 1, 2, 0, 1},
                                 {14, 1024, 256, 1, 1, 0, 5}, {14, 256, 256, 3, 1, 1, 5},  {14, 1024, 512, 1, 1, 0, 1},
                                 {14, 512, 512, 3, 2, 1, 1},  {7, 512, 2048, 1, 1, 0, 3},  {14, 1024, 2048, 1, 2, 0, 1},
                                 {7, 2048, 512, 1, 1, 0, 2},  {7, 512, 512, 3, 1, 1, 2},   {1, 2048, 1000, 1, 1, 0, 1}};
static const layer mobilenetv2[] = {{224, 3, 32, 3, 2, 1, 1},  {112, 32, 16, 1, 1, 0, 1},  {112, 16, 96, 1, 1, 0, 1},
                                    {56, 96, 24, 1, 1, 0, 1},  {56, 24, 144, 1, 1, 0, 2},  {56, 144, 24, 1, 1, 0, 1},
                                    {28, 144, 32, 1, 1, 0, 1}, {28, 32, 192, 1, 1, 0, 3},  {28, 192, 32, 1, 1, 0, 2},
                                    {14, 192, 64, 1, 1, 0, 1}, {14, 64, 384, 1, 1, 0, 4},  {14, 384, 64, 1, 1, 0, 3},
                                    {14, 384, 96, 1, 1, 0, 1}, {14, 96, 576, 1, 1, 0, 3},  {14, 576, 96, 1, 1, 0, 2},
                                    {7, 576, 160, 1, 1, 0, 1}, {7, 160, 960, 1, 1, 0, 3},  {7, 960, 160, 1, 1, 0, 2},
                                    {7, 960, 320, 1, 1, 0, 1}, {7, 320, 1280, 1, 1, 0, 1}, {1, 1280, 1000, 1, 1, 0, 1}};

/* Prints the time of one layer; returns the seconds of all that the network has of it. */
typedef double layer_bench(const terse_kernels *kernels, const layer *l);

/* `peak`: operations per second, or 0 when not known. */
static void network_bench(const terse_kernels *kernels, const char *name, const layer *layers, size_t n,
                          layer_bench *bench, double peak)
{
    double total = 0.0, macs = 0.0;
    for (size_t i = 0; i < n; i++) {
        const layer *l = &layers[i];
        const double out = (l->size + 2 * l->pad - l->kernel) / l->stride + 1;
        macs += out * out * l->kernel * l->kernel * l->channels * l->filters * l->times;
        total += bench(kernels, l);
    }
    printf("%-10s %s, dense convolutions: %.3f ms, %.0f M MACs, %.1f GOP/s", kernels->name, name, total * 1e3,
           macs * 1e-6, 2e-9 * macs / total);
    printf(peak > 0.0 ? ", %.1f %% of the peak\n" : "\n", 200.0 * macs / total / peak);
}

static void networks_bench(const terse_kernels *kernels, layer_bench *bench, double peak)
{
    network_bench(kernels, "SqueezeNet 1.1", squeezenet, sizeof squeezenet / sizeof *squeezenet, bench, peak);
    network_bench(kernels, "ResNet-50", resnet50, sizeof resnet50 / sizeof *resnet50, bench, peak);
    network_bench(kernels, "MobileNetV2", mobilenetv2, sizeof mobilenetv2 / sizeof *mobilenetv2, bench, peak);
}

#endif
