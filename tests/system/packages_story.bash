# SPDX-License-Identifier: Apache-2.0
# Runs as root inside of the booted container; prints TAP. /package holds the packages, the next version of them, models,
# an input, the README's C client, and load.py.
set -u
n=0 failures=0
exec 3>&1 1>&2 # what commands print is noise
say() { echo "$@" >&3; }
tell() { # RESULT NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then
        say "ok $n - $2"
    else
        say "not ok $n - $2"
        [ $((failures++)) = 0 ] && { journalctl --no-pager -u 'tersed*' -o cat -n 40; tail -n 15 /out/noise; } | sed 's/^/# /' >&3
    fi
}
eventually() { # COMMAND...: until it succeeds, for at most 60 s
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}
show() { systemctl show -P "$1" tersed; }
ask() { terse infer --connect-ms 60000 digits /package/in.npz -o "$1"; }
worker() { pgrep -P "$(show MainPID)" -f terse-worker | head -n 1; }
whole() { show StatusText | grep -q "serving [0-9]* models\?, \([0-9]*\) of \1 workers ready$1"; }
restarted() { whole ", $1 restart"; }
started_again() { [ "$(show NRestarts)" = "$1" ]; }
journal() { # what was logged until now: journald may not have read all of it yet
    journalctl --sync
    journalctl --no-pager -u tersed -o cat "$@"
}
since() { journal --after-cursor="$cursor" "$@"; }
recorded() { # FIELD=PATTERN...: a record of the service since $mark has all of these fields
    journal --after-cursor="$mark" -o json | python3 -c '
import json, re, sys
wanted = [field.split("=", 1) for field in sys.argv[1:]]
sys.exit(not any(all(re.fullmatch(pattern, str(record.get(name, ""))) for name, pattern in wanted)
                 for record in map(json.loads, sys.stdin)))' "$@"
}
# Of the service's own last line: systemd 252 passes over the first line of a unit after a cursor that is another's.
here() { journalctl -n 0 --show-cursor --no-pager -u tersed | sed -n 's/^-- cursor: //p'; }
start_load() { # MODEL: requests over python3-terse, until end_load
    python3 /package/load.py "$1" 4 >/tmp/load.json 2>/tmp/load.err & load=$!
    sleep 1
}
end_load() { # true when no request was lost; the figures are in $told
    kill -TERM $load
    wait $load
    told=$(cat /tmp/load.json /tmp/load.err | tr '\n' ' ')
    python3 -c 'import json, sys; t = json.load(open("/tmp/load.json")); sys.exit(t["n_failures"] or t["answers"] < 10)'
}

