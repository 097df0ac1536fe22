#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A daemon under mixed load for some minutes: does its memory, or the number of its descriptors, grow?

usage: soak.py [--minutes M]     (make soak MINUTES=10)

Clients come and go, send well-formed and malformed requests, deadlines that cannot be kept, cancels and floods whose
replies they read late or never; every few seconds a worker is killed. Each second the descriptors and the private
memory that was written to (Private_Dirty of /proc/PID/smaps_rollup) of each process are sampled; pages of files count
as private or shared by what other programs happen to run. The first fifth is warm-up; what follows is cut into thirds.

The test: the median of the last third is not above the median of the second third by more than the grain, which is what
one step of an allocator may be: GRAIN_KIB for memory, GRAIN_FDS for descriptors. Workers are looked at by number,
since a killed one is followed by another process. Prints a table; exit status 1 on growth, or when requests are lost.
"""
import argparse
import os
import random
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "system"))
import harness  # noqa: E402

GRAIN_KIB = 1024
GRAIN_FDS = 2
WARM_UP = 0.2


class Load:
    """Kinds of clients, each in a thread of its own until the end."""

    def __init__(self, endpoint, image, seed):
        self.endpoint, self.image, self.seed = endpoint, image, seed
        self.end = threading.Event()
        self.lock = threading.Lock()
        self.counts, self.failures, self.threads = {}, [], []

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + n

    def start(self, kind):
        def work():
            rng = random.Random(f"{self.seed} {kind.__name__}")
            while not self.end.is_set():
                client = harness.Client(self.endpoint)
                try:
                    kind(client, rng)
                except AssertionError as trouble:
                    with self.lock:
                        self.failures.append(f"{kind.__name__}: {trouble}")
                finally:
                    client.close()
                self.count(kind.__name__)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)

    def send(self, client, rng, **more):
        return client.infer("digits", {"image": self.image[:rng.choice([1, 1, 2, 5])]}, **more)

    def take(self, client, waiting):
        got = client.receive(30)
        assert got, f"{len(waiting)} requests have no answer after 30 s"
        header = got[0]
        assert header["id"] in waiting, "an answer that nobody waits for, or a second one"
        waiting.discard(header["id"])
        self.count(header["status"])

    def honest(self, client, rng):
        """Comes, sends some, reads all, goes."""
        waiting = set()
        for _ in range(rng.randrange(1, 40)):
            waiting.add(self.send(client, rng, session=os.urandom(16)))
            if len(waiting) > 8:
                self.take(client, waiting)
        while waiting:
            self.take(client, waiting)

    def hurried(self, client, rng):
        """Deadlines, most of them too short, and cancels."""
        waiting = set()
        for _ in range(50):
            waiting.add(self.send(client, rng, timeout_us=rng.choice([1, 50, 500, 20000])))
            if rng.random() < 0.3:
                target = max(waiting)
                client.send({"v": 1, "op": "cancel", "id": client.next_id, "target": target})
                waiting.add(client.next_id)
                client.next_id += 1
        while waiting:
            self.take(client, waiting)
        self.end.wait(0.05)

    def malformed(self, client, rng):
        """Garbage, half headers, wrong frames; then one good request, which is answered."""
        for _ in range(40):
            what = rng.randrange(4)
            if what == 0:
                client.socket.send_multipart([rng.randbytes(rng.randrange(200))])
            elif what == 1:
                client.socket.send_multipart([b"\x83\xa1v\x01\xa2op\xa5infer"[:rng.randrange(12)]] + [b"x" * rng.randrange(5000)] * rng.randrange(70))
            elif what == 2:
                client.send({"v": 1, "op": rng.choice(["infer", "none", "metadata"]), "id": client.next_id, "model": "x" * rng.randrange(900)})
                client.next_id += 1
            else:
                self.send(client, rng, version="77")
        waiting = {client.infer("digits", {"image": self.image[:1]})}
        while waiting:
            got = client.receive(30)
            assert got, "the good request among malformed ones has no answer after 30 s"
            waiting.discard(got[0]["id"])
        self.end.wait(0.05)

    def slow(self, client, rng):
        """Floods and reads late, or goes without reading."""
        for _ in range(rng.randrange(20, 300)):
            self.send(client, rng)
        self.end.wait(rng.choice([0.1, 1.5]))
        if rng.random() < 0.5:
            while client.receive(0.2):
                pass

    def curious(self, client, rng):
        for op in rng.sample(["live", "ready", "models", "stats"], 4):
            client.call(op)
        self.end.wait(0.3)


def sample(pid):
    """(KiB of private written memory, descriptors), or None when it is not there."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            values = {line.split(":")[0]: int(line.split()[1]) for line in file if line.rstrip().endswith("kB")}
        return values["Private_Dirty"], len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, KeyError, ProcessLookupError):
        return None


