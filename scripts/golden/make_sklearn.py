"""Models of scikit-learn as pickles, and what scikit-learn predicts with them.

    python3 -m venv venv && venv/bin/pip install -r requirements-sklearn.txt
    venv/bin/python make_sklearn.py

Writes to crates/engine/tests/golden/sklearn-VERSION, VERSION being that of the library. Each model has a file
NAME.expected.json beside it: rows by the names of the columns, and for each what `predict_proba` gives, for
estimators without it what `predict` does, and for those of outliers what `decision_function` does too. All data comes from a seeded generator.
"""

import json
import pathlib
import pickle
import warnings

import catboost
import joblib
import lightgbm
import numpy as np
import pandas as pd
import sklearn
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

warnings.simplefilter("ignore")

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden"
FOLDER = GOLDEN / f"sklearn-{VERSION[0]}.{VERSION[1]}"
ROWS = 12

random = np.random.default_rng(15)
COUNT = 160
NUMBERS = pd.DataFrame(
    {
        "age": random.normal(40, 12, COUNT).round(1),
        "fare": random.gamma(2, 15, COUNT).round(2),
        "rooms": random.integers(1, 6, COUNT).astype(float),
    }
)
TEXTS = pd.DataFrame(
    {
        "sex": random.choice(["female", "male"], COUNT),
        "port": random.choice(["Cherbourg", "Queenstown", "Southampton", "Zürich"], COUNT, p=[0.3, 0.2, 0.47, 0.03]),
    }
).astype(object)
SCORE = (
    NUMBERS.fare / 15
    - NUMBERS.age / 20
    + (TEXTS.sex == "female") * 1.2
    + (TEXTS.port == "Cherbourg") * 0.7
    + random.normal(0, 0.7, COUNT)
)
TWO = (SCORE > SCORE.median()).astype(int)
THREE = pd.cut(SCORE, [-99, -0.2, 1.2, 99], labels=["low", "middle", "high"]).astype(str)
MIXED = pd.concat([NUMBERS, TEXTS], axis=1)
HOLES = MIXED.copy()
HOLES.loc[::7, "age"] = np.nan
HOLES.loc[3::11, "port"] = np.nan


WORDS = "red green blue the and fast slow not good bad café naïve x 42 don't e-mail Straße ÅNGSTRÖM ½ a1".split()
REVIEWS = pd.Series([" ".join(random.choice(WORDS, random.integers(0, 9))) + "  !" for _ in range(COUNT)]).astype(object)


def written(value):
    return None if value is None or value != value else value


def predicted(model, rows):
    if sklearn.base.is_outlier_detector(model):
        return np.c_[model.predict(rows), model.decision_function(rows)]
    return (model.predict_proba if hasattr(model, "predict_proba") else model.predict)(rows)


def expected(model, data):
    rows = data.iloc[:ROWS]
    if isinstance(rows, pd.Series):
        predictions = predicted(model, rows)
        return {"rows": [[row] for row in rows], "predictions": np.asarray(predictions).tolist()}
    given = rows if isinstance(data, pd.DataFrame) and hasattr(model, "feature_names_in_") else rows.to_numpy()
    predictions = predicted(model, given)
    return {
        "rows": [[written(value) for value in row] for row in rows.to_numpy().tolist()],
        "predictions": np.asarray(predictions).tolist(),
    }


def save(name, model, data, dump=pickle.dump, ending="pkl", **options):
    with open(FOLDER / f"{name}.{ending}", "wb") as file:
        dump(model, file, **options)
    text = json.dumps(expected(model, data), ensure_ascii=False, separators=(",", ":"))
    (FOLDER / f"{name}.expected.json").write_text(text + "\n")


