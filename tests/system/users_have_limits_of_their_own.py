#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Users other than the daemon's: the group of the sockets lets them in or does not, and what one of them has taken is
missing to nobody else. Told by children of root that become other users; anybody else can only skip it."""
import contextlib
import json
import os

import msgpack
import numpy

import harness
import onnx_writer
import zmtp

NOBODY, STRANGER, GROUP = 65534, 65533, 54321
X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)


def as_user(uid, groups, do):
    """What `do` returns, called in a child that is `uid`. It must not use ZeroMQ's library: that was the parent's."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = do()
        except BaseException as error:  # told to the parent, and nothing of its cleaning up done here
            said = f"{type(error).__name__}: {error}"
        os.write(into, json.dumps(said).encode())
        os._exit(0)
    os.close(into)
    with open(out, "rb") as file:
        said = json.loads(file.read())
    os.waitpid(child, 0)
    return said


def ask(peer, header, *frames):
    """One request over a connection by hand: the header of its reply, and its frames in hexadecimal."""
    peer.sendall(b"".join(zmtp.frame(part, i < len(frames)) for i, part in enumerate((msgpack.packb(header), *frames))))
    parts, more = [], True
    while more:
        flags = zmtp.exactly(peer, 1)[0]
        parts.append(zmtp.exactly(peer, int.from_bytes(zmtp.exactly(peer, 8 if flags & 2 else 1), "big")))
        more = flags & 1
    return msgpack.unpackb(parts[0]), [part.hex() for part in parts[1:]]


def infer(endpoint):
    tensor = {"name": "x", "dtype": "FP32", "shape": [1, 8], "frame": 1}
    with zmtp.shake_hands(zmtp.connect(endpoint)) as peer:
        header, frames = ask(peer, {"v": 1, "op": "infer", "id": 1, "model": "mlp", "inputs": [tensor]}, X.tobytes())
        return [header["status"], frames]


def come_in(endpoint, n):
    """How many of n connections, held all at once, get through the handshake."""
    with contextlib.ExitStack() as held:
        inside = 0
        for _ in range(n):
            try:
                peer = held.enter_context(zmtp.connect(endpoint))
                zmtp.shake_hands(peer)
                inside += 1
            except (ConnectionError, OSError):
                pass
        return inside, infer_or_why(endpoint), held.pop_all()


def infer_or_why(endpoint):
    try:
        return infer(endpoint)[0]
    except OSError as error:
        return type(error).__name__


