#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse tune: what it finds and tells, and that the daemon's settings are again what they were, however it ends."""
import os
import shutil
import signal
import subprocess

import harness

# None of these is what a daemon has by itself.
BEFORE = {"workers": 2, "max_batch": 5, "batch_timeout_us": 77}


def settings(tersed, model="digits"):
    found = harness.run_json("terse", "configure", "-e", tersed.endpoint, model, "--json")
    return {key: found[key] for key in BEFORE}


def serve(story, *options):
    return story.tersed({"digits": story.digits()}, "--workers", 2, "--max-batch", 5, "--batch-timeout-us", 77, *options)


def begin(tersed, *options):
    """A tune that has changed something."""
    process = subprocess.Popen([harness.program("terse"), "tune", "-e", tersed.endpoint, "digits", "--time", "60", *options],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    harness.wait_until(lambda: settings(tersed) != BEFORE or process.poll() is not None, "it tries other settings")
    return process


with harness.story("it finds a setting, tells why, draws it, and puts back what was") as story:
    tersed = serve(story)
    page = os.path.join(story.folder, "page.html")
    told = harness.run_json("terse", "tune", "-e", tersed.endpoint, "digits", "--deadline-ms", 100, "--time", 6, "--json", "-o", page)
    story.check(told["before"] == BEFORE and settings(tersed) == BEFORE and not told["applied"], f"what was is there again: {told['before']}")
    chosen = told["recommended"]
    keys = ("workers", "max_batch", "batch_timeout_us")
    tried = {tuple(s[k] for k in keys): s for s in told["settings"]}
    story.check(tuple(chosen[k] for k in keys) in tried and chosen["rate_at_deadline"] > 0, f"it recommends what it tried: {chosen}")
    best = max(s["rate_at_deadline"] for s in told["settings"] if s["finalist"])
    story.check(chosen["rate_at_deadline"] >= 0.97 * best, f"nothing that was tried is better: {chosen} {best}")
    story.check(told["trials"] >= len(told["settings"]) + 2 and all(s["trials"] > 0 for s in told["settings"]), f"each setting was tried: {told}")
    front = sorted((p["rate"], p["p99_us"]) for p in told["front"])
    story.check(front and all(p["holds"] and p["p99_us"] <= 100000 for p in told["front"]), f"a front: {front}")
    story.check(all(a[1] < b[1] for a, b in zip(front, front[1:]) if a[0] < b[0]), f"more throughput costs latency on it: {front}")
    story.check(told["cost"]["a_us"] >= 0 and told["cost"]["b_us"] > 0 and told["cost"]["measured"], f"the cost curve: {told['cost']}")
    wrong, text = harness.page_problems(page)
    story.check(not wrong, f"the page: {wrong}")
    for part in ("balance", "percentiles", "batches", "costs", "settings", "measured"):
        story.check(f'id="{part}"' in text, f"the page has {part}")
    story.check(f"max_batch = {chosen['max_batch']}" in text, "the page has the lines of the configuration")

with harness.story("a recommendation can be applied, for people, with bursts") as story:
    tersed = serve(story)
    done = harness.run("terse", "tune", "-e", tersed.endpoint, "digits", "--deadline-ms", 100, "--time", 5, "--apply", "--traffic", "burst:4",
                       "--workers", "1,3", "--max-batch", "4,8", "--batch-timeout-us", "0")
    found = settings(tersed)
    story.check(found["workers"] in (1, 3) and found["max_batch"] in (4, 8) and found["batch_timeout_us"] == 0, f"of what was allowed: {found}")
    story.check(f"workers = {found['workers']}\n" in done.stdout and f"max_batch = {found['max_batch']}\n" in done.stdout
                and "[model digits]" in done.stdout and "in force now" in done.stdout, f"{found}: {done.stdout}")
    story.check(not done.stderr, f"no progress in a pipe: {done.stderr}")

with harness.story("a signal, a kill and the death of the front end leave the settings as they were") as story:
    tersed = serve(story)
    process = begin(tersed)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=harness.PATIENCE)
    story.check(process.returncode == 1 and "interrupted" in err and not out, f"Ctrl-C: {process.returncode} {err}")
    story.check(settings(tersed) == BEFORE, "after Ctrl-C")
    process = begin(tersed)
    process.kill()
    process.communicate(timeout=harness.PATIENCE)
    harness.wait_until(lambda: settings(tersed) == BEFORE, "after SIGKILL")
    process = begin(tersed)
    first = tersed.frontend()
    os.kill(first, signal.SIGKILL)
    harness.wait_until(lambda: tersed.frontend() not in (None, first), "another front end")
    os.kill(tersed.frontend(), signal.SIGKILL)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=harness.PATIENCE)
    story.check(process.returncode == 1 and settings(tersed) == BEFORE, "after SIGTERM while the front end was dead")

