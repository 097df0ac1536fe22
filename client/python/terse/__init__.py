# SPDX-License-Identifier: Apache-2.0
"""terse: the Python client of tersed, the server for compressed neural networks on CPUs.

    import numpy, terse

    with terse.Client() as client:
        reply = client.infer("digits", image=numpy.zeros((1, 1, 8, 8), "f4"))
        print(reply["logits"].argmax(), reply.compute_us)
        print(client.infer("digits", image=numpy.zeros((1, 1, 8, 8), "f4"), trace=True).trace)    # when it was where

Many at once: client.submit(...) gives a request, .result() waits for it; with asyncio: terse.AsyncClient. Without copies
on the daemon's host:

    arena = client.attach(1 << 20, 1 << 20)
    image, logits = arena.input((1, 1, 8, 8)), arena.output((1, 10))
    image[:] = ...
    client.infer("digits", {"image": image}, outputs={"logits": logits})    # the answer is in `logits`

A lost daemon is connected to again, and what is unanswered is sent again; every request ends once. What goes wrong is an
exception: terse.NotFound, terse.DeadlineExceeded and so on, all of them terse.Error.
"""
from .aio import AsyncClient
from .arena import Arena
from .client import Client, Request
from .errors import (Cancelled, DeadlineExceeded, Error, Internal, InvalidArgument, NotFound, PermissionDenied,
                     ResourceExhausted, Unavailable, Unimplemented)
from .wire import Model, Port, Reply, Signature, Trace, default_endpoint

__all__ = ["Arena", "AsyncClient", "Cancelled", "Client", "DeadlineExceeded", "Error", "Internal", "InvalidArgument", "Model",
           "NotFound", "PermissionDenied", "Port", "Reply", "Request", "ResourceExhausted", "Signature", "Trace", "Unavailable",
           "Unimplemented", "default_endpoint"]
__version__ = "0.1.0"
