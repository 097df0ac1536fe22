#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a service manager does for tersed, played here: sockets that it passes, memory that it keeps for the next tersed,
and reloads that are waited for."""
import array
import fcntl
import os
import re
import signal
import socket
import subprocess
import threading

import harness
import numpy

images = harness.digits_images()[0]


class Manager:
    """Passes two listening sockets and what it was given to keep; hears what tersed tells."""

    def __init__(self, story):
        self.story = story
        self.stored = []  # (name, descriptor)
        self.messages = []
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.notify.bind(os.path.join(story.folder, "notify"))
        self.path = os.path.join(story.folder, "t.sock")
        self.sockets = []
        for kind, path in (socket.SOCK_SEQPACKET, self.path + ".attach"), (socket.SOCK_STREAM, self.path):
            passed = socket.socket(socket.AF_UNIX, kind)
            passed.bind(path)
            passed.listen(64)
            self.sockets.append(passed)
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self):
        fds = array.array("i")
        while True:
            data, ancillary, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(16 * fds.itemsize))
            fields = dict(line.split("=", 1) for line in data.decode().splitlines())
            passed = array.array("i")
            for _, _, rights in ancillary:
                passed.frombytes(rights)
            if fields.get("FDSTORE") == "1":
                self.stored += [(fields["FDNAME"], fd) for fd in passed]
            if fields.get("FDSTOREREMOVE") == "1":
                self.stored = [s for s in self.stored if s[0] != fields["FDNAME"]]
            self.messages.append(fields)

    def told(self, key):
        return [m for m in self.messages if key in m]

    def start(self, *arguments, log):
        """A tersed under this manager, with all that it keeps."""
        passed = [(s.fileno(), "terse") for s in self.sockets] + [(fd, name) for name, fd in self.stored]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd, _ in passed]
        script = "; ".join(f"exec {3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(high))
        environment = dict(os.environ, NOTIFY_SOCKET=os.path.join(self.story.folder, "notify"), LISTEN_FDS=str(len(high)),
                           LISTEN_FDNAMES=":".join(name for _, name in passed))
        self.messages.clear()
        with open(log, "wb") as out:
            process = subprocess.Popen(["/bin/bash", "-c", script + '; LISTEN_PID=$$ exec "$0" "$@"', harness.program("tersed"),
                                        *arguments], env=environment, pass_fds=high, stderr=out, stdout=out)
        for fd in high:
            os.close(fd)
        harness.wait_until(lambda: self.told("READY") or process.poll() is not None, "it says READY")
        self.story.check(process.poll() is None, open(log, errors="replace").read())
        return process


def infer(manager, story):
    numpy.savez(f"{story.folder}/in.npz", image=images[:4])
    harness.run("terse", "infer", "-e", f"ipc://{manager.path}", "digits", f"{story.folder}/in.npz", "-o",
                f"{story.folder}/out.npz")
    with numpy.load(f"{story.folder}/out.npz") as out:
        return out["logits"]


def loaded(log):
    with open(log, errors="replace") as file:
        text = file.read()
    return len(re.findall(r": loaded '", text)), len(re.findall(r"is still in memory", text))


with harness.story("the next tersed serves from the memory that the last one had kept") as story:
    digits = story.digits()
    manager = Manager(story)
    arguments = ["--model", f"digits={digits}", "--workers", "1"]
    logs = [os.path.join(story.folder, f"log{i}") for i in range(5)]
    first = manager.start(*arguments, log=logs[0])
    expected = infer(manager, story)
    story.check(loaded(logs[0]) == (1, 0) and len(manager.stored) == 1, "loaded, and given to the manager")
    first.terminate()
    story.check(first.wait(harness.PATIENCE) == 0 and len(manager.stored) == 1, "an end takes nothing back")
    second = manager.start(*arguments, log=logs[1])
    story.check(loaded(logs[1]) == (0, 1), "no file is read")
    story.check((infer(manager, story) == expected).all(), "the same answers")
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    third = manager.start(*arguments, log=logs[2])
    story.check(loaded(logs[2]) == (0, 1) and (infer(manager, story) == expected).all(), "the same after it was killed")
    story.check(os.path.exists(manager.path) and os.path.exists(manager.path + ".attach"), "sockets are the manager's to remove")
    arena = harness.Arena(f"ipc://{manager.path}")
    story.check(arena.answer["status"] == "OK", "the passed socket for shared memory serves")
    third.terminate()
    third.wait()

    os.utime(digits, ns=(1, 1))  # another file, as far as anybody can tell
    fourth = manager.start(*arguments, log=logs[3])
    story.check(loaded(logs[3]) == (1, 0) and len(manager.stored) == 1, "what is of another file is given up, and the file read")
    fourth.terminate()
    fourth.wait()

    manager.stored = [(manager.stored[0][0], os.open("/dev/null", os.O_RDONLY))]
    fifth = manager.start(*arguments, log=logs[4])
    story.check(loaded(logs[4]) == (1, 0) and (infer(manager, story) == expected).all(), "what is no sealed memory is not believed")
    fifth.terminate()
    fifth.wait()

with harness.story("tersed --reload returns when the new state is in force, and fails when it is not") as story:
    manager = Manager(story)
    conf = os.path.join(story.folder, "t.conf")

    def configure(text):
        with open(conf, "w") as file:
            file.write(text)
    configure(f"[model digits]\nfile = {story.digits()}\n")
    log = os.path.join(story.folder, "log")
    process = manager.start("--config", conf, "--workers", "1", log=log)
    client = harness.Client(f"ipc://{manager.path}")
    for number in range(5):
        configure(f"[model digits]\nfile = {story.digits()}\n[model more{number}]\nfile = {story.digits()}\n")
        harness.run("tersed", "--reload", process.pid)
        names = sorted(m["name"] for m in client.call("models")["models"] if m["state"] == "ready")
        story.check(names == ["digits", f"more{number}"], f"the new model serves, the old one does not: {names}")
    keys = [next(k for k in ("RELOADING", "READY") if k in m) for m in manager.messages if "RELOADING" in m or "READY" in m]
    story.check(keys == ["READY"] + ["RELOADING", "READY"] * 5, keys)
    story.check(all("MONOTONIC_USEC" in m for m in manager.told("RELOADING")), "with the time that Type=notify-reload wants")
    configure("[server]\nworkers = many\n")
    told = harness.run("tersed", "--reload", process.pid, code=1).stderr
    story.check("1 mistake" in told, told)
    configure(f"[model digits]\nfile = {story.digits()}\n[model bad]\nfile = {conf}\n")
    told = harness.run("tersed", "--reload", process.pid, code=1).stderr
    story.check("1 mistake" in told, told)
    story.check([m["name"] for m in client.call("models")["models"] if m["state"] == "ready"] == ["digits"], "the sound ones are in force")
    process.terminate()
    process.wait()
    harness.run("tersed", "--reload", process.pid, code=1)
    harness.run("tersed", "--reload", "soon", code=2)

harness.finish()
