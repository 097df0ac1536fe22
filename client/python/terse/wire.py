# SPDX-License-Identifier: Apache-2.0
"""Headers and tensors as they travel: a msgpack map, then a frame for each tensor that does not lie in shared memory."""
from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import msgpack
import numpy

from . import errors

VERSION = 1
# BF16 has no type in numpy: such outputs come as the upper halves of float32, in uint16.
DTYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "BF16": "<u2", "INT8": "|i1", "INT16": "<i2", "INT32": "<i4",
          "INT64": "<i8", "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "BOOL": "|b1"}
NAMES = {numpy.dtype(kind): name for name, kind in DTYPES.items() if name != "BF16"}

Shape = Tuple[Union[int, str], ...]


class Reply(Dict[str, numpy.ndarray]):
    """Outputs by name. `version` of the model that answered, microseconds in the queue and in the engine, and the rows
    of the batch that it ran in."""

    version: str = ""
    queue_us: int = 0
    compute_us: int = 0
    batch: int = 0


class Port(NamedTuple):
    """An input or output of a model; free sizes have a name."""
    name: str
    dtype: str
    shape: Shape


class Signature(NamedTuple):
    """What a model takes and gives."""
    inputs: Tuple[Port, ...]
    outputs: Tuple[Port, ...]
    batchable: bool
    max_batch: int


class Model(NamedTuple):
    """A version that is there; `state` is ready, loading or draining."""
    name: str
    version: str
    state: str


def default_endpoint() -> str:
    """Where a daemon of this host listens, as libterse finds it."""
    wanted = os.environ.get("TERSE_ENDPOINT")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if wanted:
        return wanted
    if os.geteuid() == 0 or os.path.exists("/run/terse/tersed.sock") or not runtime:
        return "ipc:///run/terse/tersed.sock"
    return f"ipc://{runtime}/terse/tersed.sock"


def dtype_name(name: str, array: numpy.ndarray) -> str:
    """The protocol's name of an array's type."""
    kind = NAMES.get(array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype)
    if kind is None:
        raise errors.InvalidArgument(f"input '{name}': found {array.dtype}, allowed: {', '.join(map(str, NAMES))}")
    return kind


def pack(header: Mapping[str, Any]) -> bytes:
    """A header's bytes."""
    return msgpack.packb(header, use_bin_type=True)


def unpack(data: Any) -> Dict[str, Any]:
    """The map of a header; {} when it is none."""
    try:
        header = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception:  # whatever msgpack finds wrong with it
        return {}
    return header if isinstance(header, dict) else {}


def outputs(header: Mapping[str, Any], frames: Sequence[Any], arena: Optional[Any]) -> Reply:
    """The arrays of an answer; they lie in its frames, or where the request placed them, and are not copied."""
    reply = Reply()
    timing = header.get("timing") or {}
    reply.version = header.get("version") or ""
    reply.queue_us, reply.compute_us = timing.get("queue_us", 0), timing.get("compute_us", 0)
    reply.batch = timing.get("batch", 0)
    try:
        for output in header.get("outputs", ()):
            kind, shape = numpy.dtype(DTYPES[output["dtype"]]), tuple(output["shape"])
            place = output.get("shm")
            if place is not None:
                if arena is None:
                    raise ValueError("an output in shared memory that was not asked for")
                memory, offset = arena.outputs, place["offset"]
            else:
                frame = frames[output["frame"] - 1]
                memory, offset = getattr(frame, "buffer", frame), 0
            count = int(numpy.prod(shape, dtype=numpy.int64))
            reply[output["name"]] = numpy.frombuffer(memory, kind, count, offset).reshape(shape)
    except (KeyError, IndexError, TypeError, ValueError) as wrong:
        raise errors.Internal(f"the daemon's reply cannot be read: {wrong!r}") from wrong
    return reply


def signature(header: Mapping[str, Any]) -> Signature:
    """Of a reply to "metadata"."""
    def ports(key: str) -> Tuple[Port, ...]:
        return tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in header.get(key, ()))
    return Signature(ports("inputs"), ports("outputs"), bool(header.get("batchable")), int(header.get("max_batch", 1)))


def models(header: Mapping[str, Any]) -> List[Model]:
    """Of a reply to "models"."""
    return [Model(m["name"], m["version"], m["state"]) for m in header.get("models", ())]
