"""Golden explanations of pipelines of scikit-learn: what shap says of models that are asked, and of trees.

    python3 -m venv venv && venv/bin/pip install -r requirements-explained.txt
    venv/bin/python make_explained.py

Writes to crates/engine/tests/golden/explained a pickle for each model, one of them in ONNX too, and NAME.json: rows, the
rows that they are compared with, exact contributions (shap.explainers.Exact), and those that shap finds by permutations
(shap.explainers.Permutation), as [margin][row][feature] with the base value last. `typical` means that the pickle itself
has the row that others are compared with. Models of trees have `trees` in place of both: what shap.TreeExplainer says of the
columns that the last step gets, added up for each feature.
"""

import json
import pathlib
import pickle
import warnings

import numpy as np
import pandas as pd
import shap
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/explained"
FITTED, ASKED = 160, 6
PERMUTATIONS = 20
WIDE = 14

random = np.random.default_rng(15)
warnings.simplefilter("ignore")


def people(has_holes):
    count = FITTED + ASKED
    table = pd.DataFrame({
        "age": random.gamma(6, 5, count).round(1), "fare": random.gamma(2, 20, count).round(2),
        "relatives": random.integers(0, 5, count).astype(float),
        "sex": random.choice(["female", "male"], count), "port": random.choice(["Cherbourg", "Queenstown", "Southampton"], count),
    })  # fmt: skip
    score = (table.sex == "female") * 2 - table.age / 30 + table.fare / 40 * (table.port == "Cherbourg") + random.normal(0, 0.4, count)
    # No step takes it.
    table.insert(1, "name", [f"Person {index}" for index in range(count)])
    table[["name", "sex", "port"]] = table[["name", "sex", "port"]].astype(object)
    if has_holes:
        table["age"] = table.age.mask(random.random(count) < 0.15)
        table["port"] = table.port.mask(random.random(count) < 0.15, np.nan)
    return table, score.to_numpy()


def columns(texts, numbers=None):
    numbers = numbers or make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer([("numbers", numbers, ["age", "fare", "relatives"]), ("texts", texts, ["sex", "port"])])


def margins(model):
    """What is explained: decisions where there are any, else what is predicted; a column for each margin."""
    ask = getattr(model, "decision_function", None) or getattr(model, "predict_proba", model.predict)

    def of(rows):
        made = np.asarray(ask(rows), float)
        if ask.__name__ == "predict_proba" and made.shape[1] == 2:
            made = made[:, 1]
        return made.reshape(len(rows), -1)

    return of


class Coded:
    """Rows as the numbers that shap takes: a text is its place among all texts."""

    def __init__(self, table):
        self.names = list(table)
        self.texts = {name: [text for text in table[name].unique() if text == text] for name in table if table[name].dtype == object}

    def code(self, table):
        coded = {name: table[name].map(self.texts[name].index, na_action="ignore") if name in self.texts else table[name] for name in table}
        return pd.DataFrame(coded).to_numpy(float)

    def decode(self, rows):
        table = pd.DataFrame(rows, columns=self.names)
        for name, texts in self.texts.items():
            table[name] = pd.Series([np.nan if code != code else texts[int(code)] for code in table[name]], dtype=object)
        return table


def explained(explainer, rows):
    """[margin][row][feature], the base value last."""
    found = explainer(rows)
    values = found.values.reshape(*rows.shape, -1)
    bases = np.broadcast_to(found.base_values.reshape(len(rows), -1), (len(rows), values.shape[2]))
    return np.concatenate([values, bases[:, None, :]], axis=1).transpose(2, 0, 1)


class Plain:
    """A masker that replaces what is hidden by the rows of the background, and takes missing values as they are."""

    def __init__(self, background):
        self.background, self.shape = background, background.shape
        self.clustering = None

    def __call__(self, mask, row):
        return (np.where(mask, row, self.background),)


def save(name, model, background, rows, *, typical=False, in_onnx=False):
    coded = Coded(pd.concat([background, rows], ignore_index=True))
    asked, of = coded.code(rows), margins(model)

    def function(values):
        return of(coded.decode(values))

    masker = Plain(coded.code(background))
    exact = explained(shap.explainers.Exact(function, masker), asked)
    tried = shap.explainers.Permutation(function, masker, seed=0)
    by_order = explained(lambda rows: tried(rows, max_evals=PERMUTATIONS * (2 * rows.shape[1] + 1)), asked)
    np.testing.assert_allclose(exact.sum(axis=2).T, of(rows), rtol=1e-9, atol=1e-9)

    def listed(table):
        return [[None if value != value else value for value in row] for row in table.values.tolist()]

    (FOLDER / f"{name}.pkl").write_bytes(pickle.dumps(model))
    if in_onnx:
        (FOLDER / f"{name}.onnx").write_bytes(to_onnx(model, rows.to_numpy(np.float32)[:1], options={"zipmap": False}).SerializeToString())
    wanted = {"background": listed(background), "typical": typical, "rows": listed(rows), "exact": exact.tolist(), "by_order": by_order.tolist()}
    (FOLDER / f"{name}.json").write_text(json.dumps(wanted) + "\n")
    print(name, exact.shape, "permutations off by", np.abs(exact - by_order).max())


