#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""More requests than can be answered: each gets one answer in time or a reason and a time to come again; models and clients
share what there is; libterse comes again by itself."""
import json
import os
import signal
import subprocess

import numpy

import harness
import onnx_writer

WIDE = numpy.linspace(-1, 1, 1024, dtype="f4").reshape(1, -1)


def start(story, *options, models=("wide",), workers=1):
    """Models that take long enough for a queue to form."""
    paths = {name: story.compress(onnx_writer.mlp(f"{story.folder}/{name}.onnx", [1024, 2048, 2048, 4])) for name in models}
    return story.tersed(paths, "--workers", str(workers), *options)


def bench(tersed, model, *options):
    done = harness.run("terse", "bench", "-e", tersed.endpoint, model, "--json", *options)
    return json.loads(done.stdout.strip().splitlines()[-1])


def collect(client, n):
    """All n answers, by id; each comes once."""
    replies = {}
    for _ in range(n):
        header, _ = client.receive()
        assert header["id"] not in replies, header
        replies[header["id"]] = header
    return replies


with harness.story("a flood is answered once each: in time, or refused with a time to come again") as story:
    tersed = start(story, "--max-batch", "1")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    client.infer("wide", {"x": WIDE})
    story.check(client.receive()[0]["status"] == "OK", "it serves")
    asked = [client.infer("wide", {"x": WIDE}, timeout_us=30000) for _ in range(3000)]
    replies = collect(client, len(asked))
    story.check(sorted(replies) == asked, "every request is answered")
    kinds = {status: [r for r in replies.values() if r["status"] == status] for status in
             {r["status"] for r in replies.values()}}
    story.check(set(kinds) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"} and "OK" in kinds and "RESOURCE_EXHAUSTED" in kinds,
                f"some are answered, others refused: { {k: len(v) for k, v in kinds.items()} }")
    story.check(all(r["retry_after_ms"] >= 1 for r in kinds.get("RESOURCE_EXHAUSTED", [])), "each refusal says when to come again")
    story.check(all("retry_after_ms" not in r for r in kinds["OK"]), "answers do not")
    story.check(client.receive(0.1) is None, "and no more comes")
    model = watch.call("stats")["models"]["wide"]
    story.check(model["ok"] + sum(model["errors"].values()) == model["requests"] == len(asked) + 1, f"all are counted: {model['ok']}, {model['errors']}")
    client.infer("wide", {"x": WIDE}, timeout_us=30000)
    story.check(client.receive()[0]["status"] == "OK", "afterwards there is room again")

with harness.story("what batches take is measured before anybody asks, and counted on") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", "1")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    rows = [cost["rows"] for cost in watch.call("stats")["models"]["digits"]["costs"]]
    story.check(len(rows) >= 2 and rows == [1, 2, 4, 8, 16, 32][:len(rows)], f"batches of 1, 2, 4 ... rows as far as time goes: {rows}")
    for _ in range(3):
        client.infer("digits", {"image": numpy.zeros((1, 1, 8, 8), "f4")})
        client.receive()
    costs = watch.call("stats")["models"]["digits"]["costs"]
    story.check(costs[0]["batches"] == 4 and costs[0]["us"] > 0, f"batches that were served are learnt from: {costs}")

with harness.story("a request that cannot be done in its time is refused at once") as story:
    tersed = start(story, "--hang-timeout-ms", "600000", "--max-batch", "1")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    client.infer("wide", {"x": WIDE})
    client.receive()
    pid = tersed.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    held = client.infer("wide", {"x": WIDE})
    harness.wait_until(lambda: watch.call("stats")["workers"][0]["state"] == "busy", "the stopped worker has a request")
    for _ in range(200):
        client.infer("wide", {"x": WIDE})
    harness.wait_until(lambda: watch.call("stats")["queued"] == 200, "others wait")
    late = client.infer("wide", {"x": WIDE}, timeout_us=100)
    header, _ = client.receive()
    story.check(header["id"] == late and header["status"] == "DEADLINE_EXCEEDED" and "100 us" in header["error"],
                f"and says what was found and allowed: {header}")
    os.kill(pid, signal.SIGCONT)
    story.check(len(collect(client, 201)) == 201, "those that have time are answered")

with harness.story("one that was sent long ago is not worked for") as story:
    import time
    tersed = start(story)
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    cases = [(now - 2_000_000_000, "DEADLINE_EXCEEDED"), (now, "OK"), (now + 3_600_000_000_000, "OK"), (1, "OK" if now > 61e9 else None)]
    for sent, status in cases:
        client.infer("wide", {"x": WIDE}, timeout_us=1_000_000, sent_ns=sent)
        header, _ = client.receive()
        story.check(status in (None, header["status"]), f"sent {now - sent} ns ago: {header}")
    story.check(watch.call("stats")["models"]["wide"]["batches"] <= 3, "only what was in time ran")

with harness.story("a client that floods leaves others room") as story:
    tersed = start(story, "--max-batch", "4")
    flood = subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "wide", "--rate", "20000", "--timeout-ms", "200",
                              "--requests", "40000", "--json"], stdout=subprocess.PIPE, text=True)
    watch = harness.Client(tersed.endpoint)
    harness.wait_until(lambda: watch.call("stats")["models"]["wide"]["errors"].get("RESOURCE_EXHAUSTED", 0) > 100, "the flood is refused")
    honest = bench(tersed, "wide", "--requests", "20", "--timeout-ms", "20000")
    story.check(honest["ok"] == 20, f"one at a time is served meanwhile: {honest}")
    told = json.loads(flood.communicate()[0].strip().splitlines()[-1])
    story.check(flood.returncode == 0 and told["ok"] + sum(told["errors"].values()) == told["sent"] == 40000 and told["ok"] > 0,
                f"the flood is answered too: {told['ok']}, {told['errors']}")
    story.check("refused_p50_us" in told and "behind_p50_us" in told, "bench tells after how long it was refused, and its own lag")

with harness.story("models share the workers however many requests each has") as story:
    tersed = start(story, "--max-batch", "1", "--max-queue", "5000", models=("many", "few"))
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    for name in ("many", "few"):
        client.infer(name, {"x": WIDE})
        client.receive()
    pid = tersed.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    names = {client.infer("many", {"x": WIDE}): "many"}
    harness.wait_until(lambda: watch.call("stats")["workers"][0]["state"] == "busy", "the stopped worker has a request")
    for _ in range(300):
        names[client.infer("many", {"x": WIDE}, timeout_us=60_000_000)] = "many"
    for _ in range(30):
        names[client.infer("few", {"x": WIDE}, timeout_us=60_000_000)] = "few"
    harness.wait_until(lambda: watch.call("stats")["queued"] == 330, "all wait")
    os.kill(pid, signal.SIGCONT)
    order = [names[client.receive()[0]["id"]] for _ in names]
    last = len(order) - 1 - order[::-1].index("few")
    story.check(order.count("few") == 30 and last < 150, f"the few are done after {last} of {len(order)} answers, though they came last")

with harness.story("for energy a worker waits for a fuller batch, for half of the time that there is") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", "1", "--objective", "energy")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    image = numpy.zeros((1, 1, 8, 8), "f4")
    for _ in range(3):
        client.infer("digits", {"image": image}, timeout_us=4_000_000)
    harness.wait_until(lambda: watch.call("stats")["queued"] == 3, "three wait beside an idle worker")
    for _ in range(29):
        client.infer("digits", {"image": image}, timeout_us=4_000_000)
    replies = collect(client, 32)
    story.check(all(r["status"] == "OK" for r in replies.values()), "all are answered")
    story.check(replies[1]["timing"]["batch"] >= 8, f"a batch that is full enough is not held: {replies[1]}")
    client.infer("digits", {"image": image}, timeout_us=400_000)
    header, _ = client.receive()
    story.check(header["status"] == "OK" and header["timing"]["queue_us"] >= 200_000, f"one alone waits: {header}")
    story.check(watch.call("stats")["models"]["digits"]["closed"]["timeout"] >= 1, "which is counted")

with harness.story("libterse comes again when it is told to") as story:
    tersed = start(story, "--max-queue", "4", "--max-batch", "1")
    refused = bench(tersed, "wide", "--requests", "300", "--concurrency", "30")
    story.check(refused["errors"].get("RESOURCE_EXHAUSTED", 0) > 0, f"thirty at once are too many: {refused}")
    patient = bench(tersed, "wide", "--requests", "300", "--concurrency", "30", "--retries", "100000", "--verify")
    story.check(patient["ok"] == 300 and patient["mismatches"] == 0 and not patient["errors"], f"with retries all are answered: {patient}")

harness.finish()
