"""A graph that is not of a table: a small convolutional network of images, for ONNX Runtime alone.

    python3 -m venv venv && venv/bin/pip install -r requirements-onnx.txt
    venv/bin/python make_images.py

Writes images.onnx to crates/inference/tests/data, and images.json: images, and what ONNX Runtime makes of them. The weights
come from a seeded generator; nothing was learned.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/inference/tests/data"
SIDE, FILTERS, CLASSES, IMAGES = 8, 4, 3, 5


def constant(name, values):
    return numpy_helper.from_array(values.astype(np.float32), name)


def main():
    random = np.random.default_rng(8)
    flat = FILTERS * (SIDE // 2) ** 2
    constants = [
        constant("filters", random.normal(size=(FILTERS, 1, 3, 3))),
        constant("weights", random.normal(size=(flat, CLASSES)) / 4),
        constant("bias", random.normal(size=CLASSES)),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["convolved"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["convolved"], ["above"]),
        helper.make_node("MaxPool", ["above"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES]),
    ]
    graph = helper.make_graph(nodes, "images", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    images = random.normal(size=(IMAGES, 1, SIDE, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rows = np.hstack(session.run(None, {"image": images}))
    (FOLDER / "images.onnx").write_bytes(model.SerializeToString())
    written = {"rows": images.reshape(IMAGES, -1).tolist(), "predictions": rows.tolist()}
    (FOLDER / "images.json").write_text(json.dumps(written, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
