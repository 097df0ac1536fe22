#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`terse compress --recover`: a pruned, factored or rounded network is trained against the one it was made of, on samples without
labels; zeros stay, Ctrl-C ends it with the best so far, a broken off training goes on, bad values are named. Prints TAP."""
import json
import os
import signal
import subprocess

import numpy as np

from harness import DATA, digits_images, finish, program, run, run_json, story, wait_until
from onnx_writer import fields

SAMPLE = os.path.join(DATA, "digits.onnx")
IMAGES, LABELS = digits_images()


def samples(folder):
    """Every other digit, without labels, to learn from; the others, with labels, to judge by."""
    paths = {name: os.path.join(folder, name + ".npz") for name in ("learn", "judge")}
    np.savez(paths["learn"], image=IMAGES[0::2])
    np.savez(paths["judge"], image=IMAGES[1::2], labels=LABELS[1::2])
    return paths


def compress(folder, out, *words):
    paths = samples(folder)
    return run_json("terse", "compress", SAMPLE, "-o", os.path.join(folder, out), "--calibrate", paths["learn"], "--validate",
                    paths["judge"], "--no-tune", "-q", "--json", *words)


def content(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def weights(data):
    """The FP32 constants of more than one axis in an ONNX file, in their order."""
    graph = next(value for number, value in fields(data) if number == 7)
    found = []
    for number, value in fields(graph):
        parts = dict(fields(value)) if number == 5 else {}
        if parts.get(2) == 1 and len(parts.get(9, b"")) > 1024:
            found.append(np.frombuffer(parts[9], "f4"))
    return found


with story("what heavy pruning has lost comes back, and not one zero becomes a weight") as told:
    for kind in ("0.95", "0.95:unstructured", "0.5:2:4"):
        before = compress(told.folder, "before.onnx", "--prune", kind)
        after = compress(told.folder, "after.onnx", "--prune", kind, "--recover", "24")
        said = after["recover"]["floats"]
        print(f"# {kind}: divergence held out {said['divergence_before']:.5f} -> {said['divergence']:.5f}; agreement elsewhere "
              f"{before['after']['agreement']:.4f} -> {after['after']['agreement']:.4f}")
        hard = kind != "0.5:2:4"  # what lost next to nothing may have nothing to win
        told.check(said["divergence"] < (0.95 if hard else 1.0001) * said["divergence_before"], f"{kind}: held-out samples are closer: {said}")
        told.check(after["after"]["agreement"] >= before["after"]["agreement"] - 0.01, f"{kind}: no worse elsewhere: {after['after']}")
        old, new = weights(content(told.folder, "before.onnx")), weights(content(told.folder, "after.onnx"))
        # a tenth of the samples is not fitted to where there is training: other zeros, as many
        told.check(len(old) == len(new) > 2 and all(np.sum(a == 0) <= np.sum(b == 0) for a, b in zip(old, new)), f"{kind}: as many zeros")
        compress(told.folder, "one.onnx", "--prune", kind, "--recover", "1")  # cut by the same samples, hardly trained
        one = weights(content(told.folder, "one.onnx"))
        told.check(len(one) == len(new) and all(np.array_equal(a == 0, b == 0) for a, b in zip(one, new)), f"{kind}: equal zeros")
        told.check(not hard or any((a != b).any() for a, b in zip(old, new)), f"{kind}: other weights")
        told.check(sum((a == 0).sum() for a in new) > 0.45 * sum(a.size for a in new), f"{kind}: zeros there are")

with story("factors and bytes are trained too: through the rounding, which they keep") as told:
    words = ("--low-rank", "15%", "--quantize", "int8")
    before = compress(told.folder, "before.terse", *words)
    after = compress(told.folder, "after.terse", *words, "--recover", "30")
    print(f"# agreement {before['after']['agreement']:.4f}, recovered {after['after']['agreement']:.4f}, {after['recover']}")
    told.check(after["after"]["macs"] == before["after"]["macs"], "the same ranks")
    told.check(after["after"]["agreement"] >= before["after"]["agreement"], f"closer: {before['after']} {after['after']}")
    told.check(after["recover"]["floats"]["divergence"] < 0.9 * after["recover"]["floats"]["divergence_before"], "factors were trained")
    said = after["recover"]
    told.check(said["rounded"]["parameters"] > 1000 and said["rounded"]["epochs"] >= 1, f"INT8 weights were trained: {said}")
    told.check(said["rounded"]["divergence"] <= said["rounded"]["divergence_before"], f"and kept where they were better: {said}")
    ops = [{n["op"] for n in json.loads(run("terse", "inspect", os.path.join(told.folder, name), "--json").stdout)["nodes"]}
           for name in ("before.terse", "after.terse")]
    told.check(ops[0] == ops[1] and {"QConv", "QGemm"} & ops[1], f"the same operators: {ops}")

with story("Ctrl-C ends the training, and what was best until then is written") as told:
    paths, out, state = samples(told.folder), os.path.join(told.folder, "m.terse"), os.path.join(told.folder, "state")
    process = subprocess.Popen([program("terse"), "compress", SAMPLE, "-o", out, "--prune", "0.9", "--calibrate", paths["learn"],
                                "--recover", "100000", "--checkpoint", state, "--no-tune", "-q", "--json"],
                               stdout=subprocess.PIPE, text=True)
    wait_until(lambda: os.path.exists(state) or process.poll() is not None, "a checkpoint")
    process.send_signal(signal.SIGINT)
    said = json.loads(process.communicate()[0].strip().splitlines()[-1])["recover"]["floats"]
    told.check(process.returncode == 0 and said["interrupted"] and said["epochs"] >= 1, f"told and well: {said}")
    run("terse", "inspect", out, "--verify")

with story("a training that is killed goes on where it was, and the file has the same bytes as one in one go") as told:
    paths, state = samples(told.folder), os.path.join(told.folder, "state")
    words = ["--prune", "0.9", "--quantize", "int8", "--calibrate", paths["learn"], "--recover", "24", "--no-tune", "-q", "--name", "m"]
    once, pieces = (os.path.join(told.folder, name) for name in ("once.terse", "pieces.terse"))
    run("terse", "compress", SAMPLE, "-o", once, *words)
    words += ["--checkpoint", state]
    process = subprocess.Popen([program("terse"), "compress", SAMPLE, "-o", pieces, *words])
    wait_until(lambda: os.path.exists(state) or process.poll() is not None, "a checkpoint")
    process.kill()
    process.communicate()
    told.check(not os.path.exists(pieces) or process.returncode == 0, "killed before its end, or done")
    run("terse", "compress", SAMPLE, "-o", pieces, *words, "--resume")
    told.check(content(told.folder, "once.terse") == content(told.folder, "pieces.terse"), "equal bytes")
    said = run("terse", "compress", SAMPLE, "-o", pieces, *words, "--resume", "--prune", "0.8", code=1).stderr
    told.check("belongs to another training" in said and said.count("\n") == 1, f"a checkpoint of something else is refused: {said}")

with story("what is wrong is named in one line and nothing is written") as told:
    paths, out = samples(told.folder), os.path.join(told.folder, "never.terse")
    bad = os.path.join(told.folder, "bad.npz")
    few = os.path.join(told.folder, "few.npz")
    x = IMAGES[:20].copy()
    x[7, 0, 1, 1] = np.inf
    np.savez(bad, image=x)
    np.savez(few, image=IMAGES[:1])
    prune, learn = ("--prune", "0.5"), ("--calibrate", paths["learn"])
    for word, code, options in [
            ("--recover needs samples", 2, [*prune, "--recover", "3"]),
            ("without them nothing is lost", 2, [*learn, "--recover", "3"]),
            ("--recover is '0'", 2, [*prune, *learn, "--recover", "0"]),
            ("--recover is '-3'", 2, [*prune, *learn, "--recover", "-3"]),
            ("--recover is '1.5'", 2, [*prune, *learn, "--recover", "1.5"]),
            ("--recover is 'nan'", 2, [*prune, *learn, "--recover", "nan"]),
            ("--recover is '10x'", 2, [*prune, *learn, "--recover", "10x"]),
            ("--recover is '0m'", 2, [*prune, *learn, "--recover", "0m"]),
            ("--recover needs EPOCHS|TIME", 2, [*prune, *learn, "--recover"]),
            ("--checkpoint goes with --recover", 2, [*prune, *learn, "--checkpoint", "x"]),
            ("--resume needs --checkpoint", 2, [*prune, *learn, "--recover", "3", "--resume"]),
            ("sample 7", 1, [*prune, "--calibrate", bad, "--recover", "1"]),
            ("at least 2", 1, [*prune, "--calibrate", few, "--recover", "1"]),
            ("cannot", 1, [*prune, *learn, "--recover", "1", "--checkpoint", os.path.join(told.folder, "absent", "state")])]:
        lines = run("terse", "compress", SAMPLE, "-o", out, "--no-tune", "-q", *options, code=code).stderr.strip().splitlines()
        told.check(len(lines) == 1 and word in lines[0] and lines[0].startswith("terse compress: "), f"{word}: {lines}")
    told.check(not os.path.exists(out), "nothing is written")

finish()
