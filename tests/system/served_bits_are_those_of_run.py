#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every float model of ../shared through tersed has the bits of `terse run` of each row alone, at 1, 3 and 8 rows."""
import gzip
import os

import numpy

import harness

MODELS = ["digits_mlp", "mnist_cnn", "mobilenet_v1_025_128", "resnet20_cifar10", "squeezenet1_0", "stories260k",
          "tiny_ic_resnet8", "tiny_kws_dscnn", "ultraface_rfb320"]


def unpack(name, folder):
    source = os.path.join(harness.SHARED, "models", name, "model.onnx")
    target = os.path.join(folder, name + ".onnx")
    with (open(source, "rb") if os.path.exists(source) else gzip.open(source + ".gz")) as packed, open(target, "wb") as plain:
        plain.write(packed.read())
    return target


def random_inputs(info, rows, rng):
    arrays = {}
    for tensor in info["inputs"]:
        shape = [rows if i == 0 and not isinstance(d, int) else 6 if not isinstance(d, int) else d
                 for i, d in enumerate(tensor["shape"])]
        arrays[tensor["name"]] = (rng.integers(0, 500, shape) if tensor["dtype"] == "INT64"
                                  else rng.uniform(-1, 1, shape).astype("f4"))
    return arrays


def run_alone(folder, packed, arrays):
    numpy.savez(f"{folder}/one.npz", **arrays)
    harness.run("terse", "run", packed, f"{folder}/one.npz", "-o", f"{folder}/one_out.npz")
    with numpy.load(f"{folder}/one_out.npz") as out:
        return {name: out[name] for name in out.files}


with harness.story("served bits are those of `terse run` of each row alone") as story:
    if not os.path.isdir(os.path.join(harness.SHARED, "models")):
        raise harness.Skip(f"no {harness.SHARED}/models")
    rng = numpy.random.default_rng(5)
    packed = {name: story.compress(unpack(name, story.folder)) for name in MODELS}
    tersed = story.tersed(packed)
    client = harness.Client(tersed.endpoint)
    batchable = 0
    for name in MODELS:
        info = client.call("metadata", model=name)
        batchable += info["batchable"]
        for rows in (1, 3, 8) if info["batchable"] else (1,):
            arrays = random_inputs(info, rows, rng)
            served = tersed.infer(name, arrays)
            for row in range(rows):
                alone = run_alone(story.folder, packed[name],
                                  {k: v[row:row + 1] if info["batchable"] else v for k, v in arrays.items()})
                for output, want in alone.items():
                    got = served[output][row:row + 1] if info["batchable"] else served[output]
                    story.check(got.tobytes() == want.tobytes(), f"{name}, row {row} of {rows}: '{output}' has the same bits")
    story.check(batchable >= 6, f"models were batched: {batchable}")
    client.close()

harness.finish()
