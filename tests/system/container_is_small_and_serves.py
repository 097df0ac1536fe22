#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""packaging/container/Containerfile, carried out step by step in root directories, since no builder of images need be here: the
stage that serves in every check, from what is built already; the stage that builds as well with TERSE_LONG=1.

Wants root and mmdebstrap, and Debian packages from the network (the base stays in build/)."""
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import harness

FOLDER = os.path.join(harness.ROOT, "packaging", "container")
LIMIT = 60 << 20
# What debian:*-slim leaves out of its packages.
SLIM = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/linda/*", "/usr/share/lintian/overrides/*", "/usr/share/locale/*",
        "/usr/share/man/*"]


def stages():
    """[(base, [(instruction, text)])] of the Containerfile."""
    with open(os.path.join(FOLDER, "Containerfile"), encoding="utf-8") as file:
        text = re.sub(r"\\\n", " ", "".join(line for line in file if not line.startswith("#")))
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append((rest, []))
        elif found:
            found[-1][1].append((word, rest))
    return found


def bytes_of(root):
    """As an image has them: files once, whatever their links."""
    seen, total = set(), 0
    for folder, _, names in os.walk(root):
        for name in names:
            info = os.lstat(os.path.join(folder, name))
            if info.st_ino not in seen:
                seen.add(info.st_ino)
                total += info.st_size
    return total


def suite():
    with open("/etc/os-release") as file:
        return dict(line.rstrip().split("=", 1) for line in file if "=" in line).get("VERSION_CODENAME", "bookworm")


def base():
    root = os.path.join(harness.ROOT, "build", f"slim-{suite()}")
    if not os.path.isdir(root):
        os.makedirs(os.path.dirname(root), exist_ok=True)
        part = f"{root}.{os.getpid()}"
        try:
            done = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *(f"--dpkgopt=path-exclude={p}" for p in SLIM),
                                   suite(), part], capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise harness.Skip(f"no base system: {done.stderr.strip().splitlines()[-1:]}")
            os.rename(part, root)
        except (OSError, subprocess.SubprocessError) as error:
            raise harness.Skip(f"no base system: {error}")
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return root


class Root:
    def __init__(self, folder, source=None):
        self.path = tempfile.mkdtemp(dir=folder)
        os.chmod(self.path, 0o755)
        subprocess.run(["cp", "-a", (source or base()) + "/.", self.path], check=True)
        shutil.copy("/etc/resolv.conf", f"{self.path}/etc/resolv.conf")
        self.folder = "/"

    def run(self, command):
        """The shell sees the new root alone, with a /proc and a /dev of its own."""
        inner = f"cd {self.folder} && {command}"
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c",
                               f"mount -t proc proc {self.path}/proc && mount --rbind /dev {self.path}/dev && "
                               f"exec chroot {self.path} sh -c {shlex.quote(inner)}"], capture_output=True, text=True,
                              timeout=1800, env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
        if done.returncode:
            raise AssertionError(f"RUN {command}: {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def with_packages(story, install, built):
    """The base after the step that installs packages, which depends on nothing but their list: kept in build/ too."""
    with open(f"{built}/out/usr/share/terse/packages") as file:
        packages = file.read()
    key = hashlib.sha256((install + packages).encode()).hexdigest()[:12]
    kept = os.path.join(harness.ROOT, "build", f"served-{suite()}-{key}")
    if not os.path.isdir(kept):
        root = Root(story.folder)
        os.makedirs(f"{root.path}/usr/share/terse")
        with open(f"{root.path}/usr/share/terse/packages", "w") as file:
            file.write(packages)
        root.run(install)
        part = f"{kept}.{os.getpid()}"
        subprocess.run(["cp", "-a", root.path, part], check=True)
        os.rename(part, kept)
    return kept


def carry_out(root, steps, sources, built):
    """The steps of a stage; what describes the image is collected."""
    image = {}
    for word, rest in steps:
        if word == "RUN":
            root.run(rest)
        elif word == "COPY" and rest.startswith("--from=build "):
            _, source, target = rest.split()
            subprocess.run(["cp", "-a", f"{built}{source}.", root.path + target], check=True)
        elif word == "COPY":
            source, target = rest.split()
            shutil.copytree(os.path.join(sources, source), root.path + target, symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("build", ".git"))
        elif word == "WORKDIR":
            os.makedirs(root.path + rest, exist_ok=True)
            root.folder = rest
        elif word in ("USER", "ENTRYPOINT", "HEALTHCHECK", "EXPOSE", "VOLUME", "STOPSIGNAL"):
            image[word] = rest
        else:
            raise AssertionError(f"the test knows no {word} {rest}")
    return image


# What a runtime does with the image: a read-only root, a tmpfs on the volume, no capabilities, no new privileges.
RUN = """
set -eu
root=$1 user=$2 volume=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o "mode=755,uid=$user,gid=$user" tmpfs "$root$volume"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all \
    --inh-caps=-all sh -c "$1"
