#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Clients over tcp meet a process of their own, the gate: keys, limits, and floods that end nobody but themselves."""
import os
import signal
import socket
import subprocess
import threading

import numpy
import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

import harness
import onnx_writer
import zmtp

X = numpy.linspace(-1, 1, 8, dtype="f4").reshape(1, 8)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def gate(tersed):
    found = [pid for pid, name in harness.children(tersed.pid) if name.startswith("terse-gate")]
    return found[0] if found else None


def call(client):
    client.infer("mlp", {"x": X})
    return client.receive()


def remote_clients_get_answers(story, tersed, tcp, want):
    client = harness.Client(tcp)
    header, frames = call(client)
    story.check(header["status"] == "OK" and frames == want, "a client over tcp gets the bits that one over ipc gets")
    for op, more in (("load", {"model": "mlp", "file": "/etc/passwd"}), ("unload", {"model": "mlp"}),
                     ("configure", {"model": "mlp", "max_batch": 1})):
        got = client.call(op, **more)
        story.check(got["status"] == "PERMISSION_DENIED", f"{op} over tcp is refused: {got}")
    client.socket.send_multipart([b"\x93garbage", b"x"])
    header, frames = call(client)
    story.check(header["status"] == "OK" and frames == want, "and is served on after it sent garbage")
    client.close()


def the_gate_may_die(story, tersed, tcp, want):
    client, ipc = harness.Client(tcp), harness.Client(tersed.endpoint)
    story.check(call(client)[0]["status"] == "OK", "a client is connected")
    first = gate(tersed)
    os.kill(first, signal.SIGKILL)
    story.check(call(ipc)[1] == want, "while the gate is gone a client over ipc is served")
    harness.wait_until(lambda: gate(tersed) not in (None, first), "another gate comes")
    done = harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
    story.check(done.returncode == 0, "and the same address answers again")
    front = tersed.frontend()
    os.kill(front, signal.SIGKILL)
    harness.wait_until(lambda: tersed.frontend() not in (None, front), "another front end comes")
    harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
    late = harness.Client(tcp)
    story.check(call(late)[1] == want, "also after the front end died")
    for one in (client, ipc, late):
        one.close()


def floods_end_themselves(story, tersed, tcp, want):
    """Messages without end, each beyond what one connection may cost."""
    front, stop, wrong = tersed.frontend(), threading.Event(), []

    def honest():
        client = harness.Client(tersed.endpoint)
        while not stop.is_set():
            got = call(client)
            if got is None or got[1] != want:
                wrong.append(got)
        client.close()

    thread = threading.Thread(target=honest)
    thread.start()
    ends = []
    for size in (0, 100, 1 << 20):
        try:
            peer = zmtp.shake_hands(zmtp.connect(tcp))
            zmtp.flood(peer, zmtp.frame(bytes(size), True), 4 << 30)
            ends.append(zmtp.ended(peer))
        except ConnectionError:
            ends.append(True)  # the gate itself was ended
    stop.set()
    thread.join()
    story.check(all(ends), "messages without end are cut off")
    story.check(not wrong, f"a client over ipc got every answer right meanwhile: {wrong[:1]}")
    story.check(tersed.frontend() == front, "and the front end is the same process")
    harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")


def memory_ends(story):
    """So many connections, each with a message that does not end, that they cost more than the gate may have before all
    their messages together are more than is taken in: as little as may be configured, for requests of 1 MiB."""
    path = f"{story.folder}/little.conf"
    with open(path, "w") as file:
        file.write("[server]\nmax_request_bytes = 1M\ngate_memory_bytes = 8M\nmax_tcp_connections = 5000\n")
    tersed, tcp, want = start(story, "--config", path)
    first, others = gate(tersed), [(pid, name) for pid, name in harness.children(tersed.pid) if not name.startswith("terse-gate")]
    with open(f"/proc/{first}/limits") as file:
        if "unlimited" in next(line for line in file if line.startswith("Max address space")):
            raise harness.Skip("a sanitizer's program has no limit of memory")
    honest, served, peers = harness.Client(tersed.endpoint), 0, []
    part = zmtp.frame(bytes(2000), True)
    try:
        while harness.alive(first) and len(peers) < 900:
            peers.append(zmtp.connect(tcp))
            zmtp.shake_hands(peers[-1]).sendall(part)
            if len(peers) % 10 == 0:
                story.check(call(honest)[1] == want, "the client over ipc is served")
                served += 1
    except OSError:
        pass  # the gate has ended
    harness.wait_until(lambda: gate(tersed) not in (None, first), "the gate whose memory is out ends, and another comes")
    for peer in peers:
        peer.close()
    story.check(served > 0 and call(honest)[1] == want, f"a client over ipc was served all the time, {served} times")
    story.check([one for one in harness.children(tersed.pid) if one[0] != gate(tersed)] == others, "no other process has ended")
    status = tersed.status()
    story.check(status["gate"]["restarts"] == 1, f"the gate was started once more: {status['gate']}")
    said = next(line for line in tersed.log().splitlines() if "gate: ended with" in line)
    story.check("signal 6" in said or "status" in said, f"and it ended by itself: {said}")
    harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
    late = harness.Client(tcp)
    story.check(call(late)[1] == want, "over tcp clients are served again")
    for one in (honest, late):
        one.close()


