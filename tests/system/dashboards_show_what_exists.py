#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The dashboard, the alerts and the scrape example under packaging/ name metrics that exist: Debian's prometheus scrapes a gateway
and is asked for each expression."""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import gateways
import harness

PACKAGING = os.path.join(harness.ROOT, "packaging")
DASHBOARDS = sorted(glob.glob(os.path.join(PACKAGING, "grafana", "*.json")))
PROMETHEUS, PROMTOOL = shutil.which("prometheus", path="/usr/bin"), shutil.which("promtool", path="/usr/bin")


def need(path, name):
    if not path:
        raise harness.Skip(f"{name} is not installed (Debian's package prometheus has it)")


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panels({"panels": panel.get("panels", [])})


def expressions():
    """(where, expression) of every panel."""
    for path in DASHBOARDS:
        with open(path, encoding="utf-8") as file:
            dashboard = json.load(file)
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                yield f"{os.path.basename(path)}: {panel['title']}", target["expr"]


def alerts():
    """Expressions of the rules; a rule's text goes on over lines that are indented further."""
    with open(os.path.join(PACKAGING, "prometheus", "terse.rules.yml"), encoding="utf-8") as file:
        for found in re.finditer(r"^( +)expr: *(>?)(.*)\n((?:\1 +.*\n)*)", file.read(), re.M):
            yield " ".join(((found.group(3) if not found.group(2) else "") + found.group(4)).split())


class Prometheus:
    def __init__(self, folder, target):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        with open(os.path.join(PACKAGING, "prometheus", "prometheus.yml"), encoding="utf-8") as file:
            config = file.read()
        assert "127.0.0.1:8000" in config and "scrape_interval: 15s" in config
        config = config.replace("127.0.0.1:8000", target).replace("scrape_interval: 15s", "scrape_interval: 250ms\n  scrape_timeout: 250ms")
        shutil.copy(os.path.join(PACKAGING, "prometheus", "terse.rules.yml"), folder)
        path = os.path.join(folder, "prometheus.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config)
        self.log_path = os.path.join(folder, "prometheus.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([PROMETHEUS, f"--config.file={path}", f"--storage.tsdb.path={folder}/data",
                                             f"--web.listen-address={self.address}"], stdout=log, stderr=log)

    def ask(self, what, **parameters):
        url = f"http://{self.address}/api/v1/{what}?" + urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(url, timeout=harness.PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                return None
            raise AssertionError(f"{what} {parameters}: {error.read().decode()}") from error
        except (urllib.error.URLError, ConnectionError):
            if self.process.poll() is not None:
                with open(self.log_path) as log:
                    raise AssertionError(f"prometheus ended: {log.read()[-2000:]}")
            return None

    def query(self, expression):
        """The values, None while it does not answer."""
        data = self.ask("query", query=expression)
        return data and [float(found["value"][1]) for found in data["result"]]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


with harness.story("the dashboard is whole: panels with numbers of their own, side by side, of one data source") as story:
    story.check(len(DASHBOARDS) >= 1 and len(list(expressions())) >= 30, "there is a dashboard")
    for path in DASHBOARDS:
        with open(path, encoding="utf-8") as file:
            dashboard = json.load(file)
        found = list(panels(dashboard))
        story.check(len({p["id"] for p in found}) == len(found), "every panel has a number of its own")
        cells = set()
        for panel in found:
            at = panel["gridPos"]
            own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            story.check(at["x"] + at["w"] <= 24 and not own & cells, f"'{panel['title']}' stands in a place of its own")
            cells |= own
            letters = [t["refId"] for t in panel.get("targets", [])]
            story.check(len(set(letters)) == len(letters) and all(t["datasource"]["uid"] == "${datasource}" for t in panel.get("targets", [])),
                        f"'{panel['title']}': targets")
        names = {v["name"] for v in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(found))) - {"__rate_interval"}
        story.check(used <= names, f"variables {used - names} are not defined")

with harness.story("promtool takes the scrape configuration and the alerts") as story:
    need(PROMTOOL, "promtool")
    done = subprocess.run([PROMTOOL, "check", "config", os.path.join(PACKAGING, "prometheus", "prometheus.yml")], capture_output=True, text=True)
    story.check(done.returncode == 0 and "rules found" in done.stdout, done.stdout + done.stderr)
    story.check(len(list(alerts())) == len(re.findall("alert:", open(os.path.join(PACKAGING, "prometheus", "terse.rules.yml")).read())),
                "every alert has an expression that is read here")

