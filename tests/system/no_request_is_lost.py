#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Open loop at 70 % load while a random process of {worker, worker, front end} is killed every 200 ms: every request of
four clients is answered once, and rightly."""
import os
import random
import re
import subprocess
import time

import harness

harness.look_into_children()

SECONDS = 60 if harness.LONG else 10
SEED = int(os.environ.get("TERSE_SEED", time.time()))
CLIENTS = 4


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def network(story):
    """SqueezeNet where it is at hand, else the sample."""
    path = os.path.join(harness.SHARED, "models", "squeezenet1_0", "model.onnx")
    if os.path.exists(path):
        return story.compress(path)
    print(f"# {path} is not there: the sample network instead")
    return story.digits()


def bench(tersed, *options):
    return [harness.program("terse"), "bench", "-e", tersed.endpoint, "m", "--verify", "--json", *map(str, options)]


def bits(tersed, seed):
    """What a client with this seed is answered when nothing dies."""
    return harness.run_json(*["terse", *bench(tersed, "-n", 1, "--seed", seed)[1:]])["outputs_hash"]


def capacity(tersed):
    return harness.run_json(*["terse", *bench(tersed, "-c", 8, "-d", 2)[1:]])["rate"]


def victim(rng, tersed):
    """One of {worker, worker, front end}; None while there is none."""
    kind = rng.choice(("terse-worker", "terse-worker", "terse-frontend"))
    found = [pid for pid, name in harness.children(tersed.pid) if name.startswith(kind[:15])]
    return (kind, rng.choice(found)) if found else None


with harness.story(f"workers and front ends killed every 200 ms for {SECONDS} s lose nothing (seed {SEED})") as story:
    rng = random.Random(SEED)
    before = set(os.listdir("/dev/shm"))
    tersed = story.tersed({"m": network(story)})
    full = capacity(tersed)
    if full < 30:  # under a sanitizer one batch lasts from kill to kill, which makes a request look like a poisoned one
        print(f"# {full:.0f} requests/s are too few: the sample network instead")
        tersed.stop()
        tersed = story.tersed({"m": story.digits()})
        full = capacity(tersed)
    rate = max(20, int(full * 0.7))
    want = [bits(tersed, seed) for seed in range(1, CLIENTS + 1)]
    held = descriptors(tersed.pid), descriptors(tersed.frontend())
    clients = [subprocess.Popen(bench(tersed, "--rate", rate / CLIENTS, "-d", SECONDS, "--warmup", 0, "--seed", seed,
                                      "--retries", 1000),
                                stdout=subprocess.PIPE, text=True) for seed in range(1, CLIENTS + 1)]
    killed = {"terse-worker": 0, "terse-frontend": 0}
    while any(client.poll() is None for client in clients):
        chosen = victim(rng, tersed)
        if chosen:
            os.kill(chosen[1], 9)
            killed[chosen[0]] += 1
        time.sleep(0.2)  # the load's own rhythm, not a wait for anything
    results = [harness.json.loads(client.stdout.read().strip().splitlines()[-1]) for client in clients]
    print(f"# {sum(r['sent'] for r in results)} sent at {rate}/s of {full:.0f}/s, killed: {killed}, p99 of each client: "
          + ", ".join(f"{r['p99_us'] / 1000:.0f} ms" for r in results))
    story.check(sum(r["sent"] for r in results) > rate * SECONDS * 0.9, f"the load was really offered: {results}")
    story.check(sum(killed.values()) >= SECONDS * 3 and all(killed.values()), f"processes were really killed: {killed}")
    for result, bits_wanted in zip(results, want):
        story.check(result["ok"] == result["sent"] and not result["errors"], f"every request is answered OK: {result}")
        story.check(result["mismatches"] == 0 and result["duplicates"] == 0, f"once, always with the same bits: {result}")
        story.check(result["outputs_hash"] == bits_wanted, f"the bits are those of a run without kills: {result}")
    tersed.wait_ready()
    status = tersed.status()
    story.check(sum(w["restarts"] for w in status["workers"]) >= killed["terse-worker"] * 0.9, "the restarts are counted")
    harness.wait_until(lambda: (descriptors(tersed.pid), descriptors(tersed.frontend())) == held,
                       "no descriptor is left over")
    pids = [tersed.pid, *(pid for pid, _ in harness.children(tersed.pid))]
    story.check(tersed.stop() == 0, "SIGTERM ends it with 0")
    harness.wait_until(lambda: not any(map(harness.alive, pids)), "no process is left over")
    story.check(set(os.listdir("/dev/shm")) <= before, "nothing is left in /dev/shm")
    story.check(not re.search(r"assert|abort|SIGSEGV", tersed.log()), "no process of ours crashed")

harness.finish()
