#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever a client sends, it gets one clear error or none, and others are served as before."""
import os
import random
import time

import msgpack
import numpy
import zmq

import harness
import onnx_writer

SEED = int(os.environ.get("TERSE_SEED", time.time()))
X = numpy.linspace(-1, 1, 16, dtype="f4").reshape(2, 8)
GOOD = {"name": "x", "dtype": "FP32", "shape": [2, 8], "frame": 1}


def infer(**changes):
    header = {"v": 1, "op": "infer", "id": 7, "model": "mlp", "inputs": [GOOD]}
    header.update(changes)
    return {k: v for k, v in header.items() if v is not None}


def x(**changes):
    return [{k: v for k, v in {**GOOD, **changes}.items() if v is not None}]


# (what, header, frames, status, a part of the error)
CASES = [
    ("an unknown model", infer(model="none"), [X], "NOT_FOUND", "no model 'none'"),
    ("an unknown version", infer(version="2"), [X], "NOT_FOUND", "version '2'"),
    ("an unknown op", infer(op="fly"), [X], "UNIMPLEMENTED", "fly"),
    ("an unload of nothing", infer(op="unload", model="none"), [], "NOT_FOUND", "none"),
    ("a load without a file", infer(op="load"), [], "INVALID_ARGUMENT", "file"),
    ("a load of a relative path", infer(op="load", file="a.terse"), [], "INVALID_ARGUMENT", "absolute"),
    ("a load under a name that is none", infer(op="load", model="a/b", file="/a.terse"), [], "INVALID_ARGUMENT", "a/b"),
    ("a configuration out of range", infer(op="configure", max_batch=0), [], "INVALID_ARGUMENT", "1..1024"),
    ("no op", infer(op=None), [X], "INVALID_ARGUMENT", "'op' is missing"),
    ("no model", infer(model=None), [X], "INVALID_ARGUMENT", "'model' is missing"),
    ("another protocol", infer(v=2), [X], "INVALID_ARGUMENT", "'v' is 2"),
    ("no inputs", infer(inputs=[]), [], "INVALID_ARGUMENT", "input 'x' of model 'mlp' is missing"),
    ("inputs that are no array", infer(inputs={}), [X], "INVALID_ARGUMENT", "'inputs' is a map"),
    ("an input that the model has not", infer(inputs=x(name="z")), [X], "INVALID_ARGUMENT", "no input 'z'"),
    ("an input too much", infer(inputs=x() + x(name="z", frame=2)), [X, X], "INVALID_ARGUMENT", "no input 'z'"),
    ("an input twice", infer(inputs=x() + x(frame=2)), [X, X], "INVALID_ARGUMENT", "'x' is there twice"),
    ("a wrong dtype", infer(inputs=x(dtype="INT32")), [X], "INVALID_ARGUMENT", "is INT32, model 'mlp' wants FP32"),
    ("an unknown dtype", infer(inputs=x(dtype="FP31")), [X], "INVALID_ARGUMENT", "FP31"),
    ("a wrong rank", infer(inputs=x(shape=[16])), [X], "INVALID_ARGUMENT", "[16], model 'mlp' wants [N,8]"),
    ("a wrong dimension", infer(inputs=x(shape=[4, 4])), [X], "INVALID_ARGUMENT", "[4,4], model 'mlp' wants [N,8]"),
    ("no rows", infer(inputs=x(shape=[0, 8])), [b""], "INVALID_ARGUMENT", "0 rows, model 'mlp' takes 1 to 4"),
    ("too many rows", infer(inputs=x(shape=[5, 8])), [bytes(160)], "INVALID_ARGUMENT", "5 rows, model 'mlp' takes 1 to 4"),
    ("2^62 rows", infer(inputs=x(shape=[2 ** 62, 8])), [X], "INVALID_ARGUMENT", "rows"),
    ("2^64-1 rows", infer(inputs=x(shape=[2 ** 64 - 1, 8])), [X], "INVALID_ARGUMENT", "too large"),
    ("a negative dimension", infer(inputs=x(shape=[-1, 8])), [X], "INVALID_ARGUMENT", "negative"),
    ("a dimension that is a float", infer(inputs=x(shape=[2.0, 8])), [X], "INVALID_ARGUMENT", "a float"),
    ("nine dimensions", infer(inputs=x(shape=[1] * 9)), [X], "INVALID_ARGUMENT", "9 entries, allowed are 8"),
    ("a short frame", infer(), [X.tobytes()[:-1]], "INVALID_ARGUMENT", "needs 64 bytes, frame 1 has 63"),
    ("a long frame", infer(), [X.tobytes() + b"x"], "INVALID_ARGUMENT", "needs 64 bytes, frame 1 has 65"),
    ("no frame", infer(), [], "INVALID_ARGUMENT", "names frame 1, the message has 0"),
    ("the header as a frame", infer(inputs=x(frame=0)), [X], "INVALID_ARGUMENT", "names no frame"),
    ("a frame that is not there", infer(inputs=x(frame=2)), [X], "INVALID_ARGUMENT", "names frame 2"),
    ("a frame too much", infer(), [X, X], "INVALID_ARGUMENT", "frame 2 of 2 belongs to no input"),
    ("seventy frames", infer(), [X] * 70, "INVALID_ARGUMENT", "70 frames, allowed are 64"),
    ("an output that the model has not", infer(outputs=[{"name": "q"}]), [X], "INVALID_ARGUMENT", "no output 'q'"),
    ("an output twice", infer(outputs=[{"name": "y"}] * 2), [X], "INVALID_ARGUMENT", "asked for twice"),
    ("no output", infer(outputs=[]), [X], "INVALID_ARGUMENT", "'outputs' is empty"),
    ("priority 10", infer(priority=10), [X], "INVALID_ARGUMENT", "'priority' is 10, allowed are 0 to 9"),
    ("a session of 3 bytes", infer(session=b"abc"), [X], "INVALID_ARGUMENT", "3 bytes, allowed are 16"),
    ("a name that is no text", infer(model=b"mlp"), [X], "INVALID_ARGUMENT", "binary data"),
    ("shared memory that was never attached", infer(inputs=x(frame=None, shm={"offset": 0, "size": 64})), [],
     "INVALID_ARGUMENT", "shared memory"),
    ("cancel without a target", infer(op="cancel"), [], "INVALID_ARGUMENT", "'target' is missing"),
    ("cancel of what was never sent", infer(op="cancel", target=99), [], "NOT_FOUND", "99"),
    ("metadata of an unknown model", infer(op="metadata", model="none"), [], "NOT_FOUND", "none"),
]

