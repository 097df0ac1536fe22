#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse-gateway: health, metadata, configuration, statistics and inferences of the Open Inference Protocol, in JSON and
with binary tensors, as Triton's and KServe's clients send them; and every error with its status."""
import gzip
import json
import os
import re
import zlib

import gateways
import harness
import numpy


def digits(rows, seed=7):
    return {"image": numpy.random.default_rng(seed).random((rows, 1, 8, 8), dtype=numpy.float32)}


def health_and_metadata(story, gate):
    story.check(gate.get("/v2/health/live").json == {"live": True}, "live is 200 and says so")
    story.check(gate.get("/v2/health/ready").json == {"ready": True}, "ready is 200 and says so")
    server = gate.get("/v2").json
    story.check(server["name"] == "triton" and server["version"].startswith("terse ") and "binary_tensor_data" in server["extensions"], "/v2 describes the server")
    story.check(gate.get("/v2/").json == server, "/v2/ is /v2")
    for path in ("/v2/models/digits", "/v2/models/digits/versions/1"):
        about = gate.get(path).json
        story.check(about["name"] == "digits" and about["versions"] == ["1"], f"{path} names model and versions")
        story.check(about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}], f"{path} has the inputs")
        story.check(about["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}], f"{path} has the outputs")
        story.check(gate.get(path + "/ready").json == {"name": "digits", "ready": True}, f"{path} is ready")
    config = gate.get("/v2/models/digits/config").json
    story.check(config["max_batch_size"] == 32 and "dynamic_batching" in config, "the configuration has the batch")
    story.check(config["input"][0]["dims"] == [1, 8, 8] and config["input"][0]["data_type"] == "TYPE_FP32",
                "shapes in the configuration have no batch axis")
    story.check(gate.get("/v2/models/di%67its").json["name"] == "digits", "a name in a path may be escaped")
    index = gate.ask("POST", "/v2/repository/index", "{}").json
    story.check(index == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}], "the index lists the models")
    head = gate.ask("HEAD", "/v2")
    story.check(head.status == 200 and head.body == b"", "HEAD has no body")


def inferences(story, gate, daemon):
    given = digits(3)
    wanted = daemon.infer("digits", given)["logits"]
    answer = gate.infer("digits", given, id='one "two" \u00e9')
    story.check(answer.status == 200 and answer.headers["content-type"] == "application/json", "JSON is answered in JSON")
    story.check(answer.json["model_name"] == "digits" and answer.json["model_version"] == "1"
                and answer.json["id"] == 'one "two" \u00e9', "model, version and id come back")
    story.check(numpy.array_equal(gateways.arrays(answer)["logits"], wanted), "JSON in and out changes no bit")
    nested = {"inputs": [{"data": given["image"].tolist(), "shape": [3, 1, 8, 8], "name": "image", "datatype": "FP32"}],
              "outputs": [{"name": "logits"}], "unknown": [{"a": [None, True, 1e5]}]}
    answer = gate.ask("POST", "/v2/models/digits/versions/1/infer", json.dumps(nested))
    story.check(numpy.array_equal(gateways.arrays(answer)["logits"], wanted), "nested data, members in any order")
    answer = gate.infer_binary("digits", given)
    story.check(answer.status == 200 and numpy.array_equal(gateways.arrays(answer)["logits"], wanted)
                and "inference-header-content-length" not in answer.headers, "binary in, JSON out")
    answer = gate.infer_binary("digits", given, {"binary_data_output": True})
    story.check(answer.headers["content-type"] == "application/octet-stream"
                and numpy.array_equal(gateways.arrays(answer)["logits"], wanted), "binary in, binary out for all")
    answer = gate.infer_binary("digits", given, outputs=[{"name": "logits", "parameters": {"binary_data": True}}])
    story.check(numpy.array_equal(gateways.arrays(answer)["logits"], wanted), "binary in, binary out for one")
    answer = gate.infer_binary("digits", given, {"binary_data_output": True},
                               outputs=[{"name": "logits", "parameters": {"binary_data": False}}])
    story.check("data" in answer.json["outputs"][0], "an output says it for itself")
    answer = gate.infer("digits", given, outputs=[{"name": "logits", "parameters": {"classification": 2}}])
    best = [f"{wanted[r, i]:f}:{i}" for r in range(3) for i in numpy.argsort(-wanted[r], kind="stable")[:2]]
    story.check(answer.json["outputs"][0]["data"] == best and answer.json["outputs"][0]["shape"] == [3, 2]
                and answer.json["outputs"][0]["datatype"] == "BYTES", "the best classes on wish")
    connection = gate.connect()
    for _ in range(20):
        answer = gate.infer("digits", given, connection=connection, parameters={"priority": 1, "timeout": 30000000})
        story.check(answer.status == 200, "a connection is kept")
    connection.close()
    stats = gate.get("/v2/models/digits/versions/1/stats").json["model_stats"]
    story.check(len(stats) == 1 and stats[0]["name"] == "digits" and stats[0]["inference_count"] >= 60
                and stats[0]["inference_stats"]["success"]["count"] >= 20, "statistics count")
    story.check(gate.get("/v2/models/stats").json["model_stats"][0]["name"] == "digits", "statistics of all models")


def readme(story, gate):
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as file:
        body = re.search(r"curl -s 127.0.0.1:8000(/v2/models/digits/infer) -d '(.*?)'", file.read(), re.S)
    answer = gate.ask("POST", body.group(1), body.group(2), {"Content-Type": "application/x-www-form-urlencoded"})
    story.check(answer.status == 200 and numpy.argmax(answer.json["outputs"][0]["data"]) == 0, "the README's zero is a zero")


def packed(story, gate, daemon):
    given = digits(30)
    wanted = daemon.infer("digits", given)["logits"]
    body = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [30, 1, 8, 8],
                                   "data": given["image"].ravel().tolist()}]}).encode()
    for name, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        answer = gate.ask("POST", "/v2/models/digits/infer", pack(body), {"Content-Encoding": name})
        story.check(answer.status == 200 and "content-encoding" not in answer.headers
                    and numpy.array_equal(gateways.arrays(answer)["logits"], wanted), f"a body packed by {name}")
    for accept, name, unpack in (("gzip, deflate", "gzip", gzip.decompress), ("gzip;q=0, deflate", "deflate", zlib.decompress)):
        answer = gate.ask("POST", "/v2/models/digits/infer", body, {"Accept-Encoding": accept})
        story.check(answer.headers.get("content-encoding") == name, f"an answer packed by {name}")
        answer.body = unpack(answer.body)
        story.check(numpy.array_equal(gateways.arrays(answer)["logits"], wanted), f"and it is the same by {name}")
    for what, data, status in (("no gzip", body, 400), ("gzip that ends", gzip.compress(body)[:-9], 400),
                               ("gzip with more behind", gzip.compress(body) + b"x", 400),
                               ("a body that unpacks beyond the limit", gzip.compress(bytes(1 << 21)), 413)):
        answer = gate.ask("POST", "/v2/models/digits/infer", data, {"Content-Encoding": "gzip"})
        story.check(answer.status == status and answer.error, f"{what} is {status}: {answer.status} {answer.body[:200]}")


def metrics(story, gate):
    new = gate.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"})
    old = gate.get("/metrics")
    story.check(new.status == 200 and new.headers["content-type"].startswith("application/openmetrics-text"), "OpenMetrics on wish")
    story.check(old.status == 200 and old.headers["content-type"].startswith("text/plain; version=0.0.4"), "else the older text")
    lines = new.body.decode().splitlines()
    story.check(lines[-1] == "# EOF" and lines.count("# EOF") == 1, "the text ends once")
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    story.check(float(values['terse_requests_total{model="digits",version="1"}']) > 20, "the daemon's numbers are there")
    story.check(float(values['terse_gateway_answers_total{code="200"}']) > 20 and float(values["terse_gateway_connections"]) >= 1,
                "and the gateway's own")


def refusals(story, gate):
    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
    half = dict(image, datatype="FP16")

    def refused(what, status, body, words, path="/v2/models/digits/infer", headers=None):
        answer = gate.ask("POST", path, body if isinstance(body, (bytes, str)) else json.dumps(body), headers)
        story.check(answer.status == status and answer.error and words in answer.error,
                    f"{what} is {status} with '{words}': {answer.status} {answer.body[:300]}")

    def bad(what, words, **changes):
        refused(what, 400, {"inputs": [dict(image, **changes)]}, words)

    for path, status in (("/", 404), ("/v3", 404), ("/v2/models/none", 404), ("/v2/models/none/ready", 404),
                         ("/v2/models/digits/versions/2", 404), ("/v2/models/digits/versions/2/config", 404),
                         ("/v2/models/none/stats", 404), ("/v2/models//ready", 404), ("/v2/models/%/ready", 404),
                         ("/v2/models/a%00/ready", 404), ("/v2/models/digits/infer", 405), ("/v2/repository/index", 405)):
        if path == "/":
            continue
        answer = gate.get(path)
        story.check(answer.status == status and answer.error, f"GET {path} is {status}: {answer.status}")
    story.check(gate.get("/v2/models/digits/infer").headers["allow"] == "POST", "405 says what is allowed")
    story.check(gate.ask("DELETE", "/v2/models/digits").status == 405, "DELETE is 405")
    refused("load", 501, "{}", "terse load", "/v2/repository/models/digits/load")
    refused("an unknown model", 404, {"inputs": [image]}, "Request for unknown model: ", "/v2/models/none/infer")
    refused("an unknown version", 404, {"inputs": [image]}, "2", "/v2/models/digits/versions/2/infer")
    refused("an empty body", 400, "", "JSON ends at byte 0")
    refused("no JSON", 400, "hello", "byte 0: found 'hello'")
    refused("JSON that ends", 400, '{"inputs":[', "JSON ends at byte 11")
    refused("something behind JSON", 400, json.dumps({"inputs": [image]}) + "x", "nothing behind")
    refused("no inputs", 400, "{}", "'inputs' is missing")
    refused("an input twice", 400, {"inputs": [image, image]}, "input 'image': it is there twice")
    refused("depth", 400, '{"x":' + "[" * 5000 + "]" * 5000 + "}", "at most 64 deep")
    refused("an unknown output", 400, {"inputs": [image], "outputs": [{"name": "nothing"}]}, "nothing")
    bad("too few numbers", "as many numbers as the shape says", data=[1] * 63)
    bad("too many numbers", "as many numbers as the shape says", data=[1] * 65)
    bad("a wrong nesting", "as many arrays as the shape says", data=[[0] * 64, [0] * 64])
    bad("a text as a number", "a number of FP32", data=["1"] * 64)
    bad("a number beyond FP32", "a number of FP32", data=[1e39] * 64)
    bad("BYTES", "BYTES is not taken", datatype="BYTES", data=["a"] * 64)
    bad("an unknown type", "'FP8'", datatype="FP8")
    bad("a shape beyond all", "fewer numbers", shape=[1 << 30, 1 << 8])
    bad("a negative size", "a size", shape=[-1, 1, 8, 8])
    bad("a name of another kind", "the name of an input", name=7)
    bad("a wrong type for the model", "image", datatype="FP64")
    bad("shared memory", "shared memory", parameters={"shared_memory_region": "r"})
    bad("binary_data_size alone", "wants the header", parameters={"binary_data_size": 256})
    for member in ("name", "shape", "datatype", "data"):
        twice = json.dumps(image)[:-1] + f', "{member}": {json.dumps(image[member] if member != "shape" else [1, 1, 80, 8])}' + "}"
        refused(f"{member} twice", 400, '{"inputs": [' + twice + "]}", f"'{member}' is there twice")
    refused("FP16 where FP32 is wanted", 400, {"inputs": [half]}, "input 'image' is FP16")
    refused("a number beyond FP16", 400, {"inputs": [dict(half, data=[0.5] * 63 + [65520])]},
            "input 'image': JSON, byte 397: found '65520', a number of FP16, at most 65504")
    refused("an exponent beyond all", 400, json.dumps({"inputs": [dict(half, data=["x"])]}).replace('["x"]', "[-1e999" + ",0" * 63 + "]"),
            "found '-1e999', a number of FP16")
    refused("a missing shape", 400, {"inputs": [{k: v for k, v in image.items() if k != "shape"}]}, "'shape' is missing")
    text = json.dumps({"inputs": [{k: v for k, v in image.items() if k != "data"} | {"parameters": {"binary_data_size": 256}}]})
    for what, body, length, words in (("a short binary body", text.encode() + bytes(255), len(text), "255 bytes are left"),
                                      ("a long binary body", text.encode() + bytes(257), len(text), "1 bytes follow"),
                                      ("a header beyond the body", text.encode(), 10 ** 9, "Inference-Header-Content-Length"),
                                      ("a header that is no number", text.encode(), "x", "Inference-Header-Content-Length")):
        refused(what, 400, body, words, headers={"Inference-Header-Content-Length": str(length)})
    refused("a body too large", 413, bytes(1 << 17), "65536 are allowed")
    refused("an unknown encoding", 415, "{}", "Content-Encoding 'br'", headers={"Content-Encoding": "br"})
    connection = gate.connect()
    connection.request("POST", "/v2/models/digits/infer", body=iter([b"x" * 40000] * 4), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    answer = gateways.Answer(connection.getresponse())
    story.check(answer.status == 413, f"a body too large in chunks is 413: {answer.status}")
    connection.request("GET", "/v2/health/live")
    story.check(gateways.Answer(connection.getresponse()).status == 200, "and the connection goes on")
    connection.close()
    answer = gate.infer("digits", digits(1), parameters={"timeout": 1})
    story.check(answer.status == 504 and answer.error, f"a time that is over is 504: {answer.status}")


with harness.story("the gateway speaks the Open Inference Protocol") as story:
    daemon = story.tersed({"digits": story.digits()}, "--workers", "1")
    with gateways.gateway(story, daemon.endpoint, "--max-body", 65536) as gate:
        health_and_metadata(story, gate)
        inferences(story, gate, daemon)
        readme(story, gate)
        packed(story, gate, daemon)
        metrics(story, gate)
        refusals(story, gate)
        story.check(gate.process.poll() is None, "the gateway lives")

harness.finish()
