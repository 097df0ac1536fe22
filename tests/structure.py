#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hold the structure of the sources and of what was built against the rules of CONTRIBUTING.md. Prints TAP.

Wants a build in build/release (or $TERSE_BUILD).
"""
import os
import re
import subprocess
import sys

BUILD = os.environ.get("TERSE_BUILD", "build/release")
LIBTERSE_COMMON = {"status", "bytes", "tensor", "wire", "pack", "ring", "curve", "frames"}


def sources():
    for top in ("common", "compress", "client", "daemon"):
        for folder, _, files in os.walk(top):
            for name in files:
                if name.endswith((".c", ".h")):
                    yield os.path.join(folder, name)


def forbidden(path, include):
    """Why `path` may not include `include`, or None."""
    room, wanted = path.split("/")[0], include.split("/")[0]
    if room == "common" and wanted != "common":
        return "common depends on nothing of ours"
    if {room, wanted} == {"compress", "daemon"}:
        return "compress and daemon never see each other"
    if room in ("compress", "daemon") and wanted == "client":
        return f"{room} does not use the client"
    if path.startswith("client/gateway/"):
        allowed = wanted in ("client", "common") or include in ("daemon/log.h", "daemon/sandbox.h")
        return None if allowed else "client/gateway uses client, common, and of daemon the log and the sandbox"
    if room == "client" and wanted == "daemon":
        return "the client uses every room but daemon"
    if path.startswith("client/view/"):
        return None if wanted == "common" or include.startswith("client/view/") else "client/view uses common only"
    if room == "client" and not path.startswith(("client/cli/", "client/examples/", "client/report/")):
        name = os.path.splitext(os.path.basename(include))[0]
        if wanted not in ("client", "common") or include.startswith(("client/cli/", "client/gateway/")):
            return "libterse uses common only"
        if wanted == "common" and (include.count("/") != 1 or name not in LIBTERSE_COMMON):
            return f"libterse uses only common/{sorted(LIBTERSE_COMMON)}"
    return None


def includes_keep_the_layers():
    wrong = []
    for path in sources():
        with open(path, encoding="utf-8") as file:
            for include in re.findall(r'^\s*#\s*include\s+"([^"]+)"', file.read(), re.M):
                why = "/" in include and forbidden(path, include)
                if why:
                    wrong.append(f"{path} includes {include}: {why}")
    return wrong


def objects(*folders):
    for folder in folders:
        for where, _, files in os.walk(os.path.join(BUILD, "obj", folder)):
            yield from (os.path.join(where, f) for f in files if f.endswith(".o"))


def undefined(paths):
    return set(re.findall(r"\bU (\w+)", subprocess.run(["nm", "-u", *paths], capture_output=True, text=True, check=True).stdout))


def supervisor_has_neither_zeromq_nor_blas():
    found = undefined(objects("daemon/supervisor"))
    if not found:
        return ["no objects were found"]
    return [f"the supervisor refers to {name}" for name in found if re.match(r"zmq_|cblas_|LAPACKE_", name)]


def needed(program):
    text = subprocess.run(["objdump", "-p", os.path.join(BUILD, program)], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"NEEDED\s+(\S+)", text))


def programs_link_what_they_may():
    def wrong(program, pattern, why):
        return [f"{program} links {name}: {why}" for name in needed(program) if re.match(pattern, name)]

    sanitizer = "" if BUILD.endswith("release") else "|asan|ubsan|tsan"
    libterse = [f"libterse links {name}" for name in needed("libterse.so")
                if not re.match(rf"lib(zmq|msgpack.*|c|m{sanitizer})\.so|ld-", name)]
    return (libterse + wrong("tersed", r"libzmq|libopenblas|liblapack", "the supervisor has neither")
            + wrong("terse-worker", r"libzmq|libopenblas|liblapack", "workers have neither")
            + wrong("terse-frontend", r"libopenblas|liblapack", "OpenBLAS serves the compressor")
            + wrong("terse-gate", r"libopenblas|liblapack", "OpenBLAS serves the compressor")
            + wrong("terse-loader", r"libzmq|libopenblas|liblapack", "the loader has neither")
            + wrong("terse-gateway", r"libopenblas|liblapack|libzstd|libzip", "the gateway serves HTTP")
            + wrong("terse", r"libopenblas|liblapack", "only terse-compress links it")
            + wrong("terse-worker", r"libzstd", "the loader expands packed models")
            + wrong("terse-frontend", r"libzstd", "the loader expands packed models")
            + wrong("terse", r"libzmq|libzip|libcrypto|libzstd|libncurses|libtinfo", "it starts several times as fast without (client/cli/lazy.c)"))


def libterse_exports_its_header_only():
    with open("client/terse.h", encoding="utf-8") as file:
        declared = set(re.findall(r"\b(terse_\w+)\(", re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)))
    text = subprocess.run(["nm", "-D", "--defined-only", os.path.join(BUILD, "libterse.so")], capture_output=True, text=True,
                          check=True).stdout
    exported = set(re.findall(r"\b[TDBR] (\w+)", text))
    return [f"{name} is exported and not declared" for name in exported - declared] + [
        f"{name} is declared and not exported" for name in declared - exported]


def vector_code_stays_in_kernel_files():
    """A ymm or zmm register outside the files of a tier would be an illegal instruction on an older CPU."""
    if os.uname().machine != "x86_64":
        return None
    wrong = []
    for path in objects("common", "compress", "client", "daemon"):
        if re.search(r"_(avx2|avx2vnni|avx512vnni|avx512vbmi|avx512bf16)\.o$", path):
            continue
        text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True).stdout
        if re.search(r"%[yz]mm\d", text):
            wrong.append(f"{path} uses ymm or zmm registers")
    return wrong


def public_header_explains_itself():
    with open("client/terse.h", encoding="utf-8") as file:
        text = file.read()
    comment = sum(len(c) for c in re.findall(r"/\*.*?\*/", text, flags=re.S))
    share = comment / len(text)
    return [] if share >= 0.45 else [f"{share:.0%} of client/terse.h is comment, 45% is wanted"]


def files_carry_a_licence_line():
    return [path for path in sources() if "SPDX-License-Identifier: Apache-2.0" not in open(path, encoding="utf-8").readline()]


def readme_shows_the_sources():
    with open("README.md", encoding="utf-8") as file:
        readme = file.read()
    with open("client/examples/classify.c", encoding="utf-8") as file:
        wrong = [] if file.read().strip() in readme else ["README.md does not show client/examples/classify.c as it is"]
    with open("daemon/supervisor/settings.h", encoding="utf-8") as file:
        settings = re.findall(r'X\(\w+, TERSE_IN_\w+, \w+, "(\w+)"', file.read())
    if len(settings) < 10:
        wrong.append("no settings were found")
    return wrong + [f"README.md lacks the setting {name}" for name in settings if f"| `{name}`" not in readme]


def only_the_log_reads_the_wall_clock():
    """Deadlines, watchdogs and delays by a clock that can be set would fire, or not, when somebody sets it."""
    wrong, monotonic = [], 0
    for path in sources():
        with open(path, encoding="utf-8") as file:
            text = file.read()
        monotonic += "CLOCK_MONOTONIC" in text
        if path == "daemon/log.c":
            continue
        for call in re.findall(r"\bCLOCK_(?:REALTIME|TAI)\w*|\b(?:time|gettimeofday|ftime|timespec_get|localtime\w*|utime\w*)\(", text):
            wrong.append(f"{path}: {call}")
    return wrong + ([] if monotonic else ["no source reads the monotonic clock"])


def main():
    tests = [includes_keep_the_layers, supervisor_has_neither_zeromq_nor_blas, programs_link_what_they_may,
             libterse_exports_its_header_only, vector_code_stays_in_kernel_files, public_header_explains_itself,
             files_carry_a_licence_line, readme_shows_the_sources, only_the_log_reads_the_wall_clock]
    print(f"1..{len(tests)}")
    failed = False
    for number, test in enumerate(tests, 1):
        wrong = test()
        if wrong is None:
            print(f"ok {number} - {test.__name__} # SKIP not an x86-64 machine")
            continue
        failed = failed or bool(wrong)
        print(f"{'not ok' if wrong else 'ok'} {number} - {test.__name__}")
        for line in wrong:
            print(f"# {line}")
    sys.exit(failed)


main()
