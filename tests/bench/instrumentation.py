# SPDX-License-Identifier: Apache-2.0
"""What seeing costs: tiny requests with histograms, traces of a sample and a watcher, beside the same daemon with `statistics = no`.
The setting is changed while the daemon runs, in turn, so that both sides have the same processes and the same memory."""
import os
import signal
import statistics
import subprocess
import sys
import time

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
SECONDS = "0.5"


def frontend_ns(tersed):
    """Processor time of the front end so far."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    head, _, tail = file.read().rpartition(")")
                if int(tail.split()[1]) == tersed.process.pid and "terse-frontend" in head:
                    with open(f"/proc/{entry}/task/{entry}/schedstat") as file:
                        return int(file.read().split()[0])
            except OSError:
                pass
    raise SystemExit("bench: the front end is not there")


def instrumentation(tools, folder):
    sys.path.insert(0, os.path.join(tools.ROOT, "tests", "system"))
    import onnx_writer
    onnx_writer.mlp(os.path.join(folder, "tiny.onnx"), [4, 4])
    tiny = tools.compress(os.path.join(folder, "tiny.onnx"), folder)
    config = os.path.join(folder, "tersed.conf")

    def write(*lines):
        with open(config, "w") as file:
            file.write("\n".join(("[server]", *lines, "")))

    def turn(tersed, on, lines):
        write(*(lines if on else ("statistics = no",)))
        tersed.process.send_signal(signal.SIGHUP)
        wanted = "yes" if on else "no"
        for _ in range(1000):
            told = tools.run_json(tools.program("terse"), "status", "-e", tersed.endpoint, "--json")
            if told["settings"]["statistics"]["value"] == wanted:
                return
            time.sleep(0.005)
        raise SystemExit("bench: the setting was not taken")

    def measure(tersed, *options):
        before = frontend_ns(tersed)
        told = tersed.bench("tiny", "-d", SECONDS, "--warmup", "0.05", *options)
        return told["rate"], (frontend_ns(tersed) - before) / told["ok"]

    print(f"\nwhat seeing costs, tiny requests\n{'':<46} {'off /s':>9} {'on /s':>9} {'ratio':>7} {'front end, ns a request':>24}")
    write("statistics = no")
    with tools.Tersed(folder, {"tiny": tiny}, "--config", config) as tersed:
        for what, lines, watched, options in (
                ("histograms, shared memory, 64 outstanding", ("statistics = yes",), False, ("-c", "64", "--shm")),
                ("histograms, frames, 64 outstanding", ("statistics = yes",), False, ("-c", "64")),
                ("histograms, shared memory, 1 outstanding", ("statistics = yes",), False, ("-c", "1", "--shm")),
                ("and trace_sample = 0.01", ("statistics = yes", "trace_sample = 0.01"), False, ("-c", "64", "--shm")),
                ("and a look every second", ("statistics = yes",), True, ("-c", "64", "--shm"))):
            runs = []
            for i in range(ROUNDS):
                pair = {}
                for on in ((False, True) if i % 2 else (True, False)):  # neither is always the first
                    turn(tersed, on, lines)
                    watcher = subprocess.Popen(["sh", "-c", f"while :; do sleep 1; '{tools.program('terse')}' stats -e {tersed.endpoint}; done"],
                                               stdout=subprocess.DEVNULL) if watched and on else None
                    pair[on] = measure(tersed, *options)
                    if watcher:
                        watcher.kill()
                        watcher.wait()
                runs.append((pair[False], pair[True]))
            middle = lambda f: statistics.median(f(off, on) for off, on in runs)
            print(f"{what:<46} {middle(lambda off, on: off[0]):>9.0f} {middle(lambda off, on: on[0]):>9.0f} "
                  f"{middle(lambda off, on: on[0] / off[0]):>7.3f} {middle(lambda off, on: off[1]):>11.0f} "
                  f"{middle(lambda off, on: on[1]):>6.0f} {middle(lambda off, on: on[1] / off[1]):>5.3f}", flush=True)
