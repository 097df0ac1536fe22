# SPDX-License-Identifier: Apache-2.0
"""What encryption costs a request over tcp, and what 200 hostile clients cost an honest one."""
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import zmtp

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
HOSTILE = 200


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def bench(tools, endpoint, model, keys=None):
    done = subprocess.run([tools.program("terse"), "bench", "-e", endpoint, model, "--json", "-d", "2"], capture_output=True,
                          text=True, env={**os.environ, **(keys or {})}, check=True)
    return tools.json.loads(done.stdout.splitlines()[-1])


def encryption(tools, folder, model):
    for name in ("daemon", "client"):
        subprocess.run([tools.program("terse"), "keygen", f"{folder}/{name}"], check=True, stdout=subprocess.DEVNULL)
    keys = {"TERSE_CURVE_SERVER": f"{folder}/daemon.key", "TERSE_CURVE_KEY": f"{folder}/client.key_secret"}
    plain, secret = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    with tools.Tersed(folder, {"m": model}, "--listen", plain), \
            tools.Tersed(folder, {"m": model}, "--listen", secret, "--curve-server-key", f"{folder}/daemon.key_secret",
                         "--curve-clients", f"{folder}/client.key"):
        runs = [(bench(tools, plain, "m")["p50_us"], bench(tools, secret, "m", keys)["p50_us"]) for _ in range(ROUNDS)]
    more = statistics.median(b - a for a, b in runs)
    print(f"\na request over tcp, p50: plain {statistics.median(a for a, _ in runs):.0f} us, encrypted "
          f"{statistics.median(b for _, b in runs):.0f} us, {more:.0f} us more, asked <= 40: {'yes' if more <= 40 else 'NO'}")


def attack(endpoint, kind, seed, stop):
    """One hostile client: it comes again whenever it is cut off."""
    rng = random.Random(seed)
    while not stop.is_set():
        try:
            with zmtp.connect(endpoint, 5) as peer:
                if kind == "nothing":
                    stop.wait()
                elif kind == "garbage":
                    peer.sendall(rng.randbytes(1000))
                    stop.wait(0.05)
                elif kind == "half":
                    zmtp.shake_hands(peer)
                    peer.sendall(zmtp.frame(b"\x81", True) + zmtp.frame(bytes(500))[:100])
                    stop.wait()
                elif kind == "endless":
                    zmtp.shake_hands(peer)
                    while not stop.is_set():
                        peer.sendall(zmtp.frame(bytes(4096), True))
                        stop.wait(0.002)
                else:
                    zmtp.shake_hands(peer)
                    while not stop.is_set():
                        peer.sendall(zmtp.frame(b"\x83\xa1v\x01\xa2id\x07\xa2op\xa6floods") * 20)
                        stop.wait(0.01)
        except OSError:
            stop.wait(0.05)


KINDS = ("nothing", "garbage", "half", "endless", "flood")


def beside(tools, honest, attacked, steps_back):
    """Figures of the honest client while hostile ones are at work: processes of their own, so that what they compute is
    theirs and not the client's."""
    behind = ["chrt", "--idle", "0"] if steps_back else []
    attackers = [subprocess.Popen([*behind, sys.executable, __file__, attacked, kind, str(HOSTILE // len(KINDS))],
                                  stdin=subprocess.PIPE) for kind in KINDS]
    try:
        time.sleep(0.5)  # all are there
        return bench(tools, honest, "m")
    finally:
        for one in attackers:
            one.communicate()


def hostile(tools, folder, model):
    """Alone; beside 200 that attack tersed; beside 200 that send the same to somebody else, who only reads it: that is the
    competition for processors and nothing of tersed's. Then all of it again with attackers that compute only when
    nobody else does, as if they had processors of their own."""
    with tools.Tersed(folder, {"m": model}) as tersed, subprocess.Popen([tools.program("sink"), f"{folder}/sink"],
                                                                        stdout=subprocess.PIPE) as sink:
        sink.stdout.readline()
        for steps_back in (False, True):
            runs = []
            for _ in range(ROUNDS):
                alone = bench(tools, tersed.endpoint, "m")
                runs.append((alone, beside(tools, tersed.endpoint, tersed.endpoint, steps_back),
                             beside(tools, tersed.endpoint, f"ipc://{folder}/sink", steps_back)))
            print(f"an honest client over ipc beside {HOSTILE} hostile ones" +
                  (", which step back for everybody" if steps_back else ""))
            for figure in ("p50_us", "p99_us"):
                alone, attacked, elsewhere = (statistics.median(run[i][figure] for run in runs) for i in range(3))
                ratios = [statistics.median(run[i][figure] / run[0][figure] for run in runs) for i in (1, 2)]
                asked = f", asked < 2: {'yes' if ratios[0] < 2 else 'NO'}" if figure == "p99_us" else ""
                print(f"    {figure[:3]} alone {alone:6.0f} us, they attack tersed {attacked:6.0f} us ({ratios[0]:.2f} times), a "
                      f"bare reader {elsewhere:6.0f} us ({ratios[1]:.2f} times){asked}", flush=True)
        sink.kill()


def run(tools, folder):
    if not tools.have_peers():
        return
    model = tools.compress(tools.write_dense(os.path.join(folder, "tiny.onnx"), [64, 256, 10]), folder)
    encryption(tools, folder, model)
    hostile(tools, folder, model)


if __name__ == "__main__":  # the attackers of one kind, until the input ends
    over = threading.Event()
    threads = [threading.Thread(target=attack, args=(sys.argv[1], sys.argv[2], i, over)) for i in range(int(sys.argv[3]))]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
