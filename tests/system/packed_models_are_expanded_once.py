#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A packed model is smaller on disk and the same everywhere else: the bits of `terse run` and of tersed are those of the model
that was not packed, all workers map one plain copy, and damaged or lying files are refused with one line."""
import os
import struct

import numpy

import harness

harness.look_into_children()


def run(folder, model, arrays):
    numpy.savez(f"{folder}/in.npz", **arrays)
    harness.run("terse", "run", model, f"{folder}/in.npz", "-o", f"{folder}/out.npz")
    with numpy.load(f"{folder}/out.npz") as out:
        return {name: out[name] for name in out.files}


def inspect(path):
    return harness.run_json("terse", "inspect", path, "--json", "--verify")


def mapped_models(pid):
    """Inodes of the memory that a process maps models from."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        return {line.split()[4] for line in maps if "memfd:terse-model" in line}


def refused(story, path, what, *words):
    done = harness.run("terse", "run", path, "--random", code=1)
    lines = done.stderr.strip().splitlines()
    story.check(len(lines) == 1 and all(word in lines[0] for word in words), f"{what}: one line says so ({lines})")
    done = harness.run("tersed", "--model", f"digits={path}", "--listen", f"ipc://{story.folder}/refused.sock", code=1)
    told = [line for line in done.stderr.splitlines() if "digits" in line and all(word in line for word in words)]
    story.check(told, f"{what}: tersed says so too ({done.stderr[-300:]})")


with harness.story("packed models are expanded once") as story:
    onnx = os.path.join(harness.ROOT, "tests/data/digits.onnx")
    plain, packed = f"{story.folder}/plain.terse", f"{story.folder}/packed.terse"
    again = f"{story.folder}/again.terse"
    harness.run("terse", "compress", onnx, "-o", plain, "--no-tune", "-q")
    harness.run("terse", "compress", onnx, "-o", packed, "--no-tune", "--pack", "zstd", "-q")
    harness.run("terse", "compress", onnx, "-o", again, "--no-tune", "--pack", "zstd", "-q")
    sizes = os.path.getsize(plain), os.path.getsize(packed)
    story.check(sizes[1] < 0.95 * sizes[0], f"the packed file is smaller: {sizes[1]} bytes, {sizes[0]} plain")
    with open(packed, "rb") as a, open(again, "rb") as b:
        data = a.read()
        story.check(data == b.read(), "the same input and options give the same bytes")

    said, was = inspect(packed), inspect(plain)
    story.check(said["constant_bytes"] == was["constant_bytes"] == was["stored_bytes"], "in memory they are as large")
    tensors = [t for t in said["tensors"] if "layout" in t]
    story.check(said["stored_bytes"] == sum(t["stored_bytes"] for t in tensors) < sizes[1],
                "inspect adds up what the tensors take on disk")
    story.check(sum(t["bytes"] for t in said["techniques"]) == said["constant_bytes"]
                and sum(t["stored_bytes"] for t in said["techniques"]) == said["stored_bytes"]
                and any("zstd" in t["encoding"] for t in said["techniques"]), "and for each technique")
    text = harness.run("terse", "inspect", packed, "--tensors").stdout
    story.check("on disk" in text and "zstd" in text, "inspect shows it to people")

    rng = numpy.random.default_rng(1)
    arrays = {i["name"]: rng.uniform(0, 16, [4] + [d for d in i["shape"][1:]]).astype("f4") for i in said["inputs"]}
    want = run(story.folder, plain, arrays)
    for name, got in run(story.folder, packed, arrays).items():
        story.check(got.tobytes() == want[name].tobytes(), f"terse run: '{name}' has the bits of the plain model")
    tersed = story.tersed({"plain": plain, "packed": packed}, "--workers", "2")
    for name, got in tersed.infer("packed", arrays).items():
        story.check(got.tobytes() == want[name].tobytes(), f"tersed: '{name}' has the bits of the plain model")
    maps = [mapped_models(pid) for pid in tersed.workers()]
    story.check(len(maps) == 2 and maps[0] == maps[1] and len(maps[0]) == 2, f"both workers map the same copies: {maps}")
    tersed.stop()

    few, said = f"{story.folder}/few.terse", {}
    data_set = os.path.join(harness.ROOT, "tests/data/digits_test.npz")
    with numpy.load(data_set) as file:
        for part, start in (("even", 0), ("odd", 1)):
            numpy.savez(f"{story.folder}/{part}.npz", **{k: file[k][start::2] for k in file.files if part == "odd" or k != "labels"})
    even, odd = f"{story.folder}/even.npz", f"{story.folder}/odd.npz"
    for options in (("--quantize", "int8", "--calibrate", even), ("--prune", "0.5:unstructured", "--calibrate", even), ()):
        words = ("--no-tune", "--cluster", "4", *options)
        said["none"] = harness.run_json("terse", "compress", onnx, "-o", few, *words, "--json")
        said["zstd"] = harness.run_json("terse", "compress", onnx, "-o", few, *words, "--validate", odd, "--pack", "zstd", "--json")
        what = " ".join(options[:2]) or "FP32"
        story.check(said["zstd"]["after"]["top1"] > said["zstd"]["before"]["top1"] - 0.02,
                    f"{what}: 16 numbers a layer keep the accuracy ({said['zstd']['after']['top1']})")
        share = [said[pack]["after"]["bytes"] / said[pack]["before"]["bytes"] for pack in ("zstd", "none")]
        story.check(share[0] < 0.13 and share[0] < share[1] < 0.2, f"{what}: the file shrinks {share}")
        layers = said["none"]["cluster"]["layers"]
        story.check(all(2 <= l["codes"] <= 16 and 0 < l["bits_per_weight"] <= 4 for l in layers if l["codes"])
                    and any(l["codes"] for l in layers), f"{what}: layers have at most 16 numbers")
        arrays = {"image": numpy.load(odd)["image"][:4]}
        story.check(all(v.size for v in run(story.folder, few, arrays).values()), f"{what}: it runs")

    def damaged(name, change):
        path = f"{story.folder}/{name}.terse"
        bad = bytearray(data)
        change(bad)
        with open(path, "wb") as file:
            file.write(bad)
        return path

    def flip(bad):
        bad[-20] ^= 4

    def cut(bad):
        del bad[-100:]
        bad[16:24] = struct.pack("<Q", len(bad))

    refused(story, damaged("flipped", flip), "a flipped bit", "XXH3")
    refused(story, damaged("cut", cut), "a file that ends early", "tensor", "the file has")
