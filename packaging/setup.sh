#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# setup.sh [--have]: install the Debian packages that building and testing terse needs (bookworm, trixie).
# --have only tells (exit status) whether they are all there.
set -eu
packages="gcc libc6-dev make pkg-config binutils libzmq3-dev libopenblas-dev liblapacke-dev libsystemd-dev
 protobuf-c-compiler libprotobuf-c-dev libinih-dev libcmocka-dev libseccomp-dev libzip-dev libxxhash-dev
 libsodium-dev libzstd-dev libncurses-dev libmicrohttpd-dev zlib1g-dev python3 python3-numpy python3-zmq python3-msgpack"
msgpack=libmsgpack-dev
if [ -r /etc/debian_version ] && [ "$(cut -d. -f1 /etc/debian_version)" != 12 ]; then msgpack=libmsgpack-c-dev; fi
missing=
for package in $packages $msgpack; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
[ "${1:-}" != --have ] || exit 1
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "terse: installing$missing"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
