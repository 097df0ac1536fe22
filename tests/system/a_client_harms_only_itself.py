#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client that never reads, floods or vanishes: the others are served as before, and nothing of it stays behind."""
import threading
import time

import numpy
import zmq

import harness
import onnx_writer

X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)


def memory(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) << 10


def wide(path):
    """8 numbers in, a megabyte out."""
    w = numpy.random.default_rng(3).standard_normal((8, 1 << 18)).astype("f4")
    return onnx_writer.write(path, [("x", "f4", ["N", 8])], [("y", "f4", ["N", 1 << 18])],
                             [("MatMul", ["x", "w"], ["y"])], {"w": w})


def start(story):
    models = {"mlp": story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4])),
              "wide": story.compress(wide(f"{story.folder}/wide.onnx"))}
    return story.tersed(models, "--workers", "1")


def deaf(endpoint):
    """A client whose own pipe takes one reply, so that the others stay with the daemon."""
    client = harness.Client.__new__(harness.Client)
    client.socket = zmq.Context.instance().socket(zmq.DEALER)
    for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.SNDHWM, 100000)):
        client.socket.setsockopt(option, value)
    client.socket.connect(endpoint)
    client.next_id = 1
    return client


def serve_others(story, tersed, seconds, what):
    """Calls one after another from another client; all must be right, and quick."""
    client, slowest = harness.Client(tersed.endpoint), 0.0
    client.infer("mlp", {"x": X})
    want = client.receive()[1]
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        begin = time.monotonic()
        client.infer("mlp", {"x": X})
        got = client.receive(20)
        if got is None or got[0]["status"] != "OK" or got[1] != want:
            story.check(False, f"{what}: another client gets its answer, not {got and got[0]}")
            break
        slowest, n = max(slowest, time.monotonic() - begin), n + 1
    story.check(slowest < 5, f"{what}: no call of another client takes seconds: {slowest:.1f}")
    print(f"# {what}: {n} calls of another client, the slowest {slowest * 1000:.0f} ms")
    client.close()


with harness.story("a client that never reads harms only itself") as story:
    tersed = start(story)
    frontend = tersed.frontend()
    bad = deaf(tersed.endpoint)
    before = memory(frontend)
    for _ in range(600):  # 600 MB of replies
        bad.infer("wide", {"x": X})
    serve_others(story, tersed, 4, "never reads")
    watch = harness.Client(tersed.endpoint)
    stats = watch.call("stats")
    story.check(stats["output_bytes_used"] < 128 << 20, f"slots are not held for it: {stats['output_bytes_used']}")
    grown = memory(frontend) - before
    story.check(grown < 400 << 20, f"the front end's memory is bounded: {grown >> 20} MB more for 600 MB of replies")
    # What it gets, once it reads, is whole and in place.
    header, frames = bad.receive()
    story.check(header["status"] == "OK" and len(frames[0]) == 1 << 20, f"a reply that waited is whole: {header}")
    bad.close()
    harness.wait_until(lambda: watch.call("stats")["output_bytes_used"] == 0, "nothing of it stays behind")
    story.check(watch.call("stats")["input_bytes_used"] == 0, "nor its requests")

with harness.story("a client that comes back to its replies gets them all") as story:
    tersed = start(story)
    slow = deaf(tersed.endpoint)
    # With time to wait: without a deadline a slow machine's queue would be cut short.
    asked = [slow.infer("wide", {"x": X}, timeout_us=60_000_000) for _ in range(200)]
    watch = harness.Client(tersed.endpoint)
    harness.wait_until(lambda: watch.call("stats")["models"]["wide"]["ok"] > 20, "its requests are served")
    time.sleep(0.5)  # behind for a while, as a client that computes between its reads
    got = [slow.receive() for _ in asked]
    story.check(all(got) and sorted(h["id"] for h, _ in got) == asked and all(h["status"] == "OK" for h, _ in got),
                f"each of 200 replies of a megabyte, once; others: {[h for h, _ in filter(None, got) if h['status'] != 'OK'][:2]}")

with harness.story("a client that floods harms only itself") as story:
    tersed = start(story)
    frontend = tersed.frontend()
    bad, running = deaf(tersed.endpoint), True
    before = memory(frontend)

    def flood():
        bad.socket.setsockopt(zmq.SNDTIMEO, 200)
        while running:
            try:
                bad.infer("mlp", {"x": X})
                bad.socket.send(b"\xc1" * 100)
            except zmq.Again:
                pass
    thread = threading.Thread(target=flood)
    thread.start()
    serve_others(story, tersed, 4, "floods")
    running = False
    thread.join()
    grown = memory(frontend) - before
    story.check(grown < 300 << 20, f"the front end's memory is bounded: {grown >> 20} MB")
    bad.close()

with harness.story("clients that vanish leave nothing behind") as story:
    tersed = start(story)
    for _ in range(50):
        gone = deaf(tersed.endpoint)
        for _ in range(20):
            gone.infer("wide", {"x": X})
        gone.socket.poll(20)
        gone.close()
    serve_others(story, tersed, 1, "vanishes")
    watch = harness.Client(tersed.endpoint)
    harness.wait_until(lambda: (lambda s: s["queued"] == 0 and s["input_bytes_used"] == 0 and s["output_bytes_used"] == 0)(
        watch.call("stats")), "no request and no slot of them is left")
    harness.wait_until(lambda: watch.call("stats")["clients"] < 10, "nor they themselves")

harness.finish()
