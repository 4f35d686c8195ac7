"""Golden predictions of releases that do what later ones do otherwise, or do not say in the file how many trees an
iteration has.

    python3.8 -m venv venv && venv/bin/pip install numpy==1.19.5 scipy==1.5.4 scikit-learn==0.24.2 xgboost==1.5.2
    venv/bin/python old.py            (the same with xgboost 1.4.2, 1.2.1, 1.0.2, and with 1.6.2 and pandas 1.1.5)

Writes to crates/engine/tests/golden/<major.minor>/ as make.py does, and with 1.6 to categories-1.6/ too. The predictions are those of the
process that trained: a model that these releases load again counts its trees wrongly.
"""

import json
import pathlib

import numpy as np
import xgboost as xgb

VERSION = ".".join(xgb.__version__.split(".")[:2])
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden"
FOLDER = GOLDEN / VERSION
RNG = np.random.default_rng(11)
X = RNG.normal(size=(300, 4)).astype(np.float32)
SCORE = X[:, 0] - 0.6 * X[:, 1] + RNG.normal(scale=0.8, size=300)
CLASSES = np.digitize(SCORE, [-0.5, 0.5])
TRAIN, VALID = slice(0, 200), slice(200, 300)
ROWS = X[:8]
SETTINGS = dict(max_depth=3, subsample=0.7, random_state=5)


def write_numbers(path, values):
    path.write_text(json.dumps([[float(v) for v in row] for row in values], separators=(",", ":")) + "\n")


def save(name, booster, expected):
    booster.save_model(str(FOLDER / f"{name}.json"))
    expected = np.asarray(expected, dtype=np.float32).reshape(len(ROWS), -1)
    write_numbers(FOLDER / f"{name}.expected.json", expected)


def stopped(model, label, predict):
    fit = dict(eval_set=[(X[VALID], label[VALID])], early_stopping_rounds=2, verbose=False)
    model.fit(X[TRAIN], label[TRAIN], **fit)
    booster = model.get_booster()
    trees = len(booster.get_dump())
    print(VERSION, type(model).__name__, model.best_iteration, booster.best_ntree_limit, trees)
    save(predict, booster, (model.predict_proba if predict.startswith("classes") else model.predict)(ROWS))


FOLDER.mkdir(exist_ok=True)
write_numbers(FOLDER / "rows.json", ROWS)

forest = xgb.XGBRFRegressor(n_estimators=20, **SETTINGS).fit(X[TRAIN], SCORE[TRAIN])
save("forest", forest.get_booster(), forest.predict(ROWS))

many = dict(n_estimators=30, learning_rate=0.6, **SETTINGS)
stopped(xgb.XGBRegressor(**many), SCORE, "stopped")
stopped(xgb.XGBRegressor(num_parallel_tree=3, **many), SCORE, "parallel-stopped")
stopped(xgb.XGBClassifier(num_parallel_tree=3, **many), CLASSES, "classes-parallel-stopped")

train = xgb.DMatrix(X[TRAIN], SCORE[TRAIN])
valid = xgb.DMatrix(X[VALID], SCORE[VALID])
settings = dict(max_depth=3, subsample=0.7, seed=5, eta=0.6, num_parallel_tree=3)
native = xgb.train(settings, train, 30, [(valid, "valid")], early_stopping_rounds=2, verbose_eval=False)
print(VERSION, "native", native.best_iteration, native.best_ntree_limit, native.attributes())
save("native-parallel-stopped", native, native.predict(xgb.DMatrix(ROWS), ntree_limit=native.best_ntree_limit))

# The intercept is a probability, since 1.3.1 a margin.
binary = dict(settings, objective="binary:logitraw", base_score=0.3)
raw = xgb.train(binary, xgb.DMatrix(X[TRAIN], SCORE[TRAIN] > 0), 3)
save("logitraw-base", raw, raw.predict(xgb.DMatrix(ROWS)))

if VERSION in ("1.4", "1.5"):
    # Continued with another number of trees per iteration, which later releases no longer allow.
    for name, first, second in [("continued", 3, 4), ("whole-continued", 3, 2), ("classes-continued", 3, 2)]:
        classes = name.startswith("classes")
        matrix = xgb.DMatrix(X[TRAIN], (CLASSES if classes else SCORE)[TRAIN])
        many = dict(settings, **(dict(objective="multi:softprob", num_class=3) if classes else {}))
        begun = xgb.train(dict(many, num_parallel_tree=first), matrix, 3 if classes else 2)
        booster = xgb.train(dict(many, num_parallel_tree=second), matrix, 1, xgb_model=begun)
        print(VERSION, name, len(booster.get_dump()), booster.attributes())
        save(name, booster, booster.predict(xgb.DMatrix(ROWS), ntree_limit=booster.best_ntree_limit))

if VERSION == "1.6":
    import pandas as pd

    # Of so many categories that sets have bits for different numbers of them. One that a set has none for is missing.
    FOLDER = GOLDEN / "categories-1.6"
    FOLDER.mkdir(exist_ok=True)
    codes = RNG.integers(0, 150, 300)
    table = pd.DataFrame({"town": pd.Categorical(codes, categories=range(150)), "age": X[:, 0]})
    ROWS = np.stack([codes, X[:, 0]], axis=1)[:24]
    write_numbers(FOLDER / "rows.json", ROWS)
    matrix = xgb.DMatrix(table, codes % 7 * (X[:, 0] > 0) + codes / 50, enable_categorical=True)
    for name, limit in [("one-hot", 1000), ("sets", 1)]:
        many = dict(max_depth=4, tree_method="hist", max_cat_to_onehot=limit, min_child_weight=0)
        booster = xgb.train(many, matrix, 4)
        save(name, booster, booster.predict(xgb.DMatrix(table[:24], enable_categorical=True)))
