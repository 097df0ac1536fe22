# SPDX-License-Identifier: Apache-2.0
"""Memory shared with the daemon beside frames over ipc, the same client, in turn; and beside the four wake-ups that a request to
another process and on to a third cannot do without."""
import os
import statistics

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def write_first_of_many(path, n):
    """One row is n floats, of which the network reads 4: what is measured is how they get there."""
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    constants = [numpy_helper.from_array(numpy.array([v], "i8"), k) for k, v in (("start", 0), ("end", 4), ("axis", 1))]
    constants.append(numpy_helper.from_array(numpy.eye(4, dtype="f4"), "w"))
    nodes = [helper.make_node("Slice", ["x", "start", "end", "axis"], ["h"]), helper.make_node("Gemm", ["h", "w"], ["y"])]
    graph = helper.make_graph(nodes, "first", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", n])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


class Rows:
    def __init__(self):
        self.missed = 0

    def add(self, what, a, b, ratio, asked, below=False):
        good = ratio <= asked if below else ratio >= asked
        self.missed += not good
        print(f"{what:<44} {a:>12.1f} {b:>12.1f} {ratio:>8.2f} {'<=' if below else '>='} {asked:<5g} {'yes' if good else 'NO'}", flush=True)


def shared_memory(tools, folder):
    if not tools.have_peers():
        return
    tiny = tools.compress(tools.write_dense(os.path.join(folder, "tiny.onnx"), [4, 4]), folder)
    wide = tools.compress(write_first_of_many(os.path.join(folder, "wide.onnx"), 150528), folder)
    hops = lambda: tools.run_json(tools.program("echo"), "hops", "1")["p50_us"]
    print(f"\nshared memory\n{'':<44} {'beside':>12} {'shared':>12} {'ratio':>8}    asked")
    rows, middle = Rows(), statistics.median
    models = {"tiny": tiny, "wide": wide}
    with tools.Tersed(folder, models) as sleeps, tools.Tersed(folder, models, "--spin-us", "50") as spins:
        bench = lambda daemon, *options: daemon.bench(options[0], "-d", "1", *options[1:])
        runs = [(hops(), bench(sleeps, "tiny", "-c", "1", "--shm")["p50_us"]) for _ in range(ROUNDS)]
        rows.add("tiny, 1 client, p50 us, beside two round trips", middle(a for a, _ in runs), middle(b for _, b in runs),
                 middle(b / a for a, b in runs), 1.3, below=True)
        runs = [(bench(spins, "tiny", "-c", "1")["p50_us"], bench(spins, "tiny", "-c", "1", "--shm", "--spin-us", "50")["p50_us"])
                for _ in range(ROUNDS)]
        rows.add("tiny, 1 client, p50 us, spin_us 50, of 25", middle(a for a, _ in runs), middle(b for _, b in runs),
                 middle(b / 25 for _, b in runs), 1, below=True)
        for name, daemon, more in (("", sleeps, ()), (", spin_us 50", spins, ("--spin-us", "50"))):
            runs = [(bench(daemon, "tiny", "-c", "64")["rate"], bench(daemon, "tiny", "-c", "64", "--shm", *more)["rate"])
                    for _ in range(ROUNDS)]
            rows.add(f"tiny, 64 outstanding, requests/s{name}", middle(a for a, _ in runs), middle(b for _, b in runs),
                     middle(b / a for a, b in runs), 3)
        for name, daemon, outstanding, more in (("", sleeps, "1", ()), ("", sleeps, "4", ()),
                                                (", spin_us 50", spins, "1", ("--spin-us", "50"))):
            runs = [(bench(daemon, "wide", "-c", outstanding)["rate"], bench(daemon, "wide", "-c", outstanding, "--shm", *more)["rate"])
                    for _ in range(ROUNDS)]
            rows.add(f"600 KB, {outstanding} outstanding, requests/s{name}", middle(a for a, _ in runs), middle(b for _, b in runs),
                     middle(b / a for a, b in runs), 5)
