"""Models in ONNX, and what ONNX Runtime predicts with them.

    python3 -m venv venv && venv/bin/pip install -r requirements-onnx.txt
    venv/bin/python make_onnx.py

Writes to crates/engine/tests/golden/onnx: each model with a file NAME.expected.json beside it, which has rows by the
columns of all inputs, and what the runtime gives for them: "labels", "probabilities" or "numbers". The folder `nodes`
there has the tests of `ai.onnx.ml` operators, and some of the operators around them, that the package onnx carries
(`onnx/backend/test/data/node`, Apache-2.0): the model, and its inputs and outputs as JSON. All data comes from a seeded
generator.
"""

import json
import math
import pathlib
import shutil
import warnings

import lightgbm
import numpy as np
import onnx
import onnxmltools
import onnxruntime
import pandas as pd
import xgboost
import onnx_flow
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from skl2onnx.common import data_types
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

warnings.simplefilter("ignore")

# The version of operators up to which skl2onnx goes through rows for distances.
AT = {"target_opset": {"": 18, "ai.onnx.ml": 3}}
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/onnx"
ROWS = 12
COUNT = 200

random = np.random.default_rng(21)
MATRIX = random.normal(size=(COUNT, 4)).astype(np.float32)
SUM = MATRIX @ np.array([1.0, -0.5, 0.3, 0.0]) + random.normal(0, 0.3, COUNT)
TWO = (SUM > 0).astype(int)
THREE = np.digitize(SUM, [-0.5, 0.5])
NAMES = np.array(["low", "middle", "high"])[THREE]
PEOPLE = pd.DataFrame({
    "age": random.normal(40, 12, COUNT).round(1).astype(np.float32),
    "fare": random.gamma(2, 15, COUNT).round(2).astype(np.float32),
    "sex": random.choice(["female", "male"], COUNT),
    "port": random.choice(["S", "C", "Q"], COUNT),
    "siblings": random.integers(0, 5, COUNT),
})
GAPS = PEOPLE.copy()
GAPS.loc[random.random(COUNT) < 0.2, "age"] = np.nan
SURVIVED = np.where((PEOPLE["sex"] == "female") ^ (random.random(COUNT) < 0.2), "yes", "no")
WORDS = pd.DataFrame({"text": random.choice(
    ["a good film", "a bad film, too long", "not good at all", "good GOOD music", "long and bad", "fine"], COUNT)})
LIKED = WORDS["text"].str.contains("good").astype(int).to_numpy()


def table(classes=OneHotEncoder(handle_unknown="ignore")):
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return ColumnTransformer([("numbers", numbers, ["age", "fare"]), ("classes", classes, ["sex", "port"]),
                              ("rest", "passthrough", ["siblings"])])


def feeds(model, data):
    """The inputs of a model from rows of all columns."""
    data = data.to_numpy(dtype=object) if isinstance(data, pd.DataFrame) else np.asarray(data)
    fed, first = {}, 0
    types = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.INT64: np.int64,
             TensorProto.INT32: np.int32, TensorProto.BOOL: np.bool_, TensorProto.STRING: object}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        width = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) > 1 else 1
        columns = data[:, first:first + width].astype(types[tensor.elem_type])
        fed[value.name] = columns if len(tensor.shape.dim) > 1 else columns[:, 0]
        first += width
    return fed


