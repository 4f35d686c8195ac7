"""Trains the models that bench/trees compares, on invented data, and writes them with rows to predict.

    train_trees.py FOLDER

A model `NAME` becomes `NAME.txt`, `NAME.cbm` or `NAME.json`, and `NAME.rows`: 20,000 rows of `f64`.
"""

import sys
from pathlib import Path

import catboost
import lightgbm
import numpy
import xgboost

ROWS = 20_000
# With more, other sums and other trees.
THREADS = 1
LOADED_BYTES = 16_000_000


def numbers(random, features, missing=0.05):
    x = random.normal(size=(ROWS, features))
    x[random.random(x.shape) < missing] = numpy.nan
    return x


def target(random, x):
    """What no model learns quickly, so that trees keep their size."""
    filled = numpy.nan_to_num(x)
    waves = numpy.sin(filled[:, :8] * random.normal(size=8) * 3).sum(axis=1)
    return waves + filled[:, 0] * filled[:, 1] + random.normal(size=len(x)) * 0.3


def classes(y, count):
    """Classes of equal size."""
    return numpy.argsort(numpy.argsort(y)) * count // len(y)


def lightgbm_model(folder, name, x, y, rounds, **parameters):
    parameters = {"verbose": -1, "num_threads": THREADS, "seed": 1, "learning_rate": 0.05, **parameters}
    categorical = parameters.pop("categorical", "auto")
    data = lightgbm.Dataset(x, y, categorical_feature=categorical, params=parameters)
    lightgbm.train(parameters, data, rounds).save_model(folder / f"{name}.txt")
    x.astype("<f8").tofile(folder / f"{name}.rows")


def train_lightgbm(folder, random):
    x = numbers(random, 20)
    y = target(random, x)
    sizes = {"num_leaves": 63, "max_depth": 6}
    lightgbm_model(folder, "santander-lightgbm", x, classes(y, 22), 40,
                   objective="multiclass", num_class=22, **sizes)  # fmt: skip
    lightgbm_model(folder, "regression", x, y, 1000, objective="regression")
    lightgbm_model(folder, "shallow-lightgbm", x, classes(y, 2), 100, objective="binary", num_leaves=15, max_depth=4)
    # Linear leaves of missing values are the plain ones; both are there.
    x = numbers(random, 20, missing=0.002)
    lightgbm_model(folder, "linear", x, target(random, x), 200, objective="regression", linear_tree=True)
    x = numbers(random, 500)
    lightgbm_model(folder, "wide-lightgbm", x, target(random, x), 500, objective="regression")
    codes = random.integers(0, 1000, size=(ROWS, 10)).astype(float)
    effects = random.normal(size=(10, 1000))
    y = sum(effects[column, codes[:, column].astype(int)] for column in range(10))
    x = numpy.hstack([codes, numbers(random, 10)])
    lightgbm_model(folder, "sets", x, y + target(random, x[:, 10:]), 500, objective="regression", categorical=list(range(10)),
                   max_cat_to_onehot=1, cat_smooth=1, cat_l2=1, max_cat_threshold=64, min_data_per_group=5)  # fmt: skip


def train_catboost(folder, random):
    options = {"iterations": 1000, "depth": 6, "thread_count": THREADS, "random_seed": 1, "verbose": False}
    options |= {"allow_writing_files": False}
    x = numbers(random, 20)
    model = catboost.CatBoostClassifier(**options).fit(x, classes(target(random, x), 2))
    model.save_model(folder / "catboost.cbm")
    x.astype("<f8").tofile(folder / "catboost.rows")
    x = numbers(random, 20)
    model = catboost.CatBoostClassifier(**options | {"iterations": 100}).fit(x, classes(target(random, x), 10))
    model.save_model(folder / "catboost-classes.cbm")
    x.astype("<f8").tofile(folder / "catboost-classes.rows")


def xgboost_model(folder, name, x, y, rounds, ending="json", **parameters):
    data = xgboost.DMatrix(x, y, nthread=THREADS)
    parameters = {"nthread": THREADS, "seed": 1, "tree_method": "hist", **parameters}
    booster = xgboost.train(parameters, data, rounds)
    booster.save_model(folder / f"{name}.{ending}")
    x.astype("<f8").tofile(folder / f"{name}.rows")


def train_xgboost(folder, random):
    x = numbers(random, 20)
    y = target(random, x)
    xgboost_model(folder, "shallow-xgboost", x, classes(y, 2), 100, objective="binary:logistic", max_depth=4)
    many = {"objective": "multi:softprob", "num_class": 22}
    xgboost_model(folder, "santander-xgboost", x, classes(y, 22), 40, max_depth=6, **many)
    x = numbers(random, 500)
    xgboost_model(folder, "wide-xgboost", x, target(random, x), 500, max_depth=6)
    x = numbers(random, 20)
    xgboost_model(folder, "loading", x, target(random, x), 460, max_depth=9, eta=0.05)
    size = (folder / "loading.json").stat().st_size
    assert LOADED_BYTES <= size <= 1.2 * LOADED_BYTES, f"the file to load has {size} bytes"


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for seed, train in enumerate((train_lightgbm, train_catboost, train_xgboost)):
        train(folder, numpy.random.default_rng(seed))


if __name__ == "__main__":
    main()
