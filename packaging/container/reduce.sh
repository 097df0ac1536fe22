#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# reduce.sh OUT: leaves of an installation under OUT what a serving container needs, and lists the Debian packages of the
# libraries that it links in usr/share/terse/packages. Compressing is not done there: OpenBLAS alone has 36 MB.
set -eu
out=$1
rm -rf "$out/usr/include" "$out/usr/share" "$out/usr/lib/systemd" "$out/usr/lib/sysusers.d" "$out/usr/lib/pkgconfig"
rm -f "$out/usr/lib/libterse.a" "$out/usr/lib/libterse.so" "$out/usr/lib/libterse.so.1" "$out/usr/lib/terse/terse-compress" \
    "$out/usr/lib/terse/terse-npz.so" "$out/usr/lib/terse/terse-screen.so"
mkdir -p "$out/usr/share/terse" "$out/etc/terse"
cp "$(dirname "$0")/tersed.conf" "$out/etc/terse/tersed.conf"
# `terse` loads libzmq when it is first needed, and so does not name it; the front end does.
for file in "$out"/usr/bin/* "$out"/usr/lib/terse/*; do
    ldd "$file" | sed -n 's/.*=> \([^ ]*\) .*/\1/p'
done | sort -u | while read -r library; do
    dpkg-query -S "*/$(basename "$(readlink -f "$library")")"
done | cut -d: -f1 | sort -u >"$out/usr/share/terse/packages"
[ -s "$out/usr/share/terse/packages" ]
