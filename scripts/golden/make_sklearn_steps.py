"""Steps of scikit-learn that bend, part and multiply numbers, as pickles, and what scikit-learn predicts with them.

    venv/bin/python make_sklearn_steps.py

Uses the data of make_sklearn.py and writes to the same folder, and to golden/hostile what is to be refused.
"""

import pickle

import numpy as np
import xgboost
from make_sklearn import COUNT, GOLDEN, HOLES, NUMBERS, SCORE, THREE, TWO, VERSION, random, save
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)

# Numbers of both signs, and what training has not seen in the first rows.
SIGNED = NUMBERS.assign(change=random.normal(0, 4, COUNT).round(2), step=np.arange(COUNT) % 4 - 2.0)
BEYOND = SIGNED.copy()
BEYOND.iloc[0] = [-20.0, 400.0, 12.0, 55.5, 9.0]
BEYOND.iloc[1] = [200.0, 0.0, -3.0, -70.25, -9.0]
ABOVE = np.exp(SCORE / 3)


def curves():
    for name, step in {
        "function-log": FunctionTransformer(np.log1p),
        "function-square": FunctionTransformer(np.square, validate=True),
        "function-tanh": FunctionTransformer(np.tanh),
        "box-cox": PowerTransformer("box-cox"),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(NUMBERS, SCORE), NUMBERS)
    for name, step in {
        "power": PowerTransformer(),
        "power-alone": PowerTransformer(standardize=False),
        "quantile": QuantileTransformer(n_quantiles=40),
        "quantile-few": QuantileTransformer(n_quantiles=3),
        "quantile-normal": QuantileTransformer(n_quantiles=40, output_distribution="normal"),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(SIGNED, SCORE), BEYOND)
    holes = HOLES[["age", "fare"]]
    both = FeatureUnion([("a", PowerTransformer()), ("b", QuantileTransformer(n_quantiles=9))])
    bent = make_pipeline(both, HistGradientBoostingClassifier(max_iter=5))
    save("power-missing", bent.fit(holes, TWO), holes)


def ranges():
    for name, step in {
        "bins": KBinsDiscretizer(4),
        "bins-dense": KBinsDiscretizer(3, encode="onehot-dense", strategy="uniform"),
        "bins-ordinal": KBinsDiscretizer([2, 3, 4, 5, 6], encode="ordinal", strategy="kmeans"),
        "bins-float": KBinsDiscretizer(4, encode="ordinal", strategy="uniform", dtype=np.float64),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(SIGNED, SCORE), BEYOND)
    # Values on an edge, and just below one.
    edges = NUMBERS[["rooms"]].assign(rooms=np.where(np.arange(COUNT) % 3, NUMBERS.rooms, NUMBERS.rooms - 1e-9))
    save("bins-edges", make_pipeline(KBinsDiscretizer(4, strategy="uniform"), Ridge()).fit(NUMBERS[["rooms"]], SCORE), edges)


def products():
    for name, step in {
        "products": PolynomialFeatures(),
        "products-3": PolynomialFeatures(3, include_bias=False),
        "products-plain": PolynomialFeatures(4, interaction_only=True),
        "products-high": PolynomialFeatures((2, 3)),
        "products-none": PolynomialFeatures(0),
    }.items():
        scaled = make_pipeline(StandardScaler(), step, Ridge())
        save(name, scaled.fit(SIGNED, SCORE), SIGNED)


def splines():
    for name, step in {
        "spline": SplineTransformer(),
        "spline-quantile": SplineTransformer(n_knots=6, degree=2, knots="quantile", include_bias=False),
        "spline-straight": SplineTransformer(extrapolation="linear"),
        "spline-straight-1": SplineTransformer(degree=1, extrapolation="linear", n_knots=7),
        "spline-straight-0": SplineTransformer(degree=0, extrapolation="linear", n_knots=7),
        "spline-continued": SplineTransformer(extrapolation="continue"),
        "spline-periodic": SplineTransformer(n_knots=6, extrapolation="periodic"),
        **({"spline-sparse": SplineTransformer(sparse_output=True)} if VERSION >= (1, 3) else {}),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(SIGNED, SCORE), BEYOND)
    save("spline-within", make_pipeline(SplineTransformer(extrapolation="error"), Ridge()).fit(SIGNED, SCORE), SIGNED)
    if VERSION >= (1, 8):
        holes = HOLES[["age", "fare"]]
        zeros = make_pipeline(SplineTransformer(handle_missing="zeros"), Ridge())
        save("spline-missing", zeros.fit(holes, SCORE), holes)