def plain(value):
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def write(name, model, data, each_alone=False):
    rows = data[:ROWS]
    # Machines without English have it too.
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            node.attribute.append(helper.make_attribute("locale", "C.UTF-8"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    outputs = session.run(None, feeds(model, rows))
    if each_alone:
        alone = [session.run(None, feeds(model, data[k:k + 1])) for k in range(ROWS)]
        outputs = [np.concatenate(rows_of_one) for rows_of_one in zip(*alone)]
    expected = {}
    for value, output in zip(session.get_outputs(), outputs):
        if isinstance(output, list):
            output = np.array([list(row.values()) for row in output])
        expected[value.name] = [[plain(number) for number in np.ravel(row)] for row in output]
    rows = rows.to_numpy(dtype=object) if isinstance(rows, pd.DataFrame) else rows
    content = {"rows": [[plain(value) for value in row] for row in rows], "outputs": expected}
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())
    (FOLDER / f"{name}.expected.json").write_text(json.dumps(content) + "\n")


def convert(name, estimator, data=MATRIX, target=TWO, **options):
    estimator.fit(data, target)
    write(name, to_onnx(estimator, data[:1], **options), data)


def tables():
    no_map = {"options": {"zipmap": False}}
    convert("titanic", make_pipeline(table(), LogisticRegression()), GAPS, SURVIVED)
    convert("titanic-no-map", make_pipeline(table(), LogisticRegression()), GAPS, SURVIVED, **no_map)
    convert("titanic-columns", make_pipeline(table(), LogisticRegression()), PEOPLE, TWO,
            options={"zipmap": "columns"})
    convert("credit", make_pipeline(table(), GradientBoostingClassifier(n_estimators=10)), GAPS, TWO)
    convert("churn", make_pipeline(table(OrdinalEncoder()), RandomForestClassifier(8, max_depth=5)), PEOPLE, SURVIVED)
    convert("known-classes", make_pipeline(OneHotEncoder(drop="first"), LogisticRegression()),
            PEOPLE[["sex", "port"]], TWO)
    imputed = make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=""), OneHotEncoder())
    convert("text-imputer", make_pipeline(ColumnTransformer([("a", imputed, ["sex", "port"])]), LogisticRegression()),
            PEOPLE[["sex", "port"]], TWO)
    words = [("text", TfidfVectorizer(), "text")]
    convert("reviews", make_pipeline(ColumnTransformer(words), LogisticRegression()), WORDS, LIKED)
    words = [("text", CountVectorizer(ngram_range=(1, 2)), "text")]
    convert("reviews-bayes", make_pipeline(ColumnTransformer(words), MultinomialNB()), WORDS, LIKED)


