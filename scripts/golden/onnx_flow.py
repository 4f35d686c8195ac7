"""Graphs in ONNX whose values decide what is computed, and such with functions of their own; make_onnx.py writes them too.

Writes to crates/engine/tests/golden/onnx. ONNX Runtime is asked row by row. Those in golden/hostile would never end.
"""

import json
import pathlib

import numpy as np
import onnxruntime
from onnx import helper
from onnx.parser import parse_function, parse_graph

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/onnx"
HOSTILE = FOLDER.with_name("hostile")
ROWS = np.random.default_rng(4).normal(0, 1.2, (12, 3)).astype(np.float32)
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("own", 1)]

BRANCHES = """
g (float[N, 3] x) => (float[N, 3] y) {
    zero = Constant <value = float {0}> ()
    sum = ReduceSum <keepdims = 0> (x)
    positive = Greater (sum, zero)
    y = If (positive) <
        then_branch = a () => (float[N, 3] p) { two = Constant <value = float {2}> () p = Mul (x, two) },
        else_branch = b () => (float[N, 3] q) {
            low = Constant <value = float {-2}> ()
            less = Less (sum, low)
            q = If (less) <
                then_branch = c () => (float[N, 3] r) { r = Abs (x) },
                else_branch = d () => (float[N, 3] s) { s = Neg (x) }
            >
        }
    >
}
"""
ROUNDS = """
g (float[N, 3] x) => (float[N, 3] y) {
    limit = Constant <value = int64 {9}> ()
    going = Constant <value = bool {1}> ()
    axis = Constant <value = int64[1] {0}> ()
    last, all = Loop (limit, going, x) <
        body = b (int64 round, bool before, float[N, 3] state) => (bool after, float[N, 3] next, float[N, 3] part) {
            half = Constant <value = float {0.5}> ()
            most = Constant <value = float {2}> ()
            number = Cast <to = 1> (round)
            scaled = Mul (state, half)
            moved = Add (scaled, x)
            next = Add (moved, half)
            part = Mul (next, number)
            largest = ReduceMax <keepdims = 0> (next)
            after = Less (largest, most)
        }
    >
    sums = ReduceSum <keepdims = 0> (all, axis)
    y = Add (sums, last)
}
"""
CALLS = """
g (float[N, 3] x) => (float[N, 3] y) {
    a = own.twice <factor = 0.5> (x)
    b = own.scaled (a)
    zero = Constant <value = float {0}> ()
    sum = ReduceSum <keepdims = 0> (x)
    positive = Greater (sum, zero)
    y = If (positive) <
        then_branch = t () => (float[N, 3] p) { p = own.scaled <factor = -2.0> (b) },
        else_branch = e () => (float[N, 3] q) { q = own.twice <factor = 3.0> (b) }
    >
}
"""
SCALED = """
<opset_import: ["" : 18], domain: "own">
scaled <factor: float = 1.5> (x) => (y) {
    by = Constant <value_float: float = @factor> ()
    a = Mul (x, by)
    one = Constant <value = float {1}> ()
    y = Add (a, one)
}
"""
TWICE = """
<opset_import: ["" : 18, "own" : 1], domain: "own">
twice <factor> (x) => (y) {
    a = scaled <factor: float = @factor> (x)
    y = own.scaled <factor: float = @factor> (a)
}
""".replace("a = scaled", "a = own.scaled")
CLASSES = """
g (float[N, 3] x) => (int64[N] label, float[N, 3] shares) {
    label, shares = own.classified (x)
}
"""
CLASSIFIED = """
<opset_import: ["" : 18, "ai.onnx.ml" : 3], domain: "own">
classified (x) => (label, shares) {
    label, scores = ai.onnx.ml.LinearClassifier <
        classlabels_ints = [4, 5, 9], coefficients = [0.3, -1.0, 0.2, 0.5, 0.1, -0.4, -0.8, 0.9, 0.2], intercepts = [0.1, 0.0, -0.1],
        multi_class = 1, post_transform = "SOFTMAX"
    > (x)
    shares = Identity (scores)
}
"""


def save(name, graph, *functions):
    functions = [parse_function(function) for function in functions]
    model = helper.make_model(parse_graph(graph), ir_version=9, opset_imports=OPSETS, functions=functions)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    outputs = {value.name: [] for value in session.get_outputs()}
    for row in ROWS:
        for value, made in zip(outputs.values(), session.run(None, {"x": row[None]})):
            value.append(np.ravel(made).tolist())
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())
    (FOLDER / f"{name}.expected.json").write_text(json.dumps({"rows": ROWS.tolist(), "outputs": outputs}) + "\n")


ENDLESS = """
g (float[N, 3] x) => (float[N, 3] y) {
    limit = Constant <value = int64 {9223372036854775807}> ()
    going = Constant <value = bool {1}> ()
    y = Loop (limit, going, x) <
        body = b (int64 round, bool before, float[N, 3] state) => (bool after, float[N, 3] next) {
            next = Neg (state)
            after = Identity (before)
        }
    >
}
"""
CALLING = "g (float[N, 3] x) => (float[N, 3] y) { y = own.f0 (x) }"


def function(name, *called):
    """One that calls others, one after the other."""
    calls = "".join(f"v{place + 1} = own.{other} (v{place}) " for place, other in enumerate(called))
    head = f'<opset_import: ["" : 18, "own" : 1], domain: "own"> {name} (v0) => (y)'
    return f"{head} {{ {calls} y = Neg (v{len(called)}) }}"


def hostile(name, graph, *functions):
    functions = [parse_function(function) for function in functions]
    model = helper.make_model(parse_graph(graph), ir_version=9, opset_imports=OPSETS, functions=functions)
    (HOSTILE / f"{name}.onnx").write_bytes(model.SerializeToString())


def main():
    HOSTILE.mkdir(exist_ok=True)
    hostile("endless", ENDLESS)
    hostile("itself", CALLING, function("f0", "f1"), function("f1", "f0"))
    steps = [function(f"f{place}", *[f"f{place + 1}"] * 8) for place in range(12)]
    hostile("doubling", CALLING, *steps, function("f12"))
    hostile("nowhere", "g (float[N, 3] x) => (float[N, 3] y) { y = own.f0 (x) }",
            '<opset_import: ["" : 18], domain: "own"> f0 (v0) => (y) { y = Add (v0, x) }')
    save("flow-branches", BRANCHES)
    save("flow-rounds", ROUNDS)
    save("flow-calls", CALLS, SCALED, TWICE)
    save("flow-classes", CLASSES, CLASSIFIED)


if __name__ == "__main__":
    main()