"""
INSIDE = """
{entrypoint} 2>/run/terse/log &
daemon=$!
{check} >/run/terse/status || {{ cat /run/terse/log >&2; exit 1; }}
terse status --wait-ms 30000 >/dev/null
touch /etc/terse/x 2>/dev/null && echo writable
id -u
terse bench digits --requests 200 --concurrency 8 --verify --json
kill -TERM $daemon
wait $daemon
echo "ended $?"
"""

with harness.story("the container's serving stage is small, and serves as nobody on a read-only root") as story:
    if os.getuid():
        raise harness.Skip("only root can change roots")
    if not shutil.which("mmdebstrap") or not shutil.which("unshare"):
        raise harness.Skip("mmdebstrap is not installed")
    if os.path.basename(harness.BUILD) != "release":
        raise harness.Skip("release builds only")
    (_, build_steps), (serve_from, serve_steps) = stages()
    story.check("-slim" in serve_from, f"it stands on Debian slim: {serve_from}")
    built = tempfile.mkdtemp(dir=story.folder)
    if harness.LONG:
        builder = Root(story.folder)
        carry_out(builder, build_steps, harness.ROOT, None)
        built = builder.path
    else:
        done = subprocess.run(["make", "--no-print-directory", "-C", harness.ROOT, "install", "PREFIX=/usr", f"DESTDIR={built}/out"],
                              capture_output=True, text=True)
        story.check(done.returncode == 0, f"make install: {done.stderr[-500:]}")
        commands = [rest for word, rest in build_steps if word == "RUN"]
        story.check(commands[-1] == "sh packaging/container/reduce.sh /out" and "make install" in commands[-2],
                    "the stage that builds ends in what is done here")
        subprocess.run(["sh", os.path.join(FOLDER, "reduce.sh"), f"{built}/out"], check=True)
    (install,) = [rest for word, rest in serve_steps if word == "RUN" and "apt-get" in rest]
    before = bytes_of(base())
    root = Root(story.folder, with_packages(story, install, built))
    image = carry_out(root, [step for step in serve_steps if step != ("RUN", install)], harness.ROOT, built)
    more = bytes_of(root.path) - before
    own = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(f"{built}/out") for name in names)
    print(f"# {more / 1e6:.1f} MB over the base of {before / 1e6:.1f} MB, {own / 1e6:.1f} MB of them our own files", flush=True)
    story.check(0 < more < LIMIT, f"it has {more} bytes over the base, allowed are {LIMIT}")
    user = image["USER"].split(":")[0]
    story.check(user.isdigit() and int(user) > 0, f"its user is no root, by number: {user}")
    harness.run("terse", "compress", os.path.join(harness.DATA, "digits.onnx"), "-o", f"{root.path}/var/lib/terse/models/digits.terse")
    os.chmod(f"{root.path}/var/lib/terse/models/digits.terse", 0o644)
    entrypoint = shlex.join(json.loads(image["ENTRYPOINT"]))
    check = shlex.join(json.loads(image["HEALTHCHECK"].partition("CMD ")[2]))
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", RUN, "sh", root.path, user,
                           image["VOLUME"], INSIDE.format(entrypoint=entrypoint, check=check)], capture_output=True, text=True,
                          timeout=120, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    said = done.stdout.strip().splitlines()
    story.check(done.returncode == 0 and len(said) == 3, f"it runs: {done.stdout}{done.stderr}")
    if len(said) == 3:
        told = json.loads(said[1])
        story.check(said[0] == user and told["ok"] == told["sent"] == 200 and said[2] == "ended 0", f"it serves and ends: {said}")

harness.finish()
