#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What compressing needs is told before the work and is near to what is seen; --mem bounds it without changing a bit of the
file, and says what is needed where it is too little."""
import json
import os
import subprocess
import sys

import numpy

import harness
import onnx_writer

SEED = int(os.environ.get("TERSE_SEED", "0")) or int.from_bytes(os.urandom(3), "little")
MIB = 1 << 20
FACTOR = 2  # that the estimate may be off by, either way
PROBE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
sys.stdout.write(done.stdout), sys.stderr.write(done.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(done.returncode)
"""


def network(path, numbers):
    """Few weights, many numbers: convolutions of 16 channels over 64 x 64, a shortcut, a product behind the mean."""
    def weights(*shape):
        return numpy.asarray(numbers.standard_normal(shape) * (2 / numpy.prod(shape[1:])) ** 0.5, "f4")
    constants = {"w1": weights(16, 3, 3, 3), "w2": weights(16, 16, 3, 3), "w3": weights(16, 16, 3, 3), "w4": weights(10, 16),
                 "b1": weights(16, 1)[:, 0], "b2": weights(16, 1)[:, 0], "b3": weights(16, 1)[:, 0], "b4": weights(10, 1)[:, 0]}
    pads = {"pads": [1, 1, 1, 1]}
    onnx_writer.write(path, inputs=[("x", "f4", ["N", 3, 64, 64])], outputs=[("y", "f4", ["N", 10])], nodes=[
        ("Conv", ["x", "w1", "b1"], ["c1"], pads), ("Relu", ["c1"], ["r1"]), ("Conv", ["r1", "w2", "b2"], ["c2"], pads),
        ("Relu", ["c2"], ["r2"]), ("Conv", ["r2", "w3", "b3"], ["c3"], pads), ("Add", ["c3", "r1"], ["a"]), ("Relu", ["a"], ["r3"]),
        ("GlobalAveragePool", ["r3"], ["p"]), ("Flatten", ["p"], ["f"]), ("Gemm", ["f", "w4", "b4"], ["y"], {"transB": 1})],
        constants=constants)


def compress(story, name, *options, code=0, files=None):
    """What is said, on both ways, and the most memory of the process."""
    out = f"{story.folder}/{name}.terse"
    done = subprocess.run([sys.executable, "-c", PROBE, harness.program("terse"), "compress", f"{story.folder}/n.onnx", "-o", out,
                           "--no-tune", "--calibrate", f"{story.folder}/x.npz", *options], capture_output=True, text=True,
                          env={**os.environ, "TMPDIR": files or str(story.folder)}, check=False)
    story.check(done.returncode == code, f"{options} answers {done.returncode}, wanted {code}: {done.stderr[:500]}")
    *said, peak = done.stdout.splitlines()
    data = open(out, "rb").read() if code == 0 else None
    return said, done.stderr, int(peak), data


def prepare(story):
    numbers = numpy.random.default_rng(SEED)
    network(f"{story.folder}/n.onnx", numbers)
    images = numbers.standard_normal((200, 3, 4, 4)).repeat(16, 2).repeat(16, 3)
    numpy.savez(f"{story.folder}/x.npz", x=numpy.asarray(images + 0.3 * numbers.standard_normal(images.shape), "f4"))


def needs(said):
    """MiB of the first line."""
    words = said[0].split()
    return float(words[2]) * {"MiB": 1, "GiB": 1024}[words[3]] if words[:2] == ["needs", "about"] else 0


WAYS = {"low rank": ("--low-rank", "60%"), "pruning": ("--prune", "0.5"), "channels": ("--prune", "0.3:channels"),
        "int8": ("--quantize", "int8", "--rounding", "gptq"), "clusters": ("--cluster", "4")}
SANITIZED = not harness.BUILD.endswith("release")

print(f"# TERSE_SEED={SEED}")
with harness.story("a bound of memory is kept, and changes no bit") as story:
    prepare(story)
    for way, options in WAYS.items():
        said, _, peak, data = compress(story, "free", *options, "--json")
        least = json.loads(said[-1])["memory"]["least"]
        need = needs(said) * MIB
        story.check(need > 0, f"{way}: the need is told first: {said[:1]}")
        story.check(SANITIZED or need / FACTOR < peak < need * FACTOR, f"{way}: told {need / MIB:.0f} MiB, seen {peak / MIB:.0f} MiB")
        bound = int(least / MIB) + 1
        said, _, less, same = compress(story, "bound", *options, "--mem", f"{bound}M")
        story.check("waits in files" in said[0], f"{way}: {said[0]}")
        story.check(SANITIZED or less < bound * MIB, f"{way}: {less / MIB:.0f} MiB of {bound} were taken, {peak / MIB:.0f} without a bound")
        story.check(data == same, f"{way}: the file has the same bytes")
        print(f"# {way}: told {need / MIB:.0f} MiB, seen {peak / MIB:.0f}, bound {bound}, seen {less / MIB:.0f}")
    left = sorted(os.listdir(story.folder))
    story.check(left == ["bound.terse", "free.terse", "n.onnx", "x.npz"], f"no file is left: {left}")

with harness.story("a bound that is too small is refused before any work") as story:
    prepare(story)
    for bound in ("1M", "40M"):
        said, wrong, peak, _ = compress(story, "small", "--prune", "0.5", "--mem", bound, code=1)
        story.check(wrong.count("\n") == 1 and f"--mem is {bound[:-1]} MiB, at least about " in wrong, f"{bound}: {wrong}")
        story.check(not said and not os.path.exists(f"{story.folder}/small.terse"), f"{bound}: nothing is made: {said}")
    said, wrong, _, _ = compress(story, "small", "--prune", "0.5", "--mem", "100M", code=1, files="/nonexistent")
    story.check(wrong.count("\n") == 1 and "cannot make a file in '/nonexistent'" in wrong, f"no directory: {wrong}")
    story.check(not os.path.exists(f"{story.folder}/small.terse"), "no directory: nothing is made")
    for bound in ("0", "much", "-1G"):
        _, wrong, _, _ = compress(story, "small", "--mem", bound, code=2)
        story.check(f"--mem is '{bound}', allowed are" in wrong, f"{bound}: {wrong}")

with harness.story("the need is in the JSON report") as story:
    prepare(story)
    report = harness.run_json("terse", "compress", f"{story.folder}/n.onnx", "-o", f"{story.folder}/j.terse", "--no-tune", "--calibrate",
                              f"{story.folder}/x.npz", "--cluster", "4", "--json", "--mem", "1G")["memory"]
    parts = sum(report[k] for k in ("weights", "samples", "numbers", "moments"))
    story.check(abs(parts - report["need"]) < 8 and 0 < report["least"] <= report["need"], f"parts make the need: {report}")
    story.check(report["bound"] == 1 << 30 and not report["files"] and report["seen"] > MIB, f"bound and seen: {report}")

harness.finish()
