#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Quantized nodes as ONNX defines them, computed here in double, and as `terse compress` and `terse run` have them: equal to
the integer. Random shapes, pads, groups, dtypes and zero points (weights that need nine bits among them); scales are either
awkward (random) or dyadic, where ties are real ties and must go to the even side.

A model holds many nodes beside each other, each with inputs and an output of its own.
"""
import os
import time

import numpy as np

import harness
import onnx_writer

MS = "com.microsoft."
ROUNDS = 30 if harness.LONG else 6
seed = int(os.environ.get("TERSE_SEED", time.time_ns() % (1 << 32)))
rng = np.random.default_rng(seed)


def pick(*choices):
    return choices[rng.integers(len(choices))]


def integers(kind, shape):
    """Bytes of all sizes, extremes often; "u1" or "i1"."""
    info = np.iinfo(kind)
    values = rng.integers(info.min, info.max + 1, shape)
    extreme = rng.random(shape) < 0.1
    return np.where(extreme, rng.choice([info.min, info.max], shape), values).astype(kind)


def scales(shape, size, dyadic):
    exponent = np.round(np.log2(size))
    return (2.0 ** (exponent + rng.integers(-1, 2, shape)) if dyadic else size * rng.uniform(0.5, 2, shape)).astype("f4")


def rounded(real, zero):
    """real (in steps of the output, double) to the integer that is stored."""
    info = np.iinfo(zero.dtype)
    return np.clip(np.rint(real) + float(zero), info.min, info.max).astype(zero.dtype)


class Model:
    def __init__(self):
        self.inputs, self.outputs, self.nodes, self.constants, self.feed, self.want, self.told = [], [], [], {}, {}, {}, {}

    def name(self):
        return f"v{len(self.inputs) + len(self.constants) + 1000 * len(self.nodes)}"

    def give(self, array):
        name = f"in{len(self.inputs)}"
        self.inputs.append((name, array.dtype.str[1:], list(array.shape)))
        self.feed[name] = array
        return name

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(self, op, inputs, attributes=None, more=0):
        """The output's name; with `more` outputs, all names."""
        names = [f"n{len(self.nodes)}"] + [f"n{len(self.nodes)}_{i}" for i in range(more)]
        self.nodes.append((op, inputs, names, attributes or {}))
        return names if more else names[0]

    def result(self, name, want, told):
        self.outputs.append((name, want.dtype.str[1:], list(want.shape)))
        self.want[name] = want
        self.told[name] = told

    def scalar(self, kind, shape=()):
        return integers(kind, shape)


