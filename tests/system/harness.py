# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: a tersed in a folder of its own, a bare client, waiting for conditions, TAP.

    with harness.story("worker killed mid batch") as story:
        tersed = story.tersed({"digits": story.digits()})
        ...
        story.check(condition, "what must hold")

A story ends what it started, and prints its log when something did not hold.
"""
import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("TERSE_BUILD", "build/release"))
DATA = os.path.join(ROOT, "tests", "data")
SHARED = os.environ.get("TERSE_SHARED", os.path.join(os.path.dirname(ROOT), "shared"))
LONG = bool(os.environ.get("TERSE_LONG"))
# Seconds that a condition may take before it counts as never; kernels that ThreadSanitizer watches take much longer.
PATIENCE = 240 if BUILD.endswith("tsan") else 60
# Of a sanitizer's report, wherever in a log it is.
REPORT_LINES = 80


def program(name):
    return os.path.join(BUILD, name)


def wait_until(condition, what, seconds=PATIENCE):
    """Returns the condition's value once it is true; fails when it stays false."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"did not come to hold within {seconds} s: {what}")
        time.sleep(0.01)


def reported(text):
    """Whether a sanitizer told of something: UndefinedBehaviorSanitizer does not name itself."""
    return "Sanitizer" in text or "runtime error:" in text


def run(*command, code=0, **options):
    """Runs one of our programs to its end; its output. A sanitizer's report is a failure whatever the exit code."""
    command = [program(command[0]), *map(str, command[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, errors="replace", **options)
    if done.returncode != code or reported(done.stderr):
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}, wanted {code}: {done.stderr.strip()[-2000:]}")
    return done


def run_json(*command, **options):
    return json.loads(run(*command, **options).stdout.strip().splitlines()[-1])


def alive(pid):
    """Whether the process is there and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(pid):
    """(pid, name) of the living ones."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    head, _, tail = file.read().rpartition(")")
                if int(tail.split()[1]) == pid and tail.split()[0] not in "ZX":
                    found.append((int(entry), head.partition("(")[2]))
            except OSError:
                pass
    return found


