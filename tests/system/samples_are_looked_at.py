#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Samples that cannot be used are named before any work, whatever they are for, and a file that is there stays; odd ones are
warned of."""
import os
import resource
import subprocess

import numpy

import harness

SAMPLE = os.path.join(harness.DATA, "digits.onnx")
WAYS = {"int8": ("--quantize", "int8"), "int4": ("--quantize", "int4-weights"), "low rank": ("--low-rank", "50%"),
        "pruning": ("--prune", "0.5"), "channels": ("--prune", "0.3:channels"), "clusters": ("--cluster", "4"),
        "recovery": ("--prune", "0.5", "--recover", "1"), "a search": ("--max-drop", "1", "--time", "2s")}

with numpy.load(os.path.join(harness.DATA, "digits_test.npz")) as data:
    IMAGES = data["image"][:40].astype("f4")


def compress(story, arrays, way, code):
    path = f"{story.folder}/samples.npz"
    numpy.savez(path, **arrays)
    return harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/out.terse", "--calibrate", path, "--no-tune",
                       *WAYS[way], code=code).stderr


def changed(at, number):
    images = IMAGES.copy()
    images.reshape(-1)[at] = number
    return images


with harness.story("samples that cannot be used are named, and the file stays") as story:
    with open(f"{story.folder}/out.terse", "wb") as file:
        file.write(b"the last good one")
    bad = {"'picture' is no input": {"picture": IMAGES}, "'image' is FP64, the model takes FP32": {"image": IMAGES.astype("f8")},
           "NaN in sample 3": {"image": changed(3 * 64 + 5, numpy.nan)}, "infinity in sample 0": {"image": changed(9, numpy.inf)},
           "has shape [40,1,8,9]": {"image": numpy.zeros((40, 1, 8, 9), "f4")}, "has 0 rows": {"image": IMAGES[:0]}}
    for i, (words, arrays) in enumerate(bad.items()):
        for way in list(WAYS) if i == 2 or harness.LONG else list(WAYS)[i % 2::3]:
            said = compress(story, arrays, way, 1)
            story.check(words in said and "samples.npz" in said and said.count("\n") == 1, f"{way}, {words}: {said}")
            with open(f"{story.folder}/out.terse", "rb") as file:
                story.check(file.read() == b"the last good one", f"{way}, {words}: the file is as it was")

with harness.story("samples that the network cannot bear leave no weights that are no numbers") as story:
    for way in ("low rank", "channels"):
        with numpy.errstate(over="ignore"):
            images = (IMAGES * numpy.float32(1e38)).clip(-3e38, 3e38)
        said = compress(story, {"image": images}, way, 1)
        story.check("samples.npz" in said and "is NaN" in said and said.count("\n") == 1, f"{way}: {said}")

with harness.story("odd samples are warned of") as story:
    odd = {"is 0 in all 40 samples": numpy.zeros_like(IMAGES), "all 40 samples are the same one": numpy.repeat(IMAGES[:1], 40, 0),
           "there is one sample": IMAGES[:1]}
    for words, images in odd.items():
        for way in ("low rank", "pruning", "channels", "clusters"):
            said = compress(story, {"image": images}, way, 0)
            story.check(words in said and said.count("warning") == 1, f"{way}, {words}: {said}")
    with numpy.load(os.path.join(harness.DATA, "digits_test.npz")) as data:
        one = data["image"][data["labels"] == 1][:1].astype("f4")
    ones = numpy.concatenate([one * (1 - 0.002 * i) for i in range(24)]).astype("f4")
    said = compress(story, {"image": ones}, "pruning", 0)
    story.check("16 samples that were looked at are of class" in said, f"one class: {said}")
    said = compress(story, {"image": IMAGES}, "pruning", 0)
    story.check("warning" not in said, f"samples as they should be: {said}")

with harness.story("a limit of file sizes is told in one line, and the file stays") as story:
    path = f"{story.folder}/out.terse"
    with open(path, "wb") as file:
        file.write(b"the last good one")
    done = subprocess.run([harness.program("terse"), "compress", SAMPLE, "-o", path, "--no-tune"], capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)))
    story.check(done.returncode == 1 and "File too large" in done.stderr and done.stderr.count("\n") == 1,
                f"{done.returncode}: {done.stderr}")
    with open(path, "rb") as file:
        story.check(file.read() == b"the last good one", "the file is as it was")
    story.check(os.listdir(story.folder) == ["out.terse"], f"nothing else is left: {os.listdir(story.folder)}")

harness.finish()
