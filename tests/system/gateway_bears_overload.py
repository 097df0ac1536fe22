#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse-gateway under more than it can do: too many requests, connections and bytes, clients that are slow, silent or rude,
a daemon that is not there, goes and comes back. Everybody gets an answer, memory stays bounded, and the end is orderly."""
import json
import os
import re
import selectors
import signal
import socket
import threading
import time

import gateways
import harness
import numpy

IMAGE = {"image": numpy.random.default_rng(3).random((1, 1, 8, 8), dtype=numpy.float32)}
BODY = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8],
                               "data": IMAGE["image"].ravel().tolist()}]}).encode()
INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
SANDBOXED = not os.environ.get("TERSE_NO_SECCOMP") and "asan" not in harness.BUILD and "tsan" not in harness.BUILD


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) * 1024


def answers_in(data):
    """Splits what came into whole answers: [(status, headers)], and the rest."""
    found = []
    while True:
        head, mark, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not mark or not length or len(rest) < int(length.group(1)):
            return found, data
        found.append((int(head.split()[1]), head.lower()))
        data = rest[int(length.group(1)):]


def flood(port, connections, rounds):
    """Each of many connections asks `rounds` times, one after the other; statuses, and answers without a Retry-After."""
    selector, statuses, rude = selectors.DefaultSelector(), {}, 0
    for _ in range(connections):
        link = socket.create_connection(("127.0.0.1", port))
        link.sendall(INFER)
        selector.register(link, selectors.EVENT_READ, [b"", rounds])
    end = time.monotonic() + harness.PATIENCE
    while selector.get_map() and time.monotonic() < end:
        for key, _ in selector.select(1):
            data, state = key.fileobj.recv(65536), key.data
            state[0] += data
            found, state[0] = answers_in(state[0])
            for status, head in found:
                statuses[status] = statuses.get(status, 0) + 1
                rude += status == 503 and not re.search(rb"retry-after: [1-9]", head)
                state[1] -= 1
                if state[1] > 0:
                    key.fileobj.sendall(INFER)
            if not data or state[1] == 0:
                selector.unregister(key.fileobj)
                key.fileobj.close()
    return statuses, rude, len(selector.get_map())


def closed(link, seconds=harness.PATIENCE):
    """Whether the other side ends the connection; what it said is passed over."""
    link.settimeout(seconds)
    try:
        while link.recv(65536):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def too_many_requests(story, daemon):
    with gateways.gateway(story, daemon.endpoint, "--max-requests", 40) as gate:
        gate.infer("digits", IMAGE)
        before = resident(gate.process.pid)
        statuses, rude, silent = flood(gate.port, 256, 40)
        story.check(silent == 0 and sum(statuses.values()) == 256 * 40, f"each request is answered: {statuses}, {silent} silent")
        story.check(set(statuses) == {200, 503}, f"by 200 or 503, and both happen: {statuses}")
        story.check(rude == 0, f"{rude} refusals without Retry-After")
        grown = resident(gate.process.pid) - before
        story.check(grown < 48 << 20 or not SANDBOXED, f"memory stays bounded: {grown} bytes more")
        story.check(gate.infer("digits", IMAGE).status == 200, "and it goes on")
    with gateways.gateway(story, daemon.endpoint) as gate:
        statuses, rude, silent = flood(gate.port, 256, 20)
        story.check(silent == 0 and set(statuses) <= {200, 503} and statuses.get(200) and rude == 0,
                    f"what the daemon refuses is 503 too: {statuses}")


def too_many_connections(story, daemon):
    with gateways.gateway(story, daemon.endpoint, "--max-connections", 9, "--idle-s", 100) as gate:
        watcher = gate.connect()  # one of the nine
        def alone():
            answer = gate.get("/metrics", connection=watcher)
            watcher.close() if answer.headers.get("connection") == "close" else None
            return b"terse_gateway_connections 1\n" in answer.body
        harness.wait_until(alone, "no other connection is there")
        first = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(8)]
        for link in first:
            link.sendall(INFER)
        for link in first:
            story.check(link.recv(65536).startswith(b"HTTP/1.1 200"), "as many connections as are allowed are served")
        answer = gate.get("/v2/health/live")
        story.check(answer.status == 503 and answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
                    and "connections" in answer.error, "one more is told so")
        silent = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(70)]
        for link in silent:
            story.check(closed(link), "those beyond that which say nothing are sent away")
            link.close()
        first[0].close()
        harness.wait_until(lambda: gate.get("/v2/health/live").status == 200, "a place that is given back is another's")
        for link in [watcher, *first]:
            link.close()


def slow_clients(story, daemon):
    with gateways.gateway(story, daemon.endpoint, "--transfer-s", 1, "--idle-s", 1) as gate:
        links = {what: socket.create_connection(("127.0.0.1", gate.port)) for what in ("silent", "head", "headers", "body", "reader")}
        links["head"].sendall(b"POST /v2/mod")
        links["headers"].sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\n")
        links["body"].sendall(INFER[:-100])
        links["reader"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stop = threading.Event()

        def dribble():
            while not stop.wait(0.2):
                for what, byte in (("head", b"e"), ("headers", b"X: y\r\n"), ("body", b" ")):
                    try:
                        links[what].send(byte)
                    except OSError:
                        pass
        def never_read():
            try:
                for _ in range(4000):
                    links["reader"].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            except OSError:
                pass
        threads = [threading.Thread(target=dribble), threading.Thread(target=never_read)]
        for thread in threads:
            thread.start()
        for what in ("silent", "head", "headers", "body"):
            story.check(closed(links[what]), f"a client that is slow ({what}) is cut off")
        threads[1].join(harness.PATIENCE)
        story.check(not threads[1].is_alive(), "a client that never reads is cut off")
        stop.set()
        threads[0].join()
        for link in links.values():
            link.close()
        story.check(gate.infer("digits", IMAGE).status == 200, "others are served")
        found = re.search(r"terse_gateway_cut_connections_total (\d+)", gate.get("/metrics").body.decode())
        # libmicrohttpd may give up by itself the one whose questions have filled its buffer.
        story.check(int(found.group(1)) >= 4, f"and they are counted: {found.group(0)}")


def too_many_bytes(story, daemon):
    with gateways.gateway(story, daemon.endpoint, "--max-memory", 1 << 20, "--max-body", 1 << 20) as gate:
        links = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(12)]
        for link in links:
            link.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 140000\r\n\r\n" + b" " * 139999)
        for link in links:
            link.sendall(b"x")
        statuses = [int(link.recv(65536).split()[1]) for link in links]
        story.check(set(statuses) == {400, 503}, f"bodies beyond the memory are 503: {statuses}")
        for link in links:
            link.close()
        story.check(gate.infer("digits", IMAGE).status == 200, "and it goes on")
        crumbs = b"".join(b"1\r\n \r\n" for _ in range(101000))
        with socket.create_connection(("127.0.0.1", gate.port)) as link:
            link.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + crumbs + b"0\r\n\r\n")
            answer = link.recv(65536)
        story.check(answer.startswith(b"HTTP/1.1 413") and b"chunks" in answer, f"crumbs are refused: {answer[:200]}")
        for junk in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 200000, b"GET /v2 HTTP/1.1\r\nA: " + b"b" * 200000 + b"\r\n\r\n",
                     b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                     b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            with socket.create_connection(("127.0.0.1", gate.port)) as link:
                try:
                    link.sendall(junk)
                    link.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                story.check(closed(link), f"junk ends its connection: {junk[:40]}")
        story.check(gate.infer("digits", IMAGE).status == 200, "and it goes on")


def daemons_come_and_go(story, model):
    folder = os.path.join(story.folder, "later")
    os.mkdir(folder)
    endpoint = f"ipc://{folder}/tersed.sock"
    with gateways.gateway(story, endpoint, "--reconnect-ms", 3000, ready=False) as gate:
        story.check(gate.get("/v2/health/live").status == 200, "it lives without a daemon")
        for answer in (gate.get("/v2/health/ready"), gate.infer("digits", IMAGE), gate.get("/metrics"), gate.get("/v2/models/digits")):
            story.check(answer.status == 503 and answer.headers["retry-after"] == "1" and answer.error,
                        f"without a daemon it is 503: {answer.status} {answer.body[:100]}")
        for how in (signal.SIGTERM, signal.SIGKILL, None):
            daemon = story.tersed({"digits": model}, "--workers", "1", endpoint=endpoint)
            harness.wait_until(lambda: gate.get("/v2/health/ready").status == 200, "it finds the daemon")
            statuses, stop = [], threading.Event()

            def ask():
                connection = gate.connect()
                while not stop.is_set():
                    statuses.append(gate.infer("digits", IMAGE, connection=connection).status)
                connection.close()
            askers = [threading.Thread(target=ask) for _ in range(4)]
            for thread in askers:
                thread.start()
            harness.wait_until(lambda: statuses.count(200) > 50, "requests are answered")
            if how:
                daemon.stop(how)
                harness.wait_until(lambda: 503 in statuses, "what finds no daemon is told so")
            stop.set()
            for thread in askers:
                thread.join(harness.PATIENCE)
            story.check(not any(thread.is_alive() for thread in askers) and set(statuses) <= {200, 503},
                        f"each request is answered: {sorted(set(statuses))}")
        story.check(gate.process.poll() is None, "the gateway lives through all of it")


def the_end(story, daemon):
    for how in (signal.SIGTERM, signal.SIGINT):
        with gateways.gateway(story, daemon.endpoint) as gate:
            links = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(100)]
            idle = socket.create_connection(("127.0.0.1", gate.port))
            for link in links:
                link.sendall(INFER)
            harness.wait_until(lambda: links[0].recv(1, socket.MSG_PEEK), "answers come")
            gate.process.send_signal(how)
            statuses = {}
            for link in links:
                data = b""
                link.settimeout(harness.PATIENCE)
                while not answers_in(data)[0]:
                    piece = link.recv(65536)
                    if not piece:
                        break
                    data += piece
                status = data[9:12].decode()
                statuses[status] = statuses.get(status, 0) + 1
                link.close()
            story.check(set(statuses) <= {"200", "503"} and statuses.get("200", 0) > 0, f"what was taken in is answered: {statuses}")
            story.check(gate.process.wait(harness.PATIENCE) == 0, "and it ends with 0")
            idle.close()


def privileges(story, daemon):
    if not SANDBOXED:
        return
    with gateways.gateway(story, daemon.endpoint) as gate:
        for thread in os.listdir(f"/proc/{gate.process.pid}/task"):
            with open(f"/proc/{gate.process.pid}/task/{thread}/status") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            story.check(fields["Seccomp"] == "2" and fields["NoNewPrivs"] == "1" and fields["CapEff"] == "0" * 16,
                        f"thread {thread} is behind a filter, without privileges")
    for wrong in (["--listen", "nowhere"], ["--listen", "127.0.0.1:"], ["--listen", "::1:80"], ["--max-body", "x"], ["--what"]):
        done = harness.subprocess.run([harness.program("terse-gateway"), *wrong], capture_output=True, text=True)
        story.check(done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("terse-gateway: "),
                    f"{wrong} is refused in a line: {done.stderr}")


for name, tell in (("too many requests are 200 or 503", too_many_requests), ("too many connections are told so", too_many_connections),
                   ("slow clients are cut off", slow_clients), ("too many bytes and junk are refused", too_many_bytes),
                   ("the end is orderly", the_end), ("it has no privileges", privileges)):
    with harness.story(name) as told:
        tell(told, told.tersed({"digits": told.digits()}, "--workers", "1"))

with harness.story("daemons come and go") as told:
    daemons_come_and_go(told, told.digits())

harness.finish()
