#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Manual pages and completions hold what the programs' own help holds, and are good roff and good shell."""
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

import harness

MAN = tempfile.mkdtemp(prefix="terse-man-")
COMPLETION = tempfile.mkdtemp(prefix="terse-completion-")


def make(folder, script, out):
    done = subprocess.run([sys.executable, os.path.join(harness.ROOT, "packaging", folder, script), harness.BUILD, out],
                          capture_output=True, text=True, env=dict(os.environ, SOURCE_DATE_EPOCH="86400"))
    if done.returncode:
        raise AssertionError(f"{script}: {done.stderr}")


def page(name):
    with open(os.path.join(MAN, name), encoding="utf-8") as file:
        return file.read()


def section(text, name):
    """The lines of one section, roff's quoting undone."""
    found = re.search(r'^\.SH "?' + re.escape(name).replace("-", r"\\-") + r'"?\n(.*?)(?=^\.SH|\Z)', text, re.M | re.S)
    return unquote(found.group(1)) if found else ""


def unquote(text):
    return text.replace(r"\fB", "").replace(r"\fI", "").replace(r"\fR", "").replace(r"\-", "-").replace(r"\(ga", "`").replace(
        r"\(aq", "'").replace(r"\(ha", "^").replace(r"\(ti", "~").replace(r"\&", "").replace(r"\e", "\\")


def told_by_page(text, name):
    """(letter, option, argument) of every term of a section."""
    return {(letter or "", option, argument or "") for letter, option, argument in
            re.findall(r"^\.TP\n(?:(-\w), )?(--[\w-]+)(?: (\S+))?$", section(text, name), re.M)}


def told_by_help(text):
    return {(letter or "", option, argument or "") for letter, option, argument in
            re.findall(r"^ +(?:(-\w), +)?(--[a-z][\w-]*)(?: ([^\s]+))?(?=  |\n|$)", text, re.M)}


def help_of(*command):
    return harness.run(command[0], *command[1:], "--help").stdout


def terms(text):
    return set(re.findall(r"^\.TP\n(.*)$", unquote(text), re.M))


def commands():
    return re.findall(r"^  (\w+) +\S", help_of("terse"), re.M)


with harness.story("every option of every program is in its page, and no other is") as story:
    make("man", "make_man.py", MAN)
    found = commands()
    story.check(len(found) >= 13 and "compress" in found, f"terse --help lists the subcommands: {found}")
    pages = {os.path.basename(p) for p in glob.glob(f"{MAN}/*")}
    wanted = {f"terse-{c}.1" for c in found} | {"terse.1", "tersed.8", "terse-gateway.8", "tersed.conf.5", "terse-model.5", "terse-protocol.7",
                                                "libterse.3"}
    story.check(pages == wanted, f"the pages are {sorted(pages ^ wanted)} away from one a command")
    listed = set(re.findall(r"^\.TP\nterse-(\w+)\(1\)$", section(page("terse.1"), "COMMANDS"), re.M))
    story.check(listed == set(found), f"terse(1) lists {listed ^ set(found)}")
    for command in found:
        by_help, by_page = told_by_help(help_of("terse", command)), told_by_page(page(f"terse-{command}.1"), "OPTIONS")
        by_help = {(letter, o, a) if o != "--help" else ("-h", o, a) for letter, o, a in by_help}
        story.check(by_help and by_help == by_page, f"terse-{command}(1) and --help differ: {by_help ^ by_page}")
    by_help, by_page = told_by_help(help_of("terse-gateway")), told_by_page(page("terse-gateway.8"), "OPTIONS")
    by_help = {(letter, o, a) if o != "--help" else ("-h", o, a) for letter, o, a in by_help}
    story.check(len(by_help) > 10 and by_help == by_page, f"terse-gateway(8) and --help differ: {by_help ^ by_page}")
    text = help_of("tersed").split("An option wins")[0]
    by_help, by_page = told_by_help(text), told_by_page(page("tersed.8"), "OPTIONS")
    story.check(len(by_help) > 15 and by_help == by_page, f"tersed(8) and --help differ: {by_help ^ by_page}")

