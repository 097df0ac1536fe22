#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ONNX's own backend test cases through `terse compress` and `terse run`: every core case whose operators terse has.

The cases lie in ../shared/onnx-node-tests (manifest.tsv, tests.tar.xz); without them this is skipped. Tolerances are those of ONNX's
runner (rtol 1e-3, atol 1e-5), dtype and shape must be equal.
"""
import csv
import os
import re
import subprocess
import tarfile

import numpy

import harness
from onnx_writer import fields

SOURCE = os.path.join(harness.SHARED, "onnx-node-tests")
KINDS = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}


def varints(data):
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def tensor(path):
    with open(path, "rb") as file:
        data = file.read()
    dims, kind, raw, typed = [], 0, None, None
    for number, value in fields(data):
        if number == 1:
            dims += [value] if isinstance(value, int) else list(varints(value))
        elif number == 2:
            kind = value
        elif number == 9:
            raw = value
        elif number == 4:
            typed = numpy.frombuffer(value, "<f4")
        elif number in (5, 7):
            typed = numpy.array([v - (1 << 64) if v >> 63 else v for v in varints(value)])
    if kind not in KINDS:
        raise ValueError(f"element type {kind}")
    array = numpy.frombuffer(raw, "<" + KINDS[kind] if kind != 9 else "?") if raw is not None else \
        numpy.array([] if typed is None else typed).astype(KINDS[kind])
    return array.reshape(dims)


def signature(path):
    """Names of the inputs that are no initializers, and of the outputs."""
    with open(path, "rb") as file:
        graph = next(value for number, value in fields(file.read()) if number == 7)
    name = lambda message, number: next((v.decode() for n, v in fields(message) if n == number), "")
    constants = {name(v, 8) for n, v in fields(graph) if n == 5}
    inputs = [name(v, 1) for n, v in fields(graph) if n == 11]
    return [i for i in inputs if i not in constants], [name(v, 1) for n, v in fields(graph) if n == 12]


def operators():
    """ONNX's operators that this terse imports: the first table of the importer."""
    with open(os.path.join(harness.ROOT, "compress", "onnx", "attributes.c")) as file:
        return set(re.findall(r'\{"(\w+)", TERSE_OP_', file.read().split("contributed[]")[0]))


def differs(got, want):
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape}, wanted {want.dtype}{want.shape}"
    if want.dtype.kind in "iub":
        return "" if numpy.array_equal(got, want) else "values differ"
    with numpy.errstate(all="ignore"):
        same = (got == want) | (numpy.isnan(got) & numpy.isnan(want)) | (numpy.abs(got - want) <= 1e-5 + 1e-3 * numpy.abs(want))
    return "" if same.all() else f"largest error {numpy.nanmax(numpy.abs(got - want)):.3g}"


def judge(folder, case):
    model, data = f"{case}/model.onnx", f"{case}/test_data_set_0"
    inputs, outputs = signature(model)
    numpy.savez(f"{folder}/in.npz", **{n: tensor(f"{data}/input_{k}.pb") for k, n in enumerate(inputs)})
    for command in (["compress", model, "-o", f"{folder}/m.terse"], ["run", f"{folder}/m.terse", f"{folder}/in.npz", "-o",
                                                                     f"{folder}/out.npz"]):
        done = subprocess.run([harness.program("terse"), *command], capture_output=True, text=True, errors="replace")
        if done.returncode:
            return f"terse {command[0]}: exit {done.returncode}: {done.stderr.strip()[-300:]}"
    with numpy.load(f"{folder}/out.npz") as got:
        for k, name in enumerate(outputs):
            if name not in got.files:
                return f"no output '{name}'"
            why = differs(got[name], tensor(f"{data}/output_{k}.pb"))
            if why:
                return f"output '{name}': {why}"
    return ""


with harness.story("ONNX's core cases give the wanted outputs") as story:
    if not os.path.exists(f"{SOURCE}/manifest.tsv"):
        raise harness.Skip(f"no {SOURCE}")
    known = operators()
    with open(f"{SOURCE}/manifest.tsv") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t")
                if r["core"] == "1" and r["expanded"] == "0" and r["ort_1.30"] == "pass"
                and {op.split("*")[0] for op in r["ops"].split()} <= known]
    with tarfile.open(f"{SOURCE}/tests.tar.xz") as tar:
        tar.extractall(story.folder)
    judged = 0
    for row in rows:
        case = os.path.join(story.folder, row["suite"], row["name"])
        if os.path.exists(f"{case}/model.onnx"):
            judged += 1
            why = judge(story.folder, case)
            story.check(not why, f"{row['name']}: {why}")
    print(f"# {judged} cases")
    story.check(judged > 400, f"cases were judged: {judged}")

harness.finish()
