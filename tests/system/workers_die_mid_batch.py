#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A worker that dies or hangs with a batch in its hands: nobody notices, but for the request that is to blame."""
import os
import signal

import numpy

import harness
import onnx_writer


def stop(pid):
    """Stopped for sure: it takes no batch and answers none."""
    os.kill(pid, signal.SIGSTOP)

    def stopped():
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    harness.wait_until(stopped, f"process {pid} is stopped")


def busy(tersed):
    return [w["worker"] for w in tersed.status()["workers"] if w["state"] == "busy"]


def model_stats(client):
    return client.call("stats")["models"]["mlp"]


def with_request(client, old):
    """The pid of worker 0 once it is another than `old` and runs something."""
    def found():
        worker = client.call("stats")["workers"][0]
        return worker["pid"] if worker["pid"] != old and worker["state"] == "busy" else None
    return harness.wait_until(found, f"worker 0 follows {old} and has the request")


def slow_model(path):
    """One that runs for some tenths of a second with LONG_X: the same product again and again."""
    w = (numpy.random.default_rng(1).standard_normal((256, 256)) / 16).astype("f4")
    nodes = [("MatMul", [f"h{i}" if i else "x", "w"], ["y" if i == 149 else f"h{i + 1}"]) for i in range(150)]
    return onnx_writer.write(path, [("x", "f4", ["N", 256])], [("y", "f4", ["N", 256])], nodes, {"w": w})


def start(story, *options):
    models = {"mlp": story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4])),
              "slow": story.compress(slow_model(f"{story.folder}/slow.onnx"))}
    tersed = story.tersed(models, "--workers", "1", "--max-batch", "1024", *options)
    return tersed, harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)


X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)
LONG_X = numpy.random.default_rng(2).standard_normal((1024, 256)).astype("f4")
FOREVER = ("--hang-timeout-ms", "600000")

with harness.story("a batch whose worker is killed runs again, each member alone, with the same bits") as story:
    tersed, client, watch = start(story, *FOREVER)
    want = {}
    for k in range(1, 9):
        client.infer("mlp", {"x": X * k})
        want[k] = client.receive()[1]
    pid = tersed.workers()[0]
    stop(pid)
    first = client.infer("mlp", {"x": X})
    harness.wait_until(lambda: busy(tersed), "the stopped worker has a batch")
    asked = {client.infer("mlp", {"x": X * k}): k for k in range(1, 9)}
    asked[first] = 1
    harness.wait_until(lambda: watch.call("stats")["queued"] == 8, "eight more wait")
    os.kill(pid, signal.SIGKILL)
    for _ in range(9):
        header, frames = client.receive()
        story.check(header["status"] == "OK" and frames == want[asked.pop(header["id"])], f"answered with the same bits: {header}")
    story.check(not asked and client.receive(0.2) is None, "each exactly once")
    story.check(model_stats(watch)["retries"] == 1, f"the killed one ran again: {model_stats(watch)['retries']}")

with harness.story("a request that crashes two workers is answered INTERNAL, its companions are not") as story:
    tersed, client, watch = start(story, *FOREVER)
    bad = client.infer("slow", {"x": LONG_X})
    pid = with_request(watch, None)
    others = [client.infer("slow", {"x": LONG_X[:1] * k}) for k in range(3)]
    os.kill(pid, signal.SIGABRT)
    os.kill(with_request(watch, pid), signal.SIGABRT)
    answers = dict((header["id"], header) for header, _ in (client.receive() for _ in range(4)))
    story.check(answers[bad]["status"] == "INTERNAL" and "crashed two workers" in answers[bad]["error"],
                f"the one that did it: {answers[bad]}")
    story.check(all(answers[other]["status"] == "OK" for other in others), f"the companions: {answers}")
    client.infer("mlp", {"x": X})
    story.check(client.receive()[0]["status"] == "OK", "and the daemon goes on")

with harness.story("kills from outside are not held against a request") as story:
    tersed, client, watch = start(story, *FOREVER)
    asked, pid = client.infer("slow", {"x": LONG_X}), None
    for _ in range(3):
        pid = with_request(watch, pid)
        os.kill(pid, signal.SIGKILL)
    header, _ = client.receive()
    story.check(header["id"] == asked and header["status"] == "OK", f"answered after three kills: {header}")

with harness.story("a hung worker is killed, and its request answered by the next") as story:
    tersed, client, watch = start(story)
    client.infer("mlp", {"x": X})
    want = client.receive()[1]
    pid = tersed.workers()[0]
    stop(pid)
    asked = client.infer("mlp", {"x": X})
    header, frames = client.receive(30)
    story.check(header["id"] == asked and header["status"] == "OK" and frames == want, f"answered all the same: {header}")
    story.check(not harness.alive(pid), "the hung one is gone")
    story.check("hang" in tersed.log(), "and the log says so")

with harness.story("a worker that serves can open and start nothing") as story:
    if "san" in harness.BUILD:
        raise harness.Skip("sanitizers need to open files")
    tersed, client, watch = start(story)
    with open(f"/proc/{tersed.workers()[0]}/status") as file:
        facts = dict(line.split(":", 1) for line in file)
    story.check(facts["NoNewPrivs"].strip() == "1", "no new privileges")
    filtered = facts.get("Seccomp", "0").strip()
    story.check(filtered == "2" or "no system call filter here" in tersed.log(), f"a filter, or a word on why not: {filtered}")

harness.finish()
