#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the kernel tests for AArch64, static, with the flags that the Makefile builds kernels with, and runs them under
# qemu-user: the NEON tiers against the scalar one. Prints TAP; skips when the cross compiler or the emulator is missing
# (gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user). On an AArch64 machine the ordinary kernel tests cover the tiers.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=build/arm
cc=aarch64-linux-gnu-gcc
names="products windows vectors quantized weights bytes sparse reduced"
echo 1..8
built=
if command -v $cc >/dev/null && command -v qemu-aarch64 >/dev/null; then
    objects=
    for file in common/status.c common/bytes.c common/tensor.c common/sparse.c common/kernels/dispatch.c common/kernels/ref/*.c \
        common/kernels/arm/*.c; do
        objects="$objects $out/obj/${file%.c}.o"
    done
    tests=
    for name in $names; do tests="$tests $out/obj/tests/kernels/test_$name.o"; done
    make -j"$(nproc)" SETUP=no CC=$cc VARIANT=arm WERROR=-Werror $objects $tests >&2 && built=true || built=false
fi
n=0
for name in $names; do
    n=$((n + 1))
    if [ -z "$built" ]; then
        echo "ok $n - neon_$name # SKIP needs $cc and qemu-aarch64"
    elif $built && $cc -static -o $out/test_$name $objects $out/obj/tests/kernels/test_$name.o -lm >&2 &&
        qemu-aarch64 $out/test_$name >$out/$name.tap; then
        echo "ok $n - neon_$name"
    else
        sed 's/^/# /' $out/$name.tap 2>/dev/null
        echo "not ok $n - neon_$name"
    fi
done
