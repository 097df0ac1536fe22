#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Debian packages, boots a real systemd in a container and plays packages_story.bash there, which installs them
# with apt, runs and torments the service, upgrades, removes and purges it, and prints the results. Everything happens in
# mount and pid namespaces of its own, over a throw-away overlay. TERSE_SUITES="bookworm trixie" does so for each of these
# (make check-system); by default what this build made is packaged for the suite of this machine, without compiling it again.
# Wants root, mmdebstrap, systemd-nspawn, and Debian packages from the network on its first run (roots are kept in build/).
set -uo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
build=${TERSE_BUILD:-build/release}
skip() { echo "1..1"; echo "ok 1 - the packages on a booted system # SKIP $1"; exit 0; }
fail() { # NAME FILE
    echo "1..1"
    echo "not ok 1 - $1"
    tail -n 40 "$2" | sed 's/^/# /'
    exit 1
}

# --- in the namespaces: the host's cgroup hierarchies give way to a pure version 2, as systemd wants it ---
boot() {
    local work=$TERSE_BOOT_WORK group=/sys/fs/cgroup/$TERSE_BOOT_NAME
    umount -R /sys/fs/cgroup 2>/dev/null
    mount -t cgroup2 cgroup2 /sys/fs/cgroup || skip "no cgroup2 here"
    mkdir "$group" && echo 0 >"$group/cgroup.procs" || skip "no control group of its own"
    mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd
    cat >"$work/story.service" <<'EOT'
[Unit]
Description=the story
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash /package/story.sh
StandardOutput=append:/out/tap
StandardError=append:/out/noise
Environment=HOME=/root LC_ALL=C.UTF-8 SYSTEMD_COLORS=0 SYSTEMD_PAGER= DEBIAN_FRONTEND=noninteractive
EOT
    printf '[Unit]\nRequires=multi-user.target story.service\nAfter=multi-user.target\nAllowIsolate=yes\n' >"$work/story.target"
    timeout -k 5 "$TERSE_BOOT_SECONDS" systemd-nspawn --quiet --boot --directory="$TERSE_BOOT_ROOTFS" \
        --machine="$TERSE_BOOT_NAME" --volatile=overlay --register=no --keep-unit --kill-signal=SIGRTMIN+4 --private-network \
        --resolv-conf=off --timezone=off --link-journal=no --console=pipe --capability=all --system-call-filter=bpf \
        --bind-ro="$work/package:/package" --bind="$work/out:/out" \
        --bind-ro="$work/story.service:/etc/systemd/system/story.service" \
        --bind-ro="$work/story.target:/etc/systemd/system/story.target" -- --unit=story.target </dev/null >"$work/console" 2>&1
    local code=$?
    [ -s "$work/out/tap" ] || fail "the container boots (status $code)" "$work/console"
    cat "$work/out/tap"
    if ! grep -q '^1\.\.' "$work/out/tap"; then
        echo "not ok - the story comes to its end (status $code)"
        tail -n 20 "$work/out/noise" | sed 's/^/# /'
        exit 1
    fi
    ! grep -q '^not ok' "$work/out/tap"
}
if [ -n "${TERSE_BOOT_WORK:-}" ]; then
    boot
    exit
fi

[ "$(id -u)" = 0 ] || skip "only root can boot a container"
for tool in mmdebstrap systemd-nspawn unshare setpriv dpkg-buildpackage dh_installsysusers dh_python3; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
[ "$(basename "$build")" = release ] || skip "release builds only: the unit's limits leave no room for a sanitizer"
unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces here"
# Who asks for this story alone waits for a slow network and a busy machine; among all the others it may not hold them up.
patience=$([ -n "${TERSE_SUITES:-}" ] && echo 1500 || echo 240)
export TERSE_BOOT_SECONDS=${TERSE_BOOT_SECONDS:-$((patience * 5 / 3))}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# Sets $debs. With a suite of its own they are built again when a source is newer than they are.
packages_of() { # SUITE
    debs=build/deb/$1
    if [ -z "${TERSE_SUITES:-}" ]; then
        debs=build/deb/as-built
        packaging/deb.sh --as-built >"$work/deb.log" 2>&1 || fail "this build is packaged" "$work/deb.log"
    elif ! ls "$debs"/tersed_*.deb >/dev/null 2>&1 ||
        [ -n "$(find Makefile client common compress daemon packaging -newer "$debs/build.log" -type f -print -quit)" ]; then
        packaging/deb.sh "$1" >"$work/deb.log" 2>&1 || fail "the packages are built ($1)" "$work/deb.log"
    fi
}

