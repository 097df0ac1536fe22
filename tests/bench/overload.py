# SPDX-License-Identifier: Apache-2.0
"""What a daemon does with more than it can: goodput, and when those in and those refused are answered."""
import os
import statistics
import subprocess
import sys

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DEADLINE_MS = 100
TIMES = (1.2, 2, 10)
# Name, network, options of tersed; requests over shared memory, as those who send so many would.
SERVED = [("SqueezeNet int8", "squeezenet11_int8", ()), ("MLP, each row alone", "mlp", ("--max-batch", "1")), ("MLP", "mlp", ())]


def one(tersed, *options):
    return tersed.bench("m", "--shm", "--warmup", "0.3", *options)


def measure(tools, packed, options, folder):
    """Capacity and overload in turn: what else runs on this machine meets both."""
    with tools.Tersed(folder, {"m": packed}, *options) as tersed:
        one(tersed, "-c", "64", "-d", "0.5")
        rounds = {x: [] for x in TIMES}
        for _ in range(ROUNDS):
            for x in TIMES:
                before = one(tersed, "-c", "64", "-d", "0.5")["rate"]
                told = one(tersed, "-r", str(before * x), "-d", "1", "--timeout-ms", str(DEADLINE_MS))
                after = one(tersed, "-c", "64", "-d", "0.5")["rate"]
                told["capacity"] = (before + after) / 2
                rounds[x].append(told)
        return rounds


def overload(tools, folder):
    generator = os.path.join(tools.SHARED, "tools", "perf_models.py")
    if not os.path.exists(generator) or not tools.have_peers():
        print("overload: skipped: needs ../shared/tools/perf_models.py and onnx")
        return
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([tools.PEERS, os.environ.get("PYTHONPATH", "")]))
    subprocess.run([sys.executable, generator, folder], check=True, capture_output=True, env=environment)
    print(f"\n{'deadline 100 ms':<20} {'offered':>8} {'requests/s':>10} {'goodput':>8} {'p50 ms':>7} {'longest ms':>10} "
          f"{'refused p50 ms':>14} {'p99 ms':>7} {'own lag p99 ms':>14}")
    for name, network, options in SERVED:
        packed = tools.compress(os.path.join(folder, network + ".onnx"), folder)
        for x, told in measure(tools, packed, options, folder).items():
            middle = lambda f: statistics.median(f(t) for t in told)
            print(f"{name:<20} {x:>7}x {middle(lambda t: t['sent'] / t['seconds']):>10.0f} "
                  f"{middle(lambda t: t['rate'] / t['capacity']):>8.2f} {middle(lambda t: t['p50_us'] / 1e3):>7.1f} "
                  f"{middle(lambda t: t['max_us'] / 1e3):>10.1f} {middle(lambda t: t.get('refused_p50_us', 0) / 1e3):>14.2f} "
                  f"{middle(lambda t: t.get('refused_p99_us', 0) / 1e3):>7.2f} {middle(lambda t: t['behind_p99_us'] / 1e3):>14.2f}",
                  flush=True)