def convolution(x, w, pads, strides, dilations, groups):
    """Exact sums (int64) of integers without their zero points; x [N,C,H,W], w [M,C/g,h,w]."""
    x = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    n, filters, per = x.shape[0], w.shape[0], w.shape[0] // groups
    out = [(x.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(2)]
    y = np.zeros((n, filters, *out), "i8")
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            top, left = i * dilations[0], j * dilations[1]
            part = x[:, :, top:top + out[0] * strides[0]:strides[0], left:left + out[1] * strides[1]:strides[1]]
            part = part[:, :, :out[0], :out[1]]
            for g in range(groups):
                channels = slice(g * w.shape[1], (g + 1) * w.shape[1])
                filters_of = slice(g * per, (g + 1) * per)
                y[:, filters_of] += np.einsum("nchw,mc->nmhw", part[:, channels], w[filters_of, :, i, j])
    return y


def conv_case():
    """x, w, their zero points and scales, the sums, and the attributes."""
    kind, w_kind, dyadic = pick("u1", "i1"), pick("u1", "i1"), pick(False, True)
    groups = int(pick(1, 1, 2, 3))
    channels, filters = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 8))
    if pick(False, False, True):  # depthwise
        groups = channels = filters = int(rng.integers(2, 20))
    pads, strides, dilations = [int(v) for v in rng.integers(0, 3, 4)], [int(pick(1, 2)) for _ in "ab"], [int(pick(1, 1, 2)) for _ in "ab"]
    x = integers(kind, (int(rng.integers(1, 3)), channels, *rng.integers(5, 9, 2)))
    w = integers(w_kind, (filters, channels // groups, *rng.integers(1, 4, 2)))
    per_channel = pick(False, True)
    shape = (filters,) if per_channel else pick((), (1,))
    x_zero, w_zero = integers(kind, ()), integers(w_kind, shape) if pick(False, True) else np.full(shape, 128 if w_kind == "u1" else 0, w_kind)
    x_scale, w_scale = scales((), 0.02, dyadic), scales(shape, 0.005, dyadic)
    sums = convolution(x.astype("i8") - int(x_zero), w.astype("i8") - w_zero.astype("i8").reshape(-1, 1, 1, 1), pads, strides,
                       dilations, groups)
    attributes = {"pads": pads, "strides": strides, "dilations": dilations, "group": groups}
    size = max(float(np.abs(sums).std()), 1) * float(x_scale) * float(np.mean(w_scale)) / 50
    return x, x_scale, x_zero, w, w_scale, w_zero, sums, attributes, scales((), size, dyadic), integers(pick("u1", "i1"), ())


def as_double(*arrays):
    return [np.asarray(a).astype("f8") for a in arrays]


def qlinear_conv(model, constant):
    x, xs, xz, w, ws, wz, sums, attributes, ys, yz = conv_case()
    bias = rng.integers(-3000, 3000, w.shape[0]).astype("i4") if pick(False, True) else None
    hold = model.constant if constant else model.give
    names = [model.give(x)] + [hold(a) for a in (xs, xz, w, ws, wz, ys, yz)] + ([hold(bias)] if bias is not None else [])
    total = sums + (bias.reshape(-1, 1, 1) if bias is not None else 0)
    dx, dw, dy = as_double(xs, ws.reshape(-1, 1, 1), ys)
    model.result(model.add("QLinearConv", names, attributes), rounded(total * (dx * dw / dy), yz),
                 f"QLinearConv {x.dtype} {w.dtype}{w.shape} zero {wz.tolist()} {attributes} constant {constant}")


def qdq_conv(model):
    x, xs, xz, w, ws, wz, sums, attributes, ys, yz = conv_case()
    axis = {"axis": 0} if ws.size > 1 else {}
    bias = rng.integers(-3000, 3000, w.shape[0]).astype("i4")
    a = model.add("DequantizeLinear", [model.give(x), model.constant(xs), model.constant(xz)])
    b = model.add("DequantizeLinear", [model.constant(w), model.constant(ws), model.constant(wz)], axis)
    bias_scale = (xs * ws).astype("f4")
    c = model.add("DequantizeLinear", [model.constant(bias), model.constant(bias_scale)], {"axis": 0} if ws.size > 1 else {})
    y = model.add("Conv", [a, b, c], attributes)
    relu = pick(False, True)
    if relu:
        y = model.add("Relu", [y])
    dx, dw, dy = as_double(xs, ws.reshape(-1, 1, 1), ys)
    real = (sums + bias.reshape(-1, 1, 1)) * (dx * dw / dy)
    model.result(model.add("QuantizeLinear", [y, model.constant(ys), model.constant(yz)]),
                 rounded(np.maximum(real, 0) if relu else real, yz), f"QDQ Conv {x.dtype} {w.dtype}{w.shape} {attributes}")


def matmul_case():
    kind, w_kind, dyadic = pick("u1", "i1"), pick("u1", "i1"), pick(False, True)
    m, k, n = (int(v) for v in rng.integers(1, 40, 3))
    x, w = integers(kind, pick((m, k), (2, m, k))), integers(w_kind, (k, n))
    shape = pick((), (1,), (n,))
    xz, wz = integers(kind, ()), integers(w_kind, shape) if pick(False, True) else np.full(shape, 128 if w_kind == "u1" else 0, w_kind)
    xs, ws = scales((), 0.02, dyadic), scales(shape, 0.005, dyadic)
    sums = (x.astype("i8") - int(xz)) @ (w.astype("i8") - wz.astype("i8"))
    size = max(float(np.abs(sums).std()), 1) * float(xs) * float(np.mean(ws)) / 50
    return x, xs, xz, w, ws, wz, sums, scales((), size, dyadic), integers(pick("u1", "i1"), ())


def qlinear_matmul(model, constant):
    x, xs, xz, w, ws, wz, sums, ys, yz = matmul_case()
    hold = model.constant if constant else model.give
    names = [model.give(x)] + [hold(a) for a in (xs, xz, w, ws, wz, ys, yz)]
    dx, dw, dy = as_double(xs, ws, ys)
    model.result(model.add("QLinearMatMul", names), rounded(sums * (dx * dw / dy), yz),
                 f"QLinearMatMul {x.dtype}{x.shape} {w.dtype}{w.shape} zero {wz.tolist()} constant {constant}")


def qgemm(model):
    x, xs, xz, w, ws, wz, sums, ys, yz = matmul_case()
    x, sums = x.reshape(-1, x.shape[-1]), sums.reshape(-1, sums.shape[-1])
    turned = pick(0, 1)
    bias = rng.integers(-3000, 3000, w.shape[1]).astype("i4")
    weights = model.constant(np.ascontiguousarray(w.T) if turned else w)
    names = [model.give(x)] + [model.constant(a) for a in (xs, xz)] + [weights] + [model.constant(a) for a in (ws, wz, bias, ys, yz)]
    dx, dw, dy = as_double(xs, ws, ys)
    model.result(model.add(MS + "QGemm", names, {"transB": turned}), rounded((sums + bias) * (dx * dw / dy), yz), f"QGemm {w.dtype}")


def transposed_weights(model):
    """Quantized weights behind a Transpose, as some exporters leave a linear layer."""
    x, xs, xz, w, ws, wz, sums, ys, yz = matmul_case()
    a = model.add("DequantizeLinear", [model.give(x), model.constant(xs), model.constant(xz)])
    b = model.add("DequantizeLinear", [model.constant(np.ascontiguousarray(w.T)), model.constant(ws), model.constant(wz)], {"axis": 0})
    y = model.add("MatMul", [a, model.add("Transpose", [b], {"perm": [1, 0]})])
    dx, dw, dy = as_double(xs, ws, ys)
    model.result(model.add("QuantizeLinear", [y, model.constant(ys), model.constant(yz)]), rounded(sums * (dx * dw / dy), yz),
                 f"QDQ MatMul behind a Transpose, {w.dtype}")


def operand(kind, shape, dyadic):
    """A tensor, its scale and zero point, and what it stands for in double."""
    q, scale, zero = integers(kind, shape), scales((), 0.05, dyadic), integers(kind, ())
    return q, scale, zero, (q.astype("f8") - float(zero)) * float(scale)


def qlinear_binary(model):
    kind, dyadic, op = pick("u1", "i1"), pick(False, True), pick("Add", "Mul")
    shape = [int(v) for v in rng.integers(1, 6, int(rng.integers(1, 5)))]
    other = [1 if pick(False, False, True) else d for d in shape]
    a, sa, za, ra = operand(kind, shape, dyadic)
    b, sb, zb, rb = operand(kind, other, dyadic)
    real = ra + rb if op == "Add" else ra * rb
    ys, yz = scales((), 0.08 if op == "Add" else 0.1, dyadic), integers(kind, ())
    second = model.constant(b) if pick(False, True) else model.give(b)
    names = [model.give(a), model.constant(sa), model.constant(za), second] + [model.constant(v) for v in (sb, zb, ys, yz)]
    model.result(model.add(MS + "QLinear" + op, names), rounded(real / float(ys), yz), f"QLinear{op} {kind} {shape} {other}")


def qlinear_concat(model):
    kind, dyadic, parts = pick("u1", "i1"), pick(False, True), int(rng.integers(2, 4))
    ys, yz = scales((), 0.08, dyadic), integers(kind, ())
    names, want = [model.constant(ys), model.constant(yz)], []
    for _ in range(parts):
        q, s, z, real = operand(kind, (2, int(rng.integers(1, 5)), 3, 3), dyadic)
        if pick(False, True):
            s, z, real = ys, yz, (q.astype("f8") - float(yz)) * float(ys)
        names += [model.give(q), model.constant(s), model.constant(z)]
        want.append(rounded(real / float(ys), yz))
    model.result(model.add(MS + "QLinearConcat", names, {"axis": 1}), np.concatenate(want, 1), f"QLinearConcat {kind}")


def qlinear_where(model):
    kind, dyadic = pick("u1", "i1"), pick(False, True)
    shape = [int(v) for v in rng.integers(1, 6, int(rng.integers(1, 5)))]
    a, sa, za, ra = operand(kind, shape, dyadic)
    b, sb, zb, rb = operand(kind, [1 if pick(False, False, True) else d for d in shape], dyadic)
    chosen = rng.random(shape) < 0.5
    ys, yz = scales((), 0.08, dyadic), integers(kind, ())
    names = [model.give(chosen), model.give(a)] + [model.constant(v) for v in (sa, za, b, sb, zb, ys, yz)]
    model.result(model.add(MS + "QLinearWhere", names), rounded(np.where(chosen, ra, rb) / float(ys), yz), f"QLinearWhere {kind} {shape}")


def qlinear_unary(model):
    kind, dyadic, op = pick("u1", "i1"), pick(False, True), pick("LeakyRelu", "Sigmoid", "GlobalAveragePool")
    q, s, z, real = operand(kind, (2, 3, int(rng.integers(2, 8)), int(rng.integers(2, 8))), dyadic)
    ys, yz, attributes = scales((), 0.05, dyadic), integers(kind, ()), {}
    if op == "LeakyRelu":
        attributes = {"alpha": 0.125}
        real = np.where(real < 0, real * 0.125, real)
    elif op == "Sigmoid":
        ys = np.float32(1 / 256)
        real = 1 / (1 + np.exp(-real))
    else:
        real = real.mean((2, 3), keepdims=True)
    names = [model.give(q)] + [model.constant(v) for v in (s, z, ys, yz)]
    model.result(model.add(MS + "QLinear" + op, names, attributes), rounded(real / float(ys), yz), f"QLinear{op} {kind}")


def linear(model):
    """QuantizeLinear and DequantizeLinear by themselves: per tensor, per axis."""
    kind, dyadic = pick("u1", "i1"), pick(False, True)
    shape = [int(v) for v in rng.integers(1, 6, 3)]
    axis = int(rng.integers(-3, 3))
    width = pick((), (1,), (shape[axis],))
    s, z = scales(width, 0.05, dyadic), integers(kind, width)
    spread = [1] * 3
    if width and width[0] > 1:
        spread[axis] = shape[axis]
    x = (rng.integers(-600, 600, shape) / 2).astype("f4") * (s.reshape(spread) if width else s)
    exact = pick(False, True)  # the quotient has the precision of the scale unless double is asked for: many ties
    precision = "f8" if exact else "f4"
    steps = np.rint((x.astype(precision) / s.astype(precision).reshape(spread)).astype("f8")) + z.astype("f8").reshape(spread)
    info = np.iinfo(kind)
    model.result(model.add("QuantizeLinear", [model.give(x), model.constant(s), model.constant(z)],
                           {"axis": axis, **({"precision": 11} if exact else {})}),
                 np.clip(steps, info.min, info.max).astype(kind), f"QuantizeLinear {kind} {shape} {axis} {width} exact {exact}")
    q = integers(kind, shape)
    real = (q.astype("f8") - z.astype("f8").reshape(spread)) * s.astype("f8").reshape(spread)
    model.result(model.add("DequantizeLinear", [model.give(q), model.constant(s), model.constant(z)], {"axis": axis}),
                 real.astype("f4"), f"DequantizeLinear {kind} {shape} {axis} {width}")


def moved(model):
    """Bytes of either dtype through operators that only move them, and out as they are."""
    kind, dyadic = pick("u1", "i1"), pick(False, True)
    q, s, z, _ = operand(kind, (2, 3, 5, 7), dyadic)
    x = model.add("DequantizeLinear", [model.give(q), model.constant(s), model.constant(z)])
    y = model.add("MaxPool", [x], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]})
    y = model.add("Transpose", [y], {"perm": [0, 2, 3, 1]})
    padded = np.pad(q, [(0, 0), (0, 0), (1, 0), (1, 0)], constant_values=np.iinfo(kind).min)
    largest = np.maximum(np.maximum(padded[:, :, 1:, 1:], padded[:, :, :-1, 1:]),
                         np.maximum(padded[:, :, 1:, :-1], padded[:, :, :-1, :-1]))
    model.result(model.add("QuantizeLinear", [y, model.constant(s), model.constant(z)]), largest.transpose(0, 2, 3, 1),
                 f"MaxPool, Transpose {kind}")


