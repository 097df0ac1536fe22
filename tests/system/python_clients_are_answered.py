#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""client/python: blocking and asyncio, frames and shared memory, losing the front end and the whole daemon."""
import asyncio
import os
import signal
import sys
import time

import harness
import numpy

sys.path.insert(0, os.path.join(harness.ROOT, "client", "python"))
import terse  # noqa: E402

images = harness.digits_images()[0]


def refused(call, kind, text):
    try:
        call()
    except terse.Error as wrong:
        return type(wrong) is kind and text in str(wrong)
    return False


with harness.story("blocking: answers have the bits of terse infer") as story:
    tersed = story.tersed({"digits": story.digits()})
    expected = tersed.infer("digits", {"image": images[:32]})["logits"]
    with terse.Client(tersed.endpoint) as client:
        reply = client.infer("digits", image=images[:8], timeout=10, priority=3, version="1", outputs=["logits"])
        story.check((reply["logits"] == expected[:8]).all() and list(reply) == ["logits"], "eight rows")
        story.check(reply.version == "1" and reply.batch >= 1 and reply.compute_us > 0, vars(reply))
        requests = [client.submit("digits", {"image": images[i:i + 1]}) for i in range(32)]
        rows = [r.result()["logits"][0] for r in reversed(requests)][::-1]
        story.check((numpy.stack(rows) == expected).all(), "many at once, taken in another order")
        strided = numpy.repeat(images[:4], 2, axis=0)[::2]
        story.check((client.infer("digits", image=strided)["logits"] == expected[:4]).all(), "an array that is not dense")
        story.check((client.infer("digits", image=images[:2].astype(">f4"))["logits"] == expected[:2]).all(), "or big-endian")
        story.check(client.ready() and client.ready("digits"), "ready")
        story.check(client.models() == [terse.Model("digits", "1", "ready")], client.models())
        signature = client.metadata("digits")
        story.check(signature.inputs[0].name == "image" and signature.inputs[0].shape[1:] == (1, 8, 8) and
                    signature.batchable and signature.max_batch == 32, signature)
        story.check("digits" in client.stats()["models"], client.stats())
        story.check(refused(lambda: client.infer("nobody", image=images[:1]), terse.NotFound, "nobody"), "an unknown model")
        story.check(refused(lambda: client.infer("digits", picture=images[:1]), terse.InvalidArgument, "picture"),
                    "an unknown input")
        story.check(refused(lambda: client.infer("digits", image=images[:1].astype("c8")), terse.InvalidArgument, "complex64"),
                    "a type that does not travel")
        story.check(refused(lambda: client.infer("digits", image=images[:1, :, :7]), terse.InvalidArgument, "image"), "a wrong shape")
        story.check((client.infer("digits", image=images[:1])["logits"] == expected[:1]).all(), "and goes on")
    story.check(refused(lambda: terse.Client(f"ipc://{tersed.folder}/nobody", connect_timeout=0.1), terse.Unavailable, "nobody"),
                "nobody there")

with harness.story("a trace says when the request was where, by frames, through shared memory and with asyncio") as story:
    tersed = story.tersed({"digits": story.digits()})

    def adds_up(reply, what):
        trace = reply.trace
        times = trace and [trace.received_ns, trace.queued_ns, trace.dispatched_ns, trace.computed_ns, trace.replied_ns, trace.completed_ns]
        story.check(trace and times == sorted(times) and times[0] >= 0 and trace.same_clock, f"{what}: {trace}")
        story.check((trace.computed_ns - trace.dispatched_ns) / 1000 + 1 >= reply.compute_us, f"{what}: computing takes what it took")

    with terse.Client(tersed.endpoint) as client:
        adds_up(client.infer("digits", image=images[:1], trace=True), "frames")
        arena = client.attach(1 << 16, 1 << 16)
        image, logits = arena.input((1, 1, 8, 8)), arena.output((1, 10))
        image[:] = images[:1]
        adds_up(client.infer("digits", {"image": image}, outputs={"logits": logits}, trace=True), "shared memory")
        story.check(client.infer("digits", image=images[:1]).trace is None, "none where none was asked for")

    async def traced():
        async with terse.AsyncClient(tersed.endpoint) as client:
            adds_up(await client.infer("digits", image=images[:1], trace=True), "asyncio")
    asyncio.run(traced())
    wire_trace = terse.wire.trace
    told = {"queued_ns": 10, "dispatched_ns": 20, "computed_ns": 30, "replied_ns": 40, "worker": 1}
    story.check(wire_trace(told, 1000, 1100) == terse.Trace(30, 40, 50, 60, 70, 100, 1, False), "another host's lies in the middle")
    story.check(wire_trace({**told, "received_ns": 1005}, 1000, 1100) == terse.Trace(5, 15, 25, 35, 45, 100, 1, True), "this host's by its clock")
    story.check(wire_trace({**told, "received_ns": 1090}, 1000, 1100) == terse.Trace(30, 40, 50, 60, 70, 100, 1, False),
                "a clock that cannot be ours is not believed")
    story.check(wire_trace({"queued_ns": "x"}, 1000, 1100) is None and wire_trace(None, 1000, 1100) is None, "nonsense is none")