def encoders():
    if VERSION < (1, 3):
        return
    from sklearn.preprocessing import TargetEncoder

    data = HOLES[["sex", "port", "rooms"]].copy()
    numbers = make_pipeline(TargetEncoder(random_state=0), Ridge()).fit(data, SCORE)
    two = make_pipeline(TargetEncoder(random_state=0), LogisticRegression()).fit(data, TWO)
    three = make_pipeline(TargetEncoder(smooth=5.0, random_state=0), LogisticRegression()).fit(data, THREE)
    data.loc[2, "port"] = "Atlantis"
    save("target", numbers, data)
    save("target-2", two, data)
    save("target-3", three, data)


def targets():
    for name, change in {
        "changed-log": dict(func=np.log1p, inverse_func=np.expm1),
        "changed-root": dict(func=np.sqrt, inverse_func=np.square),
        "changed-standard": dict(transformer=StandardScaler()),
        "changed-min-max": dict(transformer=MinMaxScaler((1, 3))),
        "changed-max-abs": dict(transformer=MaxAbsScaler()),
        "changed-robust": dict(transformer=RobustScaler()),
        "changed-power": dict(transformer=PowerTransformer()),
        "changed-box-cox": dict(transformer=PowerTransformer("box-cox", standardize=False)),
        "changed-quantile": dict(transformer=QuantileTransformer(n_quantiles=30)),
        "changed-normal": dict(transformer=QuantileTransformer(n_quantiles=30, output_distribution="normal")),
        "changed-twice": dict(transformer=make_pipeline(FunctionTransformer(np.log, np.exp), StandardScaler())),
    }.items():
        regressor = make_pipeline(StandardScaler(), LinearRegression())
        save(name, TransformedTargetRegressor(regressor, **change).fit(NUMBERS, ABOVE), NUMBERS)


def mixed():
    columns = ColumnTransformer(
        [
            ("logarithms", FunctionTransformer(np.log1p), ["fare"]),
            ("ranges", KBinsDiscretizer(3), ["age"]),
            ("curves", make_pipeline(PowerTransformer(), SplineTransformer(n_knots=3)), ["change"]),
        ],
        remainder="passthrough",
    )
    save("bent", make_pipeline(columns, GradientBoostingClassifier(n_estimators=6)).fit(SIGNED, THREE), BEYOND)


def shared():
    """Small files that have one thing in so many places that it would fill any memory."""
    folder = GOLDEN / "hostile"
    vote = VotingClassifier([("a", xgboost.XGBClassifier(n_estimators=3, max_depth=2))], voting="soft").fit(NUMBERS, TWO)
    vote.estimators_ *= 3000
    (folder / "shared-boosters.pkl").write_bytes(pickle.dumps(vote))
    changed = TransformedTargetRegressor(transformer=StandardScaler()).fit(NUMBERS, SCORE)
    for _ in range(20):
        changed.transformer_ = make_pipeline(changed.transformer_, changed.transformer_)
    (folder / "shared-steps.pkl").write_bytes(pickle.dumps(changed))
    words = TfidfVectorizer(use_idf=False).fit([" ".join(f"{index:x}w" for index in range(2000))])
    union = FeatureUnion([("a", words)])
    union.transformer_list *= 2500
    (folder / "shared-terms.pkl").write_bytes(pickle.dumps(make_pipeline(union, Ridge())))


if __name__ == "__main__":
    curves()
    ranges()
    products()
    splines()
    encoders()
    targets()
    mixed()
    if VERSION >= (1, 9):
        shared()