def linear():
    scaled = StandardScaler().fit_transform(NUMBERS)
    scaled = pd.DataFrame(scaled, columns=NUMBERS.columns)
    positive = np.exp(scaled.age / 3)
    for name, model in {
        "linear-regression": LinearRegression(),
        "ridge": Ridge(),
        "lasso": Lasso(alpha=0.05),
        "elastic-net": ElasticNet(alpha=0.05),
        "bayesian-ridge": BayesianRidge(),
        "huber": HuberRegressor(),
        "sgd-regressor": SGDRegressor(random_state=0),
        "linear-svr": LinearSVR(random_state=0),
    }.items():
        save(name, model.fit(scaled, SCORE), scaled)
    save("ridge-two-targets", Ridge().fit(scaled, np.c_[SCORE, positive]), scaled)
    save("poisson", PoissonRegressor().fit(scaled, positive), scaled)
    save("tweedie", TweedieRegressor(power=1.5).fit(scaled, positive), scaled)
    save("tweedie-identity", TweedieRegressor(power=0).fit(scaled, positive), scaled)
    one_by_one = LogisticRegression(solver="liblinear") if VERSION < (1, 6) else LogisticRegression()
    for name, model in {
        "logistic": LogisticRegression(),
        "logistic-cv": LogisticRegressionCV(cv=3),
        "sgd-log": SGDClassifier(loss="log_loss", random_state=0),
        "sgd-huber": SGDClassifier(loss="modified_huber", random_state=0),
        "sgd-hinge": SGDClassifier(random_state=0),
        "linear-svc": LinearSVC(random_state=0),
        "ridge-classifier": RidgeClassifier(),
        "perceptron": Perceptron(random_state=0),
        "discriminant": LinearDiscriminantAnalysis(),
        "logistic-one-by-one": one_by_one,
    }.items():
        save(f"{name}-2", model.fit(scaled, TWO), scaled)
        save(f"{name}-3", model.fit(scaled, THREE), scaled)
    if VERSION < (1, 8):
        save("logistic-softmax-2", LogisticRegression(multi_class="multinomial").fit(scaled, TWO), scaled)


def steps():
    for name, step in {
        "standard": StandardScaler(),
        "standard-mean": StandardScaler(with_std=False),
        "min-max": MinMaxScaler(clip=True),
        "max-abs": MaxAbsScaler(),
        "robust": RobustScaler(),
        "robust-scale": RobustScaler(with_centering=False),
        "normalizer-1": Normalizer("l1"),
        "normalizer-2": Normalizer("l2"),
        "normalizer-max": Normalizer("max"),
        "binarizer": Binarizer(threshold=30.0),
        "passed": "passthrough",
        "function": FunctionTransformer(),
        "union": FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler()), ("c", "passthrough")]),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(NUMBERS, SCORE), NUMBERS)
    many = dict(min_frequency=20, handle_unknown="infrequent_if_exist")
    for name, step in {
        "one-hot": OneHotEncoder(),
        "one-hot-ignore": OneHotEncoder(handle_unknown="ignore"),
        "one-hot-first": OneHotEncoder(drop="first"),
        "one-hot-binary": OneHotEncoder(drop="if_binary", handle_unknown="ignore"),
        "one-hot-rare": OneHotEncoder(**many),
        "one-hot-rare-first": OneHotEncoder(drop="first", **many),
        "ordinal": OrdinalEncoder(),
        "ordinal-unknown": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    }.items():
        data = TEXTS.copy()
        model = make_pipeline(step, Ridge()).fit(data, SCORE)
        if "ignore" in name or "binary" in name or "rare" in name or "unknown" in name:
            data.loc[2, "port"] = "Atlantis"
        save(name, model, data)
    whole = NUMBERS[["rooms"]]
    save("one-hot-numbers", make_pipeline(OneHotEncoder(), Ridge()).fit(whole, SCORE), whole)
    ports = HOLES[["port"]]
    missing = OrdinalEncoder(encoded_missing_value=-5)
    save("one-hot-missing", make_pipeline(OneHotEncoder(), Ridge()).fit(ports, SCORE), ports)
    save("ordinal-missing", make_pipeline(missing, Ridge()).fit(ports, SCORE), ports)
    coded = NUMBERS.copy()
    coded.loc[::5, "age"] = -999
    codes = SimpleImputer(missing_values=-999, strategy="median", add_indicator=True)
    save("imputer-code", make_pipeline(codes, Ridge()).fit(coded, SCORE), coded)


def titanic(last, numeric=None):
    return make_pipeline(
        ColumnTransformer(
            [
                (
                    "numbers",
                    make_pipeline(SimpleImputer(add_indicator=True), numeric or StandardScaler()),
                    ["age", "fare"],
                ),
                (
                    "texts",
                    make_pipeline(
                        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
                    ),
                    ["sex", "port"],
                ),
            ],
            remainder="passthrough",
        ),
        last,
    )


