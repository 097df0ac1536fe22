# SPDX-License-Identifier: Apache-2.0
"""What terse is to reach, row by row, each as a ratio measured in this run on one core, in turn with the peer."""
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import time

import peers

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = 0.4  # of one measurement


class Table:
    """Rows of (work, reached, asked): printed as they come and all together at the end."""

    def __init__(self):
        self.rows = []

    def add(self, work, reached, asked, note="", below=False, unit="x"):
        good = reached is not None and asked is not None and (reached <= asked if below else reached >= asked)
        mark = "" if asked is None else "yes" if good else "NO" if reached is not None else "-"
        number = "-" if reached is None else f"{reached:.2f} {unit}"
        want = "" if asked is None else f"{'<=' if below else '>='} {asked:g} {unit}"
        self.rows.append((work, number, want, mark, note))
        print(self.line(self.rows[-1]), flush=True)

    @staticmethod
    def line(row):
        return f"{row[0]:<46} {row[1]:>14} {row[2]:>14} {row[3]:>4}  {row[4]}"

    def title(self, text):
        print(f"\n{text}\n" + self.line(("work", "reached", "asked", "", "")), flush=True)


class Runs:
    """terse beside the peers. `tools` has program() and run_json() of bench.py."""

    def __init__(self, tools, folder):
        self.tools, self.folder, self.table = tools, folder, Table()
        generator = os.path.join(tools.SHARED, "tools", "perf_models.py")
        self.environment = dict(os.environ, PYTHONPATH=os.pathsep.join([peers.FOLDER, os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run([sys.executable, generator, folder], capture_output=True, text=True, env=self.environment)
        if done.returncode:
            sys.exit(f"bench: {generator}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")

    def onnx(self, name):
        return os.path.join(self.folder, name + ".onnx")

    @functools.cache
    def compress(self, name, *options):
        """The .terse file, or None where this build cannot make it (said once)."""
        source = name if name.endswith(".onnx") else self.onnx(name)
        target = os.path.join(self.folder, re.sub(r"[^\w-]+", "_", "_".join((os.path.basename(name), *options))) + ".terse")
        done = subprocess.run([self.tools.program("terse"), "compress", source, "-o", target, *options],
                              capture_output=True, text=True)
        if done.returncode:
            print(f"bench: {name} {' '.join(options)}: {(done.stderr.strip() or '?').splitlines()[-1]}", flush=True)
            return None
        return target

    @functools.cache
    def calibration(self, name):
        """Random samples for a timing network, whose weights are random too."""
        import numpy
        path = os.path.join(self.folder, f"{name}_samples.npz")
        session = peers.have("onnxruntime") and __import__("onnxruntime").InferenceSession(
            self.onnx(name), providers=["CPUExecutionProvider"])
        rng = numpy.random.default_rng(2)
        arrays = {i.name: rng.uniform(-1, 1, [d if isinstance(d, int) else 8 for d in i.shape]).astype("f4")
                  for i in session.get_inputs()}
        numpy.savez(path, **arrays)
        return path

    def terse_us(self, packed, batch=1):
        json_of = lambda n: self.tools.run_json(self.tools.program("terse"), "run", packed, "--random", "--batch", str(batch),
                                                "--repeat", str(n), "--json")["median_us"]
        return json_of(max(5, int(SECONDS * 1e6 / json_of(3))))

    @staticmethod
    def peer_us(call):
        times, end = [], time.perf_counter() + SECONDS
        call()
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    def beside(self, work, packed, calls, asked, batch=1):
        """`calls`: {peer: call or None}. The ratio is that to the fastest peer in each round."""
        calls = {name: call for name, call in calls.items() if call}
        if not packed or not calls:
            self.table.add(work, None, asked, "no file" if not packed else "no peer")
            return
        rounds = [(self.terse_us(packed, batch), {n: self.peer_us(c) for n, c in calls.items()}) for _ in range(ROUNDS)]
        ratio = statistics.median(min(theirs.values()) / ours for ours, theirs in rounds)
        note = f"terse {statistics.median(o for o, _ in rounds):.1f} us" + "".join(
            f", {n} {statistics.median(t[n] for _, t in rounds):.1f}" for n in calls)
        self.table.add(work, ratio, asked, note)


# --- parts ----------------------------------------------------------------------------------------------------


def beside(run, what, **environment):
    """The lines of the bench of the kernels: sample of ours, sample of theirs, in turn in one process."""
    done = subprocess.run([run.tools.program("beside"), what], capture_output=True, text=True, env=dict(os.environ, **environment))
    if done.returncode:
        print(f"bench: beside {what}: {done.stderr.strip()}", flush=True)
        return []
    return [json.loads(line) for line in done.stdout.splitlines()]


def grid(rows, title):
    """Prints the ratios, a line for each size of the weights; returns the rows of each."""
    sizes = {}
    for row in rows:
        sizes.setdefault((row["n"], row["k"]), []).append(row)
    print(title)
    for (n, k), of_size in sizes.items():
        print(f"  N {n:>4} K {k:>4}:  " + "  ".join(f"M {row['m']}: {row['ratio']:.2f}" for row in of_size), flush=True)
    return sizes


def gemm(run):
    """The products of bytes with their epilogue beside the peak of the core, measured in turn with each shape."""
    for limits in filter(None, beside(run, "peaks")):
        print(f"\none core: FMA {limits['fma_flops'] / 1e9:.0f} GFLOP/s, VNNI {limits['vnni_ops'] / 1e9:.0f} GOP/s, BF16 "
              f"{limits['bf16_flops'] / 1e9:.0f} GFLOP/s; reads L2 {limits['l2_rate'] / 1e9:.0f}, L3 {limits['l3_rate'] / 1e9:.0f}, "
              f"memory {limits['memory_rate'] / 1e9:.0f} GB/s")
    run.table.title("u8s8 GEMM with its epilogue")
    rows = beside(run, "u8s8")
    if not rows:
        run.table.add("u8s8 GEMM", None, 94, "no AVX512-VNNI, whose peak is the measure", unit="%")
        return
    many = [row for row in rows if row["peer"] == "vnni"]
    for (n, k), of_size in grid(many, "share of the VNNI peak measured in turn with each shape").items():
        shares = [100 * row["ratio"] for row in of_size]
        run.table.add(f"u8s8 12 to {of_size[-1]['m']} x {n} x {k}, of the VNNI peak", statistics.median(shares), 94,
                      f"least {min(shares):.1f} %, {sum(share >= 94 for share in shares)} of {len(shares)} reach 94 %", unit="%")
    reach = sum(row["ratio"] >= 0.94 for row in many)
    run.table.add("u8s8 shapes at 94 % of the peak", 100 * reach / len(many), 100, f"{reach} of {len(many)}", unit="%")
    for row in rows:
        if row["peer"] != "vnni":
            run.table.add(f"u8s8 1 x {row['n']} x {row['k']}, of reading the weights", 100 * row["ratio"], 80,
                          f"from {row['peer']}, {row['us']:.1f} us", unit="%")


BLAS = [("", {}, 1.0), ("OPENBLAS_CORETYPE=SkylakeX", {"OPENBLAS_CORETYPE": "SkylakeX"}, 1.0),
        ("TERSE_ISA=avx2", {"TERSE_ISA": "avx2"}, 1.0)]


def blas(run):
    """The packed fp32 product beside OpenBLAS called from C: as Debian's chooses its kernels, and with others named."""
    run.table.title("fp32 GEMM beside OpenBLAS")
    for label, environment, asked in BLAS:
        if "SkylakeX" in label and "avx512f" not in open("/proc/cpuinfo").read():
            run.table.add(f"fp32 GEMM, {label}", None, None, "no AVX-512")
            continue
        rows = beside(run, "f32", **environment)
        if not rows:
            run.table.add("fp32 GEMM", None, asked, "nothing timed")
            continue
        name = f"{rows[0]['tier']} beside {rows[0]['core']}{label and ', ' + label}"
        sizes = grid(rows, f"OpenBLAS' time / ours, {name}")
        for (n, k), of_size in sizes.items():
            worst = min(of_size, key=lambda row: row["ratio"])
            run.table.add(f"fp32 {n} x {k}, least of {len(of_size)} M", worst["ratio"], asked,
                          f"M {worst['m']}: terse {worst['us']:.2f} us, {worst['by']} {worst['theirs_us']:.2f}; {name}")
        good = sum(row["ratio"] >= 1 for row in rows)
        run.table.add(f"fp32 median of {len(rows)} shapes", statistics.median(row["ratio"] for row in rows), asked,
                      f"{good} not slower; {name}")


def quantized(run):
    run.table.title("int8 networks")
    for name, asked in (("squeezenet11", 1.35), ("resnet50", 1.18), ("mobilenetv2", 1.4)):
        theirs = {"onnxruntime": peers.onnxruntime_call(run.onnx(name + "_int8"))}
        run.beside(f"{name} int8 (QDQ file)", run.compress(name + "_int8"), theirs, asked)
        run.beside(f"{name} int8 (--quantize int8)", run.compress(name, "--quantize", "int8", "--calibrate",
                                                                  run.calibration(name), "--keep-float", "none"), theirs, asked)
        run.beside(f"{name} int8, beside openvino", run.compress(name + "_int8"),
                   {"openvino": peers.openvino_call(run.onnx(name + "_int8"))}, None)
    for batch, asked in ((1, 1.6), (8, 1.3), (64, 1.12)):
        run.beside(f"mlp int8, batch {batch}", run.compress("mlp_int8"),
                   {"onnxruntime": peers.onnxruntime_call(run.onnx("mlp_int8"), batch)}, asked, batch)
    encoder = {n: peers.onnxruntime_call(run.onnx(n)) for n in ("minilm_dyn", "minilm_qdq")}
    for name in encoder:
        run.beside(f"encoder int8, 128 tokens ({name})", run.compress(name), encoder, 1.5)


def floats(run):
    run.table.title("floats")
    shapes = {"squeezenet11": [1, 3, 224, 224], "mobilenetv2": [1, 3, 224, 224], "resnet50": [1, 3, 224, 224]}
    for name, shape in shapes.items():
        run.beside(f"{name} fp32", run.compress(name),
                   {"onnxruntime": peers.onnxruntime_call(run.onnx(name)), "ncnn": peers.ncnn_call(run.onnx(name), run.folder, shape)}, 1.0)
        run.beside(f"{name} fp32, beside MNN", run.compress(name), {"MNN": peers.mnn_call(run.onnx(name), run.folder)}, 1.0)
        run.beside(f"{name} fp32, beside openvino", run.compress(name), {"openvino": peers.openvino_call(run.onnx(name))}, None)
        run.beside(f"{name} bf16", run.compress(name, "--float", "bf16"),
                   {"ncnn": peers.ncnn_call(run.onnx(name), run.folder, shape, bf16=True)}, 1.1)
    for batch in (1, 8, 64):
        run.beside(f"mlp fp32, batch {batch}", run.compress("mlp"), {"onnxruntime": peers.onnxruntime_call(run.onnx("mlp"), batch)}, 1.0, batch)
    run.beside("mlp int8 weights, batch 1", run.compress("mlp", "--quantize", "int8-weights"),
               {"onnxruntime": peers.onnxruntime_call(run.onnx("mlp"))}, 2.0)


def start(run):
    """exec to the end of a process that has written its first result, minus the median of a run."""
    import numpy
    run.table.title("start of ResNet-50")
    for kind, packed, asked in (("int8", run.compress("resnet50_int8"), 5), ("fp32", run.compress("resnet50"), None)):
        if not packed:
            run.table.add(f"start, {kind}", None, asked, "no file", unit="ms")
            continue
        x, y = os.path.join(run.folder, "x.npy"), os.path.join(run.folder, "y.npy")
        numpy.save(x, numpy.random.default_rng(1).uniform(-1, 1, (1, 3, 224, 224)).astype("f4"))
        terse = run.tools.program("terse")
        rounds = []
        for _ in range(20):
            begin = time.perf_counter()
            pid = os.posix_spawn(terse, [terse, "run", packed, x, "-o", y], os.environ)
            os.waitpid(pid, 0)
            rounds.append((time.perf_counter() - begin) * 1e3)
        compute = min(run.terse_us(packed) for _ in range(ROUNDS)) / 1e3
        run.table.add(f"start, {kind}", min(rounds) - compute, asked,
                      f"least exec to exit {min(rounds):.1f} ms, least compute {compute:.1f}", below=True, unit="ms")
    path = run.onnx("resnet50_int8")
    begin = time.perf_counter()
    call = peers.onnxruntime_call(path)
    if call:
        call()
        whole = (time.perf_counter() - begin) * 1e3
        run.table.add("  onnxruntime, int8: session and first run", whole - run.peer_us(call) / 1e3, None,
                      "without Python's start", unit="ms")


def workers(run):
    """What one more worker costs: private memory after some requests."""
    run.table.title("private memory of a worker, ResNet-50")
    for kind, packed, asked in (("int8", run.compress("resnet50_int8"), 6), ("fp32", run.compress("resnet50"), 12)):
        if not packed:
            run.table.add(f"extra worker, {kind}", None, asked, "no file", unit="MiB")
            continue
        with run.tools.Tersed(run.folder, {"net": packed}, "--workers", "3", "--max-batch", "1") as tersed:
            tersed.bench("net", "-c", "6", "-d", "2")
            private = []
            for worker in tersed.status()["workers"]:
                with open(f"/proc/{worker['pid']}/smaps_rollup") as file:
                    private.append(sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", file.read(), re.M)) / 1024)
        run.table.add(f"extra worker, {kind}", max(private), asked, "activations included", below=True, unit="MiB")


# (model, rows of calibration, points of top-1 that may be lost, least agreement)
ACCURACY = [("squeezenet1_0", 100, 1.0, 93), ("mobilenet_v1_025_128", 100, 2.5, None), ("resnet20_cifar10", 300, 0.5, None),
            ("tiny_ic_resnet8", 300, 0.5, None), ("mnist_cnn", None, 0.1, None)]


def model_of(run, name):
    """The ONNX file of a shared model, unpacked where need be."""
    import gzip
    source = os.path.join(run.tools.SHARED, "models", name, "model.onnx")
    if os.path.exists(source):
        return source
    target = os.path.join(run.folder, name + ".onnx")
    with gzip.open(source + ".gz") as packed, open(target, "wb") as plain:
        plain.write(packed.read())
    return target


def validated(run, name, rows, *options):
    """The report of terse compress on the labelled data: calibrated on some rows, figures from others."""
    import numpy
    data = {}
    for part in ("calibration", "figures"):
        data[part] = os.path.join(run.folder, f"{name}_{part}.npz")
        if not os.path.exists(data[part]):
            done = subprocess.run([sys.executable, os.path.join(run.tools.SHARED, "tools", "labelled_data.py"), name, part, data[part]],
                                  capture_output=True, text=True, env=run.environment)
            if done.returncode:
                print(f"bench: {name}: {(done.stderr.strip() or '?').splitlines()[-1]}", flush=True)
                return None
    few = os.path.join(run.folder, f"{name}_few.npz")
    with numpy.load(data["calibration"]) as all_rows:
        numpy.savez(few, **{key: all_rows[key][:rows] for key in all_rows.files})
    calibrate = ["--calibrate", few] if "int8" in options else []
    done = subprocess.run([run.tools.program("terse"), "compress", model_of(run, name), "-o", os.path.join(run.folder, "a.terse"),
                           *options, *calibrate, "--validate", data["figures"], "--json"], capture_output=True, text=True)
    if done.returncode:
        print(f"bench: {name}: {(done.stderr.strip() or '?').splitlines()[-1]}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def accuracy(run):
    peers.have("PIL")  # labelled_data.py reads pictures with it
    run.table.title("accuracy after compression (points of top-1 lost; agreement)")
    for name, rows, lost, agreement in ACCURACY:
        report = validated(run, name, rows, "--quantize", "int8")
        if not report:
            run.table.add(f"{name} int8", None, lost, "no report", unit="")
            continue
        before, after = report["before"]["top1"] * 100, report["after"]["top1"] * 100
        run.table.add(f"{name} int8: points lost", before - after, lost, f"top-1 {before:.2f} -> {after:.2f} %", below=True, unit="")
        if agreement:
            run.table.add(f"{name} int8: agreement", report["after"]["agreement"] * 100, agreement, unit="%")
    report = validated(run, "squeezenet1_0", 100, "--float", "bf16")
    lost = (report["before"]["top1"] - report["after"]["top1"]) * 100 if report else None
    run.table.add("squeezenet1_0 bf16: points lost", lost, 0.3, "" if report else "no report", below=True, unit="")
    stories(run)


def loss_of(run, packed, windows):
    """Mean negative logarithm of the probability of the next token."""
    import numpy
    x, y = os.path.join(run.folder, "tokens.npy"), os.path.join(run.folder, "logits.npy")
    numpy.save(x, windows[:, :-1])
    subprocess.run([run.tools.program("terse"), "run", packed, x, "-o", y], check=True, capture_output=True)
    logits = numpy.load(y).astype("f8")
    logits -= logits.max(-1, keepdims=True)
    chosen = numpy.take_along_axis(logits, windows[:, 1:, None], -1)[..., 0]
    return float((numpy.log(numpy.exp(logits).sum(-1)) - chosen).mean())


def stories(run):
    import numpy
    folder = os.path.join(run.tools.SHARED, "data", "tinystories_text")
    tokens = numpy.load(os.path.join(folder, "tokens_i16.npy")).astype("i8")
    count = min(len(tokens) // 129, 96)
    windows = tokens[:count * 129].reshape(count, 129)
    samples = os.path.join(run.folder, "stories_samples.npz")
    model = model_of(run, "stories260k")
    import onnx
    name = onnx.load(model, load_external_data=False).graph.input[0].name
    numpy.savez(samples, **{name: windows[1::2, :-1]})
    exact = run.compress(model)
    small = run.compress(model, "--quantize", "int8", "--calibrate", samples)
    if not exact or not small:
        run.table.add("stories260k int8: loss", None, 1, "no file", unit="%")
        return
    before, after = loss_of(run, exact, windows[0::2]), loss_of(run, small, windows[0::2])
    run.table.add("stories260k int8: loss grows by", (after / before - 1) * 100, 1, f"NLL {before:.4f} -> {after:.4f}", below=True,
                  unit="%")


def sparse(run):
    """80 % of the 4x1 blocks gone, beside our own dense bytes: networks where that is to pay, random weights."""
    run.table.title("4x1 sparse int8, 80 % of the blocks gone, beside dense int8")
    run.tools.write_dense(run.onnx("wide"), [1024] * 5)
    for name, asked in (("wide", {1: 3, 4: None, 16: None, 64: None}), ("resnet50", {1: 1.6})):
        options = ("--quantize", "int8", "--calibrate", run.calibration(name), "--keep-float", "none", "-q")
        dense, thin = run.compress(name, *options), run.compress(name, "--prune", "80%", *options)
        for batch, want in asked.items():
            work = f"{'4 layers of 1024' if name == 'wide' else name}, batch {batch}"
            if not dense or not thin:
                run.table.add(work, None, want, "no file")
                continue
            rounds = [(run.terse_us(dense, batch), run.terse_us(thin, batch)) for _ in range(ROUNDS)]
            dense_us, thin_us = (statistics.median(times) for times in zip(*rounds))
            run.table.add(work, statistics.median(a / b for a, b in rounds), want,
                          f"dense {dense_us:.1f} us, sparse {thin_us:.1f}")


def compressors(run):
    import compressors as part
    part.run(run)


PARTS = {"gemm": gemm, "blas": blas, "int8": quantized, "floats": floats, "sparse": sparse, "start": start,
         "workers": workers, "accuracy": accuracy, "compressors": compressors}


def run_parts(tools, names, folder):
    if not os.path.exists(os.path.join(tools.SHARED, "tools", "perf_models.py")) or not tools.have_peers():
        print(f"bench: {', '.join(names)} left out: needs ../shared/tools/perf_models.py, onnx and onnxruntime")
        return
    run = Runs(tools, folder)
    for name in names:
        tools.pin(name)
        PARTS[name](run)
    missed = [row for row in run.table.rows if row[3] in ("NO", "-")]
    print(f"\n{sum(row[3] == 'yes' for row in run.table.rows)} of {sum(row[3] != '' for row in run.table.rows)} rows reached"
          + "".join("\n" + Table.line(row) for row in missed))