# --- installing ---
apt-get install -y --no-install-recommends /package/debs/*.deb
tell $? "apt installs tersed, terse, terse-gateway, libterse1, libterse-dev and python3-terse"
getent group terse && getent passwd terse
tell $? "there is a user and a group terse"
[ "$(show ActiveState)" = inactive ] && ! systemctl is-enabled -q tersed.service && ! systemctl is-active -q tersed.socket
tell $? "nothing is started before a model is there"
! systemctl start tersed && [ "$(show NRestarts)" = 0 ] &&
    journal | grep -q 'tersed.conf:[0-9]*: model_dir: .* holds no \*.terse file'
tell $? "and a start says so, once"
systemctl stop tersed.socket
systemctl reset-failed tersed

# --- activation ---
install -m 644 /package/digits.terse /var/lib/terse/models/digits.terse
cursor=$(here)
systemctl enable --now tersed.socket
[ "$(show ActiveState)" = inactive ] && [ -S /run/terse/tersed.sock ] && [ -S /run/terse/attach.sock ]
tell $? "tersed.socket listens, the service does not run"
[ "$(stat -c '%U %G %a' /run/terse/tersed.sock)" = "terse terse 660" ]
tell $? "the socket is for members of the group terse"
ask /root/first.npz && [ "$(show ActiveState)/$(show SubState)" = active/running ]
tell $? "a request over libterse starts the service and is answered"
[ "$(/package/classify digits </package/three_digits | grep -c '^row [0-2]: class')" = 3 ]
tell $? "so is the example of libterse-dev, compiled against it"
python3 - <<'PYTHON'
import asyncio, numpy, terse
image = numpy.load("/package/in.npz")["image"]
first = numpy.load("/root/first.npz")["logits"]
with terse.Client() as client:
    assert (client.infer("digits", image=image)["logits"] == first).all()
    arena = client.attach(4096, 4096)
    placed, logits = arena.input(image.shape), arena.output(first.shape)
    placed[:] = image
    client.infer("digits", {"image": placed}, outputs={"logits": logits})
    assert (logits == first).all()
async def ask():
    async with terse.AsyncClient() as client:
        return await asyncio.gather(*(client.infer("digits", image=image) for _ in range(50)))
assert all((r["logits"] == first).all() for r in asyncio.run(ask()))
PYTHON
tell $? "so is python3-terse: blocking, through shared memory by the activated socket, and asyncio"
eventually whole '$'
tell $? "systemctl status says: $(show StatusText)"
user=$(id -u terse)
[ "$(ps -o uid= -p "$(show MainPID)" | tr -d ' ')" = "$user" ] &&
    [ "$(ps -o uid= --ppid "$(show MainPID)" | tr -d ' ' | sort -u)" = "$user" ]
tell $? "no process runs as root"
! since -p warning | grep -q .
tell $? "nothing is warned of: no limit of the unit is in the way"
useradd member -G terse && useradd stranger
runuser -u member -- terse status && ! runuser -u stranger -- terse status --connect-ms 300
tell $? "members of the group may call it, others may not"

# --- deaths ---
victim=$(worker)
number=$(journal | sed -n "s/^worker \([0-9]*\) (pid $victim): ready after.*/\1/p")
mark=$(here)
kill -9 "$victim"
eventually restarted 1 && ask /root/second.npz && cmp /root/first.npz /root/second.npz
tell $? "a killed worker is replaced, and answers as before: $(show StatusText)"
eventually recorded "WORKER=$number" 'REASON=signal 9.*' "MESSAGE=worker $number: ended with signal 9.*" PRIORITY=4 \
    SYSLOG_IDENTIFIER=tersed "_PID=$(show MainPID)"
tell $? "the journal has its WORKER=$number, and why as REASON="
journalctl --no-pager -u tersed MODEL=digits -o cat | grep -q loaded
tell $? "and what happened to a model under MODEL="
kill -9 "$(pgrep -P "$(show MainPID)" -f terse-frontend)"
eventually restarted 2 && ask /root/third.npz && cmp /root/first.npz /root/third.npz && started_again 0
tell $? "a killed front end is replaced too, at the same socket, and the service goes on"
main=$(show MainPID)
mark=$(here)
kill -9 "$main"
eventually started_again 1 && eventually ask /root/fourth.npz && [ "$(show MainPID)" != "$main" ] &&
    cmp /root/first.npz /root/fourth.npz
tell $? "a killed supervisor is started again by systemd, and answers as before"
journal --after-cursor="$mark" | grep -q "is still in memory"
tell $? "from the memory that systemd kept: no file was read"

# The watchdog, hastened: a supervisor that is stopped is killed and replaced.
mkdir -p /run/systemd/system/tersed.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/tersed.service.d/watchdog.conf
systemctl daemon-reload && systemctl restart tersed
main=$(show MainPID)
before=$(show WatchdogTimestampMonotonic)
pinged() { [ "$(show WatchdogTimestampMonotonic)" -gt "$((before + 3000000))" ]; }
eventually pinged && [ "$(show MainPID)" = "$main" ]
tell $? "the watchdog is fed for longer than it waits"
kill -STOP "$main"
replaced() { [ "$(show MainPID)" != "$main" ] && [ "$(show ActiveState)" = active ]; }
eventually replaced && eventually ask /root/fifth.npz
tell $? "a supervisor that hangs is killed and replaced"
rm -r /run/systemd/system/tersed.service.d
systemctl daemon-reload