def texts():
    words = r"(?u)\b[a-zA-Zé]{2,}\b"
    for name, step in {
        "count": CountVectorizer(),
        "count-pairs": CountVectorizer(ngram_range=(1, 2), stop_words="english", binary=True),
        "count-stops": CountVectorizer(ngram_range=(2, 3), stop_words=["red", "not"], lowercase=False),
        "count-characters": CountVectorizer(analyzer="char", ngram_range=(1, 3)),
        "count-within": CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), strip_accents="ascii"),
        "count-pattern": CountVectorizer(token_pattern=words),
        "count-group": CountVectorizer(token_pattern=r"([^\s'-]+)['-]?"),
        "tfidf": TfidfVectorizer(),
        "tfidf-short": TfidfVectorizer(token_pattern=r"\b\w+\b", strip_accents="unicode", sublinear_tf=True),
        "tfidf-sum": TfidfVectorizer(norm="l1", smooth_idf=False, binary=True),
        "tfidf-plain": TfidfVectorizer(norm=None, use_idf=False, max_features=5),
        "tfidf-steps": make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True)),
        "hashing": HashingVectorizer(n_features=64),
        "hashing-plain": HashingVectorizer(n_features=50, alternate_sign=False, norm=None, binary=True),
    }.items():
        save(name, make_pipeline(step, LogisticRegression()).fit(REVIEWS, TWO), REVIEWS)
    both = FeatureUnion([("words", TfidfVectorizer()), ("letters", TfidfVectorizer(analyzer="char", max_features=9))])
    save("text-union", make_pipeline(both, LogisticRegression()).fit(REVIEWS, THREE), REVIEWS)
    data = HOLES.drop(columns="sex").assign(review=REVIEWS)
    parts = [
        ("review", TfidfVectorizer(), "review"),
        ("port", OneHotEncoder(handle_unknown="ignore"), ["port"]),
        ("numbers", SimpleImputer(), ["age", "fare"]),
    ]
    save("text-columns", make_pipeline(ColumnTransformer(parts), Ridge()).fit(data, SCORE), data)


def boosters():
    data = NUMBERS.astype(np.float32).astype(float)
    for name, last in {
        "xgboost": xgboost.XGBClassifier(n_estimators=4, max_depth=3),
        "xgboost-missing": xgboost.XGBClassifier(n_estimators=4, max_depth=3, missing=4.0),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=4, num_leaves=5, verbose=-1),
        "catboost": catboost.CatBoostClassifier(iterations=4, depth=3, verbose=0, allow_writing_files=False),
    }.items():
        save(name, last.fit(data, TWO), data)
        save(f"{name}-pipeline", titanic(sklearn.base.clone(last)).fit(HOLES, TWO), HOLES)
    codes = pd.Series(THREE).map({"low": 0, "middle": 1, "high": 2}).to_numpy()
    three = xgboost.XGBClassifier(n_estimators=4, max_depth=3)
    save("xgboost-3", titanic(three).fit(HOLES, codes), HOLES)
    three = lightgbm.LGBMClassifier(n_estimators=4, num_leaves=5, verbose=-1)
    save("lightgbm-3", titanic(three).fit(HOLES, THREE), HOLES)
    three = catboost.CatBoostClassifier(iterations=4, depth=3, verbose=0, allow_writing_files=False)
    save("catboost-3", titanic(three).fit(HOLES, THREE), HOLES)
    for name, last in {
        "xgboost-regressor": xgboost.XGBRegressor(n_estimators=4, max_depth=3),
        "lightgbm-regressor": lightgbm.LGBMRegressor(n_estimators=4, num_leaves=5, verbose=-1),
        "catboost-regressor": catboost.CatBoostRegressor(iterations=4, depth=3, verbose=0, allow_writing_files=False),
    }.items():
        save(name, titanic(last).fit(HOLES, SCORE), HOLES)
    groups = [40, 40, 80]
    ranker = xgboost.XGBRanker(n_estimators=4, max_depth=3)
    save("xgboost-ranker", ranker.fit(data, TWO, group=groups), data)
    ranker = lightgbm.LGBMRanker(n_estimators=4, num_leaves=5, verbose=-1)
    save("lightgbm-ranker", ranker.fit(data, TWO, group=groups), data)
    stopped = lightgbm.LGBMRegressor(n_estimators=60, num_leaves=9, learning_rate=0.5, verbose=-1)
    stops = [lightgbm.early_stopping(3, verbose=False)]
    save("lightgbm-stopped", stopped.fit(data, SCORE, eval_set=[(data[:40] * 2, SCORE[:40])], callbacks=stops), data)


