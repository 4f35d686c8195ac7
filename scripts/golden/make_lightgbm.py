"""Golden predictions of LightGBM: tiny models that the library trains and saves, with what it predicts from them.

    python3 -m venv venv && venv/bin/pip install -r requirements-lightgbm.txt && venv/bin/python make_lightgbm.py
    (the same with requirements-lightgbm-3.3.txt)

Writes to crates/engine/tests/golden/lightgbm-<major.minor>/ the inputs of all models as rows.json (null is a
missing value), those of models with categories as codes.json, each model as <name>.txt, and what the library
predicts after loading that file as <name>.expected.json, f64 printed so that they read back exactly.
<name>.part.json are the predictions of the iterations 1 and 2 alone, counted from 0.
"""

import json
import pathlib
import shutil

import lightgbm as lgb
import numpy as np
import pandas as pd

VERSION = ".".join(lgb.__version__.split(".")[:2])
FOLDER = pathlib.Path(__file__).resolve().parents[2] / f"crates/engine/tests/golden/lightgbm-{VERSION}"
WIDTH, TRAIN, TEST = 5, 300, 16
COMMON = {
    "num_leaves": 6, "learning_rate": 0.4, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1,
    "seed": 1, "deterministic": True, "force_row_wise": True, "min_data_per_group": 5, "cat_smooth": 1,
}


def make_data(seed=7):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TRAIN, WIDTH))
    x[:, 1] = np.round(x[:, 1] * 2)  # ties, so that test rows hit thresholds exactly
    x[:, 2] = np.abs(x[:, 2]) * 1000
    x[:, 4] = x[:, 4] > 0
    x[rng.random(TRAIN) < 0.3, 3] = 0
    score = x[:, 0] + 0.7 * x[:, 1] - x[:, 2] / 800 + x[:, 0] * x[:, 4] + (x[:, 3] == 0)
    full = x.copy()
    # Whether a value is missing tells something, so that both default directions are learned.
    x[rng.random(x.shape) < np.where(score > 0, 0.25, 0.08)[:, None]] = np.nan
    return x, full, score + rng.normal(scale=0.3, size=TRAIN), rng


X, FULL, SCORE, RNG = make_data()
BINARY = (SCORE > 0).astype(int)
CLASSES = np.digitize(SCORE, [-1.5, 0.3])
POSITIVE = np.exp(SCORE / 2)
EDGES = [0, np.nan, -0.0, 1e-36, -1e-36, 1e-35, -2e-35, 1e300, -1e300]
ROWS = np.concatenate([X[:TEST], *(np.full((1, WIDTH), edge) for edge in EDGES)])


def write_numbers(path, values):
    rows = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    path.write_text(json.dumps(rows, separators=(",", ":")) + "\n")


def save(name, booster, rows=ROWS, part=False, **options):
    path = FOLDER / f"{name}.txt"
    booster.save_model(path, **options)
    loaded = lgb.Booster(model_file=str(path))
    predicted = loaded.predict(rows)
    write_numbers(FOLDER / f"{name}.expected.json", predicted.reshape(len(rows), -1))
    if part:
        predicted = loaded.predict(rows, start_iteration=1, num_iteration=2)
        write_numbers(FOLDER / f"{name}.part.json", predicted.reshape(len(rows), -1))


def train(name, label, parameters, rounds=3, x=X, part=False, group=None, **dataset):
    data = lgb.Dataset(x, label, group=group, free_raw_data=False, **dataset)
    booster = lgb.train({**COMMON, **parameters}, data, rounds)
    save(name, booster, part=part)
    return booster