# --- reloads under load ---
start_load digits
ok=0
for i in 1 2 3 4 5; do
    printf '[server]\nworkers = %d\n[model more%d]\nfile = /var/lib/terse/models/digits.terse\n' $((1 + i % 2)) "$i" \
        >/etc/terse/tersed.conf.d/50-test.conf
    systemctl reload tersed && terse status --json | grep -q "\"more$i\"" && ok=$((ok + 1))
done
[ $ok = 5 ]
tell $? "systemctl reload returns when the new state is in force: five of five times"
printf '[server]\nworkers = many\n' >/etc/terse/tersed.conf.d/50-test.conf
! systemctl reload tersed && [ "$(show ActiveState)" = active ] &&
    journal | grep -q "/etc/terse/tersed.conf.d/50-test.conf:2: workers: found 'many', allowed"
tell $? "and fails when there is a mistake, which is named with its file and line"
rm /etc/terse/tersed.conf.d/50-test.conf
systemctl reload tersed
end_load
tell $? "no request failed meanwhile: $told"

# --- a sample of the requests, in the journal ---
printf '[server]\ntrace_sample = 1\n' >/etc/terse/tersed.conf.d/50-test.conf
systemctl reload tersed
mark=$(here)
ask /root/traced.npz
us='[0-9]+'
eventually recorded SYSLOG_IDENTIFIER=terse-frontend MODEL=digits STATUS=OK "REQUEST_ID=$us" "WORKER=$us" BATCH_ROWS=3 \
    "TOTAL_US=$us" "ADMIT_US=$us" "QUEUE_US=$us" "WORK_US=$us" "COMPUTE_US=$us"
tell $? "a sampled request is a record with its times, worker and rows as fields"
rm /etc/terse/tersed.conf.d/50-test.conf
systemctl reload tersed

# --- restarts under load, with a model of 100 MB ---
install -m 644 /package/large.terse /var/lib/terse/models/large.terse
systemctl reload tersed && rm /var/lib/terse/models/digits.terse && systemctl reload tersed
mark=$(here)
start_load large
for i in 1 2 3; do
    systemctl restart tersed
    sleep 1
done
end_load
tell $? "three restarts with a model of 100 MB under load lose no request"
[ "$(journal --after-cursor="$mark" | grep -c 'is still in memory, 10[0-9]\{7\} bytes')" = 3 ]
tell $? "and read no file"
say "# $told"
limit=${TERSE_FIRST_MS:-5000}
[ -r /package/first_ms ] && limit=$(cat /package/first_ms)
first=$(python3 -c 'import json, statistics; print(int(statistics.median(json.load(open("/tmp/load.json"))["first_ms"])))')
[ "$first" -le "$limit" ]
tell $? "from SIGTERM to the first answer $first ms (median of three), allowed $limit"
install -m 644 /package/digits.terse /var/lib/terse/models/digits.terse
rm /var/lib/terse/models/large.terse
systemctl reload tersed
tell $? "and back to the small one"

# --- more sockets ---
systemctl stop tersed && systemctl start tersed-tcp.socket && systemctl start tersed
terse infer -e tcp://127.0.0.1:5555 --connect-ms 60000 digits /package/in.npz -o /root/tcp.npz && cmp /root/first.npz /root/tcp.npz &&
    pgrep -P "$(show MainPID)" -f terse-gate
tell $? "tersed-tcp.socket: over tcp the gate answers the same"
systemctl stop tersed-tcp.socket
printf '[model one]\nfile = /var/lib/terse/models/digits.terse\n' >/etc/terse/first.conf
systemctl start tersed@first.socket
terse infer -e ipc:///run/terse/first/tersed.sock --connect-ms 60000 one /package/in.npz -o /root/one.npz &&
    cmp /root/first.npz /root/one.npz && systemctl reload tersed@first