with harness.story("a front end that dies meanwhile costs a trial") as story:
    tersed = serve(story)
    process = begin(tersed, "--time", "8", "--json", "--deadline-ms", "100")
    os.kill(tersed.frontend(), signal.SIGKILL)
    out, err = process.communicate(timeout=harness.PATIENCE)
    story.check(process.returncode == 0 and '"recommended"' in out, f"it goes on: {process.returncode} {err}")
    story.check(settings(tersed) == BEFORE, "and puts back what was")

with harness.story("who may not change the daemon is told so before anything is changed") as story:
    if os.getuid() != 0 or not shutil.which("setpriv"):
        raise harness.Skip("wants root and setpriv")
    tersed = serve(story)
    for path, mode in ((story.folder, 0o755), (tersed.folder, 0o755), (tersed.endpoint[len("ipc://"):], 0o666)):
        os.chmod(path, mode)
    program = os.path.join(story.folder, "terse")
    shutil.copy(harness.program("terse"), program)
    done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program, "tune", "-e", tersed.endpoint, "digits"],
                          capture_output=True, text=True)
    story.check(done.returncode == 1 and "root and the daemon's own user" in done.stderr and len(done.stderr.splitlines()) == 1, f"{done}")
    status = tersed.status()
    story.check(settings(tersed) == BEFORE and status["models"][0]["requests"] == 0, "nothing was changed, nothing was sent")

with harness.story("what cannot be is told in one line, and nothing is changed") as story:
    tersed = serve(story)
    for code, says, options in ((1, "absent", ["absent"]), (2, "--deadline-ms", ["digits", "--deadline-ms", 0]), (2, "--time", ["digits", "--time", 1]),
                                (1, "sometimes", ["digits", "--traffic", "sometimes"]), (1, "/nonexistent", ["digits", "-o", "/nonexistent/x.html"]),
                                (1, "/nonexistent", ["digits", "--traffic", "trace", "/nonexistent"]), (2, "wants", []),
                                (1, "/nonexistent", ["digits", "--input", "/nonexistent.npz"]),
                                (1, "--workers", ["digits", "--workers", "2,1"]), (1, "--max-batch", ["digits", "--max-batch", "0"]),
                                (1, "--batch-timeout-us", ["digits", "--batch-timeout-us", "0,-5"]), (1, "6 rows", ["digits", "--rows", 6])):
        done = harness.run("terse", "tune", "-e", tersed.endpoint, *options, code=code)
        story.check(says in done.stderr and len(done.stderr.strip().splitlines()) == 1, f"{options}: {done.stderr}")
    story.check(settings(tersed) == BEFORE, "nothing was changed")
    done = harness.run("terse", "tune", "-e", f"ipc://{story.folder}/nobody", "digits", "--connect-ms", 300, code=1)
    story.check(len(done.stderr.strip().splitlines()) == 1 and "nobody" in done.stderr, f"nobody there: {done.stderr}")

harness.finish()
