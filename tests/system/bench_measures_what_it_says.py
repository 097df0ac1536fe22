#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse bench: arrivals, rounds, two sides in turn, several connections, what the daemon spent, the page, bad input."""
import os
import signal
import threading
import time

import harness

KEYS = {"rate", "sent", "ok", "errors", "p50_us", "p90_us", "p99_us", "p999_us", "mean_batch"}


def bench(tersed, model, *options):
    return harness.run_json("terse", "bench", "-e", tersed.endpoint, model, "--json", *options)


with harness.story("open and closed loops, connections and shared memory send what they were asked for") as story:
    tersed = story.tersed({"digits": story.digits()})
    for options in (["--concurrency", 5], ["--concurrency", 5, "--connections", 3], ["--rate", 700], ["--rate", 700, "--traffic", "constant"],
                    ["--rate", 700, "--traffic", "burst:8", "--connections", 4], ["--rate", 700, "--shm"],
                    ["--concurrency", 6, "--connections", 2, "--shm"]):
        told = bench(tersed, "digits", "-n", 600, "--verify", *options)
        story.check(KEYS <= set(told) and told["sent"] == told["ok"] == 600 and told["errors"] == {}, f"600 answers with {options}: {told}")
        story.check(told["mismatches"] == told["duplicates"] == 0, f"equal answers with {options}")
        story.check(sum(told["batch_sizes"].values()) == 600 and told["p50_us"] <= told["p99_us"] <= told["max_us"], "figures fit")
    status = tersed.status()
    story.check(status["models"][0]["requests"] == 7 * 600 + 2, f"the daemon counted them, two answers to compare with among them: {status['models'][0]['requests']}")
    spent = bench(tersed, "digits", "-n", 20000, "-c", 64)
    story.check(0 < spent.get("cpu_seconds_per_1000", -1) < 60, f"processor time of the daemon is told: {spent}")

with harness.story("a trace is played, by its own rate or by another") as story:
    tersed = story.tersed({"digits": story.digits()})
    trace = os.path.join(story.folder, "a trace.txt")
    with open(trace, "w") as file:
        file.write("# 40 moments in pairs\n" + "".join(f"{100 + i * 0.01:.3f}\n" * 2 for i in range(20)))
    told = bench(tersed, "digits", "-n", 80, "--traffic", "trace", trace)
    story.check(told["sent"] == told["ok"] == 80 and 180 < told["offered_rate"] < 220, f"its own rate is about 205: {told}")
    faster = bench(tersed, "digits", "-n", 80, "--rate", 2000, "--traffic", "trace", trace)
    story.check(faster["ok"] == 80 and faster["offered_rate"] == 2000, "another rate")
    story.check(faster["seconds"] < told["seconds"], "played faster")

