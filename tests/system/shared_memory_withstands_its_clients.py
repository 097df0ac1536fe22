# SPDX-License-Identifier: Apache-2.0
"""What a client may do to memory that it shares with the daemon, by mistake or on purpose: it harms itself at most."""
import json
import os
import random
import signal
import struct
import subprocess
import sys

import harness
import msgpack
import numpy

harness.look_into_children()

IMAGE, LOGITS = 64 * 4, 40
images = harness.digits_images()[0]


def request(arena, at=0, out=0, id=1, size=IMAGE, out_size=LOGITS, token=None, **more):
    return {"v": 1, "op": "infer", "id": id, "model": "digits", "arena": token or arena.token,
            "inputs": [{"name": "image", "dtype": "FP32", "shape": [1, 1, 8, 8], "shm": {"offset": at, "size": size}}],
            "outputs": [{"name": "logits", "shm": {"offset": out, "size": out_size}}], **more}


def daemon(story, *options, **settings):
    path = os.path.join(story.folder, "tersed.conf")
    with open(path, "w") as file:
        file.write("[server]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))
    tersed = story.tersed({"digits": story.digits()}, "--config", path, "--workers", "2", *options)
    harness.wait_until(lambda: all(w["state"] == "idle" for w in tersed.status()["workers"]), "both workers are there")
    return tersed


def healthy(story, tersed, expected, what):
    story.check((tersed.infer("digits", {"image": images[:1]})["logits"] == expected).all(), f"requests are answered after: {what}")


def stats(tersed):
    client = harness.Client(tersed.endpoint)
    try:
        return client.call("stats")
    finally:
        client.close()


def all_given_back(tersed):
    """No arena is left, and no worker has one mapped."""
    harness.wait_until(lambda: (lambda s: s["arenas"] + s["arenas_leaving"] + s["arena_bytes"] == 0)(stats(tersed)), "every arena is gone")
    for worker in tersed.workers():
        with open(f"/proc/{worker}/maps") as file:
            if "terse-arena" in file.read():
                return False
    return True


def changed(header, **more):
    header = dict(header, **more)
    return {k: v for k, v in header.items() if v is not None}


with harness.story("places that cannot be are refused by name, over ZeroMQ and through the ring") as story:
    tersed = daemon(story)
    expected = tersed.infer("digits", {"image": images[:1]})["logits"]
    arena, client = harness.Arena(tersed.endpoint, 8192, 8192), harness.Client(tersed.endpoint)
    arena.inputs[:IMAGE] = images[:1].tobytes()
    good = request(arena)
    both = request(arena)
    both["inputs"][0]["frame"] = 1
    two = request(arena)
    two["outputs"] = two["outputs"] * 2
    shape = request(arena)
    shape["inputs"][0]["shape"] = [2**40, 2**20, 8, 8]
    cases = [
        ("misaligned input", request(arena, at=32), "INVALID_ARGUMENT", "multiples of 64"),
        ("misaligned output", request(arena, out=8), "INVALID_ARGUMENT", "multiples of 64"),
        ("input beyond the end", request(arena, at=8192 - 64), "INVALID_ARGUMENT", "8192"),
        ("input far beyond", request(arena, at=1 << 47), "INVALID_ARGUMENT", "8192"),
        ("an offset that overflows", request(arena, at=2**64 - 64), "INVALID_ARGUMENT", "8192"),
        ("an offset that names another arena", request(arena, at=5 << 48), "INVALID_ARGUMENT", "8192"),
        ("output beyond the end", request(arena, out=8192), "INVALID_ARGUMENT", "8192"),
        ("an output that overflows", request(arena, out=2**64 - 64, out_size=128), "INVALID_ARGUMENT", "8192"),
        ("an output size that overflows", request(arena, out=64, out_size=2**64 - 1), "INVALID_ARGUMENT", "8192"),
        ("an input of another size", request(arena, size=IMAGE - 4), "INVALID_ARGUMENT", "needs 256 bytes"),
        ("a shape that overflows", shape, "INVALID_ARGUMENT", "image"),
        ("a frame and a place", both, "INVALID_ARGUMENT", "one"),
        ("an output twice", two, "INVALID_ARGUMENT", "twice"),
        ("an output too small", request(arena, out_size=36), "RESOURCE_EXHAUSTED", "needs 40 bytes"),
        ("an output of nothing", request(arena, out_size=0), "RESOURCE_EXHAUSTED", "needs 40 bytes"),
    ]
    socket_only = [
        ("no arena", changed(good, arena=None), "INVALID_ARGUMENT", "arena"),
        ("an unknown arena", request(arena, token=os.urandom(16)), "NOT_FOUND", "arena"),
        ("a token of 3 bytes", request(arena, token=b"abc"), "INVALID_ARGUMENT", "3 bytes"),
    ]
    ring_only = [
        ("another arena's token", request(arena, token=os.urandom(16)), "INVALID_ARGUMENT", "another shared memory"),
        ("an output without a place", changed(good, outputs=[{"name": "logits"}]), "INVALID_ARGUMENT", "no place"),
        ("no outputs", changed(good, outputs=None), "INVALID_ARGUMENT", "no place"),
        ("an input without a place", changed(good, inputs=[{"name": "image", "dtype": "FP32", "shape": [1, 1, 8, 8]}]), "INVALID_ARGUMENT", "image"),
        ("an unknown op", {"v": 1, "op": "dance", "id": 5}, "UNIMPLEMENTED", "dance"),
    ]
    for number, (what, header, status, word) in enumerate(cases + socket_only, 100):
        client.send(dict(header, id=number))
        reply = client.receive()[0]
        story.check(reply["id"] == number and reply["status"] == status and word in reply.get("error", ""), f"{what}: {reply}")
    for number, (what, header, status, word) in enumerate(cases + ring_only, 200):
        arena.submit(dict(header, id=number))
        reply = arena.complete()
        story.check(reply["id"] == number and reply["status"] == status and word in reply.get("error", "") and "retry_after_ms" not in reply,
                    f"ring: {what}: {reply}")
    arena.submit(dict(good, arena=arena.token, id=9))
    story.check(arena.complete()["status"] == "OK" and (numpy.frombuffer(bytes(arena.outputs[:LOGITS]), "f4") == expected[0]).all(), "a good one is answered after all that")
    arena.close()
    story.check(all_given_back(tersed), "all memory is given back")

with harness.story("outputs of unanswered requests belong to nobody else") as story:
    tersed = daemon(story, "--batch-timeout-us", "400000")
    arena = harness.Arena(tersed.endpoint)
    arena.submit(request(arena, id=1, out=128, out_size=256))
    for number, out in enumerate((128, 192, 320, 64), 2):
        arena.submit(request(arena, id=number, out=out, out_size=128))
    replies = {r["id"]: r["status"] for r in (arena.complete() for _ in range(5))}
    story.check(replies == {1: "OK", 2: "INVALID_ARGUMENT", 3: "INVALID_ARGUMENT", 4: "INVALID_ARGUMENT", 5: "INVALID_ARGUMENT"}, f"what overlaps is refused: {replies}")
    arena.submit(request(arena, id=6, out=128))
    story.check(arena.complete()["status"] == "OK", "after the answer the place is free")

with harness.story("attaching: quotas, bad requests, connections that ask nothing") as story:
    tersed = daemon(story, arenas_per_uid=3, arena_bytes_per_uid="1M")
    path = tersed.endpoint[len("ipc://"):] + ".attach"
    import socket
    idle = []
    for _ in range(80):  # more than are kept
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(path)
        idle.append(s)
    for what, data, status in (("garbage", b"\xc1\x00\xff", "INVALID_ARGUMENT"), ("an array", msgpack.packb([1, 2]), "INVALID_ARGUMENT"),
                               ("no sizes", msgpack.packb({"op": "attach"}), "INVALID_ARGUMENT"), ("too long", bytes(5000), "INVALID_ARGUMENT"),
                               ("another op", msgpack.packb({"op": "rob", "input_bytes": 1, "output_bytes": 1}), "UNIMPLEMENTED"),
                               ("another version", msgpack.packb({"v": 2, "op": "attach", "input_bytes": 1, "output_bytes": 1}), "INVALID_ARGUMENT"),
                               ("a negative size", msgpack.packb({"op": "attach", "input_bytes": -1, "output_bytes": 1}), "INVALID_ARGUMENT"),
                               ("far too much", msgpack.packb({"op": "attach", "input_bytes": 2**63, "output_bytes": 2**63}), "INVALID_ARGUMENT")):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(harness.PATIENCE)
        s.connect(path)
        s.send(data)
        answer = msgpack.unpackb(s.recv(4096))
        story.check(answer["status"] == status and answer["error"], f"{what}: {answer}")
        story.check(s.recv(10) == b"", f"{what}: then the connection ends")
    arenas = [harness.Arena(tersed.endpoint, 1, 1) for _ in range(3)]
    story.check(all(a.answer["status"] == "OK" and a.answer["input_bytes"] == 4096 for a in arenas), "sizes are rounded up to pages")
    story.check(len({a.token for a in arenas}) == 3, "tokens differ")
    fourth = harness.Arena(tersed.endpoint, 1, 1).answer
    story.check(fourth["status"] == "RESOURCE_EXHAUSTED" and "arenas_per_uid" in fourth["error"], fourth)
    arenas.pop().close()
    harness.wait_until(lambda: stats(tersed)["arenas"] == 2, "the closed one is gone")
    large = harness.Arena(tersed.endpoint, 1 << 20, 1).answer
    story.check(large["status"] == "RESOURCE_EXHAUSTED" and "arena_bytes_per_uid" in large["error"], large)
    for fd in arenas[0].fds[:3]:
        try:
            os.ftruncate(fd, 0)
            story.check(False, "the memory cannot be shrunk")
        except OSError:
            pass
    arenas[0].connection.send(b"more")
    story.check(msgpack.unpackb(arenas[0].connection.recv(4096))["status"] == "INVALID_ARGUMENT", "a second question")
    healthy(story, tersed, tersed.infer("digits", {"image": images[:1]})["logits"], "attaching")
    for a in arenas:
        a.close()
    story.check(all_given_back(tersed), "all memory is given back")

with harness.story("a token is of no use to another user") as story:
    if not harness.may_become(65534):
        raise harness.Skip("only root can become another user")
    tersed = daemon(story, listen_mode="0777")
    arena = harness.Arena(tersed.endpoint)
    for folder in (story.folder, tersed.folder):
        os.chmod(folder, 0o755)
    child = subprocess.run([sys.executable, "-c", f"""
import os, sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
import harness, msgpack, zmq
os.setgid(65534); os.setuid(65534)
client = harness.Client({tersed.endpoint!r})
client.send(msgpack.unpackb(bytes.fromhex({msgpack.packb(request(arena)).hex()!r})))
print(client.receive()[0]["status"])"""], capture_output=True, text=True)
    story.check(child.stdout.strip() == "PERMISSION_DENIED", f"{child.stdout} {child.stderr[-500:]}")

with harness.story("what lies in the rings may be anything") as story:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"# seed {seed}")
    rng = random.Random(seed)
    tersed = daemon(story)
    expected = tersed.infer("digits", {"image": images[:1]})["logits"]
    frontend, workers = tersed.frontend(), tersed.workers()
    arena = harness.Arena(tersed.endpoint)
    for _ in range(200):  # entries that are no requests cost their sender an answer at most
        arena.submit(rng.randbytes(rng.randrange(0, 200)))
    arena.submit({"v": 1, "op": "live", "id": 12345})
    harness.wait_until(lambda: arena.complete()["id"] == 12345, "a good request behind them is answered")
    good = bytearray(msgpack.packb(request(arena, id=1)))
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        arena.submit(bytes(bad))
        while arena.complete(0.002):
            pass
    arena.submit({"v": 1, "op": "live", "id": 54321})
    harness.wait_until(lambda: arena.complete()["id"] == 54321, "and behind damaged ones")
    arena.close()
    def broken(what, act):
        victim = harness.Arena(tersed.endpoint)
        act(victim)
        story.check(victim.connection.recv(10) == b"", f"{what}: the daemon lets go")
        victim.close()
    ring = lambda a: os.write(a.fds[3], struct.pack("<Q", 1))
    broken("a length beyond the entry", lambda a: a.submit(b"x", length=1 << 20))
    broken("the largest length", lambda a: a.submit(b"x", length=2**32 - 1))
    broken("a position beyond the ring", lambda a: (a.word(0, 1, 1 << 40), ring(a)))
    broken("a position before the start", lambda a: (a.word(0, 1, 2**64 - 8), ring(a)))
    broken("a position that is no multiple of 8", lambda a: (a.word(0, 1, 12), ring(a)))
    broken("completions taken that were never there", lambda a: (a.word(1, 0, 1 << 40), a.submit({"v": 1, "op": "live", "id": 1})))
    for _ in range(50):
        random_one = harness.Arena(tersed.endpoint)
        for _ in range(10):
            random_one.word(rng.randrange(2), rng.randrange(4), rng.choice([rng.getrandbits(64), rng.randrange(0, 1 << 18, 8), 0]))
            ring(random_one)
        random_one.close()
    healthy(story, tersed, expected, "positions that cannot be")
    story.check(tersed.frontend() == frontend and tersed.workers() == workers, "nothing died")
    story.check(all_given_back(tersed), "all memory is given back")

