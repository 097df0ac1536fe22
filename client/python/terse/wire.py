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


class Trace(NamedTuple):
    """When a request was where, in nanoseconds since its submission (the first one, when it was sent again)."""
    received_ns: int  # the daemon had read its header
    queued_ns: int  # it was let in, its tensors copied where they travel in frames
    dispatched_ns: int  # its batch was sent to a worker
    computed_ns: int  # the worker's answer was read
    replied_ns: int  # its reply was made
    completed_ns: int  # this client had read it
    worker: int  # the number of the worker that ran it
    same_clock: bool  # one host, one clock; else the way there and the way back are taken as equally long


class Reply(Dict[str, numpy.ndarray]):
    """Outputs by name. `version` of the model that answered, microseconds in the queue and in the engine, and the rows
    of the batch that it ran in; `trace` where it was asked for and the daemon knows how."""

    version: str = ""
    queue_us: int = 0
    compute_us: int = 0
    batch: int = 0
    trace: Optional[Trace] = None


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
    told = header.get("trace")
    reply.trace = told if isinstance(told, Trace) else None
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


def trace(told: Mapping[str, Any], submitted_ns: int, completed_ns: int) -> Optional[Trace]:
    """What a reply told, put between its two ends as libterse does it: by the daemon's clock when that can be ours, else
    in the middle. None when it cannot be read."""
    try:
        times = [int(told[key + "_ns"]) for key in ("queued", "dispatched", "computed", "replied")]
        received, worker = told.get("received_ns"), int(told["worker"])
        span = completed_ns - submitted_ns
        same = isinstance(received, int) and 0 <= received - submitted_ns <= span - times[-1]
        at = received - submitted_ns if same else max(0, span - times[-1]) // 2
    except (KeyError, TypeError, ValueError):
        return None
    return Trace(at, *(at + t for t in times), span, worker, same)


def signature(header: Mapping[str, Any]) -> Signature:
    """Of a reply to "metadata"."""
    def ports(key: str) -> Tuple[Port, ...]:
        return tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in header.get(key, ()))
    return Signature(ports("inputs"), ports("outputs"), bool(header.get("batchable")), int(header.get("max_batch", 1)))


def models(header: Mapping[str, Any]) -> List[Model]:
    """Of a reply to "models"."""
    return [Model(m["name"], m["version"], m["state"]) for m in header.get("models", ())]
