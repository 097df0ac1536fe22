#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse top: what the terminal shows is what the daemon does; keys, sizes, a daemon that goes and comes, terminals that cannot."""
import os
import re
import shutil
import signal
import subprocess

import harness
import terminal

KEYS = r"^q quit  p pause  s sort"


def image(rows=1):
    return {"image": harness.digits_images()[0][:rows]}


def top(tersed, *options, **more):
    return terminal.Terminal(harness.program("terse"), "top", "-e", tersed.endpoint, "--interval-ms", "100", *options, **more)


def model_rows(shown):
    """The names under MODEL, from the top down."""
    lines = shown.text().split("\n")
    first = next((i for i, line in enumerate(lines) if line.startswith("MODEL")), len(lines)) + 1
    rows = []
    for line in lines[first:]:
        if not re.match(r"\S", line) or line.startswith("  NO"):
            break
        rows.append(line.split()[0])
    return rows


with harness.story("a screen of 80 by 24 shows models, workers, refusals, what waits and what runs") as story:
    tersed = story.tersed({"digits": story.digits()}, "--workers", 1, "--max-batch", 1, "--hang-timeout-ms", 600000)
    for _ in range(7):
        tersed.infer("digits", image())
    client = harness.Client(tersed.endpoint)
    client.infer("digits", image(), timeout_us=0)
    client.receive()
    shown = top(tersed)
    shown.shows(KEYS)
    shown.shows(r"^digits +1 ")
    shown.shows(r"served 7, failed [1-9]")
    shown.type("c")
    shown.shows(r"^   refused: late 1$")
    row = shown.line(r"^digits").split()
    story.check(len(row) == 9 and row[3] == row[4] == "0" and row[5] == "1.0" and row[6].endswith("s") and row[7].endswith("s"),
                f"since the start: {row}")
    story.check(shown.line(r"^  NO +PID STATE") and shown.line(rf"^ +0 +{tersed.workers()[0]} idle "), f"workers:\n{shown.text()}")
    private, shared = re.search(r"([0-9.]+)([KMG]) +([0-9.]+)([KMG])$", shown.line(r"^ +0 +\d+ idle")).group(2, 4)
    story.check(private in "KM" and shared in "KM", "memory of the worker")
    worker = tersed.workers()[0]
    os.kill(worker, signal.SIGSTOP)
    for _ in range(3):
        client.infer("digits", image())
    shown.wait(lambda: (shown.line("^digits") or "").split()[3:5] == ["2", "1"], "two that wait and one that runs")
    shown.shows(rf"^ +0 +{worker} busy +digits +1 +[0-9.]+(us|ms|s) ")
    shown.shows(r"^waiting 2 \(")
    os.kill(worker, signal.SIGCONT)
    shown.wait(lambda: (shown.line("^digits") or "").split()[3:5] == ["0", "0"], "nothing that waits")
    story.check(all(len(line) <= 80 for line in shown.text().split("\n")), "no line is longer than the screen")
    shown.type("q")
    story.check(shown.end() == 0, "q ends it")
    story.check("\x1b[?1049l" in shown.sent[-200:], "the terminal gets back what it had")
    client.close()

