# SPDX-License-Identifier: Apache-2.0
"""libterse from Python, as far as the benches need it: one client, one request of floats, answers as bytes."""
import ctypes

FP32 = 1


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("endpoint", ctypes.c_char_p), ("connect_ms", ctypes.c_uint32),
                ("reconnect_ms", ctypes.c_uint32), ("max_outstanding", ctypes.c_uint32)]


class Client:
    def __init__(self, library, endpoint, model, name, array):
        self.lib = ctypes.CDLL(library)
        self.lib.terse_last_error.restype = ctypes.c_char_p
        self.lib.terse_request_new.restype = ctypes.c_void_p
        self.lib.terse_reply_data.restype = ctypes.c_void_p
        self.client, self.request = ctypes.c_void_p(), None
        options = Options(ctypes.sizeof(Options), endpoint.encode(), 20000, 30000, 0)
        self.must(self.lib.terse_client_open(ctypes.byref(options), ctypes.byref(self.client)))
        self.request = ctypes.c_void_p(self.lib.terse_request_new(model.encode()))
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        self.must(self.lib.terse_request_add_input(self.request, name.encode(), FP32, array.ndim, shape,
                                                   array.ctypes.data_as(ctypes.c_void_p)))

    def must(self, status):
        if status:
            raise RuntimeError(self.lib.terse_last_error().decode())

    def infer(self):
        """Waits for the answer; the bytes of its first output."""
        reply, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.must(self.lib.terse_client_infer(self.client, self.request, ctypes.byref(reply)))
        data = self.lib.terse_reply_data(reply, 0, ctypes.byref(size))
        bytes_ = ctypes.string_at(data, size.value)
        self.lib.terse_reply_free(reply)
        return bytes_

    def close(self):
        self.lib.terse_request_free(self.request)
        self.lib.terse_client_close(self.client)
