#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run test programs and count what they say.

usage: run.py [--jobs N] [--only WORD] [--log DIR] PROGRAM... [--alone PROGRAM...]

N programs run at a time; then those behind --alone, one by one.

A program prints TAP ("ok 1 - name", "not ok 2 - name", "ok 3 - name # SKIP why"); cmocka does so when asked. A program that
dies, times out, prints no result, or fewer than its plan ("1..N") counts as one more failure. A fuzzer
(fuzz_X) replays tests/fuzz/corpus/X and says "N cases replayed". The last line is
"N passed, N failed, N skipped"; the exit status is 0 only when something passed and nothing failed.
"""
import argparse, concurrent.futures, os, re, signal, subprocess, sys, time

RESULT = re.compile(r"^(not ok|ok)\b\s*\d*\s*-?\s*(.*?)\s*(?:#\s*(SKIP|TODO)\b\s*(.*))?$", re.I)


def interpret(text):
    passed, failed, skipped, planned = [], [], [], 0
    for line in text.splitlines():
        plan = re.match(r"^1\.\.(\d+)", line)
        if plan:
            planned += int(plan.group(1))
        match = RESULT.match(line)
        if not match:
            continue
        verdict, name, directive, why = match.groups()
        if directive and directive.upper() == "SKIP":  # cmocka writes "not ok 1 # SKIP name"
            skipped.append((name or why, why if name else "the test itself says so"))
        elif verdict == "not ok":
            failed.append(name)
        else:
            passed.append(name)
    return passed, failed, skipped, planned


def run(program, seconds):
    command = [sys.executable, program] if program.endswith(".py") else [os.path.join(".", program)]
    name = os.path.basename(program)
    fuzzer = name.startswith("fuzz_")
    if fuzzer:
        command.append(os.path.join("tests/fuzz/corpus", name[len("fuzz_"):]))
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
    start = time.monotonic()
    # A group of its own, so that nothing that the program started outlives it.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               env=environment, start_new_session=True, text=True, errors="replace")
    trouble = ""
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        trouble = f"no end after {seconds} s"
    if fuzzer and not trouble and process.returncode == 0 and re.search(r"^[1-9]\d* cases replayed", text, re.M):
        text = f"ok 1 - {text.strip()}"
    passed, failed, skipped, planned = interpret(text)
    told = len(passed) + len(failed) + len(skipped)
    if not trouble and process.returncode < 0:
        trouble = f"killed by {signal.Signals(-process.returncode).name}"
    elif not trouble and process.returncode and not failed:
        trouble = f"exit status {process.returncode}"
    elif not trouble and told == 0:
        trouble = "printed no result"
    elif not trouble and told < planned:
        trouble = f"{told} results of {planned} planned"
    if trouble:
        failed.append(trouble)
    return program, passed, failed, skipped, text, time.monotonic() - start


def run_all(programs, jobs, args, totals):
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for program, passed, failed, skipped, text, seconds in pool.map(lambda p: run(p, args.seconds), programs):
            name = os.path.splitext(os.path.basename(program))[0]
            print(f"{'FAIL' if failed else 'ok  '} {name}: {len(passed)} passed"
                  + (f", {len(failed)} failed" if failed else "") + (f", {len(skipped)} skipped" if skipped else "")
                  + f" ({seconds:.1f} s)", flush=True)
            for case, why in skipped:
                print(f"       skipped: {case}: {why}")
            if failed:
                print("\n".join("       " + line for line in text.splitlines()[-60:]))
                print("".join(f"       failed: {case}\n" for case in failed), end="")
            if args.log:
                os.makedirs(args.log, exist_ok=True)
                with open(os.path.join(args.log, name + ".log"), "w") as file:
                    file.write(text)
            for i, part in enumerate((passed, failed, skipped)):
                totals[i] += len(part)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--log", default="")
    parser.add_argument("programs", nargs="*")
    parser.add_argument("--alone", nargs="*", default=[])
    args = parser.parse_args()
    totals = [0, 0, 0]
    for programs, jobs in ((args.programs, args.jobs), (args.alone, 1)):
        run_all([p for p in programs if args.only in p], jobs, args, totals)
    print("{} passed, {} failed, {} skipped".format(*totals))
    sys.exit(0 if totals[0] and not totals[1] else 1)


main()