def columns():
    boosting = GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0)
    save("titanic", titanic(boosting).fit(HOLES, TWO), HOLES)
    save("titanic-3", titanic(LogisticRegression(max_iter=500)).fit(HOLES, THREE), HOLES)
    filled = make_pipeline(
        ColumnTransformer(
            [
                ("drop", "drop", ["rooms"]),
                ("pass", "passthrough", ["fare"]),
                ("texts", make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder()), ["port"]),
                ("sex", OrdinalEncoder(), ["sex"]),
            ],
            remainder=SimpleImputer(strategy="median"),
        ),
        Ridge(),
    )
    save("remainder", filled.fit(HOLES, SCORE), HOLES)
    places = ColumnTransformer(
        [
            ("number", StandardScaler(), [0]),
            ("slice", MinMaxScaler(), slice(0, 2)),
            ("mask", RobustScaler(), [False, True, True]),
            ("last", "passthrough", [-1]),
            ("names", MaxAbsScaler(), slice("age", "fare")),
            ("none", MaxAbsScaler(), []),
        ]
    )
    save("places", make_pipeline(places, Ridge()).fit(NUMBERS, SCORE), NUMBERS)
    unnamed = ColumnTransformer([("a", StandardScaler(), [1]), ("b", "passthrough", [0])])
    save("unnamed", make_pipeline(unnamed, LogisticRegression()).fit(NUMBERS.to_numpy(), TWO), NUMBERS)


def trees():
    save("tree", DecisionTreeClassifier(max_depth=4, random_state=0).fit(NUMBERS, TWO), NUMBERS)
    save("tree-3", DecisionTreeClassifier(max_depth=3, random_state=0).fit(NUMBERS, THREE), NUMBERS)
    save("tree-regressor", DecisionTreeRegressor(max_depth=4, random_state=0).fit(NUMBERS, SCORE), NUMBERS)
    save("extra-tree", ExtraTreeClassifier(max_depth=4, random_state=0).fit(NUMBERS, THREE), NUMBERS)
    size = dict(n_estimators=5, max_depth=4, random_state=0)
    save("forest", RandomForestClassifier(**size).fit(NUMBERS, TWO), NUMBERS)
    save("forest-3", RandomForestClassifier(**size, class_weight="balanced").fit(NUMBERS, THREE), NUMBERS)
    save("forest-regressor", RandomForestRegressor(**size).fit(NUMBERS, SCORE), NUMBERS)
    save("extra-trees", ExtraTreesClassifier(**size).fit(NUMBERS, THREE), NUMBERS)
    save("extra-trees-regressor", ExtraTreesRegressor(**size).fit(NUMBERS, SCORE), NUMBERS)
    size = dict(n_estimators=6, max_depth=3, random_state=0)
    save("boosting", GradientBoostingClassifier(**size).fit(NUMBERS, TWO), NUMBERS)
    save("boosting-3", GradientBoostingClassifier(**size).fit(NUMBERS, THREE), NUMBERS)
    save("boosting-exponential", GradientBoostingClassifier(loss="exponential", **size).fit(NUMBERS, TWO), NUMBERS)
    save("boosting-zero", GradientBoostingClassifier(init="zero", **size).fit(NUMBERS, TWO), NUMBERS)
    save("boosting-regressor", GradientBoostingRegressor(**size).fit(NUMBERS, SCORE), NUMBERS)
    save("boosting-huber", GradientBoostingRegressor(loss="huber", **size).fit(NUMBERS, SCORE), NUMBERS)
    size = dict(max_iter=5, max_leaf_nodes=6, min_samples_leaf=5, random_state=0)
    numbers = HOLES[["age", "fare", "rooms"]]
    save("histogram", HistGradientBoostingClassifier(**size).fit(numbers, TWO), numbers)
    save("histogram-3", HistGradientBoostingClassifier(**size).fit(numbers, THREE), numbers)
    save("histogram-regressor", HistGradientBoostingRegressor(**size).fit(numbers, SCORE), numbers)
    poisson = HistGradientBoostingRegressor(loss="poisson", **size)
    save("histogram-poisson", poisson.fit(numbers, np.exp(SCORE / 2)), numbers)
    if VERSION >= (1, 4):
        save("tree-missing", DecisionTreeClassifier(max_depth=4, random_state=0).fit(numbers, TWO), numbers)
        size = dict(n_estimators=3, max_depth=4, random_state=0)
        save("forest-missing", RandomForestRegressor(**size).fit(numbers, SCORE), numbers)
    if VERSION >= (1, 6):
        save("extra-trees-missing", ExtraTreesClassifier(**size).fit(numbers, TWO), numbers)


def protocols():
    model = titanic(DecisionTreeClassifier(max_depth=2, random_state=0)).fit(HOLES.fillna({"age": 1.0}), TWO)
    data = HOLES.fillna({"age": 1.0})
    for protocol in range(6):
        save(f"protocol-{protocol}", model, data, protocol=protocol)
    save("joblib", model, data, joblib.dump, "joblib")
    save("zlib", model, data, joblib.dump, "joblib", compress=("zlib", 9))
    for method in ["gzip", "bz2", "xz", "lzma"]:
        save(method, model, data, joblib.dump, "joblib", compress=(method, 9))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    linear()
    steps()
    texts()
    boosters()
    columns()
    trees()
    protocols()
