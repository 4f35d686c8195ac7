"""What scikit-learn does where its steps meet boosters of other libraries, `None`, and whole numbers of more than 53 bits.

    python3 -m venv venv && venv/bin/pip install -r requirements-sklearn.txt
    venv/bin/python make_details.py
    venv/bin/pip install lightgbm==4.6.0 && venv/bin/python make_details.py

Writes to crates/engine/tests/golden/details, for each model a pickle and what the library predicts (predict_proba, or predict
without it) for rows that were not fitted; to golden/details-refused those that cannot be predicted. All data comes from a
seeded generator. An older LightGBM makes only what is different with it.
"""

import json
import pathlib
import pickle
import warnings

import catboost
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import RFE, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

warnings.simplefilter("ignore")

LIGHTGBM = ".".join(lightgbm.__version__.split(".")[:2])
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/details"
REFUSED = FOLDER.with_name("details-refused")
FITTED, ASKED = 300, 16
COUNT = FITTED + ASKED

random = np.random.default_rng(47)
WORDS = "red blue green dog cat fox hen cow elk bee ant bat".split()


def texts(values):
    return pd.Series(values, index=range(len(values)), dtype=object)


def made(count):
    table = pd.DataFrame({
        "kind": texts(random.choice(list("abcdefgh"), count)),
        "tone": texts(random.choice(list("xyz"), count)),
        "size": random.normal(size=count).round(3),
        "stock": random.choice([0.0, 1.0, 2.0], count),
        "words": texts([" ".join(random.choice(WORDS, 3)) for _ in range(count)]),
    })
    likely = (table.kind == "a") | (table["size"] > 0.8) | (table.stock == 0) & (table.tone == "x") | table.words.str.contains("cat")
    return table, (likely ^ (random.random(count) < 0.05)).astype(int)


def with_none(values, share):
    return texts(np.where(random.random(len(values)) < share, None, values))


TABLE, LIKELY = made(COUNT)


def written(value):
    return None if value is None or value != value else value


def save(name, model, table, target):
    fitted = model.fit(table[:FITTED], target[:FITTED])
    rows = table[FITTED:]
    predictions = (fitted.predict_proba if hasattr(fitted, "predict_proba") else fitted.predict)(rows)
    expected = {
        "rows": [[written(value) for value in (row if isinstance(row, list) else [row])] for row in rows.values.tolist()],
        "predictions": np.asarray(predictions).tolist(),
    }
    (FOLDER / f"{name}.pkl").write_bytes(pickle.dumps(fitted))
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / f"{name}.expected.json").write_text(text + "\n")


def refused(name, model, table, target):
    (REFUSED / f"{name}.pkl").write_bytes(pickle.dumps(model.fit(table[:FITTED], target[:FITTED])))


def booster(**options):
    return xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1, **options)


def sparse():
    """What a sparse matrix leaves out is a missing value to XGBoost, and 0 to all others."""
    kinds, numbers = TABLE[["kind", "tone"]], TABLE[["size", "stock"]]
    encoder = OneHotEncoder(handle_unknown="ignore")

    def both(**options):
        parts = [("kinds", encoder, ["kind", "tone"]), ("numbers", "passthrough", ["size", "stock"])]
        return ColumnTransformer(parts, **options)

    def one(name, *steps, table=kinds):
        save(f"sparse-{name}", make_pipeline(*steps), table, LIKELY)

    mixed = TABLE[["kind", "tone", "size", "stock"]]
    one("one-hot", encoder, booster())
    one("one-hot-dense", OneHotEncoder(sparse_output=False), booster())
    one("one-hot-dropped", OneHotEncoder(drop="first"), booster())
    one("one-hot-linear", encoder, booster(booster="gblinear"))
    one("one-hot-missing", both(sparse_threshold=1.0), booster(missing=2.0), table=mixed)
    one("columns", both(sparse_threshold=1.0), booster(), table=mixed)
    one("columns-dense", both(sparse_threshold=0.0), booster(), table=mixed)
    scaled = [StandardScaler(with_mean=False), MaxAbsScaler(), FunctionTransformer(np.log1p, accept_sparse=True), Normalizer()]
    positive = mixed.assign(size=mixed["size"].abs())
    one("scaled", both(sparse_threshold=1.0), *scaled, booster(), table=positive)
    one("selected", both(sparse_threshold=1.0), SelectKBest(k=5), booster(), table=mixed)
    one("eliminated", both(sparse_threshold=1.0), RFE(booster(), n_features_to_select=5), table=mixed)
    one("products", both(sparse_threshold=1.0), PolynomialFeatures(2, interaction_only=True, include_bias=False), booster(), table=mixed)
    one("binary", both(sparse_threshold=1.0), Binarizer(threshold=0.5), booster(), table=mixed)
    one("quantiles", both(sparse_threshold=1.0), QuantileTransformer(n_quantiles=20, output_distribution="normal"), LogisticRegression(), table=positive)
    one("bins", KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), booster(), table=numbers)
    one("bins-dense", KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), booster(), table=numbers)
    one("reduced", encoder, TruncatedSVD(3, random_state=0), booster())
    one("stack", encoder, StackingClassifier([("a", booster()), ("b", LogisticRegression())], cv=2))
    one("stack-passed", encoder, StackingClassifier([("b", LogisticRegression())], booster(), cv=2, passthrough=True))
    one("vote", encoder, VotingClassifier([("a", booster()), ("b", LogisticRegression())], voting="soft"))
    one("bagging", encoder, BaggingClassifier(booster(), 2, max_features=0.6, random_state=0))
    one("calibrated", encoder, CalibratedClassifierCV(booster(), cv=2))
    save("sparse-calibrated-outside", CalibratedClassifierCV(make_pipeline(encoder, booster()), cv=2), kinds, LIKELY)
    words = TABLE.words
    one("tfidf", TfidfVectorizer(), booster(), table=words)
    one("count", CountVectorizer(), TfidfTransformer(sublinear_tf=True), booster(), table=words)
    one("hashed", HashingVectorizer(n_features=16, alternate_sign=False), booster(), table=words)
    one("union", FeatureUnion([("a", CountVectorizer()), ("b", make_pipeline(CountVectorizer(), TruncatedSVD(2, random_state=0)))]), booster(), table=words)
    parts = [("words", TfidfVectorizer(), "words"), ("numbers", StandardScaler(), ["size", "stock"])]
    one("words-and-numbers", ColumnTransformer(parts), booster(), table=TABLE[["words", "size", "stock"]])
    # What the columns of each input add to the margin.
    steps = pickle.loads((FOLDER / "sparse-columns.pkl").read_bytes())
    matrix, sources = steps[0].transform(mixed[FITTED:]), [0] * 8 + [1] * 3 + [2, 3, 4]
    added = steps[1].get_booster().predict(xgboost.DMatrix(matrix), pred_contribs=True)
    by_input = [[float(row[[source == place for source in sources]].sum()) for place in range(5)] for row in added]
    (FOLDER / "sparse-columns.contributions.json").write_text(json.dumps(by_input, separators=(",", ":")) + "\n")
    # Which zeros are written is not known of these.
    refused("sparse-hashed", make_pipeline(HashingVectorizer(n_features=16), booster()), words, LIKELY)
    refused("sparse-splines", make_pipeline(SplineTransformer(sparse_output=True), booster()), numbers, LIKELY)


