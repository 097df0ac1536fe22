# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, all in one process that steps back for everybody else: a program, not a story.

    hostile.py ENDPOINT N MIBS    N clients in turn of the kinds below, all together sending at most MIBS MiB a second,
                                  until the standard input ends; prints "there" once all have been sent off
"""
import os
import random
import selectors
import socket
import sys
import time

import zmtp

KINDS = ("silent", "greeted", "garbage", "half", "endless parts", "endless small parts", "flood", "flood of requests")
BLOCK = 16384
HELLO = zmtp.greeting() + zmtp.ready()


def pack(value):
    """msgpack, as far as it is needed: this program runs where no module may be."""
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(pack(k) + pack(v) for k, v in value.items())
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(pack, value))
    if isinstance(value, str):
        return bytes([0xa0 | len(value)]) + value.encode()
    return b"\xcf" + value.to_bytes(8, "big")


def requests(op, **more):
    return zmtp.frame(pack({"v": 1, "op": op, "id": 1, **more}))


def block_of(kind, seed):
    """What it says first, and what it says for ever (None: nothing more)."""
    noise = random.Random(seed)
    if kind == "silent":
        return b"", None
    if kind == "greeted":
        return HELLO, None
    if kind == "garbage":
        return noise.randbytes(BLOCK), noise.randbytes(BLOCK)
    if kind == "half":
        return HELLO + zmtp.frame(bytes(1 << 20), True)[:100000], None
    if kind == "endless parts":
        return HELLO, zmtp.frame(noise.randbytes(BLOCK), True)
    if kind == "endless small parts":
        return HELLO, zmtp.frame(b"", True) * (BLOCK // 2)
    if kind == "flood":
        return HELLO, requests("live") * (BLOCK // 40)
    wrong = {"name": "x", "dtype": "FP32", "shape": [1 << 40], "frame": 1}
    return HELLO, requests("infer", model="nobody's", inputs=[wrong]) * (BLOCK // 100)


class Hostile:
    def __init__(self, endpoint, kind, seed):
        self.endpoint, self.first, self.more = endpoint, *block_of(kind, seed)
        self.peer, self.left, self.again_at = None, b"", 0

    def connect(self, now):
        local = self.endpoint.startswith("ipc://")
        host, _, port = self.endpoint[6:].rpartition(":")
        self.peer = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
        self.peer.setblocking(False)
        try:
            self.peer.connect(self.endpoint[6:] if local else (host, int(port)))
        except BlockingIOError:
            pass
        except OSError:
            self.end(now)
        self.left = self.first

    def end(self, now):
        self.peer.close()
        self.peer, self.again_at = None, now + 0.05

    def send(self, now):
        """Bytes sent."""
        self.left = self.left or self.more or b""
        try:
            n = self.peer.send(self.left) if self.left else 0
        except BlockingIOError:
            return 0
        except OSError:
            self.end(now)
            return 0
        self.left = self.left[n:]
        return n

    def look(self, now):
        """Whether it was shown the door; what comes in is never read by those who flood."""
        try:
            if self.more is None and not self.peer.recv(4096):
                self.end(now)
        except BlockingIOError:
            pass
        except OSError:
            self.end(now)


def main():
    endpoint, n, mibs = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    os.nice(19)
    clients = [Hostile(endpoint, KINDS[i % len(KINDS)], i) for i in range(n)]
    with selectors.DefaultSelector() as wait:
        wait.register(sys.stdin, selectors.EVENT_READ)
        told, sent, start = False, 0, time.monotonic()
        while not wait.select(0):
            now = time.monotonic()
            for client in clients:
                if client.peer is None and now >= client.again_at:
                    client.connect(now)
                if client.peer is not None:
                    client.look(now)
                if client.peer is not None and sent <= mibs * (1 << 20) * (now - start + 0.01):
                    sent += client.send(now)
            if not told:
                print("there", flush=True)
                told = True
            time.sleep(0.002)


main()
