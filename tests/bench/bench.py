#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Speed, side by side with the peers, in one run. `make bench`, or parts of it: make bench BENCH="engine serving".

engine    whole networks on one thread, terse run beside onnxruntime, in turn; networks from perf_models.py (../shared)
serving   a tiny request through tersed beside a bare ZeroMQ echo: same client, same header, in turn
batching  784-512-512-10 with 64 outstanding, max_batch 32 beside max_batch 1
shm       memory shared with the daemon beside frames over ipc, and beside bare wake-ups
overload  1.2, 2 and 10 times what a daemon can do, with a deadline: goodput, latencies, refusals
faults    a killed front end until it answers again; p99 of four clients at 70 % load while workers are killed, and front ends
instrumentation
          what histograms, traces and a watcher cost tiny requests, beside the same daemon without
gateway   what HTTP adds to libterse, with JSON and binary; Triton's client, perf_analyzer and wrk with 256 connections
hostile   what encryption costs over tcp, and what 200 hostile clients cost an honest one over ipc
memory    private bytes of 8 workers that serve a 100 MB model
reload    latencies of one model while another, of 200 MB, is loaded again and again
compressors  onnxruntime's static quantization of two trained networks beside ours: bytes, time, top-1
tune      what terse tune recommends beside every combination, for three networks (half an hour; not without being asked for)
gemm blas int8 floats sparse start workers accuracy
          every figure that terse is to reach, beside what it reached (table.py), with onnxruntime, openvino, ncnn and
          MNN

All of it runs on one core, the last of those that this process may use, except instrumentation, serving, batching, memory, overload,
faults, reload, tune and workers.

