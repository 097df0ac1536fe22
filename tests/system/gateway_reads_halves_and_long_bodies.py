#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse-gateway: FP16 and BF16 as JSON, against a stand-in of a daemon that gives back what it is sent; and long bodies,
long answers, behind which nobody waits."""
import gzip
import http.client
import json
import select
import threading

import gateways
import harness
import msgpack
import numpy
import zmq

NUMBERS = 500000 if harness.BUILD.endswith("san") else 5000000  # of a long body: 60 MB, or as long to a sanitizer


class Echo:
    """Speaks terse-protocol(7) as far as the gateway needs it: each output is an input."""

    def __init__(self, folder):
        self.endpoint = f"ipc://{folder}/echo.sock"
        self.socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.bind(self.endpoint)
        self.given = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop.is_set():
            if not self.socket.poll(50):
                continue
            peer, head, *frames = self.socket.recv_multipart()
            asked = msgpack.unpackb(head)
            reply = {"v": 1, "id": asked["id"], "status": "OK"}
            if asked["op"] == "infer":
                reply.update(model=asked["model"], version="1", outputs=asked["inputs"])
                self.given = {i["name"]: (i["dtype"], frames[i["frame"] - 1]) for i in asked["inputs"]}
            self.socket.send_multipart([peer, msgpack.packb(reply), *(frames if asked["op"] == "infer" else [])])
        self.socket.close(0)

    def end(self):
        self.stop.set()
        self.thread.join()


def to_bfloat(values):
    """The upper halves of float32, rounded to nearest even."""
    bits = numpy.asarray(values, numpy.float32).view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(numpy.uint16)


def ask(gate, datatype, values, headers=None, **more):
    text = values if isinstance(values, str) else json.dumps(values)
    body = json.dumps({"inputs": [{"name": "x", "shape": [text.count(",") + 1], "datatype": datatype, "data": 0}], **more})
    return gate.ask("POST", "/v2/models/echo/infer", body.replace('"data": 0', f'"data": {text}'), headers)


def halves(story, gate, echo):
    random = numpy.random.default_rng(3)
    values = [float(v) for v in (random.standard_normal(500) * 10.0 ** random.integers(-8, 4, 500)).astype(numpy.float32)]
    values += [0.0, -0.0, 65504.0, 65519.99, 6e-8, 2.9e-8, 2049.0, 2051.0, 0.1, 1 / 3]
    for name, wanted in (("FP16", numpy.array(values, numpy.float16).view(numpy.uint16)), ("BF16", to_bfloat(values))):
        answer = ask(gate, name, values)
        story.check(answer.status == 200, f"{name} as JSON is taken: {answer.status} {answer.body[:200]}")
        dtype, frame = echo.given["x"]
        story.check(dtype == name and numpy.array_equal(numpy.frombuffer(frame, numpy.uint16), wanted),
                    f"{name} is rounded to nearest even")
        output = answer.json["outputs"][0]
        exact = wanted.view(numpy.float16).astype(numpy.float32) if name == "FP16" else (wanted.astype(numpy.uint32) << 16).view(numpy.float32)
        story.check(output["datatype"] == name and numpy.array_equal(numpy.array(output["data"], numpy.float32), exact),
                    f"{name} comes back as exactly what it is")
        answer = ask(gate, name, values, outputs=[{"name": "x", "parameters": {"binary_data": True}}])
        length = int(answer.headers["inference-header-content-length"])
        story.check(answer.body[length:] == wanted.tobytes(), f"{name} in JSON, out binary: the same bits")
        answer = ask(gate, name, "[NaN, Infinity, -Infinity]")
        story.check("[NaN,Infinity,-Infinity]" in answer.body.decode(), f"{name} has NaN and infinities: {answer.body[-80:]}")
        answer = ask(gate, name, [1, 5, 3], outputs=[{"name": "x", "parameters": {"classification": 1}}])
        story.check(answer.json["outputs"][0]["data"] == ["5.000000:1"], f"classes of {name}")
    for name, beyond, most in (("FP16", "65520", "65504"), ("FP16", "-7e4", "65504"), ("BF16", "3.4e38", "3.38953139e+38")):
        answer = ask(gate, name, f"[1, {beyond}]")
        story.check(answer.status == 400 and "input 'x': " in answer.error and f"found '{beyond}', a number of {name}, at most {most}" in answer.error,
                    f"{beyond} is beyond {name}: {answer.error}")


def aside(gate):
    lines = gate.get("/metrics").body.decode().splitlines()
    return any(line.startswith("terse_gateway_aside ") and line.split()[1] != "0" for line in lines)


def nobody_waits(story, gate, what, method_body, headers, status):
    """Asks for something long until, while it was at work, something short was answered."""
    short = {"image": numpy.zeros((1, 1, 8, 8), numpy.float32)}
    connection = gate.connect()

    def try_once():
        connection.request("POST", "/v2/models/digits/infer", body=method_body, headers=headers)
        overtaken = False
        while not select.select([connection.sock], [], [], 0)[0]:
            before = aside(gate)
            answered = gate.infer("digits", short).status == 200
            overtaken |= before and answered and aside(gate)
        answer = gateways.Answer(connection.getresponse())
        if answer.status != status:
            raise AssertionError(f"{what}: {answer.status} {answer.body[:300]}")
        return overtaken

    harness.wait_until(try_once, f"a short request overtakes {what}")
    connection.close()
    story.check(True, f"a short request is answered while {what} is at work")


with harness.story("FP16 and BF16 travel as JSON numbers") as story:
    echo = Echo(story.folder)
    try:
        with gateways.gateway(story, echo.endpoint) as gate:
            halves(story, gate, echo)
    finally:
        echo.end()

with harness.story("nobody waits behind a long body") as story:
    daemon = story.tersed({"digits": story.digits()}, "--workers", "1")
    with gateways.gateway(story, daemon.endpoint) as gate:
        image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
        wanted = gate.ask("POST", "/v2/models/digits/infer", json.dumps({"inputs": [image]})).body
        long = '{"nothing": [' + "0.123456789," * NUMBERS + '0], "inputs": [' + json.dumps(image) + "]}"
        nobody_waits(story, gate, "a long body", long, {}, 200)
        story.check(gate.ask("POST", "/v2/models/digits/infer", long).body == wanted, "and it is answered as a short one")
        nobody_waits(story, gate, "a packed body", gzip.compress(long.encode(), 1), {"Content-Encoding": "gzip"}, 200)
        nobody_waits(story, gate, "one that is wrong at the end", long[:-1] + "]", {}, 400)
        harness.wait_until(lambda: not aside(gate), "nothing is aside at the end")
        memory = [line for line in gate.get("/metrics").body.decode().splitlines() if line.startswith("terse_gateway_memory_bytes ")]
        story.check(int(memory[0].split()[1]) < 1 << 20, f"and nothing is held: {memory}")

with harness.story("what is being read when the gateway ends is answered") as story:
    daemon = story.tersed({"digits": story.digits()}, "--workers", "1")
    with gateways.gateway(story, daemon.endpoint, "--drain-ms", "0") as gate:
        long = '{"nothing": [' + "0.123456789," * NUMBERS + "0]}"
        connections = [gate.connect() for _ in range(3)]
        for connection in connections:
            connection.request("POST", "/v2/models/digits/infer", body=long)
        harness.wait_until(lambda: aside(gate) or select.select([connections[0].sock], [], [], 0)[0], "the first is read")
        gate.process.terminate()
        answers = []
        for connection in connections:
            try:
                answers.append(gateways.Answer(connection.getresponse()).status)
            except (http.client.HTTPException, OSError):
                answers.append(0)  # it had not come whole
        story.check(answers[0] in (400, 503) and all(status in (400, 503, 0) for status in answers), f"what had come is answered: {answers}")

harness.finish()
