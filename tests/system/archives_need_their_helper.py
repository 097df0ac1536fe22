#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`terse` alone reads and writes .npy; .npz with terse-npz.so beside it, and one error names what is missing."""
import os
import shutil

import numpy

import harness


def arrays_go_both_ways(story):
    model, lonely = story.digits(), os.path.join(story.folder, "lonely")
    os.mkdir(lonely)
    terse = os.path.join(lonely, "terse")
    shutil.copy(harness.program("terse"), terse)
    image = numpy.load(os.path.join(harness.DATA, "digits_test.npz"))["image"][:3]
    npy, npz, out = (os.path.join(story.folder, name) for name in ("x.npy", "x.npz", "y"))
    numpy.save(npy, image)
    numpy.savez(npz, image=image)
    harness.run(terse, "run", model, npy, "-o", out + ".npy")
    for what, arguments in (("reading", (npz, "-o", out + ".npy")), ("writing", (npy, "-o", out + ".npz"))):
        told = harness.run(terse, "run", model, *arguments, code=1).stderr
        story.check("terse-npz.so" in told and told.count("\n") == 1, f"{what} names the helper: {told}")
    helper = os.path.join(lonely, "terse-npz.so")
    with open(helper, "w", encoding="ascii") as file:
        file.write("no library")
    os.chmod(helper, 0o755)
    told = harness.run(terse, "run", model, npz, "-o", out + ".npy", code=1).stderr
    story.check(f"cannot load '{helper}'" in told and told.count("\n") == 1, f"a broken helper is named: {told}")
    os.unlink(helper)
    shutil.copy(harness.program("terse-npz.so"), helper)
    harness.run(terse, "run", model, npz, "-o", out + ".npz")
    made = numpy.load(out + ".npz")
    story.check(len(made.files) == 1 and numpy.array_equal(made[made.files[0]], numpy.load(out + ".npy")),
                "an archive holds the same bits as a .npy")


with harness.story("archives need their helper, and say so") as story:
    arrays_go_both_ways(story)

harness.finish()
