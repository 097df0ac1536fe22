#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Train the sample network on the UCI handwritten digits that Debian's python3-sklearn carries.

usage: make_sample.py OUT_DIR      (Debian: python3-numpy python3-sklearn python3-onnx; about half a minute)

Writes digits.onnx, a small CNN with fire modules (Iandola et al. 2016, arXiv:1602.07360, section 3.1: a 1x1 "squeeze"
convolution whose output feeds a 1x1 and a 3x3 "expand" convolution that are concatenated), and digits_test.npz: the 597
digits (numbers 1200 to 1796) that training never saw, with their labels. Plain numpy, seeded; the accuracy printed at the
end is measured on those 597.
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

rng = np.random.default_rng(7)
TRAIN, EPOCHS, BATCH, DENSE_DECAY = 1200, 70, 48, 5.0


class Parameter:
    def __init__(self, value, decay=0.01):
        self.value, self.decay = value.astype(np.float32), decay
        self.grad = np.zeros_like(self.value)
        self.first, self.second = np.zeros_like(self.value), np.zeros_like(self.value)


def he(shape, fan_in, decay=0.01):
    return Parameter(rng.standard_normal(shape) * np.sqrt(2.0 / fan_in), decay)


class Conv:
    """k x k convolution (k odd, stride 1, padded to the same size), then Relu."""

    def __init__(self, channels, filters, k):
        self.w, self.b, self.k = he((filters, channels, k, k), channels * k * k), Parameter(np.zeros(filters)), k

    def forward(self, x, train):
        n, c, h, w = x.shape
        pad = self.k // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.k, self.k), axis=(2, 3))
        self.columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)
        y = self.columns @ self.w.value.reshape(len(self.w.value), -1).T + self.b.value
        self.mask, self.shape = y > 0, x.shape
        return (y * self.mask).reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, dy):
        n, c, h, w = self.shape
        flat = dy.transpose(0, 2, 3, 1).reshape(n * h * w, -1) * self.mask
        self.w.grad += (flat.T @ self.columns).reshape(self.w.value.shape)
        self.b.grad += flat.sum(0)
        columns = (flat @ self.w.value.reshape(len(self.w.value), -1)).reshape(n, h, w, c, self.k, self.k)
        pad = self.k // 2
        dx = np.zeros((n, c, h + 2 * pad, w + 2 * pad), np.float32)
        for i in range(self.k):
            for j in range(self.k):
                dx[:, :, i:i + h, j:j + w] += columns[:, :, :, :, i, j].transpose(0, 3, 1, 2)
        return dx[:, :, pad:pad + h, pad:pad + w]

    def parameters(self):
        return [self.w, self.b]


class Fire:
    def __init__(self, channels, squeeze, expand):
        self.squeeze = Conv(channels, squeeze, 1)
        self.small, self.large, self.expand = Conv(squeeze, expand, 1), Conv(squeeze, expand, 3), expand

    def forward(self, x, train):
        s = self.squeeze.forward(x, train)
        return np.concatenate([self.small.forward(s, train), self.large.forward(s, train)], axis=1)

    def backward(self, dy):
        return self.squeeze.backward(self.small.backward(dy[:, :self.expand]) + self.large.backward(dy[:, self.expand:]))

    def parameters(self):
        return self.squeeze.parameters() + self.small.parameters() + self.large.parameters()


class Pool:
    """2 x 2 maximum, stride 2."""

    def forward(self, x, train):
        n, c, h, w = x.shape
        self.blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        y = self.blocks.max(axis=(3, 5))
        self.hit = self.blocks == y[:, :, :, None, :, None]
        return y

    def backward(self, dy):
        share = self.hit / self.hit.sum(axis=(3, 5), keepdims=True)
        n, c, h, _, w, _ = self.blocks.shape
        return (share * dy[:, :, :, None, :, None]).reshape(n, c, h * 2, w * 2).astype(np.float32)

    def parameters(self):
        return []


