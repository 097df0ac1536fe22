#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gate's system calls fail one by one, it is killed and stopped: clients over tcp connect again and ask again, those over
ipc do not notice."""
import errno
import os
import random
import signal
import socket
import subprocess
import time

import harness

SEED = int(os.environ.get("TERSE_SEED", time.time()))
OCCURRENCES = 16 if harness.LONG else 3
ERRORS = {"mmap": errno.ENOMEM, "socket": errno.EMFILE, "bind": errno.EADDRINUSE, "write": errno.EIO, "read": errno.EIO,
          "sendmsg": errno.ENOBUFS, "recvmsg": errno.ENOMEM, "epoll_create1": errno.EMFILE, "epoll_ctl": errno.ENOMEM,
          "eventfd": errno.EMFILE, "fcntl": errno.EMFILE, "sendto": errno.ENOBUFS,
          "connect": errno.ECONNREFUSED, "setsockopt": errno.ENOMEM, "pthread_create": errno.EAGAIN}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(story, model, *options, **more):
    tcp = f"tcp://127.0.0.1:{free_port()}"
    return story.tersed({"digits": model}, "--workers", 1, "--listen", tcp, *options, **more), tcp


def child(tersed, name):
    found = [pid for pid, is_called in harness.children(tersed.pid) if is_called.startswith(name)]
    return found[0] if found else None


def bench(endpoint, n, *options):
    """A client of libterse in the background: it connects and asks again."""
    return subprocess.Popen([harness.program("terse"), "bench", "-e", endpoint, "digits", "-n", str(n), "--verify", "--json",
                             "--connect-ms", "60000", *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(client):
    out, err = client.communicate(timeout=2 * harness.PATIENCE)
    return harness.json.loads(out.strip().splitlines()[-1]) if out else {"ok": 0, "sent": 0, "mismatches": 0, "duplicates": 0, "error": err}


def all_right(result, n):
    return result["ok"] == result["sent"] == n and not result["mismatches"] and not result["duplicates"]


def play(story, model, call, nth, times=1):
    """A start, the deaths of gate and front end with requests from both sides after each, and an end, with that failure in it.
    Whether the call was made as often as that."""
    fault = harness.Fault(story.folder, "terse-gate", call, nth, times, ERRORS[call])
    what = f"{call} number {nth} fails {times} times"
    tersed, tcp = start(story, model, environment=fault.environment)
    for victim in None, "terse-gate", "terse-frontend":
        pid = victim and child(tersed, victim)
        if pid:
            os.kill(pid, signal.SIGKILL)
        ipc, remote = bench(tersed.endpoint, 20), bench(tcp, 20)
        for result, where in ((told(ipc), "ipc"), (told(remote), "tcp")):
            story.check(all_right(result, 20), f"{what}: over {where} all is answered after {victim}: {result}")
    ended = tersed.stop()
    story.check(ended == 0, f"{what}: it ends with 0: {ended}")
    story.check(not harness.reported(tersed.log()), f"{what}: no sanitizer reports anything")
    if story.failures:
        print("".join(f"# {line}\n" for line in tersed.log().splitlines()[-30:]), end="")
    story.daemons.remove(tersed)
    return fault.counts()[1] > 0


with harness.story(f"any call of the gate fails once, at any of its first {OCCURRENCES} times: it costs nobody an answer") as story:
    model, played = story.digits(), []
    for call in ERRORS:
        for nth in range(1, OCCURRENCES + 1):
            if not play(story, model, call, nth):
                break
            played.append(call)
    print(f"# {len(played)} failures: " + ", ".join(f"{call} {played.count(call)}" for call in dict.fromkeys(played)))
    story.check(len(set(played)) >= 8, f"calls really failed: {played}")

with harness.story("without a gate that starts, clients of this host are served") as story:
    fault = harness.Fault(story.folder, "terse-gate", "epoll_create1", 1, 1 << 30, errno.EMFILE)
    tersed, tcp = start(story, story.digits(), environment=fault.environment)
    harness.wait_until(lambda: "gate: failed to start" in tersed.log(), "it is told that the gate fails again and again")
    story.check(all_right(told(bench(tersed.endpoint, 100)), 100), "all is answered over ipc")
    story.check(tersed.stop() == 0, "and it ends with 0")

with harness.story(f"a call of the gate that fails under load costs no answer and no bit (seed {SEED})") as story:
    rng, model = random.Random(SEED), story.digits()
    for call in "sendto", "sendmsg", "recvmsg", "epoll_ctl", "write", "read":
        nth = rng.randrange(20, 300) if call in ("sendto", "write", "read") else rng.randrange(3, 12)
        fault = harness.Fault(story.folder, "terse-gate", call, nth, 1, ERRORS[call])
        tersed, tcp = start(story, model, environment=fault.environment)
        clients = [bench(endpoint, 1500, "-c", 4) for endpoint in (tcp, tcp, tersed.endpoint)]
        results = [told(client) for client in clients]
        what = f"{call} number {nth}"
        story.check(all(all_right(r, 1500) for r in results), f"{what}: every request is answered once and rightly: {results}")
        story.check(len({r["outputs_hash"] for r in results}) == 1, f"{what}: the same bits for all")
        print(f"# {what}: {'failed' if fault.counts()[1] else 'was not made so often'}")
        tersed.stop()

with harness.story("a gate that is killed again and again: clients over tcp ask again, those over ipc do not notice") as story:
    tersed, tcp = start(story, story.digits())
    front, killed = tersed.frontend(), 0
    watch = harness.Client(tersed.endpoint)
    remotes = [bench(tcp, 6000, "-c", 4, "--seed", seed) for seed in (1, 2)]
    local = bench(tersed.endpoint, 6000, "-c", 4)
    while any(client.poll() is None for client in remotes) and killed < 20:
        gate = child(tersed, "terse-gate")
        before = watch.call("stats")["models"]["digits"]["ok"]
        if gate:
            os.kill(gate, signal.SIGKILL)
            killed += 1
        harness.wait_until(lambda: child(tersed, "terse-gate") not in (None, gate), "another gate comes")
        harness.wait_until(lambda: watch.call("stats")["models"]["digits"]["ok"] > before or all(c.poll() is not None for c in remotes),
                           "requests are served meanwhile")
    results = [told(client) for client in remotes]
    story.check(killed >= 5, f"gates were really killed under load: {killed}")
    story.check(all(all_right(r, 6000) for r in results), f"all is answered once and rightly over tcp: {results}")
    story.check(all_right(told(local), 6000), "and over ipc")
    story.check(tersed.frontend() == front, "the front end is the same")
    stats = watch.call("stats")
    story.check(stats["gate"]["restarts"] == killed, f"the deaths are counted: {stats['gate']}")
    watch.close()

with harness.story("a gate that stops is waited for; one that stops for good is replaced") as story:
    config = os.path.join(story.folder, "t.conf")
    with open(config, "w") as file:
        file.write("[server]\nfrontend_timeout_ms = 3000\n")
    tersed, tcp = start(story, story.digits(), "--config", config)
    for comes_back in True, False:
        harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
        remote, gate = bench(tcp, 2000, "-c", 4), child(tersed, "terse-gate")
        os.kill(gate, signal.SIGSTOP)
        story.check(all_right(told(bench(tersed.endpoint, 500, "-c", 4)), 500), "clients over ipc are served meanwhile")
        if comes_back:
            os.kill(gate, signal.SIGCONT)
        else:
            harness.wait_until(lambda: child(tersed, "terse-gate") not in (None, gate), "another gate comes")
        result = told(remote)
        story.check(all_right(result, 2000), f"and those over tcp afterwards (it goes on: {comes_back}): {result}")
        story.check((child(tersed, "terse-gate") == gate) == comes_back, "by the same gate if that went on")

harness.finish()
