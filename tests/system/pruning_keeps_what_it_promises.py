#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--prune: the share that was asked for is zero, files shrink, zeros stay zero in int8, a row has the bits that it has
alone on every tier, and refused layers and wrong amounts are told."""
import os
import subprocess
import sys

import numpy

import harness
import onnx_writer

TEST_SET = os.path.join(harness.DATA, "digits_test.npz")
SAMPLE = os.path.join(harness.DATA, "digits.onnx")
RESNET = os.path.join(harness.SHARED, "models", "resnet20_cifar10", "model.onnx")
LABELLED = os.path.join(harness.SHARED, "tools", "labelled_data.py")
TIERS = ("avx512vnni", "avx2vnni", "avx2", "scalar", "neondot", "neon")


def compress(story, name, *options, onnx=SAMPLE):
    path = f"{story.folder}/{name}.terse"
    return path, harness.run_json("terse", "compress", onnx, "-o", path, "--json", "-q", "--no-tune", *options)


def split(story):
    """The sample's digits: some to calibrate with, the others for figures."""
    with numpy.load(TEST_SET) as data:
        numpy.savez(f"{story.folder}/calibration.npz", image=data["image"][:200])
        numpy.savez(f"{story.folder}/figures.npz", image=data["image"][200:], labels=data["labels"][200:])
    return f"{story.folder}/calibration.npz", f"{story.folder}/figures.npz"


def outputs(story, model, arrays, environment=None, code=0):
    numpy.savez(f"{story.folder}/in.npz", **arrays)
    harness.run("terse", "run", model, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz", code=code,
                env=dict(os.environ, **(environment or {})))
    with numpy.load(f"{story.folder}/out.npz") as out:
        return [out[name] for name in out.files]


with harness.story("pruned weights make smaller files, alone and in int8") as story:
    calibration, figures = split(story)
    for more in ((), ("--quantize", "int8", "--calibrate", calibration)):
        _, dense = compress(story, "dense", *more, "--validate", figures)
        path, said = compress(story, "pruned", "--prune", "80%", *more, "--validate", figures)
        layers = [layer for layer in said["prune"]["layers"] if layer["pruned"]]
        story.check(len(layers) >= 6, f"{len(layers)} layers are pruned")
        for layer in layers:
            story.check(abs(layer["kept"] - 0.2) < 0.01, f"{layer}")
            story.check(layer["sparse"] or "runs dense" in layer["reason"], f"what runs dense says so: {layer}")
        story.check(sum(layer["sparse"] for layer in layers) >= 3, f"large layers are sparse: {layers}")
        for layer in said["prune"]["layers"]:
            story.check(layer["reason"], f"every layer has a reason: {layer}")
        story.check(os.path.getsize(path) == said["after"]["bytes"] < 0.6 * dense["after"]["bytes"],
                    f"{said['after']['bytes']} bytes, dense {dense['after']['bytes']}")
        story.check(said["after"]["macs"] < 0.5 * dense["after"]["macs"],
                    f"{said['after']['macs']} multiply-accumulates, dense {dense['after']['macs']}")
        told = harness.run("terse", "inspect", "--verify", path).stdout
        story.check(told.count("pruned 4x1 to 20 %") == len(layers), f"inspect tells what was pruned: {told}")
        again, _ = compress(story, "again", "--prune", "0.8:4x1", *more, "--validate", figures)
        with open(path, "rb") as a, open(again, "rb") as b:
            story.check(len(a.read()) == len(b.read()), "80% and 0.8:4x1 are the same")

with harness.story("a row has the same bits alone, among others and on every tier") as story:
    calibration, _ = split(story)
    with numpy.load(TEST_SET) as data:
        images = data["image"][:9]
    for name, more in (("int8", ("--quantize", "int8", "--calibrate", calibration)), ("fp32", ())):
        path, said = compress(story, name, "--prune", "0.7", *more)
        story.check(any(layer["sparse"] for layer in said["prune"]["layers"]), f"{name}: some layers are sparse")
        whole = outputs(story, path, {"image": images})[0]
        for i in range(len(images)):
            story.check(outputs(story, path, {"image": images[i:i + 1]})[0].tobytes() == whole[i:i + 1].tobytes(),
                        f"{name}: row {i} alone")
        ran = 0
        for tier in TIERS:
            try:
                other = outputs(story, path, {"image": images}, {"TERSE_ISA": tier})[0]
            except AssertionError as error:
                story.check("is not a tier" in str(error), f"{name}: {tier} fails only where the CPU lacks it: {error}")
                continue
            ran += 1
            story.check(other.tobytes() == whole.tobytes(), f"{name}: {tier} has the same bits")
        story.check(ran >= 1, f"{name}: {ran} tiers ran")

