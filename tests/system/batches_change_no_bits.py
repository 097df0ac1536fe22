#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Requests that wait are run together, each gets the bits that it gets alone, and one that is bad fails alone."""
import os
import signal

import numpy

import harness
import onnx_writer


def hold(tersed, client):
    """Stops the only worker with a request in its hands; returns its pid and that request's id."""
    pid = tersed.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    held = client.infer("lookup", {"tokens": numpy.zeros((1, 1), "i8")})
    harness.wait_until(lambda: tersed.status()["workers"][0]["state"] == "busy", "the stopped worker has a request")
    return pid, held


def alone(story, model, arrays):
    numpy.savez(f"{story.folder}/in.npz", **arrays)
    harness.run("terse", "run", model, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
    with numpy.load(f"{story.folder}/out.npz") as out:
        return {name: out[name] for name in out.files}


def queued(client, n):
    harness.wait_until(lambda: client.call("stats")["queued"] == n, f"{n} requests wait")


with harness.story("what waits together runs together, and no bit changes") as story:
    models = {"mlp": story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [50, 70, 70, 10])), "digits": story.digits(),
              "lookup": story.compress(onnx_writer.lookup(f"{story.folder}/lookup.onnx"))}
    tersed = story.tersed(models, "--workers", "1", "--max-batch", "8", "--hang-timeout-ms", "600000")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    rng = numpy.random.default_rng(5)
    asked = {}
    pid, held = hold(tersed, client)
    for rows in (1, 2, 1, 3, 4, 8, 1, 5, 2, 1):
        for name, key, shape in (("mlp", "x", [50]), ("digits", "image", [1, 8, 8])):
            arrays = {key: rng.standard_normal([rows] + shape).astype("f4")}
            asked[client.infer(name, arrays)] = (name, arrays)
    queued(watch, len(asked))
    os.kill(pid, signal.SIGCONT)
    batches = {"mlp": [], "digits": []}
    for _ in range(len(asked) + 1):
        header, frames = client.receive()
        if header["id"] == held:
            continue
        name, arrays = asked.pop(header["id"])
        batches[name].append(header["timing"]["batch"])
        got, want = client.outputs(header, frames), alone(story, models[name], arrays)
        story.check(got.keys() == want.keys() and all(got[k].tobytes() == want[k].tobytes() and got[k].shape == want[k].shape
                                                      for k in want),
                    f"{name}: the bits of terse run in a batch of {header['timing']['batch']} rows")
    story.check(not asked, "every request is answered")
    for name, sizes in batches.items():
        story.check(max(sizes) == 8 and all(1 <= size <= 8 for size in sizes), f"{name}: batches up to 8 rows: {sizes}")
    stats = watch.call("stats")["models"]["mlp"]
    story.check(stats["rows"] == 28 and stats["batches"] <= 6, f"28 rows in few batches: {stats['batches']}")
    story.check(stats["closed"]["full"] >= 1, f"full batches are counted as such: {stats['closed']}")

with harness.story("only what fits together is put together") as story:
    model = story.compress(onnx_writer.lookup(f"{story.folder}/lookup.onnx"))
    tersed = story.tersed({"lookup": model}, "--workers", "1", "--max-batch", "16", "--hang-timeout-ms", "600000")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    pid, held = hold(tersed, client)
    asked = {}
    for i in range(12):
        tokens = numpy.arange(3 + i % 3, dtype="i8").reshape(1, -1) + i
        asked[client.infer("lookup", {"tokens": tokens})] = tokens
    bad = client.infer("lookup", {"tokens": numpy.array([[1, 2, 100]], "i8")})
    also_bad = client.infer("lookup", {"tokens": numpy.array([[1, -101, 2]], "i8")})
    queued(watch, 14)
    os.kill(pid, signal.SIGCONT)
    for _ in range(15):
        header, frames = client.receive()
        if header["id"] == held:
            continue
        if header["id"] in (bad, also_bad):
            story.check(header["status"] == "INVALID_ARGUMENT" and header["error"], f"a bad index is the client's fault: {header}")
            continue
        tokens = asked.pop(header["id"])
        want = numpy.arange(800, dtype="f4").reshape(100, 8)[tokens]
        story.check(header["status"] == "OK" and (client.outputs(header, frames)["y"] == want).all(), f"right rows: {header}")
        if tokens.shape[1] != 3:
            story.check(header["timing"]["batch"] == 4, f"four of a length run together: {header['timing']}")
    story.check(not asked, "every good request is answered")

with harness.story("batch_timeout_us holds an idle worker, and max_batch 1 batches nothing") as story:
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    tersed = story.tersed({"mlp": model}, "--workers", "2", "--max-batch", "4", "--batch-timeout-us", "300000")
    client = harness.Client(tersed.endpoint)
    x = numpy.ones((1, 8), "f4")
    client.infer("mlp", {"x": x})
    header, _ = client.receive()
    story.check(header["timing"]["queue_us"] >= 290000 and header["timing"]["batch"] == 1, f"a lone request waits: {header}")
    for _ in range(4):
        client.infer("mlp", {"x": x})
    replies = [client.receive()[0] for _ in range(4)]
    story.check(all(r["timing"]["batch"] == 4 and r["timing"]["queue_us"] < 290000 for r in replies),
                f"a full batch does not: {[r['timing'] for r in replies]}")
    for asked in range(1, 51):  # a machine that is busy with other work may take longer than what is left: then once more
        client.infer("mlp", {"x": x}, timeout_us=100000)
        header, _ = client.receive()
        if header["status"] == "OK":
            break
    story.check(header["status"] == "OK" and header["timing"]["queue_us"] < 100000, f"nor does a deadline that would pass: {header}")
    closed = client.call("stats")["models"]["mlp"]["closed"]
    story.check(closed["timeout"] == 1 and closed["full"] == 1 and 1 <= closed["deadline"] <= asked, f"counted by reason: {closed}")
    single = story.tersed({"mlp": model}, "--workers", "1", "--max-batch", "1")
    other = harness.Client(single.endpoint)
    for _ in range(50):
        other.infer("mlp", {"x": x})
    story.check(all(other.receive()[0]["timing"]["batch"] == 1 for _ in range(50)), "max_batch 1: each alone")
    other.infer("mlp", {"x": numpy.ones((2, 8), "f4")})
    header, _ = other.receive()
    story.check(header["status"] == "INVALID_ARGUMENT" and "2 rows" in header["error"], f"two rows are refused: {header}")

harness.finish()
