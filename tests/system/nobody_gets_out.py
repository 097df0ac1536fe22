# SPDX-License-Identifier: Apache-2.0
"""What the processes of a running daemon have given up, as the kernel tells it."""
import os

import harness

harness.look_into_children()

SANDBOXED = not os.environ.get("TERSE_NO_SECCOMP") and "asan" not in harness.BUILD and "tsan" not in harness.BUILD


def statuses(pid):
    """Of every thread: the fields of /proc/PID/task/TID/status."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            yield dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def limit(pid, name):
    with open(f"/proc/{pid}/limits") as file:
        return next(line[len(name):].split()[0] for line in file if line.startswith(name))


with harness.story("every thread of every child is behind a filter, without privileges, for good") as story:
    if not SANDBOXED:
        raise harness.Skip("this build or environment leaves the sandbox out")
    tersed = story.tersed({"digits": story.digits()}, "--workers", "2", "--listen", "tcp://127.0.0.1:*")
    story.check(all(tersed.infer("digits", {"image": harness.digits_images()[0][:1]})), "requests are answered")
    found = harness.children(tersed.pid)
    names = {name for _, name in found}
    story.check({"terse-frontend", "terse-worker"} <= names, f"front end and workers run: {names}")
    for pid, name in found:
        for status in statuses(pid):
            wrong = [(key, status.get(key)) for key, wanted in (
                ("Seccomp", "2"), ("NoNewPrivs", "1"), ("CapEff", "0" * 16), ("CapPrm", "0" * 16), ("CapBnd", "0" * 16),
                ("CapAmb", "0" * 16)) if status.get(key) != wanted]
            story.check(not wrong, f"{name} {pid}: {wrong}")
        story.check(limit(pid, "Max core file size") == "0", f"{name} {pid} dumps no core")
        story.check(limit(pid, "Max processes") == "0", f"{name} {pid} may have no process")

harness.finish()
