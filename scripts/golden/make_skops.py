"""Models of make_sklearn.py and make_sklearn_estimators.py as skops writes them.

    venv/bin/python make_skops.py

Reads pickles of crates/engine/tests/golden/sklearn-VERSION, and writes NAME.skops beside NAME.pkl; what scikit-learn
predicts stands in NAME.expected.json.
"""

import pickle
import zipfile

import skops
import skops.io
from make_sklearn import FOLDER

# One of each kind of value that estimators have.
NAMES = """
ada-3 ada-regressor bagging-columns-3 bent bernoulli-counts best-share binarizer bins boosting boosting-huber calibrated-2
calibrated-isotonic-2 categorical-3 catboost changed-log changed-normal count count-pairs donors-weighed eliminated extra-trees forest from-lasso function function-log
gaussian-3 histogram-3 histogram-codes imputer-code isolation k-means lightgbm lightgbm-stopped linear-regression logistic-cv-2
logistic-one-by-one-3 min-max mini-batch-k-means nearest-2 nearest-cosine-2 nearest-words-euclidean network-3 network-poisson normalizer-2
one-hot-ignore one-hot-missing one-hot-numbers one-hot-rare ordinal-missing passed pca-whiten places power products-high process-3 process-sum
quadratic-2 quantile-normal remainder ridge-classifier-3 ridge-two-targets robust sequential sgd-hinge-3 spline spline-periodic stack-steps svc-2 svc-words svd-text target-3 text-columns
tfidf titanic titanic-3 tree-3 tree-regressor union unnamed variance vote-hard-3 vote-regressor xgboost xgboost-missing-pipeline
""".split()
# Old versions do not compress, and take more room.
OLD = "count forest function imputer-code lightgbm one-hot-rare places svc-2 tfidf titanic xgboost".split()
METHODS = {"titanic-3": zipfile.ZIP_STORED, "one-hot-rare": zipfile.ZIP_BZIP2}


def packed(name):
    return {"compression": METHODS.get(name, zipfile.ZIP_DEFLATED), "compresslevel": 9}


if __name__ == "__main__":
    is_old = skops.__version__.startswith("0.5.")
    for name in OLD if is_old else NAMES:
        model = pickle.loads((FOLDER / f"{name}.pkl").read_bytes())
        skops.io.dump(model, FOLDER / f"{name}.skops", **({} if is_old else packed(name)))