def estimators():
    classifiers = [
        LogisticRegression(), SGDClassifier(loss="log_loss"), LinearSVC(), SVC(probability=True), SVC(kernel="poly"),
        NuSVC(kernel="sigmoid"), RandomForestClassifier(5, max_depth=5), ExtraTreesClassifier(5, max_depth=5),
        GradientBoostingClassifier(n_estimators=5), DecisionTreeClassifier(max_depth=4), GaussianNB(),
        LinearDiscriminantAnalysis(), QuadraticDiscriminantAnalysis(), Perceptron(), RidgeClassifier(),
        MLPClassifier((6,), max_iter=30), CalibratedClassifierCV(LinearSVC(), cv=2),
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=4),
        BaggingClassifier(DecisionTreeClassifier(max_depth=3), 3),
        StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))]),
    ]
    for number, estimator in enumerate(classifiers):
        name = f"{number:02}-{type(estimator).__name__}"
        convert(f"{name}-2", estimator)
        maps = hasattr(estimator, "predict_proba") and number % 3 == 0
        convert(f"{name}-3", estimator, MATRIX, NAMES if number % 2 else THREE,
                options={"zipmap": maps} if hasattr(estimator, "predict_proba") else {})
    for estimator in [
        LinearRegression(), Ridge(), SVR(), SVR(kernel="linear"), RandomForestRegressor(5, max_depth=5),
        GradientBoostingRegressor(n_estimators=5), DecisionTreeRegressor(max_depth=4), MLPRegressor(hidden_layer_sizes=(6,), max_iter=30),
    ]:
        convert(f"{type(estimator).__name__}-{getattr(estimator, 'kernel', 'r')}", estimator, MATRIX, SUM)
    kinds = [KNeighborsClassifier(5), KNeighborsClassifier(3, weights="distance", p=1),
             GaussianMixture(2, random_state=0), IsolationForest(n_estimators=4, random_state=0), OneVsRestClassifier(LogisticRegression()),
             VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft", flatten_transform=False), BernoulliNB(),
             CategoricalNB()]
    for estimator in kinds:
        name = f"more-{type(estimator).__name__}-{getattr(estimator, 'weights', '')}"
        data = np.abs(MATRIX).round().astype(np.int64) if "Categorical" in name else MATRIX
        has_classes = isinstance(estimator, ClassifierMixin)
        options = {"options": {"zipmap": False}} if has_classes else {}
        convert(name, estimator, data, THREE if has_classes else None, **AT, **options)
    for estimator in [KNeighborsRegressor(4), KNeighborsRegressor(4, weights="distance"),
                      GaussianProcessRegressor(RBF(2.0), alpha=0.5),
                      VotingRegressor([("a", LinearRegression()), ("b", DecisionTreeRegressor(max_depth=3))])]:
        convert(f"more-{type(estimator).__name__}-{getattr(estimator, 'weights', '')}", estimator, MATRIX, SUM, **AT)
    convert("cdist-classes", KNeighborsClassifier(5), MATRIX, THREE,
            options={KNeighborsClassifier: {"optim": "cdist", "zipmap": False}})
    convert("cdist-number", KNeighborsRegressor(4), MATRIX, SUM, options={KNeighborsRegressor: {"optim": "cdist"}})
    convert("two-targets", LinearRegression(), MATRIX, np.column_stack([SUM, -SUM]))
    convert("poisson", PoissonRegressor(), MATRIX, np.exp(SUM))
    convert("doubles", make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(6,), max_iter=30)), MATRIX.astype(np.float64), SUM)
    convert("k-means", KMeans(3, n_init=2), MATRIX, None)
    for transformer in [
        MinMaxScaler(), RobustScaler(), MaxAbsScaler(), Normalizer("l1"), Normalizer("l2"), Normalizer("max"),
        Binarizer(), PowerTransformer(), QuantileTransformer(n_quantiles=10), PolynomialFeatures(), PCA(2),
        SelectKBest(k=2),
    ]:
        norm = getattr(transformer, "norm", "")
        convert(f"step-{type(transformer).__name__}{norm}", make_pipeline(transformer, LinearRegression()), MATRIX, SUM)


def maps():
    """A dictionary for each row, of which the vectorizer names the keys."""
    records = [{"age": float(row[0]), **({"fare": float(row[1])} if row[1] > 0 else {})} for row in MATRIX]
    model = make_pipeline(DictVectorizer(sparse=False), LogisticRegression()).fit(records, TWO)
    kind = data_types.DictionaryType(data_types.StringTensorType([1]), data_types.FloatTensorType([1]))
    made = to_onnx(model, initial_types=[("x", kind)], options={"zipmap": False})
    session = onnxruntime.InferenceSession(made.SerializeToString())
    answers = [session.run(["probabilities"], {"x": record})[0][0].tolist() for record in records[:ROWS]]
    content = {"rows": [[record.get("age"), record.get("fare")] for record in records[:ROWS]],
               "outputs": {"probabilities": answers}}
    (FOLDER / "dictionary.onnx").write_bytes(made.SerializeToString())
    (FOLDER / "dictionary.expected.json").write_text(json.dumps(content) + "\n")


def boosted():
    holes = MATRIX.copy()
    holes[random.random(holes.shape) < 0.1] = np.nan
    kind = [("x", FloatTensorType([None, 4]))]
    for name, target in [("2", TWO), ("3", THREE)]:
        for zipmap in [False, True]:
            model = lightgbm.LGBMClassifier(n_estimators=6, num_leaves=8, verbose=-1).fit(holes, target)
            made = onnxmltools.convert_lightgbm(model.booster_, initial_types=kind, zipmap=zipmap)
            write(f"lightgbm-{name}-{'map' if zipmap else 'plain'}", made, holes)
        model = xgboost.XGBClassifier(n_estimators=6, max_depth=3).fit(holes, target)
        write(f"xgboost-{name}", onnxmltools.convert_xgboost(model, initial_types=kind), holes)
    model = lightgbm.LGBMRegressor(n_estimators=6, num_leaves=8, verbose=-1).fit(holes, SUM)
    write("lightgbm-number", onnxmltools.convert_lightgbm(model, initial_types=kind), holes)
    model = xgboost.XGBRegressor(n_estimators=6, max_depth=3).fit(holes, SUM)
    write("xgboost-number", onnxmltools.convert_xgboost(model, initial_types=kind), holes)


