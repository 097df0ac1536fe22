# SPDX-License-Identifier: Apache-2.0
"""Memory that a client shares with a daemon of its host: workers read inputs where they lie and write outputs where they
are to be.

The memory is the daemon's, granted over a Unix socket whose end gives it back. When the daemon's front end is replaced,
the new memory is mapped over the old one with what was in it: arrays stay good.
"""
from __future__ import annotations

import array
import ctypes
import mmap
import os
import socket
from typing import Any, List, Optional, Sequence, Tuple

import numpy
from numpy.typing import DTypeLike

from . import errors, wire

ALIGN = 64
_MAP_FIXED = 0x10
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def _map(address: Optional[int], size: int, fd: int) -> int:
    flags = mmap.MAP_SHARED | (_MAP_FIXED if address else 0)
    found = _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


class _Mapping:
    """Unmapped when the last array in it is gone."""

    def __init__(self, fd: int, size: int):
        self.size = size
        self.address = _map(None, size, fd)

    def replace(self, fd: int) -> None:
        """Other memory at the same addresses, with the same content."""
        fresh = _map(None, self.size, fd)
        ctypes.memmove(fresh, self.address, self.size)
        _libc.munmap(fresh, self.size)
        _map(self.address, self.size, fd)

    def memory(self) -> Any:
        """A buffer over all of it, which keeps the mapping."""
        kind = type("Memory", (ctypes.c_char * self.size,), {})
        buffer = kind.from_address(self.address)
        buffer.mapping = self
        return buffer

    def __del__(self) -> None:
        if hasattr(self, "address"):
            _libc.munmap(self.address, self.size)


class _Ranges:
    """Free and taken places of one half, the lowest free first."""

    def __init__(self, size: int):
        self.size = size
        self.taken: List[Tuple[int, int]] = []

    def take(self, size: int) -> int:
        size = max(ALIGN, -(-size // ALIGN) * ALIGN)
        at = 0
        for i, (start, length) in enumerate(self.taken + [(self.size, 0)]):
            if start - at >= size:
                self.taken.insert(i, (at, size))
                return at
            at = start + length
        raise errors.ResourceExhausted(f"{size} bytes of shared memory are wanted, no such room of {self.size} is free")

    def give(self, at: int) -> None:
        self.taken = [(start, length) for start, length in self.taken if start != at]


class Arena:
    """Made by Client.attach(). `inputs` and `outputs` are buffers over all of the memory."""

    def __init__(self, endpoint: str, input_bytes: int, output_bytes: int):
        if not endpoint.startswith("ipc://"):
            raise errors.InvalidArgument(f"shared memory: found endpoint '{endpoint}', allowed: ipc://PATH")
        self._path = endpoint[len("ipc://"):] + ".attach"
        self._wanted = (input_bytes, output_bytes)
        self.connection: Optional[socket.socket] = None
        self.token = b""
        answer, fds = self._ask()
        try:
            self.connection, self.token = answer
            self._mappings = (_Mapping(fds[0], self._sizes[0]), _Mapping(fds[1], self._sizes[1]))
        finally:
            for fd in fds:
                os.close(fd)
        self.inputs, self.outputs = (m.memory() for m in self._mappings)
        self._ranges = (_Ranges(self._sizes[0]), _Ranges(self._sizes[1]))

    def _ask(self) -> Tuple[Tuple[socket.socket, bytes], List[int]]:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = array.array("i")
        try:
            connection.settimeout(5)
            connection.connect(self._path)
            connection.send(wire.pack({"v": wire.VERSION, "op": "attach", "input_bytes": self._wanted[0],
                                       "output_bytes": self._wanted[1]}))
            data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(8 * fds.itemsize))
            for level, kind, rights in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(rights[:len(rights) - len(rights) % fds.itemsize])
            answer = wire.unpack(data)
            if answer.get("status") != "OK" or len(fds) < 2:
                raise errors.make(answer.get("status", "UNAVAILABLE"), answer.get("error", "the daemon shares no memory"))
            self._sizes = (answer["input_bytes"], answer["output_bytes"])
            connection.setblocking(False)
            return (connection, answer["arena"]), list(fds)
        except OSError as wrong:
            connection.close()
            raise errors.Unavailable(f"no shared memory at '{self._path}': {wrong}") from wrong
        except errors.Error:
            connection.close()
            for fd in fds:
                os.close(fd)
            raise

    def renew(self) -> None:
        """Asks again, after the daemon has given the memory up; arrays keep their places and what is in them."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        sizes = self._sizes
        (connection, token), fds = self._ask()
        try:
            if self._sizes != sizes:
                self._sizes = sizes
                connection.close()
                raise errors.Internal("the daemon gives shared memory of another size")
            for mapping, fd in zip(self._mappings, fds):
                mapping.replace(fd)
        finally:
            for fd in fds:
                os.close(fd)
        self.connection, self.token = connection, token

    def lost(self) -> bool:
        """Whether the daemon has ended the connection."""
        if self.connection is None:
            return True
        try:
            return self.connection.recv(4096) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def _array(self, half: int, shape: Sequence[int], dtype: DTypeLike) -> numpy.ndarray:
        kind = numpy.dtype(dtype)
        count = int(numpy.prod(shape, dtype=numpy.int64))
        at = self._ranges[half].take(count * kind.itemsize)
        return numpy.frombuffer((self.inputs, self.outputs)[half], kind, count, at).reshape(shape)

    def input(self, shape: Sequence[int], dtype: DTypeLike = "f4") -> numpy.ndarray:
        """An array for an input, in the shared memory: fill it, and name it in infer()."""
        return self._array(0, shape, dtype)

    def output(self, shape: Sequence[int], dtype: DTypeLike = "f4") -> numpy.ndarray:
        """An array into which an output can be written: infer(..., outputs={"name": array})."""
        return self._array(1, shape, dtype)

    def give(self, range_: numpy.ndarray) -> None:
        """Gives back the place of an array that input() or output() made; the array is not to be used any more."""
        for half in (0, 1):
            at = self.place(half, range_)
            if at is not None:
                self._ranges[half].give(at)

    def place(self, half: int, range_: numpy.ndarray) -> Optional[int]:
        """Where an array lies in the inputs (0) or outputs (1); None when it lies elsewhere or cannot be named."""
        at = range_.ctypes.data - self._mappings[half].address
        inside = 0 <= at and at + range_.nbytes <= self._mappings[half].size
        return at if inside and at % ALIGN == 0 and range_.flags.c_contiguous else None

    def close(self) -> None:
        """Gives the memory back to the daemon; what is in the arrays stays readable."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
