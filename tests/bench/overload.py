# SPDX-License-Identifier: Apache-2.0
"""What a daemon does with more than it can: goodput, and when those in and those refused are answered.

The program that offers the requests runs on the same cores. "own share" is what it takes of one core, "of what is left"
the goodput by the capacity of that part of the machine which it leaves, beside what it takes while capacity is measured.
Ten times what an MLP can is more than one such program can offer beside it ("requests/s" says what it did, "own lag" how far
it was behind): the same MLP on the scalar tier is as slow as its requests are many.
"""
import os
import statistics
import subprocess
import sys

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DEADLINE_MS = 100
CORES = len(os.sched_getaffinity(0))
TIMES = (1.2, 2, 10)
# Name, network, options of tersed; requests over shared memory, as those who send so many would.
SERVED = [("SqueezeNet int8", "squeezenet11_int8", (), None), ("MLP, each row alone", "mlp", ("--max-batch", "1"), None),
          ("MLP", "mlp", (), None), ("MLP, scalar tier", "mlp", (), {"TERSE_ISA": "scalar"})]


def one(tersed, *options):
    return tersed.bench("m", "--shm", "--warmup", "0.3", *options)


def measure(tools, packed, options, environment, folder):
    """Capacity and overload in turn: what else runs on this machine meets both."""
    with tools.Tersed(folder, {"m": packed}, *options, environment=environment) as tersed:
        one(tersed, "-c", "64", "-d", "0.5")
        rounds = {x: [] for x in TIMES}
        for _ in range(ROUNDS):
            for x in TIMES:
                before = one(tersed, "-c", "64", "-d", "0.5")
                told = one(tersed, "-r", str(before["rate"] * x), "-d", "1", "--timeout-ms", str(DEADLINE_MS))
                after = one(tersed, "-c", "64", "-d", "0.5")
                told["capacity"] = (before["rate"] + after["rate"]) / 2
                share = (before["own_share"] + after["own_share"]) / 2
                told["left"] = told["rate"] / told["capacity"] * (CORES - share) / (CORES - told["own_share"])
                rounds[x].append(told)
        return rounds


def overload(tools, folder):
    generator = os.path.join(tools.SHARED, "tools", "perf_models.py")
    if not os.path.exists(generator) or not tools.have_peers():
        print("overload: skipped: needs ../shared/tools/perf_models.py and onnx")
        return
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([tools.PEERS, os.environ.get("PYTHONPATH", "")]))
    subprocess.run([sys.executable, generator, folder], check=True, capture_output=True, env=environment)
    print(f"\n{'deadline 100 ms':<20} {'offered':>8} {'requests/s':>10} {'goodput':>8} {'own share':>9} {'of what is left':>15} {'p50 ms':>7} {'longest ms':>10} "
          f"{'refused p50 ms':>14} {'p99 ms':>7} {'own lag p99 ms':>14}")
    for name, network, options, variables in SERVED:
        packed = tools.compress(os.path.join(folder, network + ".onnx"), folder)
        for x, told in measure(tools, packed, options, variables, folder).items():
            middle = lambda f: statistics.median(f(t) for t in told)
            print(f"{name:<20} {x:>7}x {middle(lambda t: t['sent'] / t['seconds']):>10.0f} "
                  f"{middle(lambda t: t['rate'] / t['capacity']):>8.2f} {middle(lambda t: t['own_share']):>9.2f} "
                  f"{middle(lambda t: t['left']):>15.2f} {middle(lambda t: t['p50_us'] / 1e3):>7.1f} "
                  f"{middle(lambda t: t['max_us'] / 1e3):>10.1f} {middle(lambda t: t.get('refused_p50_us', 0) / 1e3):>14.2f} "
                  f"{middle(lambda t: t.get('refused_p99_us', 0) / 1e3):>7.2f} {middle(lambda t: t['behind_p99_us'] / 1e3):>14.2f}",
                  flush=True)
