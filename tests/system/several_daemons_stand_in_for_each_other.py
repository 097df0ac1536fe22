#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client with several endpoints: requests are shared out, and a daemon that is stopped, killed, cut off or shut down costs
none of them an answer, and gives none of them two."""
import json
import os
import signal
import subprocess

import harness


def processes(tersed):
    """The supervisor, which must be stopped first, and its children."""
    return [tersed.pid] + [pid for pid, _ in harness.children(tersed.pid)]


def send_all(tersed, number):
    for pid in processes(tersed):
        os.kill(pid, number)


def requests(tersed):
    return tersed.status()["models"][0]["requests"]


def listed(*daemons):
    return ",".join(d.endpoint for d in daemons)


class Bench:
    """terse bench over a list of endpoints, in the background; it compares every answer and counts those that come twice."""

    def __init__(self, endpoints, *options, **environment):
        # What a busy machine refuses for want of time comes again: only what is lost is to count.
        self.process = subprocess.Popen([harness.program("terse"), "bench", "-e", endpoints, "digits", "--verify", "--json",
                                         "--retries", "1000000", *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=dict(os.environ, **environment))

    def end(self):
        out, err = self.process.communicate(timeout=3 * harness.PATIENCE)
        if not out.strip():
            raise AssertionError(f"bench ended with {self.process.returncode}: {err}")
        return json.loads(out.strip().splitlines()[-1])


def all_answered(story, told, sent, what):
    story.check(told["sent"] == told["ok"] == sent and not told["errors"] and not told["mismatches"] and not told["duplicates"],
                f"{what}: every request is answered once: {told}")


LOAD = ("--rate", 1000, "--requests", 4000)

with harness.story("two daemons share requests; one is stopped under load, goes on, and is used again") as story:
    model = story.digits()
    a, b = (story.tersed({"digits": model}, "--workers", 1) for _ in range(2))
    all_answered(story, Bench(listed(a, b), "--concurrency", 8, "--requests", 4000).end(), 4000, "both there")
    shares = requests(a), requests(b)
    story.check(sum(shares) >= 4000 and min(shares) > 200, f"each has its share: {shares}")
    bench = Bench(listed(a, b), *LOAD)
    harness.wait_until(lambda: requests(a) > shares[0] + 200, "the first has some of them")
    send_all(a, signal.SIGSTOP)
    all_answered(story, bench.end(), 4000, "one is stopped")
    story.check(requests(b) - shares[1] > 2000, f"the other has most of them: {requests(b) - shares[1]}")
    bench = Bench(listed(a, b), *LOAD)  # the stopped one takes connections and says nothing
    before = requests(b)
    harness.wait_until(lambda: requests(b) > before + 300, "the other has all there is")
    for pid in reversed(processes(a)):
        os.kill(pid, signal.SIGCONT)
    harness.wait_until(lambda: subprocess.run([harness.program("terse"), "status", "-e", a.endpoint, "--connect-ms", "500"],
                                              capture_output=True).returncode == 0, "the first answers again")
    all_answered(story, bench.end(), 4000, "one goes on")
    before = requests(a)
    all_answered(story, Bench(listed(a, b), "--concurrency", 8, "--requests", 4000).end(), 4000, "both there again")
    story.check(requests(a) - before > 200, f"the first has its share again: {requests(a) - before}")

with harness.story("a daemon is killed under load, one is shut down under load, one was never there") as story:
    model = story.digits()
    a, b = (story.tersed({"digits": model}, "--workers", 1) for _ in range(2))
    bench = Bench(listed(a, b), *LOAD)
    harness.wait_until(lambda: requests(a) > 300, "the first has some of them")
    send_all(a, signal.SIGKILL)
    all_answered(story, bench.end(), 4000, "one is killed")
    a.process.wait()
    again = harness.Tersed(a.folder, {"digits": model}, "--workers", 1, endpoint=a.endpoint)
    story.daemons.append(again)
    bench = Bench(listed(again, b), *LOAD)
    harness.wait_until(lambda: requests(again) > 300, "one that came again has some of them")
    b.process.send_signal(signal.SIGTERM)
    all_answered(story, bench.end(), 4000, "one is shut down")
    story.check(b.process.wait(timeout=harness.PATIENCE) == 0, "it ends in peace")
    all_answered(story, Bench(f"ipc://{story.folder}/nobody.sock,{again.endpoint}", "--requests", 500).end(), 500, "one is there")

with harness.story("who computes for long is not taken for silent: nothing runs twice") as story:
    model = story.digits()
    a, b = (story.tersed({"digits": model}, "--workers", 1, "--hang-timeout-ms", 60000) for _ in range(2))
    for pid in a.workers():
        os.kill(pid, signal.SIGSTOP)
    bench = Bench(listed(a, b), "--concurrency", 2, "--requests", 2000)
    harness.wait_until(lambda: requests(a) >= 1 and b.status()["queued"] == 0 and requests(a) + requests(b) == 2000,
                       "all is answered but what the first one's worker has")
    stays = requests(a)
    try:  # longer than the time after which a silent one is given up
        bench.process.wait(timeout=2.5)
        story.check(False, "the last answers wait for that worker")
    except subprocess.TimeoutExpired:
        pass
    for pid in a.workers():
        os.kill(pid, signal.SIGCONT)
    all_answered(story, bench.end(), 2000, "the worker goes on")
    story.check(requests(a) == stays and requests(a) + requests(b) == 2000,
                f"each request went to one daemon: {requests(a)} + {requests(b)}")

with harness.story("over encrypted tcp each of several daemons may have a key of its own") as story:
    model = story.digits()
    folder = story.folder
    os.mkdir(f"{folder}/clients")
    for name in ("a", "b", "clients/friend"):
        harness.run("terse", "keygen", f"{folder}/{name}")
    daemons = []
    for name in ("a", "b"):
        for _ in range(20):  # a port that is free now may be taken a moment later
            port = 20000 + int.from_bytes(os.urandom(2), "little") % 12000
            d = story.tersed({"digits": model}, "--workers", 1, "--curve-server-key", f"{folder}/{name}.key_secret",
                             "--curve-clients", f"{folder}/clients", "--listen", f"tcp://127.0.0.1:{port}", wait=False)
            if d.serves():
                break
        daemons.append((d, f"tcp://127.0.0.1:{port}"))
    keys = dict(TERSE_CURVE_SERVER=f"{folder}/a.key,{folder}/b.key", TERSE_CURVE_KEY=f"{folder}/clients/friend.key_secret")
    # More than one of them answers before the other has shaken hands, which takes a while on a busy machine.
    told = Bench(",".join(endpoint for _, endpoint in daemons), "--concurrency", 4, "--requests", 20000, **keys).end()
    all_answered(story, told, 20000, "two keys")
    story.check(min(requests(d) for d, _ in daemons) > 50, f"both serve: {[requests(d) for d, _ in daemons]}")

with harness.story("what several daemons cannot be asked together is refused by name") as story:
    tersed = story.tersed({"digits": story.digits()})
    pair = f"{tersed.endpoint},{tersed.endpoint}"
    for words, command in (("shared memory is asked of one daemon", ["bench", "-e", pair, "digits", "--shm", "--requests", "1"]),
                           ("names 17 daemons, at most 16", ["status", "-e", ",".join([tersed.endpoint] * 17)]),
                           ("endpoint '' cannot be used", ["status", "-e", tersed.endpoint + ","])):
        done = harness.run("terse", *command, code=1)
        story.check(words in done.stderr, f"{command[0]}: {done.stderr.strip()}")

with harness.story("what is told to each of several daemons is told to each, whatever another one says") as story:
    model = story.digits()
    a, b = (story.tersed({"digits": model}, "--workers", 1) for _ in range(2))
    gone = f"ipc://{story.folder}/nobody.sock"
    done = harness.run("terse", "load", "-e", listed(a, b), "more", model)
    story.check(done.stdout.splitlines() == [f"{d.endpoint}: model 'more' is served from the new file" for d in (a, b)], done.stdout)
    done = harness.run("terse", "unload", "-e", listed(a), "more")
    story.check(done.stdout == "model 'more' is not served any more\n", f"one alone is not named: {done.stdout}")
    done = harness.run("terse", "unload", "-e", f"{gone},{listed(a, b)}", "more", "--connect-ms", "300", code=1)
    story.check(done.stdout == f"{b.endpoint}: model 'more' is not served any more\n", f"the last is done: {done.stdout}")
    told = done.stderr.splitlines()
    story.check(len(told) == 2 and told[0].startswith(f"terse unload: {gone}: ") and told[1].startswith(f"terse unload: {a.endpoint}: ")
                and "more" in told[1], f"what fails is named: {told}")
    settings = [json.loads(line) for line in
                harness.run("terse", "configure", "-e", listed(a, b), "--max-batch", "5", "--json").stdout.splitlines()]
    story.check([(s["endpoint"], s["max_batch"]) for s in settings] == [(a.endpoint, 5), (b.endpoint, 5)], f"{settings}")
    told = [json.loads(line) for line in harness.run("terse", "status", "-e", listed(a, b), "--json").stdout.splitlines()]
    story.check([(t["endpoint"], [m["name"] for m in t["models"]]) for t in told] == [(d.endpoint, ["digits"]) for d in (a, b)],
                f"{told}")
    text = harness.run("terse", "status", env=dict(os.environ, TERSE_ENDPOINT=listed(a, b))).stdout
    story.check(text.startswith(f"{a.endpoint}\nMODEL") and f"\n\n{b.endpoint}\nMODEL" in text, f"each with its name: {text}")
    text = harness.run("terse", "status", "-e", f"{listed(a)},{gone}", "--connect-ms", "300", code=1).stdout
    story.check(text.startswith(f"{a.endpoint}\nMODEL"), "one that is there is shown beside one that is not")

harness.finish()