# A root with all that the packages depend on: inside there is no network.
root_of() { # SUITE
    local depends rootfs
    depends=$(for deb in "$debs"/*.deb; do dpkg-deb -f "$deb" Pre-Depends; dpkg-deb -f "$deb" Depends; done | tr ',' '\n' |
        sed -e 's/|.*//' -e 's/([^)]*)//' -e 's/:any//' -e 's/ //g' | grep -vE '^$|^(lib|python3-)?terse' | sort -u | paste -sd,)
    case $1 in bookworm) depends=${depends/libmsgpack-c-dev/libmsgpack-dev} ;; esac
    rootfs=$here/build/root-system-$1-$(echo "$depends" | cksum | cut -d' ' -f1)
    if [ ! -x "$rootfs/usr/lib/systemd/systemd" ]; then
        if ! timeout "$patience" mmdebstrap --quiet --variant=minbase \
            --include="systemd,systemd-sysv,dbus,procps,adduser,$depends" "$1" "$rootfs.$$" >"$work/mmdebstrap" 2>&1; then
            rm -rf "$rootfs.$$"
            skip "no root file system within $patience s: $(grep -v ' failed to run$' "$work/mmdebstrap" | tail -n 1)"
        fi
        mv -T "$rootfs.$$" "$rootfs"
    fi
    TERSE_BOOT_ROOTFS=$rootfs
}

# The same packages under a higher version, for the upgrade.
next_version() { # FOLDER OF DEBS, INTO
    local deb tree=$work/tree
    for deb in "$1"/*.deb; do
        rm -rf "$tree"
        dpkg-deb -R "$deb" "$tree" &&
            sed -i -e 's/^Version: .*/&+next/' -e 's/(= \([^)]*\))/(= \1+next)/g' "$tree/DEBIAN/control" &&
            dpkg-deb -Znone --root-owner-group -b "$tree" "$2/next_$(basename "$deb")" >/dev/null || return 1
    done
}

fill_package() { # SUITE
    rm -rf "$work/package" "$work/out" "$work/tree"
    mkdir -p "$work/package/debs" "$work/package/next" "$work/out"
    cp "$debs"/*.deb "$work/package/debs"
    rm -f "$work/package/debs/"*-dbgsym_*
    next_version "$work/package/debs" "$work/package/next" || return 1
    cp tests/system/packages_story.bash "$work/package/story.sh"
    cp tests/system/packages_load.py "$work/package/load.py"
    # The example, compiled with what libterse-dev brings.
    mkdir "$work/dev"
    for deb in "$work"/package/debs/libterse*.deb; do dpkg -x "$deb" "$work/dev"; done
    (cd "$work/dev" && gunzip -fk usr/share/doc/libterse-dev/examples/*.gz 2>/dev/null
        cc -Wl,--unresolved-symbols=ignore-in-shared-libs usr/share/doc/libterse-dev/examples/classify.c -o "$work/package/classify" \
        $(PKG_CONFIG_SYSROOT_DIR=$PWD PKG_CONFIG_LIBDIR=$(echo "$PWD"/usr/lib/*/pkgconfig) pkg-config --cflags --libs libterse)) &&
        rm -rf "$work/dev" &&
        "$build/terse" compress tests/data/digits.onnx -o "$work/package/digits.terse" >/dev/null 2>&1 &&
        PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/system /usr/bin/python3 - "$work" <<'PYTHON' &&
import sys, numpy, onnx_writer
work = sys.argv[1]
with numpy.load("tests/data/digits_test.npz") as digits:
    numpy.savez(f"{work}/package/in.npz", image=digits["image"][:3])
    with open(f"{work}/package/three_digits", "w") as file:
        file.write("\n".join(" ".join(str(int(v)) for v in image.ravel()) for image in digits["image"][:3]))
rng, side = numpy.random.default_rng(1), 2896  # three layers of 33.5 MB
weights = {f"w{i}": (rng.standard_normal((side, side)) / side ** 0.5).astype("f4") for i in range(3)}
onnx_writer.write(f"{work}/large.onnx", inputs=[("x", "f4", ["N", side])], outputs=[("y", "f4", ["N", side])],
                  nodes=[("Gemm", ["x" if i == 0 else f"h{i}", f"w{i}"], ["y" if i == 2 else f"h{i + 1}"], {}) for i in range(3)],
                  constants=weights)
PYTHON
        "$build/terse" compress "$work/large.onnx" -o "$work/package/large.terse" --no-tune >/dev/null 2>&1
}

own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
failed=0
for suite in ${TERSE_SUITES:-$own}; do
    export TERSE_BOOT_NAME=terse-boot-$$ TERSE_BOOT_ROOTFS
    packages_of "$suite"
    root_of "$suite"
    fill_package "$suite" >"$work/fill" 2>&1 || fail "what the story needs is there ($suite)" "$work/fill"
    echo "# $suite"
    # All of it dies with this script.
    TERSE_BOOT_WORK=$work setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" ||
        failed=1
    for _ in $(seq 50); do # the kernel lets go of a control group a moment after its last process
        find /sys/fs/cgroup -depth -type d -path "*/$TERSE_BOOT_NAME*" -exec rmdir {} + 2>/dev/null
        [ -n "$(find /sys/fs/cgroup -maxdepth 2 -name "$TERSE_BOOT_NAME")" ] || break
        sleep 0.1
    done
done
exit $failed