with harness.story("channels: a smaller dense network, with and without samples, as ONNX and in int8") as story:
    calibration, figures = split(story)
    errors = {}
    for name, more in (("sized", ()), ("fitted", ("--calibrate", calibration)),
                       ("bytes", ("--calibrate", calibration, "--quantize", "int8"))):
        _, dense = compress(story, "dense", *(more if "int8" in more else ()), "--validate", figures)
        path, said = compress(story, name, "--prune", "40%:channels", *more, "--validate", figures)
        gone = said["prune"]["macs_gone"]
        story.check(0.4 <= gone < 0.6, f"{name}: {gone} of the work is gone")
        story.check(said["after"]["macs"] < 0.65 * said["before"]["macs"], f"{name}: {said['after']['macs']}")
        story.check(os.path.getsize(path) < 0.8 * dense["after"]["bytes"], f"{name}: {os.path.getsize(path)} bytes")
        for layer in said["prune"]["layers"]:
            story.check(layer["reason"] and layer["pruned"] == (layer["kept"] < 1), f"{name}: {layer}")
        story.check(not any(layer["sparse"] for layer in said["prune"]["layers"]), f"{name} runs dense")
        last = said["prune"]["layers"][-1]
        story.check("output" in last["reason"] and "inputs left" in last["reason"], f"the last layer: {last}")
        errors[name] = said["after"]["mean_error"]
    story.check(errors["fitted"] < 0.5 * errors["sized"], f"samples choose better: {errors}")
    with numpy.load(figures) as data:
        images = data["image"][:32]
    harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/cut.onnx", "-q", "--prune", "40%:channels",
                "--calibrate", calibration)
    again, _ = compress(story, "again", onnx=f"{story.folder}/cut.onnx")
    a = outputs(story, f"{story.folder}/fitted.terse", {"image": images})[0]
    b = outputs(story, again, {"image": images})[0]
    story.check(numpy.abs(a - b).max() < 1e-4 * numpy.abs(a).max(), f"by way of ONNX: {numpy.abs(a - b).max()}")
    _, most = compress(story, "most", "--prune", "99%:channels")
    story.check(0.5 < most["prune"]["macs_gone"] < 1, f"as much as can go: {most['prune']['macs_gone']}")

with harness.story("beside bf16, int8-weights and int4-weights each layer is sparse or says why not") as story:
    _, figures = split(story)
    for more in (("--float", "bf16"), ("--quantize", "int8-weights"), ("--quantize", "int4-weights")):
        for amount in ("92%", "40%"):
            path, said = compress(story, "beside", "--prune", amount, "--validate", figures, *more)
            for layer in (layer for layer in said["prune"]["layers"] if layer["pruned"]):
                story.check(layer["sparse"] != ("; runs dense: " in layer["reason"]), f"{more} {amount}: {layer}")
            sparse = sum(layer["sparse"] for layer in said["prune"]["layers"])
            story.check((sparse > 0) == (more[1] == "bf16" and amount == "92%"), f"{more} {amount}: {sparse} are sparse")
            told = harness.run("terse", "inspect", "--verify", path).stdout
            story.check(told.count("pruned 4x1 to") >= 6, f"{more} {amount}: inspect tells what was pruned: {told}")
            if more[1] == "bf16":
                story.check("bf16" in told, f"the others are BF16: {told}")
    path, said = compress(story, "four", "--prune", "92%", "--validate", figures, "--float", "bf16")
    _, plain = compress(story, "plain", "--prune", "92%", "--validate", figures)
    story.check(said["after"]["mean_error"] < 1.1 * plain["after"]["mean_error"] + 0.05,
                f"BF16 costs little: {said['after']['mean_error']}, {plain['after']['mean_error']}")

with harness.story("two threads have the bits of one") as story:
    onnx_writer.mlp(f"{story.folder}/wide.onnx", [512, 1024, 1024, 96])
    rows = numpy.random.default_rng(3).standard_normal((64, 512)).astype("f4")
    numpy.savez(f"{story.folder}/wide.npz", x=rows)
    for name, more in (("wide8", ("--quantize", "int8", "--calibrate", f"{story.folder}/wide.npz")), ("wide32", ())):
        path, said = compress(story, name, "--prune", "0.9", *more, onnx=f"{story.folder}/wide.onnx")
        story.check(all(layer["sparse"] for layer in said["prune"]["layers"]), f"{name}: {said['prune']['layers']}")
        for count in (1, 2, 64):
            numpy.savez(f"{story.folder}/in.npz", x=rows[:count])
            made = []
            for threads in ("1", "2"):
                harness.run("terse", "run", path, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz", "--threads",
                            threads)
                with numpy.load(f"{story.folder}/out.npz") as out:
                    made.append(out["y"].tobytes())
            story.check(made[0] == made[1], f"{name}: {count} rows")