Ratios are medians of several alternating runs; machines are shared and noisy, so only ratios are compared. Peers (onnx,
onnxruntime, numpy) come by pip into build/peers when they are not there.
"""
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import faults
import gateway
import hostile
import instrumentation
import overload
import peers
import reload
import shm
import table
import tune

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("TERSE_BUILD", "build/release"))
SHARED = os.environ.get("TERSE_SHARED", os.path.join(ROOT, "..", "shared"))
PEERS = peers.FOLDER


def program(name):
    return os.path.join(BUILD, name)


def have_peers():
    return all(peers.have(module) for module in ("numpy", "onnx", "onnxruntime"))


def run_json(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compress(path, folder):
    target = os.path.join(folder, os.path.basename(path).replace(".onnx", ".terse"))
    done = subprocess.run([program("terse"), "compress", path, "-o", target], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {path}: {done.stderr.strip()}")
    return target


# --- engine ---------------------------------------------------------------------------------------------------

NETWORKS = [("mlp", {"N": 1}), ("mlp", {"N": 8}), ("mlp", {"N": 64}), ("squeezenet11", {"N": 1}), ("resnet50", {"N": 1}),
            ("mobilenetv2", {"N": 1}), ("minilm", {"N": 1})]


def onnxruntime_session(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def time_onnxruntime(session, batch, seconds):
    import numpy
    shape = [batch if not isinstance(d, int) else d for d in session.get_inputs()[0].shape]
    feed = {session.get_inputs()[0].name: numpy.random.default_rng(1).uniform(-1, 1, shape).astype("f4")}
    times, end = [], time.perf_counter() + seconds
    session.run(None, feed)
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def write_networks(folder):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([PEERS, os.environ.get("PYTHONPATH", "")]))
    subprocess.run([sys.executable, os.path.join(SHARED, "tools", "perf_models.py"), folder], check=True, capture_output=True,
                   env=environment)


def engine(folder):
    generator = os.path.join(SHARED, "tools", "perf_models.py")
    if not os.path.exists(generator) or not have_peers():
        print("engine: skipped: needs ../shared/tools/perf_models.py, onnx and onnxruntime")
        return
    write_networks(folder)
    print(f"\n{'network':<14} {'batch':>5} {'terse us':>10} {'onnxruntime us':>15} {'times as fast':>14}")
    for name, dims in NETWORKS:
        path, batch = os.path.join(folder, name + ".onnx"), dims["N"]
        packed, session = compress(path, folder), onnxruntime_session(path)
        probe = run_json(program("terse"), "run", packed, "--random", "--batch", str(batch), "--repeat", "5", "--json")
        repeat = str(max(5, int(0.7e6 / probe["median_us"])))
        ours, theirs = [], []
        for _ in range(5):
            ours.append(run_json(program("terse"), "run", packed, "--random", "--batch", str(batch), "--repeat", repeat,
                                 "--json")["median_us"])
            theirs.append(time_onnxruntime(session, batch, 0.7))
        ratio = statistics.median(t / o for o, t in zip(ours, theirs))
        print(f"{name:<14} {batch:>5} {statistics.median(ours):>10.1f} {statistics.median(theirs):>15.1f} {ratio:>14.2f}", flush=True)


# --- a daemon -------------------------------------------------------------------------------------------------


class Tersed:
    def __init__(self, folder, models, *options, environment=None):
        self.endpoint = f"ipc://{folder}/{len(os.listdir(folder))}.sock"
        command = [program("tersed"), "--listen", self.endpoint]
        for name, path in models.items():
            command += ["--model", f"{name}={path}"]
        self.log = open(os.path.join(folder, "tersed.log"), "a")
        self.process = subprocess.Popen(command + list(options), stderr=self.log, env=dict(os.environ, **(environment or {})))
        subprocess.run([program("terse"), "status", "-e", self.endpoint, "--connect-ms", "20000"], check=True,
                       stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def status(self):
        return run_json(program("terse"), "status", "-e", self.endpoint, "--json")

    def bench(self, model, *options):
        return run_json(program("terse"), "bench", "-e", self.endpoint, model, "--json", *options)


def write_dense(path, sizes):
    """A perceptron with random weights."""
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    rng, nodes, constants, x = numpy.random.default_rng(1), [], [], "x"
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        weights = (rng.standard_normal((inputs, outputs)) * (2 / inputs)**0.5).astype("f4")
        constants += [numpy_helper.from_array(weights, f"w{i}"), numpy_helper.from_array(numpy.zeros(outputs, "f4"), f"b{i}")]
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], ["y" if last else f"g{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{i}"], [f"r{i}"]))
        x = f"r{i}"
    graph = helper.make_graph(nodes, "dense", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", sizes[0]])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", sizes[-1]])], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def serving(folder):
    if not have_peers():
        return
    tiny = compress(write_dense(os.path.join(folder, "tiny.onnx"), [4, 4]), folder)
    echo_endpoint = f"ipc://{folder}/echo.sock"
    echo = subprocess.Popen([program("echo"), "serve", echo_endpoint], stdout=subprocess.PIPE, text=True)
    echo.stdout.readline()
    print(f"\n{'outstanding':>11} {'echo p50 us':>12} {'tersed p50 us':>14} {'ratio':>6} {'echo /s':>9} {'tersed /s':>10} {'ratio':>6}")
    with Tersed(folder, {"tiny": tiny}) as tersed:
        for outstanding in (1, 8, 64, 256):
            runs = []
            for _ in range(7):
                runs.append([run_json(program("echo"), "client", e, "tiny", "x", "4", str(outstanding), "1")
                             for e in (echo_endpoint, tersed.endpoint)])
            middle = lambda f: statistics.median(f(a, b) for a, b in runs)
            print(f"{outstanding:>11} {middle(lambda a, b: a['p50_us']):>12.1f} {middle(lambda a, b: b['p50_us']):>14.1f} "
                  f"{middle(lambda a, b: b['p50_us'] / a['p50_us']):>6.2f} {middle(lambda a, b: a['rate']):>9.0f} "
                  f"{middle(lambda a, b: b['rate']):>10.0f} {middle(lambda a, b: b['rate'] / a['rate']):>6.2f}", flush=True)
    echo.kill()
    echo.wait()


def batching(folder):
    if not have_peers():
        return
    mlp = compress(write_dense(os.path.join(folder, "mlp784.onnx"), [784, 512, 512, 10]), folder)
    engine_64 = run_json(program("terse"), "run", mlp, "--random", "--batch", "64", "--repeat", "300", "--json")
    rows = 64e6 / engine_64["median_us"]
    print("\n784-512-512-10, 64 outstanding")
    with Tersed(folder, {"mlp": mlp}, "--max-batch", "1") as single, Tersed(folder, {"mlp": mlp}, "--max-batch", "64") as grouped:
        runs = [(single.bench("mlp", "-c", "64", "-d", "2"), grouped.bench("mlp", "-c", "64", "-d", "2")) for _ in range(5)]
    ratio = statistics.median(b["rate"] / a["rate"] for a, b in runs)
    print(f"  max_batch 1: {statistics.median(a['rate'] for a, _ in runs):.0f} requests/s")
    print(f"  max_batch 64: {statistics.median(b['rate'] for _, b in runs):.0f} requests/s, mean batch "
          f"{statistics.median(b['mean_batch'] for _, b in runs):.1f}: {ratio:.2f} times as many")
    print(f"  terse run --batch 64: {rows:.0f} rows/s on one core")


def memory(folder):
    if not have_peers():
        return
    large = compress(write_dense(os.path.join(folder, "large.onnx"), [1024, 5000, 4000, 10]), folder)
    size = os.path.getsize(large)
    print(f"\n8 workers, one model of {size / 1e6:.1f} MB")
    with Tersed(folder, {"large": large}, "--workers", "8") as tersed:
        tersed.bench("large", "-c", "32", "-d", "3")
        private, shared = [], []
        for worker in tersed.status()["workers"]:
            with open(f"/proc/{worker['pid']}/smaps_rollup") as file:
                kib = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.M)}
            private.append(kib["Private_Clean"] + kib["Private_Dirty"])
            shared.append(kib["Shared_Clean"] + kib["Shared_Dirty"])
    print(f"  private (USS): largest {max(private) / 1024:.2f} MiB, sum {sum(private) / 1024:.2f} MiB of 8 workers; "
          f"shared (the model, counted once): {max(shared) / 1024:.1f} MiB each")


MANY_CORES = {"gateway", "hostile", "instrumentation", "serving", "batching", "shm", "memory", "overload", "reload", "faults", "workers", "tune"}


def pin(name):
    """Programs that we start inherit it."""
    os.sched_setaffinity(0, ALL_CORES if name in MANY_CORES else {max(ALL_CORES)})


def main():
    parts = {"engine": engine, "serving": serving, "batching": batching, "memory": memory,
             "shm": lambda folder: shm.shared_memory(sys.modules[__name__], folder),
             "instrumentation": lambda folder: instrumentation.instrumentation(sys.modules[__name__], folder),
             "gateway": lambda folder: gateway.run(sys.modules[__name__], folder),
             "hostile": lambda folder: hostile.run(sys.modules[__name__], folder),
             "overload": lambda folder: overload.overload(sys.modules[__name__], folder),
             "faults": lambda folder: faults.faults(sys.modules[__name__], folder),
             "reload": lambda folder: reload.reload(sys.modules[__name__], folder),
             "tune": lambda folder: tune.run(sys.modules[__name__], folder)}
    wanted = sys.argv[1:] or [name for name in (*parts, *table.PARTS) if name != "tune"]
    if not set(wanted) <= {*parts, *table.PARTS}:
        sys.exit(__doc__)
    for name in wanted:
        if name in parts:
            pin(name)
            with tempfile.TemporaryDirectory() as folder:
                parts[name](folder)
    rows = [name for name in table.PARTS if name in wanted]
    if rows:
        with tempfile.TemporaryDirectory() as folder:
            table.run_parts(sys.modules[__name__], rows, folder)


ALL_CORES = os.sched_getaffinity(0)
main()
