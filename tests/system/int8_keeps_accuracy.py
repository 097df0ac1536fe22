#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`terse compress --quantize int8` keeps the accuracy of the sample and of real networks, says layer by layer what it costs,
gives the same bytes for the same input, and one clear line for bad samples and names."""
import html.parser, json, os, subprocess, sys, tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("TERSE_BUILD", "build/release"))
TERSE = os.path.join(BUILD, "terse")
SHARED = os.environ.get("TERSE_SHARED", os.path.join(ROOT, "..", "shared"))
LONG = bool(os.environ.get("TERSE_LONG"))
SAMPLE = os.path.join(ROOT, "tests/data/digits.onnx")
SLOW_BUILD = not BUILD.endswith("release")  # sanitizers: the sample only
count = 0


def check(good, name, why=""):
    global count
    count += 1
    print(f"{'ok' if good else 'not ok'} {count} - {name}" + ("" if good else f" ({why})"), flush=True)


def skip(name, why):
    global count
    count += 1
    print(f"ok {count} - {name} # SKIP {why}", flush=True)


def terse(*words):
    done = subprocess.run([TERSE, *words], capture_output=True, text=True, errors="replace", timeout=900)
    return done.returncode, done.stdout, done.stderr


def quantize(model, out, calibration, *words):
    code, said, err = terse("compress", model, "-o", out, "--quantize", "int8", "--calibrate", calibration, "--json", *words)
    report = json.loads(said.splitlines()[-1]) if code == 0 else {"failed": f"exit {code}: {err.strip()}"}
    return report, err


def points_lost(report):
    return 100 * (report["before"]["top1"] - report["after"]["top1"])


def sample_data(folder):
    with np.load(os.path.join(ROOT, "tests/data/digits_test.npz")) as data:
        name = next(k for k in data.files if k != "labels")
        x, labels = data[name], data["labels"]
    n = len(x) // 3
    np.savez(f"{folder}/calibration.npz", **{name: x[:n]})
    np.savez(f"{folder}/figures.npz", **{name: x[n:], "labels": labels[n:]})
    return name, x


def the_sample_keeps_its_accuracy(folder):
    calibration, out = f"{folder}/calibration.npz", f"{folder}/q.terse"
    report, err = quantize(SAMPLE, out, calibration, "--validate", f"{folder}/figures.npz")
    check("after" in report and abs(points_lost(report)) <= 0.5 and report["after"]["agreement"] >= 0.985,
          "the sample keeps its accuracy in int8", report)
    layers = report.get("layers", [])
    check(layers and all("kept" in l and "sqnr" in l and l["reason"] for l in layers),
          "each layer says what it costs, whether it was kept and why", layers)
    check(not any(l["kept"] for l in layers) and report["after"]["bytes"] < 0.55 * report["before"]["bytes"],
          "all of it is int8 and the file shrinks", report)
    check(report["quantize"]["samples"] > 0 and report["quantize"]["sqnr"] > 20, "the whole is measured too", report)
    check(terse("inspect", "--verify", out)[0] == 0, "the file is valid")
    again = f"{folder}/again.terse"
    quantize(SAMPLE, out, calibration, "--no-tune")
    quantize(SAMPLE, again, calibration, "--no-tune")
    check(open(out, "rb").read() == open(again, "rb").read(), "the same input and options give the same bytes")


def every_method_can_be_asked_for(folder):
    for method in ("minmax", "moving", "percentile", "entropy", "mse"):
        report, _ = quantize(SAMPLE, f"{folder}/m.terse", f"{folder}/calibration.npz", "--calibration", method,
                             "--validate", f"{folder}/figures.npz")
        good = "after" in report and points_lost(report) <= 2 and all(l["calibration"] == method for l in report["layers"])
        check(good, f"--calibration {method} works", report)


def layers_can_be_kept(folder):
    whole, _ = quantize(SAMPLE, f"{folder}/k.terse", f"{folder}/calibration.npz", "--keep-float", "none")
    name = whole["layers"][0]["name"]
    report, _ = quantize(SAMPLE, f"{folder}/k.terse", f"{folder}/calibration.npz", "--keep-float", name)
    check([l["name"] for l in report.get("layers", []) if l["kept"]] == [name], "a layer can be kept by its name", report)
    check(report["after"]["bytes"] > whole["after"]["bytes"], "its weights stay FP32 then")
    wrong = name[:-1] + "_"
    code, _, err = terse("compress", SAMPLE, "-o", f"{folder}/x.terse", "--quantize", "int8", "--calibrate",
                         f"{folder}/calibration.npz", "--keep-float", wrong)
    check(code == 1 and len(err.strip().splitlines()) == 1 and f"'{wrong}'" in err and f"'{name}'" in err,
          "a wrong name is told with the names near it", err)


class Page(html.parser.HTMLParser):
    """The rows of the table with id `table`, and whatever a browser would fetch or run."""
    def __init__(self, text, table):
        super().__init__()
        self.table, self.inside, self.rows, self.fetched = table, False, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.fetched += [tag] * (tag in ("script", "link", "img", "iframe", "object")) + \
            [k for k in attrs if k in ("src", "href") or k.startswith("on")]
        if tag == "table":
            self.inside = attrs.get("id") == self.table
        if self.inside and tag == "tr":
            self.rows.append([])
        if self.inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "table"

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def the_page_tells_sensitivity(folder):
    page = f"{folder}/page.html"
    layers, _ = quantize(SAMPLE, f"{folder}/p.terse", f"{folder}/calibration.npz")
    name = layers["layers"][1]["name"]
    report, _ = quantize(SAMPLE, f"{folder}/p.terse", f"{folder}/calibration.npz", "--keep-float", name, "--report", page,
                         "--validate", f"{folder}/figures.npz")
    text = open(page).read() if os.path.exists(page) else ""
    seen = Page(text, "sensitivity")
    head, rows = (seen.rows or [[]])[0], [dict(zip(seen.rows[0], row)) for row in seen.rows[1:]]
    check(["layer", "SQNR dB alone", "KL alone", "becomes", "why"] == [h for h in head if h in (
        "layer", "SQNR dB alone", "KL alone", "becomes", "why")], "the page has the columns of the sensitivity table", head)
    told = {layer["name"]: layer for layer in report.get("layers", [])}
    check(len(rows) == len(told) > 0 and all(row["layer"] in told for row in rows), "it has every layer once", seen.rows)
    close = [row for row in rows if "sqnr" in told[row["layer"]]
             and abs(float(row["SQNR dB alone"]) - told[row["layer"]]["sqnr"]) <= 0.051
             and abs(float(row["KL alone"]) - told[row["layer"]]["kl"]) <= 0.006 * told[row["layer"]]["kl"]]
    measured = [layer for layer in told.values() if "sqnr" in layer]
    check(len(close) == len(measured) >= len(rows) - 1, "errors alone are those of the JSON report", (rows, told))
    kept = {row["layer"]: row["why"] for row in rows if row["becomes"] == "kept float"}
    check(kept == {name: told[name]["reason"]} and kept[name], "what was kept is there with the reason", (kept, told[name]))
    check(all(row["becomes"] == "int8" and not row["why"] for row in rows if row["layer"] != name), "the others are int8", rows)
    check(text and not seen.fetched and "http-equiv" not in text and "url(" not in text and "@import" not in text,
          "the page runs and fetches nothing", seen.fetched)
    check("prefers-color-scheme:dark" in text and 'content="light dark"' in text, "it has colours for light and for dark")


def bad_samples_get_one_line(folder, name, x):
    with_nan = x[:20].copy()
    with_nan.reshape(20, -1)[4, 3] = np.nan
    cases = {
        "missing inputs": ({"other": x[:20]}, "other"),
        "no arrays": ({"labels": np.zeros(3, np.int64)}, name),
        "no rows": ({name: x[:0]}, "0 rows"),
        "NaN": ({name: with_nan}, "sample 4"),
        "a wrong shape": ({name: x[:20].reshape(20, -1)[:, :-1]}, "shape"),
        "a wrong type": ({name: x[:20].astype(np.int32)}, "INT32"),
    }
    for what, (arrays, word) in cases.items():
        path = f"{folder}/bad.npz"
        np.savez(path, **arrays)
        code, _, err = terse("compress", SAMPLE, "-o", f"{folder}/bad.terse", "--quantize", "int8", "--calibrate", path)
        check(code == 1 and len(err.strip().splitlines()) == 1 and word in err and path in err,
              f"samples with {what}: one line", err)
    check(not os.path.exists(f"{folder}/bad.terse"), "no file is left behind")
    np.savez(f"{folder}/few.npz", **{name: x[:2]})
    code, _, err = terse("compress", SAMPLE, "-o", f"{folder}/few.terse", "--quantize", "int8", "--calibrate", f"{folder}/few.npz")
    check(code == 0 and "warning" in err and "2 samples" in err, "few samples work, with a warning", err)
    for words in (["--quantize", "int8"], ["--calibrate", "x.npz"],
                  ["--quantize", "int8", "--calibrate", "x.npz", "--calibration", "best"]):
        code, _, err = terse("compress", SAMPLE, "-o", f"{folder}/u.terse", *words)
        check(code == 2 and len(err.strip().splitlines()) == 1, f"wrong usage: {' '.join(words)}", err)


def shared_model(folder, model):
    path = os.path.join(SHARED, "models", model, "model.onnx")
    if os.path.exists(path):
        return path
    import gzip
    with gzip.open(path + ".gz") as packed, open(f"{folder}/{model}.onnx", "wb") as file:
        file.write(packed.read())
    return f"{folder}/{model}.onnx"


def real_network_keeps_its_accuracy(folder, model, points, agreement=0.0, rows=None, calibration_rows=None):
    title = f"{model} loses at most {points} points"
    if not os.path.isdir(SHARED):
        return skip(title, "no shared folder")
    if SLOW_BUILD:
        return skip(title, "the release build is judged")
    paths = [f"{folder}/{model}.{part}.npz" for part in ("calibration", "figures")]
    for part, path in zip(("calibration", "figures"), paths):
        made = subprocess.run([sys.executable, os.path.join(SHARED, "tools/labelled_data.py"), model, part, path],
                              capture_output=True, text=True)
        if "No module named 'PIL'" in made.stderr:
            return skip(title, "python3-pil is not here")
        if made.returncode:
            return check(False, title, made.stderr[-500:])
    for path, n in zip(paths, (calibration_rows, rows)):
        with np.load(path) as data:
            arrays = {k: data[k][:n] for k in data.files}
        np.savez(path, **arrays)
    report, _ = quantize(shared_model(folder, model), f"{folder}/{model}.terse", paths[0], "--validate", paths[1])
    check("after" in report and points_lost(report) <= points and report["after"]["agreement"] >= agreement, title,
          report.get("failed") or {k: report[k] for k in ("before", "after", "quantize")})
    layers = report.get("layers", [])
    float_work = sum(l["macs_before"] for l in layers if l.get("kept"))
    check(layers and float_work <= 0.1 * sum(l["macs_before"] for l in layers), f"{model} is nearly all int8", layers)


def story_tokens():
    folder = os.path.join(SHARED, "data/tinystories_text")
    tokens = np.load(f"{folder}/tokens_i16.npy").astype(np.int64)
    return tokens, np.load(f"{folder}/offsets_i32.npy")


def mean_nll(folder, model, stories):
    total = n = 0
    for tokens in stories:
        np.savez(f"{folder}/in.npz", tokens=tokens[None])
        code, _, err = terse("run", model, f"{folder}/in.npz", "-o", f"{folder}/out.npz")
        if code:
            raise AssertionError(err)
        with np.load(f"{folder}/out.npz") as out:
            logits = out["logits"][0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= likely[np.arange(len(tokens) - 1), tokens[1:]].sum()
        n += len(tokens) - 1
    return total / n


def a_language_model_keeps_its_likelihood(folder):
    title = "stories260k: NLL per token within 1 %"
    if not os.path.isdir(SHARED) or SLOW_BUILD:
        return skip(title, "no shared folder, or not the release build")
    tokens, offsets = story_tokens()
    last = int(offsets[-2])
    np.savez(f"{folder}/tokens.npz", tokens=np.stack([tokens[i:i + 64] for i in range(last, len(tokens) - 64, 16)]))
    model = shared_model(folder, "stories260k")
    terse("compress", model, "-o", f"{folder}/float.terse", "-q")
    report, _ = quantize(model, f"{folder}/int8.terse", f"{folder}/tokens.npz")
    if "failed" in report:
        return check(False, title, report)
    stories = [tokens[a:b][:256] for a, b in zip(offsets[:-2], offsets[1:-1])]
    before, after = (mean_nll(folder, f"{folder}/{kind}.terse", stories) for kind in ("float", "int8"))
    check(after <= 1.01 * before, title, f"{before:.4f} before, {after:.4f} after")


def main():
    with tempfile.TemporaryDirectory() as folder:
        name, x = sample_data(folder)
        the_sample_keeps_its_accuracy(folder)
        every_method_can_be_asked_for(folder)
        layers_can_be_kept(folder)
        the_page_tells_sensitivity(folder)
        bad_samples_get_one_line(folder, name, x)
        real_network_keeps_its_accuracy(folder, "mnist_cnn", 0.1, rows=None if LONG else 3000)
        real_network_keeps_its_accuracy(folder, "tiny_ic_resnet8", 0.5, agreement=0.97)
        a_language_model_keeps_its_likelihood(folder)
        if LONG:
            real_network_keeps_its_accuracy(folder, "resnet20_cifar10", 0.5, agreement=0.98)
            real_network_keeps_its_accuracy(folder, "mobilenet_v1_025_128", 2.5)
            real_network_keeps_its_accuracy(folder, "squeezenet1_0", 1.0, agreement=0.93, calibration_rows=100)
        else:
            skip("the slower networks", "TERSE_LONG is not set")
    print(f"1..{count}")


main()
