"""Golden predictions: tiny models trained by XGBoost itself, with what it predicts from them.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py
    (the same with requirements-2.1.txt, requirements-1.7.txt and, in Python 3.12 or newer, requirements-3.4.txt)

Writes to crates/engine/tests/golden/<major.minor>/ the inputs of all models as rows.json (null is
a missing value), each model as <name>.json or .ubj or both, and its predictions for the rows as
<name>.expected.json, f32 printed so that they read back exactly. 3.2 also makes mean-score/. Models with categorical features are in
categories-<major.minor>/, with rows of codes, and what the example in docs/OPERATIONS.md makes in
crates/inference/tests/data/homes-<major.minor>.json.
"""

import contextlib
import json
import pathlib
import shutil
import tempfile

import numpy as np
import pandas as pd
import xgboost as xgb

VERSION = ".".join(xgb.__version__.split(".")[:2])
ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "crates/engine/tests/golden"
WIDTH = 5
TRAIN, TEST = 200, 16


def make_data(seed=7):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TRAIN, WIDTH)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1] * 2)  # ties, so that test rows hit thresholds exactly
    x[:, 2] = np.abs(x[:, 2]) * 1000
    x[:, 4] = (x[:, 4] > 0).astype(np.float32)
    score = x[:, 0] + 0.7 * x[:, 1] - x[:, 2] / 800 + x[:, 0] * x[:, 4]
    # Whether a value is missing tells something, so that both default directions are learned.
    x[rng.random(x.shape) < np.where(score > 0, 0.25, 0.08)[:, None]] = np.nan
    return x, score + rng.normal(scale=0.3, size=TRAIN), rng


X, SCORE, RNG = make_data()
BINARY = (SCORE > 0).astype(int)
CLASSES = np.digitize(SCORE, [-1.5, 0.3])
POSITIVE = np.exp(SCORE / 2).astype(np.float32)
ROWS = np.concatenate([X[: TEST - 2], np.zeros((1, WIDTH)), np.full((1, WIDTH), np.nan)]).astype(
    np.float32
)


def write_numbers(path, values):
    rows = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    path.write_text(json.dumps(rows, separators=(",", ":")) + "\n")


def save(name, booster, expected, formats=("json",)):
    folder = GOLDEN / VERSION
    for format in formats:
        booster.save_model(folder / f"{name}.{format}")
    expected = np.asarray(expected, dtype=np.float32).reshape(len(ROWS), -1)
    write_numbers(folder / f"{name}.expected.json", expected)


def train(name, label, parameters, rounds=3, formats=("json",), matrix=None):
    parameters = {"max_depth": 2, "eta": 0.7, "seed": 1, "nthread": 1, **parameters}
    matrix = matrix or xgb.DMatrix(X, label=label)
    booster = xgb.train(parameters, matrix, num_boost_round=rounds)
    names = {"feature_names": booster.feature_names, "feature_types": booster.feature_types}
    save(name, booster, booster.predict(xgb.DMatrix(ROWS, **names)), formats)
    return booster


