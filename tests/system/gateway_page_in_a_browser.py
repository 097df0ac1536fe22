#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The page of terse-gateway in headless Chromium: live figures of two models, requests from .npy, .png and JSON, by mouse and
by keyboard, light and dark, nothing from elsewhere. Screenshots stay in BUILD/screenshots."""
import json
import os
import re
import struct
import zlib

import gateways
import harness
import numpy
import webdriver

SHOTS = os.path.join(harness.BUILD, "screenshots")


def png(path, gray):
    """An 8 bit gray picture."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in gray)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 8, 0, 0, 0, 0))
                   + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def shown(page):
    """The numbers of the first output, as the whole answer has them."""
    return numpy.array(json.loads(page.text("#result pre"))["outputs"][0]["data"], "float32")


def answered(page):
    told = harness.wait_until(lambda: (page.text("#told") or "").startswith("answered in") or page.script(
        "return document.getElementById('told').className") == "bad", "an answer or a complaint is shown") and page.text("#told")
    return told.startswith("answered in"), told


def send_files(story, page, daemon):
    image = harness.digits_images()[0][3:4].astype("float32")
    wanted = daemon.infer("digits", {"image": image})["logits"][0]
    numpy.save(f"{story.folder}/one.npy", image)
    numpy.save(f"{story.folder}/bare.npy", image[0].astype("float64"))
    with open(f"{story.folder}/list.json", "w") as file:
        json.dump(image.tolist(), file)
    with open(f"{story.folder}/request.json", "w") as file:
        json.dump({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image.ravel().tolist()}]}, file)
    for name in ("one.npy", "bare.npy", "list.json", "request.json"):
        page.type("#file", f"{story.folder}/{name}")
        page.click("#send")
        well, told = answered(page)
        story.check(well and numpy.array_equal(shown(page), wanted), f"{name} is answered as by any client: {told}")
    story.check(page.text("#result tbody tr td") == str(int(wanted.argmax())), "the largest value comes first")
    gray = numpy.random.default_rng(5).integers(0, 256, (8, 8), dtype=numpy.uint8)
    png(f"{story.folder}/eight.png", gray)
    page.type("#file", f"{story.folder}/eight.png")
    page.click("#send")
    well, told = answered(page)
    wanted = daemon.infer("digits", {"image": (gray.astype("float64") / 255).astype("float32").reshape(1, 1, 8, 8)})["logits"][0]
    story.check(well and numpy.allclose(shown(page), wanted, atol=1e-4), f"a picture is answered: {told}")
    numpy.save(f"{story.folder}/wrong.npy", numpy.zeros((1, 3, 8, 8), "float32"))
    page.type("#file", f"{story.folder}/wrong.npy")
    page.click("#send")
    well, told = answered(page)
    story.check(not well and told.startswith("400:") and "image" in told, f"a wrong shape is told: {told}")


def send_by_keyboard(story, page):
    page.script("document.getElementById('zeros').focus()")
    page.keys(" ")
    harness.wait_until(lambda: "inputs" in page.script("return document.getElementById('text').value"), "zeros are filled in")
    reached = []
    page.script("document.getElementById('model').focus()")
    for _ in range(8):
        reached.append(page.script("return document.activeElement.id"))
        page.keys("\ue004")
    story.check({"model", "scale", "file", "text", "send", "zeros"} <= set(reached), f"the tab key reaches everything: {reached}")
    page.script("document.getElementById('send').focus()")
    page.keys("\ue007")
    well, told = answered(page)
    story.check(well, f"the enter key sends: {told}")


def luminance(text):
    channels = [int(c) / 255 for c in re.findall(r"\d+", text)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def looks(story, page):
    for scheme in ("light", "dark"):
        page.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colors = page.script("""
            const of = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
            const lines = [...document.querySelectorAll('#rate path')].map(path => getComputedStyle(path).stroke);
            return {ground: of('section', 'backgroundColor'), ink: of('body', 'color'), soft: of('th', 'color'), lines,
                    dashes: [...document.querySelectorAll('#rate path')].map(path => path.getAttribute('stroke-dasharray'))};""")
        ground = luminance(colors["ground"])
        story.check((ground > 0.5) == (scheme == "light"), f"{scheme} is {scheme}: {colors}")
        for what, least in [(colors["ink"], 7), (colors["soft"], 4.5)] + [(line, 3) for line in colors["lines"]]:
            light, dark = max(ground, luminance(what)), min(ground, luminance(what))
            story.check((light + 0.05) / (dark + 0.05) >= least, f"{scheme}: {what} stands out by {least}")
        story.check(len(set(colors["dashes"])) == len(colors["dashes"]) > 1, "lines differ in more than color")
        page.picture(os.path.join(SHOTS, f"gateway-{scheme}.png"))
    names = page.script("return [...document.querySelectorAll('svg[role=img] > title')].map(t => t.textContent)")
    story.check(len(names) == 3 and any("digits" in name for name in names), f"pictures say in words what they show: {names}")
    page.devtools("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=False)
    story.check(page.script("return document.documentElement.scrollWidth <= innerWidth"), "it fits a narrow window")
    page.devtools("Emulation.clearDeviceMetricsOverride")


def tell(story):
    os.makedirs(SHOTS, exist_ok=True)
    model = story.digits()
    daemon = story.tersed({"digits": model, "same": model}, "--workers", "2")
    with gateways.gateway(story, daemon.endpoint, "--live-s", 1) as gate, webdriver.browser() as page:
        page.go(f"http://127.0.0.1:{gate.port}/")
        harness.wait_until(lambda: page.script("return document.querySelectorAll('#models tbody tr').length") == 2, "both models are shown")
        send_files(story, page, daemon)
        connection = gate.connect()

        def figures():
            for name in ("digits", "same"):
                for _ in range(20):
                    gate.infer_binary(name, {"image": numpy.zeros((2, 1, 8, 8), "float32")}, connection=connection)
            cells = page.script("return [...document.querySelectorAll('#models tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
            points = page.script("return picture.models[0].rate.length")
            return points >= 4 and all(cell[3] not in ("0", "–") and re.search("µs|ms|s", cell[6]) for cell in cells)
        harness.wait_until(figures, "rates and latencies are shown")
        connection.close()
        story.check(page.script("return document.querySelectorAll('#workers tbody tr').length") == 2, "both workers are shown")
        story.check("2 of 2 models ready" in page.text("#state"), "the state is told")
        harness.wait_until(lambda: page.script("return document.querySelectorAll('#rows rect').length") > 0, "batch sizes are drawn")
        send_by_keyboard(story, page)
        complaints = [line for line in page.complaints() if "400 (Bad Request)" not in line]
        story.check(not complaints, f"the browser has no complaint: {complaints}")
        looks(story, page)
        elsewhere = page.script("return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))")
        story.check(elsewhere == [], f"nothing comes from elsewhere: {elsewhere}")
        page.script("const s = document.createElement('script'); s.textContent = 'window.intruder = 1'; document.body.append(s)")
        story.check(page.script("return window.intruder") is None, "the policy lets no other script run")
        daemon.stop()
        harness.wait_until(lambda: page.script("return document.getElementById('state').className") == "bad", "a daemon that is gone is told")


with harness.story("the page shows what happens and sends what is dropped") as story:
    tell(story)

harness.finish()
