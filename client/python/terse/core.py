# SPDX-License-Identifier: Apache-2.0
"""What is outstanding on one connection, whoever does the waiting: Client and AsyncClient share it.

A request keeps its id until it is answered. When a connection is made again, all that is unanswered goes out once more
under the same session and ids; the daemon knows what it has seen. A daemon that is shutting down refuses new requests as
UNAVAILABLE: those wait here for the next one.
"""
from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import numpy
import zmq
import zmq.auth

from . import errors, wire
from .arena import Arena

GRACE = 0.1  # seconds that the daemon's word on an ended time may take
Outputs = Union[None, Sequence[str], Mapping[str, Optional[numpy.ndarray]]]


def set_up(context: Any, endpoint: str, curve_server: Optional[str], curve_key: Optional[str]) -> Any:
    """A DEALER socket that sends only to a peer that is there, and comes back to it quickly."""
    socket = context.socket(zmq.DEALER)
    for option, value in ((zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.RECONNECT_IVL, 1), (zmq.RECONNECT_IVL_MAX, 100),
                          (zmq.RCVHWM, 0), (zmq.SNDHWM, 512)):
        socket.setsockopt(option, value)
    curve_server = curve_server or os.environ.get("TERSE_CURVE_SERVER")
    curve_key = curve_key or os.environ.get("TERSE_CURVE_KEY")
    if endpoint.startswith("tcp://") and (curve_server or curve_key):
        if not curve_server or not curve_key:
            raise errors.InvalidArgument("encrypted tcp: found one key, allowed: curve_server and curve_key, or none")
        known = len(curve_server) == 40 and not os.path.exists(curve_server)
        socket.curve_serverkey = curve_server.encode() if known else zmq.auth.load_certificate(curve_server)[0]
        public, secret = zmq.auth.load_certificate(curve_key)
        if secret is None:
            raise errors.InvalidArgument(f"'{curve_key}' has no secret key; allowed: the file *.key_secret of terse keygen")
        socket.curve_publickey, socket.curve_secretkey = public, secret
    return socket


class Pending:
    """One request: what to send, when its time ends, and whom to tell."""

    def __init__(self, header: Dict[str, Any], arrays: List[Any], deadline: Optional[float], arena: Optional[Arena],
                 tell: Callable[[Optional[Dict[str, Any]], Sequence[Any], Optional[errors.Error]], None]):
        self.header, self.arrays, self.deadline, self.arena, self.tell = header, arrays, deadline, arena, tell
        self.submitted_ns = time.monotonic_ns() if header.get("trace") else 0
        self.sent = False
        self.again: Optional[float] = None  # when it is sent again after a refusal
        self.refused: Optional[float] = None

    def frames(self) -> List[Any]:
        """The message; the arena may be another one than it was."""
        if self.arena is not None:
            self.header["arena"] = self.arena.token
        return [wire.pack(self.header), *self.arrays]


