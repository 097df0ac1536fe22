#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two hundred clients that mean harm beside an honest one; messages without end, clients without number, replies that
nobody reads. Every honest request is answered right, and no process grows or ends."""
import os
import socket
import subprocess
import sys
import time

import msgpack
import numpy

import harness
import onnx_writer
import zmtp

HERE = os.path.dirname(os.path.abspath(__file__))
X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)
REQUESTS = 3000 if harness.LONG else 600
LARGEST = 1 << 20


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(story, *options):
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    tcp = f"tcp://127.0.0.1:{free_port()}"
    tersed = story.tersed({"mlp": model}, "--workers", "1", "--listen", tcp, "--max-request-bytes", str(LARGEST), *options)
    harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
    return tersed, tcp


def call(client):
    client.infer("mlp", {"x": X})
    return client.receive()


def configured(story, text):
    path = f"{story.folder}/more.conf"
    with open(path, "w") as file:
        file.write("[server]\n" + text)
    return "--config", path


# A sanitizer keeps what is freed for a while, to see whether it is used: there memory says nothing.
MEMORY_IS_PLAIN = harness.BUILD.endswith("release")
if not MEMORY_IS_PLAIN:
    print("# a build with sanitizers: the memory of processes is not looked at", flush=True)


def private_mib(pid):
    with open(f"/proc/{pid}/statm") as file:
        pages = [int(n) for n in file.read().split()]
    return (pages[1] - pages[2]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def pid_of(tersed, name):
    return next((pid for pid, called in harness.children(tersed.pid) if called.startswith(name)), None)


def two_hundred(story, tersed, attacked, honest_endpoint):
    honest = harness.Client(honest_endpoint)
    want = call(honest)[1]
    before = {name: pid_of(tersed, name) for name in ("terse-frontend", "terse-gate", "terse-worker")}
    hostile = subprocess.Popen([sys.executable, f"{HERE}/hostile.py", attacked, "200", "200"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        hostile.stdout.readline()
        wrong = 0
        for _ in range(REQUESTS):
            got = call(honest)
            wrong += got is None or got[0]["status"] != "OK" or got[1] != want
        # Until the harm has been done and seen: messages without end were cut off.
        where = (lambda status: status["gate"] or {}) if attacked.startswith("tcp") else (lambda status: status)
        harness.wait_until(lambda: where(tersed.status()).get("cut_off_connections", 0) > 0, "messages without end are cut off")
        harness.wait_until(lambda: where(tersed.status()).get("connections", 0) > 20, "hostile clients are there")
        story.check(hostile.poll() is None, "the hostile clients were at work all the time")
        for _ in range(REQUESTS):
            got = call(honest)
            wrong += got is None or got[0]["status"] != "OK" or got[1] != want
        story.check(wrong == 0, f"{2 * REQUESTS} requests were answered right ({wrong} were not)")
        after = {name: pid_of(tersed, name) for name in before}
        story.check(before == after, f"no process has ended: {before} {after}")
        for name in ("terse-frontend", "terse-gate"):
            story.check(not MEMORY_IS_PLAIN or private_mib(after[name]) < 400, f"{name} has {private_mib(after[name]):.0f} MiB")
    finally:
        hostile.stdin.close()
        hostile.wait()
    story.check(call(honest)[1] == want, "and is served when they have gone")
    honest.close()


def without_end(story, tersed, endpoint, who):
    """Parts of each size until the connection ends; what was kept of them is given back."""
    pid = pid_of(tersed, who)
    for size in (0, 33, 34, 1000, 8192, 1 << 20):
        peer = zmtp.shake_hands(zmtp.connect(endpoint))
        sent = zmtp.flood(peer, zmtp.frame(bytes(size), True), 1 << 30)
        story.check(sent < 1 << 30 and zmtp.ended(peer), f"{who}: parts of {size} bytes end after {sent} bytes")
        peer.close()
    story.check(pid_of(tersed, who) == pid, f"{who} is the same process")
    if MEMORY_IS_PLAIN:
        harness.wait_until(lambda: private_mib(pid) < 64, f"{who} gives the memory back")


with harness.story("a message without end ends its connection, over ipc and over tcp") as story:
    daemon, address = start(story)
    without_end(story, daemon, daemon.endpoint, "terse-frontend")
    without_end(story, daemon, address, "terse-gate")
    status = daemon.status()
    story.check(status["cut_off_connections"] >= 6, f"counted: {status['cut_off_connections']}")
    harness.wait_until(lambda: daemon.status()["gate"]["cut_off_connections"] >= 6, "counted in the gate")

for attacked, honest in (("tcp", "ipc"), ("tcp", "tcp"), ("ipc", "ipc")):
    with harness.story(f"200 hostile clients over {attacked}, an honest one over {honest}") as story:
        daemon, address = start(story)
        of = {"tcp": address, "ipc": daemon.endpoint}
        two_hundred(story, daemon, of[attacked], of[honest])

for proto in ("ipc", "tcp"):
    with harness.story(f"who sends 2,000 messages of nonsense a second and nothing else is held back, over {proto}") as story:
        daemon, address = start(story)
        nonsense = zmtp.frame(msgpack.packb({"v": 1, "op": "nonsense", "id": 7}))
        peer, start_s, sent = zmtp.shake_hands(zmtp.connect({"tcp": address, "ipc": daemon.endpoint}[proto])), time.monotonic(), 0
        peer.setblocking(False)

        def held_back():
            global sent
            due = int(2000 * (time.monotonic() - start_s)) - sent
            try:
                for _ in range(due):
                    peer.send(nonsense)
            except BlockingIOError:
                pass
            sent += due
            status = daemon.status()
            return ((status["gate"] or {}) if proto == "tcp" else status).get("held_connections", 0) > 0

        harness.wait_until(held_back, "it is not read for a while")
        peer.close()

for proto in ("ipc", "tcp"):
    with harness.story(f"who floods is not read, and who comes again for nothing comes in later, over {proto}") as story:
        daemon, address = start(story)
        endpoint = {"tcp": address, "ipc": daemon.endpoint}[proto]
        counts = lambda: (daemon.status()["gate"] or {}) if proto == "tcp" else daemon.status()
        flood = zmtp.shake_hands(zmtp.connect(endpoint))
        flood.setblocking(False)
        wrong = zmtp.frame(msgpack.packb({"v": 1, "op": "nonsense", "id": 7})) * 500

        def held():
            try:
                flood.send(wrong)
            except BlockingIOError:
                pass
            return counts().get("held_connections", 0) > 0

        harness.wait_until(held, "it is not read for a while")
        client = harness.Client(endpoint)
        want = call(client)
        story.check(want[0]["status"] == "OK", "others are served")
        flood.close()
        for _ in range(100):
            peer = zmtp.connect(endpoint)
            peer.sendall(bytes(1000))
            peer.close()
        harness.wait_until(lambda: counts().get("delayed_connections", 0) > 0, "some of a hundred with garbage wait outside")
        story.check(call(client)[1] == want[1], "who was there is served as before")
        newcomer = harness.Client(endpoint)
        story.check(call(newcomer)[1] == want[1], "and so is one more of that process")
        done = subprocess.run([harness.program("terse"), "status", "-e", endpoint], capture_output=True)
        story.check(done.returncode == 0, "and another process")
        newcomer.close()
        client.close()

with harness.story("connections have limits: all together over tcp, of one user over ipc") as story:
    daemon, address = start(story, *configured(story, "max_tcp_connections = 8\nmax_user_connections = 12\n"))
    harness.wait_until(lambda: daemon.status()["gate"]["connections"] == 0, "nobody is connected over tcp")
    for endpoint, most in ((address, 8), (daemon.endpoint, 12)):
        peers, inside = [], 0
        for _ in range(most + 6):
            try:
                peers.append(zmtp.connect(endpoint))
                zmtp.shake_hands(peers[-1])
                inside += 1
            except (ConnectionError, OSError):
                pass
        story.check(most - 2 <= inside <= most, f"{inside} of {most + 6} come in at {endpoint[:3]}, {most} are allowed")
        for peer in peers:
            peer.close()
        client = harness.Client(endpoint)
        story.check(call(client)[0]["status"] == "OK", "and one comes in when they have gone")
        client.close()
    story.check(daemon.status()["refused_connections"] >= 6, "counted")

with harness.story("who reads no reply is dropped in the end, and counted") as story:
    model = story.compress(onnx_writer.mlp(f"{story.folder}/wide.onnx", [8, 65536]))
    tcp = f"tcp://127.0.0.1:{free_port()}"
    tersed = story.tersed({"mlp": model}, "--workers", "1", "--listen", tcp)
    harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
    for endpoint, count in ((tersed.endpoint, lambda: tersed.status()["dropped_clients"]),
                            (tcp, lambda: tersed.status()["gate"]["dropped_clients"])):
        lazy = zmtp.shake_hands(zmtp.connect(endpoint))
        tensor = {"name": "x", "dtype": "FP32", "shape": [1, 8], "frame": 1}
        for number in range(1, 2001):  # 256 KiB each: half a gigabyte of replies
            header = {"v": 1, "op": "infer", "id": number, "model": "mlp", "inputs": [tensor]}
            try:
                lazy.sendall(zmtp.frame(msgpack.packb(header), True) + zmtp.frame(X.tobytes()))
            except OSError:
                break
        harness.wait_until(count, f"the client at {endpoint[:3]} is dropped", 120)
        story.check(zmtp.ended(lazy), "its connection ends")
        lazy.close()
    client = harness.Client(tersed.endpoint)
    story.check(call(client)[0]["status"] == "OK", "others are served")
    client.close()

harness.finish()