with harness.story("a full completion ring waits for its reader") as story:
    tersed = daemon(story)
    expected = tersed.infer("digits", {"image": images[:1]})["logits"]
    arena = harness.Arena(tersed.endpoint)
    names = "x" * 300  # long replies fill the ring
    for i in range(2000):
        arena.submit({"v": 1, "op": names, "id": i}, ring=i % 50 == 49)
        if i % 200 == 199:
            harness.wait_until(lambda: arena.word(0, 0) == arena.submitted, "the front end takes what is submitted")
    harness.wait_until(lambda: arena.word(0, 0) == arena.submitted, "the front end has taken everything")
    story.check(arena.word(1, 1) - arena.word(1, 0) > arena.ring_bytes - 400, "the ring is full")
    healthy(story, tersed, expected, "a full ring")
    ids = []
    while len(ids) < 2000 and (reply := arena.complete(10)):
        ids.append(reply["id"])
        if len(ids) % 100 == 0:
            os.write(arena.fds[3], struct.pack("<Q", 1))
    story.check(ids == list(range(2000)), f"every reply comes once and in order: {len(ids)}")

with harness.story("a client that stands still gets every answer once it goes on, however many there are") as story:
    tersed = daemon(story, "--hang-timeout-ms", "600000", max_queue=20000, max_client_outstanding=20000)
    for pid in tersed.workers():
        os.kill(pid, signal.SIGSTOP)
    digits = lambda: stats(tersed)["models"]["digits"]
    asked = 10000  # the refusals of so many are several times what the ring holds
    bench = subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "digits", "--shm", "-c", str(asked), "-n", str(asked),
                              "--timeout-ms", "5000", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    harness.wait_until(lambda: digits()["requests"] == asked, "all were asked for")
    bench.send_signal(signal.SIGSTOP)
    harness.wait_until(lambda: sum(digits()["errors"].values()) > asked - 1000, "the time of those that wait is over")
    bench.send_signal(signal.SIGCONT)
    for pid in tersed.workers():
        os.kill(pid, signal.SIGCONT)
    out, err = bench.communicate(timeout=harness.PATIENCE)
    result = json.loads(out) if out else {}
    story.check(result.get("ok", 0) + sum(result.get("errors", {}).values()) == asked, f"each has its answer: {result} {err}")
    story.check(stats(tersed)["dropped_replies"] == 0 and stats(tersed)["dropped_clients"] == 0, "none was lost")

