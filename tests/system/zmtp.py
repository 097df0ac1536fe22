# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ's protocol (ZMTP 3.0) by hand, for clients that no library would make: half of a message, one without end."""
import socket


def connect(endpoint, seconds=20):
    if endpoint.startswith("ipc://"):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(seconds)
        peer.connect(endpoint[6:])
    else:
        host, port = endpoint[6:].rsplit(":", 1)
        peer = socket.create_connection((host, int(port)), timeout=seconds)
    return peer


def greeting(mechanism=b"NULL"):
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32)


def command(name, body):
    text = bytes([len(name)]) + name + body
    return bytes([4, len(text)]) + text


def ready(kind=b"DEALER", **more):
    return command(b"READY", b"".join(bytes([len(k)]) + k + len(v).to_bytes(4, "big") + v for k, v in
                                      {b"Socket-Type": kind, **more}.items()))


def frame(body, more=False):
    head = bytes([int(more), len(body)]) if len(body) < 256 else bytes([2 + int(more)]) + len(body).to_bytes(8, "big")
    return head + body


def exactly(peer, n):
    data = b""
    while len(data) < n:
        part = peer.recv(n - len(data))
        if not part:
            raise ConnectionError(f"ended after {len(data)} of {n} bytes")
        data += part
    return data


def shake_hands(peer):
    """Greets, and reads the other side's greeting and READY."""
    peer.sendall(greeting() + ready())
    exactly(peer, 64)
    head = exactly(peer, 2)
    exactly(peer, head[1])
    return peer


def ended(peer, seconds=60):
    """Whether the other side closes the connection; what it sends before that is passed over."""
    peer.settimeout(seconds)
    try:
        while peer.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def flood(peer, part, at_most):
    """Sends `part` until the connection ends or so many bytes are sent; returns the bytes."""
    sent, block = 0, part * max(1, 65536 // len(part))
    try:
        while sent < at_most:
            sent += peer.send(block[sent % len(block):] if len(part) > 1 << 20 else block[sent % len(block):])
    except (ConnectionError, BrokenPipeError):
        pass
    return sent
