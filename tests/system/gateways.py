# SPDX-License-Identifier: Apache-2.0
"""terse-gateway for stories: started beside a tersed of harness.py, asked over http.client."""
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile

import harness

KINDS = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "int8": "INT8", "int16": "INT16", "int32": "INT32",
         "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "bool": "BOOL"}


class Answer:
    def __init__(self, response):
        self.status, self.body = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The text of {"error": "..."}, None when the body is none."""
        try:
            found = self.json
        except ValueError:
            return None
        return found["error"] if isinstance(found, dict) and list(found) == ["error"] else None


class Gateway:
    def __init__(self, folder, endpoint, *options, environment=None, under=()):
        self.log_path = os.path.join(tempfile.mkdtemp(dir=folder), "gateway.log")
        command = [*under, harness.program("terse-gateway"), "-e", endpoint, "--listen", "127.0.0.1:0", *map(str, options)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ, **(environment or {})))
        self.port = int(harness.wait_until(self.find_port, "the gateway says where it listens"))

    def find_port(self):
        if self.process.poll() is not None:
            raise AssertionError(f"terse-gateway ended with {self.process.returncode}: {self.log()[-2000:]}")
        found = re.search(r"serves http://127\.0\.0\.1:(\d+)/", self.log())
        return found and found.group(1)

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=harness.PATIENCE)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """One request, on a connection of its own unless one is given."""
        own = connection or self.connect()
        own.request(method, path, body=body, headers=headers or {})
        answer = Answer(own.getresponse())
        if not connection:
            own.close()
        return answer

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def infer(self, model, arrays, version=None, connection=None, headers=None, **more):
        """JSON in and out."""
        body = {"inputs": [{"name": name, "shape": list(a.shape), "datatype": KINDS[str(a.dtype)], "data": a.ravel().tolist()}
                           for name, a in arrays.items()], **more}
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        return self.ask("POST", path, json.dumps(body), headers, connection)

    def infer_binary(self, model, arrays, parameters=None, outputs=None, connection=None, headers=None):
        """Binary tensors in, whatever the request says out."""
        head = {"inputs": [{"name": name, "shape": list(a.shape), "datatype": KINDS[str(a.dtype)],
                            "parameters": {"binary_data_size": a.nbytes}} for name, a in arrays.items()]}
        if outputs is not None:
            head["outputs"] = outputs
        if parameters is not None:
            head["parameters"] = parameters
        text = json.dumps(head).encode()
        body = text + b"".join(a.tobytes() for a in arrays.values())
        return self.ask("POST", f"/v2/models/{model}/infer", body,
                        {"Inference-Header-Content-Length": str(len(text)), **(headers or {})}, connection)

    def wait_ready(self):
        harness.wait_until(lambda: self.get("/v2/health/ready").status == 200, "the gateway is ready")

    def stop(self, signal_number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.process.wait(timeout=harness.PATIENCE)


def arrays(answer):
    """The outputs of an infer answer, by name."""
    import numpy
    kinds = {name: kind for kind, name in KINDS.items()}
    length = answer.headers.get("inference-header-content-length")
    head = json.loads(answer.body[:int(length)] if length else answer.body)
    rest = answer.body[int(length):] if length else b""
    found = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["datatype"] == "BYTES":
            found[output["name"]] = output["data"] if size is None else rest[:size]
        else:
            values = (numpy.array(output["data"], kinds[output["datatype"]]) if size is None
                      else numpy.frombuffer(rest[:size], kinds[output["datatype"]]))
            found[output["name"]] = values.reshape(output["shape"])
        rest = rest[size or 0:]
    return found


@contextlib.contextmanager
def gateway(story, endpoint, *options, ready=True, **more):
    """A gateway that ends with the story, or before it; what it says in its log must be no sanitizer's report."""
    started = Gateway(story.folder, endpoint, *options, **more)
    try:
        if ready:
            started.wait_ready()
        yield started
        story.check(started.process.poll() is not None or started.stop() == 0, "the gateway ends on SIGTERM with 0")
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        if harness.reported(started.log()):
            story.check(False, "no sanitizer reports anything")
            print("# " + started.log()[-3000:].replace("\n", "\n# "))
