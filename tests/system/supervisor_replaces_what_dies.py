#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever dies or hangs is replaced, told truly in the log and to the service manager, and stops when told to."""
import os
import re
import signal
import socket
import sys
import time

import harness

FAKE = """#!{python}
import array, os, signal, socket, struct, sys, time
control = socket.socket(fileno=3)
def tell(kind, payload=b""):
    control.send(struct.pack("<II", kind, 8 + len(payload)) + payload)
def hear():
    data, fds, _, _ = socket.recv_fds(control, 196608, 4)
    return (struct.unpack("<I", data[:4])[0] if data else None), fds
{body}
"""


def libexec(story, **bodies):
    """A folder of helpers: our own, but those that are given as Python text, which speak the protocol by hand."""
    folder = os.path.join(story.folder, "libexec")
    os.makedirs(folder)
    for name in "terse-loader", "terse-frontend", "terse-worker":
        path = os.path.join(folder, name)
        body = bodies.get(name.replace("terse-", ""))
        if body is None:
            os.symlink(os.path.abspath(harness.program(name)), path)
            continue
        with open(path, "w") as file:
            file.write(FAKE.format(python=sys.executable, body=body))
        os.chmod(path, 0o755)
    return folder


class Manager:
    """Plays the service manager: NOTIFY_SOCKET and WATCHDOG_USEC."""

    def __init__(self, folder, watchdog_us=0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = os.path.join(folder, "notify")
        self.socket.bind(self.path)
        self.socket.settimeout(harness.PATIENCE)
        self.environment = {"NOTIFY_SOCKET": self.path}
        if watchdog_us:
            self.environment["WATCHDOG_USEC"] = str(watchdog_us)

    def until(self, key, pattern=""):
        while True:
            said = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())
            if key in said and re.search(pattern, said[key]):
                return said


def ended(story, tersed, code):
    story.check(tersed.process.wait(harness.PATIENCE) == code, f"it ends with {code}: {tersed.log()}")
    harness.wait_until(lambda: not harness.children(tersed.pid), "no child is left")


with harness.story("the service manager hears READY, the state and STOPPING, and the watchdog's ticks") as story:
    manager = Manager(story.folder, 1_200_000)
    tersed = story.tersed({"digits": story.digits()}, "--workers", 2, environment=manager.environment, wait=False)
    manager.until("STATUS", "^loading 1 model")
    said = manager.until("READY", "1")
    story.check(said["MAINPID"] == str(tersed.pid) and "serving 1 model" in said["STATUS"], f"READY with the state: {said}")
    times = []
    for _ in range(6):
        manager.until("WATCHDOG", "1")
        times.append(time.monotonic())
    story.check(max(b - a for a, b in zip(times, times[1:])) < 1.2, f"ticks come in time: {times}")
    os.kill(tersed.frontend(), signal.SIGKILL)
    manager.until("STATUS", "front end starting|1 restart")
    manager.until("STATUS", "2 of 2 workers ready, 1 restart")
    tersed.process.terminate()
    manager.until("STOPPING", "1")
    ended(story, tersed, 0)

with harness.story("a killed front end is replaced; the workers, their models and the socket stay") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", 2)
    images = {"image": harness.digits_images()[0][:2]}
    before, workers, first = tersed.infer("digits", images), tersed.workers(), tersed.frontend()
    os.kill(first, signal.SIGKILL)
    after = tersed.infer("digits", images)
    story.check(tersed.frontend() not in (None, first), "there is another front end")
    story.check(tersed.workers() == workers, "the workers are the same processes")
    story.check(all((before[k] == after[k]).all() for k in before), "and answer the same")

with harness.story("a front end that shows no life is killed and replaced") as story:
    config = os.path.join(story.folder, "t.conf")
    with open(config, "w") as file:
        file.write("[server]\nfrontend_timeout_ms = 2000\n")
    tersed = story.tersed({"digits": story.digits()}, "--config", config)
    first = tersed.frontend()
    os.kill(first, signal.SIGSTOP)
    harness.wait_until(lambda: tersed.frontend() not in (None, first), "another front end")
    tersed.wait_ready()
    story.check("no sign of life for 2000 ms" in tersed.log(), "the log says why")

with harness.story("workers that never get ready end the start with one clear line") as story:
    helpers = libexec(story, worker="os.kill(os.getpid(), signal.SIGSEGV)")
    tersed = story.tersed({"digits": story.digits()}, "--libexec", helpers, "--workers", 1, wait=False)
    ended(story, tersed, 1)
    story.check("ended with signal 11" in tersed.log(), "the signal is told")
    story.check("failed to start 5 times in a row and never succeeded" in tersed.log(), "and the end")

with harness.story("a front end that never serves does so as well, and a helper that is missing") as story:
    helpers = libexec(story, frontend="sys.exit(3)")
    tersed = story.tersed({"digits": story.digits()}, "--libexec", helpers, wait=False)
    ended(story, tersed, 1)
    story.check("front end: ended with exit status 3" in tersed.log(), "the exit status is told")
    os.unlink(os.path.join(helpers, "terse-worker"))
    told = harness.run("tersed", "--model", f"digits={story.digits()}", "--libexec", helpers, code=1).stderr
    story.check("terse-worker: not found" in told, told)

