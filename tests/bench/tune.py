# SPDX-License-Identifier: Apache-2.0
"""terse tune beside every combination of what it could have tried: an MLP, SqueezeNet, and a network with steep batching gains.

Each combination is measured twice, in random order, in short runs; the best ones and what terse tune recommends more often, in turn. The grids go to tests/golden (BENCH_KEEP=1), where tests/unit/test_tune.c plays the search against them. BENCH_GRID=kept takes the best four of the kept grid in place of the first, long part, and measures them and the recommended one anew, in turn.

BENCH_PREFIX: words that stand before each measurement of some seconds (where machines are shared: what gives it the processor).
BENCH_LONG_PREFIX: the same before the search itself, which takes two minutes. BENCH_ONLY: names of networks.
"""
import json
import os
import random
import subprocess
import sys

PREFIX = os.environ.get("BENCH_PREFIX", "").split()
LONG_PREFIX = os.environ.get("BENCH_LONG_PREFIX", "").split()
KEEP = bool(os.environ.get("BENCH_KEEP"))
KEPT_BEST = 4 if os.environ.get("BENCH_GRID") == "kept" else 0
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
PASSES = 2
CORES = len(os.sched_getaffinity(0))
# Name, network, deadline in ms, max_batch and batch_timeout_us to combine; of the grid: --time of each setting, settings in one run.
NETWORKS = [("mlp", "mlp.onnx", 10, [4, 8, 16, 32, 64, 128, 256], [0, 310, 1200, 2500], 30, 8),
            ("steep", [256, 8192, 4096, 16], 50, [1, 4, 16, 32], [0, 6200], 48, 3),
            ("squeezenet", "squeezenet11.onnx", 50, [1, 2, 4], [0, 6200], 48, 3)]


def workers():
    return sorted({1, CORES} | {2**i for i in range(CORES.bit_length()) if 2**i < CORES})


SCRIPT = """
    folder=$(mktemp -d "$1/XXXXXX"); endpoint=ipc://$folder/tersed.sock
    "$TERSED" --listen "$endpoint" --model "m=$2" 2>"$folder/log" &
    pid=$!
    trap 'kill $pid; wait $pid' EXIT
    "$TERSE" status -e "$endpoint" --connect-ms 20000 --wait-ms 60000 >/dev/null
    shift 2
    for options; do
        "$TERSE" tune -e "$endpoint" m --json $options 2>&1 || :
    done
"""


def tune(tools, folder, path, options, prefix):
    """One daemon and a terse tune for each text of options, in one process that a prefix can stand before."""
    done = subprocess.run([*prefix, "sh", "-c", SCRIPT, "sh", folder, path, *options], capture_output=True, text=True,
                          env=dict(os.environ, TERSE=tools.program("terse"), TERSED=tools.program("tersed")))
    lines = done.stdout.strip().splitlines()
    if done.returncode or len(lines) != len(options) or not all(line.startswith("{") or "no setting keeps" in line for line in lines):
        sys.exit(f"bench: terse tune: {done.stdout} {done.stderr}")
    return [json.loads(line) if line.startswith("{") else None for line in lines]


class Grid:
    def __init__(self, measure, time):
        self.measure, self.time, self.rates, self.cost = measure, time, {}, None

    def visit(self, settings):
        told = self.measure([f"--exhaustive --time {self.time} --workers {w} --max-batch {b} --batch-timeout-us {t}" for w, b, t in settings], PREFIX)
        for setting, one_told in zip(settings, told):
            self.cost = self.cost or one_told and one_told["cost"]
            self.rates.setdefault(setting, []).append(one_told["settings"][0]["rate_at_deadline"] if one_told else 0)

    def rate(self, setting):
        return max(self.rates[setting])  # what else runs on the machine only takes away


def keep(root, name, deadline, grid):
    path = os.path.join(root, "tests", "golden", f"tune_{name}.tsv")
    with open(path, "w") as file:
        file.write(f"# terse tune --exhaustive on {CORES} cores: highest rate with p99 within the deadline, made by make bench BENCH=tune\n"
                   f"deadline_us\t{deadline * 1000}\ncost_us\t{grid.cost['a_us']:.6g}\t{grid.cost['b_us']:.6g}\n")
        for setting in sorted(grid.rates):
            file.write("\t".join(map(str, setting)) + f"\t{grid.rate(setting):.6g}\n")


def kept_best(root, name):
    with open(os.path.join(root, "tests", "golden", f"tune_{name}.tsv")) as file:
        rows = [line.split("\t") for line in file if line[0].isdigit()]
    return [tuple(map(int, row[:3])) for row in sorted(rows, key=lambda row: -float(row[3]))[:KEPT_BEST]]


def pieces(settings, each):
    return [settings[i:i + each] for i in range(0, len(settings), each)]


def one(tools, folder, name, network, deadline, batches, timeouts, time, each):
    if isinstance(network, list):
        path = tools.compress(tools.write_dense(os.path.join(folder, f"{name}.onnx"), network), folder)
    else:
        path = tools.compress(os.path.join(folder, network), folder)
    measure = lambda options, prefix: tune(tools, folder, path, [f"--deadline-ms {deadline} {o}" for o in options], prefix)
    grid = Grid(measure, time)
    settings = [(w, b, t) for w in workers() for b in batches for t in timeouts if b > 1 or t == 0]
    for turn in range(0 if KEPT_BEST else PASSES):
        random.Random(turn).shuffle(settings)
        for piece in pieces(settings, each):
            grid.visit(piece)
            print(name, {setting: round(grid.rate(setting)) for setting in piece}, file=sys.stderr, flush=True)
    told = measure([f"--max-batch {','.join(map(str, batches))} --batch-timeout-us {','.join(map(str, timeouts))}"], LONG_PREFIX)[0]
    found = tuple(told["recommended"][key] for key in ("workers", "max_batch", "batch_timeout_us"))
    best = sorted({*(kept_best(tools.ROOT, name) or sorted(settings, key=grid.rate)[-4:]), found})
    for _ in range(ROUNDS if KEPT_BEST else ROUNDS - 1):
        for piece in pieces(best, each):
            grid.visit(piece)
            print(name, {setting: round(grid.rate(setting)) for setting in piece}, file=sys.stderr, flush=True)
    if KEEP and not KEPT_BEST:
        keep(tools.ROOT, name, deadline, grid)
    first = max(best, key=grid.rate)
    print(f"{name:<12} {len(grid.rates):>4} {deadline:>5} ms {str(first):>16} {grid.rate(first):>9.0f}/s {str(found):>16} {grid.rate(found):>9.0f}/s "
          f"{grid.rate(found) / grid.rate(first):>6.3f} {told['trials']:>5} trials {told['seconds']:>5.0f} s; held {told['recommended']['measured']['rate']:.0f}/s",
          flush=True)


def run(tools, folder):
    only = os.environ.get("BENCH_ONLY", "").split()
    tools.write_networks(folder)
    print(f"\n{'network':<12} grid deadline   best by the grid (workers, max_batch, batch_timeout_us)   recommended   part")
    for network in NETWORKS:
        if not only or network[0] in only:
            one(tools, folder, *network)