def decisions():
    """Classifiers of LightGBM have a `decision_function` since 4.7, which some steps prefer to probabilities."""
    numbers = TABLE[["size", "stock"]]
    levels = np.array(["high", "low", "middle"])[np.digitize(numbers["size"] + numbers.stock, [0.5, 1.5])]

    def light(**options):
        return lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, n_jobs=1, verbose=-1, **options)

    def one(name, model, target=LIKELY):
        save(f"decision-{LIGHTGBM}-{name}", model, numbers, target)

    one("sigmoid", CalibratedClassifierCV(light(), cv=2))
    one("sigmoid-3", CalibratedClassifierCV(light(), cv=2), levels)
    if LIGHTGBM < "4.7":
        return
    one("isotonic", CalibratedClassifierCV(light(), cv=2, method="isotonic"))
    one("temperature-3", CalibratedClassifierCV(light(), cv=2, method="temperature"), levels)
    one("random", CalibratedClassifierCV(light(boosting_type="rf", bagging_freq=1, bagging_fraction=0.6), cv=2))
    one("one-by-one", CalibratedClassifierCV(light(objective="multiclassova"), cv=2), levels)
    one("steps", CalibratedClassifierCV(make_pipeline(StandardScaler(), light()), cv=2))
    one("frozen", CalibratedClassifierCV(FrozenEstimator(light().fit(numbers[:FITTED], LIKELY[:FITTED]))))
    one("search", CalibratedClassifierCV(GridSearchCV(light(), {"num_leaves": [3, 4]}, cv=2), cv=2))
    one("bagging", CalibratedClassifierCV(BaggingClassifier(light(), 2, random_state=0), cv=2))
    one("eliminated", CalibratedClassifierCV(RFE(light(), n_features_to_select=1), cv=2))
    one("stack", StackingClassifier([("a", light()), ("b", booster())], cv=2, stack_method="auto"))
    one("stack-decides", StackingClassifier([("a", light())], cv=2, stack_method="decision_function"), levels)
    one("stack-last", CalibratedClassifierCV(StackingClassifier([("b", booster())], light(), cv=2), cv=2))
    one("vote-hard", VotingClassifier([("a", light()), ("b", booster()), ("c", LogisticRegression())]))


