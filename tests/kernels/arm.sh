#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the kernel tests for AArch64, static, and runs them under qemu-user: the NEON tier against the scalar one.
# Prints TAP; skips when the cross compiler or the emulator is missing (gcc-aarch64-linux-gnu libc6-dev-arm64-cross
# qemu-user). On an AArch64 machine the ordinary kernel tests cover the tier.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=build/arm
echo 1..8
n=0
for name in products windows vectors quantized weights bytes sparse reduced; do
    n=$((n + 1))
    if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
        echo "ok $n - neon_$name # SKIP needs aarch64-linux-gnu-gcc and qemu-aarch64"
        continue
    fi
    mkdir -p $out
    flags="-std=c17 -D_GNU_SOURCE -I. -O2 -Wall -Wextra -Wshadow -Wconversion -Werror -ffp-contract=off -fno-math-errno"
    # the tier of the dot product has its own instructions, as the Makefile gives them by suffix
    built=true
    for file in common/kernels/arm/*_neondot.c; do
        aarch64-linux-gnu-gcc $flags -march=armv8.2-a+dotprod -c "$file" -o $out/"$(basename "$file" .c).o" >&2 || built=false
    done
    if $built && aarch64-linux-gnu-gcc $flags -static common/status.c common/bytes.c common/tensor.c common/sparse.c common/kernels/dispatch.c common/kernels/ref/*.c \
        $(ls common/kernels/arm/*.c | grep -v _neondot) $out/*_neondot.o tests/kernels/test_$name.c -lm -o $out/test_$name >&2 &&
        qemu-aarch64 $out/test_$name >$out/$name.tap; then
        echo "ok $n - neon_$name"
    else
        sed 's/^/# /' $out/$name.tap 2>/dev/null
        echo "not ok $n - neon_$name"
    fi
done
