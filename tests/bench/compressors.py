# SPDX-License-Identifier: Apache-2.0
"""What other compressors make of the same networks: onnxruntime's static quantization and nncf's, beside ours. The same samples to
calibrate with, the same labelled ones for figures, one thread, each network run by its own engine in turn (nncf's by openvino)."""
import functools
import json
import os
import statistics
import subprocess
import time

import peers
import table

# (network, rows of calibration). Ways of terse: what one would ask for.
NETWORKS = [("resnet20_cifar10", 300), ("squeezenet1_0", 100)]
WAYS = [("int8", ("--quantize", "int8")), ("int8, packed", ("--quantize", "int8", "--pack", "zstd")),
        ("int8, 6-bit clusters, packed", ("--quantize", "int8", "--cluster", "6", "--pack", "zstd")),
        ("half of 4x1 gone, int8", ("--prune", "0.5", "--quantize", "int8"))]
ROUNDS = 7


def data_of(run, name, rows):
    """Paths of samples to calibrate with and of labelled ones, or None."""
    paths = {}
    for part in ("calibration", "figures"):
        paths[part] = os.path.join(run.folder, f"{name}_{part}.npz")
        done = subprocess.run([os.sys.executable, os.path.join(run.tools.SHARED, "tools", "labelled_data.py"), name, part, paths[part]],
                              capture_output=True, text=True, env=run.environment)
        if done.returncode:
            print(f"bench: {name}: {(done.stderr.strip() or '?').splitlines()[-1]}", flush=True)
            return None
    import numpy
    with numpy.load(paths["calibration"]) as data:
        numpy.savez(paths["calibration"], **{key: data[key][:rows] for key in data.files if key != "labels"})
    return paths


class Rows:
    """What onnxruntime's calibration asks for."""

    def __init__(self, path):
        import numpy
        with numpy.load(path) as data:
            (self.name,) = data.files
            self.rows = data[self.name]
        self.at = 0

    def get_next(self):
        self.at += 1
        return {self.name: self.rows[self.at - 1:self.at]} if self.at <= len(self.rows) else None

    def set_range(self, start, end):
        pass


def quantized_by_onnxruntime(source, target, samples, folder):
    """As its documentation has it: shapes and BatchNormalization prepared, QDQ, weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    CalibrationDataReader.register(Rows)
    ready = os.path.join(folder, "prepared.onnx")
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    quantize_static(ready, target, Rows(samples), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8)


def quantized_by_nncf(source, target, samples):
    """As its documentation has it, with all samples."""
    import logging
    import nncf
    import numpy
    import onnx
    nncf.set_log_level(logging.ERROR)
    with numpy.load(samples) as data:
        (name,) = data.files
        rows = list(data[name])
    onnx.save(nncf.quantize(onnx.load(source), nncf.Dataset(rows, lambda row: {name: row[None]}), subset_size=len(rows)), target)


def session_of(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def top1_of(session, path):
    import numpy
    with numpy.load(path) as data:
        labels = data["labels"]
        (name,) = [key for key in data.files if key != "labels"]
        right = sum(int((session.run(None, {name: data[name][i:i + 50]})[0].reshape(len(labels[i:i + 50]), -1).argmax(-1)
                         == labels[i:i + 50]).sum()) for i in range(0, len(labels), 50))
    return 100 * right / len(labels)


def time_call(call):
    times, end = [], time.perf_counter() + table.SECONDS
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def ours(run, source, data, options, target):
    samples = ("--calibrate", data["calibration"]) if options else ()
    done = subprocess.run([run.tools.program("terse"), "compress", source, "-o", target, *options, *samples, "--validate",
                           data["figures"], "--json", "-q"], capture_output=True, text=True)
    if done.returncode:
        print(f"bench: {source} {' '.join(options)}: {(done.stderr.strip() or '?').splitlines()[-1]}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])["after"]


def compare(run, name, rows):
    import numpy
    data, source = data_of(run, name, rows), table.model_of(run, name)
    if not data:
        return
    small = os.path.join(run.folder, f"{name}_ort.onnx")
    quantized_by_onnxruntime(source, small, data["calibration"], run.folder)
    sessions = {"onnxruntime fp32": (session_of(source), source), "onnxruntime static int8": (session_of(small), small)}
    if peers.have("nncf"):
        other = os.path.join(run.folder, f"{name}_nncf.onnx")
        try:
            quantized_by_nncf(source, other, data["calibration"])
            sessions["nncf static int8"] = session_of(other), other
        except Exception as error:  # whatever it raises: the others are compared all the same
            print(f"bench: nncf cannot do {name}: {str(error).splitlines()[-1:]}", flush=True)
    with numpy.load(data["calibration"]) as samples:
        feed = {samples.files[0]: samples[samples.files[0]][:1]}
    calls = {kind: functools.partial(session.run, None, feed) for kind, (session, _) in sessions.items()}
    if "nncf static int8" in calls:
        calls["nncf static int8"] = peers.openvino_call(other) or calls["nncf static int8"]
    results = {kind: [os.path.getsize(path), top1_of(session, data["figures"]), []] for kind, (session, path) in sessions.items()}
    files = {}
    for way, options in WAYS:
        target = os.path.join(run.folder, f"{name}_{len(files)}.terse")
        after = ours(run, source, data, options, target)
        if after:
            files[f"terse {way}"] = target
            results[f"terse {way}"] = [os.path.getsize(target), after["top1"] * 100, []]
    for _ in range(ROUNDS):
        for kind, call in calls.items():
            results[kind][2].append(time_call(call))
        for kind, path in files.items():
            results[kind][2].append(run.tools.run_json(run.tools.program("terse"), "run", path, "--random", "--batch", "1", "--repeat",
                                                       "60", "--json")["median_us"])
    print(f"\n{name:<44} {'bytes':>9} {'us':>9} {'top-1 %':>8}", flush=True)
    for kind, (size, top1, times) in results.items():
        print(f"{kind:<44} {size:>9} {statistics.median(times):>9.1f} {top1:>8.2f}", flush=True)
    mine = results.get("terse int8, packed")
    for kind, theirs in results.items():
        if mine and kind.endswith("static int8"):
            faster = statistics.median(t / o for t, o in zip(theirs[2], mine[2]))
            whose = f"{name}: %s {kind.split()[0]}'s"
            run.table.add(whose % "speed over", faster, 1)
            run.table.add(whose % "bytes of", mine[0] / theirs[0], 1, below=True)
            run.table.add(whose % "points of top-1 below", theirs[1] - mine[1], 0.25, below=True, unit="")


def run(runs):
    if not all(peers.have(module) for module in ("numpy", "onnx", "onnxruntime", "PIL")):
        print("compressors: skipped: needs numpy, onnx, onnxruntime and pillow")
        return
    runs.table.title("beside static quantization by onnxruntime and nncf, one row, one thread")
    for name, rows in NETWORKS:
        compare(runs, name, rows)
