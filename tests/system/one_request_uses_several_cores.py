#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""threads_per_worker: a worker has as many threads, all behind the filter, and the bits are those of one thread."""
import os
import signal

import numpy

import harness
import onnx_writer

RUNS = 14  # more than those in which a plan measures


def network(path):
    """Two convolutions and two products, each large enough to be shared out."""
    rng = numpy.random.default_rng(3)
    some = lambda *shape: (rng.standard_normal(shape) * 0.1).astype("f4")
    return onnx_writer.write(
        path, [("x", "f4", ["N", 16, 32, 32])], [("y", "f4", ["N", 600])],
        [("Conv", ["x", "w0", "b0"], ["a"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}), ("Relu", ["a"], ["b"]),
         ("Conv", ["b", "w1"], ["c"], {"kernel_shape": [1, 1], "strides": [2, 2]}), ("Flatten", ["c"], ["d"], {"axis": 1}),
         ("Gemm", ["d", "w2"], ["e"]), ("Relu", ["e"], ["f"]), ("Gemm", ["f", "w3"], ["y"])],
        {"w0": some(48, 16, 3, 3), "b0": some(48), "w1": some(24, 48, 1, 1), "w2": some(24 * 256, 256), "w3": some(256, 600)})


def threads_of(pid):
    """The mode of the filter of system calls of each thread; 0 is none."""
    modes = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            modes += [int(line.split()[1]) for line in file if line.startswith("Seccomp:")]
    return modes


def run_bits(story, packed, x, threads):
    numpy.savez(f"{story.folder}/x.npz", x=x)
    harness.run("terse", "run", packed, f"{story.folder}/x.npz", "-o", f"{story.folder}/y.npz", "--threads", threads,
                "--repeat", RUNS)
    with numpy.load(f"{story.folder}/y.npz") as out:
        return out["y"].tobytes()


CORES = len(os.sched_getaffinity(0))
FILTERED = not os.environ.get("TERSE_NO_SECCOMP") and "asan" not in harness.BUILD and "tsan" not in harness.BUILD

with harness.story("terse run --threads has the bits of one thread") as story:
    packed = story.compress(network(f"{story.folder}/net.onnx"))
    x = numpy.random.default_rng(1).uniform(-1, 1, (3, 16, 32, 32)).astype("f4")
    want = run_bits(story, packed, x, 1)
    for threads in (2, 3, 8):
        story.check(run_bits(story, packed, x, threads) == want, f"{threads} threads: the same bits")
    for wrong in (0, 65):
        done = harness.run("terse", "run", packed, "--random", "--threads", wrong, code=2)
        story.check("whole numbers from 1 to 64" in done.stderr, f"{wrong} threads are refused: {done.stderr.strip()}")

with harness.story("a worker's threads share a batch, sleep between batches, and die with it") as story:
    packed = story.compress(network(f"{story.folder}/net.onnx"))
    wanted = min(3, CORES)
    tersed = story.tersed({"net": packed}, "--workers", "1", "--threads-per-worker", "3")
    pid = tersed.workers()[0]
    modes = threads_of(pid)
    story.check(len(modes) == wanted, f"{wanted} threads (of 3 wanted, {CORES} CPUs), found {len(modes)}")
    if FILTERED:
        story.check(all(mode == 2 for mode in modes), f"all threads behind the filter: {modes}")
    x = numpy.random.default_rng(2).uniform(-1, 1, (2, 16, 32, 32)).astype("f4")
    want = run_bits(story, packed, x, 1)
    for _ in range(RUNS):
        story.check(tersed.infer("net", {"x": x})["y"].tobytes() == want, "served with the bits of one thread")
    story.check(tersed.workers() == [pid], "by the worker that was there")

    def asleep():
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(")")[1].split()[0] == "S"

    harness.wait_until(asleep, "an idle worker sleeps")
    os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: not harness.alive(pid), "the worker is gone with its threads")
    harness.wait_until(lambda: tersed.workers() != [pid] and tersed.status()["workers"][0]["state"] != "dead",
                       "another takes its place")
    story.check(tersed.infer("net", {"x": x})["y"].tobytes() == want, "and answers with the same bits")

with harness.story("as many workers as CPUs for their threads; a model may have other threads") as story:
    packed = story.compress(network(f"{story.folder}/net.onnx"))
    with open(f"{story.folder}/t.conf", "w") as file:
        file.write(f"[server]\nthreads_per_worker = 2\n[model net]\nfile = {packed}\nthreads_per_worker = 1\n")
    tersed = story.tersed(None, "--config", f"{story.folder}/t.conf")
    pids = tersed.workers()
    story.check(len(pids) == max(1, CORES // 2), f"{CORES} CPUs by 2 threads: {len(pids)} workers")
    story.check(all(len(threads_of(pid)) == 1 for pid in pids), "one thread where all models want one")
    done = harness.run("tersed", "--check", "--threads-per-worker", "65", code=2)
    story.check("1..64" in done.stderr, f"65 threads are refused by name: {done.stderr.strip()}")

harness.finish()
