#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""System calls fail one by one, in every process of the daemon: it recovers, or says one clear error and ends. Nothing
hangs, no request is lost, no bit is wrong."""
import errno
import os
import random
import signal
import subprocess
import time

import numpy

import harness

SEED = int(os.environ.get("TERSE_SEED", time.time()))
OCCURRENCES = 16 if harness.LONG else 5
ERRORS = {"fork": errno.EAGAIN, "memfd_create": errno.EMFILE, "ftruncate": errno.ENOSPC, "mmap": errno.ENOMEM,
          "socket": errno.EMFILE, "socketpair": errno.EMFILE, "bind": errno.EADDRINUSE,
          "pipe2": errno.EMFILE, "write": errno.EIO, "read": errno.EIO, "sendmsg": errno.ENOBUFS, "recvmsg": errno.ENOMEM,
          "sendto": errno.ENOBUFS,
          "epoll_create1": errno.EMFILE, "epoll_ctl": errno.ENOMEM, "eventfd": errno.EMFILE, "fcntl": errno.EMFILE}
PROGRAMS = "tersed", "terse-frontend", "terse-worker", "terse-loader"


def ended_well(tersed):
    """Whether it ended by itself, with 1 and an error in its log. A log that cannot be written to is no error to tell."""
    return tersed.process.wait(harness.PATIENCE) == 1 and any(
        word in tersed.log() for word in ("cannot ", "giving up", "no memory", "not sealed", "too many", "Too many", "the event loop failed"))


def play(story, model, image, want, program, call, nth, times):
    """A start, the deaths of worker and front end with a request after each, and an end, with that failure in it. Returns
    whether the call was made as often as that."""
    fault = harness.Fault(story.folder, program, call, nth, times, ERRORS[call])
    what = f"{program}: {call} number {nth} fails {times} times"
    tersed = story.tersed({"digits": model}, "--workers", 1, environment=fault.environment, wait=False)
    served = tersed.serves()
    if served:
        for victim in None, "terse-worker", "terse-frontend":
            for pid, name in harness.children(tersed.pid):
                if victim and name.startswith(victim):
                    os.kill(pid, signal.SIGKILL)
            try:
                got = tersed.infer("digits", {"image": image})
            except AssertionError as lost:
                # It was ready for a moment between two of these processes: then it tries on, says so, and clients are told that nobody is there.
                story.check(times > 1 and "no daemon" in str(lost) and "times in a row" in tersed.log(), f"{what}: {lost}")
                break
            story.check(all((got[name] == want[name]).all() for name in want), f"{what}: the right answer after {victim}")
        ended = tersed.stop()
        story.check(ended == 0 or (program == "tersed" and ended_well(tersed)), f"{what}: it ends with 0, or says why not: {ended}")
    else:
        story.check(ended_well(tersed), f"{what}: it ends with 1 and says why: {tersed.log()}")
    _, failed = fault.counts()
    story.check(not harness.reported(tersed.log()), f"{what}: no sanitizer reports anything")
    story.daemons.remove(tersed)
    if story.failures and not story.daemons:
        story.daemons.append(tersed)  # its log is shown
    return failed > 0


def reference(story, model, image):
    numpy.save(f"{story.folder}/in.npy", image)
    harness.run("terse", "run", model, f"{story.folder}/in.npy", "-o", f"{story.folder}/want.npz")
    with numpy.load(f"{story.folder}/want.npz") as out:
        return {name: out[name] for name in out.files}


for program in PROGRAMS:
    with harness.story(f"{program}: any call fails once, at any of its first {OCCURRENCES} times") as story:
        model, image = story.digits(), harness.digits_images()[0][:1]
        want, played = reference(story, model, image), []
        for call in ERRORS:
            for nth in range(1, OCCURRENCES + 1 + 4 * (program == "tersed")):  # which makes some for each that it starts
                if not play(story, model, image, want, program, call, nth, 1):
                    break
                played.append(call)
        print(f"# {len(played)} failures: " + ", ".join(f"{call} {played.count(call)}" for call in dict.fromkeys(played)))
        story.check(len(set(played)) >= 5, f"calls really failed: {played}")

with harness.story("a call that fails in every process that is started ends the start with a clear error, or harms nobody") as story:
    model, image = story.digits(), harness.digits_images()[0][:1]
    want = reference(story, model, image)
    for program, call, nth in (("terse-frontend", "mmap", 1), ("terse-frontend", "memfd_create", 1), ("terse-frontend", "eventfd", 2),
                               ("terse-frontend", "sendmsg", 1), ("terse-frontend", "recvmsg", 2), ("terse-frontend", "epoll_ctl", 3),
                               ("terse-worker", "mmap", 1), ("terse-worker", "mmap", 2), ("terse-worker", "sendmsg", 1),
                               ("terse-worker", "recvmsg", 1), ("terse-loader", "memfd_create", 1), ("tersed", "fork", 1)):
        story.check(play(story, model, image, want, program, call, nth, 1000), f"{program}: {call} really failed")

with harness.story(f"a call that fails under load costs no request and no bit (seed {SEED})") as story:
    rng = random.Random(SEED)
    model = story.digits()
    for program, call in (("terse-frontend", "sendmsg"), ("terse-frontend", "recvmsg"), ("terse-frontend", "epoll_ctl"),
                          ("terse-frontend", "write"), ("terse-frontend", "sendto"), ("terse-worker", "sendmsg"), ("terse-worker", "recvmsg")):
        nth = rng.randrange(20, 200) if call != "epoll_ctl" else rng.randrange(8, 12)
        fault = harness.Fault(story.folder, program, call, nth, 1, ERRORS[call])
        tersed = story.tersed({"digits": model}, "--workers", 2, environment=fault.environment)
        clients = [subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "digits", "-n", "1000", "-c", "4",
                                     "--verify", "--json"], stdout=subprocess.PIPE, text=True) for _ in range(4)]
        results = [harness.json.loads(client.communicate()[0].strip().splitlines()[-1]) for client in clients]
        what = f"{program}: {call} number {nth}"
        story.check(all(r["ok"] == r["sent"] == 1000 and not r["mismatches"] and not r["duplicates"] for r in results),
                    f"{what}: every request is answered once and rightly: {results}")
        story.check(len({r["outputs_hash"] for r in results}) == 1, f"{what}: the same bits for all")
        story.check(fault.counts()[1] == 1, f"{what}: it really failed: {fault.counts()}")
        tersed.stop()

harness.finish()
