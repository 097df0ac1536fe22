#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Which networks may be batched: rows are found where exporters join them with heads or tokens, and pick them by number for masks;
what mixes them is served one request at a time. Rows that are told apart have the bits that they have alone."""
import numpy as np

import harness
import onnx_writer

ROWS = 5
RNG = np.random.default_rng(7)


def floats(*shape):
    return RNG.standard_normal(shape).astype("f4")


def ints(*values):
    return np.array(values, "i8")


def proved(story, inputs, outputs, nodes, constants):
    path = onnx_writer.write(f"{story.folder}/rows.onnx", inputs, outputs, nodes, constants)
    harness.run("terse", "compress", path, "-o", f"{story.folder}/rows.terse")
    return harness.run_json("terse", "inspect", f"{story.folder}/rows.terse", "--json")["batchable"]


def batchable(story, inputs, *network):
    """Whether the network is, and whether its answers are alike whoever else is in the batch."""
    found = proved(story, inputs, *network)
    feed = {name: floats(ROWS, *shape[1:]) for name, _, shape in inputs}
    answers = []
    for rows in [slice(0, ROWS)] + [slice(i, i + 1) for i in range(ROWS)]:
        np.savez(f"{story.folder}/in.npz", **{name: array[rows] for name, array in feed.items()})
        done = harness.run("terse", "run", f"{story.folder}/rows.terse", f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
        with np.load(f"{story.folder}/out.npz") as out:
            answers.append(out[out.files[0]])
    alone = np.concatenate(answers[1:])
    return found, answers[0].shape == alone.shape and answers[0].tobytes() == alone.tobytes()


# Each: what it is, inputs, outputs, nodes, constants.
TOLD_APART = [
    ("heads joined with rows, as scaled products are", [("x", "f4", ["N", 4, 6, 8])], [("y", "f4", ["N", 4, 6, 6])],
     [("Reshape", ["x", "joined"], ["a"]), ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1]}), ("MatMul", ["a", "b"], ["c"]),
      ("Softmax", ["c"], ["d"], {"axis": -1}), ("Reshape", ["d", "apart"], ["y"], {"allowzero": 1})],
     {"joined": ints(-1, 6, 8), "apart": ints(-1, 4, 6, 6)}),
    ("tokens in front of rows, as a transformer of PyTorch's has them", [("x", "f4", ["N", 6, 8])], [("y", "f4", ["N", 6, 3])],
     [("Transpose", ["x"], ["a"], {"perm": [1, 0, 2]}), ("Reshape", ["a", "flat"], ["b"]), ("MatMul", ["b", "w"], ["c"]),
      ("Reshape", ["c", "apart"], ["d"]), ("Transpose", ["d"], ["y"], {"perm": [1, 0, 2]})],
     {"flat": ints(-1, 8), "apart": ints(6, -1, 3), "w": floats(8, 3)}),
    ("rows picked by number, as masks are", [("x", "f4", ["N", 6])], [("y", "f4", ["N", 4, 6])],
     [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Squeeze", ["n", "zero"], ["scalar"]), ("Range", ["from", "scalar", "by"], ["r"]),
      ("Unsqueeze", ["r", "behind"], ["row"]), ("Concat", ["n", "sides"], ["to"], {"axis": 0}), ("Expand", ["row", "to"], ["a"]),
      ("Expand", ["tokens", "to"], ["b"]), ("Unsqueeze", ["a", "last"], ["c"]), ("Unsqueeze", ["b", "last"], ["d"]),
      ("Concat", ["c", "d"], ["pairs"], {"axis": -1}), ("GatherND", ["x", "pairs"], ["y"])],
     {"zero": ints(0), "from": np.int64(0), "by": np.int64(1), "behind": ints(1, 2), "sides": ints(4, 6), "last": ints(-1),
      "tokens": np.arange(6, dtype="i8").reshape(1, 1, 6)}),
    ("a flat table read at row * 6 + token", [("x", "f4", ["N", 6])], [("y", "f4", ["N", 3])],
     [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Squeeze", ["n", "zero"], ["scalar"]), ("Range", ["from", "scalar", "by"], ["r"]),
      ("Mul", ["r", "six"], ["m"]), ("Unsqueeze", ["m", "one"], ["row"]), ("Add", ["row", "tokens"], ["at"]), ("Reshape", ["x", "flat"], ["f"]),
      ("Gather", ["f", "at"], ["y"])],
     {"zero": ints(0), "from": np.int64(0), "by": np.int64(1), "six": np.int64(6), "one": ints(1), "tokens": ints(5, 0, 2).reshape(1, 3),
      "flat": ints(-1)}),
    ("an Expand whose sizes are asked for -1", [("x", "f4", ["N", 6])], [("y", "f4", ["N", 7])],
     [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Concat", ["n", "minus"], ["to"], {"axis": 0}), ("Equal", ["to", "minuses"], ["is"]),
      ("Where", ["is", "ones", "to"], ["sizes"]), ("Expand", ["token", "sizes"], ["first"]), ("Concat", ["first", "x"], ["y"], {"axis": 1})],
     {"minus": ints(-1), "minuses": ints(-1, -1), "ones": ints(1, 1), "token": floats(1, 1)}),
    ("windows of an image, counted by dividing", [("x", "f4", ["N", 8, 6])], [("y", "f4", ["N", 8, 6])],
     [("Reshape", ["x", "windows"], ["a"]), ("Relu", ["a"], ["b"]), ("Shape", ["b"], ["s"], {"start": 0, "end": 1}),
      ("Div", ["s", "four"], ["n"]), ("Concat", ["n", "rest"], ["to"], {"axis": 0}), ("Reshape", ["b", "to"], ["y"])],
     {"windows": ints(-1, 2, 6), "four": ints(4), "rest": ints(8, 6)}),
]
MIXED = [
    ("rows by columns read as columns by rows", [("x", "f4", ["N", 4])], [("y", "f4", ["N", 4])],
     [("Reshape", ["x", "turned"], ["a"]), ("Transpose", ["a"], ["y"], {"perm": [1, 0]})], {"turned": ints(4, -1)}),
    ("heads of all rows in one product", [("x", "f4", ["N", 4, 8])], [("y", "f4", ["N", 4, 8])],
     [("Reshape", ["x", "joined"], ["a"]), ("Transpose", ["a"], ["b"], {"perm": [1, 0]}), ("MatMul", ["a", "b"], ["c"]), ("Softmax", ["c"], ["d"]),
      ("MatMul", ["d", "a"], ["e"]), ("Reshape", ["e", "apart"], ["y"])], {"joined": ints(-1, 8), "apart": ints(-1, 4, 8)}),
    ("a mean over tokens and rows that were joined", [("x", "f4", ["N", 4, 8])], [("y", "f4", ["N", 4, 8])],
     [("Reshape", ["x", "joined"], ["a"]), ("ReduceMean", ["a"], ["m"], {"axes": [0], "keepdims": 1}), ("Sub", ["x", "m"], ["y"])],
     {"joined": ints(-1, 8)}),
    ("the row behind, from a flat table", [("x", "f4", ["N", 6])], [("y", "f4", ["N", 1])],
     [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Squeeze", ["n", "zero"], ["scalar"]), ("Range", ["from", "scalar", "by"], ["r"]),
      ("Mul", ["r", "six"], ["m"]), ("Add", ["m", "beyond"], ["a"]), ("Unsqueeze", ["a", "one"], ["at"]),
      ("Reshape", ["x", "flat"], ["f"]), ("Concat", ["f", "f"], ["ff"], {"axis": 0}), ("Gather", ["ff", "at"], ["y"])],
     {"zero": ints(0), "from": np.int64(0), "by": np.int64(1), "six": np.int64(6), "one": ints(1), "beyond": np.int64(6), "flat": ints(-1)}),
    ("rows added to their numbers", [("x", "f4", ["N", 6])], [("y", "f4", ["N", 6])],
     [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Squeeze", ["n", "zero"], ["scalar"]), ("Range", ["from", "scalar", "by"], ["r"]),
      ("Cast", ["r"], ["f"], {"to": 1}), ("Unsqueeze", ["f", "one"], ["column"]), ("Add", ["x", "column"], ["y"])],
     {"zero": ints(0), "from": np.int64(0), "by": np.int64(1), "one": ints(1)}),
    ("half of the rows, by dividing what does not divide", [("x", "f4", ["N", 6])], [("y", "f4", ["N", 6])],
     [("Shape", ["x"], ["s"], {"start": 0, "end": 1}), ("Div", ["s", "two"], ["h"]), ("Cast", ["h"], ["f"], {"to": 1}), ("Add", ["x", "f"], ["y"])],
     {"two": ints(2)}),
    ("the batch's own mean and variance", [("x", "f4", ["N", 3, 5])], [("y", "f4", ["N", 3, 5])],
     [("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["y"], {"training_mode": 1})],
     {"scale": floats(3), "bias": floats(3), "mean": floats(3), "variance": floats(3) ** 2}),
]

NUMBERS = [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Shape", ["x"], ["s"], {"start": 1, "end": 2}), ("Squeeze", ["n", "zero"], ["n0"])]
X, Y = [("x", "f4", ["N", "S"])], [("y", "f4", ["N", "S"])]
SIZES = [
    ("parts of 32, whatever the size", X, Y,
     [("Reshape", ["x", "parts"], ["a"]), ("Softmax", ["a"], ["b"], {"axis": -1}), ("Shape", ["x"], ["to"]), ("Reshape", ["b", "to"], ["y"])],
     {"parts": ints(-1, 32)}),
    ("halves, whatever the size", X, Y,
     NUMBERS + [("Mul", ["n", "s"], ["all"]), ("Div", ["all", "two"], ["half"]), ("Concat", ["half", "rest"], ["to"], {"axis": 0}),
                ("Reshape", ["x", "to"], ["a"]), ("Softmax", ["a"], ["b"], {"axis": -1}), ("Shape", ["x"], ["back"]), ("Reshape", ["b", "back"], ["y"])],
     {"zero": ints(0), "two": ints(2), "rest": ints(-1)}),
    ("the 90th of each row, whatever the size", X, [("y", "f4", ["N", 1])],
     NUMBERS + [("Range", ["from", "n0", "by"], ["r"]), ("Mul", ["r", "s"], ["m"]), ("Add", ["m", "beyond"], ["a"]), ("Unsqueeze", ["a", "one"], ["at"]),
                ("Reshape", ["x", "flat"], ["f"]), ("Gather", ["f", "at"], ["y"])],
     {"zero": ints(0), "from": np.int64(0), "by": np.int64(1), "beyond": np.int64(90), "one": ints(1), "flat": ints(-1)}),
    ("whether rows times size is 50", X, Y,
     NUMBERS + [("Mul", ["n", "s"], ["all"]), ("Equal", ["all", "fifty"], ["is"]), ("Add", ["x", "x"], ["double"]), ("Where", ["is", "x", "double"], ["y"])],
     {"zero": ints(0), "fifty": ints(50)}),
]

with harness.story("rows are told apart where exporters join them or pick them by number") as story:
    for told, *network in TOLD_APART:
        found, alike = batchable(story, *network)
        story.check(found, f"{told}: batchable")
        story.check(alike, f"{told}: the bits of a row alone")

with harness.story("what mixes rows, or depends on their numbers, is not batched") as story:
    for told, *network in MIXED:
        found, alike = batchable(story, *network)
        story.check(not found, f"{told}: not batchable")
        story.check(not alike, f"{told}: rows do depend on each other, or the case shows nothing")

with harness.story("a BatchNormalization in training uses its batch's mean and variance, and tells what it would learn") as story:
    given = {name: RNG.random(3).astype("f4") + 0.1 for name in ("scale", "bias", "mean", "variance")}
    for shape in ([3], [3, 5], [3, 4, 2]):
        path = onnx_writer.write(f"{story.folder}/norm.onnx", [("x", "f4", ["N"] + shape)],
                                 [("y", "f4", ["N"] + shape), ("m", "f4", [3]), ("v", "f4", [3])],
                                 [("BatchNormalization", ["x", *given], ["y", "m", "v"], {"training_mode": 1, "epsilon": 1e-3, "momentum": 0.75})],
                                 given)
        harness.run("terse", "compress", path, "-o", f"{story.folder}/norm.terse")
        x = floats(ROWS, *shape)
        np.savez(f"{story.folder}/in.npz", x=x)
        harness.run("terse", "run", f"{story.folder}/norm.terse", f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
        axes, wide = (0, *range(2, x.ndim)), (1, 3) + (1,) * (x.ndim - 2)
        mean, variance = x.mean(axes), x.var(axes)
        scale, bias, *_ = [a.reshape(wide) for a in given.values()]
        want = {"y": (x - mean.reshape(wide)) / np.sqrt(variance.reshape(wide) + 1e-3) * scale + bias,
                "m": given["mean"] * 0.75 + mean * 0.25, "v": given["variance"] * 0.75 + variance * 0.25}
        with np.load(f"{story.folder}/out.npz") as out:
            story.check(all(np.allclose(out[name], want[name], 1e-4, 1e-5) for name in want), f"{x.ndim} axes: as its definition says")

with harness.story("what holds for some sizes is no proof for others") as story:
    for told, *network in SIZES:
        story.check(not proved(story, *network), f"{told}: not batchable")
    tokens = [("x", "f4", ["N", "T", 8])], [("y", "f4", ["N", "T", 3])]
    nodes = [("Reshape", ["x", "flat"], ["a"]), ("MatMul", ["a", "w"], ["b"]), ("Shape", ["x"], ["two"], {"start": 0, "end": 2}),
             ("Concat", ["two", "three"], ["to"], {"axis": 0}), ("Reshape", ["b", "to"], ["y"])]
    story.check(proved(story, *tokens, nodes, {"flat": ints(-1, 8), "w": floats(8, 3), "three": ints(3)}), "any number of tokens, joined: batchable")

harness.finish()
