#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# deb-check.sh SUITE...: what Debian asks of packages, in a bare root of each suite (`make deb-check`; root, mmdebstrap, network):
#   built from nothing there, and again elsewhere, later, with other locale, time zone and umask: the same bytes;
#   tersed, the daemon with its own files, has less than 2 MB installed as Debian counts (each file and folder in whole KiB);
#   lintian has no error and no warning;
#   piuparts installs, removes, installs again, removes and purges them, and finds nothing that is left or broken;
#   autopkgtest (debian/tests) has the installed packages answer.
# (Upgrades are the booted story's, make check-system: piuparts takes the version before from Debian's archive.)
# Roots are kept in build/, the packages in build/deb/SUITE, what the tools said beside them in *.log.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "deb-check.sh: only root can do this" >&2; exit 1; }
for tool in mmdebstrap unshare; do
    command -v $tool >/dev/null || { echo "deb-check.sh: $tool is not installed" >&2; exit 1; }
done
top=$PWD
failed=0
tell() { # RESULT NAME LOG
    if [ "$1" = 0 ]; then echo "ok - $suite: $2"; else
        echo "not ok - $suite: $2 ($3)"
        tail -n 15 "$3" | sed 's/^/# /'
        failed=1
    fi
}
inside() { # COMMAND: in the root of the tools, with its /proc, /sys, /dev and the network
    unshare --mount --pid --fork --kill-child sh -c '
        root=$1; mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev" &&
        mount -t tmpfs tmpfs "$root/run" && exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} sh -c "$2"' sh "$tools" "$1"
}
for suite in "$@"; do
    out=$top/build/deb/$suite
    tools=$top/build/root-check-$suite
    packaging/deb.sh --in-root "$suite" >/dev/null && first=0 || first=1
    tell $first "the packages are built in a bare root" "$out/build.log"
    [ $first = 0 ] || continue
    rm -rf "$out.first" && mv "$out" "$out.first"
    (umask 077; TZ=Pacific/Kiritimati LC_ALL=fr_FR.UTF-8 TERSE_DEB_PLACE=some/where/else packaging/deb.sh --in-root "$suite" >/dev/null) || true
    (cd "$out.first" && sha256sum *.deb) >"$out/first.sha256"
    (cd "$out" && cat first.sha256 && sha256sum -c --quiet first.sha256) >"$out/reproducible.log" 2>&1 && same=0 || same=1
    tell $same "built again elsewhere they have the same bytes" "$out/reproducible.log"
    bytes=$(($(dpkg-deb -f "$out"/tersed_*.deb Installed-Size) * 1024))
    dpkg-deb -c "$out"/tersed_*.deb >"$out/size.log"
    [ $bytes -lt 2000000 ] && r=0 || r=1
    tell $r "tersed has $bytes bytes installed, less than 2 MB" "$out/size.log"

    if [ ! -x "$tools/usr/bin/autopkgtest" ]; then
        rm -rf "$tools" "$tools".tmp
        mmdebstrap --quiet --variant=minbase --include=lintian,piuparts,autopkgtest,mmdebstrap,dpkg-dev,adduser,ca-certificates \
            "$suite" "$tools.tmp" >"$out/tools.log" 2>&1 ||
            { for tool in lintian piuparts autopkgtest; do
                echo "ok - $suite: $tool # SKIP no root to run it in: $(grep -v ' failed to run$' "$out/tools.log" | tail -n 1)"
            done; continue; }
        apt-config dump | grep -iE '^Acquire::(https?::|Check)' >"$tools.tmp/etc/apt/apt.conf.d/90host" || true # proxies
        cp /etc/resolv.conf "$tools.tmp/etc/" 2>/dev/null || true
        mv -T "$tools.tmp" "$tools"
    fi
    rm -rf "$tools/check" && mkdir -p "$tools/check/source" "$tools/check/debs"
    cp "$out"/*.deb "$out"/*.changes "$out"/*.buildinfo "$tools/check/debs/"
    rm -f "$tools"/check/debs/*-dbgsym_*
    cp -a packaging/debian tests/data "$tools/check/source/" && mkdir "$tools/check/source/tests" && mv "$tools/check/source/data" "$tools/check/source/tests/"

    inside 'lintian --allow-root --fail-on error,warning --tag-display-limit 0 /check/debs/*.deb' >"$out/lintian.log" 2>&1 && r=0 || r=1
    tell $r "lintian has neither error nor warning" "$out/lintian.log"
    # A real machine has systemd, whose own leftovers are not ours, and deluser, which purging calls: neither is removed here.
    inside "[ -e /base.tar.gz ] || { mmdebstrap --quiet --variant=minbase $suite /base.new.tar.gz && mv /base.new.tar.gz /base.tar.gz; }
        cd /check/debs && piuparts --no-eatmydata --install-remove-install --fake-essential-packages=adduser,systemd \
        --basetgz=/base.tar.gz --distribution=$suite *.deb" >"$out/piuparts.log" 2>&1 && r=0 || r=1
    tell $r "piuparts finds nothing" "$out/piuparts.log"
    # In the root itself, a copy of which is thrown away afterwards.
    rm -rf "$tools.test" && cp -a --reflink=auto "$tools" "$tools.test"
    tools=$tools.test
    inside 'cd /check && apt-get update -qq && autopkgtest --no-built-binaries /check/debs/*.deb /check/source/ -- null' \
        >"$out/autopkgtest.log" 2>&1 && r=0 || r=$?
    tools=${tools%.test}
    rm -rf "$tools.test"
    tell $r "autopkgtest has all of them answer" "$out/autopkgtest.log"
done
exit $failed
