"""Files that are not XGBoost's UBJSON or JSON, made by the libraries that write them.

    python3 -m venv venv && venv/bin/pip install -r requirements-others.txt
    venv/bin/python others.py

Writes tiny files to crates/engine/tests/golden/others/. The engine must say what each of them is.
What PyTorch and TensorFlow write is not here, because they are large: the tests have its first
bytes, from the documentation. xgboost-0.90.model was made once, by XGBoost 0.90 with
`train({"objective": "binary:logistic", "max_depth": 1}, data, 1).save_model(...)`; it stays.
So does histogram-1.5.pkl, which is histogram-codes-regressor of make_sklearn_estimators.py by scikit-learn 1.5.2.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pathlib
import pickle
import tarfile
import zipfile

os.environ["KERAS_BACKEND"] = "jax"

import catboost
import cloudpickle
import joblib
import lightgbm
import numpy as np
import pandas as pd
import py7zr
import safetensors.numpy
import skops.io
import xgboost as xgb
import zstandard
from sklearn.calibration import CalibratedClassifierCV
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

OTHERS = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/others"
X = np.random.default_rng(7).normal(size=(40, 2))
Y = (X[:, 0] > 0).astype(int)


def pickles():
    model = xgb.XGBClassifier(n_estimators=1, max_depth=1).fit(X, Y)
    booster = model.get_booster()
    for protocol in 0, 2, 5:
        with open(OTHERS / f"booster-{protocol}.pkl", "wb") as file:
            pickle.dump(booster, file, protocol=protocol)
    with open(OTHERS / "wrapper.pkl", "wb") as file:
        pickle.dump(model, file)
    with open(OTHERS / "wrapper-cloud.pkl", "wb") as file:
        cloudpickle.dump(model, file)
    joblib.dump(model, OTHERS / "wrapper.joblib")
    for name, held in [
        ("dict", {"version": 1, "model": model}),
        ("list", [model, ["a", "b"]]),
        ("tuple", (booster, ["a", "b"])),
    ]:
        with open(OTHERS / f"{name}.pkl", "wb") as file:
            pickle.dump(held, file)
    joblib.dump({"model": model}, OTHERS / "dict.joblib")
    search = GridSearchCV(xgb.XGBClassifier(n_estimators=1), {"max_depth": [1]}, cv=2).fit(X, Y)
    joblib.dump(search, OTHERS / "search.joblib")
    joblib.dump(make_pipeline(StandardScaler(), model).fit(X, Y), OTHERS / "pipeline.joblib")
    calibrated = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, Y)
    joblib.dump(calibrated, OTHERS / "sklearn.joblib")
    process = make_pipeline(StandardScaler(), GaussianProcessRegressor()).fit(X[:3], Y[:3])
    joblib.dump(process, OTHERS / "process.joblib")
    unread = make_pipeline(StandardScaler(), KernelRidge()).fit(X[:3], Y[:3])
    joblib.dump(unread, OTHERS / "kernel-ridge.joblib")
    for method in "zlib", "gzip", "bz2", "xz", "lzma", "lz4":
        joblib.dump(booster, OTHERS / f"{method}.joblib", compress=(method, 3))
    packed = zstandard.compress((OTHERS / "wrapper.joblib").read_bytes())
    (OTHERS / "zstd.joblib").write_bytes(packed)
    skops.io.dump(LogisticRegression().fit(X, Y), OTHERS / "sklearn.skops")
    return booster


def xgboost_files(booster):
    booster.dump_model(OTHERS / "dump.txt")
    booster.dump_model(OTHERS / "dump.json", dump_format="json")
    booster.dump_model(OTHERS / "dump.dot", dump_format="dot")
    (OTHERS / "config.json").write_text(booster.save_config())
    model = bytes(booster.save_raw("json"))
    (OTHERS / "model.json.gz").write_bytes(gzip.compress(model, mtime=0))
    (OTHERS / "model.json.bz2").write_bytes(bz2.compress(model))
    (OTHERS / "model.json.xz").write_bytes(lzma.compress(model))
    (OTHERS / "model.json.lzma").write_bytes(lzma.compress(model, lzma.FORMAT_ALONE))
    (OTHERS / "model.json.zst").write_bytes(zstandard.compress(model))
    with zipfile.ZipFile(OTHERS / "model.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.json", model)
    with tarfile.open(OTHERS / "model.tar", "w") as file:
        member = tarfile.TarInfo("model.json")
        member.size = 2
        file.addfile(member, io.BytesIO(b"{}"))
    with py7zr.SevenZipFile(OTHERS / "model.7z", "w") as file:
        file.writestr(model, "model.json")


def other_libraries():
    parameters = {"objective": "binary", "num_leaves": 2, "verbose": -1, "min_data_in_leaf": 5}
    booster = lightgbm.train(parameters, lightgbm.Dataset(X, Y), num_boost_round=1)
    (OTHERS / "lightgbm.json").write_text(json.dumps(booster.dump_model()))
    with open(OTHERS / "lightgbm.pkl", "wb") as file:
        pickle.dump(booster, file)
    model = catboost.CatBoostClassifier(
        iterations=1, depth=1, verbose=False, allow_writing_files=False
    ).fit(X, Y)
    for format, name in [("python", "py"), ("cpp", "cpp"),
                         ("pmml", "pmml"), ("coreml", "mlmodel")]:
        model.save_model(str(OTHERS / f"catboost.{name}"), format=format)
    with open(OTHERS / "catboost.pkl", "wb") as file:
        pickle.dump(model, file)
    for path in OTHERS.glob("catboost.*"):
        # Who built the library does not belong here.
        path.write_bytes(path.read_bytes().partition(b"Git info")[0])
    # What texts and embeddings are made into is in parts of the file of their own.
    for kind, column in [
        ("text", np.array(["bad night", "good day"])[Y].tolist()),
        ("embedding", np.stack([Y, -Y], 1).tolist()),
    ]:
        table = pd.DataFrame({"x": X[:, 1], "other": column})
        pool = catboost.Pool(table, Y, **{f"{kind}_features": ["other"]})
        fitted = model.copy().fit(pool)
        metadata = fitted.get_metadata()
        for key in "train_finish_time", "model_guid", "catboost_version_info", "output_options", "training":
            if key in metadata:
                del metadata[key]
        fitted.save_model(str(OTHERS / f"catboost-{kind}s.cbm"))
    safetensors.numpy.save_file({"w": np.zeros(2, np.float32)}, OTHERS / "model.safetensors")


def keras_files():
    import keras

    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.save(OTHERS / "model.keras")
    model.save(OTHERS / "model.h5")


def data_files():
    table = pd.DataFrame({"age": [1, 2], "town": ["a", "b"]})
    table.to_csv(OTHERS / "table.csv", index=False)
    table.to_csv(OTHERS / "table.tsv", index=False, sep="\t")
    table.to_parquet(OTHERS / "table.parquet")
    table.to_feather(OTHERS / "table.feather")
    table.to_json(OTHERS / "table.jsonl", orient="records", lines=True)
    np.save(OTHERS / "array.npy", X[:2])
    np.savez(OTHERS / "arrays.npz", x=X[:2])


if __name__ == "__main__":
    OTHERS.mkdir(exist_ok=True)
    xgboost_files(pickles())
    other_libraries()
    keras_files()
    data_files()