def daemon(story, **settings):
    if os.geteuid() != 0:
        raise harness.Skip("only root can become another user")
    os.chmod(story.folder, 0o755)
    path = f"{story.folder}/users.conf"
    with open(path, "w") as file:
        file.write("[server]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    return story.tersed({"mlp": model}, "--config", path, "--workers", "1", endpoint=f"ipc://{story.folder}/tersed.sock")


with harness.story("the group of the sockets comes in, others do not, and neither administrates") as story:
    tersed = daemon(story, listen_group=GROUP, listen_mode="0660")
    endpoint = tersed.endpoint
    want = infer(endpoint)
    story.check(want[0] == "OK", f"root is served: {want}")
    for path in (endpoint[6:], endpoint[6:] + ".attach"):
        about = os.stat(path)
        story.check((about.st_gid, about.st_mode & 0o777) == (GROUP, 0o660), f"{path}: {about.st_gid} {about.st_mode:o}")
    story.check(as_user(NOBODY, [GROUP], lambda: infer(endpoint)) == want, "a member of the group gets the same bits")
    got = as_user(NOBODY, [], lambda: infer(endpoint))
    story.check("PermissionError" in got, f"who is no member cannot connect: {got}")
    got = as_user(NOBODY, [], lambda: harness.Arena(endpoint).answer["status"])
    story.check("PermissionError" in got, f"nor attach: {got}")
    for op, more in (("load", {"model": "mlp", "file": f"{story.folder}/mlp.terse"}), ("unload", {"model": "mlp"}),
                     ("configure", {"model": "mlp", "max_batch": 1})):
        def order():
            with zmtp.shake_hands(zmtp.connect(endpoint)) as peer:
                return ask(peer, {"v": 1, "op": op, "id": 1, **more})[0]["status"]
        got = as_user(NOBODY, [GROUP], order)
        story.check(got == "PERMISSION_DENIED", f"{op} is not for members: {got}")
    story.check(infer(endpoint) == want, "and nothing has changed")

with harness.story("what one user takes is missing to no other") as story:
    tersed = daemon(story, listen_mode="0666", max_user_connections=12, arenas_per_uid=3, arena_bytes_per_uid=1 << 20)
    endpoint = tersed.endpoint
    want = infer(endpoint)

    def greedy():
        inside, again, held = come_in(endpoint, 18)
        other = other_user()
        held.close()
        return [inside, again, other]

    def other_user():
        """Root is the parent, which waits: a third user, of a process that was started before."""
        os.write(go[1], b"g")
        return os.read(told[0], 100).decode()

    go, told = os.pipe(), os.pipe()
    third = os.fork()
    if third == 0:
        try:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            os.read(go[0], 1)
            os.write(told[1], infer_or_why(endpoint).encode())
        finally:
            os._exit(0)
    inside, again, other = as_user(NOBODY, [], greedy)
    os.waitpid(third, 0)
    story.check(inside == 12, f"{inside} of 18 connections come in, 12 are allowed")
    story.check(again != "OK", f"the same user has none left: {again}")
    story.check(other == "OK", f"another user is served meanwhile: {other}")
    story.check(tersed.status()["refused_connections"] >= 6, "and it is counted")
    harness.wait_until(lambda: as_user(NOBODY, [], lambda: infer_or_why(endpoint)) == "OK", "who closes them may come again")

    def hoard():
        arenas = [harness.Arena(endpoint) for _ in range(4)]
        large = harness.Arena(endpoint, 2 << 20)
        os.write(into, arenas[0].token)
        os.read(hold, 1)
        return [arena.answer["status"] for arena in arenas] + [large.answer["status"]]

    (out, into), (hold, let_go) = os.pipe(), os.pipe()

    def look():
        """While nobody's arenas are there: one's own, and nobody's by its token."""
        token = os.read(out, 16)
        own = harness.Arena(endpoint)
        request = {"v": 1, "op": "infer", "id": 1, "model": "mlp", "arena": token,
                   "inputs": [{"name": "x", "dtype": "FP32", "shape": [1, 8], "shm": {"offset": 0, "size": 32}}]}
        with zmtp.shake_hands(zmtp.connect(endpoint)) as peer:
            theirs = ask(peer, request)[0]
            mine = ask(peer, dict(request, arena=own.token))[0]
        os.write(let_go, b"l")
        return [own.answer["status"], theirs["status"], mine["status"]]

    other = os.fork()
    if other == 0:
        try:
            said = as_user(STRANGER, [], look)
            os.write(told[1], json.dumps(said).encode())
        finally:
            os._exit(0)
    kept = as_user(NOBODY, [], hoard)
    own, theirs, mine = json.loads(os.read(told[0], 1000))
    os.waitpid(other, 0)
    story.check(kept == ["OK"] * 3 + ["RESOURCE_EXHAUSTED"] * 2, f"three arenas are allowed: {kept}")
    story.check((own, mine) == ("OK", "OK"), f"another user gets and uses one meanwhile: {own} {mine}")
    story.check(theirs not in ("OK", "RESOURCE_EXHAUSTED"), f"but not by the first one's token: {theirs}")
    story.check(infer(endpoint) == want, "root is served as ever")
    client = harness.Client(endpoint)
    harness.wait_until(lambda: client.call("stats")["arenas"] == 0, "who has gone has nothing left")
    client.close()

harness.finish()
