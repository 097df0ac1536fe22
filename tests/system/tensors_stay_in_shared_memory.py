# SPDX-License-Identifier: Apache-2.0
"""Inputs are read and outputs written where a client put them; requests travel through its rings."""
import os

import harness
import numpy

IMAGE = 64 * 4  # bytes of one digit


def request(arena, at=0, out=0, rows=1, id=1, output_bytes=None, **more):
    return {"v": 1, "op": "infer", "id": id, "model": "digits", "arena": arena.token,
            "inputs": [{"name": "image", "dtype": "FP32", "shape": [rows, 1, 8, 8], "shm": {"offset": at, "size": rows * IMAGE}}],
            "outputs": [{"name": "logits", "shm": {"offset": out, "size": rows * 40 if output_bytes is None else output_bytes}}],
            **more}


def logits(arena, out, rows=1):
    return numpy.frombuffer(arena.outputs, "f4", rows * 10, out).reshape(rows, 10).copy()


images = harness.digits_images()[0]

with harness.story("tensors over ZeroMQ, in place, with the bits of frames") as story:
    tersed = story.tersed({"digits": story.digits()})
    expected = tersed.infer("digits", {"image": images[:8]})["logits"]
    arena, client = harness.Arena(tersed.endpoint), harness.Client(tersed.endpoint)
    story.check(arena.answer["status"] == "OK" and len(arena.fds) == 5, arena.answer)
    arena.inputs[:8 * IMAGE] = images[:8].tobytes()
    client.send(request(arena, rows=8, out=64))
    reply, frames = client.receive()
    story.check(reply["status"] == "OK" and not frames and reply["outputs"][0]["shm"] == {"offset": 64, "size": 320}, reply)
    story.check((logits(arena, 64, 8) == expected).all(), "outputs have the bits of the same request in frames")
    client.send(dict(request(arena, at=IMAGE, id=2), outputs=["logits"] and [{"name": "logits"}]))
    reply, frames = client.receive()
    story.check(reply["status"] == "OK" and len(frames) == 1 and frames[0] == expected[1].tobytes(), "outputs as frames, inputs not")
    mixed = request(arena, id=3)
    mixed["inputs"][0].pop("shm")
    mixed["inputs"][0]["frame"] = 1
    client.send(mixed, images[5].tobytes())
    reply, frames = client.receive()
    story.check(reply["status"] == "OK" and (logits(arena, 0) == expected[5]).all(), "inputs as frames, outputs not")
    for i in range(8):  # a batch of members that lie one behind the other, and one of members that do not
        client.send(request(arena, at=i * IMAGE, out=128 * i, id=10 + i))
    replies = sorted((client.receive()[0] for _ in range(8)), key=lambda r: r["id"])
    story.check([r["status"] for r in replies] == ["OK"] * 8, replies)
    story.check(all((logits(arena, 128 * i) == expected[i]).all() for i in range(8)), "each finds its own place")

with harness.story("requests and replies through the rings") as story:
    tersed = story.tersed({"digits": story.digits()})
    expected = tersed.infer("digits", {"image": images[:32]})["logits"]
    arena = harness.Arena(tersed.endpoint, socket_path=os.path.join(tersed.folder, "attach.sock"))
    arena.inputs[:32 * IMAGE] = images[:32].tobytes()
    total = 0
    for turn in range(100):  # more than a ring full
        for i in range(32):
            arena.submit(request(arena, at=i * IMAGE, out=64 * i, id=turn * 32 + i), ring=i == 31)
        replies = [arena.complete() for _ in range(32)]
        story.check(sorted(r["id"] for r in replies) == list(range(turn * 32, turn * 32 + 32)), f"each once in turn {turn}")
        story.check(all(r["status"] == "OK" for r in replies), replies)
        total += sum(int((logits(arena, 64 * i) == expected[i]).all()) for i in range(32))
    story.check(total == 3200, f"{total} of 3200 have the right bits")
    story.check(arena.submitted > 2 * arena.ring_bytes, "the ring went round twice")
    arena.submit({"v": 1, "op": "live", "id": 7})
    story.check(arena.complete() == {"v": 1, "id": 7, "status": "OK"}, "other operations are answered there too")

harness.finish()