class Tersed:
    def __init__(self, folder, models=None, *options, endpoint=None, environment=None, wait=True, under=()):
        self.folder = folder
        self.endpoint = endpoint or f"ipc://{folder}/tersed.sock"
        self.log_path = os.path.join(folder, "tersed.log")
        command = [program("tersed"), "--listen", self.endpoint]
        if "--config" not in options:  # a story is not told by what is installed on this machine
            command += ["--config", "/dev/null"]
        for name, path in (models or {}).items():
            command += ["--model", f"{name}={path}"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*under, *command, *map(str, options)], stderr=log, stdout=log,
                                            env=dict(os.environ, **(environment or {})))
        if wait:
            self.wait_ready()

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"tersed ended with {self.process.returncode}: {self.log()[-2000:]}")
            return subprocess.run([program("terse"), "status", "-e", self.endpoint, "--connect-ms", "2000", "--wait-ms",
                                   "60000"], capture_output=True).returncode == 0
        wait_until(ready, "tersed answers and every model is ready")

    def serves(self):
        """True once it serves, False when it ended instead."""
        def look():
            if self.process.poll() is not None:
                return "ended"
            done = subprocess.run([program("terse"), "status", "-e", self.endpoint, "--connect-ms", "300", "--wait-ms", "500"],
                                  capture_output=True)
            return "serves" if done.returncode == 0 else None
        return wait_until(look, "it serves or ends", 30) == "serves"

    def status(self):
        return run_json("terse", "status", "-e", self.endpoint, "--json")

    def workers(self):
        """pids, by number."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def frontend(self):
        found = [pid for pid, name in children(self.pid) if name.startswith("terse-frontend")]
        return found[0] if found else None

    def infer(self, model, arrays, *options):
        import numpy
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            numpy.savez(f"{folder}/in.npz", **arrays)
            run("terse", "infer", "-e", self.endpoint, model, f"{folder}/in.npz", "-o", f"{folder}/out.npz", *options)
            with numpy.load(f"{folder}/out.npz") as out:
                return {name: out[name] for name in out.files}

    def stop(self, signal_number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.process.wait(timeout=PATIENCE)


class Client:
    """A bare DEALER with msgpack: what any language can do."""

    def __init__(self, endpoint):
        import zmq
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.next_id = 1

    def send(self, header, *frames):
        import msgpack
        self.socket.send_multipart([msgpack.packb(header), *frames])

    def infer(self, model, arrays, **more):
        """Sends; returns the id."""
        names = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "uint8": "UINT8", "int8": "INT8", "bool": "BOOL"}
        inputs = [{"name": name, "dtype": names[str(a.dtype)], "shape": list(a.shape), "frame": i}
                  for i, (name, a) in enumerate(arrays.items(), 1)]
        header = {"v": 1, "op": "infer", "id": self.next_id, "model": model, "inputs": inputs, **more}
        self.next_id += 1
        self.send(header, *(a.tobytes() for a in arrays.values()))
        return header["id"]

    def receive(self, seconds=PATIENCE):
        """(header, frames), or None when nothing comes."""
        import msgpack
        if not self.socket.poll(int(seconds * 1000)):
            return None
        header, *frames = self.socket.recv_multipart()
        return msgpack.unpackb(header), frames

    def call(self, op, **more):
        header = {"v": 1, "op": op, "id": self.next_id, **more}
        self.next_id += 1
        self.send(header)
        return self.receive()[0]

    def outputs(self, header, frames):
        import numpy
        kinds = {"FP32": "f4", "INT64": "i8", "INT32": "i4", "UINT8": "u1", "INT8": "i1", "BOOL": "?"}
        return {o["name"]: numpy.frombuffer(frames[o["frame"] - 1], kinds[o["dtype"]]).reshape(o["shape"])
                for o in header["outputs"]}

    def close(self):
        self.socket.close()


class Arena:
    """Shared memory by hand, as daemon/frontend/attach.h describes it."""
    HEAD, FLAG = 4096, 64  # of a ring: its positions; the distance of taken, put, reader_sleeps, writer_sleeps

    def __init__(self, endpoint, input_bytes=1 << 16, output_bytes=1 << 16, socket_path=None, **more):
        import mmap
        import msgpack
        import socket
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(PATIENCE)
        self.connection.connect(socket_path or endpoint[len("ipc://"):] + ".attach")
        self.connection.send(msgpack.packb({"v": 1, "op": "attach", "input_bytes": input_bytes, "output_bytes": output_bytes, **more}))
        text, fds, _, _ = socket.recv_fds(self.connection, 4096, 8)
        self.answer = msgpack.unpackb(text)
        self.fds = fds
        if self.answer["status"] != "OK":
            return
        self.token, self.ring_bytes = self.answer["arena"], self.answer["ring_bytes"]
        self.inputs = mmap.mmap(fds[0], self.answer["input_bytes"])
        self.outputs = mmap.mmap(fds[1], self.answer["output_bytes"])
        self.rings = mmap.mmap(fds[2], 2 * (self.HEAD + self.ring_bytes))
        self.words = memoryview(self.rings).cast("Q")
        self.submitted = self.completed = 0

    def word(self, ring, index, value=None):
        """Word `index` of ring 0 (submission) or 1 (completion): read, or written.

        Eight bytes at once: struct moves one byte after the other, and the daemon would see positions half written."""
        at = (ring * (self.HEAD + self.ring_bytes) + index * self.FLAG) // 8
        if value is not None:
            self.words[at] = value
        return self.words[at]

    def submit(self, header, length=None, ring=True):
        import msgpack
        import struct
        data = header if isinstance(header, bytes) else msgpack.packb(header)
        entry = struct.pack("<II", len(data) if length is None else length, 0) + data + bytes(-len(data) % 8)
        base = self.HEAD
        for i, byte in enumerate(entry):
            self.rings[base + (self.submitted + i) % self.ring_bytes] = byte
        self.submitted += len(entry)
        self.word(0, 1, self.submitted)
        if ring:
            os.write(self.fds[3], (1).to_bytes(8, "little"))

    def complete(self, seconds=PATIENCE):
        """The next completion, or None."""
        import msgpack
        import select
        import struct
        base = self.HEAD + self.ring_bytes + self.HEAD
        self.word(1, 2, 1)
        if self.word(1, 1) == self.completed and not select.select([self.fds[4]], [], [], seconds)[0]:
            return None
        if select.select([self.fds[4]], [], [], 0)[0]:
            os.read(self.fds[4], 512)
        wait_until(lambda: self.word(1, 1) != self.completed, "a completion is there")
        at = self.completed
        take = lambda n: bytes(self.rings[base + (at + i) % self.ring_bytes] for i in range(n))
        length = struct.unpack("<I", take(4))[0]
        at += 8
        data = take(length)
        self.completed = at + (length + 7) // 8 * 8
        self.word(1, 0, self.completed)
        return msgpack.unpackb(data)

    def close(self):
        if self.answer["status"] == "OK":
            for memory in (self.words, self.inputs, self.outputs, self.rings):
                memory.release() if memory is self.words else memory.close()
        for fd in self.fds:
            os.close(fd)
        self.connection.close()


class Story:
    def __init__(self, folder):
        self.folder, self.daemons, self.failures = folder, [], []

    def check(self, condition, what):
        if not condition:
            self.failures.append(what)
            print(f"# does not hold: {what}", flush=True)

    def tersed(self, models=None, *options, **more):
        folder = tempfile.mkdtemp(dir=self.folder)
        daemon = Tersed(folder, models, *options, **dict(more, wait=False))
        self.daemons.append(daemon)
        if more.get("wait", True):
            daemon.wait_ready()
        return daemon

    def compress(self, onnx, *options):
        path = os.path.join(self.folder, os.path.basename(onnx).replace(".onnx", ".terse"))
        run("terse", "compress", onnx, "-o", path, *options)
        return path

    def digits(self):
        return self.compress(os.path.join(DATA, "digits.onnx"))

    def end(self):
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGTERM)
                try:
                    daemon.process.wait(timeout=40)
                except subprocess.TimeoutExpired:
                    daemon.process.kill()
                    daemon.process.wait()
                    self.check(False, "tersed ends on SIGTERM")
            if reported(daemon.log()):
                self.check(False, "no sanitizer reports anything")
                lines = daemon.log().splitlines()
                first = next(i for i, line in enumerate(lines) if reported(line))
                print("".join(f"# {line}\n" for line in lines[first:first + REPORT_LINES]), end="")


class Fault:
    """Makes calls of the daemon's processes fail: faults.c says how. `environment` is for story.tersed."""

    def __init__(self, folder, program_name, call, nth=1, times=1, error=0):
        handle, self.path = tempfile.mkstemp(prefix="fault-", dir=folder)
        os.write(handle, bytes(16))
        os.close(handle)
        self.environment = {"LD_PRELOAD": os.path.abspath(program("faults.so")), "TERSE_FAULT_STATE": self.path,
                            "TERSE_FAULT": f"{program_name}:{call}:{nth}:{times}:{error}"}
        if "asan" in BUILD:  # whose runtime wants to be the first library
            self.environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"

    def counts(self):
        """How many such calls were made, and how many of them failed."""
        with open(self.path, "rb") as file:
            return struct.unpack("QQ", file.read())