with harness.story("every setting is in tersed.conf(5) with its unit, default and range") as story:
    table = [line.split("\t")[1:] for line in harness.run("tersed", "--help-table").stdout.splitlines()
             if line.startswith("setting\t")]
    text, sections = page("tersed.conf.5"), {"server": "SETTINGS IN [server]", "model": "SETTINGS IN [model NAME]"}
    help_text = help_of("tersed").split("settings are:")[1]
    parts = dict(zip(("server", "model"), re.split(r"^\[model NAME\]$", help_text, flags=re.M)))
    for place, title in sections.items():
        by_help = set(re.findall(r"^  (\w+) = ", parts[place], re.M))
        by_page = {term.split(" = ")[0] for term in re.findall(r"^\.TP\n(\w+ = .*)$", section(text, title), re.M)}
        story.check(by_help and by_help == by_page, f"[{place}] differs: {by_help ^ by_page}")
        for where, name, argument, option, unit, default, allowed, _, reload in table:
            if where not in (place, "both"):
                continue
            entry = re.search(rf"^\.TP\n{name} = .*?(?=^\.TP|\Z)", section(text, title), re.M | re.S).group(0)
            entry = " ".join(entry.split())
            for fact in (unit and f"Unit: {unit}.", default and f"Default: {default}.", allowed and f"Allowed: {allowed}.",
                         option and f"Option: {option}.", f"Reload: {reload}."):
                story.check(not fact or fact in entry, f"{name}: the page lacks '{fact}'")
        # What the table calls allowed is what the parser takes.
        for where, name, argument, option, unit, default, allowed, *_ in table:
            if where not in (place, "both") or " to " not in allowed:
                continue
            head = "[server]" if place == "server" else "[model x]"
            most = allowed.split(" to ")[1]
            for value, good in ((most, True), (re.sub(r"^\d+", lambda m: m.group(0) + "9", most), False)):
                path = f"{story.folder}/t.conf"
                with open(path, "w") as file:
                    file.write(f"{head}\n{name} = {value}\n")
                done = subprocess.run([harness.program("tersed"), "--check", "--config", path], capture_output=True, text=True)
                refused = f"{name}: found '{value}'" in done.stderr
                story.check(refused != good, f"{name} = {value}: {done.stderr.strip()}")

with harness.story("what wants a restart is what the page says") as story:
    table = [line.split("\t")[1:] for line in harness.run("tersed", "--help-table").stdout.splitlines()
             if line.startswith("setting\t")]
    wants, other = set(), []
    for where, name, argument, option, unit, default, allowed, _, reload in table:
        if where == "model" or not allowed or default == "latency":  # texts are no numbers; of objective one is enough
            continue
        value = {"no": "yes", "yes": "no", "0660": "0600", "64M": "32M", "1024": "2048", "8M": "16M", "64": "32", "0": "10", "32": "8",
                 "1": "2", "60000": "50000", "120000": "110000", "10000": "9000", "30000": "20000", "4096": "1000",
                 "automatic": {"bytes": "1G", "processes": "3", "milliseconds": "60000"}.get(unit, "5000")}[default]
        other.append(f"{name} = {value if allowed != '0 to 1' else 0.5}")
        wants |= {name} if reload == "wants a restart" else set()
    model = story.digits()
    config = f"{story.folder}/tersed.conf"
    def write(*lines):
        with open(config, "w") as file:
            file.write("\n".join(["[server]", *lines, "[model digits]", f"file = {model}"]) + "\n")
    write("workers = 1")
    tersed = story.tersed({}, "--config", config)
    write(*other)
    tersed.process.send_signal(signal.SIGHUP)
    harness.wait_until(lambda: len(re.findall(r"SIGHUP: (\w+) is another now", tersed.log())) >= len(wants), "it has read the file")
    harness.wait_until(lambda: len(tersed.workers()) == 3, "what goes at once is in force")
    told = set(re.findall(r"SIGHUP: (\w+) is another now: that wants a restart", tersed.log()))
    story.check(len(wants) > 8 and told == wants, f"page and daemon differ: {told ^ wants}")

