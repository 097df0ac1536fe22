#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A student with at most an eighth of its teacher's work learns the digits from samples without labels, stops when it
is told to, goes on where it stopped, and can be served and read as ONNX. Prints TAP."""
import json
import os
import signal
import subprocess

import numpy as np

from harness import DATA, LONG, Skip, digits_images, finish, program, run, run_json, story, wait_until

TEACHER = os.path.join(DATA, "digits.onnx")
# Twelve seconds of a core bring it within a point; what a quarter of that gives shows whether learning works at all.
EPOCHS, POINTS = (600, 1) if LONG else (150, 3)
IMAGES, LABELS = digits_images()


def distill(*options, **how):
    return run("terse", "distill", TEACHER, *options, **how)


def begin(*options):
    return subprocess.Popen([program("terse"), "distill", TEACHER, *options], stdout=subprocess.PIPE, text=True)


def samples(folder):
    """Every other digit, without labels, to train on; the others, with labels, to judge by; three to run."""
    paths = {name: os.path.join(folder, name + ".npz") for name in ("train", "judge", "few")}
    np.savez(paths["train"], image=IMAGES[0::2])
    np.savez(paths["judge"], image=IMAGES[1::2], labels=LABELS[1::2])
    np.savez(paths["few"], image=IMAGES[:3])
    return paths


def answers(model, inputs, folder):
    out = os.path.join(folder, "out.npz")
    run("terse", "run", model, inputs, "-o", out)
    with np.load(out) as found:
        return {name: found[name] for name in found}


def content(path):
    with open(path, "rb") as file:
        return file.read()


with story(f"with an eighth of the work a student is within {POINTS} points of its teacher on digits nobody showed it") as told:
    data = samples(told.folder)
    found = run_json("terse", "distill", TEACHER, "--data", data["train"], "-o", os.path.join(told.folder, "student.onnx"),
                     "--validate", data["judge"], "--width", "0.32", "--augment", "shift:1,mix", "--epochs", EPOCHS, "-q", "--json")
    top1, teacher = found["validation"]["top1"], found["validation"]["top1_teacher"]
    print(f"# 1/{found['macs_teacher'] / found['macs_student']:.1f} of the work, top-1 {100 * top1:.2f} %, teacher "
          f"{100 * teacher:.2f} %, {found['seconds']:.1f} s, {found['samples_per_second']:.0f} samples/s")
    told.check(found["macs_student"] * 8 <= found["macs_teacher"], "an eighth of the work")
    told.check(top1 >= teacher - POINTS / 100 - 1e-4, "near its teacher")
    told.check(found["samples"] + found["held_out"] == len(IMAGES[0::2]), "all samples are trained on or held out")

with story("a student goes into a .terse file, or into an ONNX file that compresses to the same answers") as told:
    data = samples(told.folder)
    direct, onnx, compressed = (os.path.join(told.folder, name) for name in ("direct.terse", "student.onnx", "again.terse"))
    for out in (direct, onnx):
        distill("--data", data["train"], "--epochs", "2", "--seed", "3", "-q", "-o", out)
    run("terse", "compress", onnx, "-o", compressed, "--no-tune", "-q")
    a, b = answers(direct, data["few"], told.folder), answers(compressed, data["few"], told.folder)
    told.check(a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a), "equal answers")
    better = run_json("terse", "distill", TEACHER, "--student", onnx, "--data", data["train"], "--epochs", "20", "-q", "--json",
                      "-o", os.path.join(told.folder, "better.onnx"))
    told.check(better["divergence"] < better["divergence_before"], "--student goes on from the weights it has")

with story("onnxruntime reads the student's ONNX file and answers alike") as told:
    try:
        import onnxruntime
    except ImportError:
        raise Skip("onnxruntime is not installed") from None
    data = samples(told.folder)
    model, onnx = os.path.join(told.folder, "student.terse"), os.path.join(told.folder, "student.onnx")
    for out in (model, onnx):
        distill("--data", data["train"], "--epochs", "2", "--seed", "3", "-q", "-o", out)
    ours = answers(model, data["few"], told.folder)
    theirs = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]).run(list(ours), {"image": IMAGES[:3]})
    told.check(all(np.allclose(x, y, rtol=1e-3, atol=1e-4) for x, y in zip(ours.values(), theirs)), "equal answers")

with story("Ctrl-C leaves the best student so far") as told:
    data = samples(told.folder)
    out, state = os.path.join(told.folder, "student.onnx"), os.path.join(told.folder, "state")
    process = begin("--data", data["train"], "-o", out, "--epochs", "1000000", "--checkpoint", state, "--json", "-q")
    wait_until(lambda: os.path.exists(state) or process.poll() is not None, "a checkpoint")
    process.send_signal(signal.SIGINT)
    found = json.loads(process.communicate()[0].strip().splitlines()[-1])
    told.check(process.returncode == 0 and found["interrupted"] and found["epochs"] >= 1, "told and well")
    run("terse", "inspect", out)

with story("a training that is killed and resumed gives the same file as one in one go") as told:
    data = samples(told.folder)
    once, pieces, state = (os.path.join(told.folder, name) for name in ("once.onnx", "pieces.onnx", "state"))
    same = ["--data", data["train"], "--seed", "4", "--augment", "mix,shift:1", "-q", "--epochs", "60", "--name", "m"]
    distill(*same, "-o", once)
    process = begin(*same, "-o", pieces, "--checkpoint", state)
    wait_until(lambda: os.path.exists(state) or process.poll() is not None, "a checkpoint")
    process.kill()
    process.communicate()
    told.check(os.path.exists(state), "a checkpoint is there")
    distill(*same, "-o", pieces, "--checkpoint", state, "--resume")
    told.check(content(once) == content(pieces), "equal bytes")

with story("what is wrong is named in one line and nothing is written") as told:
    data = samples(told.folder)
    bad, wrong, out = (os.path.join(told.folder, name) for name in ("bad.npz", "wrong.npz", "never.onnx"))
    x = IMAGES[:20].copy()
    x[5, 0, 2, 2] = np.nan
    np.savez(bad, image=x)
    np.savez(wrong, picture=x)
    for word, code, options in [
            ("sample 5", 1, ["--data", bad, "-o", out]),
            ("'picture'", 1, ["--data", wrong, "-o", out]),
            ("are allowed", 1, ["--data", data["train"], "-o", out, "--mem", "10K"]),
            ("absent.onnx", 1, ["--data", data["train"], "-o", out, "--student", os.path.join(told.folder, "absent.onnx")]),
            ("end in .onnx or .terse", 2, ["--data", bad, "-o", "model.bin"]),
            ("--time is '10x'", 2, ["--data", bad, "-o", out, "--time", "10x"]),
            ("--augment is 'spin'", 2, ["--data", bad, "-o", out, "--augment", "spin"]),
            ("--data DATA.npz is missing", 2, ["-o", out]),
            ("unknown option '--foo'", 2, ["--foo"]),
            ("--width is '2'", 2, ["--width", "2"])]:
        lines = distill(*options, "-q", code=code).stderr.strip().splitlines()
        told.check(len(lines) == 1 and word in lines[0] and lines[0].startswith("terse distill: "), f"{word}: {lines}")
    told.check(not os.path.exists(out), "nothing is written")

finish()
