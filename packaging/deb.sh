#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# deb.sh [SUITE]: build the Debian packages into build/deb/SUITE, by default for the system that runs this. The source tree
# is what git knows of this checkout (all files without git), with packaging/debian as its debian/. What building needs is
# installed when it is missing, as by make. For another suite it is built in a root of that suite (mmdebstrap, root), which is
# kept in build/root-build-SUITE.
# deb.sh --in-root SUITE: in such a root in any case, and there in the folder $TERSE_DEB_PLACE ("build").
# deb.sh --as-built: what build/release has, for tests: packages in build/deb/as-built within half a minute, whose programs
# lack the distribution's compiler flags.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
as_built=
in_root=
[ "${1:-}" != --as-built ] || { as_built=as-built; shift; }
[ "${1:-}" != --in-root ] || { in_root=1; shift; }
suite=${as_built:-${1:-$own}}
out=$top/build/deb/$suite
rm -rf "$out" "$top/build/deb/source-$suite"
mkdir -p "$out" "$top/build/deb/source-$suite"
source=$top/build/deb/source-$suite/terse
mkdir "$source"
if git -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
    git -c safe.directory='*' ls-files -z --cached --others --exclude-standard
else
    find . -path ./build -prune -o -type f -print0
fi | tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$source"
cp -a "$source/packaging/debian" "$source/debian"
cp -a "$source/README.md" "$source/debian/" 2>/dev/null || true
rm -f "$source/debian/README.md"
jobs=parallel=$(nproc)

if [ -n "$as_built" ]; then
    mkdir "$source/build"
    cp -a build/release "$source/build/"
    find "$source/build" -type f -exec touch {} + # newer than every source: nothing is compiled
    (cd "$source" && DEB_BUILD_OPTIONS="$jobs noautodbgsym" dpkg-buildpackage -us -uc -b -nc -d >"$out/build.log" 2>&1) ||
        { tail -n 40 "$out/build.log" >&2; exit 1; }
elif [ -z "$in_root" ] && [ "$suite" = "$own" ]; then
    if ! (cd "$source" && dpkg-checkbuilddeps >/dev/null 2>&1); then
        sudo=
        [ "$(id -u)" = 0 ] || sudo=sudo
        echo "terse: some Debian packages are missing, installing what building packages needs" >&2
        $sudo apt-get update -qq >&2
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get build-dep -y -qq --no-install-recommends "$source" >&2
    fi
    (cd "$source" && DEB_BUILD_OPTIONS="$jobs" dpkg-buildpackage -us -uc -b >"$out/build.log" 2>&1) ||
        { tail -n 40 "$out/build.log" >&2; exit 1; }
else
    [ "$(id -u)" = 0 ] || { echo "deb.sh: only root can make a root for $suite" >&2; exit 1; }
    root=$top/build/root-build-$suite
    if [ ! -x "$root/usr/bin/dpkg-buildpackage" ]; then
        command -v mmdebstrap >/dev/null || { echo "deb.sh: mmdebstrap is not installed" >&2; exit 1; }
        depends=$(sed -n '/^Build-Depends:/,/^[^ ]/p' packaging/debian/control | sed -n 's/^ //p' | tr -d '\n' |
            sed -e 's/([^)]*)//g' -e 's/ *| *\([^,]*\)//g' -e 's/debhelper-compat/debhelper/' -e 's/dh-sequence-installsysusers,\?//')
        case $suite in bookworm) depends=$(echo "$depends" | sed 's/libmsgpack-c-dev/libmsgpack-dev/') ;; esac
        mmdebstrap --quiet --variant=buildd --include="$(echo "$depends" | tr -d ' ' | sed 's/,$//')" "$suite" "$root.$$" >&2
        mv -T "$root.$$" "$root"
    fi
    place=${TERSE_DEB_PLACE:-build}
    rm -rf "${root:?}/${place%%/*}" && mkdir -p "$root/$place" && cp -a "$source" "$root/$place/terse"
    # The manuals are made by asking the programs, which find each other by /proc.
    # What the caller's make was told (CC=...) is not for them; nor is a network there.
    unshare --mount --net --pid --fork sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" env -i \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root ${TZ:+TZ=$TZ} ${LC_ALL:+LC_ALL=$LC_ALL} sh -c "$2"' sh "$root" \
        "cd /$place/terse && DEB_BUILD_OPTIONS=$jobs dpkg-buildpackage -us -uc -b" >"$out/build.log" 2>&1 ||
        { tail -n 40 "$out/build.log" >&2; exit 1; }
    cp "$root/$place"/*.deb "$root/$place"/*.changes "$root/$place"/*.buildinfo "$source/.."
    rm -rf "${root:?}/${place%%/*}"
fi
mv "$source"/../*.deb "$source"/../*.changes "$source"/../*.buildinfo "$out"
rm -rf "$top/build/deb/source-$suite"
(cd "$out" && ls *.deb)
