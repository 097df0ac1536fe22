#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Boots a real systemd in a container, starts the installed tersed.service there and plays systemd_boot_story.bash, which
# prints the results. Everything happens in mount and pid namespaces of its own, over a throw-away overlay.
# Wants root, mmdebstrap and systemd-nspawn, and Debian packages from the network on its first run (kept in
# build/rootfs-SUITE).
set -uo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
build=${TERSE_BUILD:-build/release}
skip() { echo "1..1"; echo "ok 1 - the service on a booted systemd # SKIP $1"; exit 0; }

if [ -z "${TERSE_BOOT_WORK:-}" ]; then
    [ "$(id -u)" = 0 ] || skip "only root can boot a container"
    for tool in mmdebstrap systemd-nspawn unshare setpriv; do
        command -v $tool >/dev/null || skip "$tool is not installed"
    done
    [ "$(basename "$build")" = release ] || skip "release builds only: the unit's limits leave no room for a sanitizer"
    unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces here"
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # The packages of the libraries that our programs are linked with here; other ones want another root.
    libraries=$(ldd "$build"/{terse,terse-npz.so,tersed,terse-frontend,terse-gate,terse-worker,terse-loader} | sed -n 's/.*=> \([^ ]*\) .*/\1/p' | sort -u)
    packages=$(for l in $libraries; do dpkg-query -S "*/$(basename "$(readlink -f "$l")")"; done 2>/dev/null |
        cut -d: -f1 | sort -u | paste -sd,)
    rootfs=$here/build/rootfs-$suite-$(echo "$packages" | cksum | cut -d' ' -f1)
    export TERSE_BOOT_WORK TERSE_BOOT_ROOTFS=$rootfs TERSE_BOOT_NAME=terse-boot-$$
    TERSE_BOOT_WORK=$(mktemp -d)
    trap 'rm -rf "$TERSE_BOOT_WORK"' EXIT
    trap 'exit 1' INT TERM
    if [ ! -x "$rootfs/usr/lib/systemd/systemd" ]; then
        mkdir -p build
        timeout 300 mmdebstrap --quiet --variant=minbase --include="systemd,systemd-sysv,procps,$packages" "$suite" \
            "$rootfs.$$" >"$TERSE_BOOT_WORK/mmdebstrap" 2>&1 ||
            { rm -rf "$rootfs.$$"; skip "no root file system: $(tail -n 1 "$TERSE_BOOT_WORK/mmdebstrap")"; }
        mv -T "$rootfs.$$" "$rootfs"
    fi
    mkdir "$TERSE_BOOT_WORK/package" "$TERSE_BOOT_WORK/out"
    make --no-print-directory install DESTDIR="$TERSE_BOOT_WORK/package" PREFIX=/usr >"$TERSE_BOOT_WORK/install" 2>&1 &&
        "$build/terse" compress tests/data/digits.onnx -o "$TERSE_BOOT_WORK/package/digits.terse" >>"$TERSE_BOOT_WORK/install" 2>&1 &&
        python3 - tests/data/digits_test.npz "$TERSE_BOOT_WORK/package/in.npz" >>"$TERSE_BOOT_WORK/install" 2>&1 <<'PYTHON' ||
import sys, numpy
with numpy.load(sys.argv[1]) as digits:
    numpy.savez(sys.argv[2], image=digits["image"][:3])
PYTHON
        { sed 's/^/# /' "$TERSE_BOOT_WORK/install"; echo "1..1"; echo "not ok 1 - install for the booted system"; exit 1; }
    cp tests/system/systemd_boot_story.bash "$TERSE_BOOT_WORK/package/story.sh"
    # All of it dies with this script.
    setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0"
    code=$?
    for _ in $(seq 50); do # the kernel lets go of a control group a moment after its last process
        find /sys/fs/cgroup -depth -type d -path "*/$TERSE_BOOT_NAME*" -exec rmdir {} + 2>/dev/null
        [ -n "$(find /sys/fs/cgroup -maxdepth 2 -name "$TERSE_BOOT_NAME")" ] || break
        sleep 0.1
    done
    exit $code
fi

# --- in the namespaces: the host's cgroup hierarchies give way to a pure version 2, as systemd wants it ---
work=$TERSE_BOOT_WORK
umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup || skip "no cgroup2 here"
group=/sys/fs/cgroup/$TERSE_BOOT_NAME
mkdir "$group" && echo 0 >"$group/cgroup.procs" || skip "no control group of its own"
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd
cat >"$work/story.service" <<'EOT'
[Unit]
Description=the story
After=basic.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash /package/story.sh
StandardOutput=append:/out/tap
StandardError=inherit
Environment=LC_ALL=C.UTF-8 SYSTEMD_COLORS=0 SYSTEMD_PAGER=
EOT
printf '[Unit]\nRequires=basic.target story.service\nAfter=basic.target\nAllowIsolate=yes\n' >"$work/story.target"
timeout -k 5 120 systemd-nspawn --quiet --boot --directory="$TERSE_BOOT_ROOTFS" --machine="$TERSE_BOOT_NAME" --volatile=overlay \
    --register=no --keep-unit --kill-signal=SIGRTMIN+4 --private-network --resolv-conf=off --timezone=off --link-journal=no \
    --console=pipe --capability=all --system-call-filter=bpf --bind-ro="$work/package:/package" --bind="$work/out:/out" \
    --bind-ro="$work/story.service:/etc/systemd/system/story.service" \
    --bind-ro="$work/story.target:/etc/systemd/system/story.target" -- --unit=story.target </dev/null >"$work/console" 2>&1
code=$?
if ! [ -s "$work/out/tap" ]; then
    echo "1..1"
    echo "not ok 1 - the container boots (status $code)"
    tail -n 40 "$work/console" | sed 's/^/# /'
    exit 1
fi
cat "$work/out/tap"
! grep -q '^not ok' "$work/out/tap"