def regressions():
    for objective in ["squarederror", "pseudohubererror"]:
        train(f"reg-{objective}", SCORE, {"objective": f"reg:{objective}"})
    train("reg-squaredlogerror", POSITIVE, {"objective": "reg:squaredlogerror"})
    train("reg-logistic", BINARY, {"objective": "reg:logistic"})
    train("reg-gamma", POSITIVE, {"objective": "reg:gamma"})
    train("reg-tweedie", POSITIVE, {"objective": "reg:tweedie", "tweedie_variance_power": 1.3})
    train("count-poisson", np.round(POSITIVE), {"objective": "count:poisson"})
    train("reg-absoluteerror", SCORE, {"objective": "reg:absoluteerror"})
    train("survival-cox", POSITIVE, {"objective": "survival:cox"})
    if VERSION != "1.7":
        quantiles = {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.5, 0.8]}
        train("reg-quantileerror", SCORE, quantiles)
    targets = np.stack([SCORE, -SCORE / 2, POSITIVE], axis=1)
    train("reg-multi-target", targets, {"objective": "reg:squarederror"})
    matrix = xgb.DMatrix(X)
    matrix.set_float_info("label_lower_bound", POSITIVE)
    matrix.set_float_info("label_upper_bound", POSITIVE * 1.5)
    train("survival-aft", None, {"objective": "survival:aft"}, matrix=matrix)
    for objective in ["pairwise", "ndcg", "map"]:
        matrix = xgb.DMatrix(X, label=BINARY)
        matrix.set_group([TRAIN // 8] * 8)
        train(f"rank-{objective}", None, {"objective": f"rank:{objective}"}, matrix=matrix)


def classifications():
    both = ("json", "ubj")
    train("binary-logistic", BINARY, {"objective": "binary:logistic"}, formats=both)
    train("binary-logistic-base", BINARY, {"objective": "binary:logistic", "base_score": 0.2})
    train("binary-logitraw", BINARY, {"objective": "binary:logitraw"})
    train("binary-logitraw-base", BINARY, {"objective": "binary:logitraw", "base_score": 0.2})
    train("binary-hinge", BINARY, {"objective": "binary:hinge"})
    for objective in ["softprob", "softmax"]:
        parameters = {"objective": f"multi:{objective}", "num_class": 3}
        train(f"multi-{objective}", CLASSES, parameters, formats=both)
    labels = np.stack([BINARY, CLASSES == 1], axis=1)
    train("binary-multi-label", labels, {"objective": "binary:logistic"})


def shapes():
    """What is special about the trees rather than the objective."""
    forest = {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2, "subsample": 0.5}
    train("parallel-trees", CLASSES, forest, rounds=2, formats=("ubj",))
    deep = {"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 40, "tree_method": "hist"}
    train("lossguide", SCORE, {"objective": "reg:squarederror", "min_child_weight": 0, **deep}, rounds=2)
    train("stumps", SCORE, {"objective": "reg:squarederror", "gamma": 1e9})
    train("pruned", SCORE, {"objective": "reg:squarederror", "gamma": 15, "max_depth": 5, "tree_method": "exact"})
    matrix = xgb.DMatrix(
        X, BINARY, feature_names=["a", "größe", "c d", 'quo"te', "e"],
        feature_types=["float", "int", "q", "float", "i"],
    )
    train("named", None, {"objective": "binary:logistic"}, formats=("json", "ubj"), matrix=matrix)


def vectors():
    """Leaves that hold a number for each output."""
    vector = {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
    targets = np.stack([SCORE, -SCORE / 2, POSITIVE], axis=1)
    train("vector-regression", targets, {"objective": "reg:squarederror", **vector}, formats=("json", "ubj"))
    train("vector-classes", CLASSES, {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, **vector})


def since_3_4():
    """Expectiles, quantiles that are put in order, and what a file has several intercepts for."""
    for name, alpha in [("expectiles", [0.1, 0.5, 0.9]), ("expectile", [0.7])]:
        train(name, SCORE, {"objective": "reg:expectileerror", "expectile_alpha": alpha}, formats=("json", "ubj"))
    vector = {"multi_strategy": "multi_output_tree", "tree_method": "hist"}
    train("expectiles-vector", SCORE, {"objective": "reg:expectileerror", "expectile_alpha": [0.2, 0.8], **vector})
    # One intercept for all, so that they begin at the least distance.
    train("expectiles-base", SCORE, {"objective": "reg:expectileerror", "expectile_alpha": [0.2, 0.8], "base_score": 0.3})
    wild = {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9], "max_depth": 4, "eta": 1.0}
    booster = train("quantiles-that-cross", SCORE, wild, rounds=4)
    margins = booster.predict(xgb.DMatrix(ROWS), output_margin=True)
    assert (np.diff(margins, axis=1) < 0).any()
    classes = {"objective": "multi:softprob", "num_class": 3}
    train("base-scores", CLASSES, {**classes, "base_score": [0.2, 0.5, 0.3]})
    dart = {"booster": "dart", "rate_drop": 0.5, "one_drop": 1}
    train("vector-dart", CLASSES, {**classes, **vector, **dart}, rounds=5)
    train("vector-parallel", CLASSES, {**classes, **vector, "num_parallel_tree": 2, "subsample": 0.5})


def boosters():
    dart = {"booster": "dart", "rate_drop": 0.5, "one_drop": 1}
    train("dart-binary", BINARY, {"objective": "binary:logistic", **dart}, rounds=6, formats=("json", "ubj"))
    train("dart-multi", CLASSES, {"objective": "multi:softprob", "num_class": 3, **dart}, formats=("ubj",))
    linear = {"booster": "gblinear", "updater": "coord_descent", "eta": 0.5}
    both = ("json", "ubj")
    train("linear-binary", BINARY, {"objective": "binary:logistic", **linear}, formats=both)
    train("linear-multi", CLASSES, {"objective": "multi:softprob", "num_class": 3, **linear}, formats=both)
    train("linear-regression", SCORE, {"objective": "reg:squarederror", **linear}, formats=both)


def early_stopping():
    """The scikit-learn wrapper predicts with the best iteration that the file remembers."""
    shuffled = RNG.permutation(SCORE)  # nothing to learn: the best iteration is early
    noisy = SCORE + 2 * shuffled
    model = xgb.XGBRegressor(
        n_estimators=12, max_depth=2, learning_rate=0.9, early_stopping_rounds=3, n_jobs=1,
    )
    model.fit(X[:150], noisy[:150], eval_set=[(X[150:], noisy[150:])], verbose=False)
    booster = model.get_booster()
    assert model.best_iteration + 1 < booster.num_boosted_rounds()
    save("best-iteration", booster, model.predict(ROWS))


def degenerate():
    """Labels that are all alike, so that the intercept is at the end of its range."""
    zeros, ones = np.zeros(TRAIN), np.ones(TRAIN)
    for name, label, objective in [
        ("poisson-zeros", zeros, "count:poisson"),
        ("logistic-zeros", zeros, "binary:logistic"),
        ("logistic-ones", ones, "binary:logistic"),
        ("softprob-one-class", zeros, "multi:softprob"),
    ]:
        classes = {"num_class": 3} if objective.startswith("multi") else {}
        train(name, label, {"objective": objective, **classes})


def unfitted():
    """Models whose intercept nobody set and the library has not estimated."""
    def zero_gradient(margins, matrix):
        return np.zeros_like(margins), np.ones_like(margins)

    for name, label, parameters, custom in [
        ("logistic", BINARY, {"objective": "binary:logistic"}, None),
        ("hinge", BINARY, {"objective": "binary:hinge"}, None),
        ("squarederror", SCORE, {"objective": "reg:squarederror"}, None),
        ("poisson", np.round(POSITIVE), {"objective": "count:poisson"}, None),
        ("softprob", CLASSES, {"objective": "multi:softprob", "num_class": 3}, None),
        ("dart", BINARY, {"objective": "binary:logistic", "booster": "dart"}, None),
        ("linear", BINARY, {"objective": "binary:logistic", "booster": "gblinear"}, None),
        ("custom-logistic", BINARY, {"objective": "binary:logistic"}, zero_gradient),
        ("custom-poisson", np.round(POSITIVE), {"objective": "count:poisson"}, zero_gradient),
    ]:
        rounds = 1 if custom else 0
        booster = xgb.train({"nthread": 1, **parameters}, xgb.DMatrix(X, label), rounds, obj=custom)
        save(f"unfitted-{name}", booster, booster.predict(xgb.DMatrix(ROWS)))


def categories():
    """Categorical columns of pandas, of texts and of numbers, with categories that no row has."""
    folder = GOLDEN / f"categories-{VERSION}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    towns = ["Vigo", "nowhere", "Lugo", "A Coruña", "Ferrol", "Ourense", "Tui"]
    table = pd.DataFrame({
        "town": pd.Categorical(rng.choice([towns[0], *towns[2:]], TRAIN), categories=towns),
        "level": pd.Categorical(rng.choice([30, 10, 20], TRAIN), categories=[30, 10, 20]),
        "age": X[:, 0],
    })
    table.loc[rng.random(TRAIN) < 0.1, "town"] = None
    label = table["town"].cat.codes % 3 + table["level"].cat.codes * np.nan_to_num(X[:, 2]) / 1000
    codes = table.assign(town=table["town"].cat.codes, level=table["level"].cat.codes)
    write_numbers(folder / "rows.json", codes[:TEST].astype(float).replace(-1.0, np.nan).to_numpy())
    matrix = xgb.DMatrix(table, enable_categorical=True)
    rows = xgb.DMatrix(table[:TEST], enable_categorical=True)
    common = {"max_depth": 4, "nthread": 1, "tree_method": "hist", "min_child_weight": 0}
    label_of_sets = label
    classes = np.digitize(label, [0.7, 1.8])
    for name, parameters, label in [
        ("sets", {"max_cat_to_onehot": 1}, label),
        ("one-hot", {"max_cat_to_onehot": 100}, label),
        ("binary", {"objective": "binary:logistic"}, label > 1),
        ("multi", {"objective": "multi:softprob", "num_class": 3}, classes),
        ("dart", {"booster": "dart", "rate_drop": 0.5, "one_drop": 1, "max_cat_to_onehot": 1}, label),
    ]:
        matrix.set_label(label)
        booster = xgb.train({**common, **parameters}, matrix, 4)
        for format in "json", "ubj":
            booster.save_model(folder / f"{name}.{format}")
        expected = np.asarray(booster.predict(rows), dtype=np.float32).reshape(TEST, -1)
        write_numbers(folder / f"{name}.expected.json", expected)
        if name == "sets":
            sets = expected
    # The same with names that the library can write.
    table["town"] = table["town"].cat.rename_categories({"A Coruña": "Corunna"})
    matrix = xgb.DMatrix(table, label_of_sets, enable_categorical=True)
    booster = xgb.train({**common, "max_cat_to_onehot": 1}, matrix, 4)
    for format in "json", "ubj":
        booster.save_model(folder / f"ascii.{format}")
    write_numbers(folder / "ascii.expected.json", sets)


def documented():
    """The Python of docs/OPERATIONS.md, as it stands there."""
    text = (ROOT / "docs/OPERATIONS.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    names = {}
    data = ROOT / "crates/inference/tests/data"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(code, names)
        shutil.copy("model.json", data / f"homes-{VERSION}.json")
    towns = names["homes"]["town"].astype(object).where(names["homes"]["town"].notna(), None)
    rows = [
        {"town": town, "rooms": int(rooms), "expected": float(expected)}
        for town, rooms, expected in zip(towns, names["homes"]["rooms"], names["expected"])
    ]
    (data / f"homes-{VERSION}.rows.json").write_text(json.dumps(rows, indent=1) + "\n")


def mean_score():
    """Logistic of the mean of four unnamed features, as a gblinear model."""
    folder = GOLDEN / "mean-score"
    folder.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    matrix = xgb.DMatrix(x, label=(x.mean(axis=1) > 0).astype(int))
    parameters = {
        "booster": "gblinear", "objective": "binary:logistic", "base_score": 0.5, "nthread": 1,
        "updater": "coord_descent",
    }
    booster = xgb.train(parameters, matrix, num_boost_round=1)
    document = json.loads(booster.save_raw("json"))
    model = document["learner"]["gradient_booster"]["model"]
    assert len(model["weights"]) == 5
    model["weights"] = [0.25] * 4 + [0.0]
    booster = xgb.Booster(model_file=bytearray(json.dumps(document).encode()))
    booster.save_model(folder / "model.ubj")
    loaded = xgb.Booster(model_file=folder / "model.ubj")
    rows = np.array([[0.5, 1.2, -0.3, 0.8], [-1, -0.5, -2, -1.5], [2, 1.5, 3, 2.5]], dtype=np.float32)
    assert np.allclose(loaded.predict(xgb.DMatrix(rows)), [0.6341, 0.2227, 0.9047], atol=5e-5)


def main():
    shutil.rmtree(GOLDEN / VERSION, ignore_errors=True)
    (GOLDEN / VERSION).mkdir(parents=True)
    write_numbers(GOLDEN / VERSION / "rows.json", ROWS)
    regressions()
    classifications()
    shapes()
    if VERSION != "1.7":
        vectors()
    boosters()
    early_stopping()
    degenerate()
    unfitted()
    categories()
    documented()
    if VERSION == "3.4":
        since_3_4()
    if VERSION == "3.2":
        mean_score()


if __name__ == "__main__":
    main()
