#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Weights in a file beside the model are read; a model cannot reach out of its own folder, or beyond its file."""
import os

import numpy

import harness
from onnx_writer import block, node, number, value_info

WEIGHTS = numpy.arange(64, dtype="f4").reshape(8, 8)


def write(path, location, offset="0", length="256"):
    """y = x w, with w [8,8] in another file."""
    entry = lambda key, value: block(13, block(1, key) + block(2, value))
    tensor = (number(1, 8) + number(1, 8) + number(2, 1) + block(8, "w") + entry("location", location) +
              entry("offset", offset) + entry("length", length) + number(14, 1))
    graph = (block(1, node("MatMul", ["x", "w"], ["y"])) + block(2, "graph") + block(5, tensor) +
             block(11, value_info("x", "f4", ["N", 8])) + block(12, value_info("y", "f4", ["N", 8])))
    with open(path, "wb") as file:
        file.write(number(1, 8) + block(7, graph) + block(8, number(2, 13)))
    return path


with harness.story("external data is read from the model's folder and nowhere else") as story:
    folder = os.path.join(story.folder, "model")
    os.makedirs(os.path.join(folder, "sub"))
    for path in ("model/w.bin", "model/sub/w.bin", "outside.bin"):
        WEIGHTS.tofile(os.path.join(story.folder, path))
    os.symlink(os.path.join(story.folder, "outside.bin"), os.path.join(folder, "link.bin"))
    os.mkfifo(os.path.join(folder, "pipe.bin"))
    x = numpy.eye(8, dtype="f4")
    numpy.savez(f"{folder}/in.npz", x=x)
    for location in ("w.bin", "sub/w.bin"):
        harness.run("terse", "compress", write(f"{folder}/m.onnx", location), "-o", f"{folder}/m.terse")
        harness.run("terse", "run", f"{folder}/m.terse", f"{folder}/in.npz", "-o", f"{folder}/out.npz")
        with numpy.load(f"{folder}/out.npz") as out:
            story.check((out["y"] == WEIGHTS).all(), f"the weights of {location} are used")
    for location, offset, length in (("../outside.bin", "0", "256"), ("/etc/passwd", "0", "256"), ("link.bin", "0", "256"),
                                     ("sub/../../outside.bin", "0", "256"), ("none.bin", "0", "256"), ("pipe.bin", "0", "256"),
                                     ("sub", "0", "256"), ("w.bin", "0", "4096"), ("w.bin", "-1", "256"), ("w.bin", "8", "256"),
                                     ("w.bin", "18446744073709551615", "256"), ("w.bin", "x", "256"), ("", "0", "256")):
        done = harness.run("terse", "compress", write(f"{folder}/bad.onnx", location, offset, length), "-o",
                           f"{folder}/bad.terse", code=1)
        lines = done.stderr.strip().splitlines()
        story.check(len(lines) == 1 and "'w'" in lines[0], f"one line names the tensor for {location} {offset}: {lines}")
    story.check(not os.path.exists(f"{folder}/bad.terse"), "nothing is written")

harness.finish()
