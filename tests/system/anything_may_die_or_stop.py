#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL and SIGSTOP of every process in every state: clients of libterse get their answers all the same."""
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time

import numpy

import harness
import onnx_writer

SEED = int(os.environ.get("TERSE_SEED", time.time()))
X = numpy.linspace(-1, 1, 256, dtype="f4").reshape(1, 256)


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return None


def worked(pid):
    """Processor time, in ticks."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[11])


def processor_s(pid):
    return time.clock_gettime(~pid << 3 | 2)  # the clock of another process, as clock_getcpuclockid gives it


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    harness.wait_until(lambda: state_of(pid) in ("T", "t"), f"process {pid} is stopped")


def slow_model(story, layers=150):
    """Runs for some tenths of a second over 1024 rows, and for about a millisecond over one."""
    w = (numpy.random.default_rng(1).standard_normal((256, 256)) / 16).astype("f4")
    nodes = [("MatMul", [f"h{i}" if i else "x", "w"], ["y" if i == layers - 1 else f"h{i + 1}"]) for i in range(layers)]
    path = f"{story.folder}/slow.onnx"
    return story.compress(onnx_writer.write(path, [("x", "f4", ["N", 256])], [("y", "f4", ["N", 256])], nodes, {"w": w}))


def config(story, **settings):
    path = os.path.join(story.folder, "t.conf")
    with open(path, "w") as file:
        file.write("[server]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return path


class Infer:
    """`terse infer` in the background: libterse, which connects and asks again."""

    def __init__(self, tersed, array):
        self.folder = tempfile.mkdtemp(dir=tersed.folder)
        numpy.save(f"{self.folder}/in.npy", array)
        self.process = subprocess.Popen([harness.program("terse"), "infer", "-e", tersed.endpoint, "slow",
                                         f"{self.folder}/in.npy", "-o", f"{self.folder}/out.npz"],
                                        stderr=subprocess.PIPE, text=True)

    def result(self):
        """The bytes of the output, or the error's text."""
        _, told = self.process.communicate(timeout=harness.PATIENCE)
        if self.process.returncode:
            return told
        with numpy.load(f"{self.folder}/out.npz") as out:
            return out["y"].tobytes()


def reference(story, path, array):
    numpy.save(f"{story.folder}/in.npy", array)
    harness.run("terse", "run", path, f"{story.folder}/in.npy", "-o", f"{story.folder}/want.npz")
    with numpy.load(f"{story.folder}/want.npz") as out:
        return out["y"].tobytes()


def worker_state(client, number=0):
    return client.call("stats")["workers"][number]["state"]


def replaced(tersed, old):
    """The pid of worker 0, once that is another process which serves."""
    def look():
        worker = tersed.status()["workers"][0]
        return worker["pid"] if worker["pid"] != old and worker["state"] in ("idle", "busy") else None
    return harness.wait_until(look, f"worker {old} is replaced")


LONG_X = numpy.random.default_rng(2).standard_normal((1024, 256)).astype("f4")

with harness.story("a worker that is killed, or stops for good, while it warms up is replaced") as story:
    path = slow_model(story)
    tersed = story.tersed({"slow": path}, "--workers", 1, "--config", config(story, warm_timeout_ms=1500, frontend_timeout_ms=60000))
    for signal_number in (signal.SIGKILL, signal.SIGSTOP):
        old, frontend = tersed.workers()[0], tersed.frontend()
        stop(frontend)  # a worker gets from it what it warms up with: until it goes on none is ready
        os.kill(old, signal.SIGKILL)

        def stopped():
            for pid, name in harness.children(tersed.pid):
                if name == "terse-worker" and pid != old:
                    with contextlib.suppress(ProcessLookupError):  # it took too long, and its time was over
                        os.kill(pid, signal.SIGSTOP)
                        return pid if state_of(pid) == "T" else None
            return None
        pid = harness.wait_until(stopped, "the next worker is there, and stopped")
        if signal_number == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.kill(frontend, signal.SIGCONT)
        asked = Infer(tersed, X)
        story.check(asked.result() == reference(story, path, X), f"answered by the one after it: {signal_number}")
        story.check(not harness.alive(pid), "and it is gone")
    story.check("not ready after 1500 ms (warm_timeout_ms): killed" in tersed.log(), "the log says why it was killed")

with harness.story("an idle worker that stops is found out by the batch it does not run, one that is killed by nobody") as story:
    path = slow_model(story)
    tersed = story.tersed({"slow": path}, "--workers", 1, "--hang-timeout-ms", 600)
    for signal_number in (signal.SIGKILL, signal.SIGSTOP):
        pid = tersed.workers()[0]
        os.kill(pid, signal_number) if signal_number == signal.SIGKILL else stop(pid)
        asked = Infer(tersed, X)
        story.check(asked.result() == reference(story, path, X), f"the request is answered: {signal_number}")
        replaced(tersed, pid)
    story.check("hangs: killed" in tersed.log(), "the log tells of the one that stopped")

with harness.story(f"killed or stopped at any moment of a batch: gathering, running, answering (seed {SEED})") as story:
    rng = random.Random(SEED)
    path = slow_model(story, 40)
    tersed = story.tersed({"slow": path}, "--workers", 2, "--hang-timeout-ms", 600)
    client = harness.Client(tersed.endpoint)
    arrays = [(X * (k + 1)).astype("f4") for k in range(16)]
    want = []
    for array in arrays:
        client.infer("slow", {"x": array})
        want.append(client.receive()[1][0])
    stopped = 0
    for round_ in range(60 if harness.LONG else 15):
        asked = {client.infer("slow", {"x": array}): k for k, array in enumerate(arrays)}
        time.sleep(rng.uniform(0, 0.02))  # the moment is what varies
        pids = [pid for pid, name in harness.children(tersed.pid) if name == "terse-worker"]
        if pids:
            kill = round_ % 5 != 4  # a stop costs the time until the watchdog sees it
            stopped += not kill
            os.kill(rng.choice(pids), signal.SIGKILL if kill else signal.SIGSTOP)
        for _ in arrays:
            got = client.receive()
            story.check(got and got[0]["status"] == "OK" and got[1][0] == want[asked.pop(got[0]["id"])],
                        f"answered with the same bits: {got and got[0]}")
        story.check(not asked, f"each once; not answered: {asked}")
    story.check(client.receive(0.1) is None and stopped > 0, "and nothing came twice")