def the_filter_holds(story, tersed):
    if os.environ.get("TERSE_BUILD", "").endswith(("asan", "tsan")):
        return  # whose runtimes want to look at processes: nothing is given up there
    for pid, name in harness.children(tersed.pid):
        with open(f"/proc/{pid}/status") as file:
            status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
        story.check(status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == 0,
                    f"{name} gains no privileges and has none: {status['NoNewPrivs']} {status['CapEff']}")
        if not os.environ.get("TERSE_BUILD", "").endswith(("asan", "ubsan", "tsan")):
            story.check(status["Seccomp"] == "2", f"{name} has its filter")


def client_with(tcp, folder, name):
    own = zmq.auth.load_certificate(f"{folder}/{name}.key_secret")
    client = harness.Client.__new__(harness.Client)
    client.socket, client.next_id = zmq.Context.instance().socket(zmq.DEALER), 1
    client.socket.curve_publickey, client.socket.curve_secretkey = own
    client.socket.curve_serverkey = zmq.auth.load_certificate(f"{folder}/daemon.key")[0]
    client.socket.linger = 0
    client.watch = client.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    client.socket.connect(tcp)
    return client


def events(client, seconds):
    """Those that a client's socket has seen, as soon as there are some."""
    seen = []
    while client.watch.poll(0 if seen else seconds * 1000):
        seen.append(recv_monitor_message(client.watch)["event"])
    return seen


def stays_outside(story, tersed, tcp, folder):
    refused = tersed.status()["gate"]["refused_keys"]
    client = client_with(tcp, folder, "former")
    client.infer("mlp", {"x": X})
    harness.wait_until(lambda: tersed.status()["gate"]["refused_keys"] > refused, "a key that is gone is refused")
    story.check(client.receive(0) is None, "and its client gets no answer")
    client.socket.disable_monitor()
    client.close()


def keys_come_and_go(story, tersed, tcp, folder):
    """friend stays, late comes, former goes: it has one connection that works and one that never said anything."""
    keys = f"{folder}/clients"
    friend, former, silent = (client_with(tcp, folder, name) for name in ("friend", "former", "former"))
    story.check(call(friend)[0]["status"] == call(former)[0]["status"] == "OK", "two keys are listed")
    story.check(zmq.EVENT_HANDSHAKE_SUCCEEDED in events(silent, 60), "and a third connection says nothing")
    for one in (friend, former):
        events(one, 60)
    first = gate(tersed)
    os.rename(f"{keys}/former.key", f"{folder}/former.key")
    os.rename(f"{folder}/late.key", f"{keys}/late.key")
    os.kill(tersed.pid, signal.SIGHUP)
    for one, name in ((former, "one that was served"), (silent, "one that said nothing")):
        story.check(zmq.EVENT_DISCONNECTED in events(one, 60), f"the connection of a key that is gone ends: {name}")
    story.check(call(friend)[0]["status"] == "OK" and not events(friend, 0), "that of a key that stays does not")
    late = client_with(tcp, folder, "late")
    story.check(call(late)[0]["status"] == "OK", "a new key comes in")
    stays_outside(story, tersed, tcp, folder)
    with open(f"{keys}/broken.key", "w") as file:
        file.write('public-key = "short"\n')
    os.kill(tersed.pid, signal.SIGHUP)
    harness.wait_until(lambda: "nothing changes" in tersed.log(), "the mistake is told")
    story.check(call(friend)[0]["status"] == call(late)[0]["status"] == "OK", "a broken key file changes nothing")
    os.unlink(f"{keys}/broken.key")
    story.check(gate(tersed) == first, "all in the same gate")
    os.kill(first, signal.SIGKILL)
    harness.wait_until(lambda: gate(tersed) not in (None, first), "another gate comes")
    newer = client_with(tcp, folder, "late")
    story.check(call(newer)[0]["status"] == "OK", "which knows the new keys")
    stays_outside(story, tersed, tcp, folder)
    for one in (friend, former, silent, late, newer):
        one.socket.disable_monitor()
        one.close()


