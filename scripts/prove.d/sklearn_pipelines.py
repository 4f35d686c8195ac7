"""Random pipelines of scikit-learn: what the engine predicts from their pickles is what scikit-learn predicts.

    sklearn_pipelines.py PREDICT [--count COUNT] [--seed SEED]

Makes COUNT pipelines (500) of random steps, parameters and data, with missing values, rare and unknown categories and texts,
pickles them, and has the engine's example binary PREDICT answer rows that were not fitted. All numbers must be those of
scikit-learn within 1e-9 of their value. A pipeline that differs stays in a folder that is named.
"""

import argparse
import collections
import json
import pickle
import subprocess
import sys
import tempfile
import unittest.mock
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from scipy.spatial.distance import cdist
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectPercentile, VarianceThreshold, f_classif, f_regression
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.metrics.pairwise import PAIRWISE_DISTANCE_FUNCTIONS
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor

NEAR = 1e-9
# Sums of numbers that cancel each other are as near to 0 as this.
NEAR_ZERO = 1e-12
ASKED = 25
NEIGHBORS = (KNeighborsClassifier, KNeighborsRegressor)
PREDICT_S = 60
WORDS = "red green blue the and fast slow not good bad café naïve x 42 don't e-mail Straße ÅNGSTRÖM ½ a1".split()

warnings.simplefilter("ignore")


