#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Models are loaded, replaced and taken away while requests come, and whatever is wrong with a new one changes nothing."""
import os
import signal
import subprocess
import threading

import numpy

import harness
import onnx_writer
from harness import wait_until

harness.look_into_children()


def dense(story, name, seed, sizes=(16, 64, 10)):
    """A perceptron with random weights: another one, with other answers, for each seed."""
    rng = numpy.random.default_rng(seed)
    nodes, constants, x = [], {}, "x"
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        constants[f"w{i}"] = (rng.standard_normal((a, b)) * (2 / a)**0.5).astype("f4")
        last = i == len(sizes) - 2
        nodes.append(("Gemm", [x, f"w{i}"], ["y" if last else f"g{i}"], {}))
        if not last:
            nodes.append(("Relu", [f"g{i}"], [f"r{i}"], {}))
        x = f"r{i}"
    path = os.path.join(story.folder, f"{name}.onnx")
    onnx_writer.write(path, inputs=[("x", "f4", ["N", sizes[0]])], outputs=[("y", "f4", ["N", sizes[-1]])], nodes=nodes,
                      constants=constants)
    return story.compress(path)


def reference(story, file, x):
    numpy.savez(f"{story.folder}/in.npz", x=x)
    harness.run("terse", "run", file, f"{story.folder}/in.npz", "-o", f"{story.folder}/out.npz")
    with numpy.load(f"{story.folder}/out.npz") as out:
        return out["y"].tobytes()


def load(tersed, name, file, version=None, code=0):
    """Exit code 0: the printed line; 1: the reason."""
    more = ["--model-version", version] if version else []
    done = harness.run("terse", "load", "-e", tersed.endpoint, name, file, *more, code=code)
    return done.stderr if code else done.stdout


def models(tersed):
    return {m["name"]: (m["version"], m["state"]) for m in tersed.status()["models"]}


def settled(tersed):
    """Nothing is on its way in or out."""
    return not tersed.status()["changes"]


def mappings(pid):
    """Models mapped by a process, by inode: names have none."""
    with open(f"/proc/{pid}/maps") as file:
        return {line.split()[4] for line in file if "terse-model" in line}


