#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two daemons on two hosts (network namespaces) over encrypted tcp, behind Debian's haproxy with packaging/haproxy/haproxy.cfg, and
with libterse alone: one host is cut off without a word under load, and no request is lost.

Wants the right to make network namespaces, and haproxy: the one that is installed, else that of Debian's archive, unpacked into
build/ the first time."""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys

import harness

HOSTS = ("192.0.2.11", "192.0.2.12")
HERE = "192.0.2.1"
CONFIG = os.path.join(harness.ROOT, "packaging", "haproxy", "haproxy.cfg")


def can_separate():
    return shutil.which("ip") and shutil.which("nsenter") and subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"], capture_output=True).returncode == 0


def find_haproxy():
    """(program, folders of its libraries), or a Skip. Not in the namespace: there is no network."""
    for path in (shutil.which("haproxy"), "/usr/sbin/haproxy"):
        if path and os.path.exists(path):
            return path, ""
    with open("/etc/os-release") as file:
        suite = dict(line.rstrip().split("=", 1) for line in file if "=" in line).get("VERSION_CODENAME", "unknown")
    root = os.path.join(harness.ROOT, "build", f"haproxy-{suite}")
    if not os.path.exists(f"{root}/usr/sbin/haproxy"):
        work = f"{root}.{os.getpid()}"
        os.makedirs(f"{work}/archives/partial")
        try:
            done = subprocess.run(["apt-get", "-y", "-qq", "--no-install-recommends", "--download-only", "-o",
                                   f"Dir::Cache::archives={work}/archives", "-o", "Debug::NoLocking=1", "install", "haproxy"],
                                  capture_output=True, text=True, timeout=120)
            packages = glob.glob(f"{work}/archives/*.deb")
            if done.returncode or not packages:
                raise harness.Skip(f"haproxy is neither installed nor to be had: {done.stderr.strip()[-200:]}")
            for package in packages:
                subprocess.run(["dpkg-deb", "-x", package, work], check=True)
            shutil.rmtree(f"{work}/archives")
            os.rename(work, root)
        except (OSError, subprocess.SubprocessError) as error:
            raise harness.Skip(f"haproxy is neither installed nor to be had: {error}")
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return f"{root}/usr/sbin/haproxy", ":".join(glob.glob(f"{root}/usr/lib/*-linux-gnu*"))


def ip(*words, under=()):
    subprocess.run([*under, "ip", *words], check=True, capture_output=True)


class Host:
    """A network namespace that is joined to this one by a pair of interfaces."""

    def __init__(self, number, address):
        self.address, self.link = address, f"host{number}"
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 3600"], stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.under = ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net")
        ip("link", "add", self.link, "type", "veth", "peer", "name", "out", "netns", str(self.holder.pid))
        ip("addr", "add", f"{HERE}/32", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("route", "add", address, "dev", self.link)
        for words in (("addr", "add", f"{address}/24", "dev", "out"), ("link", "set", "out", "up"), ("link", "set", "lo", "up")):
            ip(*words, under=self.under)

    def cut_off(self, cut=True):
        """Packets vanish; nobody is told."""
        ip("link", "set", "out", "down" if cut else "up", under=self.under)

    def end(self):
        self.holder.kill()
        self.holder.wait()


class Bench:
    def __init__(self, endpoint, keys, *options):
        # What a busy machine refuses for want of time comes again: only what is lost is to count.
        self.process = subprocess.Popen([harness.program("terse"), "bench", "-e", endpoint, "digits", "--verify", "--json",
                                         "--retries", "1000000", *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=dict(os.environ, **keys))

    def end(self):
        out, err = self.process.communicate(timeout=3 * harness.PATIENCE)
        if not out.strip():
            raise AssertionError(f"bench ended with {self.process.returncode}: {err}")
        return json.loads(out.strip().splitlines()[-1])


def requests(daemon):
    """Over ipc: the host is cut off from the network only."""
    return daemon.status()["models"][0]["requests"]


def two_hosts(story, hosts):
    model = story.digits()
    os.mkdir(f"{story.folder}/clients")
    for name in ("daemon", "clients/friend"):
        harness.run("terse", "keygen", f"{story.folder}/{name}")
    keys = {"TERSE_CURVE_SERVER": f"{story.folder}/daemon.key", "TERSE_CURVE_KEY": f"{story.folder}/clients/friend.key_secret"}
    daemons = [story.tersed({"digits": model}, "--workers", 1, "--curve-server-key", f"{story.folder}/daemon.key_secret",
                            "--curve-clients", f"{story.folder}/clients", "--listen", f"tcp://{host.address}:5555",
                            under=host.under) for host in hosts]
    return daemons, keys


def check_all(story, benches, each, what):
    for told in [b.end() for b in benches]:
        story.check(told["sent"] == told["ok"] == each and not told["errors"] and not told["mismatches"] and
                    not told["duplicates"], f"{what}: every request is answered once: {told}")


def in_the_namespace():
    ip("link", "set", "lo", "up")
    hosts = [Host(i, address) for i, address in enumerate(HOSTS)]
    proxy = None
    try:
        with harness.story("libterse knows both hosts: one is cut off under load, and comes back") as story:
            (a, b), keys = two_hosts(story, hosts)
            pair = ",".join(f"tcp://{h.address}:5555" for h in hosts)
            bench = Bench(pair, keys, "--rate", 1000, "--requests", 5000)
            harness.wait_until(lambda: min(requests(a), requests(b)) > 200, "both have some of them")
            hosts[0].cut_off()
            before = requests(b)
            check_all(story, [bench], 5000, "one is cut off")
            story.check(requests(b) - before > 2000, f"the other has most of what came then: {requests(b) - before}")
            hosts[0].cut_off(False)
            before = requests(a)

            def used_again():
                check_all(story, [Bench(pair, keys, "--concurrency", 8, "--requests", 400)], 400, "it is back")
                return requests(a) - before > 50
            harness.wait_until(used_again, "the one that is back has its share again")
        with harness.story("haproxy knows both hosts: one is cut off under load, and no request is lost") as story:
            if os.environ.get("TERSE_TEST_NO_HAPROXY"):
                raise harness.Skip(os.environ["TERSE_TEST_NO_HAPROXY"])
            program = os.environ["TERSE_TEST_HAPROXY"]
            environment = dict(os.environ, LD_LIBRARY_PATH=os.environ["TERSE_TEST_LIBRARIES"])
            done = subprocess.run([program, "-c", "-f", CONFIG], capture_output=True, text=True, env=environment)
            story.check(done.returncode == 0 and "WARNING" not in done.stderr, f"the configuration is good: {done.stderr}")
            (a, b), keys = two_hosts(story, hosts)
            log = open(f"{story.folder}/haproxy.log", "w+")
            proxy = subprocess.Popen([program, "-db", "-f", CONFIG], stderr=log, stdout=log, env=environment)
            harness.wait_until(lambda: subprocess.run(
                [harness.program("terse"), "status", "-e", "tcp://127.0.0.1:5555", "--connect-ms", "500"], capture_output=True,
                env=dict(os.environ, **keys)).returncode == 0, "the proxy passes on")
            gate = a.status()["gate"]
            benches = [Bench("tcp://127.0.0.1:5555", keys, "--rate", 300, "--requests", 2400) for _ in range(4)]
            harness.wait_until(lambda: min(requests(a), requests(b)) > 100, "both hosts have connections")
            hosts[0].cut_off()
            before = requests(b)
            check_all(story, benches, 2400, "one is cut off")
            story.check(requests(b) - before > 3000, f"the other has most of what came then: {requests(b) - before}")
            log.seek(0)
            text = log.read()
            story.check("tersed/one is DOWN" in text, f"haproxy found it: {text[-500:]}")
            hosts[0].cut_off(False)
            harness.wait_until(lambda: "tersed/one is UP" in open(log.name).read(), "haproxy takes it back")
            before = requests(a)
            check_all(story, [Bench("tcp://127.0.0.1:5555", keys, "--requests", 200) for _ in range(4)], 200, "both are back")
            story.check(requests(a) > before, "the one that is back is used")
            status = a.status()
            story.check(status["gate"]["refused_requests"] == gate["refused_requests"] and status["malformed"] == 0,
                        f"checks are no bad requests: {status['gate']}")
    finally:
        if proxy:
            proxy.kill()
            proxy.wait()
        for host in hosts:
            host.end()
    harness.finish()


if os.environ.get("TERSE_TEST_NAMESPACE"):
    in_the_namespace()
elif not can_separate():
    with harness.story("one of two hosts is cut off") as story:
        raise harness.Skip("no right to make network namespaces, or no ip and nsenter")
    harness.finish()
else:
    told = {"TERSE_TEST_NAMESPACE": "1"}
    try:
        told["TERSE_TEST_HAPROXY"], told["TERSE_TEST_LIBRARIES"] = find_haproxy()
    except harness.Skip as why:
        told["TERSE_TEST_NO_HAPROXY"] = str(why)
    os.execvpe("unshare", ["unshare", "--net", sys.executable, os.path.abspath(__file__)], dict(os.environ, **told))
