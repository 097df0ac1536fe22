#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tersed starts with what is right and says in one line each what is not; nothing is left behind either way."""
import os
import re
import shutil
import signal
import socket
import stat
import subprocess

import harness

with harness.story("--check tells every mistake with file and line, and starts nothing") as story:
    path = os.path.join(story.folder, "t.conf")
    with open(path, "w") as file:
        file.write("[server]\nworkers = many\nlisten = tcp://0.0.0.0:5555\n[model a]\nfile = /nonexistent.terse\nspeed = 9\n")
    told = harness.run("tersed", "--config", path, "--check", code=1).stderr.splitlines()
    for line, words in (2, "workers: found 'many'"), (3, "insecure_tcp"), (5, "/nonexistent.terse"), (6, "speed: not known"):
        story.check(any(t.startswith(f"{path}:{line}: ") and words in t for t in told), f"line {line}: {words}")
    story.check(len(told) == 4, f"each mistake once: {told}")
    with open(path, "w") as file:
        file.write(f"[model a]\nfile = {story.digits()}\n")
    story.check("correct" in harness.run("tersed", "--config", path, "--check").stdout, "a right one is called so")

with harness.story("a drop-in directory: later files win, and each mistake has its file and line") as story:
    path = os.path.join(story.folder, "t.conf")

    def write(name, text):
        os.makedirs(path + ".d", exist_ok=True)
        with open(os.path.join(path + ".d", name) if name else path, "w") as file:
            file.write(text)
    os.symlink(story.digits(), os.path.join(path + ".terse"))
    write("", f"[server]\nlisten = ipc://{story.folder}/old.sock\nmax_batch = 8\n[model a]\nfile = t.conf.terse\nmax_batch = 4\n")
    write("20-b.conf", "[server]\nworkers = 1\n[model a]\nmax_batch = 3\n")
    write("10-a.conf", f"[server]\nlisten = ipc://{story.folder}/t.sock\nworkers = 7\n")
    write("30-c.conf.old", "[nonsense]\n")
    write(".30-c.conf", "[nonsense]\n")
    told = harness.run("tersed", "--config", path, "--check").stdout
    story.check(f"{path} and 2 of {path}.d: correct: 1 model, 1 worker" in told, told)
    endpoint = f"ipc://{story.folder}/t.sock"
    process = subprocess.Popen([harness.program("tersed"), "--config", path], stderr=subprocess.DEVNULL)
    try:
        status = harness.run_json("terse", "status", "-e", endpoint, "--connect-ms", "20000", "--wait-ms", "20000", "--json")
        most = harness.Client(endpoint).call("metadata", model="a")["max_batch"]
        story.check(most == 3 and len(status["workers"]) == 1, f"max_batch {most}, {status['workers']}")
        story.check(status["settings"]["workers"] == {"value": "1", "unit": "processes", "from": f"{path}.d/20-b.conf:2"},
                    status["settings"])
        story.check(not os.path.exists(f"{story.folder}/old.sock"), "listen of a later file takes the place of all before")
        write("40-d.conf", "[server]\nworkers = 2\n")
        harness.run("tersed", "--reload", process.pid)
        harness.wait_until(lambda: len(harness.run_json("terse", "status", "-e", endpoint, "--json")["workers"]) == 2, "a new one is read")
    finally:
        process.terminate()
        process.wait()
    write("40-d.conf", "[server]\nworkers = 2\nworkers = 3\n[model a]\nspeed = 1\n[model b]\n")
    told = harness.run("tersed", "--config", path, "--check", code=1).stderr.splitlines()
    for line, words in (3, "workers: set at line 2 already"), (5, "speed: not known"), (6, "no file"):
        story.check(any(t.startswith(f"{path}.d/40-d.conf:{line}: ") and words in t for t in told), f"line {line}: {told}")
    story.check(len(told) == 3, told)

with harness.story("usage is told from work that failed: exit 2 and exit 1") as story:
    harness.run("tersed", "--wrokers", "2", code=2)
    harness.run("tersed", "--workers", code=2)
    harness.run("tersed", "--workers", "0", "--model", f"a={story.digits()}", code=2)
    harness.run("tersed", "--model", "a", code=2)
    harness.run("tersed", "--model", "a=/nonexistent", code=1)
    harness.run("tersed", "--config", "/nonexistent", code=1)
    story.check("--max-batch" in harness.run("tersed", "--help").stdout, "--help lists the options")
    harness.run("tersed", "--version")