def memories(pid):
    """Models held open by a process, by inode."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "terse-model" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                found.add(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
        except OSError:
            pass
    return found


class Load:
    """Clients that ask one model all the time and compare every answer, bit for bit, with those of its versions."""

    def __init__(self, tersed, name, x, answers, clients=3, depth=4):
        self.stopping, self.wrong, self.done, self.seen = threading.Event(), [], 0, {}
        self.threads = [threading.Thread(target=self.ask, args=(tersed.endpoint, name, x, answers, depth)) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self, endpoint, name, x, answers, depth):
        client = harness.Client(endpoint)
        waiting = 0
        while waiting or not self.stopping.is_set():
            while waiting < depth and not self.stopping.is_set():
                client.infer(name, {"x": x})
                waiting += 1
            reply = client.receive()
            if reply is None:
                self.wrong.append("no reply")
                break
            waiting -= 1
            header, frames = reply
            if header["status"] != "OK" or frames[0] != answers[header["version"]]:
                self.wrong.append({k: header.get(k) for k in ("status", "error", "version")})
            else:
                self.done += 1
                self.seen[header["version"]] = self.seen.get(header["version"], 0) + 1
        client.close()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.wrong


X = numpy.random.default_rng(7).standard_normal((1, 16)).astype("f4")

with harness.story("twenty reloads under load: no request is lost, every answer is that of one version or the other") as story:
    files = {"1": dense(story, "one", 1), "2": dense(story, "two", 2)}
    answers = {version: reference(story, file, X) for version, file in files.items()}
    story.check(answers["1"] != answers["2"], "the versions answer differently")
    tersed = story.tersed({"m": files["1"]}, "--workers", 2)
    under_load = Load(tersed, "m", X, answers)
    client = harness.Client(tersed.endpoint)
    for i in range(20):
        version = "21"[i % 2]
        before = under_load.done
        load(tersed, "m", files[version], version)
        client.infer("m", {"x": X})
        header, frames = client.receive()
        story.check(header["version"] == version and frames[0] == answers[version],
                    f"after load {i} version {version} answers: {header}")
        wait_until(lambda: under_load.done > before, "requests are answered")
    wrong = under_load.stop()
    story.check(not wrong, f"{len(wrong)} answers are wrong: {wrong[:3]}")
    story.check(set(under_load.seen) == {"1", "2"}, f"both versions answered: {under_load.seen}")
    wait_until(lambda: settled(tersed), "old versions are gone")
    story.check(models(tersed) == {"m": ("1", "ready")}, f"{models(tersed)}")
    story.check(tersed.status()["models"][0]["ok"] == under_load.done + 20, "counters go on from version to version")
    story.check(len(memories(tersed.pid)) == 1, f"the supervisor keeps one memory: {memories(tersed.pid)}")
    for pid in tersed.workers():
        story.check(len(mappings(pid)) == 1, f"worker {pid} maps one model: {mappings(pid)}")
    client.infer("m", {"x": X}, version="2")
    story.check(client.receive()[0]["status"] == "NOT_FOUND", "a version that does not serve is not found")
    client.infer("m", {"x": X}, version="1")
    story.check(client.receive()[0]["status"] == "OK", "that which serves is")

with harness.story("a new name joins, an old one leaves, and its memory is given up everywhere") as story:
    a, b = dense(story, "a", 3), dense(story, "b", 4)
    tersed = story.tersed({"a": a}, "--workers", 2)
    frontend = tersed.frontend()
    load(tersed, "b", b, "7")
    story.check(models(tersed) == {"a": ("1", "ready"), "b": ("7", "ready")}, f"{models(tersed)}")
    story.check(tersed.infer("b", {"x": X})["y"].tobytes() == reference(story, b, X), "the new one answers")
    story.check(len(memories(tersed.pid)) == 2, "two memories")
    told = harness.run("terse", "unload", "-e", tersed.endpoint, "a").stdout
    story.check("not served any more" in told, told)
    story.check(models(tersed) == {"b": ("7", "ready")}, f"{models(tersed)}")
    story.check(len(memories(tersed.pid)) == 1 and len(memories(frontend)) == 1, "one memory is left")
    for pid in tersed.workers():
        story.check(len(mappings(pid)) == 1, f"worker {pid} maps one model")
    told = harness.run("terse", "unload", "-e", tersed.endpoint, "a", code=1).stderr
    story.check("no model 'a' is served" in told, told)
    harness.run("terse", "unload", "-e", tersed.endpoint, "b")
    story.check(models(tersed) == {} and not memories(tersed.pid), "the last one may go as well")
    os.kill(tersed.workers()[0], signal.SIGKILL)
    wait_until(lambda: [w["state"] for w in tersed.status()["workers"]] == ["idle", "idle"], "a worker comes back to nothing")
    load(tersed, "a", a)
    story.check(tersed.infer("a", {"x": X})["y"].tobytes() == reference(story, a, X), "and a model comes again")

with harness.story("a file that is wrong changes nothing, and both client and log are told why") as story:
    good, other = dense(story, "good", 5), dense(story, "other", 6)
    with open(good, "rb") as file:
        bytes_ = file.read()

    def spoiled(name, data, size=None):
        path = os.path.join(story.folder, name)
        with open(path, "wb") as file:
            file.write(data)
            if size:
                file.truncate(size)
        return path

    middle = len(bytes_) * 3 // 4
    cases = [("no file", os.path.join(story.folder, "good.onnx"), "is not a .terse file"),
             ("an empty file", spoiled("empty.terse", b""), "is no regular file of 1 to"),
             ("a folder", story.folder, "is no regular file"),
             ("a truncated one", spoiled("cut.terse", bytes_[:-64]), "states"),
             ("a damaged one", spoiled("damaged.terse", bytes_[:middle] + bytes([bytes_[middle] ^ 1]) + bytes_[middle + 1:]),
              "XXH3"),
             ("another format", spoiled("version.terse", bytes_[:8] + b"\x63" + bytes_[9:]), "format version 99"),
             ("more than there is memory for", spoiled("huge.terse", bytes_, 1 << 43), "bytes"),
             ("what cannot be opened", "/proc/1/mem", "")]
    tersed = story.tersed({"m": good}, "--workers", 2)
    under_load = Load(tersed, "m", X, {"1": reference(story, good, X)}, clients=1)
    for what, path, reason in cases:
        for name in "m", "new":
            told = load(tersed, name, path, "2", code=1)
            story.check(reason in told and told.startswith("terse load: "), f"{what}: '{reason}' in {told!r}")
        story.check(f"load 'm' from '{os.path.realpath(path)}': nothing has changed: " in tersed.log(), f"{what}: the log")
    story.check(models(tersed) == {"m": ("1", "ready")}, f"{models(tersed)}")
    story.check(len(memories(tersed.pid)) == 1, "nothing is left of them")
    story.check("1 to 15" in load(tersed, "m", good, "x" * 16, code=1), "a version is 15 bytes at most")
    story.check(not under_load.stop(), f"{under_load.wrong[:3]}")
    client = harness.Client(tersed.endpoint)
    reply = client.call("load", model="m", file="good.terse")
    story.check(reply["status"] == "INVALID_ARGUMENT" and "absolute" in reply["error"], f"{reply}")

HELPER = """#!/usr/bin/python3
import os, signal, sys, time
if {when}:
    {what}