tell $? "tersed@first: a daemon of its own, for /etc/terse/first.conf"

# --- HTTP ---
http() { # PATH [BODY]: status and body
    python3 - "$@" <<'PYTHON'
import sys, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000" + sys.argv[1], body), timeout=60) as reply:
    print(reply.status, reply.read().decode())
PYTHON
}
systemctl start terse-gateway.socket
http /v2/health/live && eventually http /v2/models/digits/ready && http /v2/models/digits | grep -q '"image"'
tell $? "terse-gateway.socket starts the gateway, which tells of the model over HTTP"
python3 - <<'PYTHON' && [ "$(systemctl show -P NRestarts terse-gateway)" = 0 ]
import json, numpy, urllib.request
image = numpy.load("/package/in.npz")["image"]
body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": list(image.shape), "data": image.ravel().tolist()}]}
with urllib.request.urlopen("http://127.0.0.1:8000/v2/models/digits/infer", json.dumps(body).encode(), timeout=60) as reply:
    output = json.load(reply)["outputs"][0]
assert (numpy.array(output["data"], "f4").reshape(output["shape"]) == numpy.load("/root/first.npz")["logits"]).all()
PYTHON
tell $? "and answers it with the same numbers"
[ "$(ps -o user= -p "$(systemctl show -P MainPID terse-gateway)")" != root ]
tell $? "as a user that is not root"
systemctl restart tersed
eventually http /v2/models/digits/ready
tell $? "and finds the daemon again that was restarted"

# --- upgrade, removal ---
echo '; mine' >>/etc/terse/tersed.conf
start_load digits
main=$(show MainPID) instance=$(systemctl show -P MainPID tersed@first)
apt-get install -y --no-install-recommends /package/next/*.deb
tell $? "an upgrade goes through"
eventually whole '$' && [ "$(show MainPID)" != "$main" ] && [ "$(systemctl show -P MainPID tersed@first)" != "$instance" ]
tell $? "the new program runs, in the instance too"
tail -n 1 /etc/terse/tersed.conf | grep -q mine
tell $? "the configuration is kept"
end_load
tell $? "and no request was lost: $told"
group=/sys/fs/cgroup$(show ControlGroup)
systemctl stop tersed.socket tersed
[ "$(show Result)/$(show ExecMainStatus)" = success/0 ]
tell $? "it stops with success"
! [ -e /run/terse/tersed.sock ] && ! grep -q . "$group/cgroup.procs" 2>/dev/null
tell $? "and leaves neither socket nor process"
systemctl start tersed.socket && ask /root/again.npz
apt-get remove -y tersed && [ "$(show ActiveState)" = inactive ] && ! pgrep -x tersed &&
    [ -e /etc/terse/tersed.conf ] && [ -e /var/lib/terse/models/digits.terse ]
tell $? "removing it ends what runs and keeps models and settings"
rm /etc/terse/first.conf
apt-get purge -y tersed terse terse-gateway libterse1 libterse-dev python3-terse
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /package -o -path /out -o -path /root -o -path /tmp -o -path /var/log \
    -o -path /var/cache \) -prune -o -regextype egrep -regex '.*/(lib|python3-)?tersed?([^a-z/][^/]*)?' -print
    find /run -name '*terse*' -not -path '*/units/*' -not -path '/run/systemd/*'
    getent passwd terse; getent group terse)
[ -z "$left" ] || echo "$left" | sed 's/^/# left: /' >&3
[ -z "$left" ]
tell $? "purging leaves nothing"
since | grep -iE 'sanitizer|segfault|core dumped|assert|cannot|not permitted' |
    grep -vE 'Watchdog|ABRT|core dump|[0-9]+ mistake' | sed 's/^/# /' >/root/bad
! [ -s /root/bad ]
r=$?
cat /root/bad >&3
tell $r "the journal holds nothing unforeseen"
say "1..$n"
