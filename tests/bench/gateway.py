# SPDX-License-Identifier: Apache-2.0
"""What HTTP adds: terse-gateway beside libterse, in turn; Triton's client, perf_analyzer and wrk against it, unchanged.

perf_analyzer comes with the pip package perf-analyzer, whose program wants glibc 2.38 (Debian 13); $PERF_ANALYZER names another one."""
import importlib.util
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import libterse
import peers

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import onnx_writer  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
REQUESTS, INPUTS = 600, 784
# pip is told not to look for these itself: numpy is the one that is there.
peers.PACKAGES["tritonclient"] = ("tritonclient", "geventhttpclient", "gevent", "greenlet", "zope.interface", "zope.event", "certifi",
                                  "brotli", "urllib3", "python-rapidjson")


class Gateway:
    def __init__(self, tools, folder, endpoint, *options):
        self.log_path = os.path.join(folder, "gateway.log")
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen([tools.program("terse-gateway"), "-e", endpoint, "--listen", "127.0.0.1:0", *options],
                                            stdout=log, stderr=log)
        self.port = None
        end = time.monotonic() + 20
        while time.monotonic() < end and not self.port:
            found = re.search(r"serves http://127\.0\.0\.1:(\d+)/(?s:.*)has found a daemon", open(self.log_path).read())
            self.port = found and int(found.group(1))
            time.sleep(0.02)

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) // 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def request(path, body, headers=""):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n").encode() + body


def bodies(array):
    """The same inference in JSON, as Python's json writes numbers, and with binary tensors both ways."""
    about = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
    text = json.dumps({"inputs": [{**about, "data": array.ravel().tolist()}]}).encode()
    head = json.dumps({"inputs": [{**about, "parameters": {"binary_data_size": array.nbytes}}],
                       "parameters": {"binary_data_output": True}}).encode()
    path = "/v2/models/mlp/infer"
    return {"JSON": request(path, text),
            "binary": request(path, head + array.tobytes(), f"Inference-Header-Content-Length: {len(head)}\r\n")}