def page_problems(path):
    """What is wrong with a page that is to stand alone: a list, and its text. Parsed as XML, which forgives nothing, and as HTML."""
    import html.parser
    import xml.etree.ElementTree
    with open(path, encoding="utf-8") as file:
        text = file.read()
    wrong = [] if text.startswith("<!DOCTYPE html>") else ["no doctype"]
    root = xml.etree.ElementTree.fromstring(text.partition("\n")[2])
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    wrong += [f"id {i} is there twice" for i in set(ids) if ids.count(i) > 1]

    class Parser(html.parser.HTMLParser):
        open_tags = []

        def handle_starttag(self, tag, attributes):
            self.open_tags.append(tag)
            self.look(tag, attributes)

        def handle_startendtag(self, tag, attributes):
            self.look(tag, attributes)

        def handle_endtag(self, tag):
            if not self.open_tags or self.open_tags.pop() != tag:
                wrong.append(f"</{tag}> ends what was not begun")

        def look(self, tag, attributes):
            if tag in ("script", "link", "img", "iframe", "object", "embed", "base", "form"):
                wrong.append(f"a <{tag}>")
            for name, value in attributes:
                if name.startswith("on") or name in ("src", "href", "action") or ("//" in (value or "") and name != "xmlns"):
                    wrong.append(f"{tag} {name}={value}")
            if tag == "svg" and not {"role", "aria-labelledby", "viewbox"} <= {name for name, _ in attributes}:
                wrong.append("an svg without role, label or viewBox")

    parser = Parser()
    parser.feed(text)
    parser.close()
    wrong += [f"<{tag}> does not end" for tag in parser.open_tags]
    for style in root.iter("style"):
        wrong += [f"style has {word}" for word in ("url(", "@import") if word in style.text]
        wrong += [] if "prefers-color-scheme:dark" in style.text else ["no dark colours"]
    return wrong, text


def look_into_children():
    """Before the first story, where files of /proc are read that a process without privileges keeps from everybody but root:
    who is not root starts again as root of a user namespace, in which the daemon then is, too."""
    if os.geteuid() == 0:
        return
    alone = ["unshare", "--user", "--map-root-user"]
    try:
        refused = subprocess.run([*alone, "true"], capture_output=True, text=True).stderr.strip()
    except FileNotFoundError:
        refused = "unshare is not installed"
    if not refused:
        os.execvp(alone[0], [*alone, sys.executable, *sys.argv])
    print(f"1..1\nok 1 - what only root of a user namespace sees # SKIP {refused}")
    sys.exit(0)


def may_become(user):
    """Only root may, and root of a user namespace only whom it has there."""
    with open("/proc/self/uid_map") as file:
        ranges = [[int(word) for word in line.split()] for line in file]
    return os.geteuid() == 0 and any(first <= user < first + n for first, _, n in ranges)


class Skip(Exception):
    """Raised in a story: says why it cannot be told here."""


_count = [0, 0]


@contextlib.contextmanager
def story(name):
    """One test. An exception fails it; a Skip skips it."""
    _count[0] += 1
    folder = tempfile.mkdtemp(prefix="terse-")
    told = Story(folder)
    skipped = None
    try:
        try:
            yield told
        finally:
            told.end()
    except Skip as why:
        skipped = str(why)
    except Exception:
        told.failures.append("exception")
        print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()), end="")
    if told.failures:
        for daemon in told.daemons:
            print("".join(f"# {line}\n" for line in daemon.log().splitlines()[-30:]), end="")
    _count[1] += bool(told.failures)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{'not ok' if told.failures else 'ok'} {_count[0]} - {name}" + (f" # SKIP {skipped}" if skipped else ""), flush=True)


def finish():
    print(f"1..{_count[0]}")
    sys.exit(1 if _count[1] else 0)


def digits_images():
    import numpy
    with numpy.load(os.path.join(DATA, "digits_test.npz")) as data:
        return data["image"], data["labels"]
