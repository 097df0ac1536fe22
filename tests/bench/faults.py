# SPDX-License-Identifier: Apache-2.0
"""What deaths cost: a killed front end until it answers again, and the latencies of four clients while workers are killed, or
workers and front ends: BENCH_SECONDS (60) of that."""
import os
import random
import signal
import statistics
import subprocess
import time

import libterse

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CLIENTS, SECONDS, KILLS = 4, 3, 20
LONG = int(os.environ.get("BENCH_SECONDS", "60"))


def children(pid, name):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    head, _, tail = file.read().rpartition(")")
            except OSError:
                continue
            if head.partition("(")[2].startswith(name) and int(tail.split()[1]) == pid and tail.split()[0] not in "ZX":
                found.append(int(entry))
    return found


def restarts(tools, tersed, name, array):
    """Milliseconds from the SIGKILL of a front end until a request that is asked at that moment is answered."""
    client = libterse.Client(os.path.join(tools.BUILD, "libterse.so"), tersed.endpoint, "m", name, array)
    want = [client.infer() for _ in range(20)][-1]
    workers, times = children(tersed.process.pid, "terse-worker"), []
    for _ in range(KILLS):
        frontend = children(tersed.process.pid, "terse-frontend")[0]
        start = time.monotonic()
        os.kill(frontend, signal.SIGKILL)
        same = client.infer() == want
        times.append((time.monotonic() - start) * 1e3)
        if not same or children(tersed.process.pid, "terse-worker") != workers:
            raise SystemExit("faults: other bits, or other workers, after a front end died")
        time.sleep(0.3)
    client.close()
    return times


def offer(tools, tersed, rate, kills, seconds=SECONDS):
    """p50 and p99 in ms of four clients, with one of `kills` killed every 200 ms, or nobody; and how many were."""
    rng = random.Random(1)
    clients = [subprocess.Popen([tools.program("terse"), "bench", "-e", tersed.endpoint, "m", "--rate", str(rate / CLIENTS), "-d",
                                 str(seconds), "--warmup", "0.3", "--seed", str(seed), "--verify", "--retries", "1000", "--json"],
                                stdout=subprocess.PIPE, text=True) for seed in range(1, CLIENTS + 1)]
    killed = 0
    while any(client.poll() is None for client in clients):
        victims = children(tersed.process.pid, rng.choice(kills)[:15]) if kills else []
        if victims:
            os.kill(rng.choice(victims), signal.SIGKILL)
            killed += 1
        time.sleep(0.2)
    results = [tools.json.loads(client.stdout.read().strip().splitlines()[-1]) for client in clients]
    if any(r["ok"] != r["sent"] or r["mismatches"] or r["duplicates"] for r in results):
        raise SystemExit(f"faults: requests were lost, or answered twice or wrongly: {results}")
    return [statistics.median(r[key] / 1e3 for r in results) for key in ("p50_us", "p99_us")] + [killed, sum(r["sent"] for r in results)]


def faults(tools, folder):
    network = os.path.join(tools.SHARED, "models", "squeezenet1_0", "model.onnx")
    if not os.path.exists(network) or not tools.have_peers():
        print("faults: skipped: needs ../shared/models/squeezenet1_0/model.onnx and numpy")
        return
    import numpy
    print(f"\n{'front end killed':<24} {'answer ms':>10} {'again after ms: median':>22} {'longest':>8}")
    tiny = tools.compress(tools.write_dense(os.path.join(folder, "tiny.onnx"), [4, 4]), folder)
    packed = tools.compress(network, folder)
    for title, path, name, shape in (("a tiny model", tiny, "x", (1, 4)), ("SqueezeNet", packed, "data", (1, 3, 227, 227))):
        with tools.Tersed(folder, {"m": path}) as tersed:
            usual = tersed.bench("m", "-c", "1", "-d", "1")["p50_us"] / 1e3
            times = restarts(tools, tersed, name, numpy.ones(shape, "f4"))
            print(f"{title:<24} {usual:>10.2f} {statistics.median(times):>22.1f} {max(times):>8.1f}", flush=True)
    print(f"\n{'70 % load, p99 ms':<24} {'nobody dies':>12} {'workers die':>12} {'ratio':>6}")
    with tools.Tersed(folder, {"m": packed}) as tersed:
        pairs = []
        for _ in range(ROUNDS):
            rate = 0.7 * tersed.bench("m", "-c", "8", "-d", "1")["rate"]
            pairs.append((offer(tools, tersed, rate, ())[1], offer(tools, tersed, rate, ("terse-worker",))[1]))
        without, with_kills = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        print(f"{'SqueezeNet, 4 clients':<24} {without:>12.1f} {with_kills:>12.1f} "
              f"{statistics.median(b / a for a, b in pairs):>6.2f}", flush=True)
        rate = 0.7 * tersed.bench("m", "-c", "8", "-d", "1")["rate"]
        p50, p99, killed, sent = offer(tools, tersed, rate, ("terse-worker", "terse-worker", "terse-frontend"), LONG)
        print(f"{killed} workers and front ends killed in {LONG} s, all of {sent} answered once and alike: p50 {p50:.1f} ms, p99 {p99:.1f} ms",
              flush=True)
