# SPDX-License-Identifier: Apache-2.0
"""The client for asyncio."""
from __future__ import annotations

import asyncio
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from . import errors, wire
from .arena import Arena
from .core import Core, Outputs, set_up


class AsyncClient:
    """As Client, for one event loop:

        async with terse.AsyncClient() as client:
            reply = await client.infer("digits", image=array)

    Any number of infer() may be awaited at once on one connection; cancelling the task that awaits one cancels the
    request.
    """

    def __init__(self, endpoint: Optional[str] = None, *, connect_timeout: float = 5, reconnect_timeout: float = 30,
                 curve_server: Optional[str] = None, curve_key: Optional[str] = None):
        self.endpoint = endpoint or wire.default_endpoint()
        self._connect_timeout = connect_timeout
        self._curve = (curve_server, curve_key)
        self._core = Core(reconnect_timeout, self._send)
        self._tasks: List["asyncio.Task[None]"] = []
        self._sending: Set["asyncio.Future[Any]"] = set()
        self._wake = asyncio.Event()

    async def __aenter__(self) -> "AsyncClient":
        await self.open()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects and waits for the daemon's first answer."""
        self._context = zmq.asyncio.Context()
        self._socket = set_up(self._context, self.endpoint, *self._curve)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as wrong:
            await self.close()
            raise errors.InvalidArgument(f"endpoint '{self.endpoint}': {wrong}") from wrong
        self._tasks = [asyncio.ensure_future(run()) for run in (self._receive, self._watch, self._time)]
        try:
            await self._call("live", timeout=self._connect_timeout)
        except errors.DeadlineExceeded as wrong:
            await self.close()
            raise errors.Unavailable(
                f"no daemon answers at '{self.endpoint}' within {self._connect_timeout:g} s") from wrong

    async def close(self) -> None:
        """Ends the connection; what is unanswered is forgotten."""
        for task in [*self._tasks, *self._sending]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._sending, return_exceptions=True)
        self._tasks = []
        if self._core.arena is not None:
            self._core.arena.close()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._context.destroy(0)

    def _send(self, frames: List[Any]) -> bool:
        sending = asyncio.ensure_future(self._socket.send_multipart(frames, copy=False))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return True

    async def _receive(self) -> None:
        while True:
            self._core.on_message(await self._socket.recv_multipart(copy=False))

    async def _watch(self) -> None:
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())["event"]
            self._core.on_connected() if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else self._core.on_lost()
            self._core.renew_arena()
            self._wake.set()

    async def _time(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), self._core.next_event())
            except asyncio.TimeoutError:
                pass
            self._wake.clear()
            self._core.renew_arena()
            self._core.flush()
            self._core.expire()

    async def _ask(self, header: Dict[str, Any], arrays: List[Any], timeout: Optional[float],
                   arena: Optional[Arena]) -> Any:
        answer: "asyncio.Future[Any]" = asyncio.get_running_loop().create_future()

        def tell(reply: Optional[Dict[str, Any]], frames: Sequence[Any], error: Optional[errors.Error]) -> None:
            if not answer.done():
                answer.set_exception(error) if error else answer.set_result((reply, frames))
        number = self._core.begin(header, arrays, timeout, arena, tell)
        self._wake.set()
        try:
            return await answer
        except asyncio.CancelledError:
            if number in self._core.pending:
                self._core.forget(number)
                self._core.begin({"op": "cancel", "target": number}, [], 5, None, lambda *_: None)
            raise

    async def _call(self, op: str, timeout: Optional[float], **more: Any) -> Dict[str, Any]:
        more = {key: value for key, value in more.items() if value is not None}
        header, _ = await self._ask({"op": op, **more}, [], timeout, None)
        return header

    async def infer(self, model: str, inputs: Optional[Mapping[str, Any]] = None, *, outputs: Outputs = None,
                    timeout: Optional[float] = None, priority: int = 0, version: Optional[str] = None, trace: bool = False,
                    **named: Any) -> wire.Reply:
        """As Client.infer."""
        header, arrays, arena = self._core.infer_header(model, {**(inputs or {}), **named}, outputs, timeout, priority,
                                                        version, trace)
        reply, frames = await self._ask(header, arrays, timeout, arena)
        return wire.outputs(reply, frames, arena)

    async def attach(self, input_bytes: int, output_bytes: int) -> Arena:
        """As Client.attach; asking takes the daemon a moment, in which the loop stands."""
        if self._core.arena is not None and self._core.arena.connection is not None:
            raise errors.InvalidArgument("this client has its shared memory already; allowed: one")
        self._core.arena = Arena(self.endpoint, input_bytes, output_bytes)
        return self._core.arena

    async def ready(self, model: Optional[str] = None, timeout: float = 5) -> bool:
        """As Client.ready."""
        try:
            await self._call("ready", timeout, model=model)
            return True
        except errors.Unavailable:
            return False

    async def models(self, timeout: float = 5) -> List[wire.Model]:
        """As Client.models."""
        return wire.models(await self._call("models", timeout))

    async def metadata(self, model: str, timeout: float = 5) -> wire.Signature:
        """As Client.metadata."""
        return wire.signature(await self._call("metadata", timeout, model=model))

    async def stats(self, timeout: float = 5) -> Dict[str, Any]:
        """As Client.stats."""
        return await self._call("stats", timeout)