with harness.story("a batch that was completed and not read yet counts, though its worker is dead") as story:
    path = slow_model(story)
    tersed = story.tersed({"slow": path}, "--workers", 1, "--max-batch", 1024, "--hang-timeout-ms", 600000)
    client = harness.Client(tersed.endpoint)
    client.infer("slow", {"x": LONG_X})
    want = client.receive()[1]
    worker, frontend = tersed.workers()[0], tersed.frontend()
    stop(worker)
    client.infer("slow", {"x": LONG_X})
    harness.wait_until(lambda: worker_state(client) == "busy", "the stopped worker has the batch")
    stop(frontend)
    before = worked(worker)
    os.kill(worker, signal.SIGCONT)
    harness.wait_until(lambda: state_of(worker) == "S" and worked(worker) > before, "it has run the batch and waits for more")
    os.kill(worker, signal.SIGKILL)
    harness.wait_until(lambda: not harness.alive(worker), "it is dead")
    os.kill(frontend, signal.SIGCONT)
    header, frames = client.receive()
    story.check(header["status"] == "OK" and frames == want, f"answered: {header}")
    stats = harness.wait_until(lambda: client.call("stats"), "stats")
    story.check(stats["models"]["slow"]["retries"] == 0, f"it did not run again: {stats['models']['slow']['retries']}")

with harness.story("a front end that is killed, or stops for good, with requests in it: they are answered by the next") as story:
    path = slow_model(story)
    tersed = story.tersed({"slow": path}, "--workers", 1, "--max-batch", 1024, "--config", config(story, frontend_timeout_ms=2000))
    workers, want = tersed.workers(), reference(story, path, LONG_X)
    for signal_number in (signal.SIGKILL, signal.SIGSTOP):
        watch = harness.Client(tersed.endpoint)
        asked = [Infer(tersed, LONG_X) for _ in range(4)]
        harness.wait_until(lambda: watch.call("stats")["models"]["slow"]["requests"] >= 4, "it has all four")
        os.kill(tersed.frontend(), signal_number)
        story.check(all(one.result() == want for one in asked), f"all are answered: {signal_number}")
    story.check(tersed.workers() == workers, "by the same worker, which outlived both")
    story.check("no sign of life for 2000 ms" in tersed.log(), "the log says why it was killed")

with harness.story("when tersed is killed its clients wait, and the next tersed at that endpoint answers them") as story:
    path = slow_model(story)
    tersed = story.tersed({"slow": path}, "--workers", 1, "--max-batch", 1024)
    family = [pid for pid, _ in harness.children(tersed.pid)]
    asked = [Infer(tersed, LONG_X) for _ in range(3)]
    watch = harness.Client(tersed.endpoint)
    harness.wait_until(lambda: watch.call("stats")["models"]["slow"]["requests"] >= 3, "it has all three")
    os.kill(tersed.pid, signal.SIGKILL)
    tersed.process.wait()
    harness.wait_until(lambda: not any(map(harness.alive, family)), "its children end with it")
    following = story.tersed({"slow": path}, "--workers", 1, "--max-batch", 1024, endpoint=tersed.endpoint)
    want = reference(story, path, LONG_X)
    story.check(all(one.result() == want for one in asked), "all are answered")

with harness.story("a tersed that stops serves on; what dies meanwhile is replaced once it goes on") as story:
    path = slow_model(story)
    tersed = story.tersed({"slow": path}, "--workers", 2)
    stop(tersed.pid)
    want = reference(story, path, X)
    story.check(Infer(tersed, X).result() == want, "served without it")
    pid = tersed.workers()[0]
    os.kill(pid, signal.SIGKILL)
    story.check(Infer(tersed, X).result() == want, "the other worker serves")
    os.kill(tersed.pid, signal.SIGCONT)
    replaced(tersed, pid)
    stop(tersed.pid)
    os.kill(tersed.frontend(), signal.SIGKILL)
    asked = Infer(tersed, X)
    os.kill(tersed.pid, signal.SIGCONT)
    story.check(asked.result() == want, "and a front end that died meanwhile is replaced")

with harness.story("a worker that comes for another does not measure again what is known") as story:
    tersed = story.tersed({"slow": slow_model(story, 400)}, "--workers", 1, "--max-batch", 1024)
    first = tersed.workers()[0]
    measured, costs = processor_s(first), harness.Client(tersed.endpoint).call("stats")["models"]["slow"]["costs"]
    os.kill(first, signal.SIGKILL)
    second = replaced(tersed, first)
    story.check(processor_s(second) < measured / 2, f"{processor_s(second)} s of a processor instead of {measured}")
    os.kill(tersed.frontend(), signal.SIGKILL)
    tersed.wait_ready()
    again = harness.Client(tersed.endpoint).call("stats")["models"]["slow"]["costs"]
    story.check([c["rows"] for c in again] == [c["rows"] for c in costs], f"and all is known after both have died: {again} of {costs}")
    story.check(Infer(tersed, X).result() == reference(story, slow_model(story, 400), X), "it serves")

harness.finish()
