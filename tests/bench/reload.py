# SPDX-License-Identifier: Apache-2.0
"""What a reload of a model of 200 MB costs the requests of another one: latencies with one reload after the other going on
beside latencies without, in turn, with two quiet runs in each round to tell how much is the machine's own noise."""
import statistics
import subprocess
import threading
import time

ROUNDS, SECONDS, ASKED = 7, 1.5, 1.2


def measure(tools, folder, name, model, rate, large):
    with tools.Tersed(folder, {name: model, "large": large}) as tersed:
        loads, runs = [], {"quiet": [], "quiet again": [], "reloads": []}

        def reload(stop):
            while not stop.is_set():
                start = time.monotonic()
                subprocess.run([tools.program("terse"), "load", "-e", tersed.endpoint, "large", large], check=True,
                               stdout=subprocess.DEVNULL)
                loads.append(time.monotonic() - start)

        tersed.bench(name, "-r", str(rate), "-d", "1")
        for _ in range(ROUNDS):
            for kind, found in runs.items():
                stop = threading.Event()
                thread = threading.Thread(target=reload, args=(stop,))
                if kind == "reloads":
                    thread.start()
                found.append(tersed.bench(name, "-r", str(rate), "-d", str(SECONDS)))
                stop.set()
                if kind == "reloads":
                    thread.join()
    for figure in "p50_us", "p99_us":
        ratio = {kind: statistics.median(b[figure] / a[figure] for a, b in zip(runs["quiet"], found))
                 for kind, found in runs.items()}
        print(f"{name:<12} {rate:>7}/s {figure[:3]} {statistics.median(r[figure] for r in runs['quiet']):>9.0f} us "
              f"{statistics.median(r[figure] for r in runs['reloads']):>9.0f} us {ratio['reloads']:>6.2f} times "
              f"(quiet again: {ratio['quiet again']:.2f})" + (f", asked <= {ASKED}" if figure == "p99_us" else ""), flush=True)
    print(f"{'':<12} {len(loads)} reloads, {statistics.median(loads):.2f} s each", flush=True)


def reload(tools, folder):
    if not tools.have_peers():
        return
    import os
    large = tools.compress(tools.write_dense(os.path.join(folder, "large.onnx"), [4096, 4096, 4096, 4096, 10]), folder)
    mlp = tools.compress(tools.write_dense(os.path.join(folder, "mlp784.onnx"), [784, 512, 512, 10]), folder)
    print(f"\nreload of {os.path.getsize(large) / 1e6:.0f} MB: another model's requests without and with it")
    measure(tools, folder, "mlp", mlp, 1000, large)
    generator = os.path.join(tools.SHARED, "tools", "perf_models.py")
    if os.path.exists(generator):
        tools.write_networks(folder)
        measure(tools, folder, "squeezenet11", tools.compress(os.path.join(folder, "squeezenet11.onnx"), folder), 60, large)