LINTS = (["groff", "-man", "-ww", "-z", "-Tutf8"], ["man", "--warnings", "-E", "UTF-8", "-l"],
         ["mandoc", "-T", "lint", "-W", "warning"])
for tool in LINTS:
    with harness.story(f"pages are good roff: {' '.join(tool)}") as story:
        if not shutil.which(tool[0]):
            raise harness.Skip(f"{tool[0]} is not installed")
        for path in sorted(glob.glob(f"{MAN}/*")):
            done = subprocess.run([*tool, path], capture_output=True, text=True, env=dict(os.environ, MANWIDTH="100", LC_ALL="C"))
            said = done.stderr + (done.stdout if tool[0] == "mandoc" else "")
            story.check(done.returncode == 0 and not said.strip(), f"{os.path.basename(path)}: {said[:500]}")

with harness.story("pages that are made twice are the same") as story:
    again = tempfile.mkdtemp(dir=story.folder)
    make("man", "make_man.py", again)
    story.check(all(open(f"{again}/{os.path.basename(p)}").read() == open(p).read() for p in glob.glob(f"{MAN}/*")),
                "byte for byte")

with harness.story("libterse(3) has every function of the library") as story:
    exported = subprocess.run(["nm", "-D", "--defined-only", harness.program("libterse.so.1")], capture_output=True, text=True,
                              check=True).stdout
    functions = set(re.findall(r" T (terse_\w+)", exported))
    text = unquote(page("libterse.3"))
    missing = {f for f in functions if not re.search(rf"\b{f}\(", text)}
    story.check(len(functions) > 50 and not missing, f"libterse(3) lacks {missing}")