def single():
    """Operators that no converter here writes, each in a graph of its own."""
    def graph(name, node, domain="ai.onnx.ml", version=1, output=TensorProto.FLOAT, kind=TensorProto.FLOAT, width=4):
        inputs = [helper.make_tensor_value_info("x", kind, [None, width])]
        outputs = [helper.make_tensor_value_info("y", output, None)]
        made = helper.make_model(helper.make_graph([node], "g", inputs, outputs), ir_version=9,
                                 opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(domain, version)])
        data = MATRIX[:, :width] if kind == TensorProto.FLOAT else np.array([[k % 5] * width for k in range(COUNT)])
        write(f"single-{name}", made, data)

    def ml(operator, **attributes):
        return helper.make_node(operator, ["x"], ["y"], domain="ai.onnx.ml", **attributes)

    for transform in ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]:
        graph(f"linear-{transform}", ml("LinearRegressor", coefficients=[0.1, 0.2, -0.3, 0.4, 1.0, -1.0, 0.0, 0.5],
                                        intercepts=[0.1, -0.2], targets=2, post_transform=transform))
    for mode, track in [("BRANCH_LT", 0), ("BRANCH_LEQ", 1), ("BRANCH_GTE", 1), ("BRANCH_GT", 0), ("BRANCH_EQ", 0),
                        ("BRANCH_NEQ", 1)]:
        graph(f"tree-{mode}", ml(
            "TreeEnsembleRegressor", n_targets=1, nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2],
            nodes_featureids=[0, 0, 0], nodes_values=[float(MATRIX[1, 0]), 0.0, 0.0],
            nodes_hitrates=[1.0] * 3, nodes_modes=[mode, "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0], nodes_missing_value_tracks_true=[track, 0, 0], target_treeids=[0, 0],
            target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.5, -2.5], base_values=[0.25]))
    graph("mapper", ml("LabelEncoder", keys_int64s=[0, 1, 3], values_int64s=[10, 11, 13], default_int64=-7), version=2,
          output=TensorProto.INT64, kind=TensorProto.INT64, width=1)
    graph("one-hot", ml("OneHotEncoder", cats_int64s=[0, 1, 3]), kind=TensorProto.INT64, width=1)
    graph("vectorizer", ml("FeatureVectorizer", inputdimensions=[4]))
    graph("softmax", helper.make_node("Softmax", ["x"], ["y"]))
    graph("sigmoid", helper.make_node("Sigmoid", ["x"], ["y"]))


def value(array):
    return {"type": str(array.dtype), "shape": list(array.shape), "values": [
        item.decode() if isinstance(item, bytes) else plain(item) for item in array.ravel().tolist()]}


KINDS = ("ai_onnx_ml_", "tfidfvectorizer_", "strnormalizer_", "softmax_", "logsoftmax_", "concat_", "argmax_", "argmin_",
         "gather_", "slice", "squeeze", "unsqueeze", "transpose", "top_k", "topk", "reduce_", "where", "gemm", "matmul_",
         "reshape_", "clip", "flatten", "equal", "greater", "less", "expand", "shape", "constantofshape", "pow", "add",
         "sub", "mul", "div", "and", "or", "xor", "not", "neg", "abs", "sign", "isnan", "min_", "max_", "sum_", "acos",
         "asin", "atan", "batchnorm_", "cast", "celu", "cos", "cumsum", "elu", "erf", "eyelike", "hardsigmoid", "hardswish",
         "if", "isinf", "l1normalization", "l2normalization", "leakyrelu", "mean_", "mod_", "prelu", "range", "scan", "selu", "sinh", "size", "softsign",
         "split_", "tan", "thresholdedrelu", "tile")


