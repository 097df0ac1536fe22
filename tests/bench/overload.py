# SPDX-License-Identifier: Apache-2.0
"""What a daemon does with more than it can: goodput, and when those in and those refused are answered.

The program that offers the requests has the last CPU for itself and tersed all others, also while capacity is measured: so
what one takes is not missing to the other, and goodput is by the capacity of what tersed has. "own share" is what that
program takes of its CPU. Ten times what an MLP can is more than it can offer ("requests/s" says what it did, "own lag" how
far it was behind): the same MLP on the scalar tier is as slow as its requests are many. libterse spares a flooded daemon most
refusals (terse.h, "Overload"); "all to tersed" is without that, as other clients send.
"""
import os
import statistics
import subprocess
import sys

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DEADLINE_MS = 100
CPUS = sorted(os.sched_getaffinity(0))
OTHERS, LAST = (CPUS[:-1], CPUS[-1:]) if len(CPUS) > 1 else (CPUS, CPUS)
TIMES = (1.2, 2, 10)
ALONE, ALL = ("--max-batch", "1"), ("--max-refusals", "0")
# Name, network, options of tersed, its environment, options of terse bench; requests over shared memory, as those who send so many would.
SERVED = [("SqueezeNet int8", "squeezenet11_int8", (), None, ()), ("MLP, each row alone", "mlp", ALONE, None, ()), ("MLP", "mlp", (), None, ()),
          ("MLP, scalar tier", "mlp", (), {"TERSE_ISA": "scalar"}, ()),
          ("... alone, all to tersed", "mlp", ALONE, None, ALL), ("MLP, all to tersed", "mlp", (), None, ALL)]


def one(tersed, *options):
    return tersed.bench("m", "--shm", "--warmup", "0.3", *options)


def measure(tools, packed, options, environment, bench, folder):
    """Capacity and overload in turn: what else runs on this machine meets both."""
    os.sched_setaffinity(0, OTHERS)
    with tools.Tersed(folder, {"m": packed}, *options, environment=environment) as tersed:
        os.sched_setaffinity(0, LAST)
        one(tersed, "-c", "64", "-d", "0.5")
        rounds = {x: [] for x in TIMES}
        for _ in range(ROUNDS):
            for x in TIMES:
                before = one(tersed, "-c", "64", "-d", "0.5")
                told = one(tersed, "-r", str(before["rate"] * x), "-d", "1", "--timeout-ms", str(DEADLINE_MS), *bench)
                after = one(tersed, "-c", "64", "-d", "0.5")
                told["capacity"] = (before["rate"] + after["rate"]) / 2
                rounds[x].append(told)
        return rounds


def overload(tools, folder):
    generator = os.path.join(tools.SHARED, "tools", "perf_models.py")
    if not os.path.exists(generator) or not tools.have_peers():
        print("overload: skipped: needs ../shared/tools/perf_models.py and onnx")
        return
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([tools.PEERS, os.environ.get("PYTHONPATH", "")]))
    subprocess.run([sys.executable, generator, folder], check=True, capture_output=True, env=environment)
    print(f"\n{'deadline 100 ms':<24} {'offered':>8} {'requests/s':>10} {'goodput':>8} {'own share':>9} {'p50 ms':>7} {'longest ms':>10} "
          f"{'refused p50 ms':>14} {'p99 ms':>7} {'own lag p99 ms':>14}")
    for name, network, options, variables, bench in SERVED:
        packed = tools.compress(os.path.join(folder, network + ".onnx"), folder)
        for x, told in measure(tools, packed, options, variables, bench, folder).items():
            middle = lambda f: statistics.median(f(t) for t in told)
            print(f"{name:<24} {x:>7}x {middle(lambda t: t['sent'] / t['seconds']):>10.0f} "
                  f"{middle(lambda t: t['rate'] / t['capacity']):>8.2f} {middle(lambda t: t['own_share']):>9.2f} "
                  f"{middle(lambda t: t['p50_us'] / 1e3):>7.1f} "
                  f"{middle(lambda t: t['max_us'] / 1e3):>10.1f} {middle(lambda t: t.get('refused_p50_us', 0) / 1e3):>14.2f} "
                  f"{middle(lambda t: t.get('refused_p99_us', 0) / 1e3):>7.2f} {middle(lambda t: t['behind_p99_us'] / 1e3):>14.2f}",
                  flush=True)
        os.sched_setaffinity(0, CPUS)