def none():
    """`None` is a category like others, and no missing value where NaN is one."""
    count = len(TABLE)
    table = pd.DataFrame({
        "kind": with_none(TABLE.kind, 0.2),
        "rare": with_none(TABLE.tone, 0.7),
        "flag": with_none(random.choice([True, False], count).astype(object), 0.2),
        "code": with_none(random.integers(1, 5, count).astype(object), 0.2),
        "size": TABLE["size"],
    })
    known = LIKELY ^ table.kind.isna() ^ (table.code == 2)
    ignored = OneHotEncoder(handle_unknown="ignore")
    coded = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)

    def one(name, *steps, columns=("kind", "rare"), last=None):
        part = ColumnTransformer([("texts", make_pipeline(*steps), list(columns))], remainder="passthrough", sparse_threshold=0)
        save(f"none-{name}", make_pipeline(part, last or DecisionTreeClassifier(max_depth=6)), table[[*columns, "size"]], known)

    frequent, constant = SimpleImputer(strategy="most_frequent"), SimpleImputer(strategy="constant", fill_value="none")
    one("one-hot", ignored)
    one("one-hot-dropped", OneHotEncoder(drop="first", handle_unknown="ignore"))
    one("one-hot-rare", OneHotEncoder(min_frequency=60, handle_unknown="infrequent_if_exist"))
    one("one-hot-strict", OneHotEncoder())
    one("ordinal", OrdinalEncoder())
    one("ordinal-missing", coded)
    one("target", TargetEncoder(random_state=0))
    one("frequent", frequent, ignored)
    one("frequent-ordinal", frequent, coded)
    one("frequent-target", frequent, TargetEncoder(random_state=0))
    one("constant", constant, coded)
    one("filled", SimpleImputer(strategy="constant", fill_value="none", missing_values=None), coded)
    one("filled-frequent", SimpleImputer(strategy="most_frequent", missing_values=None), ignored)
    one("indicated", SimpleImputer(strategy="most_frequent", missing_values=None, add_indicator=True), OneHotEncoder(handle_unknown="ignore"))
    one("flags", ignored, columns=["flag"])
    one("flags-ordinal", coded, columns=["flag"])
    one("flags-filled", SimpleImputer(strategy="most_frequent", missing_values=None), coded, columns=["flag"])
    one("numbers", frequent, coded, columns=["code"])
    one("numbers-mean", SimpleImputer(add_indicator=True), columns=["code"])
    histogram = HistGradientBoostingClassifier(max_iter=3, max_depth=3, categorical_features=["kind", "rare"])
    save("none-histogram", histogram, table[["kind", "rare", "size"]], known)
    mixed = table[["kind", "size"]].copy()
    mixed.loc[::9, "kind"] = np.nan
    refused("none-and-nan", make_pipeline(ColumnTransformer([("kind", ignored, ["kind"])]), LogisticRegression()), mixed, known)


def names():
    """Where nothing but a booster has the names of the columns."""
    numbers = TABLE[["size", "stock"]]
    light = lightgbm.LGBMClassifier(n_estimators=3, num_leaves=4, n_jobs=1, verbose=-1)
    cat = catboost.CatBoostClassifier(iterations=3, depth=2, verbose=False, allow_writing_files=False, thread_count=1)
    save("names-xgboost", make_pipeline(booster()), numbers, LIKELY)
    save("names-lightgbm", make_pipeline(light), numbers, LIKELY)
    save("names-catboost", make_pipeline(cat), numbers, LIKELY)
    save("names-passed", make_pipeline("passthrough", booster()), numbers, LIKELY)
    save("names-calibrated", CalibratedClassifierCV(cat, cv=2), numbers, LIKELY)
    save("names-stack", StackingClassifier([("a", cat), ("b", LogisticRegression())], cv=2), numbers, LIKELY)
    save("names-vote", VotingClassifier([("a", cat), ("b", LogisticRegression())], voting="soft"), numbers, LIKELY)


def large():
    """Whole numbers that are not exact as 64-bit floating point numbers."""
    ids = pd.DataFrame({"id": random.choice([7, 2**53], COUNT)})
    target = (ids.id == 7).astype(int)
    for name, encoder in {"one-hot": OneHotEncoder(), "ordinal": OrdinalEncoder(), "target": TargetEncoder(random_state=0)}.items():
        refused(f"large-{name}", make_pipeline(encoder, LogisticRegression()), ids, target)
    largest = ids.replace(2**53, 2**53 - 1)
    save("largest-one-hot", make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), largest, target)


def trees():
    """Trees of all kinds take missing values since 1.9."""
    numbers = TABLE[["size", "stock"]].mask(random.random((len(TABLE), 2)) < 0.1)
    score = TABLE["size"] + TABLE.stock
    few = {"max_depth": 3, "random_state": 0}
    save("trees-absolute", DecisionTreeRegressor(criterion="absolute_error", **few), numbers, score)
    save("trees-absolute-forest", RandomForestRegressor(3, criterion="absolute_error", **few), numbers, score)
    save("trees-absolute-random", ExtraTreesRegressor(3, criterion="absolute_error", **few), numbers, score)
    save("trees-monotonic", DecisionTreeClassifier(monotonic_cst=[1, 0], **few), numbers, LIKELY)
    save("trees-monotonic-forest", RandomForestClassifier(3, monotonic_cst=[1, 0], **few), numbers, LIKELY)


ALL = [sparse, decisions, none, names, large, trees] if LIGHTGBM >= "4.7" else [decisions]

if __name__ == "__main__":
    for folder in FOLDER, REFUSED:
        folder.mkdir(exist_ok=True)
    for make in ALL:
        make()
    print(len(list(FOLDER.glob("*.pkl"))), "models")