RAW = [
    ("a text that claims 400 MB", b"\x82\xa2id\x07\xa5model\xdb\x18\x00\x00\x00"),
    ("an array that claims 2^32-1 inputs", b"\x82\xa2id\x07\xa6inputs\xdd\xff\xff\xff\xff"),
    ("an ext that claims 4 GB", b"\x82\xa2id\x07\xa1x\xc9\xff\xff\xff\xff\x01"),
    ("bytes behind the map", msgpack.packb(infer()) + b"\xc0"),
    ("a key twice", b"\x83\xa2id\x07\xa2op\xa4live\xa2op\xa5ready"),
    ("a cut header", msgpack.packb(infer())[:-3]),
    ("a header of 70 KB", msgpack.packb(infer(padding=bytes(70000)))),
]
SILENT = [("a map that claims 400 million pairs", b"\xdf\x18\x00\x00\x00"), ("nothing at all", b""),
          ("noise", b"\xc1\xc1"), ("no map", b"\x93\x01\x02\x03"),
          ("an id that is a text", b"\x81\xa2id\xa17"),
          ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")]


def memory(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


with harness.story("every malformed request gets one error, and nothing else happens") as story:
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    tersed = story.tersed({"mlp": model}, "--max-batch", "4")
    client, other = harness.Client(tersed.endpoint), harness.Client(tersed.endpoint)
    pids = [pid for pid, _ in harness.children(tersed.pid)]
    other.infer("mlp", {"x": X})
    right = other.receive()
    story.check(right[0]["status"] == "OK", f"a good request is answered: {right[0]}")
    peak = memory(tersed.frontend())
    for what, header, frames, status, words in CASES:
        client.send(header, *frames)
        got = client.receive(10)
        story.check(got is not None, f"{what}: answered at all")
        if got is None:
            continue
        reply, more = got
        story.check(reply["id"] == 7 and reply["status"] == status and words in reply.get("error", "") and not more,
                    f"{what}: {status} with '{words}', not {reply}")
        story.check("\n" not in reply.get("error", ""), f"{what}: the error is one line")
    for what, raw in RAW:
        client.socket.send_multipart([raw, X.tobytes()])
        got = client.receive(10)
        story.check(got and got[0]["status"] == "INVALID_ARGUMENT" and got[0]["id"] == 7,
                    f"{what}: INVALID_ARGUMENT, not {got}")
    for what, raw in SILENT:
        client.socket.send_multipart([raw])
    story.check(client.call("live")["status"] == "OK", "live after messages without an id")
    story.check(client.receive(0.2) is None, "messages without an id get no answer, others exactly one")
    other.infer("mlp", {"x": X})
    again = other.receive()
    story.check(again and again[0]["status"] == "OK" and again[1] == right[1], "another client gets the same bits as before")
    story.check(memory(tersed.frontend()) < peak + 20000, f"no large allocation: {memory(tersed.frontend()) - peak} kB more")
    stats = client.call("stats")
    story.check(stats["malformed"] >= len(RAW) + len(SILENT), f"malformed messages are counted: {stats['malformed']}")
    story.check([pid for pid, _ in harness.children(tersed.pid)] == pids, "no process ended")

with harness.story(f"random damage to a good message harms nobody (seed {SEED})") as story:
    rng = random.Random(SEED)
    tersed = story.tersed({"mlp": story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))})
    pids = [pid for pid, _ in harness.children(tersed.pid)]
    client = harness.Client(tersed.endpoint)
    good = msgpack.packb(infer(session=bytes(16), outputs=[{"name": "y"}], timeout_us=10 ** 7, priority=1))
    for _ in range(3000):
        raw = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        client.socket.send_multipart([bytes(raw), X.tobytes()])
        while client.receive(0):
            pass
    client.send({"v": 1, "op": "live", "id": 4242424242})
    harness.wait_until(lambda: (client.receive(1) or ({},))[0].get("id") == 4242424242, "the daemon answers after it all")
    story.check([pid for pid, _ in harness.children(tersed.pid)] == pids, "no process ended")

with harness.story("a client that chooses its routing id is refused, and says so") as story:
    tersed = story.tersed({"mlp": story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))})
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IDENTITY, b"victim")
    socket.connect(tersed.endpoint)
    socket.send_multipart([msgpack.packb(infer()), X.tobytes()])
    story.check(socket.poll(10000), "it is answered")
    reply = msgpack.unpackb(socket.recv_multipart()[0])
    story.check(reply["status"] == "INVALID_ARGUMENT" and "routing id" in reply["error"], f"refused: {reply}")
    socket.close()

harness.finish()
