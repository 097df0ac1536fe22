#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`terse compress --float bf16`, alone, with int8 and with low rank: smaller files that keep the accuracy of the sample and of
real networks, rows that have the bits they have alone, tiers that agree as far as they promise to."""
import gzip
import os
import subprocess
import sys

import numpy

import harness

TEST_SET = os.path.join(harness.DATA, "digits_test.npz")
SAMPLE = os.path.join(harness.DATA, "digits.onnx")
TEXT = os.path.join(harness.SHARED, "data", "tinystories_text")
TIERS = ("scalar", "avx2", "avx2vnni", "avx512vnni", "neon", "neondot")  # these have the same bits; avx512bf16 its own
PRODUCTS = 12  # of the sample


def compress(story, name, *options, onnx=SAMPLE):
    path = f"{story.folder}/{name}.terse"
    return path, harness.run_json("terse", "compress", onnx, "-o", path, "--json", "-q", *options)


def outputs(story, model, arrays, tier=None):
    numpy.savez(f"{story.folder}/in.npz", **arrays)
    environment = dict(os.environ, TERSE_ISA=tier) if tier else None
    harness.run("terse", "run", model, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz", env=environment)
    with numpy.load(f"{story.folder}/out.npz") as out:
        return out[out.files[0]]


def inspect(path):
    return harness.run("terse", "inspect", "--verify", path).stdout


def count(told, *operators):
    """Nodes of those kinds in what inspect prints, activations put behind the name or not."""
    names = [line.split()[1].split("+")[0] for line in told.splitlines() if line.strip()[:1].isdigit()]
    return sum(names.count(operator) for operator in operators)


def part(story, first, last):
    path = f"{story.folder}/rows{first}.npz"
    with numpy.load(TEST_SET) as data:
        numpy.savez(path, **{name: data[name][first:last] for name in data.files})
    return path


with harness.story("the sample keeps its accuracy in half the bytes") as story:
    exact = compress(story, "exact", "--validate", TEST_SET)[1]["after"]
    path, said = compress(story, "half", "--float", "bf16", "--validate", TEST_SET)
    after = said["after"]
    story.check(abs(after["top1"] - exact["top1"]) <= 0.003, f"top-1 {after['top1']}, FP32 {exact['top1']}")
    story.check(after["agreement"] >= 0.995, f"agreement {after['agreement']}")
    story.check(exact["max_error"] < after["max_error"] < 0.2, f"largest error {after['max_error']}")
    story.check(os.path.getsize(path) == after["bytes"], f"{after['bytes']} bytes are those of the file")
    story.check(after["bytes"] < 0.55 * said["before"]["bytes"], f"{after['bytes']} of {said['before']['bytes']} bytes")
    story.check(after["macs"] == said["before"]["macs"], f"the work is the same: {after['macs']}, {said['before']['macs']}")
    told = inspect(path)
    story.check(count(told, "BConv", "BGemm") == PRODUCTS and count(told, "Cast") == 0, f"all products, no casts: {told}")
    story.check("--float bf16" in told and told.count(", bf16") == PRODUCTS, f"the file says so: {told}")
    layers = said["layers"]
    story.check(len(layers) == PRODUCTS and all(30 < layer["sqnr_db"] < 70 and layer["compression"] == "bf16" and
                                                layer["bytes_after"] <= layer["bytes_before"] for layer in layers),
                f"each layer has its bytes and error: {layers}")

with harness.story("the same input gives the same file, tuned or not") as story:
    files = [compress(story, name, "--float", "bf16", *more)[0]
             for name, *more in (("a", "--no-tune"), ("b", "--no-tune"), ("c",))]
    contents = [open(file, "rb").read() for file in files]
    story.check(contents[0] == contents[1], "with --no-tune")
    images = numpy.load(TEST_SET)["image"][:5]
    answers = [outputs(story, file, {"image": images}).tobytes() for file in files]
    story.check(len(set(answers)) == 1, "measuring chooses nothing that changes answers")

with harness.story("a row has the same bits alone and among others, in `terse run` and in tersed") as story:
    path, _ = compress(story, "half", "--float", "bf16")
    images = numpy.load(TEST_SET)["image"][:9]
    whole = outputs(story, path, {"image": images})
    for i in range(len(images)):
        story.check(outputs(story, path, {"image": images[i:i + 1]}).tobytes() == whole[i:i + 1].tobytes(), f"row {i} alone")
    served = story.tersed({"half": path}).infer("half", {"image": images})
    story.check(list(served.values())[0].tobytes() == whole.tobytes(), "served")

with harness.story("tiers agree: the same bits, or as near as another rounding of sums") as story:
    images = numpy.load(TEST_SET)["image"][:40]
    exact = outputs(story, compress(story, "exact")[0], {"image": images})
    path, _ = compress(story, "half", "--float", "bf16")
    answers = {}
    for tier in TIERS + ("avx512bf16",):
        try:
            answers[tier] = outputs(story, path, {"image": images}, tier)
        except AssertionError as error:
            story.check("is not a tier" in str(error), f"{tier} fails only where the CPU lacks it: {error}")
    story.check("scalar" in answers, f"the scalar tier ran: {list(answers)}")
    for tier, answer in answers.items():
        if tier != "avx512bf16":
            story.check(answer.tobytes() == answers["scalar"].tobytes(), f"{tier} has the bits of the scalar tier")
        apart = abs(answer - answers["scalar"]).max() / abs(exact).max()
        lost = abs(answer - exact).max() / abs(exact).max()
        story.check(apart < 0.01, f"{tier} is {apart} apart from the scalar tier")
        story.check(0 < lost < 0.02, f"{tier} is {lost} apart from FP32")

with harness.story("what int8 keeps in FP32 becomes BF16") as story:
    words = ["--quantize", "int8", "--calibrate", part(story, 0, 200), "--validate", part(story, 200, 597),
             "--no-tune"]
    names = [layer["name"] for layer in compress(story, "int8", *words)[1]["layers"]]
    for kept in ([], [names[0], names[-1]], names[3:5]):
        more = [*words, "--keep-float", ",".join(kept) or "none"]
        alone, plain = compress(story, "alone", *more)
        path, said = compress(story, "both", "--float", "bf16", *more)
        told = inspect(path)
        story.check(count(told, "BConv", "BGemm") == len(kept), f"{len(kept)} layers are BF16: {told}")
        story.check(count(told, "QConv", "QGemm") == PRODUCTS - len(kept), f"all others are int8: {told}")
        named = [layer["name"] for layer in said["layers"] if layer.get("compression", "").endswith("bf16")]
        story.check(sorted(named) == sorted(kept), f"those that were named: {named}")
        story.check(said["after"]["bytes"] < plain["after"]["bytes"] + (256 if not kept else -1000),
                    f"{said['after']['bytes']} bytes, {plain['after']['bytes']} with FP32")
        story.check(said["after"]["top1"] >= plain["after"]["top1"] - 0.006 and said["after"]["agreement"] > 0.98,
                    f"accuracy stays: {said['after']}, {plain['after']}")

with harness.story("factors of low rank are BF16 too") as story:
    words = ["--low-rank", "0.95", "--validate", TEST_SET]
    plain = compress(story, "plain", *words)[1]
    path, said = compress(story, "half", "--float", "bf16", *words)
    told = inspect(path)
    factored = sum(layer["rank"] is not None for layer in said["layers"])
    story.check(factored > 0, f"some layers are factored: {said['layers']}")
    story.check(count(told, "BConv", "BGemm") == PRODUCTS + factored, f"two products for each factored layer: {told}")
    story.check(said["after"]["bytes"] < 0.62 * plain["after"]["bytes"],
                f"{said['after']['bytes']} bytes, {plain['after']['bytes']} in FP32")
    story.check(abs(said["after"]["top1"] - plain["after"]["top1"]) <= 0.004, f"{said['after']}, {plain['after']}")

with harness.story("what does not go together is refused in one line") as story:
    for words, text in ((["--float", "fp16"], "allowed are fp32 and bf16"),
                        (["--float", "bf16", "--plain"], "--plain goes with none of"),
                        (["--float", "bf16", "--quantize", "int8-weights"], "found 'int8-weights'"),
                        (["--quantize", "int4-weights:16", "--float", "bf16"], "found 'int4-weights:16'")):
        said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", *words, code=2).stderr
        story.check(text in said and said.count("\n") == 1, f"{words}: {said}")
        story.check(not os.path.exists(f"{story.folder}/x.terse"), f"{words}: no file")


def shared_model(story, name):
    path = os.path.join(harness.SHARED, "models", name, "model.onnx")
    if not os.path.exists(path) and not os.path.exists(path + ".gz"):
        raise harness.Skip(f"{os.path.normpath(path)} is not here")
    with open(path, "rb") if os.path.exists(path) else gzip.open(path + ".gz") as source:
        content = source.read()
    with open(f"{story.folder}/{name}.onnx", "wb") as file:
        file.write(content)
    return f"{story.folder}/{name}.onnx"


def labelled(story, name, rows):
    path = f"{story.folder}/{name}.npz"
    made = subprocess.run([sys.executable, os.path.join(harness.SHARED, "tools/labelled_data.py"), name, "figures", path],
                          capture_output=True, text=True)
    if "No module named 'PIL'" in made.stderr:
        raise harness.Skip("python3-pil is not here")
    if made.returncode:
        raise AssertionError(made.stderr[-500:])
    with numpy.load(path) as data:
        arrays = {key: data[key][:rows] for key in data.files}
    numpy.savez(path, **arrays)
    return path


# name, rows, points of top-1 that it may lose, least agreement
NETWORKS = [("tiny_ic_resnet8", 1000, 0.3, 0.98), ("mnist_cnn", 2000, 0.1, 0.99)]
if harness.LONG:
    NETWORKS += [("resnet20_cifar10", 2000, 0.3, 0.985), ("mobilenet_v1_025_128", 250, 1.0, 0.95),
                 ("squeezenet1_0", 250, 0.8, 0.97)]
for name, rows, points, agreement in NETWORKS:
    with harness.story(f"{name} loses at most {points} points") as story:
        onnx = shared_model(story, name)
        path, said = compress(story, name, "--float", "bf16", "--validate", labelled(story, name, rows), onnx=onnx)
        before, after = said["before"], said["after"]
        print(f"# {name}: top-1 {before['top1']:.4f} before, {after['top1']:.4f} after, agreement {after['agreement']:.4f}")
        story.check(100 * (before["top1"] - after["top1"]) <= points, f"{before}, {after}")
        story.check(after["agreement"] >= agreement, f"{before}, {after}")
        told = inspect(path)
        story.check(count(told, "BConv", "BGemm") > 0 and count(told, "Conv", "Gemm", "MatMul") == 0, f"all of it: {told}")

with harness.story("a language model keeps its likelihood") as story:
    onnx = shared_model(story, "stories260k")
    if not os.path.isdir(TEXT):
        raise harness.Skip(f"{os.path.normpath(TEXT)} is not here")
    tokens = numpy.load(f"{TEXT}/tokens_i16.npy").astype("i8")
    starts = numpy.load(f"{TEXT}/offsets_i32.npy")
    texts = [tokens[a:b][:128] for a, b in zip(starts, starts[1:]) if b - a >= 128]
    loss = []
    for options in ([], ["--float", "bf16"]):
        path, _ = compress(story, "stories", *options, onnx=onnx)
        logits = outputs(story, path, {"tokens": numpy.stack(texts)}).astype("f8")
        logits -= logits.max(-1, keepdims=True)
        logits -= numpy.log(numpy.exp(logits).sum(-1, keepdims=True))
        loss.append(-numpy.mean([logits[i, numpy.arange(127), t[1:]].mean() for i, t in enumerate(texts)]))
    print(f"# negative log likelihood per token: FP32 {loss[0]:.5f}, BF16 {loss[1]:.5f}")
    story.check(count(inspect(path), "BGemm") > 10, "its products are BF16")
    story.check(loss[0] < 1.3 and abs(loss[1] / loss[0] - 1) < 0.002, f"less than 0.2 % is lost: {loss}")

harness.finish()
