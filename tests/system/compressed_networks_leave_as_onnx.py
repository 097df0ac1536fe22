#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`terse compress -o MODEL.onnx`: factors, zeros and int8 leave as ONNX, come back with the same answers, and run elsewhere."""
import os
import shutil
import subprocess
import sys

import numpy

import harness

TEST_SET = os.path.join(harness.DATA, "digits_test.npz")
SAMPLE = os.path.join(harness.DATA, "digits.onnx")
FORMS = {
    "plain": ("", ()),
    "low-rank": ("c", ("--low-rank", "50%")),
    "pruned": ("c", ("--prune", "0.5")),
    "clustered": ("", ("--cluster", "5")),
    "int8": ("c", ("--quantize", "int8")),
    "all": ("c", ("--low-rank", "70%", "--prune", "0.3:unstructured", "--quantize", "int8")),
}


def split(story):
    with numpy.load(TEST_SET) as data:
        numpy.savez(f"{story.folder}/calibration.npz", image=data["image"][:200])
        numpy.savez(f"{story.folder}/figures.npz", image=data["image"][200:], labels=data["labels"][200:])
        numpy.savez(f"{story.folder}/in.npz", image=data["image"][:64])


def options(story, form):
    needs, words = FORMS[form]
    return (*words, *(("--calibrate", f"{story.folder}/calibration.npz") if needs else ()))


def compress(story, source, target, *words):
    return harness.run_json("terse", "compress", source, "-o", target, "--json", "-q", "--no-tune", *words)


FILES = {}  # form: the ONNX file's bytes, made once for all stories


def leave(story, form):
    path = f"{story.folder}/{form}.onnx"
    if form not in FILES:
        compress(story, SAMPLE, path, *options(story, form))
        FILES[form] = open(path, "rb").read()
    with open(path, "wb") as file:
        file.write(FILES[form])
    return path


def answers(story, model):
    harness.run("terse", "run", model, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
    with numpy.load(f"{story.folder}/out.npz") as out:
        return out[out.files[0]]


def onnxruntime():
    """A Python that has it: ours, the first of the PATH, with what `make bench` installed beside the build."""
    peers = os.path.join(harness.ROOT, "build", "peers")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (peers, os.environ.get("PYTHONPATH")))))
    for python in (sys.executable, shutil.which("python3")):
        for env in (environment, os.environ):
            if python and subprocess.run([python, "-c", "import onnxruntime"], capture_output=True, env=env).returncode == 0:
                return python, env
    raise harness.Skip("no Python here has the module onnxruntime")


RUN = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(None, {"image": numpy.load(sys.argv[2])["image"]})[0])
"""

with harness.story("what is written comes back with the same answers") as story:
    split(story)
    exact = answers(story, story.digits())
    for form in FORMS:
        onnx, straight, again = leave(story, form), f"{story.folder}/{form}.terse", f"{story.folder}/{form}.again.terse"
        first = FILES[form]
        said = compress(story, SAMPLE, onnx, *options(story, form), "--validate", f"{story.folder}/figures.npz")
        story.check(open(onnx, "rb").read() == first, f"{form}: the same bytes again")
        story.check(said["after"]["bytes"] == len(first), f"{form}: {said['after']['bytes']} bytes are told")
        story.check(said["after"]["top1"] > 0.9 and said["after"]["latency_us"] > 0, f"{form}: {said['after']}")
        compress(story, SAMPLE, straight, *options(story, form))
        compress(story, onnx, again)
        a, b = answers(story, straight), answers(story, again)
        step = numpy.abs(a).max() / 50 if "int8" in str(FORMS[form]) else numpy.abs(a).max() * 1e-4
        story.check(numpy.abs(a - b).max() <= step, f"{form}: {numpy.abs(a - b).max()} apart, allowed {step}")
        story.check((a.argmax(1) == b.argmax(1)).mean() >= 0.98, f"{form}: the same classes")
        story.check(form == "plain" or numpy.abs(a - exact).max() > 0, f"{form}: something was compressed")
        told = harness.run("terse", "inspect", again).stdout
        story.check(("QConv" in told or "QGemm" in told) == ("int8" in str(FORMS[form])), f"{form}: int8 stays int8: {told}")

with harness.story("int8 is smaller, and half of the weights are zero") as story:
    split(story)
    paths = {form: leave(story, form) for form in FORMS}
    sizes = {form: len(FILES[form]) for form in FORMS}
    story.check(sizes["int8"] < 0.4 * sizes["plain"], f"{sizes}")
    story.check(sizes["low-rank"] < sizes["plain"], f"{sizes}")
    packed = {form: compress(story, paths[form], f"{story.folder}/{form}.terse", "--pack", "zstd")["after"]["bytes"]
              for form in ("plain", "pruned")}
    story.check(packed["pruned"] < 0.65 * packed["plain"], f"the zeros are zeros again: {packed}")

with harness.story("onnxruntime answers alike") as story:
    python, environment = onnxruntime()
    split(story)
    for form in FORMS:
        onnx, model = leave(story, form), f"{story.folder}/{form}.terse"
        compress(story, onnx, model)
        done = subprocess.run([python, "-c", RUN, onnx, f"{story.folder}/in.npz", f"{story.folder}/there.npy"],
                              capture_output=True, text=True, env=environment)
        story.check(done.returncode == 0, f"{form}: onnxruntime runs it: {done.stderr[-800:]}")
        if done.returncode:
            continue
        a, b = answers(story, model), numpy.load(f"{story.folder}/there.npy")
        step = numpy.abs(a).max() / 25 if "int8" in str(FORMS[form]) else numpy.abs(a).max() * 1e-4
        print(f"# {form}: {numpy.abs(a - b).max():.3g} apart of {numpy.abs(a).max():.3g}")
        story.check(a.shape == b.shape and numpy.abs(a - b).max() <= step, f"{form}: {numpy.abs(a - b).max()} apart")
        story.check((a.argmax(1) == b.argmax(1)).mean() >= 0.98, f"{form}: the same classes")

with harness.story("what ONNX cannot say is refused before any work") as story:
    split(story)
    onnx = f"{story.folder}/x.onnx"
    for words in (("--quantize", "int8-weights"), ("--quantize", "int4-weights"), ("--float", "bf16"), ("--pack", "zstd")):
        said = harness.run("terse", "compress", "/nowhere/at/all.onnx", "-o", onnx, *words, code=2).stderr
        story.check(" ".join(words) in said and "ONNX" in said and said.count("\n") == 1, f"{words}: {said}")
    shutil.copy(SAMPLE, onnx)
    said = harness.run("terse", "compress", onnx, "-o", f"{story.folder}/./x.onnx", code=1).stderr
    story.check("would be overwritten" in said and open(onnx, "rb").read() == open(SAMPLE, "rb").read(),
                f"the source stays: {said}")
    said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/none/x.onnx", code=1).stderr
    story.check("none/x.onnx" in said and said.count("\n") == 1, f"a folder that is not there: {said}")

harness.finish()
