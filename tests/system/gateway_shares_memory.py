#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse-gateway and a daemon of its host share memory: short requests go through it, whatever happens to the daemon and its
models; the others, and all with a daemon that shares none, travel in messages as before."""
import os
import signal
import threading

import gateways
import harness
import numpy
import onnx_writer


def linear(story, name, columns, output, seed):
    """y = x W, exact in FP32: small whole numbers."""
    weights = numpy.random.default_rng(seed).integers(-8, 8, (16, columns)).astype("f4")
    path = os.path.join(story.folder, f"{name}.onnx")
    onnx_writer.write(path, inputs=[("x", "f4", ["N", 16])], outputs=[(output, "f4", ["N", columns])],
                      nodes=[("MatMul", ["x", "w"], [output], {})], constants={"w": weights})
    return story.compress(path), weights


def rows(n, seed):
    return numpy.random.default_rng(seed).integers(-9, 9, (n, 16)).astype("f4")


def shared(gate):
    """Inferences that went through shared memory."""
    return next(int(line.split()[1]) for line in gate.get("/metrics").body.decode().splitlines()
                if line.startswith("terse_gateway_shared_requests_total "))


class Askers:
    """Clients that ask without pause; each answer must be that of one of the models that are, or were, there."""

    def __init__(self, gate, matrices, n=4):
        self.gate, self.matrices, self.done, self.wrong = gate, matrices, 0, []
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        connection = self.gate.connect()
        for i in range(1 << 30):
            if self.ends.is_set():
                break
            x = rows(1 + i % 3, number * 100000 + i)
            ask = self.gate.infer if i % 2 else self.gate.infer_binary
            answer = ask("m", {"x": x}, connection=connection)
            found = list(gateways.arrays(answer).values()) if answer.status == 200 else []
            if answer.status != 200 or not any(numpy.array_equal(found[0], x @ w) for w in self.matrices):
                self.wrong.append((answer.status, answer.body[:200]))
            self.done += 1
        connection.close()

    def go_on(self, n=50):
        before = self.done
        harness.wait_until(lambda: self.done > before + n or self.wrong, f"{n} more are answered")

    def stop(self):
        self.ends.set()
        for thread in self.threads:
            thread.join()


with harness.story("short requests go through shared memory, each answered with its own, while models change and processes die") as story:
    (first, a), (second, b), (third, c) = (linear(story, "one", 8, "y", 1), linear(story, "two", 200, "y", 2), linear(story, "three", 8, "z", 3))
    daemon = story.tersed({"m": first}, "--workers", "2")
    with gateways.gateway(story, daemon.endpoint) as gate:
        askers = Askers(gate, [a])
        harness.wait_until(lambda: shared(gate) > 100, "requests go through shared memory")
        large = rows(6000, 5)
        before = gate.infer_binary("m", {"x": large[:32]})
        story.check(numpy.array_equal(gateways.arrays(before)["y"], large[:32] @ a), "a batch")
        for version, (file, w) in enumerate(((second, b), (third, c), (first, a)), 2):
            askers.matrices.append(w)
            harness.run("terse", "load", "-e", daemon.endpoint, "m", file, "--model-version", version)
            harness.wait_until(lambda: gate.get("/v2/models/m").json["versions"] == [str(version)], f"version {version} serves")
            askers.go_on()
            now = shared(gate)
            harness.wait_until(lambda: shared(gate) > now + 50 or askers.wrong, "through shared memory again, with other outputs")
        os.kill(daemon.frontend(), signal.SIGKILL)
        askers.go_on()
        now = shared(gate)
        harness.wait_until(lambda: shared(gate) > now + 50 or askers.wrong, "through that of another front end")
        os.kill(daemon.workers()[0], signal.SIGKILL)
        askers.go_on()
        askers.stop()
        story.check(not askers.wrong, f"of {askers.done} requests all were answered right: {askers.wrong[:3]}")
        gone = gate.infer("m", {"x": rows(1, 1)}, outputs=[{"name": "nothing"}])
        story.check(gone.status == 400 and "nothing" in gone.error, f"an output that is not there is refused: {gone.error}")

with harness.story("a daemon that shares none is served in messages, and one that shares again is shared with") as story:
    model, w = linear(story, "one", 8, "y", 1)
    config = {kind: os.path.join(story.folder, f"{kind}.conf") for kind in ("none", "some")}
    for kind, path in config.items():
        with open(path, "w") as file:
            file.write(f"[server]\narenas_per_uid = {0 if kind == 'none' else 8}\n")
    daemon = story.tersed({"m": model}, "--config", config["none"])
    with gateways.gateway(story, daemon.endpoint, "--reconnect-ms", 20000) as gate:
        x = rows(2, 3)
        well = [numpy.array_equal(gateways.arrays(gate.infer("m", {"x": x}))["y"], x @ w) for _ in range(20)]
        story.check(all(well) and shared(gate) == 0, "nothing is shared")
    daemon.stop()
    daemon = story.tersed({"m": model}, "--config", config["some"], endpoint=daemon.endpoint)
    with gateways.gateway(story, daemon.endpoint, "--reconnect-ms", 200) as gate:
        for _ in range(5):
            gate.infer("m", {"x": x})
        story.check(shared(gate) == 4, f"the first of a form asks how large the outputs are: {shared(gate)}")
        daemon.stop()
        daemon = story.tersed({"m": model}, "--config", config["none"], endpoint=daemon.endpoint)
        now = shared(gate)
        harness.wait_until(lambda: gate.infer("m", {"x": x}).status == 200, "one that shares none answers after all")
        well = [numpy.array_equal(gateways.arrays(gate.infer("m", {"x": x}))["y"], x @ w) for _ in range(20)]
        story.check(all(well) and shared(gate) == now, "in messages")
        daemon.stop()
        daemon = story.tersed({"m": model}, "--config", config["some"], endpoint=daemon.endpoint)
        harness.wait_until(lambda: gate.infer("m", {"x": x}).status == 200 and shared(gate) > now, "memory is asked for again, and there")
        story.check(numpy.array_equal(gateways.arrays(gate.infer("m", {"x": x}))["y"], x @ w), "and used well")

harness.finish()
