#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What people see of a running daemon is what happened: counters, percentiles, refusals by reason, traces, metrics."""
import os
import re
import subprocess
import time

import harness
import numpy


def image(rows=1):
    return {"image": harness.digits_images()[0][:rows]}


def stats(tersed, *options):
    return harness.run_json("terse", "stats", "-e", tersed.endpoint, "--json", *options)


def model_of(seen, name="digits"):
    return next(m for m in seen["models"] if m["name"] == name)


def parse_openmetrics(text):
    """{name: {labels: value}} of a text that keeps the rules; raises ValueError for one that does not."""
    families, samples, current = {}, {}, None
    lines = text.split("\n")
    if lines[-1] != "" or lines[-2] != "# EOF" or "# EOF" in lines[:-2]:
        raise ValueError("the text does not end with its one # EOF")
    for line in lines[:-2]:
        if line.startswith("# "):
            _, kind, name, *rest = line.split(" ", 3)
            if kind == "TYPE":
                if name in families:
                    raise ValueError(f"{name} is there twice")
                current = name
                families[name] = {"type": rest[0], "unit": None, "help": None}
            elif kind in ("UNIT", "HELP") and name == current and families[name][kind.lower()] is None:
                families[name][kind.lower()] = rest[0]
                if kind == "UNIT" and not name.endswith("_" + rest[0]):
                    raise ValueError(f"{name} does not end with its unit {rest[0]}")
            else:
                raise ValueError(line)
            continue
        found = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)', line)
        if not found:
            raise ValueError(f"no sample: {line}")
        name, labels, value = found.group(1), found.group(2) or "", float(found.group(3))
        pairs = re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"', labels)
        if ",".join(f'{k}="{v}"' for k, v in pairs) != labels or len({k for k, _ in pairs}) != len(pairs):
            raise ValueError(f"labels: {line}")
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[families[current]["type"]]
        if name not in [current + ending for ending in endings]:
            raise ValueError(f"{name} stands in the family {current}")
        if not families[current]["help"]:
            raise ValueError(f"{current} has no help")
        if families[current]["type"] != "gauge" and not value >= 0:
            raise ValueError(f"negative: {line}")
        known = samples.setdefault(name, {})
        if tuple(pairs) in known:
            raise ValueError(f"twice: {line}")
        known[tuple(pairs)] = value
    for family, about in families.items():
        if about["type"] == "histogram":
            check_histogram(family, samples)
    return samples


def check_histogram(family, samples):
    rows = {}
    for labels, value in samples.get(family + "_bucket", {}).items():
        rows.setdefault(tuple(p for p in labels if p[0] != "le"), []).append((float(dict(labels)["le"]), value))
    for labels, buckets in rows.items():
        if buckets != sorted(buckets) or buckets[-1][0] != float("inf") or sorted(v for _, v in buckets) != [v for _, v in buckets]:
            raise ValueError(f"{family}: buckets are not cumulative up to +Inf")
        if samples[family + "_count"][labels] != buckets[-1][1]:
            raise ValueError(f"{family}: the count is not that of +Inf")


def openmetrics(tersed):
    return parse_openmetrics(harness.run("terse", "stats", "-e", tersed.endpoint, "--openmetrics").stdout)