def save_trees(name, model, rows, sources):
    """`sources` has the place of the feature that each column of the last step comes from."""
    steps, last = model[:-1], model[-1]
    columns = steps.transform(rows)
    columns = columns.toarray() if hasattr(columns, "toarray") else np.asarray(columns, float)
    explainer = shap.TreeExplainer(last, feature_perturbation="tree_path_dependent")
    values = np.asarray(explainer.shap_values(columns, check_additivity=False))
    values = values.reshape(*columns.shape, -1)
    bases = np.atleast_1d(explainer.expected_value)
    # Of two shares that add up to 1, the second.
    if len(bases) == 2:
        values, bases = values[:, :, 1:], bases[1:]
    width = rows.shape[1] if rows.ndim == 2 else 1
    found = np.zeros((len(bases), len(rows), width + 1))
    for column, source in enumerate(sources):
        found[:, :, source] += values[:, column, :].T
    found[:, :, width] = bases[:, None]
    table = rows if rows.ndim == 2 else rows.to_frame()
    listed = [[None if value != value else value for value in row] for row in table.values.tolist()]
    (FOLDER / f"{name}.pkl").write_bytes(pickle.dumps(model))
    (FOLDER / f"{name}.json").write_text(json.dumps({"rows": listed, "trees": found.tolist()}) + "\n")
    print(name, found.shape)


def trees(table, score, texts):
    given, asked, target = table[:FITTED], table[FITTED:], score[:FITTED]
    middle, three = np.median(target), np.digitize(target, np.quantile(target, [0.3, 0.7]))
    # The features are age, name, fare, relatives, sex and port.
    ordinal, own = columns(OrdinalEncoder(), "passthrough"), [0, 2, 3, 4, 5]
    one_hot, spread = columns(OneHotEncoder(handle_unknown="ignore")), [0, 2, 3, 4, 4, 5, 5, 5]
    size = dict(max_depth=4, random_state=0)
    save_trees("forest", make_pipeline(ordinal, RandomForestClassifier(5, **size)).fit(given, three), asked, own)
    save_trees("forest-2", make_pipeline(one_hot, RandomForestClassifier(5, **size)).fit(given, target > middle), asked, spread)
    save_trees("extra-trees", make_pipeline(ordinal, ExtraTreesRegressor(5, **size)).fit(given, target), asked, own)
    save_trees("tree", make_pipeline(ordinal, DecisionTreeClassifier(**size)).fit(given, three), asked, own)
    save_trees("boosting", make_pipeline(one_hot, GradientBoostingClassifier(n_estimators=8, random_state=0)).fit(given, target > middle), asked, spread)
    histogram = HistGradientBoostingRegressor(max_iter=6, loss="poisson", min_samples_leaf=8)
    save_trees("histogram", make_pipeline(ordinal, histogram).fit(given, np.exp(target)), asked, own)
    words = make_pipeline(TfidfVectorizer(), RandomForestRegressor(5, **size)).fit(texts[:FITTED], target)
    save_trees("words", words, texts[FITTED:], [0] * len(words[0].vocabulary_))


def main():
    FOLDER.mkdir(exist_ok=True)
    table, score = people(False)
    given, asked, target = table[:FITTED], table[FITTED:], score[:FITTED]
    middle = np.median(target)
    one_hot, three = OneHotEncoder(handle_unknown="ignore"), np.digitize(target, np.quantile(target, [0.3, 0.7]))
    few = given[:3]
    save("logistic", make_pipeline(columns(one_hot), LogisticRegression()).fit(given, target > middle), few, asked)
    save("machine", make_pipeline(columns(one_hot), SVC(gamma=0.4)).fit(given, three), few, asked)
    save("poisson", make_pipeline(columns(one_hot), PoissonRegressor()).fit(given, np.exp(target)), few, asked)
    # What a vote makes of trees is asked.
    vote = VotingRegressor([("trees", ExtraTreesRegressor(3, max_depth=3, random_state=0)), ("line", Ridge())])
    save("vote", make_pipeline(columns(one_hot), vote).fit(given, target), few, asked)
    words = [" ".join(row) for row in table[["sex", "port", "name"]].to_numpy()]
    trees(table, score, pd.Series(words).astype(object))

    table, score = people(True)
    given, asked, target = table[:FITTED], table[FITTED:], score[:FITTED]
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    gaps = make_pipeline(columns(texts), LogisticRegression()).fit(given, target > np.median(target))
    parts = gaps[0].named_transformers_
    row = [*parts["numbers"][0].statistics_.tolist(), *parts["texts"][0].statistics_.tolist()]
    row.insert(1, "anyone")
    usual = pd.DataFrame([row], columns=list(given)).astype(given.dtypes)
    save("gaps", gaps, usual, asked, typical=True)

    wide = pd.DataFrame(random.normal(0, 1, (FITTED + ASKED, WIDE)), columns=[f"x{index}" for index in range(WIDE)])
    score = (wide.x0 * wide.x1 + wide.x2 + np.sin(2 * wide.x3) + wide.x4 * (wide.x5 > 0)).to_numpy()
    given, asked, target = wide[:FITTED], wide[FITTED:], score[:FITTED]
    near = make_pipeline(StandardScaler(), KNeighborsRegressor(5)).fit(given, target)
    usual = pd.DataFrame([near[0].mean_], columns=list(wide))
    save("neighbors", near, usual, asked, typical=True)
    network = MLPClassifier((6,), max_iter=400, random_state=0).fit(given, np.digitize(target, [-0.7, 0.7]))
    save("network", network, given[:2], asked, in_onnx=True)


if __name__ == "__main__":
    main()