def with_keys(story):
    folder, port = story.folder, free_port()
    for name in ("daemon", "friend", "stranger", "former", "late"):
        harness.run("terse", "keygen", f"{folder}/{name}")
    story.check(os.stat(f"{folder}/daemon.key_secret").st_mode & 0o777 == 0o600, "a secret key is its owner's alone")
    again = harness.run("terse", "keygen", f"{folder}/daemon", code=1)
    story.check("exists already" in again.stderr, "and is not overwritten")
    os.mkdir(f"{folder}/clients")
    for name in ("friend", "former"):
        os.rename(f"{folder}/{name}.key", f"{folder}/clients/{name}.key")
    tcp = f"tcp://127.0.0.1:{port}"
    tersed = story.tersed({"mlp": f"{folder}/mlp.terse"}, "--workers", "1", "--listen", tcp, "--curve-server-key",
                          f"{folder}/daemon.key_secret", "--curve-clients", f"{folder}/clients")
    keys = {"TERSE_CURVE_SERVER": f"{folder}/daemon.key", "TERSE_CURVE_KEY": f"{folder}/friend.key_secret"}
    status = ["terse", "status", "-e", tcp, "--connect-ms"]
    harness.run(*status, "60000", env=dict(os.environ, **keys))
    story.check(True, "a client whose key is listed comes in")
    done = harness.run(*status, "300", code=1, env=dict(os.environ, **dict(keys, TERSE_CURVE_KEY=f"{folder}/stranger.key_secret")))
    story.check("no daemon answers" in done.stderr, f"one whose key is not stays outside: {done.stderr.strip()}")
    harness.run(*status, "300", code=1)
    story.check(True, "and one without a key")
    os.chmod(f"{folder}/friend.key_secret", 0o644)
    done = harness.run(*status, "300", code=1, env=dict(os.environ, **keys))
    story.check("0644" in done.stderr and "0600" in done.stderr, f"an open secret key is refused: {done.stderr.strip()}")
    os.chmod(f"{folder}/friend.key_secret", 0o600)
    client = client_with(tcp, folder, "friend")
    story.check(call(client)[0]["status"] == "OK", "pyzmq reads the same key files")
    client.socket.disable_monitor()
    client.close()
    keys_come_and_go(story, tersed, tcp, folder)


def without_keys(story):
    done = subprocess.run([harness.program("tersed"), "--check", "--listen", "tcp://0.0.0.0:5555", "--model",
                           f"mlp={story.folder}/mlp.terse"], capture_output=True, text=True)
    story.check(done.returncode != 0 and "insecure_tcp" in done.stderr,
                f"another address than loopback wants keys: {done.stderr.strip()[:300]}")


def start(story, *options):
    model = story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    tcp = f"tcp://127.0.0.1:{free_port()}"
    tersed = story.tersed({"mlp": model}, "--workers", "1", "--listen", tcp, *options)
    ipc = harness.Client(tersed.endpoint)
    want = call(ipc)[1]
    ipc.close()
    harness.run("terse", "status", "-e", tcp, "--wait-ms", "60000", "--connect-ms", "60000")
    return tersed, tcp, want


with harness.story("remote clients get answers and change nothing") as story:
    daemon, address, wanted = start(story)
    remote_clients_get_answers(story, daemon, address, wanted)
    the_filter_holds(story, daemon)

with harness.story("the gate may die and comes back") as story:
    the_gate_may_die(story, *start(story))

with harness.story("floods over tcp end themselves") as story:
    floods_end_themselves(story, *start(story))

with harness.story("a gate that is out of memory ends alone, and another comes") as story:
    memory_ends(story)

with harness.story("keys let in whom they name") as story:
    story.compress(onnx_writer.mlp(f"{story.folder}/mlp.onnx", [8, 16, 4]))
    without_keys(story)
    with_keys(story)

harness.finish()