with harness.story("prometheus has data for every expression of the dashboard, and every metric that an alert names") as story:
    need(PROMETHEUS, "prometheus")
    tersed = story.tersed({"digits": story.digits()}, "--workers", 1)
    with gateways.gateway(story, tersed.endpoint) as gateway:
        prometheus = Prometheus(story.folder, f"127.0.0.1:{gateway.port}")
        try:
            client, pixels = harness.Client(tersed.endpoint), harness.digits_images()[0]
            sent = [0]

            def traffic():
                for rows in (1, 3):
                    client.infer("digits", {"image": pixels[:rows]})
                    client.receive()
                client.infer("digits", {"image": pixels[:1]}, timeout_us=0)
                client.receive()
                sent[0] += 3

            def answered(expression):
                traffic()
                values = prometheus.query(expression)
                return values and all(value == value for value in values)  # NaN: nothing happened in the interval

            harness.wait_until(lambda: answered("sum(rate(terse_requests_total[5s])) > 0"), "prometheus has scraped twice")
            waiting = [(where, re.sub(r'\$instance|\$model', ".*", e.replace("$__rate_interval", "10s"))) for where, e in expressions()]
            story.check(not any("$" in e for _, e in waiting), "all variables are replaced")
            def missing():
                traffic()
                waiting[:] = [(where, e) for where, e in waiting if not answered(e)]
                return not waiting
            try:
                harness.wait_until(missing, "every expression has data", 30)
            except AssertionError:
                pass
            for where, expression in waiting:
                story.check(False, f"{where}: no data for {expression}")
            known = set(prometheus.ask("label/__name__/values"))
            for expression in alerts():
                prometheus.query(expression)  # raises when it is none
                named = set(re.findall(r"\b(?:terse_\w+|up)\b", expression))
                story.check(named and named <= known, f"an alert names {named - known}")
            exact = 'terse_requests_total{model="digits",version="1"}'
            harness.wait_until(lambda: prometheus.query(exact) == [float(sent[0])], f"it counts {sent[0]} requests")
            rejected = prometheus.query('terse_rejections_total{reason="late"}')
            story.check(rejected == [sent[0] / 3], f"a third of {sent[0]} was late: {rejected}")
            quantile = prometheus.query('histogram_quantile(1, sum by (le) (terse_batch_rows_bucket))')
            story.check(quantile == [3.0], f"batches had 1 to 3 rows: {quantile}")
            told = prometheus.ask("metadata", metric="terse_request_seconds")
            story.check(told["terse_request_seconds"][0]["type"] == "histogram" and told["terse_request_seconds"][0]["unit"] == "seconds",
                        f"it was read as OpenMetrics: {told}")
            client.close()
        finally:
            prometheus.stop()

with harness.story("prometheus tells apart the daemons behind one gateway, and sees that one is gone") as story:
    need(PROMETHEUS, "prometheus")
    daemons = [story.tersed({"digits": story.digits()}, "--workers", 1) for _ in range(2)]
    with gateways.gateway(story, ",".join(daemon.endpoint for daemon in daemons)) as gateway:
        told = gateway.get("/metrics").body.decode()
        story.check(told.count("# TYPE terse_requests counter\n") == 1 and told.count("terse_endpoint_up{") == 2, "one text of both")
        prometheus = Prometheus(story.folder, f"127.0.0.1:{gateway.port}")
        try:
            clients, pixels = [harness.Client(daemon.endpoint) for daemon in daemons], harness.digits_images()[0]
            for i, client in enumerate(clients):
                for _ in range(3 + i):
                    client.infer("digits", {"image": pixels[:1]})
                    client.receive()
                client.close()
            def counted(daemon, query):
                return prometheus.query(query % daemon.endpoint)
            for i, daemon in enumerate(daemons):
                harness.wait_until(lambda: counted(daemon, 'terse_requests_total{model="digits",endpoint="%s"}') == [3.0 + i],
                                   f"daemon {i} had {3 + i} requests")
            harness.wait_until(lambda: prometheus.query("sum(terse_endpoint_up)") == [2.0], "both are up")
            daemons[0].stop()
            harness.wait_until(lambda: counted(daemons[0], 'terse_endpoint_up{endpoint="%s"}') == [0.0], "the one that is gone is down")
            harness.wait_until(lambda: prometheus.query("count(terse_uptime_seconds)") == [1.0], "and its numbers are not told any more")
            daemons[1].stop()
            harness.wait_until(lambda: prometheus.query("up") == [0.0], "with no daemon left nothing is told")
            story.check(gateway.get("/metrics").status == 503, "that is 503")
        finally:
            prometheus.stop()

harness.finish()
