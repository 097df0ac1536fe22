#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""terse compress --max-drop and --target-...: the search reaches what is asked for or says that it does not, its plan gives
the same bytes again, and it can be ended at any time."""
import json
import os
import signal
import subprocess

import numpy

import harness
import onnx_writer

TEST_SET = os.path.join(harness.DATA, "digits_test.npz")
SAMPLE = os.path.join(harness.DATA, "digits.onnx")


def halves(story):
    """Even samples for the search, odd ones for the figures, without and with labels."""
    with numpy.load(TEST_SET) as data:
        numpy.savez(f"{story.folder}/calibration.npz", image=data["image"][::2])
        numpy.savez(f"{story.folder}/figures.npz", image=data["image"][1::2], labels=data["labels"][1::2])
    return f"{story.folder}/calibration.npz", f"{story.folder}/figures.npz"


def search(story, name, *options, onnx=SAMPLE, calibration=None, code=0):
    out = f"{story.folder}/{name}.terse"
    calibration = calibration or f"{story.folder}/calibration.npz"
    done = harness.run("terse", "compress", onnx, "-o", out, "--calibrate", calibration, "--json", *options, code=code)
    return out, json.loads(done.stdout.strip().splitlines()[-1]) if code == 0 else done.stderr


def chosen(said):
    return [m for m in said["search"]["measured"] if m["chosen"]][0]


def same(a, b):
    with open(a, "rb") as x, open(b, "rb") as y:
        return x.read() == y.read()


def wide_network(folder, seed=5):
    """Convolutions with channels that repeat each other: low rank, zeros and few bits all have something to take."""
    lots = numpy.random.default_rng(seed)

    def kernel(o, c, k, rank):
        a, b = lots.standard_normal((o, rank)), lots.standard_normal((rank, c * k * k))
        w = a @ b + 0.05 * lots.standard_normal((o, c * k * k))
        return (w.reshape(o, c, k, k) / numpy.sqrt(rank * c * k * k)).astype("f4")

    constants = {"w1": kernel(32, 3, 3, 8), "w2": kernel(64, 32, 3, 8), "w3": kernel(64, 64, 1, 8),
                 "w4": kernel(64, 64, 3, 8), "w5": (lots.standard_normal((10, 64)) / 8).astype("f4")}
    nodes = [("Conv", ["x", "w1"], ["a"], {"pads": [1, 1, 1, 1]}), ("Relu", ["a"], ["b"], {}),
             ("Conv", ["b", "w2"], ["c"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}), ("Relu", ["c"], ["d"], {}),
             ("Conv", ["d", "w3"], ["e"], {}), ("Relu", ["e"], ["f"], {}),
             ("Conv", ["f", "w4"], ["g"], {"pads": [1, 1, 1, 1]}), ("Relu", ["g"], ["h"], {}),
             ("GlobalAveragePool", ["h"], ["i"], {}), ("Flatten", ["i"], ["j"], {}),
             ("Gemm", ["j", "w5"], ["y"], {"transB": 1})]
    onnx_writer.write(f"{folder}/wide.onnx", inputs=[("x", "f4", ["N", 3, 16, 16])], outputs=[("y", "f4", ["N", 10])],
                      nodes=nodes, constants=constants)
    numpy.savez(f"{folder}/wide.npz", x=lots.standard_normal((40, 3, 16, 16)).astype("f4"))
    return f"{folder}/wide.onnx", f"{folder}/wide.npz"


def maps_network(folder, seed=5):
    """No classes come out but numbers: what is lost is a share of them, and training wins some of it back."""
    lots = numpy.random.default_rng(seed)

    def kernel(o, c, k, rank):
        a, b = lots.standard_normal((o, rank)), lots.standard_normal((rank, c * k * k))
        w = a @ b + 0.3 * numpy.sqrt(rank) * lots.standard_normal((o, c * k * k))
        return (w.reshape(o, c, k, k) / numpy.sqrt(rank * c * k * k)).astype("f4")

    pads = [1, 1, 1, 1]
    constants = {"w1": kernel(32, 3, 3, 8), "w2": kernel(64, 32, 3, 8), "w3": kernel(64, 64, 3, 8), "w4": kernel(12, 64, 3, 8)}
    nodes = [("Conv", ["x", "w1"], ["a"], {"pads": pads}), ("Relu", ["a"], ["b"], {}),
             ("Conv", ["b", "w2"], ["c"], {"pads": pads, "strides": [2, 2]}), ("Relu", ["c"], ["d"], {}),
             ("Conv", ["d", "w3"], ["e"], {"pads": pads}), ("Relu", ["e"], ["f"], {}),
             ("Conv", ["f", "w4"], ["y"], {"pads": pads, "strides": [2, 2]})]
    onnx_writer.write(f"{folder}/maps.onnx", inputs=[("x", "f4", ["N", 3, 16, 16])], outputs=[("y", "f4", ["N", 12, 4, 4])],
                      nodes=nodes, constants=constants)
    numpy.savez(f"{folder}/maps.npz", x=lots.standard_normal((60, 3, 16, 16)).astype("f4"))
    return f"{folder}/maps.onnx", f"{folder}/maps.npz"


IDLE_CHANNELS, IDLE_BYTES = (32, 22000) if "san" in harness.BUILD else (64, 35000)  # a sanitizer is ten times as slow


def idle_network(folder, seed=5):
    """Half of the channels are as strong as the others and next to nobody listens to them: neither low rank nor zeros in
    single layers take away what they cost."""
    lots = numpy.random.default_rng(seed)

    def kernel(o, c, used):
        w = lots.standard_normal((o, c, 3, 3)) / numpy.sqrt(used * 9)
        w[:, used:] *= 0.02
        return w.astype("f4")

    pads = [1, 1, 1, 1]
    n = IDLE_CHANNELS
    constants = {"w1": kernel(n, 3, 3), "w2": kernel(n, n, n // 2), "w3": kernel(n, n, n // 2), "w4": kernel(12, n, n // 2)}
    nodes = [("Conv", ["x", "w1"], ["a"], {"pads": pads}), ("Relu", ["a"], ["b"], {}),
             ("Conv", ["b", "w2"], ["c"], {"pads": pads}), ("Relu", ["c"], ["d"], {}),
             ("Conv", ["d", "w3"], ["e"], {"pads": pads}), ("Relu", ["e"], ["f"], {}),
             ("Conv", ["f", "w4"], ["y"], {"pads": pads, "strides": [2, 2]})]
    onnx_writer.write(f"{folder}/idle.onnx", inputs=[("x", "f4", ["N", 3, 16, 16])], outputs=[("y", "f4", ["N", 12, 8, 8])],
                      nodes=nodes, constants=constants)
    numpy.savez(f"{folder}/idle.npz", x=lots.standard_normal((40, 3, 16, 16)).astype("f4"))
    return f"{folder}/idle.onnx", f"{folder}/idle.npz"


with harness.story("the search for speed is never slower than dense and its plan gives the same bytes") as story:
    calibration, figures = halves(story)
    out, said = search(story, "fast", "--max-drop", "1", "--time", "120s", "--seed", "3", "--recover", "10")
    best = chosen(said)
    measured = {m["label"]: m for m in said["search"]["measured"]}
    story.check(best["meets"] and best["drop"] <= 1, f"{best}")
    story.check(best["us"] <= 1.03 * said["search"]["dense_us"], f"{best}, dense {said['search']['dense_us']}")
    story.check({"FP32", "int8"} <= set(measured) and measured["FP32"]["single"], f"{sorted(measured)}")
    for a in said["search"]["measured"]:
        beaten = [b for b in said["search"]["measured"] if all(b[k] <= a[k] for k in ("drop", "us", "bytes")) and
                  any(b[k] < a[k] for k in ("drop", "us", "bytes"))]
        equal = [b for b in said["search"]["measured"] if b is not a and all(b[k] == a[k] for k in ("drop", "us", "bytes"))]
        story.check(a["pareto"] == (not beaten) or equal, f"{a} is beaten by {beaten}")
    plan = f"{story.folder}/fast.plan.json"
    again = f"{story.folder}/again.terse"
    harness.run("terse", "compress", SAMPLE, "-o", again, "--calibrate", calibration, "--plan", plan)
    story.check(same(out, again), "the plan gives the same bytes")
    harness.run("terse", "compress", SAMPLE, "-o", again, "--calibrate", calibration, "--plan", plan, "--no-tune")
    story.check(same(out, again), "and with --no-tune")
    harness.run("terse", "inspect", "--verify", out)
    text = harness.run("terse", "explain", out).stdout
    story.check("Gemm" in text or "Conv" in text, text)

with harness.story("the search for bytes obeys its target, and mixes what single techniques cannot") as story:
    onnx, data = wide_network(story.folder)
    out, said = search(story, "small", "--target-size", "60k", "--time", "120s", "--validate", data, onnx=onnx,
                       calibration=data)
    best = chosen(said)
    story.check(os.path.getsize(out) <= 60000 and best["bytes"] <= 60000, f"{os.path.getsize(out)}, {best}")
    story.check(said["after"]["bytes"] == os.path.getsize(out), f"{said['after']}")
    layers = said["search"]["layers"]
    story.check([l["name"] for l in layers if not l["why"]] == [], f"every layer says why: {layers}")
    again = f"{story.folder}/again.terse"
    plan = f"{story.folder}/small.plan.json"
    page = f"{story.folder}/page.html"
    harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan", plan, "--report", page)
    story.check(same(out, again), "the plan gives the same bytes")
    with open(page) as file:
        html = file.read()
    story.check("<svg" in html and html.count("<circle") >= 2 and "http" not in html.replace("http://www.w3.org/2000/svg", ""),
                "the page has a picture and needs nothing else")
    layer = [l for l in layers if l["becomes"] != "dense"]
    if layer:
        told = harness.run("terse", "explain", out, layer[0]["name"]).stdout
        story.check(layer[0]["why"] in told, f"{layer[0]['why']}: {told}")

    # what people change in a plan is done
    with open(plan) as file:
        changed = json.load(file)
    for l in changed["layers"]:
        l.pop("cluster_bits", None)
        l.pop("prune", None)
    changed["layers"][3].update(rank=8, form="channel")
    changed["layers"][1].update(prune=0.5)
    with open(f"{story.folder}/changed.json", "w") as file:
        json.dump(changed, file)
    said = harness.run_json("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan",
                            f"{story.folder}/changed.json", "--json")
    rows = {l["name"]: l for l in said["layers"]}
    story.check(rows[changed["layers"][3]["name"]].get("rank") == 8, f"{rows}")
    pruned = {l["name"]: l for l in said["prune"]["layers"]}
    story.check(abs(pruned[changed["layers"][1]["name"]]["kept"] - 0.5) < 0.05, f"{pruned}")
    changed["layers"][0]["name"] = "nobody"
    with open(f"{story.folder}/changed.json", "w") as file:
        json.dump(changed, file)
    done = harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan", f"{story.folder}/changed.json",
                       code=1)
    story.check("a layer 'nobody', which the network does not have; allowed is for example" in done.stderr, done.stderr)

    done = harness.run("terse", "compress", onnx, "-o", again, "--plan", plan, code=1)
    story.check("--calibrate DATA.npz is needed" in done.stderr, done.stderr)

    # what cannot be reached is said, and no file is written for it
    out, said = search(story, "none", "--target-size", "100", "--time", "120s", onnx=onnx, calibration=data, code=1)
    story.check("at most 100 bytes" in said and "the nearest is" in said, said)
    halves(story)
    _, told = search(story, "none", "--target-speedup", "500", "--time", "120s", "--recover", "none", code=1)
    story.check("500 times the speed" in told and not os.path.exists(out), told)
    story.check(not os.path.exists(out) and os.path.exists(f"{story.folder}/none.plan.json"), "only the plan is there")

with harness.story("a search is ended at any time and goes on from its plan") as story:
    onnx, data = wide_network(story.folder)
    out, plan = f"{story.folder}/ended.terse", f"{story.folder}/ended.plan.json"
    running = subprocess.Popen([harness.program("terse"), "compress", onnx, "-o", out, "--calibrate", data, "--max-drop",
                                "2", "--time", "1h", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    harness.wait_until(lambda: os.path.exists(out) or running.poll() is not None, "the first network is written")
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=harness.PATIENCE)
    story.check(running.returncode == 0, f"exit {running.returncode}: {stderr}")
    story.check(not harness.reported(stderr), stderr)
    harness.run("terse", "inspect", "--verify", out)
    again = f"{story.folder}/again.terse"
    harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan", plan)
    story.check(same(out, again), "the plan of a search that was ended gives the same bytes")
    before = json.load(open(plan))["measured"]
    _, said = search(story, "more", "--max-drop", "2", "--time", "120s", "--recover", "none", "--plan", plan, onnx=onnx, calibration=data)
    story.check(chosen(said)["us"] <= 1.03 * said["search"]["dense_us"], f"{said['search']}")
    for l in said["search"]["layers"]:
        story.check(l["why"] != "nothing else is faster" or l["refused"], f"{l} says nothing of what was refused")
    story.check({m["label"] for m in before} <= {m["label"] for m in said["search"]["measured"]}, f"{before}, {said['search']}")

with harness.story("what loses too much is trained in the last part of the time, and that is done again bit for bit") as story:
    onnx, data = maps_network(story.folder)
    plan, page = f"{story.folder}/trained.plan.json", f"{story.folder}/page.html"
    out, said = search(story, "trained", "--max-drop", "4", "--recover", "12", "--time", "60s", "--report", page,
                       onnx=onnx, calibration=data)
    labels = [m["label"] for m in said["search"]["measured"]]
    trained = [m for m in said["search"]["measured"] if "trained" in m["label"]]
    story.check(len(trained) > 0, f"{labels}")
    story.check(f"{trained[0]['label']}: drop {trained[0]['drop']:.2f}" in said["search"]["trained"],
                f"{said['search']['trained']}, {trained}")
    story.check(f", {len(trained)} of them trained, " in said["search"]["spent"], f"{said['search']['spent']}, {trained}")
    best = chosen(said)
    story.check(best["meets"] and best["drop"] <= 4, f"{best}")
    singles = {m["label"].split(" (")[0] for m in said["search"]["measured"] if m["single"]}
    rivals = [m["label"].split(" (")[0] for m in said["search"]["techniques"]]
    story.check(set(rivals) == singles and len(rivals) == len(singles), f"{rivals}, {singles}")
    for m in said["search"]["techniques"]:
        story.check(not m["meets"] or best["us"] <= 1.03 * m["us"], f"{m} beats {best}")
    with open(page) as file:
        html = file.read()
    story.check('id="techniques"' in html and 'id="pareto"' in html, "the page has them side by side")
    again = f"{story.folder}/again.terse"
    harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan", plan)
    story.check(same(out, again), "the plan gives the same bytes")

    # for a speed: what all techniques reach together comes first, and the most promising of what has it is trained
    out, said = search(story, "faster", "--target-speedup", "1.3", "--recover", "4", "--time", "45s", "--report", page, onnx=onnx,
                       calibration=data)
    best, measured = chosen(said), said["search"]["measured"]
    others = [m for m in measured if not m["dense"]]
    story.check("channels" in others[0]["label"] and "networks built" in said["search"]["spent"], f"{said['search']}")
    story.check(best["meets"] and best["us"] <= said["search"]["dense_us"] / 1.3, f"{best}")
    story.check(all(best["drop"] <= m["drop"] for m in measured if m["meets"]), f"{measured}")
    trained = said["search"]["trained"]
    story.check(any("trained" in m["label"] for m in measured) == ("before" in trained) and
                ("before" in trained or trained.startswith("none: ")), f"{trained}, {measured}")
    with open(page) as file:
        html = file.read()
    story.check('id="trained"' in html and 'id="spent"' in html, "the page says what was trained and what took how long")
    again = f"{story.folder}/again.terse"
    harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan", f"{story.folder}/faster.plan.json")
    story.check(same(out, again), "the plan gives the same bytes")

    # a plan that trains, whether the search has taken one or not; ended behind its second epoch
    with open(plan) as file:
        changed = json.load(file)
    for l in changed["layers"]:
        l.pop("rank", None)
        l.pop("form", None)
        l["prune"] = 0.5
    changed["quantize"] = "int8"
    changed.update(is_tuned=False, tuned=[], recover_epochs=6, recover_done=2, recover_done_rounded=-1)
    with open(f"{story.folder}/changed.json", "w") as file:
        json.dump(changed, file)
    both = []
    for name, more in [("a", []), ("b", []), ("c", ["--recover", "none"])]:
        both.append(f"{story.folder}/{name}.terse")
        said = harness.run_json("terse", "compress", onnx, "-o", both[-1], "--calibrate", data, "--plan",
                                f"{story.folder}/changed.json", "--no-tune", "--json", *more)
        story.check(("recover" in said) == (not more), f"{said.get('recover')}")
        if not more:
            story.check(said["recover"]["floats"]["epochs"] == 2 and "rounded" not in said["recover"], f"{said['recover']}")
    story.check(same(both[0], both[1]) and not same(both[0], both[2]), "trained alike twice, and not like untrained")

with harness.story("whole channels go where they cost more than they give, and other choices come on top") as story:
    onnx, data = idle_network(story.folder)
    plan, page, again = f"{story.folder}/idle.plan.json", f"{story.folder}/page.html", f"{story.folder}/again.terse"
    out, said = search(story, "idle", "--max-drop", "3", "--time", "120s", "--recover", "none", "--report", page, onnx=onnx,
                       calibration=data)
    best = chosen(said)
    alone = [m for m in said["search"]["techniques"] if m["label"].startswith(("int8, channels", "channels"))]
    story.check(len(alone) == 1 and alone[0]["meets"], f"{said['search']['techniques']}")
    story.check(best["meets"] and best["us"] <= 0.75 * said["search"]["dense_us"], f"{best}, {said['search']['dense_us']}")
    story.check(said["search"]["channels"] >= 0.3, f"channels: {said['search']['channels']}, {said['search']['measured']}")
    story.check(said["after"]["macs"] < 0.75 * said["before"]["macs"], f"{said['after']}")
    gone = said["channels"]["macs_gone"]
    story.check(abs(gone - said["search"]["channels"]) < 0.12, f"{gone} gone, {said['search']['channels']} asked for")
    layers = {l["name"]: l for l in said["search"]["layers"]}
    told = [l for l in layers.values() if "outputs left" in l["channels"] or "inputs left" in l["channels"]]
    story.check(len(layers) == 4 and len(told) >= 3, f"{layers}")
    story.check("coupled to the network's output 'y'" in said["search"]["layers"][-1]["channels"], f"{layers}")
    with open(page) as file:
        story.check('id="channels"' in file.read(), "the page says what channels brought")
    text = harness.run("terse", "explain", out, told[0]["name"]).stdout
    story.check("left" in text and told[0]["channels"] in text, text)
    harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan", plan)
    story.check(same(out, again), "the plan gives the same bytes")

    # for a speed and for a size: the same technique
    out, said = search(story, "twice", "--target-speedup", "1.5", "--time", "120s", "--recover", "none", onnx=onnx,
                       calibration=data)
    alone = [m for m in said["search"]["measured"] if m["label"].startswith(("int8, channels", "channels"))]
    story.check(chosen(said)["meets"] and any(m["us"] <= said["search"]["dense_us"] / 1.5 for m in alone), f"{alone}")
    out, said = search(story, "small", "--target-size", IDLE_BYTES, "--time", "120s", onnx=onnx, calibration=data)
    alone = [m for m in said["search"]["measured"] if m["label"].startswith(("int8, channels", "channels"))]
    story.check(os.path.getsize(out) <= IDLE_BYTES and any(m["bytes"] <= IDLE_BYTES for m in alone), f"{alone}")

    # what people change of it is done, trained or not, and done alike
    with open(plan) as file:
        changed = json.load(file)
    changed.update(channels=0.25, is_tuned=False, tuned=[])
    both = []
    for name, recover in [("a", 0), ("b", 3), ("c", 3)]:
        changed.update(recover_epochs=recover, recover_done=0, recover_done_rounded=0)
        with open(f"{story.folder}/changed.json", "w") as file:
            json.dump(changed, file)
        both.append(f"{story.folder}/{name}.terse")
        said = harness.run_json("terse", "compress", onnx, "-o", both[-1], "--calibrate", data, "--plan",
                                f"{story.folder}/changed.json", "--no-tune", "--json")
        story.check(said["channels"]["amount"] == 0.25 and 0.2 < said["channels"]["macs_gone"] < 0.5, f"{said['channels']}")
        story.check(("recover" in said) == (recover > 0), f"{said.get('recover')}")
    story.check(same(both[1], both[2]) and not same(both[0], both[1]), "trained alike twice, and not like untrained")
    for value, says in [(1.5, "'channels' is 1.5, allowed are 0 to 0.99"), ("all", "'channels' is a text, allowed is a number")]:
        changed["channels"] = value
        with open(f"{story.folder}/changed.json", "w") as file:
            json.dump(changed, file)
        done = harness.run("terse", "compress", onnx, "-o", again, "--calibrate", data, "--plan",
                           f"{story.folder}/changed.json", code=1)
        story.check(says in done.stderr and done.stderr.count("\n") == 1, done.stderr)

    # one layer alone has no channels that could go, and says so
    onnx_writer.write(f"{story.folder}/one.onnx", inputs=[("x", "f4", ["N", 3, 16, 16])], outputs=[("y", "f4", ["N", 32, 16, 16])],
                      nodes=[("Conv", ["x", "w"], ["y"], {"pads": [1, 1, 1, 1]})],
                      constants={"w": numpy.random.default_rng(3).standard_normal((32, 3, 3, 3)).astype("f4")})
    out, said = search(story, "one", "--max-drop", "3", "--time", "20s", "--recover", "none", onnx=f"{story.folder}/one.onnx",
                       calibration=data)
    story.check("none can go" in said["search"]["channels_why"] and "output 'y'" in said["search"]["channels_why"],
                f"{said['search']['channels_why']}")
    story.check(any("output 'y'" in r for r in said["search"]["layers"][0]["refused"]), f"{said['search']['layers']}")

with harness.story("what does not go with a search is refused in one line") as story:
    calibration, figures = halves(story)
    with numpy.load(TEST_SET) as images:
        numpy.savez(f"{story.folder}/one.npz", image=images["image"][:1])
        numpy.savez(f"{story.folder}/wrong.npz", picture=images["image"])
        broken = images["image"][:8].copy()
        broken[3, 0, 2, 2] = numpy.nan
        numpy.savez(f"{story.folder}/broken.npz", image=broken)
    with open(f"{story.folder}/no_plan.json", "w") as file:
        file.write('{"terse_plan": 1, "layers": [{"name": "x", "rnk": 3}]}')
    usage = [(["--max-drop", "x"], "--max-drop is 'x', allowed are 0 to 100"),
             (["--max-drop", "101"], "allowed are 0 to 100"),
             (["--target-ms", "0"], "--target-ms is '0'"),
             (["--target-size", "-5"], "--target-size is '-5'"),
             (["--target-speedup", "0.5"], "--target-speedup is '0.5', allowed are 1 to 1000"),
             (["--target-ms", "1", "--target-size", "1M"], "one of --target-ms, --target-size and --target-speedup"),
             (["--max-drop", "1", "--time", "0"], "--time is '0'"),
             (["--max-drop", "1", "--threads", "99"], "--threads is '99', allowed are 1 to 64"),
             (["--max-drop", "1", "--quantize", "int8"], "--quantize does not go with a search"),
             (["--max-drop", "1", "--low-rank", "0.9"], "--low-rank does not go with a search"),
             (["--max-drop", "1", "--recover", "x"], "--recover is 'x', allowed are a number of epochs"),
             (["--max-drop", "1", "--recover", "2m", "--time", "60s"], "--recover is '2m' of the search's --time, which is 60 s"),
             (["--max-drop", "1", "--checkpoint", "c"], "--checkpoint"),
             (["--quantize", "int8", "--seed", "3"], "--seed goes with a search only"),
             (["--plan", f"{story.folder}/no_plan.json", "--prune", "0.5"], "--prune does not go with --plan")]
    for options, says in usage:
        _, said = search(story, "bad", *options, code=2)
        story.check(says in said and said.count("\n") == 1, f"{options}: {said}")
    done = harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/bad.terse", "--max-drop", "1", code=2)
    story.check("a search needs samples: --calibrate" in done.stderr, done.stderr)
    harness.run("terse", "compress", SAMPLE, "-o", f"{story.folder}/some.terse", "--calibrate", calibration, "--max-drop",
                "5", "--time", "3s")
    onnx, data = wide_network(story.folder)
    _, said = search(story, "bad", "--max-drop", "1", "--plan", f"{story.folder}/some.plan.json", onnx=onnx,
                     calibration=data, code=1)
    story.check("has measured another network" in said, said)
    work = [(["--plan", f"{story.folder}/no_plan.json"], calibration, "a layer has no 'rnk'"),
            (["--plan", f"{story.folder}/absent.json"], calibration, "absent.json"),
            (["--max-drop", "1", "--plan", f"{story.folder}/no_plan.json"], calibration, "a layer has no 'rnk'"),
            (["--max-drop", "1"], f"{story.folder}/one.npz", "1 sample, needed are at least 2"),
            (["--max-drop", "1"], f"{story.folder}/wrong.npz", "'picture' is no input"),
            (["--max-drop", "1"], f"{story.folder}/broken.npz", "'image'"),
            (["--max-drop", "1", "--batch", "4096"], calibration, "--batch is 4096, the samples held out are")]
    for options, data, says in work:
        _, said = search(story, "bad", *options, calibration=data, code=1)
        last = said.strip().splitlines()[-1]
        story.check(says in last and last.startswith("terse compress: "), f"{options}: {said}")
        story.check(not harness.reported(said), said)

harness.finish()
