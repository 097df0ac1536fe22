#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A request that crashes, hangs or stops its worker is answered with INTERNAL; those who shared its batch get theirs."""
import os
import re

import numpy

import harness
import onnx_writer

CRASHES, HANGS, STOPS = 6660, 6661, 6662  # what faults.c does with an input that begins with this number
X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)
SLOW_ROWS = 256 if "san" in harness.BUILD else 1024  # long enough to wait behind, shorter than a hang


def session(kind):
    return f"poison {kind}".encode().ljust(16)[:16]


def poisoned(kind):
    x = X.copy()
    x[0, 0] = kind
    return x


def start(story, *options):
    w = (numpy.random.default_rng(1).standard_normal((256, 256)) / 16).astype("f4")
    nodes = [("MatMul", [f"h{i}" if i else "x", "w"], ["y" if i == 149 else f"h{i + 1}"]) for i in range(150)]
    slow = onnx_writer.write(f"{story.folder}/slow.onnx", [("x", "f4", ["N", 256])], [("y", "f4", ["N", 256])], nodes, {"w": w})
    models = {"mlp": story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4])), "slow": story.compress(slow)}
    fault = harness.Fault(story.folder, "terse-worker", "poison")
    if "asan" in harness.BUILD:  # the crash is wanted
        fault.environment["ASAN_OPTIONS"] += ":handle_segv=0"
    return story.tersed(models, "--workers", 1, "--max-batch", 1024, *options, environment=fault.environment)


def stats(client):
    return client.call("stats")


def one_batch(story, tersed, kind):
    """Seven good requests and a poisoned one in one batch; the headers by id, and which id it was."""
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    want = {}
    for k in range(1, 8):
        client.infer("mlp", {"x": X * k})
        want[k] = client.receive()[1]
    rows = stats(watch)["models"]["mlp"]
    client.infer("slow", {"x": numpy.ones((SLOW_ROWS, 256), "f4")})  # keeps the worker busy until all eight wait
    harness.wait_until(lambda: stats(watch)["workers"][0]["state"] == "busy", "the worker is busy")
    asked = {client.infer("mlp", {"x": X * k}): k for k in range(1, 4)}
    bad = client.infer("mlp", {"x": poisoned(kind)}, session=session(kind))
    asked.update({client.infer("mlp", {"x": X * k}): k for k in range(4, 8)})
    for _ in range(9):
        header, frames = client.receive()
        if header["id"] in asked:
            story.check(header["status"] == "OK" and frames == want[asked.pop(header["id"])], f"a companion: {header}")
        elif header["id"] == bad:
            story.check(header["status"] == "INTERNAL" and "crashed two workers" in header["error"], f"the bad one: {header}")
            bad = None
    story.check(not asked and bad is None and client.receive(0.1) is None, "each is answered once")
    after = stats(watch)["models"]["mlp"]
    story.check(after["crashed_batches"] - rows["crashed_batches"] == 2, f"two workers died of it: {after['crashed_batches']}")
    return client, watch


with harness.story("a request that crashes its worker: its batch runs again one by one, and it alone is refused") as story:
    tersed = start(story)
    client, watch = one_batch(story, tersed, CRASHES)
    restarts = tersed.status()["workers"][0]["restarts"]
    again = harness.Client(tersed.endpoint)
    again.next_id = client.next_id - 5  # the poisoned one's, for a client that lost the answer
    again.infer("mlp", {"x": poisoned(CRASHES)}, session=session(CRASHES))
    header, _ = again.receive()
    story.check(header["status"] == "INTERNAL" and "crashed two workers" in header["error"], f"asked again: {header}")
    client.infer("mlp", {"x": X})
    story.check(client.receive()[0]["status"] == "OK", "the daemon goes on")
    story.check(tersed.status()["workers"][0]["restarts"] == restarts, "asked again it kills nobody")

with harness.story("a request that hangs, and one that stops its worker: the watchdog kills it, with the same end") as story:
    tersed = start(story, "--hang-timeout-ms", 5000 if "san" in harness.BUILD else 700)
    for kind in (HANGS, STOPS):
        one_batch(story, tersed, kind)
    story.check(len(re.findall("hangs: killed", tersed.log())) == 4, "each time by the watchdog")

harness.finish()