class Draw:
    """One pipeline and its data."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.seed = int(self.random.integers(1 << 30))
        self.rows = int(self.random.integers(60, 200))
        self.table = pd.DataFrame()
        self.target = None

    def one(self, *choices):
        return choices[self.random.integers(len(choices))]

    def whole(self, low, high):
        return int(self.random.integers(low, high + 1))

    def real(self, low, high):
        return float(np.exp(self.random.uniform(np.log(low), np.log(high))))

    def chance(self, share):
        return bool(self.random.random() < share)

    def data(self):
        """Columns of numbers, categories and texts, and targets that depend on them."""
        count = self.rows + ASKED
        score = self.random.normal(0, 0.5, count)
        holes = self.chance(0.5)
        for index in range(self.whole(1, 4)):
            column = self.one(
                self.random.normal(0, 1, count), self.random.gamma(2, 20, count).round(2), self.random.normal(50, 9, count)
            )
            score += (column - column.mean()) / column.std() * self.random.normal()
            if holes:
                column = np.where(self.random.random(count) < 0.1, np.nan, column)
            self.table[f"n{index}"] = column
        for index in range(self.whole(0, 3)):
            known = [self.one("a", "b", "Zürich", "x y", "日本", "") + str(n) for n in range(self.whole(2, 6))]
            column = self.random.choice(known, count, p=self.random.dirichlet(np.ones(len(known))))
            score += (column == known[0]) * self.random.normal()
            column = pd.Series(column).astype(object)
            self.table[f"c{index}"] = column.mask(self.random.random(count) < (0.1 if holes else 0), np.nan)
        if self.chance(0.2):
            texts = [" ".join(self.random.choice(WORDS, self.random.integers(0, 9))) for _ in range(count)]
            self.table["text"] = pd.Series(texts).astype(object)
            score += np.array(["good" in text for text in texts])
        self.score = score
        self.is_classifier = self.chance(0.6)
        self.classes = self.whole(2, 4) if self.is_classifier else 0
        if self.is_classifier:
            names = self.one(["no", "yes", "maybe", "ähnlich"], [0, 1, 2, 3], [-1, 5, 7, 100])
            places = np.searchsorted(np.quantile(score, np.linspace(0, 1, self.classes + 1)[1:-1]), score)
            self.target = np.array(names[: self.classes])[places]
        else:
            self.target = score

    def numbers(self, has_holes, stays, is_plain):
        """Steps for columns of numbers."""
        steps = []
        if has_holes and not stays:
            strategy = self.one("mean", "median", "most_frequent", "constant")
            steps.append(self.one(
                SimpleImputer(strategy=strategy, add_indicator=self.chance(0.3)),
                SimpleImputer(strategy=strategy),
                KNNImputer(n_neighbors=self.whole(2, 6), weights=self.one("uniform", "distance")),
            ))
        steps.append(self.one(
            "passthrough", StandardScaler(with_mean=self.chance(0.8)), MinMaxScaler((-1, self.whole(1, 3)), clip=self.chance(0.5)),
            MaxAbsScaler(), RobustScaler(with_centering=self.chance(0.7)), FunctionTransformer(),
        ))
        if self.chance(0.3):
            steps.append(self.bent(has_holes and stays, is_plain))
        if not is_plain and self.chance(0.15):
            steps.append(self.one(Normalizer(self.one("l1", "l2", "max")), Binarizer(threshold=0.3)))
        return make_pipeline(*steps)

    def bent(self, takes_missing, is_plain):
        """A step that bends numbers, or parts them into ranges."""
        quantiles = QuantileTransformer(n_quantiles=self.whole(2, 60), output_distribution=self.one("uniform", "normal"))
        bent = [PowerTransformer(standardize=self.chance(0.7)), quantiles, FunctionTransformer(self.one(np.tanh, np.arctan, np.cbrt, np.square))]
        if takes_missing or is_plain:
            return self.one(*bent)
        spline = dict(degree=self.whole(1, 4), extrapolation=self.one("constant", "linear", "continue", "periodic"))
        return self.one(
            *bent, KBinsDiscretizer(self.whole(2, 5), encode=self.one("onehot-dense", "ordinal"), strategy=self.one("uniform", "quantile")),
            SplineTransformer(self.whole(5, 7), knots=self.one("uniform", "quantile"), include_bias=self.chance(0.5), **spline),
            PolynomialFeatures(self.whole(1, 3), interaction_only=self.chance(0.3), include_bias=self.chance(0.5)),
        )

    def categories(self, has_holes):
        """Steps for columns of categories, and whether they take unknown ones."""
        dense = dict(sparse_output=False)
        step, takes_unknown = self.one(
            (OneHotEncoder(handle_unknown="ignore", **dense), True),
            (OneHotEncoder(drop=self.one("first", "if_binary", None), **dense), False),
            (OneHotEncoder(min_frequency=self.whole(5, 25), handle_unknown="infrequent_if_exist", **dense), True),
            (OneHotEncoder(max_categories=self.whole(2, 4), handle_unknown="infrequent_if_exist", **dense), True),
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), True),
            (OrdinalEncoder(), False),
            (TargetEncoder(smooth=self.one("auto", 3.0), random_state=self.seed), True),
        )
        if has_holes and (isinstance(step, OrdinalEncoder) or self.chance(0.6)):
            filled = self.one(SimpleImputer(strategy="most_frequent"), SimpleImputer(strategy="constant", fill_value="?"))
            step = make_pipeline(filled, step)
        return step, takes_unknown

    def words(self):
        grams = self.one((1, 1), (1, 2))
        return self.one(
            TfidfVectorizer(ngram_range=grams, sublinear_tf=self.chance(0.3), norm=self.one("l1", "l2", None)),
            CountVectorizer(ngram_range=grams, binary=self.chance(0.3), min_df=self.whole(1, 3)),
            TfidfVectorizer(analyzer=self.one("char", "char_wb"), ngram_range=(1, 3), max_features=60),
            HashingVectorizer(n_features=64, alternate_sign=self.chance(0.5)),
        )

    def columns(self, stays, is_plain):
        """All columns side by side; whether unknown categories may come."""
        table, parts, takes_unknown = self.table, [], True
        of = {kind: [name for name in table if name.startswith(kind)] for kind in "nc"}
        has_holes = bool(table[of["n"]].isna().any().any())
        numbers = self.numbers(has_holes, stays, is_plain)
        if not stays and not has_holes and self.chance(0.2):
            numbers = FeatureUnion([("a", numbers), ("b", self.one(MinMaxScaler(), PCA(1)))])
        parts.append(("numbers", numbers, of["n"]))
        if of["c"]:
            step, takes_unknown = self.categories(bool(table[of["c"]].isna().any().any()))
            parts.append(("categories", step, of["c"]))
        if "text" in table:
            parts.append(("words", self.words(), "text"))
        return ColumnTransformer(parts, sparse_threshold=0), takes_unknown

    def middle(self):
        """Steps that leave fewer columns."""
        score = f_classif if self.is_classifier else f_regression
        forest = ExtraTreesClassifier if self.is_classifier else ExtraTreesRegressor
        return self.one(
            [], [], [], [VarianceThreshold()], [SelectPercentile(score, percentile=self.whole(40, 90))],
            [StandardScaler(), PCA(self.one(1, 0.8), whiten=self.chance(0.3))],
            [TruncatedSVD(1, random_state=self.seed)],
            [SelectFromModel(forest(4, max_depth=3, random_state=self.seed))],
            [KMeans(self.whole(2, 4), n_init=1, random_state=self.seed)],
        )

    def classifier(self):
        seed, depth = dict(random_state=self.seed), self.whole(1, 6)
        leaves = dict(max_depth=depth, min_samples_leaf=self.whole(1, 5))
        return self.one(
            LogisticRegression(C=self.real(0.01, 10), max_iter=200),
            RidgeClassifier(alpha=self.real(0.1, 10)), LinearSVC(C=self.real(0.01, 1)),
            SGDClassifier(loss=self.one("log_loss", "hinge", "modified_huber"), **seed),
            LinearDiscriminantAnalysis(), QuadraticDiscriminantAnalysis(reg_param=self.real(0.01, 0.9)),
            GaussianNB(), BernoulliNB(alpha=self.real(0.1, 2)),
            KNeighborsClassifier(self.whole(1, 9), weights=self.one("uniform", "distance"), p=self.one(1, 2)),
            SVC(C=self.real(0.1, 10), kernel=self.one("rbf", "linear", "poly", "sigmoid")),
            SVC(probability=True, gamma=self.one("scale", "auto", 0.3), **seed), NuSVC(nu=0.1),
            MLPClassifier((self.whole(2, 9),), activation=self.one("relu", "tanh", "logistic"), max_iter=60, **seed),
            GaussianProcessClassifier(1.0 * self.one(RBF(), Matern()), **seed) if self.rows < 100 else GaussianNB(),
            DecisionTreeClassifier(criterion=self.one("gini", "entropy"), **leaves, **seed),
            RandomForestClassifier(self.whole(1, 12), class_weight=self.one(None, "balanced"), **leaves, **seed),
            ExtraTreesClassifier(self.whole(1, 12), bootstrap=self.chance(0.5), **leaves, **seed),
            GradientBoostingClassifier(n_estimators=self.whole(1, 12), subsample=self.real(0.5, 1), **leaves, **seed),
            HistGradientBoostingClassifier(max_iter=self.whole(1, 12), l2_regularization=self.real(0.01, 3), **leaves, **seed),
            AdaBoostClassifier(DecisionTreeClassifier(max_depth=depth), n_estimators=self.whole(1, 8), **seed),
        )

    def regressor(self):
        seed, depth = dict(random_state=self.seed), self.whole(1, 6)
        leaves = dict(max_depth=depth, min_samples_leaf=self.whole(1, 5))
        loss = dict(loss=self.one("squared_error", "absolute_error"))
        return self.one(
            LinearRegression(), Ridge(alpha=self.real(0.1, 10)), ElasticNet(alpha=self.real(0.001, 0.3)), BayesianRidge(),
            HuberRegressor(max_iter=300), SVR(C=self.real(0.1, 10), kernel=self.one("rbf", "linear", "sigmoid")),
            KNeighborsRegressor(self.whole(1, 9), weights=self.one("uniform", "distance")),
            MLPRegressor((self.whole(2, 9),), activation=self.one("relu", "tanh", "identity"), max_iter=60, **seed),
            GaussianProcessRegressor(self.one(RBF(), Matern(nu=2.5)) + WhiteKernel(0.5), normalize_y=self.chance(0.5), **seed),
            DecisionTreeRegressor(**leaves, **seed), ExtraTreeRegressor(**leaves, **seed),
            RandomForestRegressor(self.whole(1, 12), **leaves, **seed), ExtraTreesRegressor(self.whole(1, 12), **leaves, **seed),
            GradientBoostingRegressor(n_estimators=self.whole(1, 12), **leaves, **loss, **seed),
            HistGradientBoostingRegressor(max_iter=self.whole(1, 12), **leaves, **loss, **seed),
            AdaBoostRegressor(DecisionTreeRegressor(max_depth=depth), n_estimators=self.whole(1, 8), **seed),
        )

    def last(self):
        """An estimator, or a few within another one."""
        simple = self.classifier if self.is_classifier else self.regressor
        if self.chance(0.75):
            return simple()
        one = simple()
        if not self.is_classifier and self.chance(0.3):
            change = self.one(
                dict(func=np.cbrt, inverse_func=np.sinh, check_inverse=False), dict(transformer=StandardScaler()),
                dict(transformer=PowerTransformer()), dict(transformer=QuantileTransformer(n_quantiles=20)),
                dict(transformer=make_pipeline(MinMaxScaler(), QuantileTransformer(n_quantiles=9, output_distribution="normal"))),
            )
            return TransformedTargetRegressor(one, **change)
        if isinstance(one, NEIGHBORS):
            return one
        count, seed = self.whole(2, 4), dict(random_state=self.seed)
        tree = (DecisionTreeClassifier if self.is_classifier else DecisionTreeRegressor)(max_depth=3)
        both = [("a", tree), ("b", LogisticRegression() if self.is_classifier else Ridge())]
        if self.is_classifier:
            return self.one(
                BaggingClassifier(one, count, max_samples=0.8, **seed), VotingClassifier(both, voting=self.one("hard", "soft")),
                VotingClassifier([*both, ("c", one)]), StackingClassifier(both, cv=2, passthrough=self.chance(0.5)),
                CalibratedClassifierCV(one, method=self.one("sigmoid", "isotonic"), cv=2, ensemble=self.chance(0.7)),
            )
        return self.one(
            BaggingRegressor(one, count, max_features=0.9, **seed), VotingRegressor([*both, ("c", one)]),
            StackingRegressor(both, cv=2, passthrough=self.chance(0.5)),
        )

    def fitted(self):
        """A pipeline, rows for it, and what it predicts of them."""
        self.data()
        last = self.last()
        stays = isinstance(last, (HistGradientBoostingClassifier, HistGradientBoostingRegressor)) and self.chance(0.5)
        # Where few values are left, several rows are as far away, and which of them count is left to chance.
        inner = last.regressor if isinstance(last, TransformedTargetRegressor) else last
        is_plain = stays or isinstance(inner, NEIGHBORS)
        columns, takes_unknown = self.columns(stays, is_plain)
        model = make_pipeline(columns, *([] if is_plain else self.middle()), last)
        given, asked = self.table[: self.rows], self.table[self.rows :].reset_index(drop=True)
        for name in [name for name in asked if name.startswith("c")]:
            if takes_unknown:
                asked.loc[0, name] = "Atlantis"
            else:
                asked[name] = asked[name].where(asked[name].isin(given[name].unique()), given[name].iloc[0])
        model.fit(given, self.target[: self.rows])
        return model, asked


# Distances that are summed directly: the library subtracts large squares, and loses digits of what is near.


def from_centers(step, rows):
    return cdist(rows, step.cluster_centers_)


def from_donors(rows, others, **_):
    given = ~np.isnan(rows)[:, None] & ~np.isnan(others)
    squares = np.where(given, rows[:, None] - others, 0) ** 2
    return np.sqrt(squares.sum(-1) / given.sum(-1) * rows.shape[1])


@unittest.mock.patch.object(KMeans, "transform", from_centers)
@unittest.mock.patch.dict(PAIRWISE_DISTANCE_FUNCTIONS, nan_euclidean=from_donors)
def wanted(model, rows):
    """What scikit-learn predicts, in the numbers of the engine."""
    if hasattr(model, "predict_proba"):
        chances = model.predict_proba(rows)
        return chances[:, 1:] if chances.shape[1] == 2 else chances
    made = model.predict(rows)
    if sklearn.base.is_classifier(model):
        made = np.searchsorted(model.classes_, made)
    return np.asarray(made, float).reshape(len(rows), -1)


def is_open(model, rows):
    """Of which rows chance decides which neighbor is the last one: another is as far away."""
    last = getattr(model[-1], "regressor_", model[-1])
    if not isinstance(last, NEIGHBORS):
        return np.zeros(len(rows), bool)
    far = np.sort(cdist(np.asarray(model[:-1].transform(rows)), last._fit_X, "minkowski", p=last.p))
    return far[:, last.n_neighbors] - far[:, last.n_neighbors - 1] <= NEAR * far[:, last.n_neighbors]


def answered(predict, file, rows):
    lines = [[None if value is None or value != value else value for value in row] for row in rows.values.tolist()]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([predict, file], input=text, capture_output=True, text=True, timeout=PREDICT_S)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return np.array([json.loads(line) for line in done.stdout.splitlines()], float)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("predict", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pipelines-"))
    classes, numbers, unfitted, faults, worst = collections.Counter(), 0, 0, [], 0.0
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        file = folder / f"{seed}.pkl"
        try:
            model, rows = Draw(seed).fitted()
            rows = rows[~is_open(model, rows)]
            right = wanted(model, rows)
        except (ValueError, FloatingPointError, np.linalg.LinAlgError):
            unfitted += 1  # such as no column that is left, or classes that a part has not seen
            continue
        file.write_bytes(pickle.dumps(model))
        last = type(model[-1]).__name__
        classes.update(type(step).__name__ for step in model)
        try:
            made = answered(arguments.predict, file, rows)
            # Of a column that is always the same, naive Bayes has no probabilities in the library either.
            difference = np.where(np.isnan(made) & np.isnan(right), 0, np.abs(made - right))
            numbers += made.size
            worst = max(worst, float((difference / np.maximum(np.abs(np.nan_to_num(right)), 1)).max()))
            if not (difference <= NEAR * np.abs(np.nan_to_num(right)) + NEAR_ZERO).all():
                raise RuntimeError(f"differs by {np.nanmax(difference):.3g}")
        except (RuntimeError, ValueError) as error:
            faults.append(f"seed {seed}, {last}: {error}")
            print(faults[-1], flush=True)
            continue
        file.unlink()
    fitted = arguments.count - unfitted
    print(", ".join(f"{name} {count}" for name, count in classes.most_common()))
    print(f"scikit-learn {sklearn.__version__}: {numbers} numbers of {fitted} pipelines ({unfitted} could not be fitted),"
          f" {fitted - len(faults)} pipelines within {NEAR} of the value, {len(faults)} not; the greatest difference is {worst:.2g}")
    if faults or fitted < arguments.count * 0.8:
        sys.exit(f"see {folder}")


main()