with harness.story("a client that stands still for too long is let go; it attaches again and asks again") as story:
    if harness.BUILD.endswith("tsan"):
        raise harness.Skip("a worker that ThreadSanitizer watches is so slow that requests are refused before so many wait")
    tersed = daemon(story, "--hang-timeout-ms", "600000")
    bench = subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "digits", "--shm", "-c", "8000", "-n", "40000", "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    harness.wait_until(lambda: stats(tersed)["served"] > 100, "requests are served")
    workers = tersed.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    harness.wait_until(lambda: stats(tersed)["queued"] > 4000, "more wait than the ring has room for replies")
    bench.send_signal(signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    harness.wait_until(lambda: stats(tersed)["dropped_clients"] == 1, "it has read nothing for ten seconds")
    story.check(stats(tersed)["arenas"] == 0 and "has read no reply for 10 s: dropped" in tersed.log(), "its memory is free again")
    bench.send_signal(signal.SIGCONT)
    out, err = bench.communicate(timeout=harness.PATIENCE)
    result = json.loads(out) if out else {}
    story.check(result.get("ok", 0) + sum(result.get("errors", {}).values()) == 40000, f"each has its answer: {result} {err}")

with harness.story("detaching and dying while requests run or wait") as story:
    tersed = daemon(story)
    expected = tersed.infer("digits", {"image": images[:1]})["logits"]
    frontend, workers = tersed.frontend(), tersed.workers()
    client = harness.Client(tersed.endpoint)
    for turn in range(30):
        arena = harness.Arena(tersed.endpoint)
        for i in range(64):
            arena.submit(request(arena, id=i, out=64 * i), ring=i % 7 == 0 or i == 63)
        client.send(request(arena, id=turn, out=8192))
        arena.close()
        reply = client.receive()[0]
        story.check(reply["id"] == turn and reply["status"] in ("OK", "CANCELLED", "NOT_FOUND"), f"requests over ZeroMQ are answered: {reply}")
    for _ in range(5):
        child = subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "digits", "--shm", "-c", "128", "-d", "60"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        harness.wait_until(lambda: stats(tersed)["arenas"] == 1, "the client has attached")
        served = stats(tersed)["served"]
        harness.wait_until(lambda: stats(tersed)["served"] > served + 500, "and is served")
        child.send_signal(signal.SIGKILL)
        child.wait()
        harness.wait_until(lambda: stats(tersed)["arenas"] == 0, "its memory is let go at once")
    healthy(story, tersed, expected, "dead clients")
    story.check(tersed.frontend() == frontend and tersed.workers() == workers, "nothing of ours died")
    story.check(all_given_back(tersed), "all memory is given back")

with harness.story("workers read a client's inputs and cannot write there") as story:
    tersed = daemon(story)
    arena = harness.Arena(tersed.endpoint)
    for i in range(20):
        arena.submit(request(arena, id=i))
        arena.complete()
    mapped = 0
    for worker in tersed.workers():
        with open(f"/proc/{worker}/maps") as file:
            for line in file:
                if "terse-arena-inputs" in line:
                    mapped += 1
                    story.check(line.split()[1] == "r--s", line)
    story.check(mapped > 0, "a worker has mapped it")

with harness.story("front ends and workers die under a client that shares memory: each request is answered once, with the right bits") as story:
    tersed = daemon(story)
    seconds = "20" if harness.BUILD.endswith("tsan") else "4"
    bench = subprocess.Popen([harness.program("terse"), "bench", "-e", tersed.endpoint, "digits", "--shm", "-c", "16", "-d", seconds, "--verify", "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    harness.wait_until(lambda: stats(tersed)["served"] > 100, "requests are served")
    killed = 0
    while bench.poll() is None:
        name = "terse-frontend" if killed % 3 == 2 else "terse-worker"
        found = [pid for pid, n in harness.children(tersed.pid) if n.startswith(name)]
        if found:
            os.kill(random.choice(found), signal.SIGKILL)
            killed += 1
        try:
            bench.wait(0.3)
        except subprocess.TimeoutExpired:
            pass
    out, err = bench.communicate()
    result = json.loads(out) if out else {}
    story.check(bench.returncode == 0 and result.get("ok", 0) > 100 and not result.get("errors") and result["mismatches"] == 0, f"{killed} killed: {result} {err}")
    story.check(killed >= 6, f"{killed} were killed")

harness.finish()
