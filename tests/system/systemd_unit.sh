#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The units that `make install` writes: systemd finds nothing to complain about, and they give away next to nothing.
set -u
cd "$(dirname "$0")/../.."
echo 1..6
if ! command -v systemd-analyze >/dev/null; then
    for i in 1 2 3 4 5 6; do echo "ok $i - the units # SKIP systemd-analyze is not installed"; done
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
tell() { # RESULT NUMBER NAME FILE
    if [ "$1" = 0 ]; then echo "ok $2 - $3"; else
        echo "not ok $2 - $3"
        sed 's/^/# /' "$4"
        failed=1
    fi
}
variant=$(basename "${TERSE_BUILD:-build/release}")
make --no-print-directory VARIANT="$variant" install DESTDIR="$work/root" PREFIX=/usr >"$work/install" 2>&1
tell $? 1 "make install puts the units in place" "$work/install"
# They are to be judged here, where the program is not installed.
mkdir "$work/units"
for unit in "$work"/root/usr/lib/systemd/system/*; do
    sed "s|=/usr/bin/|=$work/root/usr/bin/|" "$unit" >"$work/units/$(basename "$unit")"
done
cp "$work/units/tersed@.service" "$work/units/tersed@one.service"
cp "$work/units/tersed@.socket" "$work/units/tersed@one.socket"
rm "$work/units/tersed@.service" "$work/units/tersed@.socket"
set -- "$work"/units/*
systemd-analyze verify --man=no "$@" >"$work/verify" 2>&1
[ $? = 0 ] && ! [ -s "$work/verify" ] && [ $# -ge 5 ]
tell $? 2 "systemd-analyze verify is silent over $# units" "$work/verify"
number=3
for unit in tersed.service tersed@one.service terse-gateway.service; do
    systemd-analyze security --no-pager --offline=true --threshold=5 "$work/units/$unit" >"$work/security" 2>&1
    tell $? $number "the exposure of $unit is at most 0.5 of 10" "$work/security"
    number=$((number + 1))
done
make --no-print-directory VARIANT="$variant" uninstall DESTDIR="$work/root" PREFIX=/usr >"$work/install" 2>&1
left=$(find "$work/root" -type f -o -type l)
[ -z "$left" ]
tell $? 6 "make uninstall takes away what make install put there" "$work/install"
exit $failed
