#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The unit that `make install` writes: systemd finds nothing to complain about, and it gives away next to nothing.
set -u
cd "$(dirname "$0")/../.."
echo 1..3
if ! command -v systemd-analyze >/dev/null; then
    for i in 1 2 3; do echo "ok $i - the unit # SKIP systemd-analyze is not installed"; done
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
tell $? 1 "make install puts the unit in place" "$work/install"
unit=$work/root/usr/lib/systemd/system/tersed.service
# It is to be judged here, where its program is not installed.
sed "s|^ExecStart=/usr/bin/|ExecStart=$work/root/usr/bin/|" "$unit" >"$work/tersed.service"
systemd-analyze verify --man=no "$work/tersed.service" >"$work/verify" 2>&1
[ $? = 0 ] && ! [ -s "$work/verify" ]
tell $? 2 "systemd-analyze verify is silent" "$work/verify"
systemd-analyze security --no-pager --offline=true --threshold=5 "$work/tersed.service" >"$work/security" 2>&1
tell $? 3 "its exposure is at most 0.5 of 10" "$work/security"
exit $failed
