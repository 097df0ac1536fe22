#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A request that is sent again after its answer, because the answer was lost, is answered from memory and does not run."""
import os

import numpy

import harness
import onnx_writer

X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)
SESSION = bytes(range(16))


def started(story, finished_bytes):
    path = os.path.join(story.folder, "t.conf")
    with open(path, "w") as file:
        file.write(f"[server]\nfinished_bytes = {finished_bytes}\n")
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    return story.tersed({"mlp": model}, "--config", path, "--workers", 1)


def counters(client):
    stats = client.call("stats")
    return stats["models"]["mlp"]["requests"], stats["repeated_replies"]


def ask(client, number, scale, **more):
    client.next_id = number
    client.infer("mlp", {"x": X * scale}, **more)
    return client.receive()


with harness.story("the same session and number gets the same bytes, on any connection, without running again") as story:
    tersed = started(story, "8M")
    first, second, watch = (harness.Client(tersed.endpoint) for _ in range(3))
    replies = {n: ask(first, n, n, session=SESSION) for n in range(1, 51)}
    story.check(all(header["status"] == "OK" for header, _ in replies.values()), "all are answered")
    story.check(all(ask(second, n, n, session=SESSION) == replies[n] for n in range(1, 51)), "and again, byte by byte")
    story.check(counters(watch) == (50, 50), f"fifty ran: {counters(watch)}")
    story.check(ask(second, 1, 7)[1] != replies[1][1], "without a session nothing is remembered")
    story.check(ask(second, 1, 7, session=SESSION[::-1])[1] != replies[1][1], "nor for another session")
    story.check(counters(watch) == (52, 50), f"those ran: {counters(watch)}")

with harness.story("what was refused for want of time or room may be tried again; what was wrong stays so") as story:
    tersed = started(story, "8M")
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    story.check(ask(client, 1, 1, session=SESSION, timeout_us=0)[0]["status"] == "DEADLINE_EXCEEDED", "no time")
    story.check(ask(client, 1, 1, session=SESSION)[0]["status"] == "OK", "with time it runs")
    client.next_id = 2
    client.infer("mlp", {"x": X[:, :4]}, session=SESSION)
    story.check(client.receive()[0]["status"] == "INVALID_ARGUMENT", "a wrong shape")
    story.check(ask(client, 2, 1, session=SESSION)[0]["status"] == "OK", "the right one under the same number runs")

with harness.story("without memory for it, or when it is used up, a request runs again with the same bits") as story:
    tersed = started(story, 0)
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    one, two = (ask(client, 1, 1, session=SESSION) for _ in range(2))
    story.check(one[1] == two[1] and counters(watch) == (2, 0), f"it ran twice: {counters(watch)}")
    tersed = started(story, 65536)
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    one = ask(client, 1, 1, session=SESSION)
    for number in range(2, 1001):
        ask(client, number, 1, session=SESSION)
    two = ask(client, 1, 1, session=SESSION)
    story.check(one[1] == two[1] and counters(watch) == (1001, 0), f"long forgotten: {counters(watch)}")

harness.finish()