def regressions():
    for objective in ["regression", "regression_l1", "huber", "fair", "quantile", "mape"]:
        train(objective, SCORE, {"objective": objective, "alpha": 0.7})
    for objective in ["poisson", "gamma", "tweedie"]:
        train(objective, POSITIVE, {"objective": objective})
    train("regression-sqrt", SCORE, {"objective": "regression", "reg_sqrt": True})
    train("regression_l1-sqrt", SCORE, {"objective": "regression_l1", "reg_sqrt": True})
    unit = 1 / (1 + np.exp(-SCORE))
    for objective in ["cross_entropy", "cross_entropy_lambda"]:
        train(objective, unit, {"objective": objective})
    for objective in ["lambdarank", "rank_xendcg"]:
        train(objective, BINARY, {"objective": objective}, group=[TRAIN // 10] * 10)


def classifications():
    train("binary", BINARY, {"objective": "binary"}, part=True)
    train("binary-sigmoid", BINARY, {"objective": "binary", "sigmoid": 0.7})
    train("multiclass", CLASSES, {"objective": "multiclass", "num_class": 3}, part=True)
    train("multiclassova", CLASSES, {"objective": "multiclassova", "num_class": 3, "sigmoid": 0.7})


def customs():
    """Objectives that the file does not have: the model gives the sums of its leaves."""
    def squared(predicted, data):
        return predicted - data.get_label(), np.ones_like(predicted)

    def softmax(predicted, data):
        exponents = np.exp(predicted.reshape(-1, 3, order="F"))
        share = exponents / exponents.sum(axis=1, keepdims=True)
        gradient = share - np.eye(3)[data.get_label().astype(int)]
        if VERSION == "3.3":
            return gradient.ravel(order="F"), (share * (1 - share)).ravel(order="F")
        return gradient, share * (1 - share)

    def fit(parameters, label, objective):
        data = lgb.Dataset(X, label)
        if VERSION == "3.3":
            return lgb.train({**COMMON, **parameters, "objective": "none"}, data, 3, fobj=objective)
        return lgb.train({**COMMON, **parameters, "objective": objective}, data, 3)

    save("custom", fit({}, SCORE, squared))
    save("custom-classes", fit({"num_class": 3}, CLASSES, softmax))


def boosters():
    for objective, label in [("binary", BINARY), ("multiclass", CLASSES)]:
        classes = {"num_class": 3} if objective == "multiclass" else {}
        dart = {"boosting": "dart", "drop_rate": 0.5, "skip_drop": 0.2}
        train(f"dart-{objective}", label, {"objective": objective, **classes, **dart}, rounds=6)
        forest = {"boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1}
        train(f"rf-{objective}", label, {"objective": objective, **classes, **forest}, part=True)
    train("rf-regression", SCORE, {"objective": "regression", **forest}, part=True)
    train("goss", BINARY, {"objective": "binary", "boosting": "goss"}, rounds=4)


def missing():
    """All ways to take a missing value, in the same data."""
    regression = {"objective": "regression", "num_leaves": 12}
    train("missing-none", SCORE, regression, x=FULL)
    train("missing-zero", SCORE, {**regression, "zero_as_missing": True})
    train("missing-zero-full", SCORE, {**regression, "zero_as_missing": True}, x=FULL)
    train("missing-unused", SCORE, {**regression, "use_missing": False})
    # Trees of both kinds in one model.
    first = lgb.train({**COMMON, **regression}, lgb.Dataset(X, SCORE, free_raw_data=False), 2)
    zero = {**COMMON, **regression, "zero_as_missing": True}
    save("missing-mixed", lgb.train(zero, lgb.Dataset(X, SCORE), 3, init_model=first))


def shapes():
    """What is special about the trees rather than the objective."""
    train("deep", SCORE, {"objective": "regression", "num_leaves": 40, "min_data_in_leaf": 1}, rounds=2)
    train("constant", np.full(TRAIN, 0.3), {"objective": "regression"})
    train("monotone", SCORE, {"objective": "regression", "monotone_constraints": [1, 0, -1, 0, 0]})
    names = ["a", "größe", "c_d", "e'f", "Column_4"]
    train("named", BINARY, {"objective": "binary"}, feature_name=names)


def linear():
    tree = {"linear_tree": True, "linear_lambda": 0.1}
    train("linear", SCORE, {"objective": "regression", **tree})
    train("linear-full", SCORE, {"objective": "regression", **tree}, x=FULL)
    train("linear-binary", BINARY, {"objective": "binary", **tree})
    train("linear-multiclass", CLASSES, {"objective": "multiclass", "num_class": 3, **tree})
    train("linear-constant", np.full(TRAIN, 0.3), {"objective": "regression", **tree})


def early_stopping():
    """The library saves the iterations up to the best one, unless it is told otherwise."""
    noisy = SCORE + RNG.normal(size=TRAIN)
    train_set = lgb.Dataset(X[:200], noisy[:200])
    valid_set = lgb.Dataset(X[200:], noisy[200:], reference=train_set)
    parameters = {**COMMON, "objective": "regression", "early_stopping_round": 3, "learning_rate": 0.3}
    # Otherwise the iterations after the best one are dropped at once.
    keep = {"keep_training_booster": True}
    booster = lgb.train(parameters, train_set, 40, valid_sets=[valid_set], **keep)
    assert 3 < booster.best_iteration < booster.current_iteration()
    save("best-iteration", booster)
    save("best-iteration-all", booster, part=True, num_iteration=-1)


def categories():
    """Categorical columns of pandas, and codes without names; rows of codes, some of which are none."""
    rng = np.random.default_rng(3)
    towns = ["Vigo", "nowhere", "Lugo", "A Coruña", "Ferrol", "Ourense", 'Tui "x"']
    table = pd.DataFrame({
        "town": pd.Categorical(rng.choice([towns[0], *towns[2:]], TRAIN), categories=towns),
        "age": X[:, 0],
        "level": pd.Categorical(rng.choice([30, 10, 20], TRAIN), categories=[30, 10, 20]),
        "new": pd.Categorical(rng.random(TRAIN) < 0.5),
        "share": pd.Categorical(rng.choice([0.5, 2.0], TRAIN)),
        "code": rng.choice([0, 3, 7, 40, 900], TRAIN),
    })
    table.loc[rng.random(TRAIN) < 0.1, "town"] = None
    frame = table.assign(**{name: table[name].cat.codes for name in ["town", "level", "new", "share"]})
    label = (
        frame["town"] % 3 + frame["level"] * np.nan_to_num(X[:, 2]) / 1000 + frame["new"] + frame["share"]
        + (frame["code"] == 7)
    ).to_numpy()
    codes = frame.astype(float).to_numpy()
    codes[codes[:, 0] < 0, 0] = np.nan
    edges = np.tile(codes[0], (8, 1))
    edges[:, 0] = edges[:, 5] = [-1, -0.5, 2.9, 6, 7, 1e9, 3e9, np.nan]
    codes = np.concatenate([codes[:TEST], edges])
    write_numbers(FOLDER / "codes.json", codes)
    named = table.drop(columns="code")
    regression = {"objective": "regression"}
    for name, parameters, label_, data, columns in [
        ("one-hot", {**regression, "max_cat_to_onehot": 100}, label, named, "auto"),
        ("sets", {**regression, "max_cat_to_onehot": 1}, label, named, "auto"),
        ("sets-binary", {"objective": "binary", "boosting": "dart"}, label > 2, named, "auto"),
        ("sets-linear", {**regression, "linear_tree": True}, label, named, "auto"),
        ("codes", {**regression, "max_cat_to_onehot": 1}, label, frame.clip(lower=0), ["town", "code"]),
        ("some-named", regression, label, table, ["town", "level", "new", "share", "code"]),
    ]:
        booster = lgb.train(
            {**COMMON, **parameters}, lgb.Dataset(data, label_, categorical_feature=columns), 4
        )
        path = FOLDER / f"category-{name}.txt"
        booster.save_model(path)
        loaded = lgb.Booster(model_file=str(path))
        predicted = loaded.predict(codes[:, : data.shape[1]])
        write_numbers(path.with_suffix(".expected.json"), predicted.reshape(len(codes), -1))
        # What the library makes of the names is what it makes of their codes.
        assert (loaded.predict(data[:TEST]) == predicted[:TEST]).all() or name == "codes"


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    write_numbers(FOLDER / "rows.json", ROWS)
    regressions()
    classifications()
    customs()
    boosters()
    missing()
    shapes()
    linear()
    early_stopping()
    categories()


if __name__ == "__main__":
    main()