os.execv({real!r}, sys.argv)
"""


def helpers(story, **fakes):
    """A folder of our programs, some with a beginning of their own: name = (when, what)."""
    folder = os.path.join(story.folder, f"libexec{len(os.listdir(story.folder))}")
    os.makedirs(folder)
    for name in os.listdir(harness.BUILD):
        path, real = os.path.join(folder, name), os.path.abspath(harness.program(name))
        if not name.startswith("terse-"):
            continue
        fake = fakes.get(name.replace("terse-", ""))
        if not fake:
            os.symlink(real, path)
            continue
        with open(path, "w") as file:
            file.write(HELPER.format(when=fake[0], what=fake[1], real=real))
        os.chmod(path, 0o755)
    return folder


with harness.story("a loader or a trial that dies or hangs costs its load only") as story:
    one, two = dense(story, "one", 1), dense(story, "two", 2)
    flag, config = os.path.join(story.folder, "flag"), os.path.join(story.folder, "t.conf")
    with open(config, "w") as file:
        file.write("[server]\nload_timeout_ms = 8000\nwarm_timeout_ms = 8000\n")
    broken, trial = f"os.path.exists({flag!r})", f"os.path.exists({flag!r}) and sys.argv[1] == 'trial'"
    for fakes, reason in (({"loader": (broken, "os.abort()")}, "its loader ended with signal 6"),
                          ({"loader": (broken, "time.sleep(1000)")}, "not loaded after 8000 ms"),
                          ({"worker": (trial, "os.kill(os.getpid(), signal.SIGSEGV)")}, "ran it once ended with signal 11"),
                          ({"worker": (trial, "os.kill(os.getpid(), signal.SIGKILL)")}, "where memory is short"),
                          ({"worker": (trial, "time.sleep(1000)")}, "took more than 8000 ms")):
        tersed = story.tersed({"m": one}, "--workers", 2, "--config", config, "--libexec", helpers(story, **fakes))
        wait_until(lambda: all(w["state"] == "idle" for w in tersed.status()["workers"]), "both workers are there")
        workers = tersed.workers()
        open(flag, "w").close()
        told = load(tersed, "m", two, "2", code=1)
        story.check(reason in told, f"{reason}: {told}")
        os.unlink(flag)
        story.check(models(tersed) == {"m": ("1", "ready")} and len(memories(tersed.pid)) == 1, "nothing has changed")
        story.check(tersed.workers() == workers and all(w["restarts"] == 0 for w in tersed.status()["workers"]),
                    "no worker paid for it")
        load(tersed, "m", two, "2")
        story.check(models(tersed) == {"m": ("2", "ready")}, "once its cause is gone it loads")
        wait_until(lambda: len(harness.children(tersed.pid)) == 3, "loaders and trials are gone")
        tersed.stop()

with harness.story("workers and front ends die before, during and after loads: none is left half done") as story:
    files = {"1": dense(story, "one", 1), "2": dense(story, "two", 2)}
    answers = {version: reference(story, file, X) for version, file in files.items()}
    tersed = story.tersed({"m": files["1"]}, "--workers", 3)
    client = [None]
    for i in range(12):
        version = "21"[i % 2]
        process = subprocess.Popen([harness.program("terse"), "load", "-e", tersed.endpoint, "m", files[version],
                                    "--model-version", version], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        if i % 4 == 3:
            victim = tersed.frontend()
        else:
            found = [pid for pid, name in harness.children(tersed.pid) if name.startswith("terse-worker")]
            victim = found[i % len(found)] if found else None
        try:
            if victim:
                os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
        told = process.communicate(timeout=harness.PATIENCE)[1]
        # What was killed may have been the trial itself: then the load has failed and says so.
        story.check(process.returncode == 0 or "memory is short" in told, f"load {i}: {told}")
        version = models(tersed)["m"][0] if process.returncode else version
        wait_until(lambda: all(w["state"] == "idle" for w in tersed.status()["workers"]), "all workers are back")
        for _ in range(6):
            story.check(tersed.infer("m", {"x": X})["y"].tobytes() == answers[version], f"version {version} answers")
            break
        wait_until(lambda: settled(tersed), "nothing is on its way")
        story.check(models(tersed) == {"m": (version, "ready")}, f"{models(tersed)}")
    wait_until(lambda: len(memories(tersed.pid)) == 1, "one memory is left")
    for pid in tersed.workers():
        story.check(len(mappings(pid)) == 1, f"worker {pid} maps one model")

with harness.story("loads that come together are done one after the other, and indices are used again") as story:
    files = [dense(story, f"f{i}", i) for i in range(3)]
    tersed = story.tersed({"m": files[0]}, "--workers", 2)
    clients = [harness.Client(tersed.endpoint) for _ in range(6)]
    for i, client in enumerate(clients):
        client.send({"v": 1, "op": "load", "id": 1, "model": "m", "file": files[i % 3], "version": str(i)})
    story.check(all(client.receive()[0]["status"] == "OK" for client in clients), "each is answered OK")
    wait_until(lambda: settled(tersed), "nothing is on its way")
    final = models(tersed)["m"][0]
    story.check(tersed.infer("m", {"x": X})["y"].tobytes() == reference(story, files[int(final) % 3], X), "the last one serves")
    for first in range(0, 255, 51):
        for i in range(first, first + 51):
            clients[0].send({"v": 1, "op": "load", "id": 10 + i, "model": f"n{i}", "file": files[1]})
        replies = [clients[0].receive()[0] for _ in range(51)]
        bad = [reply for reply in replies if reply["status"] != "OK"]
        story.check(not bad, f"{len(bad)} loads of new names failed: {bad[:2]}")
    reply = clients[0].call("load", model="one too many", file=files[1])
    story.check(reply["status"] == "RESOURCE_EXHAUSTED" and "256 models are served, allowed: 256" in reply["error"], f"{reply}")
    story.check(clients[0].call("load", model="m", file=files[2])["status"] == "OK", "a new version finds room")
    story.check(len(clients[0].call("models")["models"]) == 256, "256 are served")
    bad = [reply for reply in (clients[0].call("unload", model=f"n{i}") for i in range(255)) if reply["status"] != "OK"]
    story.check(not bad, f"{len(bad)} unloads failed: {bad[:2]}")
    story.check(models(tersed) == {"m": ("1", "ready")} and len(memories(tersed.pid)) == 1, "one is left")

with harness.story("settings change, and the number of workers, while requests come") as story:
    one = dense(story, "one", 1)
    tersed = story.tersed({"m": one, "n": one}, "--workers", 2)
    under_load = Load(tersed, "m", X, {"1": reference(story, one, X)})
    client = harness.Client(tersed.endpoint)
    reply = client.call("configure", model="m", max_batch=4, batch_timeout_us=100)
    story.check((reply["status"], reply["max_batch"], reply["batch_timeout_us"], reply["workers"]) == ("OK", 4, 100, 2), f"{reply}")
    story.check(client.call("metadata", model="m")["max_batch"] == 4 and client.call("metadata", model="n")["max_batch"] == 32,
                "of that model only")
    story.check(client.call("configure", max_batch=8)["status"] == "OK", "for all")
    story.check({client.call("metadata", model=name)["max_batch"] for name in "mn"} == {8}, "of both")
    os.kill(tersed.frontend(), signal.SIGKILL)
    wait_until(lambda: tersed.infer("m", {"x": X}), "another front end")
    client = harness.Client(tersed.endpoint)
    story.check(client.call("metadata", model="m")["max_batch"] == 8, "the next front end knows")
    for setting, value in (("workers", 0), ("workers", 257), ("max_batch", 0), ("max_batch", 1025), ("batch_timeout_us", 10**7 + 1)):
        reply = client.call("configure", **{setting: value})
        story.check(reply["status"] == "INVALID_ARGUMENT" and setting in reply["error"], f"{reply}")
    story.check(client.call("configure", model="none", max_batch=1)["status"] == "NOT_FOUND", "a model that is not served")
    for n in 5, 1, 3, 2:
        harness.run("terse", "configure", "-e", tersed.endpoint, "--workers", n)
        wait_until(lambda: [w["state"] for w in tersed.status()["workers"] if w["state"] in ("idle", "busy")].__len__() == n
                   and len(tersed.status()["workers"]) == n, f"{n} workers")
        wait_until(lambda: len(harness.children(tersed.pid)) == n + 1, f"{n} processes")
    story.check(all(w["restarts"] == 0 for w in tersed.status()["workers"]), "none of them died")
    # Of the front end that was killed nobody here asks again; from then on nothing is lost.
    story.check(not [w for w in under_load.stop() if w != "no reply"], f"{under_load.wrong[:3]}")

with harness.story("SIGHUP brings about what the configuration says, or nothing when there is a mistake in it") as story:
    files = [dense(story, f"f{i}", i) for i in range(4)]
    answers = [reference(story, file, X) for file in files]
    config, served = os.path.join(story.folder, "t.conf"), os.path.join(story.folder, "served.terse")

    def write(text):
        with open(config, "w") as file:
            file.write(text)

    def hang_up(tersed):
        """Waits until it is done; what the log says of it."""
        before = len(tersed.log())
        tersed.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP: done" in tersed.log()[before:], "SIGHUP is done")
        return tersed.log()[before:]

    def replace(file):
        os.link(file, served + ".new")
        os.rename(served + ".new", served)

    os.link(files[0], served)
    write("[server]\nworkers = 2\n[model a]\nfile = served.terse\n[model b]\nfile = f1.terse\nmax_batch = 4\n")
    tersed = story.tersed({}, "--config", config)
    under_load = Load(tersed, "b", X, {"1": answers[1], "2": answers[1]}, clients=1)
    story.check("serves (" not in hang_up(tersed), "without a change nothing is loaded")
    replace(files[2])
    story.check(tersed.infer("a", {"x": X})["y"].tobytes() == answers[0], "a file that was replaced changes nothing by itself")
    said = hang_up(tersed)
    story.check(tersed.infer("a", {"x": X})["y"].tobytes() == answers[2] and said.count("serves (") == 1, f"but with SIGHUP: {said}")
    write("[server]\nworkers = 3\nlisten_mode = 0600\n[model c]\nfile = f3.terse\nversion = 9\n[model b]\nfile = f1.terse\nmax_batch = 5\n"
          "version = 2\n")
    said = hang_up(tersed)
    story.check("listen_mode is another now: that wants a restart" in said, said)
    story.check(models(tersed) == {"b": ("2", "ready"), "c": ("9", "ready")}, f"{models(tersed)}")
    client = harness.Client(tersed.endpoint)
    story.check(client.call("metadata", model="b")["max_batch"] == 5, "settings are set")
    wait_until(lambda: len(tersed.status()["workers"]) == 3, "a third worker")
    load(tersed, "hand", files[0])
    load(tersed, "c", files[0], "by hand")
    write("[server]\nworkers = 1\n[model b]\nfile = f1.terse\nmax_batch = 0\n[model d]\nfile = none.terse\n")
    said = hang_up(tersed)
    story.check(f"{config}:5: max_batch" in said and "none.terse" in said and "nothing changes" in said, said)
    story.check(models(tersed) == {"b": ("2", "ready"), "c": ("by hand", "ready"), "hand": ("1", "ready")}, f"{models(tersed)}")
    with open(files[3], "r+b") as file:
        file.truncate(100)
    write("[server]\nworkers = 2\n[model c]\nfile = f3.terse\nversion = 9\n[model b]\nfile = f1.terse\nversion = 2\n")
    said = hang_up(tersed)
    story.check("load 'c'" in said and "nothing has changed" in said, f"a bad file fails for itself: {said}")
    story.check(models(tersed) == {"b": ("2", "ready"), "c": ("by hand", "ready"), "hand": ("1", "ready")}, f"{models(tersed)}")
    story.check("load 'c'" in hang_up(tersed), "and is tried again")
    wrong = under_load.stop()
    story.check(not wrong, f"{wrong[:3]}")

with harness.story("only root and the daemon's own user may do so, and only over ipc") as story:
    tersed = story.tersed({"digits": story.digits()}, "--listen", "tcp://127.0.0.1:*")
    port = wait_until(lambda: [w for w in tersed.log().split() if w.startswith("tcp://127.0.0.1:")], "its port")[0]
    client = harness.Client(port)
    for op in "load", "unload", "configure":
        reply = client.call(op, model="digits", file="/x")
        story.check(reply["status"] == "PERMISSION_DENIED", f"{op} over tcp: {reply}")
    story.check(models(tersed) == {"digits": ("1", "ready")}, "nothing has changed")

harness.finish()
