"""Golden predictions of tiny models trained by CatBoost itself.

    python3 -m venv venv && venv/bin/pip install -r requirements-catboost.txt
    venv/bin/python catboost_models.py

Writes to crates/engine/tests/golden/catboost/ each model as <name>.cbm and as <name>.json, and as
<name>.expected.json the rows it was asked about (null is a missing value, a text is a category), the
sums of the leaves ("raw"), and what the library's classifier or regressor answers ("answer").
"""

import json
import pathlib
import shutil

import catboost
import numpy as np
import pandas as pd
from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor, Pool

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/catboost"
COMMON = {"iterations": 4, "depth": 3, "verbose": False, "allow_writing_files": False, "thread_count": 1}
TRAIN, TEST = 200, 24


def make_data():
    rng = np.random.default_rng(11)
    x = rng.normal(size=(TRAIN, 5)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1] * 2)  # ties, so that test rows hit borders exactly
    x[:, 4] = (x[:, 4] > 0).astype(np.float32)
    score = x[:, 0] + 0.7 * x[:, 1] + x[:, 2] * x[:, 4] - 0.3 * x[:, 3]
    x[rng.random(x.shape) < np.where(score > 0, 0.25, 0.08)[:, None]] = np.nan
    x[:, 3] = np.nan_to_num(x[:, 3])  # training sees no missing value here
    return x, score + rng.normal(scale=0.3, size=TRAIN)


X, SCORE = make_data()
RNG = np.random.default_rng(12)
BINARY = (SCORE > 0).astype(int)
CLASSES = np.digitize(SCORE, [-1.5, 0.3])
POSITIVE = np.exp(SCORE / 2)
ROWS = np.concatenate([
    X[: TEST - 6], np.zeros((1, 5)), np.full((1, 5), np.nan), np.full((1, 5), np.inf), np.full((1, 5), -np.inf),
    np.full((1, 5), 1e300), np.full((1, 5), 1e-300),
])


def listed(values):
    """As JSON, with null for a missing value and texts for what JSON has no number for."""
    def one(value):
        if isinstance(value, (str, int)):
            return value
        value = float(value)
        return None if np.isnan(value) else str(value) if np.isinf(value) else value
    return [[one(value) for value in row] for row in values]


def answer(model, rows, count):
    if isinstance(model, CatBoostClassifier):
        return model.predict_proba(rows)
    return np.asarray(model.predict(rows)).reshape(count, -1)