class Link:
    """One connection, and as little of Python around it as can be."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, data):
        self.socket.sendall(data)
        answer = self.socket.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer[:300])


def median_us(call):
    times = []
    for _ in range(REQUESTS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def added(tools, daemon, gate):
    import numpy
    array = numpy.random.default_rng(1).uniform(-1, 1, (1, INPUTS)).astype("f4")
    client = libterse.Client(tools.program("libterse.so"), daemon.endpoint, "mlp", "x", array)
    link, asked = Link(gate.port), bodies(array)
    runs = []
    for _ in range(ROUNDS):
        alone = median_us(client.infer)
        runs.append([alone, *(median_us(lambda data=data: link.ask(data)) for data in asked.values())])
    client.close()
    print(f"\na row of {INPUTS} floats, p50 of one client: libterse {statistics.median(r[0] for r in runs):.0f} us")
    for i, (name, limit) in enumerate((("JSON", 250), ("binary", 120)), 1):
        more = statistics.median(r[i] - r[0] for r in runs)
        print(f"  {name:<7} {statistics.median(r[i] for r in runs):>5.0f} us, {more:.0f} us more, asked <= {limit}: "
              f"{'yes' if more <= limit else 'NO'}")


def triton(gate):
    if not peers.have("tritonclient"):
        return
    import numpy
    import tritonclient.http as http
    array = numpy.random.default_rng(1).uniform(-1, 1, (4, INPUTS)).astype("f4")
    with http.InferenceServerClient(f"127.0.0.1:{gate.port}") as client:
        well = client.is_server_live() and client.is_server_ready() and client.is_model_ready("mlp")
        well &= client.get_server_metadata()["version"].startswith("terse") and client.get_model_metadata("mlp")["name"] == "mlp"
        well &= client.get_model_config("mlp")["max_batch_size"] == 32 and len(client.get_model_repository_index()) == 1
        found = []
        for binary in (True, False):
            for packed in (None, "gzip", "deflate"):
                tensor, wanted = http.InferInput("x", array.shape, "FP32"), http.InferRequestedOutput("y", binary_data=binary)
                tensor.set_data_from_numpy(array, binary_data=binary)
                answer = client.infer("mlp", [tensor], outputs=[wanted], request_id="1", priority=1, timeout=10000000,
                                      request_compression_algorithm=packed, response_compression_algorithm=packed)
                found.append(answer.as_numpy("y"))
        handles = [client.async_infer("mlp", [tensor]) for _ in range(20)]
        found += [handle.get_result().as_numpy("y") for handle in handles]
        well &= all(numpy.array_equal(f, found[0]) for f in found) and found[0].shape == (4, 10)
        well &= client.get_inference_statistics("mlp")["model_stats"][0]["inference_count"] > 0
    print(f"tritonclient: health, metadata, configuration, index, statistics, JSON, binary, packed, asynchronous: {'yes' if well else 'NO'}")


def find_perf_analyzer():
    if os.environ.get("PERF_ANALYZER"):
        return os.environ["PERF_ANALYZER"]
    peers.PACKAGES["perf_analyzer"] = ("perf-analyzer",)
    spec = importlib.util.find_spec("perf_analyzer") if peers.have("perf_analyzer") else None
    path = os.path.join(os.path.dirname(spec.origin), "bin", "perf_analyzer") if spec else ""
    return path if os.path.exists(path) else None


def sweep(gate, folder):
    program = find_perf_analyzer()
    if not program:
        print("perf_analyzer: left out: pip has no program of that name for this machine")
        return
    table = os.path.join(folder, "sweep.csv")
    for more in ([], ["--input-tensor-format", "json", "--output-tensor-format", "json"]):
        done = subprocess.run([program, "-m", "mlp", "-u", f"127.0.0.1:{gate.port}", "-i", "http", "-b", "1", "--concurrency-range", "1:7:3"
                               if not more else "1:4:3", "--measurement-interval", "1000", "-s", "60", "-r", "4", "-f", table, *more],
                              capture_output=True, text=True)
        if not os.path.exists(table):
            print(f"perf_analyzer: NO, it ended with {done.returncode}: {(done.stderr.strip() or done.stdout.strip())[-300:]}")
            return
        with open(table) as file:
            rows = [line.split(",") for line in file.read().strip().splitlines()]
        os.remove(table)
        rate, p50 = rows[0].index("Inferences/Second"), rows[0].index("p50 latency")
        print(f"perf_analyzer, {'JSON' if more else 'binary'}: " + "; ".join(f"{row[0]} at a time: {float(row[rate]):.0f}/s, p50 {row[p50]} us"
                                                                            for row in rows[1:]))


LUA = """
local file = io.open("%s", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/json"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() good, full, rude, other = 0, 0, 0, 0 end
function response(status, headers)
  if status == 200 then good = good + 1
  elseif status == 503 then
    full = full + 1
    if not headers["Retry-After"] then rude = rude + 1 end
  else other = other + 1 end
end
function done(summary)
  local sums = {0, 0, 0, 0}
  for _, thread in ipairs(threads) do
    for i, name in ipairs({"good", "full", "rude", "other"}) do sums[i] = sums[i] + thread:get(name) end
  end
  print(string.format("counts %%d %%d %%d %%d errors %%d timeouts %%d", sums[1], sums[2], sums[3], sums[4],
        summary.errors.connect + summary.errors.read + summary.errors.write, summary.errors.timeout))
end
"""


def wrk(gate, folder, what):
    if not shutil.which("wrk"):
        print("wrk: left out: it is not installed (apt-get install wrk)")
        return
    import numpy
    body, script = os.path.join(folder, "body.json"), os.path.join(folder, "wrk.lua")
    array = numpy.random.default_rng(1).uniform(-1, 1, (1, INPUTS)).astype("f4")
    with open(body, "w") as file:
        json.dump({"inputs": [{"name": "x", "shape": [1, INPUTS], "datatype": "FP32", "data": array.ravel().tolist()}]}, file)
    with open(script, "w") as file:
        file.write(LUA % body)
    before = gate.resident()
    done = subprocess.run(["wrk", "-c", "256", "-t", "2", "-d", "5", "--timeout", "10", "--latency", "-s", script,
                           f"http://127.0.0.1:{gate.port}/v2/models/mlp/infer"], capture_output=True, text=True)
    found = re.search(r"counts (\d+) (\d+) (\d+) (\d+) errors (\d+) timeouts (\d+)", done.stdout)
    good, full, rude, other, errors, timeouts = (int(n) for n in found.groups())
    p99 = re.search(r"99%\s+(\S+)", done.stdout).group(1)
    well = good and not (rude or other or errors or timeouts)
    print(f"wrk, 256 connections, {what}: {good / 5:.0f} answers/s, {full / 5:.0f} refusals/s (503 with Retry-After), p99 {p99}, {other} others, "
          f"{errors} errors, {timeouts} hung; memory {before} to {gate.resident()} MiB: {'yes' if well else 'NO'}")


def run(tools, folder):
    if not peers.have("numpy"):
        return
    model = tools.compress(onnx_writer.mlp(os.path.join(folder, "mlp.onnx"), [INPUTS, 512, 512, 10]), folder)
    with tempfile.TemporaryDirectory(dir=folder) as place, tools.Tersed(place, {"mlp": model}) as daemon:
        with Gateway(tools, place, daemon.endpoint) as gate:
            added(tools, daemon, gate)
            triton(gate)
            sweep(gate, place)
            wrk(gate, place, "as it is")
        with Gateway(tools, place, daemon.endpoint, "--max-requests", "32") as gate:
            wrk(gate, place, "32 requests at a time allowed")
