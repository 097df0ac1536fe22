#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Requests that wait: they expire, are cancelled, refused when too many, served by priority; and are sent again."""
import os
import signal

import numpy

import harness
import onnx_writer

X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)
CONFIG = """[server]
workers = 1
max_queue = 6
max_client_outstanding = 4
max_request_bytes = 65536
hang_timeout_ms = 600000
[model mlp]
file = {model}
max_batch = 1
[model lookup]
file = {lookup}
"""


def start(story, config=CONFIG):
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    lookup = story.compress(onnx_writer.lookup(f"{story.folder}/lookup.onnx"))
    with open(f"{story.folder}/tersed.conf", "w") as file:
        file.write(config.format(model=model, lookup=lookup))
    return story.tersed({}, "--config", f"{story.folder}/tersed.conf")


def hold(tersed, client):
    """Stops the only worker with a request in its hands; returns its pid and that request's id."""
    pid = tersed.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    held = client.infer("mlp", {"x": X})
    harness.wait_until(lambda: tersed.status()["workers"][0]["state"] == "busy", "the stopped worker has a request")
    return pid, held


def queued(client, n):
    harness.wait_until(lambda: client.call("stats")["queued"] == n, f"{n} requests wait")


with harness.story("a request whose time is over is answered then, waiting or running") as story:
    tersed = start(story)
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    pid, held = hold(tersed, client)
    waiting = client.infer("mlp", {"x": X}, timeout_us=50000)
    patient = client.infer("mlp", {"x": X}, timeout_us=60000000)
    header, _ = client.receive(20)
    story.check(header["id"] == waiting and header["status"] == "DEADLINE_EXCEEDED", f"expired while it waits: {header}")
    story.check("50000 us" in header["error"], f"the error says how long: {header}")
    none = client.infer("mlp", {"x": X}, timeout_us=0)
    header, _ = client.receive(20)
    story.check(header["id"] == none and header["status"] == "DEADLINE_EXCEEDED", f"no time at all: {header}")
    os.kill(pid, signal.SIGCONT)
    got = sorted(client.receive()[0]["id"] for _ in range(2))
    story.check(got == [held, patient], f"the others are answered: {got}")
    os.kill(pid, signal.SIGSTOP)
    running = client.infer("mlp", {"x": X}, timeout_us=50000)
    header, _ = client.receive(20)
    story.check(header["id"] == running and header["status"] == "DEADLINE_EXCEEDED", f"expired while it runs: {header}")
    os.kill(pid, signal.SIGCONT)
    after = client.infer("mlp", {"x": X})
    story.check(client.receive()[0]["id"] == after and client.receive(0.1) is None, "its result is dropped")

with harness.story("what waits can be cancelled, what runs cannot") as story:
    tersed = start(story)
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    pid, held = hold(tersed, client)
    target = client.infer("mlp", {"x": X})
    foreign = watch.call("cancel", target=target)
    story.check(foreign["status"] == "NOT_FOUND", f"another client cannot: {foreign}")
    client.send({"v": 1, "op": "cancel", "id": 1000, "target": target})
    replies = {header["id"]: header for header, _ in (client.receive(), client.receive())}
    story.check(replies[target]["status"] == "CANCELLED" and replies[1000]["status"] == "OK", f"cancelled: {replies}")
    client.send({"v": 1, "op": "cancel", "id": 1001, "target": held})
    header, _ = client.receive()
    story.check(header["id"] == 1001 and "running" in header["error"], f"a running one is not: {header}")
    os.kill(pid, signal.SIGCONT)
    story.check(client.receive()[0]["status"] == "OK", "and is answered")

with harness.story("too many, too large: refused at once, by what limit") as story:
    tersed = start(story)
    clients = [harness.Client(tersed.endpoint) for _ in range(3)]
    watch = harness.Client(tersed.endpoint)
    pid, held = hold(tersed, clients[0])
    asked = [clients[0].infer("mlp", {"x": X}) for _ in range(5)]
    refused = [clients[0].receive()[0] for _ in range(2)]
    story.check([r["id"] for r in refused] == asked[3:] and
                all(r["status"] == "RESOURCE_EXHAUSTED" and "4 are allowed" in r["error"] for r in refused),
                f"more than 4 of one client: {refused}")
    queued(watch, 3)
    for _ in range(3):
        clients[1].infer("mlp", {"x": X})
    queued(watch, 6)
    clients[2].infer("mlp", {"x": X})
    header, _ = clients[2].receive()
    story.check(header["status"] == "RESOURCE_EXHAUSTED" and "6 are allowed" in header["error"], f"a full queue: {header}")
    os.kill(pid, signal.SIGCONT)
    for client, n in ((clients[0], 4), (clients[1], 3)):
        story.check(all(client.receive()[0]["status"] == "OK" for _ in range(n)), "those who were let in are answered")
    clients[2].infer("mlp", {"x": X})
    story.check(clients[2].receive()[0]["status"] == "OK", "and there is room again")
    clients[2].infer("lookup", {"tokens": numpy.zeros((1, 8192), "i8")})
    story.check(clients[2].receive()[0]["status"] == "OK", "65536 bytes are allowed")
    clients[2].infer("lookup", {"tokens": numpy.zeros((1, 8193), "i8")})
    header, _ = clients[2].receive()
    story.check(header["status"] == "RESOURCE_EXHAUSTED" and "65536 are allowed" in header["error"], f"more are not: {header}")
    clients[1].infer("lookup", {"tokens": numpy.zeros((1, 1 << 20), "i8")})
    story.check(clients[1].receive(0.5) is None, "a frame of 8 MB is not even read")
    clients[2].infer("mlp", {"x": X})
    story.check(clients[2].receive()[0]["status"] == "OK", "which others do not notice")

with harness.story("the higher priority goes first, then who came first") as story:
    tersed = start(story, CONFIG.replace("outstanding = 4", "outstanding = 10").replace("max_queue = 6", "max_queue = 10"))
    client, watch = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    pid, held = hold(tersed, client)
    asked = [(client.infer("mlp", {"x": X}, priority=p), p) for p in (0, 5, 9, 5, 0)]
    queued(watch, 5)
    os.kill(pid, signal.SIGCONT)
    got = [client.receive()[0]["id"] for _ in range(6)]
    story.check(got == [held] + [i for i, p in sorted(asked, key=lambda a: -a[1])], f"in the order {got}, asked {asked}")

with harness.story("a request sent again over another connection runs once and is answered there") as story:
    tersed = start(story)
    first, second, watch = (harness.Client(tersed.endpoint) for _ in range(3))
    pid, held = hold(tersed, first)
    session = os.urandom(16)
    asked = first.infer("mlp", {"x": X}, session=session)
    queued(watch, 1)
    second.next_id = asked
    second.infer("mlp", {"x": X}, session=session)
    story.check(watch.call("stats")["queued"] == 1, "it waits once")
    os.kill(pid, signal.SIGCONT)
    header, _ = second.receive()
    story.check(header["id"] == asked and header["status"] == "OK", f"answered where it was asked last: {header}")
    story.check(first.receive()[0]["id"] == held and first.receive(0.2) is None, "and only there")
    story.check(watch.call("stats")["models"]["mlp"]["ok"] == 2, "it ran once")

harness.finish()