class Core:
    """Bookkeeping without a socket: `send` takes a message and says whether it went out."""

    def __init__(self, reconnect_timeout: float, send: Callable[[List[Any]], bool]):
        self.session = os.urandom(16)
        self.reconnect_timeout = reconnect_timeout
        self.send = send
        self.next_id = 1
        self.pending: Dict[int, Pending] = {}
        self.connected = False
        self.lost_since = time.monotonic()
        self.arena: Optional[Arena] = None

    def begin(self, header: Dict[str, Any], arrays: List[Any], timeout: Optional[float], arena: Optional[Arena],
              tell: Callable[[Optional[Dict[str, Any]], Sequence[Any], Optional[errors.Error]], None]) -> int:
        """Takes a request in and sends it when somebody is there; its id."""
        number = self.next_id
        self.next_id += 1
        header.update(v=wire.VERSION, id=number, session=self.session)
        entry = Pending(header, arrays, None if timeout is None else time.monotonic() + timeout, arena, tell)
        self.pending[number] = entry
        self._send(entry)
        return number

    def forget(self, number: int) -> None:
        """Nobody waits any more."""
        self.pending.pop(number, None)

    def infer_header(self, model: str, inputs: Mapping[str, Any], outputs: Outputs, timeout: Optional[float],
                     priority: int, version: Optional[str], trace: bool) -> Any:
        """(header, frames, arena or None) of an inference."""
        header: Dict[str, Any] = {"op": "infer", "model": model, "inputs": []}
        arrays: List[Any] = []
        shared = False
        for name, value in inputs.items():
            found = numpy.asarray(value)
            entry: Dict[str, Any] = {"name": name, "dtype": wire.dtype_name(name, found), "shape": list(found.shape)}
            at = self.arena.place(0, found) if self.arena is not None else None
            if at is not None:
                entry["shm"] = {"offset": at, "size": found.nbytes}
                shared = True
            else:
                dense = numpy.ascontiguousarray(found, found.dtype.newbyteorder("<"))
                arrays.append(dense.reshape(-1).view(numpy.uint8).data if dense.size else b"")
                entry["frame"] = len(arrays)
            header["inputs"].append(entry)
        if outputs is not None:
            header["outputs"] = [{"name": name} for name in outputs]
            for entry in header["outputs"] if isinstance(outputs, Mapping) else ():
                place = outputs[entry["name"]]
                if place is None:
                    continue
                at = self.arena.place(1, place) if self.arena is not None else None
                if at is None:
                    raise errors.InvalidArgument(f"output '{entry['name']}': its array does not lie among the outputs of "
                                                 "this client's shared memory; allowed: one that Arena.output() made")
                entry["shm"] = {"offset": at, "size": place.nbytes}
                shared = True
        if timeout is not None:
            header["timeout_us"] = max(1, int(timeout * 1e6))
        if priority:
            header["priority"] = priority
        if version is not None:
            header["version"] = version
        if trace:
            header["trace"] = True
        return header, arrays, self.arena if shared else None

    def _send(self, entry: Pending) -> None:
        if self.connected and not entry.sent and entry.again is None:
            entry.sent = self.send(entry.frames())

    def flush(self) -> None:
        """Sends what has not been sent."""
        for entry in list(self.pending.values()):
            if not entry.sent:
                self._send(entry)

    def wants_out(self) -> bool:
        """Whether something waits for room in the socket."""
        return self.connected and any(not e.sent and e.again is None for e in self.pending.values())

    def on_connected(self) -> None:
        """A daemon is there, the same or another one."""
        self.connected = True
        for entry in self.pending.values():
            entry.sent, entry.again = False, None
        self.flush()

    def on_lost(self) -> None:
        """It is gone; what is unanswered waits for the next."""
        if self.connected:
            self.lost_since = time.monotonic()
        self.connected = False

    def on_message(self, frames: Sequence[Any]) -> None:
        """An answer; strangers and second answers are passed over."""
        header = wire.unpack(getattr(frames[0], "bytes", frames[0])) if frames else {}
        number = header.get("id")
        entry = self.pending.get(number) if isinstance(number, int) else None
        if entry is None:
            return
        status = header.get("status", "INTERNAL")
        if status == "UNAVAILABLE" and entry.header["op"] == "infer" and self._holds(entry, header):
            return
        del self.pending[number]
        if status == "OK":
            if entry.submitted_ns and "trace" in header:
                header["trace"] = wire.trace(header["trace"], entry.submitted_ns, time.monotonic_ns())
            entry.tell(header, frames[1:], None)
        else:
            entry.tell(None, (), errors.make(status, header.get("error", status), header.get("retry_after_ms")))

    def _holds(self, entry: Pending, header: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        entry.refused = entry.refused or now
        if now - entry.refused >= self.reconnect_timeout:
            return False
        entry.again = now + header.get("retry_after_ms", 1000) / 1000
        entry.sent = False
        return True

    def renew_arena(self) -> None:
        """Memory that a daemon has given up is asked for again; requests that lie in it go out once more."""
        if self.arena is None or self.arena.connection is None or not self.arena.lost():
            if self.arena is None or self.arena.connection is not None:
                return
        try:
            self.arena.renew()
        except errors.Unavailable:
            return  # at the next look
        for entry in self.pending.values():
            if entry.arena is not None:
                entry.sent = False
        self.flush()

    def expire(self) -> None:
        """Ends what has waited too long."""
        now = time.monotonic()
        lost = not self.connected and now - self.lost_since >= self.reconnect_timeout
        for number, entry in list(self.pending.items()):
            if lost:
                del self.pending[number]
                entry.tell(None, (), errors.Unavailable(f"no daemon for {self.reconnect_timeout:g} s"))
            elif entry.deadline is not None and now >= entry.deadline + (GRACE if entry.sent else 0):
                del self.pending[number]
                entry.tell(None, (), errors.DeadlineExceeded("the daemon did not answer in the request's time"))
            elif entry.again is not None and now >= entry.again:
                entry.again = None
                self._send(entry)

    def next_event(self) -> Optional[float]:
        """Seconds until expire() has something to do; None: nothing will."""
        times = [e.deadline + GRACE for e in self.pending.values() if e.deadline is not None]
        times += [e.again for e in self.pending.values() if e.again is not None]
        if self.pending and not self.connected:
            times.append(self.lost_since + self.reconnect_timeout)
        if self.arena is not None and self.arena.connection is None:
            times.append(time.monotonic() + 0.02)
        return max(0.0, min(times) - time.monotonic()) if times else None
