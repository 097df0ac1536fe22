# SPDX-License-Identifier: Apache-2.0
# Runs as root inside of the booted container; prints TAP. /package holds what `make install` wrote, a model, an input.
set -u
n=0 failures=0
tell() { # RESULT NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        [ $((failures++)) = 0 ] && journalctl --no-pager -u tersed -o cat -n 40 | sed 's/^/# /'
    fi
}
eventually() { # COMMAND...: until it succeeds, for at most 20 s
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}
show() { systemctl show -P "$1" tersed; }
ask() { terse infer digits /package/in.npz -o "$1"; }
worker() { pgrep -P "$(show MainPID)" -f terse-worker | head -n 1; }
whole() { show StatusText | grep -q "serving 1 model, \([0-9]*\) of \1 workers ready$1"; }
restarted() { whole ", $1 restart"; }
started_again() { [ "$(show NRestarts)" = "$1" ]; }
since() { journalctl --no-pager --after-cursor="$cursor" -u tersed -o cat "$@"; }

cp -a /package/usr/. /usr/
systemd-sysusers
install -D -m 644 /package/usr/share/doc/terse/tersed.conf /etc/terse/tersed.conf
systemctl daemon-reload

! systemctl start tersed 2>/dev/null && [ "$(show NRestarts)" = 0 ] &&
    journalctl --no-pager -u tersed -o cat | grep -q 'tersed.conf:[0-9]*: model_dir: .* holds no \*.terse file'
tell $? "without a model the service says so, and does not try again and again"
systemctl reset-failed tersed

install -D -m 644 /package/digits.terse /var/lib/terse/models/digits.terse
cursor=$(journalctl -n 0 --show-cursor --no-pager | sed -n 's/^-- cursor: //p')
systemctl start tersed
started=$?
tell $started "the service starts"
if [ $started != 0 ]; then
    echo "1..$n"
    exit 1
fi
[ "$(show ActiveState)/$(show SubState)" = active/running ]
tell $? "and is active once it says READY"
eventually whole '$'
tell $? "systemctl status says: $(show StatusText)"
user=$(ps -o uid= -p "$(show MainPID)" | tr -d ' ')
[ "$user" != 0 ] && [ "$(stat -c '%u %a' /run/terse/tersed.sock)" = "$user 660" ]
tell $? "its socket is for its user, $user, and group"
[ "$(ps -o uid= --ppid "$(show MainPID)" | tr -d ' ' | sort -u)" = "$user" ]
tell $? "no process runs as root"
ask /root/first.npz
tell $? "a request is answered"
! since -p warning | grep -q .
tell $? "nothing is warned of: no limit of the unit is in the way"

victim=$(worker)
kill -9 "$victim"
eventually restarted 1
tell $? "a killed worker is replaced: $(show StatusText)"
ask /root/second.npz && cmp /root/first.npz /root/second.npz
tell $? "and answers as before"

kill -9 "$(pgrep -P "$(show MainPID)" -f terse-frontend)"
eventually restarted 2
tell $? "so is the front end: $(show StatusText)"
ask /root/third.npz && cmp /root/first.npz /root/third.npz
tell $? "and answers as before, at the same socket"
[ "$(show NRestarts)" = 0 ]
tell $? "the service itself went on"

main=$(show MainPID)
kill -9 "$main"
eventually started_again 1 && eventually ask /root/fourth.npz
tell $? "a killed supervisor is started again by systemd"
[ "$(show MainPID)" != "$main" ] && cmp /root/first.npz /root/fourth.npz
tell $? "and answers as before"

# The watchdog, hastened: a supervisor that is stopped is killed and replaced.
mkdir -p /run/systemd/system/tersed.service.d
printf '[Service]\nWatchdogSec=1\n' >/run/systemd/system/tersed.service.d/watchdog.conf
systemctl daemon-reload && systemctl restart tersed
main=$(show MainPID)
before=$(show WatchdogTimestampMonotonic)
pinged() { [ "$(show WatchdogTimestampMonotonic)" -gt "$((before + 1500000))" ]; }
eventually pinged && [ "$(show MainPID)" = "$main" ]
tell $? "the watchdog is fed for longer than it waits"
kill -STOP "$main"
replaced() { [ "$(show MainPID)" != "$main" ] && [ "$(show ActiveState)" = active ]; }
eventually replaced && eventually ask /root/fifth.npz
tell $? "a supervisor that hangs is killed and replaced"

# The service has no network: a socket unit gives it one socket, which the gate serves.
systemctl stop tersed && systemctl start tersed-tcp.socket && systemctl start tersed
overtcp() { terse infer -e tcp://127.0.0.1:5555 digits /package/in.npz -o /root/tcp.npz; }
eventually overtcp && cmp /root/first.npz /root/tcp.npz
tell $? "over tcp the gate answers the same"
pgrep -P "$(show MainPID)" -f terse-gate >/dev/null
tell $? "which is a process of its own"
systemctl stop tersed-tcp.socket

group=/sys/fs/cgroup$(show ControlGroup)
systemctl stop tersed.socket tersed
[ "$(show Result)/$(show ExecMainStatus)" = success/0 ]
tell $? "it stops with success"
! [ -e /run/terse/tersed.sock ] && ! grep -q . "$group/cgroup.procs" 2>/dev/null
tell $? "and leaves neither socket nor process"
since | grep -iE 'sanitizer|segfault|core dumped|assert|cannot|not permitted' |
    grep -vE 'Watchdog|ABRT|core dump' | sed 's/^/# /' >/root/bad
! [ -s /root/bad ]
r=$?
cat /root/bad
tell $r "the journal holds nothing unforeseen"
echo "1..$n"
