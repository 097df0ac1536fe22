#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Descriptors, memory or disk run out, the wall clock jumps: those who are there are served, the others are told why."""
import os
import subprocess

import numpy

import harness
import onnx_writer

harness.look_into_children()


def limits(**values):
    """What to start a program under, so that it has no more than that."""
    return ["prlimit", *(f"--{name}={value}:{value}" for name, value in values.items()), "--"]


def config(story, **settings):
    path = os.path.join(story.folder, "t.conf")
    with open(path, "w") as file:
        file.write("[server]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return path


with harness.story("more clients than descriptors: those who are in are served, and later the others too") as story:
    model, image = story.digits(), harness.digits_images()[0][:1]
    tersed = story.tersed({"digits": model}, "--workers", 1, under=limits(nofile=96))
    honest = harness.Client(tersed.endpoint)
    honest.infer("digits", {"image": image})
    want = honest.receive()[1]
    frontend = tersed.frontend()
    crowd = [harness.Client(tersed.endpoint) for _ in range(150)]
    for client in crowd:
        client.infer("digits", {"image": image})
    harness.wait_until(lambda: len(os.listdir(f"/proc/{frontend}/fd")) >= 70, "the front end lets no more in")
    for _ in range(200):
        honest.infer("digits", {"image": image})
        header, frames = honest.receive()
        story.check(header["status"] == "OK" and frames == want, f"the one who was there: {header}")
    answered = sum(client.receive(0) is not None for client in crowd)
    story.check(0 < answered < 150, f"some of the crowd were let in: {answered}")
    worker = [pid for pid, name in harness.children(tersed.pid) if name == "terse-worker"][0]
    os.kill(worker, 9)  # a new one needs descriptors in the front end as well
    honest.infer("digits", {"image": image})
    header, frames = honest.receive()
    story.check(header["status"] == "OK" and frames == want, f"after the death of the worker: {header}")
    for client in crowd:
        client.close()
    late = harness.Client(tersed.endpoint)
    late.infer("digits", {"image": image})
    header, frames = late.receive()
    story.check(header["status"] == "OK" and frames == want, f"one who comes later: {header}")

with harness.story("with too few descriptors, or too little memory, it serves or says what was missing") as story:
    model, image = story.digits(), harness.digits_images()[0][:1]
    sanitized = "san" in harness.BUILD
    outcomes = []
    tried = [("nofile", n) for n in (6, 9, 12, 16, 24, 32, 64)]
    if not sanitized:  # which want terabytes of addresses
        tried += [("as", n << 20) for n in (32, 64, 128, 256, 4096)]
    for which, value in tried:
        tersed = story.tersed({"digits": model}, "--workers", 1, wait=False, under=limits(**{which: value}))
        what = f"{which}: {value}"
        if tersed.serves():
            story.check(tersed.infer("digits", {"image": image}), f"{what}: it answers")
            story.check(tersed.stop() == 0, f"{what}: and ends with 0")
            outcomes.append("serves")
        else:
            code, log = tersed.process.returncode, tersed.log()
            story.check(code in (1, 127) and any(w in log for w in ("cannot ", "giving up", "no memory", "error while loading")),
                        f"{what}: it ended with {code}, and said {log}")
            outcomes.append("tells")
        harness.wait_until(lambda: not harness.children(tersed.pid), f"{what}: nothing is left over")
    print(f"# {outcomes}")
    story.check({"serves", "tells"} <= set(outcomes), f"both were seen: {outcomes}")

with harness.story("requests that find no room for their tensors are refused, the others answered, and no room is lost") as story:
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [64, 64, 4]))
    tersed = story.tersed({"mlp": model}, "--workers", 1, "--max-batch", 1024, "--config",
                          config(story, input_bytes="1M", output_bytes="1M", max_request_bytes="512K"))
    clients = [harness.Client(tersed.endpoint) for _ in range(8)]
    x = numpy.random.default_rng(3).standard_normal((1024, 64)).astype("f4")  # 256 KB: four of them fill the memory
    rounds, seen = 40, {}
    for client in clients:
        for _ in range(rounds):
            client.infer("mlp", {"x": x})
    for client in clients:
        for _ in range(rounds):
            header, _ = client.receive()
            seen[header["status"]] = seen.get(header["status"], 0) + 1
    story.check(set(seen) == {"OK", "RESOURCE_EXHAUSTED"} and sum(seen.values()) == 8 * rounds, f"each is answered: {seen}")
    stats = clients[0].call("stats")
    story.check(stats["input_bytes_used"] == 0 and stats["queued"] == 0, f"nothing is held: {stats['input_bytes_used']}")
    clients[0].infer("mlp", {"x": x})
    story.check(clients[0].receive()[0]["status"] == "OK", "and there is room again")

with harness.story("a full disk is one clear error, and leaves no half of a file behind") as story:
    disk = os.path.join(story.folder, "disk")
    os.mkdir(disk)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode:
        raise harness.Skip(f"no small file system can be mounted here: {mount.stderr.strip()}")
    try:
        told = harness.run("terse", "compress", os.path.join(harness.DATA, "digits.onnx"), "-o", f"{disk}/d.terse", code=1).stderr
        story.check("No space left on device" in told and f"{disk}/d.terse" in told, f"compress: {told}")
        model = story.digits()
        tersed = story.tersed({"digits": model}, "--workers", 1)
        images = numpy.tile(harness.digits_images()[0][:1], (32, 1, 1, 1) if harness.digits_images()[0].ndim == 4 else (32, 1))
        with open(f"{disk}/filler", "wb") as file:
            file.write(bytes(30 << 10))
        numpy.savez(f"{story.folder}/in.npz", image=images)
        for command in (("run", model), ("infer", "-e", tersed.endpoint, "digits")):
            told = harness.run("terse", *command, f"{story.folder}/in.npz", "-o", f"{disk}/out.npz", code=1).stderr
            story.check("No space left on device" in told and len(told.strip().splitlines()) == 1, f"{command[0]}: {told}")
        story.check(os.listdir(disk) == ["filler"], f"nothing else lies there: {os.listdir(disk)}")
    finally:
        subprocess.run(["umount", disk])

with harness.story("steps of the wall clock change no deadline and no watchdog") as story:
    model, image = story.digits(), harness.digits_images()[0][:1]
    for program in ("tersed", "terse-frontend", "terse-worker"):
        fault = harness.Fault(story.folder, program, "clock")
        tersed = story.tersed({"digits": model}, "--workers", 1, environment=fault.environment)
        client = harness.Client(tersed.endpoint)
        for _ in range(50):
            client.infer("digits", {"image": image}, timeout_us=10_000_000)
            header, _ = client.receive()
            story.check(header["status"] == "OK" and header["timing"]["queue_us"] < 10_000_000, f"{program}: {header}")
        client.infer("digits", {"image": image}, timeout_us=1)
        story.check(client.receive()[0]["status"] in ("DEADLINE_EXCEEDED", "OK"), f"{program}: a short one is answered")
        first = tersed.workers()[0]
        os.kill(first, 9)
        harness.wait_until(lambda: tersed.workers() not in ([first], []), f"{program}: the worker is replaced")
        if program == "tersed":  # the others have hardly a line to log
            story.check(fault.counts()[0] > 0, f"{program}: its clock was really wrong")
        story.check("hang" not in tersed.log() and "no sign of life" not in tersed.log(), f"{program}: nobody is taken for dead")
        story.check(tersed.stop() == 0, f"{program}: it ends")

harness.finish()