def streams(data):
    """The streams of an encoded constant: (coded, bytes decoded, stored bytes)."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        coded, size, stored = number(), number(), number()
        yield coded, size, data[at:at + stored]
        at += stored


def decode(encoding, data, size, element):
    """The bytes of an encoded constant, as terse-model(5) says; zstd is not in Python's library."""
    steps = encoding.split("+")
    todo, w = streams(data), 8

    def take(width=0):
        coded, n, stored = next(todo)
        if not coded:
            return stored
        assert steps[-1] == "bits" and width, encoding
        value = int.from_bytes(stored, "little")
        return bytes((value >> i * width) & ((1 << width) - 1) for i in range(n))

    places = take() if steps[0] in ("bitmap", "gaps") else None
    if "codebook" in steps:
        book = take()
        entries = len(book) // element
        w = next(w for w in range(1, 9) if 1 << w >= entries or w == 8)
        values = b"".join(book[i * element:(i + 1) * element] for i in take(w))
    elif "planes" in steps:
        planes = [take() for _ in range(element)]
        values = bytes(b for group in zip(*planes) for b in group)
    else:
        values = take()
    assert next(todo, None) is None, "no byte is left over"
    if places is None:
        return values
    out, at, used = bytearray(size), 0, 0
    if steps[0] == "bitmap":
        where = [i for i in range(size // element) if places[i // 8] >> i % 8 & 1]
    else:
        where = []
        for byte in places:
            at += byte
            if byte < 255:
                where.append(at)
                at += 1
    for i, place in enumerate(where):
        out[place * element:(place + 1) * element] = values[i * element:(i + 1) * element]
    return bytes(out)


def winograd(data, shape):
    """f32_winograd4 of the plain weights that a packed file tells in its place."""
    import numpy
    a, b = 0.5 ** 0.5, 2 ** 0.5
    rows = numpy.array([[1, 0, 0], [-2 / 3, -2 * a / 3, -1 / 3], [-2 / 3, 2 * a / 3, -1 / 3], [1 / 6, b / 6, 1 / 3],
                        [1 / 6, -b / 6, 1 / 3], [0, 0, 1]])
    points = numpy.einsum("ip,ncpq,jq->ijnc", rows, numpy.frombuffer(data, "f4").reshape(shape).astype("f8"), rows)
    points = numpy.pad(points.reshape(36, *shape[:2]), ((0, 0), (0, -shape[0] % 16), (0, 0)))
    return points.reshape(36, -1, 16, shape[1]).transpose(0, 1, 3, 2).astype("f4").tobytes()


def read_model(path, story):
    """A reader written from terse-model(5) alone: (header, {name: (tensor, bytes as laid out)})."""
    with open(path, "rb") as file:
        data = file.read()
    import msgpack
    magic, version, size, total = struct.unpack_from("<8sIIQ", data)
    story.check(magic == b"TERSEMDL" and version == 1 and total == len(data) and data[56:64] == bytes(8), "the fixed head")
    story.check(hashlib.sha256(data[:24] + bytes(32) + data[56:]).digest() == data[24:56], "the SHA-256")
    header = msgpack.unpackb(data[64:64 + size])
    constants = {}
    for tensor in header["tensors"]:
        if "offset" not in tensor:
            continue
        stored = data[tensor["offset"]:tensor["offset"] + tensor.get("stored", tensor["bytes"])]
        story.check("encoding" in tensor or tensor["offset"] % 64 == 0, f"{tensor['name']} lies at a multiple of 64")
        element = {"FP32": 4, "INT32": 4, "INT64": 8, "INT8": 1, "UINT8": 1, "BF16": 2, "BOOL": 1}[tensor["dtype"]]
        how = tensor.get("encoding", "")
        if how.startswith("winograd+"):
            n, c = tensor["shape"][:2]
            stored = winograd(decode(how[len("winograd+"):], stored, n * c * 9 * element, element), tensor["shape"])
        elif how:
            stored = decode(how, stored, tensor["bytes"], element)
        story.check(len(stored) == tensor["bytes"], f"{tensor['name']} has its bytes")
        constants[tensor["name"]] = (tensor, stored)
    return header, constants


def plain(tensor, data):
    """The numbers of an FP32 constant by its layout: a matrix, or ONNX's dims of a convolution."""
    import numpy
    shape, layout, groups = tensor["shape"], tensor["layout"], tensor["groups"]
    values = numpy.frombuffer(data, "f4")
    if layout == "plain":
        return values.reshape(shape)
    if layout == "f32_dw16":
        kernel = shape[2:]
        return numpy.moveaxis(values.reshape(*kernel, -1)[..., :shape[0]], -1, 0).reshape(shape)
    assert layout == "f32_n16", layout
    n = (shape[1] if len(shape) == 2 else shape[0] // groups)
    k = shape[0] if len(shape) == 2 else int(numpy.prod(shape[1:]))
    panels = (n + 15) // 16
    matrix = values.reshape(groups, panels, k, 16).transpose(0, 2, 1, 3).reshape(groups, k, panels * 16)[:, :, :n]
    if len(shape) == 2:
        return matrix[0]
    kernel = shape[2:]
    weights = matrix.transpose(0, 2, 1).reshape(shape[0], *kernel, shape[1])
    return numpy.moveaxis(weights, -1, 1)


with harness.story("a reader written from terse-model(5) reads what the compressor writes") as story:
    import numpy
    onnx = os.path.join(harness.DATA, "digits.onnx")
    files = {}
    for name, options in (("import", ["--plain"]), ("fixed", ["--no-tune"]), ("clusters", ["--no-tune", "--cluster", "4"]),
                          ("pruned", ["--no-tune", "--prune", "0.7:unstructured", "--cluster", "6"])):
        files[name] = f"{story.folder}/{name}.terse"
        harness.run("terse", "compress", onnx, "-o", files[name], "--quiet", *options)
    text = unquote(page("terse-model.5"))
    header, as_imported = read_model(files["import"], story)
    known = set(re.findall(r"^(.+)$", "\n".join(terms(page("terse-model.5"))), re.M))
    words = {w.strip() for term in known for w in term.split(",")} | {"wgemm"}
    layouts, encodings = set(), set()
    for name, path in files.items():
        header, constants = read_model(path, story)
        keys = set(header) | {k for t in header["tensors"] for k in t} | {k for n in header["nodes"] for k in n}
        story.check(keys <= words, f"{name}: the page lacks {keys - words}")
        for tensor, data in constants.values():
            layouts.add(tensor["layout"])
            encodings |= set(tensor.get("encoding", "").split("+")) - {""}
            story.check(tensor["layout"] in words, f"the page lacks the layout {tensor['layout']}")
        shown = harness.run_json("terse", "inspect", path, "--json")
        story.check(len(shown["nodes"]) == len(header["nodes"]), f"{name}: inspect counts the same nodes")
    _, fixed = read_model(files["fixed"], story)
    same = [name for name in fixed if name in as_imported and fixed[name][0]["dtype"] == "FP32" and
            fixed[name][0]["shape"] == as_imported[name][0]["shape"] and fixed[name][0]["layout"] != "plain"]
    story.check(len(same) >= 3, f"weights are laid out for the kernels: {same}")
    # BatchNormalization is folded into some weights: each output of those is one multiple of the imported ones.
    for name in same:
        (tensor, data), a = fixed[name], plain(*as_imported[name])
        if tensor["layout"] == "f32_winograd4":
            a, b = (numpy.frombuffer(x, "f4").reshape(36, -1, a.shape[1], 16).transpose(1, 3, 0, 2).astype("f8")
                    for x in (winograd(a.tobytes(), a.shape), data))
            a, b = (x.reshape(x.shape[0] * 16, -1)[:tensor["shape"][0]] for x in (a, b))
        else:
            a, b = (x.astype("f8").reshape(x.shape[0], -1) if x.ndim > 2 else x.astype("f8").T for x in (a, plain(tensor, data)))
        ratio = (a * b).sum(1, keepdims=True) / (a * a).sum(1, keepdims=True)
        story.check(numpy.abs(a * ratio - b).max() <= 1e-5 * numpy.abs(b).max(), f"{name} is what the page says")
    for name in ("clusters", "pruned"):
        _, packed = read_model(files[name], story)
        laid = [numpy.frombuffer(d, "f4") for t, d in packed.values() if t["dtype"] == "FP32" and "codebook" in t.get("encoding", "") and
                t["layout"] != "f32_winograd4"]
        story.check(laid and all(len(set(x.tolist())) <= (17 if name == "clusters" else 65) for x in laid),
                    f"{name}: codebooks are expanded")
    print(f"# read layouts {sorted(layouts)}, encodings {sorted(encodings)}", flush=True)
    story.check({"f32_n16", "plain"} <= layouts and {"codebook", "bits"} <= encodings, f"{layouts} {encodings}")
    with open(os.path.join(harness.ROOT, "common", "tensor.c")) as file:
        named = set(re.findall(r'\[TERSE_LAYOUT_\w+\] = "(\w+)"', file.read()))
    story.check(len(named) > 8 and named <= words, f"the page lacks the layouts {named - words}")

with harness.story("terse-protocol(7) has every key of requests, replies and counters") as story:
    text = page("terse-protocol.7")
    words = set(re.findall(r"[\w]+", unquote(text)))
    with open(os.path.join(harness.ROOT, "common", "wire.c")) as file:
        keys = set(re.findall(r'TERSE_WIRE_WALK_KEY\("(\w+)"\)', file.read()))
    story.check(len(keys) > 20 and keys <= words, f"the page lacks {keys - words}")
    tersed = story.tersed({"digits": story.digits()})
    client = harness.Client(tersed.endpoint)
    for op in ("live", "ready", "models", "metadata", "stats"):
        reply = client.call(op, **({"model": "digits"} if op == "metadata" else {}))
        story.check(op in words and reply["status"] == "OK", f"{op} is answered: {reply}")
        found = set(reply) | (set(reply["models"]["digits"]) | {k for w in reply["workers"] for k in w} if op == "stats" else set())
        story.check(found <= words, f"the page lacks {found - words} of {op}")
    # The page's own example, against this daemon.
    example = unquote(text[text.index('.SH "EXAMPLES"'):])
    script = re.search(r"^\.EX\n(.*?)^\.EE", example, re.M | re.S).group(1).replace("ipc:///run/terse/tersed.sock", tersed.endpoint)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    story.check(done.returncode == 0 and done.stdout.startswith("logits"), f"the example runs: {done.stdout}{done.stderr}")
    client.close()

COMPLETE = """
source {bash}/terse
source {bash}/tersed
while read -ra COMP_WORDS; do
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    [[ ${{COMP_WORDS[COMP_CWORD]}} == _ ]] && COMP_WORDS[COMP_CWORD]=
    COMPREPLY=()
    program=${{COMP_WORDS[0]##*/}}
    _$program
    printf '%s ' "${{COMPREPLY[@]}}"
    echo
done
"""


def complete(folder, *lines, **options):
    """What bash offers for each line; _ stands for an empty last word."""
    with open(f"{folder}/complete.bash", "w") as file:
        file.write(COMPLETE.format(bash=f"{COMPLETION}/bash"))
    done = subprocess.run(["bash", f"{folder}/complete.bash"], input="\n".join(lines) + "\n", capture_output=True, text=True,
                          timeout=60, **options)
    if done.stderr:
        raise AssertionError(f"bash says {done.stderr}")
    return [set(line.split()) for line in done.stdout.splitlines()]


with harness.story("bash completes commands, options, files, words and the models that are served") as story:
    make("completion", "make_completion.py", COMPLETION)
    for name in ("a.onnx", "b.terse", "c.npz", "d.txt"):
        open(f"{story.folder}/{name}", "w").close()
    os.mkdir(f"{story.folder}/folder")
    first, files, data, equals, words = complete(
        story.folder, "terse _", "terse compress _", "terse compress --calibrate _", "terse compress --calibrate = c",
        "tersed --objective _", cwd=story.folder)
    story.check(set(commands()) <= first, f"commands: {first}")
    story.check(files == {"a.onnx", "b.terse", "folder"}, f"files of networks: {files}")
    story.check(data == {"c.npz", "folder"} and equals == {"c.npz"}, f"files of samples: {data} {equals}")
    story.check(words == {"latency", "energy"}, f"words: {words}")
    for command, found in zip(commands(), complete(story.folder, *(f"terse {c} --" for c in commands()))):
        wanted = {option for _, option, _ in told_by_help(help_of("terse", command))}
        story.check(found == wanted, f"options of {command}: {found ^ wanted}")
    wanted = {option for _, option, _ in told_by_help(help_of("tersed").split("An option wins")[0])}
    story.check(complete(story.folder, "tersed --")[0] == wanted, "options of tersed")
    tersed = story.tersed({"digits": story.digits(), "other": story.digits()})
    terse = harness.program("terse")
    named, part, nobody = complete(story.folder, f"{terse} infer -e {tersed.endpoint} _", f"{terse} bench -e {tersed.endpoint} di",
                                   f"{terse} infer -e ipc://{story.folder}/nobody _")
    story.check(named == {"digits", "other"} and part == {"digits"} and not nobody, f"models: {named} {part} {nobody}")

with harness.story("zsh reads its completions") as story:
    if not shutil.which("zsh"):
        raise harness.Skip("zsh is not installed")
    for path in glob.glob(f"{COMPLETION}/zsh/*"):
        done = subprocess.run(["zsh", "-n", path], capture_output=True, text=True)
        story.check(done.returncode == 0 and not done.stderr, f"{path}: {done.stderr}")

shutil.rmtree(MAN)
shutil.rmtree(COMPLETION)
harness.finish()
