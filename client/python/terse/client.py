# SPDX-License-Identifier: Apache-2.0
"""The blocking client."""
from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

import zmq
from zmq.utils.monitor import parse_monitor_message

from . import errors, wire
from .arena import Arena
from .core import Core, Outputs, set_up


class Request:
    """An inference that was submitted; result() waits for it."""

    def __init__(self, client: "Client", arena: Optional[Arena]):
        self._client, self._arena = client, arena
        self._done = False
        self._reply: Any = None
        self._error: Optional[errors.Error] = None
        self.id = 0

    def _tell(self, header: Optional[Dict[str, Any]], frames: Sequence[Any], error: Optional[errors.Error]) -> None:
        self._done, self._error = True, error
        self._reply = (header, frames)

    def done(self) -> bool:
        """Whether it is answered; looks without waiting."""
        if not self._done:
            self._client._step(0)
        return self._done

    def result(self) -> wire.Reply:
        """The outputs by name, or the exception that the request ended with."""
        while not self._done:
            self._client._step(None)
        if self._error is not None:
            raise self._error
        return wire.outputs(self._reply[0], self._reply[1], self._arena)

    def cancel(self) -> None:
        """Asks the daemon to drop it. It still ends: Cancelled, or with its answer when that was quicker."""
        if not self._done:
            self._client._core.begin({"op": "cancel", "target": self.id}, [], 5, None, lambda *_: None)


class Client:
    """A connection to a daemon; any number of requests may be outstanding on it. For one thread at a time.

    endpoint: "ipc://PATH" or "tcp://HOST:PORT"; without it $TERSE_ENDPOINT, else the daemon of this host.
    connect_timeout: seconds that the first answer may take.
    reconnect_timeout: seconds that a lost daemon is waited for before requests end as Unavailable.
    curve_server, curve_key: for encrypted tcp, as terse keygen makes them: the daemon's public key or its file, and
    the file with this client's secret key.
    """

    def __init__(self, endpoint: Optional[str] = None, *, connect_timeout: float = 5, reconnect_timeout: float = 30,
                 curve_server: Optional[str] = None, curve_key: Optional[str] = None):
        self.endpoint = endpoint or wire.default_endpoint()
        self._context = zmq.Context()
        self._socket = set_up(self._context, self.endpoint, curve_server, curve_key)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._core = Core(reconnect_timeout, self._send)
        try:
            self._socket.connect(self.endpoint)
            self._call("live", timeout=connect_timeout)
        except zmq.ZMQError as wrong:
            self.close()
            raise errors.InvalidArgument(f"endpoint '{self.endpoint}': {wrong}") from wrong
        except errors.DeadlineExceeded as wrong:
            self.close()
            raise errors.Unavailable(f"no daemon answers at '{self.endpoint}' within {connect_timeout:g} s") from wrong

    def close(self) -> None:
        """Ends the connection; what is unanswered is forgotten."""
        if self._core.arena is not None:
            self._core.arena.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._context.destroy(0)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _send(self, frames: List[Any]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
            return True
        except zmq.Again:
            return False

    def _step(self, timeout: Optional[float]) -> None:
        """Does what can be done, waiting for at most `timeout` seconds for something to come."""
        core = self._core
        due = core.next_event()
        waits = [t for t in (timeout, due) if t is not None]
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if core.wants_out() else 0))
        poller.register(self._monitor, zmq.POLLIN)
        if core.arena is not None and core.arena.connection is not None:
            poller.register(core.arena.connection.fileno(), zmq.POLLIN)
        poller.poll(1000 * min(waits) if waits else None)
        try:
            while self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # asked for each: see common/frames.h
                core.on_message(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
        except zmq.Again:
            pass
        try:
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
                core.on_connected() if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else core.on_lost()
        except zmq.Again:
            pass
        core.renew_arena()
        core.flush()
        core.expire()

    def _call(self, op: str, timeout: Optional[float], **more: Any) -> Dict[str, Any]:
        answer: List[Any] = []
        more = {key: value for key, value in more.items() if value is not None}
        self._core.begin({"op": op, **more}, [], timeout, None, lambda header, _, error: answer.append(error or header))
        while not answer:
            self._step(None)
        if isinstance(answer[0], errors.Error):
            raise answer[0]
        return answer[0]

    def submit(self, model: str, inputs: Mapping[str, Any], *, outputs: Outputs = None, timeout: Optional[float] = None,
               priority: int = 0, version: Optional[str] = None, trace: bool = False) -> Request:
        """Sends an inference and returns at once. Arrays are not copied: leave them alone until it is answered.

        inputs: arrays by name; axis 0 counts rows. Those that Arena.input() made are not sent: the daemon reads them
        where they lie. outputs: names of those that are wanted, or a mapping from names to arrays of Arena.output(),
        into which they are written (None: as usual). timeout: seconds from now, told to the daemon too. priority: 0 to
        9, the most urgent. trace: the reply's `trace` tells when the request was where."""
        header, arrays, arena = self._core.infer_header(model, inputs, outputs, timeout, priority, version, trace)
        request = Request(self, arena)
        request.id = self._core.begin(header, arrays, timeout, arena, request._tell)
        return request

    def infer(self, model: str, inputs: Optional[Mapping[str, Any]] = None, *, outputs: Outputs = None,
              timeout: Optional[float] = None, priority: int = 0, version: Optional[str] = None, trace: bool = False,
              **named: Any) -> wire.Reply:
        """Sends an inference and waits for it: the outputs by name. Inputs whose names are identifiers may be given as
        keywords: client.infer("digits", image=array)."""
        return self.submit(model, {**(inputs or {}), **named}, outputs=outputs, timeout=timeout, priority=priority,
                           version=version, trace=trace).result()

    def attach(self, input_bytes: int, output_bytes: int) -> Arena:
        """Memory shared with the daemon of this host, at most one for a client."""
        if self._core.arena is not None and self._core.arena.connection is not None:
            raise errors.InvalidArgument("this client has its shared memory already; allowed: one")
        self._core.arena = Arena(self.endpoint, input_bytes, output_bytes)
        return self._core.arena

    def ready(self, model: Optional[str] = None, timeout: float = 5) -> bool:
        """Whether every model, or this one, has a warmed worker."""
        try:
            self._call("ready", timeout, model=model)
            return True
        except errors.Unavailable:
            return False

    def wait_ready(self, timeout: float = 60) -> None:
        """Until ready(); Unavailable when that takes longer."""
        end = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() >= end:
                raise errors.Unavailable(f"the daemon was not ready within {timeout:g} s")
            time.sleep(0.02)

    def models(self, timeout: float = 5) -> List[wire.Model]:
        """The models that are there."""
        return wire.models(self._call("models", timeout))

    def metadata(self, model: str, timeout: float = 5) -> wire.Signature:
        """What a model takes and gives."""
        return wire.signature(self._call("metadata", timeout, model=model))

    def stats(self, timeout: float = 5) -> Dict[str, Any]:
        """Counters and histograms, as the daemon tells them."""
        return self._call("stats", timeout)

    def load(self, model: str, file: str, version: Optional[str] = None, timeout: Optional[float] = None) -> None:
        """Has the daemon serve a file of its host, as a new model or a new version. For root and the daemon's user."""
        self._call("load", timeout, model=model, file=file, version=version)

    def unload(self, model: str, timeout: Optional[float] = None) -> None:
        """Takes a model out of service."""
        self._call("unload", timeout, model=model)