with harness.story("latencies count from when a request was due, also of those that could not be sent") as story:
    tersed = story.tersed({"digits": story.digits()})
    stopped = threading.Event()

    def stall():
        before = tersed.status()["models"][0]["requests"]
        harness.wait_until(lambda: tersed.status()["models"][0]["requests"] > before + 100, "the load runs")
        pids = [pid for pid, _ in harness.children(tersed.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.6)  # nobody answers for so long: 300 requests fall due
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        stopped.set()

    thread = threading.Thread(target=stall)
    thread.start()
    told = bench(tersed, "digits", "--rate", 500, "--traffic", "constant", "-n", 1500)
    thread.join()
    story.check(stopped.is_set() and told["ok"] > 1000 and told["ok"] + sum(told["errors"].values()) == 1500, f"all end: {told}")
    # 300 of 1500 are late by 0.3 s on average; who waits for answers before sending the next would see one.
    story.check(told["p90_us"] > 150000 and told["max_us"] > 550000, f"the stall is charged to all that it delayed: {told}")

with harness.story("rounds end when the intervals are narrow, or at the limit, and it is told which") as story:
    tersed = story.tersed({"digits": story.digits()})
    wide = bench(tersed, "digits", "-n", 200, "--repeat", 7, "--within", 100, "-c", 4)
    story.check(3 <= wide["rounds"] <= 7 and wide["ended_by"] in ("precision", "limit") and wide["sent"] == 200 * wide["rounds"], f"rounds: {wide}")
    narrow = bench(tersed, "digits", "-n", 200, "--repeat", 4, "--within", 0.01, "-c", 4)
    story.check(narrow["rounds"] == 4 and narrow["ended_by"] == "limit", f"the limit: {narrow}")
    over = narrow["rate_over_rounds"]
    story.check(over["low"] <= over["mean"] <= over["high"], f"an interval: {over}")
    told = harness.run("terse", "bench", "-e", tersed.endpoint, "digits", "-n", 50, "--repeat", 2).stdout
    story.check("ended by the limit of 2 rounds" in told, f"for people too: {told}")

with harness.story("two models, and two daemons, are measured in turn") as story:
    digits = story.digits()
    one = story.tersed({"digits": digits, "again": digits})
    odd = os.path.join(story.folder, "it's <b>&\"x\" ]]> é.sock")
    two = story.tersed({"digits": digits}, endpoint=f"ipc://{odd}")
    page = os.path.join(story.folder, "page.html")
    models = bench(one, "digits", "--vs", "again", "-n", 100, "--repeat", 4, "--within", 0.01)
    story.check(models["vs"]["model"] == "again" and models["sent"] == models["vs"]["sent"] == 400, f"two models: {models}")
    for key in ("rate", "p50_us", "p99_us"):
        ratio = models["ratio"][key]
        story.check(0 < ratio["low"] <= ratio["mean"] <= ratio["high"], f"ratio of {key}: {ratio}")
    counts = {m["name"]: m["requests"] for m in one.status()["models"]}
    story.check(counts == {"digits": 400, "again": 400}, f"each got its own: {counts}")
    daemons = bench(one, "digits", "--vs", two.endpoint, "-n", 100, "--repeat", 3, "--report", page)
    story.check(daemons["vs"]["endpoint"] == two.endpoint and two.status()["models"][0]["requests"] == 100 * daemons["rounds"], "two daemons")
    wrong, text = harness.page_problems(page)
    story.check(not wrong, f"the page: {wrong}")
    story.check("it&#39;s &lt;b&gt;&amp;&quot;x&quot; ]]&gt; é.sock" in text and "<b>" not in text, "text that is not ours stays text")
    for part in ("percentiles", "batches", "rounds", "costs", "numbers", "ratio"):
        story.check(f'id="{part}"' in text, f"the page has {part}")

with harness.story("what cannot be is told in one line") as story:
    tersed = story.tersed({"digits": story.digits()})
    bad = os.path.join(story.folder, "bad.txt")
    with open(bad, "w") as file:
        file.write("1\n2\nthree\n")
    for code, says, options in ((2, "--rate", ["digits", "--traffic", "burst"]), (1, "sometimes", ["digits", "--rate", 5, "--traffic", "sometimes"]),
                                (1, "three", ["digits", "--traffic", "trace", bad]), (1, "/nonexistent", ["digits", "--traffic", "trace:/nonexistent"]),
                                (1, "absent", ["absent"]), (1, "other", ["digits", "--vs", "other"]), (2, "--connections", ["digits", "--connections", 2]),
                                (2, "--connections", ["digits", "-c", 99, "--connections", 65]), (2, "--repeat", ["digits", "--repeat", 0]),
                                (1, "/nonexistent", ["digits", "-n", 5, "--report", "/nonexistent/x.html"]),
                                (1, "nobody.sock", ["digits", "--vs", f"ipc://{story.folder}/nobody.sock", "--connect-ms", 300])):
        done = harness.run("terse", "bench", "-e", tersed.endpoint, *options, code=code)
        story.check(says in done.stderr and len(done.stderr.strip().splitlines()) == 1, f"{options}: {done.stderr}")

harness.finish()