with harness.story("samples choose better than size alone") as story:
    calibration, figures = split(story)
    errors = []
    for more in ((), ("--calibrate", calibration)):
        _, said = compress(story, "chosen", "--prune", "0.6", "--validate", figures, *more)
        errors.append(said["after"]["mean_error"])
        story.check(said["prune"]["samples"] == (200 if more else 0), f"samples used: {said['prune']['samples']}")
        reasons = {layer["reason"].split(";")[0] for layer in said["prune"]["layers"] if layer["pruned"]}
        story.check(reasons == ({"OBS"} if more else {"by size"}), f"reasons: {reasons}")
    story.check(errors[1] < 0.5 * errors[0], f"mean error {errors[0]} by size, {errors[1]} with samples")
    for kind in ("0.5:unstructured", "50%:2:4"):
        path, said = compress(story, "other", "--prune", kind, "--validate", figures, "--calibrate", calibration)
        layers = [layer for layer in said["prune"]["layers"] if layer["pruned"]]
        story.check(layers and not any(layer["sparse"] for layer in layers), f"{kind} runs dense: {layers}")
        for layer in layers:
            story.check("; runs dense: only 4x1" in layer["reason"], f"{kind} says so: {layer}")
            story.check(layer["bytes_stored"] < 0.62 * layer["bytes_memory"] and layer["stored"] != "none" or
                        layer["bytes_memory"] < 4096, f"{kind} is stored without its zeros: {layer}")
        seen = harness.run_json("terse", "inspect", path, "--json")
        story.check(seen["stored_bytes"] < 0.62 * seen["constant_bytes"], f"inspect has both sizes: {seen['stored_bytes']} "
                    f"of {seen['constant_bytes']} bytes")
        story.check(said["after"]["mean_error"] < errors[0], f"{kind}: {said['after']['mean_error']}")
        story.check(said["after"]["top1"] > 0.95, f"{kind}: top-1 {said['after']['top1']}")
    numpy.savez(f"{story.folder}/bad.npz", picture=numpy.zeros((4, 1, 8, 8), "f4"))
    said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", "--prune", "0.5", "--calibrate",
                       f"{story.folder}/bad.npz", code=1).stderr
    story.check("bad.npz" in said and "picture" in said, f"samples that do not fit are named: {said}")

with harness.story("ResNet-20 loses little of its accuracy with half of its weights") as story:
    if not os.path.exists(RESNET):
        raise harness.Skip(f"{RESNET} is not here")
    for part in ("calibration", "figures"):
        subprocess.run([sys.executable, LABELLED, "resnet20_cifar10", part, f"{story.folder}/{part}.npz"], check=True,
                       capture_output=True)
    _, said = compress(story, "half", "--prune", "0.5", "--calibrate", f"{story.folder}/calibration.npz", "--validate",
                       f"{story.folder}/figures.npz", onnx=RESNET)
    print(f"# top-1 {said['before']['top1']:.4f} before, {said['after']['top1']:.4f} with half of the 4x1 blocks")
    story.check(said["after"]["top1"] >= said["before"]["top1"] - 0.035, "at most 3.5 points")

with harness.story("damaged sparse weights are refused by name") as story:
    path, _ = compress(story, "whole", "--prune", "0.8")
    with open(path, "rb") as file:
        whole = bytearray(file.read())
    refused = 0
    for at in range(len(whole) // 4, len(whole), len(whole) // 40):
        broken = bytearray(whole)
        broken[at] ^= 0xff
        with open(f"{story.folder}/broken.terse", "wb") as file:
            file.write(broken)
        done = harness.run("terse", "inspect", "--verify", f"{story.folder}/broken.terse", code=1)
        refused += done.stderr.count("\n") == 1
    story.check(refused >= 30, f"{refused} damaged files got one line each")

with harness.story("wrong amounts are refused in one line") as story:
    for amount in ("0", "1.0:2x2", "-0.5", "100%", "nan", "half", "0.5:", "0.3:2:4", "0.5:4x1x"):
        said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", "--prune", amount, code=2).stderr
        story.check("--prune is" in said and said.count("\n") == 1, f"{amount}: {said}")
        story.check(not os.path.exists(f"{story.folder}/x.terse"), f"{amount}: no file")

harness.finish()