class Dense:
    def __init__(self, inputs, outputs, relu):
        # The decay leaves of a wide layer what the task needs, as it does in real networks: a few strong directions.
        self.w, self.b, self.relu = he((outputs, inputs), inputs, DENSE_DECAY), Parameter(np.zeros(outputs)), relu

    def forward(self, x, train):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        if train and self.relu:  # dropout (Srivastava et al. 2014), kept in expectation
            self.keep = (rng.random(self.x.shape) < 0.7).astype(np.float32) / 0.7
            self.x = self.x * self.keep
        else:
            self.keep = 1.0
        y = self.x @ self.w.value.T + self.b.value
        self.mask = (y > 0) | (not self.relu)
        return y * self.mask

    def backward(self, dy):
        dy = dy * self.mask
        self.w.grad += dy.T @ self.x
        self.b.grad += dy.sum(0)
        return ((dy @ self.w.value) * self.keep).reshape(self.shape)

    def parameters(self):
        return [self.w, self.b]


def logits_of(net, x, train=False):
    for layer in net:
        x = layer.forward(x, train)
    return x


def shifted(x):
    """Each digit moved by up to one pixel."""
    out = np.zeros_like(x)
    for i, (dy, dx) in enumerate(rng.integers(-1, 2, (len(x), 2))):
        out[i] = np.roll(x[i], (dy, dx), axis=(1, 2))
        if dy:
            out[i, :, 0 if dy > 0 else -1] = 0
        if dx:
            out[i, :, :, 0 if dx > 0 else -1] = 0
    return out


def train(net, x, labels):
    parameters = [p for layer in net for p in layer.parameters()]
    step, steps = 0, EPOCHS * (len(x) // BATCH)
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            pick = order[start:start + BATCH]
            y = logits_of(net, shifted(x[pick]), True)
            p = np.exp(y - y.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(BATCH), labels[pick]] -= 1
            gradient = p / BATCH
            for layer in reversed(net):
                gradient = layer.backward(gradient)
            step += 1
            rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
            for q in parameters:  # Adam with decoupled decay (Loshchilov & Hutter 2019, algorithm 2)
                q.first += 0.1 * (q.grad - q.first)
                q.second += 0.001 * (q.grad**2 - q.second)
                q.value -= rate * (q.first / (1 - 0.9**step) / (np.sqrt(q.second / (1 - 0.999**step)) + 1e-8) + q.decay * q.value)
                q.grad[:] = 0


def write_onnx(net, path):
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(layer, x, name):
        pad = layer.k // 2
        y = node("Conv", [x, constant(name + ".weight", layer.w.value), constant(name + ".bias", layer.b.value)], name,
                 kernel_shape=[layer.k] * 2, pads=[pad] * 4)
        return node("Relu", [y], name + ".relu")

    x = "image"
    net[0].w.value = net[0].w.value / 16  # the file takes pixels of 0..16 as they are
    for i, layer in enumerate(net):
        name = f"layer{i}"
        if isinstance(layer, Conv):
            x = conv(layer, x, name)
        elif isinstance(layer, Fire):
            s = conv(layer.squeeze, x, name + ".squeeze")
            x = node("Concat", [conv(layer.small, s, name + ".expand1x1"), conv(layer.large, s, name + ".expand3x3")], name,
                     axis=1)
        elif isinstance(layer, Pool):
            x = node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])
        else:
            if layer.relu:
                x = node("Flatten", [x], name + ".flatten")
            last = i == len(net) - 1
            x = node("Gemm", [x, constant(name + ".weight", layer.w.value), constant(name + ".bias", layer.b.value)],
                     "logits" if last else name, transB=1)
            x = x if last else node("Relu", [x], name + ".relu")
    graph = helper.make_graph(nodes, "digits", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
                              [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="terse make_sample.py")
    model.ir_version = 7
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    digits = load_digits()
    x, labels = digits.images[:, None].astype(np.float32), digits.target.astype(np.int64)
    net = [Conv(1, 32, 3), Fire(32, 16, 32), Pool(), Fire(64, 24, 48), Fire(96, 32, 64), Pool(), Dense(512, 320, True),
           Dense(320, 10, False)]
    train(net, x[:TRAIN] / 16, labels[:TRAIN])
    right = int((logits_of(net, x[TRAIN:] / 16).argmax(1) == labels[TRAIN:]).sum())
    write_onnx(net, os.path.join(sys.argv[1], "digits.onnx"))
    np.savez_compressed(os.path.join(sys.argv[1], "digits_test.npz"), image=x[TRAIN:], labels=labels[TRAIN:])
    print(f"{right} of {len(x) - TRAIN} held-out digits are right")


main()