def one_sum():
    """Trees with one sum for two classes: what each of them gets depends on the leaves."""
    for name, weights, base, transform in [
        ("mixed", [-0.3, 0.4], None, "NONE"), ("mixed-base", [-0.3, 0.4], [0.1], "NONE"),
        ("mixed-logistic", [-0.3, 0.4], None, "LOGISTIC"), ("positive", [0.3, 0.8], None, "NONE"),
        ("positive-logistic", [0.3, 0.8], None, "LOGISTIC"), ("positive-base", [0.3, 0.8], [-0.5], "LOGISTIC"),
    ]:
        node = helper.make_node(
            "TreeEnsembleClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", nodes_treeids=[0] * 3,
            nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0], nodes_values=[0.0, 0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
            class_treeids=[0, 0], class_nodeids=[1, 2], class_ids=[0, 0], class_weights=weights,
            classlabels_int64s=[0, 1], post_transform=transform, **({"base_values": base} if base else {}))
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]
        outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, None),
                   helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)]
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
        made = helper.make_model(helper.make_graph([node], "g", inputs, outputs), ir_version=9, opset_imports=opsets)
        write(f"one-sum-{name}", made, MATRIX)


def rows_and_limits():
    """A graph whose rows depend on each other, a function of large numbers, and categories that no `f64` tells apart."""
    def made(nodes, kind, constants=()):
        inputs = [helper.make_tensor_value_info("x", kind, [None, 4])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
        return helper.make_model(graph, ir_version=9, opset_imports=opsets)

    together = [helper.make_node("Softmax", ["x"], ["s"], axis=0), helper.make_node("Add", ["s", "x"], ["y"])]
    write("rows-together", made(together, TensorProto.FLOAT), MATRIX, each_alone=True)
    hundred = numpy_helper.from_array(np.array([100], np.float32), "hundred")
    large = [helper.make_node("Mul", ["x", "hundred"], ["s"]), helper.make_node("Softplus", ["s"], ["y"])]
    write("large-softplus", made(large, TensorProto.FLOAT, [hundred]), MATRIX)
    one_hot = helper.make_node("OneHotEncoder", ["x"], ["y"], domain="ai.onnx.ml", cats_int64s=[2**53, 2**53 + 1])
    refused = made([one_hot], TensorProto.INT64)
    (FOLDER.with_name("hostile") / "large-ids.onnx").write_bytes(refused.SerializeToString())


TYPES = {"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool", "object"}


def node_tests():
    """Small ones only, and none of functions that are another operator's."""
    folder = pathlib.Path(onnx.__file__).parent / "backend/test/data/node"
    found = {}
    for case in sorted(folder.iterdir()):
        name = case.name.removeprefix("test_")
        if not name.startswith(KINDS) or "expanded" in name or "example" in name and "_ml_" not in name:
            continue
        model = onnx.load(case / "model.onnx")
        if any(not kind.type.HasField("tensor_type") for kind in [*model.graph.input, *model.graph.output]):
            continue
        data, kept = case / "test_data_set_0", {}
        for side in ["input", "output"]:
            paths = sorted(data.glob(f"{side}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
            kept[side] = []
            for path in paths:
                tensor = TensorProto()
                tensor.ParseFromString(path.read_bytes())
                kept[side].append(value(numpy_helper.to_array(tensor)))
        kinds = {kind["type"] for side in kept.values() for kind in side}
        size = sum(len(kind["values"]) for side in kept.values() for kind in side)
        if "_ml_" in name or (size <= 130 and kinds <= TYPES):
            found[name] = {"model": (case / "model.onnx").read_bytes().hex(), **kept}
    lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in found.items()]
    (FOLDER / "nodes.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(found), "node tests")


shutil.rmtree(FOLDER, ignore_errors=True)
FOLDER.mkdir(parents=True)
tables()
estimators()
maps()
boosted()
single()
one_sum()
rows_and_limits()
node_tests()
onnx_flow.main()
