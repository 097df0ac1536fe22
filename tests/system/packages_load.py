# SPDX-License-Identifier: Apache-2.0
"""Keeps a few requests outstanding over python3-terse until it is told to stop (SIGTERM), then tells what became of them.

usage: load.py MODEL OUTSTANDING     one line of JSON: answers, failures, the longest time without an answer, and for each
restart of tersed that the journal knows of the time from SIGTERM to the first answer of the next one
"""
import json
import signal
import subprocess
import sys
import time

import numpy
import terse

stop = False


def on_stop(*_):
    global stop
    stop = True


signal.signal(signal.SIGTERM, on_stop)
model, outstanding = sys.argv[1], int(sys.argv[2])
answers, failures, expected = [], [], None
client = terse.Client(connect_timeout=30)
ports = client.metadata(model).inputs
inputs = {p.name: numpy.ones([d if isinstance(d, int) else 1 for d in p.shape], "f4") for p in ports}
requests = []
while not stop or requests:
    while not stop and len(requests) < outstanding:
        requests.append(client.submit(model, inputs))
    first = requests.pop(0)
    try:
        reply = first.result()
        got = next(iter(reply.values())).tobytes()
        expected = expected or got
        if got != expected:
            failures.append("another answer")
        answers.append(time.clock_gettime(time.CLOCK_MONOTONIC))
    except terse.Error as wrong:
        failures.append(f"{wrong.status}: {wrong}")

journal = subprocess.run(["journalctl", "-u", "tersed", "-o", "json", "--no-pager"], capture_output=True, text=True).stdout
ends, begins = [], []
for line in journal.splitlines():
    entry = json.loads(line)
    at = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
    if answers and at > answers[0]:
        if "SIGTERM: draining" in str(entry["MESSAGE"]):
            ends.append(at)
        if ": loading " in str(entry["MESSAGE"]) and str(entry["MESSAGE"]).startswith("version "):
            begins.append(at)
first_ms = [round(1000 * (min(a for a in answers if a > begin) - end)) for end, begin in zip(ends, begins)
            if any(a > begin for a in answers)]
print(json.dumps({"answers": len(answers), "failures": failures[:3], "n_failures": len(failures), "first_ms": first_ms,
                  "longest_ms": round(1000 * max([b - a for a, b in zip(answers, answers[1:])], default=0))}))
