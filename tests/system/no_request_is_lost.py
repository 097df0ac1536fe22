#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Open loop at 70 % load while a random worker is killed every 200 ms: every request is answered once, and rightly."""
import os
import random
import re
import subprocess
import time

import harness

SECONDS = 60 if harness.LONG else 20
SEED = int(os.environ.get("TERSE_SEED", time.time()))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


with harness.story(f"workers killed every 200 ms for {SECONDS} s lose nothing (seed {SEED})") as story:
    rng = random.Random(SEED)
    before = set(os.listdir("/dev/shm"))
    tersed = story.tersed({"digits": story.digits()})
    full = harness.run_json("terse", "bench", "-e", tersed.endpoint, "digits", "-c", "8", "-d", "2", "--json")["rate"]
    rate = max(20, int(full * 0.7))
    held = descriptors(tersed.pid), descriptors(tersed.frontend())
    bench = subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "digits", "--rate", str(rate), "-d",
                              str(SECONDS), "--warmup", "0", "--verify", "--json"], stdout=subprocess.PIPE, text=True)
    killed = 0
    while bench.poll() is None:
        workers = [pid for pid, name in harness.children(tersed.pid) if name.startswith("terse-worker")]
        if workers:
            os.kill(rng.choice(workers), 9)
            killed += 1
        time.sleep(0.2)  # the load's own rhythm, not a wait for anything
    result = harness.json.loads(bench.stdout.read().strip().splitlines()[-1])
    print(f"# {result['sent']} sent at {rate}/s of {full:.0f}/s, {killed} workers killed, p99 {result['p99_us']:.0f} us")
    story.check(result["sent"] > rate * SECONDS * 0.9, f"the load was really offered: {result['sent']} sent")
    story.check(killed >= SECONDS * 3, f"workers were really killed: {killed}")
    story.check(result["ok"] == result["sent"] and not result["errors"], f"every request is answered OK: {result}")
    story.check(result["mismatches"] == 0, f"every answer has the same bits: {result}")
    status = tersed.status()
    story.check(sum(w["restarts"] for w in status["workers"]) >= killed * 0.9, "the daemon counted the restarts")
    harness.wait_until(lambda: (descriptors(tersed.pid), descriptors(tersed.frontend())) == held,
                       "no descriptor is left over")
    pids = [tersed.pid, *(pid for pid, _ in harness.children(tersed.pid))]
    story.check(tersed.stop() == 0, "SIGTERM ends it with 0")
    harness.wait_until(lambda: not any(map(harness.alive, pids)), "no process is left over")
    story.check(set(os.listdir("/dev/shm")) <= before, "nothing is left in /dev/shm")
    story.check(not re.search(r"assert|abort|SIGSEGV", tersed.log()), "no process of ours crashed")

harness.finish()