with harness.story("keys sort, turn, scroll, pause and help; every size has the keys in its last line") as story:
    digits = story.digits()
    names = [f"m{i:02}" for i in range(12)]
    tersed = story.tersed({name: digits for name in names}, "--workers", 2)
    for i, name in enumerate(["m07", "m03"]):
        for _ in range(5 - 2 * i):
            tersed.infer(name, image())
    shown = top(tersed, rows=30)
    shown.type("c")
    shown.wait(lambda: model_rows(shown) == ["m07", "m03"] + [n for n in names if n not in ("m07", "m03")],
               "the busiest first, then by name")
    shown.type("S")
    shown.shows("sort: name")
    shown.wait(lambda: model_rows(shown) == names, "by name")
    shown.type("r")
    shown.wait(lambda: model_rows(shown) == names[::-1], "turned round")
    shown.type("rh")
    shown.shows("this help")
    story.check(not shown.line("^MODEL"), "help takes the tables' place")
    shown.type("h")
    shown.shows("^MODEL")
    shown.resize(12, 60)
    shown.wait(lambda: re.match(KEYS[1:], shown.text().split("\n")[11]) and shown.line("of 12 models"), "a small screen")
    first = model_rows(shown)[0]
    shown.type("\x1b[B\x1bOB")  # both forms of the arrow
    shown.wait(lambda: model_rows(shown)[:1] not in ([], [first]), "others")
    story.check(model_rows(shown)[0] in names[1:3], f"one or two further down: {model_rows(shown)}")
    shown.resize(40, 150)
    shown.wait(lambda: re.match(KEYS[1:], shown.text().split("\n")[39]) and shown.line("^MODEL .*QUEUE P99 COMP. P50"),
               "a large screen with more columns")
    shown.resize(3, 8)
    shown.wait(lambda: shown.text().split("\n")[2].startswith("q quit"), "hardly a screen")
    shown.resize(24, 80)
    shown.shows("served 8,")
    shown.type("p")
    shown.shows("PAUSED")
    tersed.infer("m00", image())
    before = shown.text()
    for _ in range(5):  # five looks would have been
        shown.read(0.1)
    story.check(shown.text() == before and not shown.line("served 9,"), "a pause keeps what is shown")
    shown.type("p")
    shown.shows("served 9,")
    shown.type("\x03")
    story.check(shown.end() == 0 and "\x1b[?1049l" in shown.sent[-200:], "Ctrl-C ends it as q does")

with harness.story("a daemon that goes away is told and awaited, and what comes back is shown") as story:
    endpoint = f"ipc://{story.folder}/tersed.sock"
    first = story.tersed({"digits": story.digits()}, endpoint=endpoint)
    first.infer("digits", image())
    shown = top(first)
    shown.shows("served 1,")
    first.stop()
    shown.shows(r"^no answer for \d+ s, asking again: ")
    story.check(shown.line("^digits"), "what was known stays")
    second = story.tersed({"digits": story.digits()}, endpoint=endpoint)
    shown.shows("served 0,")
    story.check(not shown.line("no answer"), "it is back")
    os.kill(second.frontend(), signal.SIGKILL)
    second.infer("digits", image())
    shown.shows("served 1,")
    shown.hang_up()
    story.check(shown.end() in (0, -signal.SIGHUP), "it ends with its terminal")

with harness.story("what is no terminal, and no daemon, gets one line that says so") as story:
    tersed = story.tersed({"digits": story.digits()})
    done = harness.run("terse", "top", "-e", tersed.endpoint, code=1, stdin=subprocess.DEVNULL)
    story.check(done.stdout == "" and done.stderr.count("\n") == 1 and "no terminal" in done.stderr and "terse status" in done.stderr,
                done.stderr)
    for name in ("dumb", "", "no-such-terminal"):
        shown = top(tersed, environment={"TERM": name})
        story.check(shown.end() == 1, f"TERM={name}: exit 1")
        told = shown.text().strip()
        story.check(told.count("terse top: ") == 1 and "TERM" in told and "terse status" in told.replace("\n", ""), f"TERM={name}: {told}")
    shown = terminal.Terminal(harness.program("terse"), "top", "-e", f"ipc://{story.folder}/nobody.sock", "--connect-ms", "100")
    story.check(shown.end() == 1 and "no daemon answers at" in shown.text() and "\x1b[?1049h" not in shown.sent, shown.text())
    lonely = f"{story.folder}/terse"
    shutil.copy(harness.program("terse"), lonely)
    shown = terminal.Terminal(lonely, "top", "-e", tersed.endpoint)
    story.check(shown.end() == 1 and "terse-screen.so" in shown.text(), shown.text())
    shown = top(tersed, "--looks", "3", environment={"LC_ALL": "C"})
    story.check(shown.end() == 0, "it ends after so many looks")

harness.finish()