with harness.story("what is counted is what was done") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", 1, "--max-batch", 4)
    for _ in range(3):
        tersed.infer("digits", image(10))  # as 4, 4 and 2 rows
    client = harness.Client(tersed.endpoint)
    pixels = image()["image"]
    client.infer("digits", {"image": pixels.astype("float64").view("int64")[:, :, :4]})
    client.receive()
    client.infer("digits", {"image": pixels}, timeout_us=0)
    client.receive()
    model = model_of(stats(tersed))
    story.check(model["requests"] == 11 and model["ok"] == 9, f"requests: {model['requests']}, ok: {model['ok']}")
    story.check(model["errors"] == {"INVALID_ARGUMENT": 1, "DEADLINE_EXCEEDED": 1}, f"errors: {model['errors']}")
    rejected = {k: n for k, n in model["rejected"].items() if n}
    story.check(rejected == {"invalid": 1, "late": 1}, f"by reason: {rejected}")
    rows = model["batch_rows"]
    story.check(sum(bound * n for bound, n in rows["buckets"]) == 30 and rows["count"] == sum(n for _, n in rows["buckets"]),
                f"batches: {rows}")
    for name in ("total_us", "queue_us", "compute_us"):
        times = model[name]
        story.check(times["count"] == 9 == sum(n for _, n in times["buckets"]) and
                    times["p50"] <= times["p90"] <= times["p99"] <= times["p999"], f"{name}: {times}")
    story.check(model["total_us"]["p50"] >= model["compute_us"]["p50"] * 0.8, "what is computed is a part of the whole")
    worker = stats(tersed)["workers"][0]
    with open(f"/proc/{worker['pid']}/status") as file:
        status = {k: int(v.split()[0]) * 1024 for k, v in (line.split(":", 1) for line in file if line.startswith(("Rss", "VmRSS")))}
    room = 64 << 20 if "san" in harness.BUILD else 4 << 20  # a sanitizer's program has megabytes of file pages to itself
    story.check(abs(worker["private_bytes"] - status["RssAnon"]) < room, f"private: {worker}, {status}")
    story.check(0 < worker["shared_bytes"] <= status["VmRSS"], f"shared: {worker}, {status}")
    story.check(worker["batches"] == rows["count"] and worker["state"] == "idle" and "model" not in worker, f"worker: {worker}")
    status = tersed.status()
    once = status["models"][0]["recent"]
    story.check(status["uptime_us"] > 9e6 or once["requests"] == 11 and once["ok"] == 9 and once["rejected"] == 2 and once["rows"] == 30 and once["us"] > 0 and
                0 < once["p50_us"] <= once["p99_us"], f"one look tells what happened of late: {once}")
    between = model_of(stats(tersed, "--interval-ms", 50))
    story.check(between["total_us"]["count"] == 0 and between["requests_per_second"] == 0 and 0.04 < between["seconds"] < 30,
                f"an interval in which nothing came: {between['seconds']} s")
    metrics = openmetrics(tersed)
    one = (("model", "digits"),)
    story.check(metrics["terse_requests_total"] == {one + (("version", "1"),): 11}, "requests as a metric")
    story.check(metrics["terse_replies_total"][one + (("status", "OK"),)] == 9, "replies as a metric")
    story.check(metrics["terse_rejections_total"][one + (("reason", "late"),)] == 1, "refusals as a metric")
    story.check(metrics["terse_batch_rows_sum"][one] == 30, "rows as a metric")
    story.check(metrics["terse_batch_rows_bucket"][one + (("le", "4.0"),)] == rows["count"], "batches up to 4 rows")
    story.check(metrics["terse_request_seconds_count"][one] == 9, "times as a metric")
    story.check(metrics["terse_workers"][(("state", "idle"),)] == 1, "workers as a metric")
    client.close()

with harness.story("what a worker has now is told, and what waits behind it") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", 1, "--max-batch", 1, "--hang-timeout-ms", 60000)
    worker = tersed.workers()[0]
    os.kill(worker, 19)  # SIGSTOP: its batch does not end
    client = harness.Client(tersed.endpoint)
    sent = [client.infer("digits", image()) for _ in range(3)]
    pixels = image()["image"].nbytes
    seen = harness.wait_until(lambda: (lambda s: s if model_of(s)["queued"] == 2 else None)(stats(tersed)), "two wait")
    model, busy = model_of(seen), seen["workers"][0]
    story.check(model["running"] == 1 and model["queued_bytes"] >= 2 * pixels, f"waiting: {model['queued_bytes']} bytes")
    story.check(busy["state"] == "busy" and busy["model"] == "digits" and busy["rows"] == 1, f"busy: {busy}")
    later = stats(tersed)["workers"][0]
    story.check(later["since_us"] > busy["since_us"], "its batch grows older")
    os.kill(worker, 18)
    story.check(sorted(client.receive()[0]["id"] for _ in sent) == sent, "all are answered")
    client.close()

with harness.story("without statistics counters go on and histograms stay empty, until it is turned on again") as story:
    config = f"{story.folder}/tersed.conf"
    with open(config, "w") as file:
        file.write("[server]\nstatistics = no\n")
    tersed = story.tersed({"digits": story.digits()}, "--config", config)
    tersed.infer("digits", image())
    model = model_of(stats(tersed))
    story.check(model["ok"] == 1 and model["total_us"]["count"] == 0 and model["batch_rows"]["count"] == 0, f"off: {model}")
    with open(config, "w") as file:
        file.write("[server]\nstatistics = yes\n")
    tersed.process.send_signal(1)
    harness.wait_until(lambda: "SIGHUP: done" in tersed.log(), "it is read again")
    tersed.infer("digits", image())
    model = model_of(stats(tersed))
    story.check(model["ok"] == 2 and model["total_us"]["count"] == 1, f"on: {model}")


