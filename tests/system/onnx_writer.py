# SPDX-License-Identifier: Apache-2.0
"""Writes small ONNX files by hand, and reads messages: protobuf's wire format with the few fields that the stories need (no pip
packages).

    onnx_writer.write("mlp.onnx", inputs=[("x", "f4", ["N", 784])], outputs=[("y", "f4", ["N", 10])],
                      nodes=[("Gemm", ["x", "w"], ["y"], {"transB": 1})], constants={"w": array})
"""
import struct

import numpy

KINDS = {"f4": 1, "u1": 2, "i1": 3, "u2": 4, "i2": 5, "i4": 6, "i8": 7, "b1": 9}


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def block(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name, array):
    array = numpy.ascontiguousarray(array)
    kind = KINDS[array.dtype.str.lstrip("<|")]
    return b"".join(number(1, d) for d in array.shape) + number(2, kind) + block(8, name) + block(9, array.tobytes())


def value_info(name, kind, shape):
    dims = b"".join(block(1, block(2, d) if isinstance(d, str) else number(1, d)) for d in shape)
    return block(1, name) + block(2, block(1, number(1, KINDS[kind]) + block(2, dims)))


def attribute(name, value):
    if isinstance(value, float):
        return block(1, name) + varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, 1)
    if isinstance(value, int):
        return block(1, name) + number(3, value) + number(20, 2)
    if isinstance(value, str):
        return block(1, name) + block(4, value) + number(20, 3)
    return block(1, name) + b"".join(number(8, v) for v in value) + number(20, 7)


def node(op, inputs, outputs, attributes=None):
    """`op` of another domain than ONNX's: "com.microsoft.QLinearAdd"."""
    domain, _, op = op.rpartition(".")
    return (b"".join(block(1, i) for i in inputs) + b"".join(block(2, o) for o in outputs) +
            block(3, op + "_" + outputs[0]) + block(4, op) + (block(7, domain) if domain else b"") +
            b"".join(block(5, attribute(k, v)) for k, v in (attributes or {}).items()))


def write(path, inputs, outputs, nodes, constants=None, opset=17):
    graph = (b"".join(block(1, node(*n)) for n in nodes) + block(2, "graph") +
             b"".join(block(5, tensor(k, v)) for k, v in (constants or {}).items()) +
             b"".join(block(11, value_info(*i)) for i in inputs) + b"".join(block(12, value_info(*o)) for o in outputs))
    with open(path, "wb") as file:
        file.write(number(1, 8) + block(7, graph) + block(8, number(2, opset)) +
                   block(8, block(1, "com.microsoft") + number(2, 1)))
    return path


def mlp(path, sizes, seed=1):
    """Dense layers with Relu between, from x [N, sizes[0]] to y [N, sizes[-1]]."""
    rng = numpy.random.default_rng(seed)
    nodes, constants, at = [], {}, "x"
    for i, (k, n) in enumerate(zip(sizes, sizes[1:])):
        last = i == len(sizes) - 2
        constants[f"w{i}"] = (rng.standard_normal((k, n)) / k ** 0.5).astype("f4")
        constants[f"b{i}"] = rng.standard_normal(n).astype("f4")
        product = "y" if last else f"g{i}"
        nodes.append(("Gemm", [at, f"w{i}", f"b{i}"], [product], {}))
        if not last:
            nodes.append(("Relu", [product], [f"r{i}"], {}))
        at = f"r{i}"
    return write(path, [("x", "f4", ["N", sizes[0]])], [("y", "f4", ["N", sizes[-1]])], nodes, constants)


def lookup(path, rows=100, width=8):
    """Embedding of tokens [N, T] to y [N, T, width]: an index outside 0..rows-1 is an error of that request alone."""
    table = numpy.arange(rows * width, dtype="f4").reshape(rows, width)
    return write(path, [("tokens", "i8", ["N", "T"])], [("y", "f4", ["N", "T", width])],
                 [("Gather", ["table", "tokens"], ["y"], {"axis": 0})], {"table": table})


def fields(data):
    """(number, value) of a protobuf message: int for varints, bytes for the rest."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = varint() if key & 7 == 2 else 4 if key & 7 == 5 else 8
            yield key >> 3, data[at:at + size]
            at += size