with harness.story("a crash loop shows in the status, and ends once its cause does") as story:
    manager, flag = Manager(story.folder), os.path.join(story.folder, "broken")
    real = os.path.abspath(harness.program("terse-worker"))
    helpers = libexec(story, worker=f"if os.path.exists({flag!r}) and sys.argv[1] == '1': sys.exit(9)\n"
                                    f"os.execv({real!r}, sys.argv)")
    tersed = story.tersed({"digits": story.digits()}, "--libexec", helpers, "--workers", 2, environment=manager.environment)
    open(flag, "w").close()
    os.kill(tersed.workers()[1], signal.SIGKILL)
    said = manager.until("STATUS", "crash loop")
    story.check(re.search("worker 1 in a crash loop: [3-9] failed starts, next in [0-9]+ ms", said["STATUS"]), said["STATUS"])
    looping = harness.wait_until(lambda: [w for w in tersed.status()["workers"] if w["state"] == "crash loop"],
                                 "terse status tells of it too")
    story.check(looping[0]["worker"] == 1 and looping[0]["failed_starts"] >= 3 and 0 <= looping[0]["next_start_ms"] <= 5000,
                f"with its number and the time of the next start: {looping}")
    table = harness.wait_until(lambda: re.search("1 .*crash loop .* failed starts, next start in [0-9]+ ms",
                                                 harness.run("terse", "status", "-e", tersed.endpoint).stdout), "for people")
    story.check(table, "the table has it")
    os.kill(tersed.frontend(), signal.SIGKILL)
    harness.wait_until(lambda: any(w["state"] == "crash loop" for w in tersed.status()["workers"]), "a new front end knows it")
    story.check(tersed.infer("digits", {"image": harness.digits_images()[0][:1]}), "the other worker answers")
    os.unlink(flag)
    manager.until("STATUS", "2 of 2 workers ready")

with harness.story("a loader that hangs, crashes or lies costs its model only, and is named") as story:
    for body, told in (("time.sleep(1000)", "not loaded after 300 ms"), ("os.abort()", "its loader ended with signal 6"),
                       ("hear(); tell(17, struct.pack('<iIQ512x', 0, 0, 4096))", "without the model's memory"),
                       ("hear(); tell(99)", "sent what it should not"),
                       ("hear(); m = os.memfd_create('x'); os.ftruncate(m, 4096)\n"
                        "data = struct.pack('<IIiIQ512s', 17, 536, 0, 0, 4096, b'')\n"
                        "socket.send_fds(control, [data], [m])", "memory that is not sealed")):
        folder = os.path.join(story.folder, "libexec")
        if os.path.exists(folder):
            harness.shutil.rmtree(folder)
        config = os.path.join(story.folder, "t.conf")
        with open(config, "w") as file:
            file.write("[server]\nload_timeout_ms = 300\n" if "sleep" in body else "")
        tersed = story.tersed({"digits": story.digits()}, "--config", config, "--libexec", libexec(story, loader=body), wait=False)
        ended(story, tersed, 1)
        story.check(told in tersed.log() and "model 'digits'" in tersed.log(), f"{told}: {tersed.log()}")

with harness.story("what a front end or a worker sends and should not ends that process only") as story:
    helpers = libexec(story, frontend="tell(77); hear(); time.sleep(1000)")
    tersed = story.tersed({"digits": story.digits()}, "--libexec", helpers, wait=False)
    ended(story, tersed, 1)
    story.check("sent message 77 of 8 bytes, which it should not" in tersed.log(), tersed.log())

with harness.story("SIGTERM waits for a drain no longer than drain_timeout_ms; a second one does not wait") as story:
    body = ("n = 0\nwhile True:\n kind, fds = hear()\n if kind is None: sys.exit(0)\n"
            " if kind == 6: tell(32); tell(33)\n")  # never DRAINED
    helpers = libexec(story, frontend=body, worker="signal.pause()")  # and workers that heed no EOF
    config = os.path.join(story.folder, "t.conf")
    with open(config, "w") as file:
        file.write("[server]\ndrain_timeout_ms = 300\n")
    tersed = story.tersed({"digits": story.digits()}, "--config", config, "--libexec", helpers, wait=False)
    harness.wait_until(lambda: "ready: serving" in tersed.log(), "it serves")
    tersed.process.terminate()
    ended(story, tersed, 0)
    story.check("not drained after 300 ms" in tersed.log() and "did not exit by themselves: killed" in tersed.log(),
                tersed.log())
    with open(config, "w") as file:
        file.write("[server]\ndrain_timeout_ms = 3600000\n")
    tersed = story.tersed({"digits": story.digits()}, "--config", config, "--libexec", helpers, wait=False)
    harness.wait_until(lambda: "ready: serving" in tersed.log(), "it serves")
    tersed.process.terminate()
    harness.wait_until(lambda: "SIGTERM: draining" in tersed.log(), "it drains")
    tersed.process.terminate()
    ended(story, tersed, 0)
    story.check("not waiting any longer" in tersed.log(), tersed.log())

with harness.story("SIGTERM while loading ends at once") as story:
    slow = story.tersed({"digits": story.digits()}, "--libexec", libexec(story, loader="time.sleep(1000)"), wait=False)
    harness.wait_until(lambda: harness.children(slow.pid), "its loader runs")
    slow.process.terminate()
    ended(story, slow, 0)

harness.finish()