def save(name, model, rows=ROWS, shown=None, pool=None):
    # When it was trained and by whose build of the library does not belong here.
    metadata = model.get_metadata()
    for key in "train_finish_time", "model_guid", "catboost_version_info", "output_options", "training":
        if key in metadata:
            del metadata[key]
    model.save_model(str(GOLDEN / f"{name}.cbm"))
    model.save_model(str(GOLDEN / f"{name}.json"), format="json", pool=pool)
    shown = rows if shown is None else shown
    raw = np.asarray(model.predict(rows, prediction_type="RawFormulaVal")).reshape(len(shown), -1)
    expected = {"rows": listed(shown), "raw": listed(raw), "answer": listed(answer(model, rows, len(shown)))}
    (GOLDEN / f"{name}.expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


def train(name, kind, label, **parameters):
    model = kind(**{**COMMON, **parameters}).fit(X, label)
    save(name, model)
    return model


def regressions():
    train("rmse", CatBoostRegressor, SCORE)
    train("quantile", CatBoostRegressor, SCORE, loss_function="Quantile:alpha=0.3")
    train("poisson", CatBoostRegressor, np.round(POSITIVE), loss_function="Poisson")
    train("tweedie", CatBoostRegressor, POSITIVE, loss_function="Tweedie:variance_power=1.5")
    train("uncertainty", CatBoostRegressor, SCORE, loss_function="RMSEWithUncertainty")
    train("multi-rmse", CatBoostRegressor, np.stack([SCORE, -SCORE / 2, POSITIVE], 1), loss_function="MultiRMSE")
    train("multi-quantile", CatBoostRegressor, SCORE, loss_function="MultiQuantile:alpha=0.2,0.8")


    # Whose predictions are the sums themselves, as of those above.
    few = {"iterations": 1, "depth": 2}
    for loss in ["MAE", "MAPE", "Expectile:alpha=0.3", "LogLinQuantile:alpha=0.4", "Lq:q=3", "Huber:delta=1", "LogCosh"]:
        train(f"loss-{loss.split(':')[0].lower()}", CatBoostRegressor, POSITIVE, loss_function=loss, **few)
    bounds = np.stack([POSITIVE, np.where(BINARY, POSITIVE * 1.5, -1)], 1)
    train("loss-survivalaft", CatBoostRegressor, bounds, loss_function="SurvivalAft:dist=Logistic", **few)
    train("loss-cox", CatBoostRegressor, np.where(BINARY, POSITIVE, -POSITIVE), loss_function="Cox", **few)
    gaps = np.where(RNG.random((TRAIN, 2)) < 0.2, np.nan, np.stack([SCORE, POSITIVE], 1))
    train("loss-multirmsewithmissingvalues", CatBoostRegressor, gaps, loss_function="MultiRMSEWithMissingValues", **few)


def rankings():
    """The losses of groups; QueryCrossEntropy is trained on GPUs alone."""
    groups = {"group_id": np.arange(TRAIN) // 10}
    pairs = [[first, first + 1] for first in range(0, TRAIN, 10)]
    for loss in [
        "YetiRankPairwise", "QueryRMSE", "QuerySoftMax", "PairLogit", "PairLogitPairwise", "StochasticFilter",
        "StochasticRank:metric=NDCG", "LambdaMart", "GroupQuantile",
    ]:
        pool = Pool(X, CLASSES / 2, **groups, pairs=pairs if loss.startswith("Pair") else None)
        model = CatBoost({**COMMON, "iterations": 1, "depth": 2, "loss_function": loss}).fit(pool)
        save(f"loss-{loss.split(':')[0].lower()}", model)


def classifications():
    unsure = np.stack([BINARY * 0.9, (CLASSES == 1) * 0.8], 1)
    train("multi-cross-entropy", CatBoostClassifier, unsure, loss_function="MultiCrossEntropy")
    train("logloss", CatBoostClassifier, np.array(["no", "yes"])[BINARY])
    train("cross-entropy", CatBoostClassifier, BINARY * 0.9, loss_function="CrossEntropy")
    train("focal", CatBoostClassifier, BINARY, loss_function="Focal:focal_alpha=0.5;focal_gamma=1.0")
    train("multiclass", CatBoostClassifier, CLASSES + 5)
    train("one-vs-all", CatBoostClassifier, np.array(["low", "middle", "high"])[CLASSES],
          loss_function="MultiClassOneVsAll")
    labels = np.stack([BINARY, CLASSES == 1, CLASSES > 0], 1).astype(int)
    train("multi-logloss", CatBoostClassifier, labels, loss_function="MultiLogloss")
    model = train("threshold", CatBoostClassifier, BINARY, iterations=1)
    model.set_probability_threshold(0.3)
    save("threshold", model)


def shapes():
    """What is special about the trees rather than the loss."""
    for policy in "Depthwise", "Lossguide":
        name = policy.lower()
        train(f"{name}-binary", CatBoostClassifier, BINARY, grow_policy=policy, min_data_in_leaf=5)
        train(f"{name}-multiclass", CatBoostClassifier, CLASSES, grow_policy=policy, min_data_in_leaf=5)
    train("missing-max", CatBoostRegressor, SCORE, nan_mode="Max")
    train("missing-max-lossguide", CatBoostRegressor, SCORE, nan_mode="Max", grow_policy="Lossguide")
    train("depth-10", CatBoostRegressor, SCORE, depth=10, iterations=1)
    train("stumps", CatBoostClassifier, CLASSES, depth=1, iterations=9)
    names = ["a", "größe", "c d", 'quo"te', "e"]
    save("named", CatBoostClassifier(**COMMON).fit(Pool(X, BINARY, feature_names=names)))
    model = train("scaled", CatBoostRegressor, SCORE)
    model.set_scale_and_bias(1.7, -0.3)
    save("scaled", model)
    pairs = Pool(X, BINARY, group_id=np.arange(TRAIN) // 10)
    save("ranking", CatBoost({**COMMON, "loss_function": "YetiRank"}).fit(pairs))
    merged = catboost.sum_models([model, train("rmse", CatBoostRegressor, SCORE)], weights=[0.5, 2.0])
    save("sum", merged)


def make_table():
    """Categories as texts and as whole numbers, and rows with some that training does not have."""
    rng = np.random.default_rng(5)
    towns = ["Vigo", "Lugo", "A Coru\u00f1a", "", "a town whose name is longer than thirty-two bytes", "x" * 150]
    table = pd.DataFrame({
        "town": rng.choice(towns, TRAIN),
        "age": X[:, 0],
        "level": rng.integers(-1, 3, TRAIN),
        "street": rng.integers(0, 40, TRAIN).astype(str),
        "size": X[:, 2],
    })
    rows = table[: TEST - 4].copy()
    rows.loc[len(rows)] = ["nowhere", 0.5, 1, "7", -0.5]
    rows.loc[len(rows)] = ["Vigo", np.nan, 77, "a street", np.nan]
    rows.loc[len(rows)] = ["nowhere", np.inf, 77, "no street", -np.inf]
    rows.loc[len(rows)] = [towns[-1], 0.1, -1, "39", 0.2]
    effect = table["town"].map({town: place for place, town in enumerate(towns)}) % 3
    score = effect + table["level"] * np.nan_to_num(table["age"]) + table["street"].astype(int) % 5 / 2
    return table, rows, score.to_numpy()


def categories():
    table, rows, score = make_table()
    columns = ["town", "level", "street"]
    binary, classes = (score > np.median(score)).astype(int), np.digitize(score, np.quantile(score, [0.3, 0.7]))

    def train(name, kind, label, **parameters):
        pool = Pool(table, label, cat_features=columns)
        model = kind(**{**COMMON, "iterations": 8, **parameters}).fit(pool)
        asked, shown = Pool(rows, cat_features=columns), rows.to_numpy().tolist()
        save(f"categories-{name}", model, asked, shown, pool)
        if name == "default":
            # The same trees in the other form, which the library explains alike.
            model._convert_to_asymmetric_representation()
            save(f"categories-{name}-asymmetric", model, asked, shown, pool)

    train("one-hot", CatBoostClassifier, binary, one_hot_max_size=100)
    train("one-hot-lossguide", CatBoostRegressor, score, one_hot_max_size=100, grow_policy="Lossguide")
    train("default", CatBoostClassifier, np.array(["no", "yes"])[binary])
    train("regression", CatBoostRegressor, score)
    train("multiclass", CatBoostClassifier, classes)
    train("depthwise", CatBoostClassifier, binary, grow_policy="Depthwise")
    train("combinations", CatBoostClassifier, binary, max_ctr_complexity=4, depth=5, one_hot_max_size=4)
    train("target-borders", CatBoostRegressor, score, simple_ctr=["Borders:TargetBorderCount=4"],
          combinations_ctr=["Borders:TargetBorderCount=4"])
    for kind in "Buckets", "BinarizedTargetMeanValue", "Counter":
        ctrs = [f"{kind}:Prior=0.5:Prior=0/1", f"{kind}:CtrBorderCount=7"]
        train(kind.lower(), CatBoostClassifier, classes, simple_ctr=ctrs, combinations_ctr=ctrs)
    # Divisions of several targets, which the library leaves out of its JSON.
    train("multi-rmse", CatBoostRegressor, np.stack([score, -score], 1), loss_function="MultiRMSE")
    labels = np.stack([score > 1, score > 2, score < 0], 1).astype(int)
    train("multi-logloss", CatBoostClassifier, labels, loss_function="MultiLogloss")
    # FloatTargetMeanValue and FeatureFreq are counted on GPUs alone, and then computed like the others.


def booleans():
    """A column of booleans, which are whole numbers to the library, and one of the texts that they become by `str`."""
    rng = np.random.default_rng(9)
    table = pd.DataFrame({
        "flag": rng.random(TRAIN) < 0.4,
        "text": (rng.random(TRAIN) < 0.5).astype(bool).astype(str),
        "size": X[:, 2],
    })
    label = (table["flag"].astype(int) + (table["text"] == "True") + np.nan_to_num(table["size"]) > 1).astype(int)
    rows = table[:TEST]
    shown = [[int(flag), text, size] for flag, text, size in rows.to_numpy().tolist()]
    for name, size in ("booleans", 100), ("booleans-counted", 0):
        model = CatBoostClassifier(**COMMON, one_hot_max_size=size, max_ctr_complexity=1)
        model.fit(table, label, cat_features=["flag", "text"])
        save(f"categories-{name}", model, rows, shown, Pool(table, label, cat_features=["flag", "text"]))


def parts():
    """Some of the trees, as `ntree_start` and `ntree_end` choose them."""
    model = CatBoostRegressor()
    model.load_model(str(GOLDEN / "rmse.cbm"))
    ranges = {}
    for start, end in (0, 2), (1, 3), (3, 4):
        ranges[f"{start}-{end}"] = listed(model.predict(ROWS, ntree_start=start, ntree_end=end).reshape(-1, 1))
    (GOLDEN / "rmse.ranges.json").write_text(json.dumps(ranges, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(parents=True)
    regressions()
    rankings()
    classifications()
    shapes()
    categories()
    booleans()
    parts()