def roles(daemon):
    """{role: pid}; workers by their age, since the younger ones follow those that were killed."""
    found = {"tersed": daemon.pid}
    workers = []
    for pid, name in harness.children(daemon.pid):
        if name.startswith("terse-worker"):
            workers.append(pid)
        elif name.startswith("terse-"):
            found[name] = pid
    for number, pid in enumerate(sorted(workers)):
        found[f"worker {number}"] = pid
    return found


def verdict(samples, seconds):
    """Prints the table; the roles that grew."""
    grown = []
    print(f"{'process':16} {'of':>7} {'samples':>8} {'second third':>13} {'last third':>11} {'grain':>6}")
    for (role, what), values in sorted(samples.items()):
        warm = [(at, value) for at, value in values if at >= WARM_UP * seconds]
        third = (1 - WARM_UP) * seconds / 3
        second = [value for at, value in warm if WARM_UP * seconds + third <= at < WARM_UP * seconds + 2 * third]
        last = [value for at, value in warm if at >= WARM_UP * seconds + 2 * third]
        grain = GRAIN_KIB if what == "KiB" else GRAIN_FDS
        if len(second) < 3 or len(last) < 3:
            continue
        before, after = statistics.median(second), statistics.median(last)
        grew = after > before + grain
        grown += [f"{role} ({what})"] * grew
        print(f"{role:16} {what:>7} {len(values):8} {before:13.0f} {after:11.0f} {grain:6}{'  GREW' if grew else ''}")
    return grown


def soak(story, seconds, seed):
    rng = random.Random(seed)
    images, _ = harness.digits_images()
    # Answers are kept for those who ask again: so few that they are all there after a second. With the usual 8 MiB that
    # would be growth for many minutes.
    config = os.path.join(story.folder, "soak.conf")
    with open(config, "w") as file:
        file.write("[server]\nfinished_bytes = 256K\n")
    daemon = story.tersed({"digits": story.digits()}, "--workers", "2", "--config", config)
    load = Load(daemon.endpoint, images[:8].astype("float32"), seed)
    for kind in (load.honest, load.honest, load.hurried, load.malformed, load.slow, load.curious):
        load.start(kind)
    start, samples, kill_at = time.monotonic(), {}, 5.0
    while (now := time.monotonic() - start) < seconds:
        found = roles(daemon)
        for role, pid in found.items():
            got = sample(pid)
            for what, value in zip(("KiB", "fds"), got or ()):
                samples.setdefault((role, what), []).append((now, value))
        if now >= kill_at:
            victims = [pid for role, pid in found.items() if role.startswith("worker")]
            if victims:
                os.kill(rng.choice(victims), 9)
                load.count("workers killed")
            kill_at = now + rng.uniform(3, 6)
        time.sleep(min(1.0, seconds / 60))
    load.end.set()
    for thread in load.threads:
        thread.join(60)
    grown = verdict(samples, seconds)
    print(", ".join(f"{what}: {n}" for what, n in sorted(load.counts.items())))
    story.check(load.counts.get("OK", 0) > 0, "requests were answered")
    story.check(not load.failures, "; ".join(load.failures[:5]))
    story.check(not grown, f"grew: {', '.join(grown)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    seconds = parser.parse_args().minutes * 60
    seed = os.environ.get("TERSE_SEED") or str(random.randrange(1 << 32))
    print(f"# {seconds:.0f} s, seed {seed}", flush=True)
    with harness.story("memory and descriptors do not grow") as story:
        soak(story, seconds, seed)
    harness.finish()


main()
