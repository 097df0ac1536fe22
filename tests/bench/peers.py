# SPDX-License-Identifier: Apache-2.0
"""The peers: onnxruntime, openvino, ncnn, MNN and nncf, by pip into build/peers when they are not there. Each is optional; what keeps it
away is printed once. A peer's function gives a call that runs the network once, on one thread."""
import functools
import importlib
import importlib.metadata
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, "build", "peers")
sys.path.insert(0, FOLDER)


# What pip is to install for a module, its own needs included where they are few.
PACKAGES = {"onnx": ("onnx", "protobuf", "typing_extensions", "ml_dtypes"), "ncnn": ("ncnn", "portalocker"),
            "onnxruntime": ("onnxruntime", "flatbuffers", "protobuf", "packaging"),
            "openvino": ("openvino", "openvino-telemetry"), "PIL": ("pillow",), "MNN": ("mnn",),
            "nncf": ("nncf", "networkx", "ninja", "openvino-telemetry", "psutil", "pydot", "pyparsing", "rich", "markdown-it-py", "mdurl",
                     "pygments", "safetensors", "scikit-learn", "scipy", "joblib", "threadpoolctl", "narwhals", "tabulate")}


@functools.cache
def have(module):
    """Whether a module can be imported, its packages installed where need be; its version is printed."""
    packages = PACKAGES.get(module, (module,))
    for attempt in range(2):
        try:
            importlib.invalidate_caches()
            importlib.import_module(module)
            print(f"bench: peer {module} {importlib.metadata.version(packages[0])}", flush=True)
            return True
        except ImportError as error:
            if attempt:
                print(f"bench: peer {module} is left out: {error}", flush=True)
                return False
        done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", FOLDER, *packages],
                              capture_output=True, text=True)
        if done.returncode:
            print(f"bench: peer {module} is left out: {(done.stderr.strip() or 'pip failed').splitlines()[-1]}", flush=True)
            return False
    return False


def random_feed(inputs, batch):
    """Arrays for (name, shape, kind): floats in [-1, 1), integers 0 or 1, as terse run --random."""
    import numpy
    rng = numpy.random.default_rng(1)
    feed = {}
    for name, shape, kind in inputs:
        shape = [d if isinstance(d, int) and d > 0 else batch for d in shape]
        feed[name] = rng.integers(0, 2, shape) if "int64" in kind else rng.uniform(-1, 1, shape).astype("f4")
    return feed


def onnxruntime_call(path, batch=1):
    if not have("onnxruntime"):
        return None
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = random_feed([(i.name, i.shape, i.type) for i in session.get_inputs()], batch)
    return lambda: session.run(None, feed)


def openvino_call(path, batch=1):
    if not have("openvino"):
        return None
    import openvino
    core = openvino.Core()
    model = core.read_model(path)
    shapes = [(i.get_any_name(), [d.get_length() if d.is_static else batch for d in i.get_partial_shape()],
               "int64" if "int64" in str(i.get_element_type()) else "float") for i in model.inputs]
    model.reshape({name: shape for name, shape, _ in shapes})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1,
                                                 "INFERENCE_PRECISION_HINT": "f32"})
    request, feed = compiled.create_infer_request(), random_feed(shapes, batch)
    return lambda: request.infer(feed)


def ncnn_call(path, folder, shape, bf16=False):
    """Through pnnx, ncnn's own converter."""
    if not have("ncnn") or not pnnx():
        return None
    import ncnn
    import numpy
    stem = os.path.join(folder, os.path.basename(path).replace(".onnx", ""))
    if not os.path.exists(stem + ".ncnn.param"):
        local = f"{stem}_for_ncnn.onnx"
        os.path.exists(local) or os.symlink(path, local)
        text = ",".join(str(d) for d in shape)
        done = subprocess.run([pnnx(), local, f"inputshape=[{text}]", "fp16=0", f"ncnnparam={stem}.ncnn.param",
                               f"ncnnbin={stem}.ncnn.bin"], cwd=folder, capture_output=True, text=True)
        if not os.path.exists(stem + ".ncnn.bin"):
            print(f"bench: pnnx cannot convert {os.path.basename(path)}: {(done.stderr.strip() or '?').splitlines()[-1]}")
            return None
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_bf16_storage = bf16
    net.load_param(stem + ".ncnn.param")
    net.load_model(stem + ".ncnn.bin")
    image = ncnn.Mat(numpy.random.default_rng(1).uniform(-1, 1, shape[1:]).astype("f4"))

    def run():
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return extractor.extract("out0")
    return run


# Not by the module MNN.tools: importing that has pip change what is installed, and sends what was converted to its makers.
MNN_CONVERT = """
import sys
import _tools
_tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", sys.argv[1], "--MNNModel", sys.argv[2], "--bizCode", "bench"])
"""


def mnn_call(path, folder):
    if not have("MNN"):
        return None
    import MNN
    import numpy
    target = os.path.join(folder, os.path.basename(path).replace(".onnx", ".mnn"))
    if not os.path.exists(target):
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join([FOLDER, os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run([sys.executable, "-c", MNN_CONVERT, path, target], capture_output=True, text=True, env=environment)
        if done.returncode or not os.path.exists(target):
            last = ((done.stderr.strip() or done.stdout.strip()).splitlines() or ["?"])[-1]
            print(f"bench: MNN cannot convert {os.path.basename(path)}: {last}", flush=True)
            return None
    net = MNN.Interpreter(target)
    session = net.createSession({"backend": "CPU", "numThread": 1, "precision": "normal"})  # on x86 normal is fp32
    x, y = net.getSessionInput(session), net.getSessionOutput(session)

    def tensor(of, values):
        return MNN.Tensor(of.getShape(), MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe), values
    image, kept = tensor(x, numpy.random.default_rng(1).uniform(-1, 1, x.getShape()).astype("f4"))
    result, _ = tensor(y, numpy.zeros(y.getShape(), "f4"))

    def run(keep=(net, kept)):
        x.copyFrom(image)  # each time: a run may use the input's memory for something else
        net.runSession(session)
        return y.copyToHostTensor(result)
    return run


@functools.cache
def pnnx():
    """Its program; the module itself wants torch."""
    program = os.path.join(FOLDER, "pnnx", "pnnx")
    if not os.path.exists(program):
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", FOLDER, "pnnx"],
                       capture_output=True, text=True)
    if not os.path.exists(program):
        print("bench: ncnn is left out: pip has no pnnx to convert networks with", flush=True)
        return None
    os.chmod(program, 0o755)
    return program