def stages(text):
    return {name.strip(): float(us) for name, us in re.findall(r"^  (.{14}) \|[ =]+\| +([0-9.]+) us", text, re.M)}


with harness.story("a trace adds up, by frames, through shared memory and over tcp; and comes only when asked for") as story:
    endpoint = f"ipc://{story.folder}/s.sock"
    tersed = story.tersed({"digits": story.digits()}, "--listen", "tcp://127.0.0.1:*", endpoint=endpoint)
    port = re.search(r"tcp://127\.0\.0\.1:(\d+)", tersed.log())
    numpy.savez(f"{story.folder}/in.npz", **image(5))
    ways = [(endpoint,), (endpoint, "--shm")] + ([(f"tcp://127.0.0.1:{port.group(1)}",)] if port else [])
    for endpoint_and_options in ways:
        told = harness.run("terse", "infer", "-e", *endpoint_and_options, "digits", f"{story.folder}/in.npz", "-o",
                           f"{story.folder}/out.npz", "--trace").stdout
        whole = float(re.search(r"^request 1: ([0-9.]+) us", told, re.M).group(1))
        parts = stages(told)
        story.check(len(parts) == 6 and abs(sum(parts.values()) - whole) <= 0.5, f"the parts are the whole: {told}")
        computed = float(re.search(r"computed (\d+) us", told).group(1))
        story.check(parts["worker"] >= computed - 1, f"the worker's part holds what it computed: {told}")
        story.check(("another clock" in told) == endpoint_and_options[0].startswith("tcp"), f"whose clock: {told}")
    quiet = harness.run("terse", "infer", "-e", endpoint, "digits", f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
    story.check(quiet.stdout == "", "nothing is printed that was not asked for")
    client = harness.Client(endpoint)
    client.infer("digits", image())
    story.check("trace" not in client.receive()[0], "nor sent")
    before = time.monotonic_ns()
    client.infer("digits", image(), trace=True)
    trace = client.receive()[0]["trace"]
    after = time.monotonic_ns()
    times = [trace["queued_ns"], trace["dispatched_ns"], trace["computed_ns"], trace["replied_ns"]]
    story.check(times == sorted(times) and before <= trace["received_ns"] and trace["received_ns"] + times[-1] <= after,
                f"its times are between sending and receiving: {trace}")
    client.infer("digits", image(), trace=1)
    refused = client.receive()[0]
    story.check(refused["status"] == "INVALID_ARGUMENT" and "trace" in refused["error"], f"it is true or false: {refused}")
    client.close()

with harness.story("a sample of the requests is logged, with what went wrong too, and no more than the log can take") as story:
    config = f"{story.folder}/tersed.conf"
    def set_sample(part):
        with open(config, "w") as file:
            file.write(f"[server]\ntrace_sample = {part}\n")
    set_sample(0)
    tersed = story.tersed({"digits": story.digits()}, "--config", config)
    tersed.infer("digits", image())
    story.check("request " not in tersed.log(), "nothing is logged at first")
    set_sample(1)
    tersed.process.send_signal(1)
    harness.wait_until(lambda: "SIGHUP: done" in tersed.log(), "it is read again")
    client = harness.Client(tersed.endpoint)
    client.infer("digits", image())
    client.receive()
    client.infer("digits", image(), timeout_us=0)
    client.receive()
    log = tersed.log()
    story.check(re.search(r"request 1 of model 'digits': OK in \d+ us: admitted \d+, queued \d+, worker \d \d+ "
                          r"\(computed \d+, 1 rows\), replied \d+", log), f"a good one: {log[-500:]}")
    story.check(re.search(r"request 2 of model 'digits': DEADLINE_EXCEEDED after \d+ us", log), f"a refused one: {log[-500:]}")
    begun = time.monotonic()
    for _ in range(20):
        for _ in range(100):
            client.infer("digits", image())
        for _ in range(100):
            client.receive()
    harness.wait_until(lambda: client.infer("digits", image()) and client.receive() and "were not logged" in tersed.log(),
                       "it says that it passed some over")
    lines = len(re.findall(r"request \d+ of model", tersed.log()))
    passed = sum(map(int, re.findall(r"(\d+) sampled requests were not logged", tersed.log())))
    seconds = time.monotonic() - begun
    story.check(lines <= 200 * (seconds + 2) and lines + passed > 200, f"{lines} lines, {passed} passed over in {seconds:.1f} s")
    client.close()

harness.finish()
