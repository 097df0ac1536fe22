#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse compare and terse explain: their figures are those that numpy finds, and what does not fit is told in one line."""
import math
import os
import re
import shutil

import numpy

import harness
import onnx_writer

TEST_SET = os.path.join(harness.DATA, "digits_test.npz")
SAMPLE = os.path.join(harness.DATA, "digits.onnx")


def compress(story, name, *options, onnx=SAMPLE):
    path = f"{story.folder}/{name}.terse"
    said = harness.run_json("terse", "compress", onnx, "-o", path, "--json", "-q", "--no-tune", *options)
    return path, said


def digits(story):
    with numpy.load(TEST_SET) as data:
        numpy.savez(f"{story.folder}/calibration.npz", image=data["image"][:200])
        numpy.savez(f"{story.folder}/figures.npz", image=data["image"], labels=data["labels"])
        numpy.savez(f"{story.folder}/in.npz", image=data["image"])
        return f"{story.folder}/calibration.npz", f"{story.folder}/figures.npz", data["labels"]


def answers(story, model):
    harness.run("terse", "run", model, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
    with numpy.load(f"{story.folder}/out.npz") as out:
        return out[out.files[0]].astype("f8")


def one_line(story, what, done, *parts):
    story.check(done.stderr.count("\n") == 1 and not done.stdout, f"{what}: one line: {done.stderr}")
    for part in parts:
        story.check(part in done.stderr, f"{what}: {part!r} is named: {done.stderr}")


with harness.story("compare finds what numpy finds") as story:
    calibration, figures, labels = digits(story)
    a, _ = compress(story, "a")
    b, _ = compress(story, "b", "--low-rank", "30%", "--calibrate", calibration)
    said = harness.run_json("terse", "compare", a, b, "--data", figures, "--json")
    x, y = answers(story, a), answers(story, b)
    right = [(side.argmax(1) == labels) for side in (x, y)]
    for key, path, hits in (("a", a, right[0]), ("b", b, right[1])):
        story.check(abs(said[key]["top1"] - hits.mean()) < 1e-8, f"top-1 of {key}: {said[key]}, {hits.mean()}")
        story.check(said[key]["bytes"] == os.path.getsize(path) and said[key]["latency_us"] > 0, f"{said[key]}")
    story.check(said["b"]["macs"] < 0.5 * said["a"]["macs"], f"{said['a']['macs']}, {said['b']['macs']} MACs")
    story.check(said["samples"] == len(labels), f"{said['samples']} samples")
    story.check(abs(said["agreement"] - (x.argmax(1) == y.argmax(1)).mean()) < 1e-8, f"agreement {said['agreement']}")
    difference, gained, lost = said["top1_difference"], (~right[0] & right[1]).sum(), (right[0] & ~right[1]).sum()
    story.check(difference["only_b_right"] == gained and difference["only_a_right"] == lost, f"{difference}, {gained}, {lost}")
    story.check(gained + lost > 0, "the two differ somewhere, else this shows nothing")
    story.check(abs(difference["value"] - (gained - lost) / len(labels)) < 1e-8, f"{difference}")
    n, few = gained + lost, min(gained, lost)
    p = min(1.0, 2 * sum(math.comb(int(n), k) for k in range(int(few) + 1)) / 2.0 ** int(n))
    story.check(abs(difference["p"] - p) < 1e-6, f"McNemar: {difference['p']}, {p}")
    wald = 1.96 * math.sqrt(max(n - (gained - lost) ** 2 / len(labels), 1)) / len(labels)
    story.check(difference["low"] < difference["value"] < difference["high"]
                and abs(difference["high"] - difference["low"] - 2 * wald) < wald + 0.01, f"{difference}, {wald}")
    log = lambda t: t - numpy.log(numpy.exp(t - t.max(1, keepdims=True)).sum(1, keepdims=True)) - t.max(1, keepdims=True)
    shares = bool((x >= 0).all() and abs(x.sum(1) - 1).max() < 1e-3)
    p, q = (numpy.log(numpy.maximum(x, 1e-300)), numpy.log(numpy.maximum(y, 1e-12))) if shares else (log(x), log(y))
    kl = (numpy.exp(p) * (p - q)).sum(1)
    story.check(abs(said["kl"]["mean"] - kl.mean()) < 1e-4 * kl.mean() + 1e-7, f"KL {said['kl']}, {kl.mean()}")
    story.check(abs(said["kl"]["max"] - kl.max()) < 1e-4 * kl.max() + 1e-6, f"KL {said['kl']}, {kl.max()}")
    output = said["outputs"][0]
    story.check(abs(output["max_error"] - abs(x - y).max()) < 1e-5 * abs(x).max(), f"{output}, {abs(x - y).max()}")
    story.check(abs(output["mean_error"] - abs(x - y).mean()) < 1e-5 * abs(x).max(), f"{output}, {abs(x - y).mean()}")
    text = harness.run("terse", "compare", a, b, "--data", figures).stdout
    story.check("interval" in text and "agreement" in text and "KL" in text and a in text, f"{text}")

with harness.story("a model is as good as itself, and an ONNX file may be either side") as story:
    _, figures, _ = digits(story)
    a, _ = compress(story, "a")
    said = harness.run_json("terse", "compare", a, a, "--data", figures, "--json")
    story.check(said["agreement"] == 1 and said["outputs"][0]["max_error"] == 0 and said["kl"]["max"] == 0, f"{said}")
    difference = said["top1_difference"]
    story.check(difference["value"] == 0 and difference["low"] < 0 < difference["high"] < 0.02 and difference["p"] == 1,
                f"{difference}")
    said = harness.run_json("terse", "compare", SAMPLE, a, "--data", f"{story.folder}/in.npz", "--json")
    story.check(said["a"]["bytes"] == os.path.getsize(SAMPLE) and "top1" not in said["a"] and said["agreement"] == 1, f"{said}")
    said = harness.run_json("terse", "compare", a, SAMPLE, "--data", figures, "--json")
    story.check(abs(said["outputs"][0]["max_error"]) < 1e-3 and said["agreement"] == 1, f"{said}")

with harness.story("what cannot be compared is told in one line") as story:
    _, figures, labels = digits(story)
    a, _ = compress(story, "a")
    mlp, _ = compress(story, "mlp", onnx=onnx_writer.mlp(f"{story.folder}/mlp.onnx", [16, 8, 10]))
    compare = lambda *words, code=1: harness.run("terse", "compare", *words, code=code)
    one_line(story, "other inputs", compare(a, mlp, "--data", figures), "inputs differ", "image", "x FP32")
    wide, _ = compress(story, "wide", onnx=onnx_writer.mlp(f"{story.folder}/wide.onnx", [16, 8, 12]))
    one_line(story, "other outputs", compare(mlp, wide, "--data", figures), "outputs differ", "10", "12")
    one_line(story, "no model", compare(a, "/nowhere/m.terse", "--data", figures), "/nowhere/m.terse")
    one_line(story, "no ONNX file", compare("/nowhere/m.onnx", a, "--data", figures), "terse compare", "/nowhere/m.onnx")
    one_line(story, "no samples", compare(a, a, "--data", "/nowhere/d.npz"), "/nowhere/d.npz")
    one_line(story, "no --data", compare(a, a, code=2), "--data")
    one_line(story, "one model", compare(a, "--data", figures, code=2))
    with numpy.load(TEST_SET) as data:
        image = data["image"]
    for what, arrays, part in (("key", {"picture": image}, "picture"), ("none", {"labels": labels}, "image"),
                               ("dtype", {"image": image.astype("f8")}, "FP64"),
                               ("shape", {"image": image[:, :, :4]}, "[797,1,4,8]"),
                               ("labels", {"image": image, "labels": labels[:-1]}, "labels"),
                               ("label", {"image": image, "labels": labels + 7}, "labels"),
                               ("float labels", {"image": image, "labels": labels.astype("f4")}, "labels"),
                               ("rows", {"image": image[:0]}, "image")):
        numpy.savez(f"{story.folder}/bad.npz", **arrays)
        part = part.replace("797", str(len(image)))
        one_line(story, what, compare(a, a, "--data", f"{story.folder}/bad.npz"), part)

with harness.story("explain tells of every layer what the compression told") as story:
    calibration, figures, _ = digits(story)
    path, said = compress(story, "all", "--low-rank", "60%", "--prune", "0.4", "--quantize", "int8", "--calibrate",
                          calibration, "--keep-float", "none", "--validate", figures)
    told = harness.run_json("terse", "explain", path, "--json")
    layers = {layer["name"]: layer for layer in told["layers"]}
    story.check(len(layers) == len(told["layers"]), "each layer once")
    for layer in said["layers"]:
        mine = layers.get(layer["name"])
        story.check(mine is not None, f"{layer['name']} is told")
        for key in ("op", "shape", "rank", "form", "kept", "sqnr", "kl", "macs_after", "us_after", "bytes_after"):
            if mine and key in layer:
                story.check(mine[key] == layer[key] or abs(mine[key] - layer[key]) <= 1e-9 * abs(layer[key]),
                            f"{layer['name']}: {key} is {mine[key]}, told was {layer[key]}")
    for layer in said["prune"]["layers"]:
        story.check(layers[layer["name"]]["pruned"] == layer["pruned"], f"{layer}")
    story.check(any("low rank" in layer["done"] for layer in told["layers"]), "factors are told")
    story.check(any("pruned" in layer["done"] and "int8" in layer["done"] for layer in told["layers"]), "zeros and int8 are told")
    costs = [layer.get("us_after") for layer in told["layers"] if layer.get("us_after") is not None]
    story.check(told["sorted_by"] == "us_after" and len(costs) > 2 and costs == sorted(costs, reverse=True), f"{costs}")
    story.check(0 < told["culprit"]["share"] <= 1 and told["culprit"]["layer"] in layers, f"{told['culprit']}")
    shares = [layer["share_of_loss"] for layer in told["layers"] if layer["share_of_loss"] is not None]
    story.check(abs(sum(shares) - 1) < 1e-6 and max(shares) == told["culprit"]["share"], f"{shares}")
    text = harness.run("terse", "explain", path).stdout
    story.check(re.search(r"^\d+ % of what int8 loses .* comes from ", text, re.M), f"{text}")
    for name in layers:
        story.check(name[:32] in text, f"{name} is in the table")
        one = harness.run("terse", "explain", path, name).stdout
        story.check(one.startswith(name + ": ") and "nodes in the file" in one, f"{one}")
    name = said["layers"][0]["name"]
    one = harness.run_json("terse", "explain", path, name, "--json")
    story.check(one["layer"]["name"] == name and one["layer"]["nodes"], f"{one}")
    done = harness.run("terse", "explain", path, name[:-1] + "~", code=1)
    one_line(story, "a layer that is not there", done, name[:-1] + "~", name)

with harness.story("plain and weights-only models are explained too, and bad files told") as story:
    path, _ = compress(story, "plain")
    told = harness.run_json("terse", "explain", path, "--json")
    story.check(told["culprit"] is None and told["sorted_by"] == "macs_after", f"{told}")
    story.check(all(layer["done"] == "unchanged" for layer in told["layers"]) and len(told["layers"]) > 3, f"{told}")
    path, _ = compress(story, "small", "--quantize", "int8-weights")
    story.check("8 bits" in harness.run("terse", "explain", path).stdout or
                "int8" in harness.run("terse", "explain", path).stdout, "what nodes say of themselves is told")
    path, _ = compress(story, "codes", "--cluster", "4")
    story.check("clustered: 16 numbers" in harness.run("terse", "explain", path).stdout, "codebooks are told")
    explain = lambda *words, code=1: harness.run("terse", "explain", *words, code=code)
    one_line(story, "an ONNX file", explain(SAMPLE), "digits.onnx", ".terse")
    one_line(story, "no file", explain("/nowhere/m.terse"), "/nowhere/m.terse")
    with open(path, "rb") as file:
        whole = bytearray(file.read())
    whole[100] ^= 0xff
    with open(f"{story.folder}/broken.terse", "wb") as file:
        file.write(whole)
    one_line(story, "a damaged file", explain(f"{story.folder}/broken.terse"), "broken.terse")
    one_line(story, "no words", explain(code=2))

harness.finish()