def integer_products(model):
    x, _, xz, w, _, wz, sums, attributes, _, _ = conv_case()
    zero = model.constant(wz.reshape(-1) if wz.size > 1 else wz)
    model.result(model.add("ConvInteger", [model.give(x), model.constant(w), model.constant(xz), zero], attributes),
                 sums.astype("i4"), f"ConvInteger {x.dtype} {w.dtype}")
    x, _, xz, w, _, wz, sums, _, _ = matmul_case()
    model.result(model.add("MatMulInteger", [model.give(x), model.constant(w), model.constant(xz), model.constant(wz)]),
                 sums.astype("i4"), f"MatMulInteger {x.dtype} {w.dtype}")


def dynamic_product(model):
    """The scale is known only when it runs: DynamicQuantizeMatMul, FP32 in and out."""
    _, _, _, w, ws, wz, _, _, _ = matmul_case()
    x = rng.standard_normal((3, w.shape[0])).astype("f4")
    low, high = min(0, x.min()), max(0, x.max())
    scale = np.float32(high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    real = ((q - zero) @ (w.astype("f8") - wz.astype("f8"))) * (float(scale) * ws.astype("f8"))
    model.result(model.add(MS + "DynamicQuantizeMatMul", [model.give(x), model.constant(w), model.constant(ws), model.constant(wz)]),
                 real.astype("f4"), f"DynamicQuantizeMatMul {w.dtype}")


def dynamic_convolution(model):
    """DynamicQuantizeLinear -> ConvInteger -> Cast -> Mul by both scales [-> Add]: FP32 in and out, weights constant."""
    _, _, _, w, _, wz, _, attributes, _, _ = conv_case()
    groups = attributes["group"]
    x = rng.standard_normal((2, w.shape[1] * groups, *rng.integers(5, 9, 2))).astype("f4") + np.float32(pick(0, 0.5, 3))
    low, high = min(np.float32(0), x.min()), max(np.float32(0), x.max())
    scale = np.float32(high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    q = np.clip(np.rint(x / scale) + zero, 0, 255)
    ws = scales(pick((), (w.shape[0], 1, 1), (1, w.shape[0], 1, 1)), 0.005, False)
    bias = rng.standard_normal((1, w.shape[0], 1, 1)).astype("f4") if pick(False, True) else None
    sums = convolution(q.astype("i8") - int(zero), w.astype("i8") - wz.astype("i8").reshape(-1, 1, 1, 1), attributes["pads"],
                       attributes["strides"], attributes["dilations"], groups)
    dynamic = model.add("DynamicQuantizeLinear", [model.give(x)], more=2)
    product = model.add("ConvInteger", [dynamic[0], model.constant(w), dynamic[2], model.constant(wz)], attributes)
    factor = model.add("Mul", [dynamic[1], model.constant(ws)])
    y = model.add("Mul", [model.add("Cast", [product], {"to": 1}), factor])
    if bias is not None:
        y = model.add("Add", [y, model.constant(bias)])
    real = sums * (float(scale) * ws.astype("f8")) + (0 if bias is None else bias.astype("f8"))
    model.result(y, real.astype("f4"), f"dynamic ConvInteger {w.dtype}{w.shape} zero {wz.tolist()} scale {ws.shape} {attributes}")


def differs(got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape}, wanted {want.dtype}{want.shape}"
    if want.dtype.kind == "f":
        return "" if np.allclose(got, want, 1e-5, 1e-5 * np.abs(want).max(initial=0)) else f"off by {np.abs(got - want).max():.3g}"
    wrong = np.argwhere(got != want)
    return f"{len(wrong)} of {want.size} differ, at {wrong[0].tolist()} {got[tuple(wrong[0])]}, wanted {want[tuple(wrong[0])]}" if len(wrong) else ""


def judge(story, model, name):
    path = onnx_writer.write(f"{story.folder}/{name}.onnx", model.inputs, model.outputs, model.nodes, model.constants)
    np.savez(f"{story.folder}/{name}.npz", **model.feed)
    harness.run("terse", "compress", path, "-o", f"{story.folder}/{name}.terse")
    for isa in ("", "scalar"):
        harness.run("terse", "run", f"{story.folder}/{name}.terse", f"{story.folder}/{name}.npz", "-o", f"{story.folder}/out.npz",
                    env=dict(os.environ, **({"TERSE_ISA": isa} if isa else {})))
        with np.load(f"{story.folder}/out.npz") as got:
            for output, want in model.want.items():
                why = differs(got[output], want)
                story.check(not why, f"{model.told[output]} {isa}: {why}")


def batchable(story, inputs, outputs, nodes, constants):
    path = onnx_writer.write(f"{story.folder}/rows.onnx", inputs, outputs, nodes, constants)
    harness.run("terse", "compress", path, "-o", f"{story.folder}/rows.terse")
    return harness.run_json("terse", "inspect", f"{story.folder}/rows.terse", "--json")["batchable"]


with harness.story("rows of quantized tensors are told apart from what mixes them") as story:
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "s4": np.full(4, 0.1, "f4"), "z4": np.arange(4, dtype="u1"),
                 "w": integers("i1", (4, 5)), "wz": integers("i1", (5,))}
    whole = [("QuantizeLinear", ["x", "s", "z"], ["q"])]
    dynamic = [("DynamicQuantizeLinear", ["x"], ["q", "qs", "z"])]
    product = [("MatMulInteger", ["q", "w", "z", "wz"], ["y"])]
    x, y = [("x", "f4", ["N", 4])], [("y", "i4", ["N", 5])]
    story.check(batchable(story, x, y, whole + product, constants), "one scale for the tensor")
    story.check(batchable(story, x, y, [("QuantizeLinear", ["x", "s4", "z4"], ["q"], {"axis": 1})] + product, constants),
                "a scale for each channel")
    del constants["z"]
    story.check(not batchable(story, x, y, dynamic + product, constants), "a scale from all rows")

with harness.story("what cannot be read quantized is refused by name") as story:
    scale = {"s": np.float32(0.1)}
    for told, inputs, node, constants in (
            ("INT16", [("x", "i2", ["N", 4])], ("DequantizeLinear", ["x", "s"], ["y"]), scale),
            ("UINT16", [("x", "f4", ["N", 4])], ("QuantizeLinear", ["x", "s", "z"], ["y"]), dict(scale, z=np.uint16(0))),
            ("output_dtype FLOAT8E4M3FN", [("x", "f4", ["N", 4])], ("QuantizeLinear", ["x", "s"], ["y"], {"output_dtype": 17}), scale),
            ("com.microsoft.QAttention", [("x", "f4", ["N", 4])], (MS + "QAttention", ["x", "s"], ["y"]), scale),
            ("has shape [3], does not fit", [("x", "f4", [2, 4])], ("QuantizeLinear", ["x", "s"], ["y"]), {"s": np.ones(3, "f4")})):
        path = onnx_writer.write(f"{story.folder}/bad.onnx", inputs, [("y", "u1", ["N", 4])], [node], constants)
        said = harness.run("terse", "compress", path, "-o", f"{story.folder}/bad.terse", code=1).stderr.strip().splitlines()
        story.check(told in said[-1] and not os.path.exists(f"{story.folder}/bad.terse"), f"{told}: {said}")

with harness.story("quantized nodes are exact") as story:
    print(f"# seed {seed}")
    kinds = {"convolutions": [lambda m: qlinear_conv(m, True), qdq_conv], "products": [lambda m: qlinear_matmul(m, True), qgemm, transposed_weights],
             "computed scales": [lambda m: qlinear_conv(m, False), lambda m: qlinear_matmul(m, False), dynamic_product, dynamic_convolution],
             "elementwise": [qlinear_binary, qlinear_where, qlinear_concat, qlinear_unary], "bytes": [linear, moved, integer_products]}
    for turn in range(ROUNDS):
        for name, makers in kinds.items():
            model = Model()
            for maker in makers * 6:
                maker(model)
            judge(story, model, f"{name.replace(' ', '_')}_{turn}")

harness.finish()
