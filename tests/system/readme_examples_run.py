#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The README's programs do what it says: the C client, the client in another language, the commands."""
import os
import re
import subprocess
import sys

import harness

with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as file:
    README = file.read()

with harness.story("the README's clients get the right digits") as story:
    images, labels = harness.digits_images()
    tersed = story.tersed({"digits": story.digits()})
    numbers = "\n".join(" ".join(str(int(v)) for v in image.ravel()) for image in images[:20])
    classify = subprocess.run([harness.program("classify"), "digits", tersed.endpoint], input=numbers, capture_output=True,
                              text=True)
    story.check(classify.returncode == 0, f"classify ends well: {classify.stderr}")
    found = [int(c) for c in re.findall(r"class (\d+)", classify.stdout)]
    story.check(len(found) == 20 and sum(a == b for a, b in zip(found, labels)) >= 19, f"the classes are right: {found}")
    for numbers, words in (("1 2 3", "a row has 64"), ("", "a row has 64")):
        wrong = subprocess.run([harness.program("classify"), "digits", tersed.endpoint], input=numbers, capture_output=True,
                               text=True)
        story.check(wrong.returncode == 1 and words in wrong.stderr, f"half a row is refused: {wrong.stderr}")
    wrong = subprocess.run([harness.program("classify"), "letters", tersed.endpoint], input="1", capture_output=True, text=True)
    story.check(wrong.returncode == 1 and "letters" in wrong.stderr, f"an unknown model is named: {wrong.stderr}")

    block, python = re.findall(r"```python\n(.*?)```", README, re.S)
    story.check(len(block.splitlines()) <= 22, "the client in any language is short")
    script = block.replace("ipc:///run/terse/tersed.sock", tersed.endpoint).replace(
        "image = numpy.zeros((1, 1, 8, 8), \"f4\")", f"image = numpy.array({images[0].tolist()}, 'f4')[None]")
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    story.check(other.stdout.strip() == str(labels[0]), f"the other client says {labels[0]}: {other.stdout}{other.stderr}")
    done = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, TERSE_ENDPOINT=tersed.endpoint, PYTHONPATH=os.path.join(harness.ROOT, "client/python")))
    story.check(done.returncode == 0 and re.fullmatch(r"\d \d+\nTrace\(received_ns=\d+, .*\)\n", done.stdout), f"python3-terse: {done.stdout}{done.stderr}")

with harness.story("terse says what is wrong, once, and with the right exit code") as story:
    digits = story.digits()
    for code, command in ((2, ["run", digits]), (2, ["run", digits, "--random", "--batch", "-1"]), (2, ["frobnicate"]),
                          (2, ["bench"]), (1, ["run", "/nonexistent.terse", "--random"]),
                          (1, ["run", digits, os.path.join(harness.DATA, "digits_test.npz"), "-o", f"{story.folder}/o.npz"]),
                          (1, ["run", digits, "--random", "--dim", "T=3"]), (1, ["inspect", "/etc/passwd"]),
                          (1, ["inspect", "/nonexistent.onnx"]),
                          (1, ["status", "-e", f"ipc://{story.folder}/nobody.sock", "--connect-ms", "50"])):
        done = harness.run("terse", *command, code=code)
        story.check(len(done.stderr.strip().splitlines()) == 1, f"one line for {command}: {done.stderr!r}")
    story.check(not os.path.exists(f"{story.folder}/o.npz"), "nothing is written when the work failed")
    for name in ("compress", "inspect", "run", "infer", "status", "bench"):
        story.check("usage: terse " + name in harness.run("terse", name, "--help").stdout, f"terse {name} --help")
    shown = harness.run_json("terse", "inspect", os.path.join(harness.DATA, "digits.onnx"), "--json")
    packed = harness.run_json("terse", "inspect", digits, "--json", "--verify")
    story.check(shown["inputs"] == packed["inputs"] and packed["verified"] and packed["batchable"], "inspect reads both kinds")
    timed = harness.run_json("terse", "run", digits, "--random", "--batch", "4", "--repeat", "20", "--json")
    story.check({"median_us", "p90_us", "p99_us", "batch", "arena_bytes", "isa"} <= set(timed) and timed["batch"] == 4,
                f"run --json tells times: {timed}")

harness.finish()
