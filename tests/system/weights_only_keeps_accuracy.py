#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Weights in 8 and 4 bits: the sample keeps its accuracy in a smaller file, a language model its likelihood, and every row
the bits that it has alone, on every tier of this CPU."""
import os

import numpy

import harness

TEST_SET = os.path.join(harness.DATA, "digits_test.npz")
SAMPLE = os.path.join(harness.DATA, "digits.onnx")
STORIES = os.path.join(harness.SHARED, "models", "stories260k", "model.onnx")
TEXT = os.path.join(harness.SHARED, "data", "tinystories_text")
TIERS = ("avx512vnni", "avx2vnni", "avx2", "scalar", "neondot", "neon")


def compress(story, onnx, mode, *more):
    path = f"{story.folder}/{mode.replace(':', '_')}.terse"
    return path, harness.run_json("terse", "compress", onnx, "-o", path, *(["--quantize", mode] if mode != "fp32" else []),
                                  "--json", "-q", *more)


def outputs(story, model, arrays, environment=None, code=0):
    numpy.savez(f"{story.folder}/in.npz", **arrays)
    harness.run("terse", "run", model, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz", code=code,
                env=dict(os.environ, **(environment or {})))
    with numpy.load(f"{story.folder}/out.npz") as out:
        return [out[name] for name in out.files]


with harness.story("the sample keeps its accuracy in fewer bytes") as story:
    before = compress(story, SAMPLE, "fp32", "--validate", TEST_SET)[1]["after"]
    # mode, what the classes may lose, the largest share of the FP32 bytes (its 3x3 convolutions stay FP32)
    for mode, loss, share in (("int8-weights", 0.004, 0.6), ("int4-weights", 0.01, 0.55), ("int4-weights:8", 0.01, 0.6),
                              ("int4-weights:128", 0.02, 0.5)):
        path, said = compress(story, SAMPLE, mode, "--validate", TEST_SET)
        after = said["after"]
        story.check(after["top1"] >= before["top1"] - loss, f"{mode}: top-1 {after['top1']}, FP32 {before['top1']}")
        story.check(0 < after["max_error"] < 2, f"{mode}: largest error {after['max_error']}")
        story.check(os.path.getsize(path) == after["bytes"] < share * before["bytes"],
                    f"{mode}: {after['bytes']} bytes, FP32 {before['bytes']}")
        told = harness.run("terse", "inspect", "--verify", path).stdout
        layers = 8 if mode == "int8-weights" else 2  # the pointwise convolutions too, or the two matrices
        story.check(told.count("WGemm") == layers and told.count(mode.split("-")[0] + " weights") == layers,
                    f"{mode}: inspect tells {layers} layers: {told}")

with harness.story("a row has the same bits alone, among others and on every tier") as story:
    with numpy.load(TEST_SET) as data:
        images = data["image"][:9]
    for mode in ("int8-weights", "int4-weights:16"):
        path, _ = compress(story, SAMPLE, mode)
        whole = outputs(story, path, {"image": images})[0]
        for i in range(len(images)):
            story.check(outputs(story, path, {"image": images[i:i + 1]})[0].tobytes() == whole[i:i + 1].tobytes(),
                        f"{mode}: row {i} alone")
        ran = 0
        for tier in TIERS:
            try:
                other = outputs(story, path, {"image": images}, {"TERSE_ISA": tier})[0]
            except AssertionError as error:
                story.check("is not a tier" in str(error), f"{mode}: {tier} fails only where the CPU lacks it: {error}")
                continue
            ran += 1
            story.check(other.tobytes() == whole.tobytes(), f"{mode}: {tier} has the same bits")
        story.check(ran >= 1, f"{mode}: {ran} tiers ran")

with harness.story("samples make 4 bits better") as story:
    with numpy.load(TEST_SET) as data:
        numpy.savez(f"{story.folder}/calibration.npz", image=data["image"][:200])
        numpy.savez(f"{story.folder}/figures.npz", image=data["image"][200:])
    errors = []
    for more in ((), ("--calibrate", f"{story.folder}/calibration.npz")):
        path, said = compress(story, SAMPLE, "int4-weights", "--validate", f"{story.folder}/figures.npz", *more)
        errors.append(said["after"]["mean_error"])
    story.check(errors[1] < 0.9 * errors[0], f"mean error {errors[0]} without samples, {errors[1]} with")
    numpy.savez(f"{story.folder}/bad.npz", picture=numpy.zeros((4, 1, 8, 8), "f4"))
    said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", "--quantize", "int4-weights",
                       "--calibrate", f"{story.folder}/bad.npz", code=1).stderr
    story.check("bad.npz" in said and "picture" in said, f"samples that do not fit are named: {said}")

with harness.story("weights are rounded for what their products give, and the report says which way") as story:
    with numpy.load(TEST_SET) as data:
        numpy.savez(f"{story.folder}/calibration.npz", image=data["image"][:200])
        numpy.savez(f"{story.folder}/figures.npz", image=data["image"][200:])
    samples = ("--calibrate", f"{story.folder}/calibration.npz")
    for mode, least in (("int4-weights", 0.5), ("int8", 1.02)):
        errors, said = {}, {}
        for how in ("nearest", "gptq", "adaround", "auto"):
            path, report = compress(story, SAMPLE, mode, "--validate", f"{story.folder}/figures.npz", "--rounding", how, *samples)
            errors[how], said[how] = report["after"]["mean_error"], report.get("rounding")
        print(f"# {mode}: mean error " + ", ".join(f"{how} {error:.4f}" for how, error in errors.items()))
        for how in ("gptq", "adaround", "auto"):
            story.check(errors[how] < least * errors["nearest"], f"{mode}: {how} is better: {errors}")
            story.check(said[how] and said[how]["lost"] < 1, f"{mode}: {how} loses less in the layers: {said[how]}")
        story.check(said["adaround"]["adaround"] > 0 and said["adaround"]["gptq"] == 0, f"{mode}: asked for: {said}")
    for text, words in (("--rounding is 'up'", ("--quantize", "int8", *samples, "--rounding", "up")),
                        ("int8 and int4-weights only, found none", ("--prune", "0.5", "--rounding", "gptq")),
                        ("found --quantize int8-weights", ("--quantize", "int8-weights", "--rounding", "gptq")),
                        ("--rounding auto needs samples", ("--quantize", "int4-weights", "--rounding", "auto")),
                        ("does not go with --cluster", ("--quantize", "int8", *samples, "--cluster", "4", "--rounding", "gptq"))):
        said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", *words, code=2).stderr
        story.check(text in said and said.count("\n") == 1, f"{text}: {said}")

with harness.story("wrong modes are refused in one line") as story:
    for words, text in ((("--keep-int8", "none"), "--keep-int8 goes with --quantize int4-weights only"),
                        (("--quantize", "int4-weights", "--keep-int8", ""), "allowed are auto, none and names")):
        said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", *words, code=2).stderr
        story.check(text in said and said.count("\n") == 1, f"{words}: {said}")
    said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", "--quantize", "int4-weights", "--keep-int8",
                       "nobody", code=1).stderr
    story.check("--keep-int8 names 'nobody'" in said and said.count("\n") == 1, f"nobody: {said}")
    for mode, text in (("int3-weights", "allowed are int8, int8-weights and int4-weights[:GROUP]"),
                       ("int4-weights:20", "multiples of 8"), ("int8-weights:32", "allowed are int8")):
        said = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/x.terse", "--quantize", mode, code=2).stderr
        story.check(text in said and said.count("\n") == 1, f"{mode}: {said}")
        story.check(not os.path.exists(f"{story.folder}/x.terse"), f"{mode}: no file")

def nll(story, path, texts):
    """Mean of -log p per token."""
    logits = outputs(story, path, {"tokens": numpy.stack(texts)})[0].astype("f8")
    logits -= logits.max(-1, keepdims=True)
    logits -= numpy.log(numpy.exp(logits).sum(-1, keepdims=True))
    return -numpy.mean([logits[i, numpy.arange(len(t) - 1), t[1:]].mean() for i, t in enumerate(texts)])


with harness.story("a language model keeps its likelihood") as story:
    if not (os.path.exists(STORIES) and os.path.isdir(TEXT)):
        raise harness.Skip(f"{STORIES} is not here")
    if not harness.BUILD.endswith("release"):
        raise harness.Skip("its training takes a sanitizer more than ten minutes: the release build is judged")
    tokens = numpy.load(f"{TEXT}/tokens_i16.npy").astype("i8")
    starts = numpy.load(f"{TEXT}/offsets_i32.npy")
    texts = [tokens[a:b][:128] for a, b in zip(starts, starts[1:]) if b - a >= 128]
    loss = {}
    for mode in ("fp32", "int8-weights", "int4-weights:16", "int4-weights"):
        path, _ = compress(story, STORIES, mode)
        loss[mode] = nll(story, path, texts)
    print("# negative log likelihood per token: " + ", ".join(f"{m} {v:.4f}" for m, v in loss.items()))
    story.check(loss["fp32"] < 1.3, f"FP32 reads the text: {loss}")
    story.check(loss["int8-weights"] < 1.01 * loss["fp32"], f"8 bits lose less than 1 %: {loss}")
    story.check(loss["int4-weights:16"] < 1.08 * loss["fp32"], f"4 bits in groups of 16 lose less than 8 %: {loss}")
    story.check(loss["int4-weights"] < 1.12 * loss["fp32"], f"4 bits in groups of 32 lose less than 12 %: {loss}")
    # fitted to the last two stories and what the network writes itself, judged by the others in full
    last = int(starts[-3])
    numpy.savez(f"{story.folder}/samples.npz", tokens=numpy.stack([tokens[i:i + 64] for i in range(last, len(tokens) - 64, 8)]))
    samples = ("--calibrate", f"{story.folder}/samples.npz")
    texts = [tokens[a:b][:223] for a, b in zip(starts, starts[1:-2])]
    modes = {"fp32": (), "4 bits alone": samples + ("--keep-int8", "none"), "4 and 8 bits": samples,
             "recovered": samples + ("--recover", "20" if harness.LONG else "2")}
    loss, said = {}, {}
    for mode, more in modes.items():
        path, said[mode] = compress(story, STORIES, "int4-weights" if more else "fp32", *more)
        loss[mode] = nll(story, path, texts)
    print("# of other stories: " + ", ".join(f"{m} {v:.4f}" for m, v in loss.items()))
    for mode in list(modes)[1:]:
        story.check(said[mode]["texts"] > 100, f"{mode}: texts are written: {said[mode].get('texts')}")
    kept = said["4 and 8 bits"]["mixed"]
    story.check("lm_head_mm" in kept["int8"] and 0 < kept["more_bytes"] <= 0.2, f"what keeps 8 bits: {kept}")
    story.check(said["4 bits alone"]["mixed"]["int8"] == [], f"none: {said['4 bits alone']['mixed']}")
    story.check(loss["4 and 8 bits"] < 1.035 * loss["fp32"], f"4 and 8 bits lose less than 3.5 %: {loss}")
    story.check(loss["4 and 8 bits"] < loss["4 bits alone"] < 1.08 * loss["fp32"], f"8 bits where they count: {loss}")
    story.check(loss["recovered"] < (1.02 if harness.LONG else 1.03) * loss["fp32"], f"training helps: {loss}")

harness.finish()