with harness.story("every bad model is named, then tersed ends with 1 and leaves no socket") as story:
    good = story.digits()
    bad = {"cut": lambda b: b[:len(b) // 2], "flipped": lambda b: b[:-100] + bytes([b[-100] ^ 1]) + b[-99:],
           "empty": lambda b: b"", "text": lambda b: b"hello\n" * 100}
    models = ["--model", f"good={good}"]
    with open(good, "rb") as file:
        content = file.read()
    for name, spoil in bad.items():
        path = os.path.join(story.folder, name + ".terse")
        with open(path, "wb") as file:
            file.write(spoil(content))
        models += ["--model", f"{name}={path}"]
    endpoint = os.path.join(story.folder, "t.sock")
    told = harness.run("tersed", *models, "--listen", f"ipc://{endpoint}", code=1).stderr
    for name in bad:
        story.check(len(re.findall(f"model '{name}' ", told)) == 1, f"model '{name}' is named once: {told}")
    story.check("4 of 5 models" in told, "and all are counted")
    story.check(not os.path.exists(endpoint), "no socket is left")

with harness.story("a live socket is respected, a stale one is replaced") as story:
    first = story.tersed({"digits": story.digits()})
    path = first.endpoint[len("ipc://"):]
    story.check(stat.S_IMODE(os.stat(path).st_mode) == 0o660, "the socket is for user and group")
    told = harness.run("tersed", "--model", f"digits={story.digits()}", "--listen", first.endpoint, code=1).stderr
    story.check("another tersed is listening" in told, told)
    story.check(first.status()["models"], "the first goes on answering")
    pids = [first.pid, *(pid for pid, _ in harness.children(first.pid))]
    first.process.kill()
    first.process.wait()
    harness.wait_until(lambda: not any(map(harness.alive, pids)), "a killed supervisor takes its children along")
    story.check(os.path.exists(path), "a killed one leaves its socket")
    second = story.tersed({"digits": story.digits()}, endpoint=first.endpoint)
    story.check(second.status()["models"], "the next one replaces it")
    story.check(second.stop() == 0 and not os.path.exists(path), "and removes it when it ends")

with harness.story("a model file that is replaced and truncated under a running daemon changes nothing") as story:
    path = story.digits()
    tersed = story.tersed({"digits": path})
    images = {"image": harness.digits_images()[0][:3]}
    before = tersed.infer("digits", images)
    os.truncate(path, 100)
    for pid in tersed.workers():
        os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: all(w["restarts"] for w in tersed.status()["workers"]), "new workers come")
    after = tersed.infer("digits", images)
    story.check(all((before[k] == after[k]).all() for k in before), "the same bits, from new workers too")

with harness.story("a directory of models is served, with settings for some of them") as story:
    folder = os.path.join(story.folder, "models")
    os.mkdir(folder)
    for name in "one", "two":
        shutil.copy(story.digits(), os.path.join(folder, f"{name}.terse"))
    config = os.path.join(story.folder, "t.conf")
    with open(config, "w") as file:
        file.write("[server]\nmodel_dir = models\nworkers = 1\n[model two]\nmax_batch = 2\n")
    tersed = story.tersed({}, "--config", config)
    client = harness.Client(tersed.endpoint)
    story.check(sorted(m["name"] for m in client.call("models")["models"]) == ["one", "two"], "both are served")
    story.check([client.call("metadata", model=m)["max_batch"] for m in ("one", "two")] == [32, 2], "each with its setting")
    story.check(len(tersed.workers()) == 1, "by one worker")
    client.close()

with harness.story("tcp on loopback and a passed-in socket are listened at") as story:
    passed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = os.path.join(story.folder, "passed.sock")
    passed.bind(path)
    passed.listen(8)

    def to_three():
        os.dup2(passed.fileno(), 3)

    def told_tcp(path):
        with open(path) as file:
            told = re.search(r"listening at (tcp://127\.0\.0\.1:[1-9]\d*)", file.read())
        return told and told.group(1)

    command = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', harness.program("tersed"), "--model",
               f"digits={story.digits()}", "--listen", "tcp://127.0.0.1:*"]
    log = os.path.join(story.folder, "log")
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=dict(os.environ, LISTEN_FDS="1"), preexec_fn=to_three, pass_fds=[3],
                                   stderr=file)
    try:
        for endpoint in f"ipc://{path}", None:
            if endpoint is None:
                endpoint = harness.wait_until(lambda: told_tcp(log), "the gate tells where it listens")
            harness.run("terse", "status", "-e", endpoint, "--connect-ms", "20000", "--wait-ms", "20000")
    finally:
        process.terminate()
        story.check(process.wait(harness.PATIENCE) == 0, "it ends well")
    story.check(os.path.exists(path), "a passed-in socket is the service manager's to remove")
    passed.close()

harness.finish()
