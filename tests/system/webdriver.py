# SPDX-License-Identifier: Apache-2.0
"""A browser for stories: headless Chromium through its driver, by W3C's WebDriver protocol over plain HTTP."""
import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile

import harness

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, port, folder):
        self.port, self.session = port, None
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1500",
                     f"--user-data-dir={folder}/profile"]
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")}}}})
        self.session = "/session/" + answer["sessionId"]

    def call(self, method, path, body=None):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=harness.PATIENCE)
        link.request(method, (self.session or "") + path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(link.getresponse().read())["value"]
        link.close()
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{method} {path}: {answer['error']}: {answer.get('message', '')[:500]}")
        return answer

    def go(self, address):
        self.call("POST", "/url", {"url": address})

    def script(self, text, *arguments):
        return self.call("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def find(self, selector):
        return self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.call("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector, text):
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def text(self, selector):
        return self.script("return document.querySelector(arguments[0]).textContent", selector)

    def keys(self, *keys):
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self):
        """What the page wrote to the console since the last call: errors, refusals by its policy."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, path):
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser():
    """Skips the story where Chromium or its driver is not installed."""
    driver = shutil.which("chromedriver")
    if not driver or not shutil.which("chromium"):
        raise harness.Skip("chromium and chromium-driver are not installed (apt-get install chromium chromium-driver)")
    folder = tempfile.mkdtemp(prefix="terse-browser-")
    log = os.path.join(folder, "driver.log")
    with open(log, "wb") as out:
        process = subprocess.Popen([driver, "--port=0"], stdout=out, stderr=out, env=dict(os.environ, HOME=folder))
    started = None
    try:
        def find_port():
            with open(log, errors="replace") as file:
                found = re.findall(r"on port ([1-9]\d*)", file.read())
            return found and int(found[-1])
        started = Browser(harness.wait_until(find_port, "the driver says its port"), folder)
        yield started
    finally:
        if started:
            with contextlib.suppress(Exception):
                started.call("DELETE", "")
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