with harness.story("a time that ends is an exception, and the connection goes on") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", "1", "--hang-timeout-ms", "60000")
    with terse.Client(tersed.endpoint) as client:
        worker = tersed.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        story.check(refused(lambda: client.infer("digits", image=images[:1], timeout=0.2), terse.DeadlineExceeded, ""), "in 0.2 s")
        os.kill(worker, signal.SIGCONT)
        story.check(client.infer("digits", image=images[:1], timeout=60)["logits"].shape == (1, 10), "and is answered again")

with harness.story("shared memory: nothing travels, and arrays outlive a front end") as story:
    tersed = story.tersed({"digits": story.digits()})
    expected = tersed.infer("digits", {"image": images[:8]})["logits"]
    with terse.Client(tersed.endpoint) as client:
        arena = client.attach(1 << 16, 1 << 16)
        image, logits = arena.input((8, 1, 8, 8)), arena.output((8, 10))
        image[:] = images[:8]
        reply = client.infer("digits", {"image": image}, outputs={"logits": logits})
        story.check((logits == expected).all() and reply["logits"].ctypes.data == logits.ctypes.data, "the answer lies there")
        story.check((client.infer("digits", image=image[:1])["logits"] == expected[:1]).all(), "inputs there, outputs not")
        story.check(refused(lambda: client.infer("digits", {"image": image}, outputs={"logits": numpy.zeros((8, 10), "f4")}),
                            terse.InvalidArgument, "does not lie"), "an output elsewhere is refused")
        small = arena.output((1, 10))
        story.check(refused(lambda: client.infer("digits", {"image": image}, outputs={"logits": small}), terse.ResourceExhausted,
                            "320"), "one that is too small is told the bytes")
        story.check(refused(lambda: arena.input((1 << 20,)), terse.ResourceExhausted, "room"), "so is too large an array")
        arena.give(small)
        story.check(arena.output((1, 10)).ctypes.data == small.ctypes.data, "a place that is given back is taken again")
        logits[:] = 0
        os.kill(tersed.frontend(), signal.SIGKILL)
        client.infer("digits", {"image": image}, outputs={"logits": logits})
        story.check((logits == expected).all(), "another front end, the same arrays")
        story.check(refused(lambda: client.attach(4096, 4096), terse.InvalidArgument, "already"), "one for a client")

with harness.story("asyncio: many at once, cancelled, timed out") as story:
    tersed = story.tersed({"digits": story.digits()}, "--max-batch", "4")

    async def ask():
        async with terse.AsyncClient(tersed.endpoint) as client:
            replies = await asyncio.gather(*(client.infer("digits", image=images[i:i + 1]) for i in range(64)))
            rows = numpy.concatenate([r["logits"] for r in replies])
            arena = await client.attach(1 << 16, 1 << 16)
            image, logits = arena.input((4, 1, 8, 8)), arena.output((4, 10))
            image[:] = images[:4]
            await client.infer("digits", {"image": image}, outputs={"logits": logits})
            cancelled = asyncio.ensure_future(client.infer("digits", image=images[:1]))
            await asyncio.sleep(0)
            cancelled.cancel()
            try:
                await cancelled
                ended = False
            except asyncio.CancelledError:
                ended = True
            try:
                await client.infer("nobody", image=images[:1])
                missing = False
            except terse.NotFound:
                missing = True
            return rows, logits.copy(), ended, missing, await client.models(), await client.ready()
    rows, logits, ended, missing, models, ready = asyncio.run(ask())
    one = numpy.concatenate([tersed.infer("digits", {"image": images[i:i + 4]})["logits"] for i in range(0, 64, 4)])
    story.check((rows == one).all() and (logits == one[:4]).all(), "the bits of each alone")
    story.check(ended and missing and ready and models[0].name == "digits", (ended, missing, ready, models))

with harness.story("a daemon that is replaced answers what the last one did not") as story:
    digits = story.digits()
    tersed = story.tersed({"digits": digits})
    expected = tersed.infer("digits", {"image": images[:1]})["logits"]
    with terse.Client(tersed.endpoint, reconnect_timeout=60) as client:
        tersed.stop()
        waiting = [client.submit("digits", {"image": images[:1]}) for _ in range(16)]
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            client._step(0.01)
        story.check(not any(r._done for r in waiting), "nobody is there: they wait")
        again = story.tersed({"digits": digits}, endpoint=tersed.endpoint)
        story.check(all((r.result()["logits"] == expected).all() for r in waiting), "the next one answers them all")
    with terse.Client(again.endpoint, reconnect_timeout=0.2) as client:
        again.stop()
        story.check(refused(lambda: client.infer("digits", image=images[:1]), terse.Unavailable, "0.2 s"), "nobody comes: it ends")

harness.finish()
