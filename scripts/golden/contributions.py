"""Golden explanations: what each library says that a feature added, for the models that the other scripts have made.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python contributions.py xgboost
    (the same with requirements-3.4.txt and xgboost-3.4, with requirements-lightgbm.txt and lightgbm, and with
    requirements-catboost.txt and catboost)

Writes crates/engine/tests/golden/contributions/<folder>.json: for each model file its contributions as
[row][margin][feature], the base value last. The rows are those of the folder's rows.json; models of LightGBM that
have categories are asked about codes.json, those of CatBoost about the rows of <name>.expected.json. A model is taken
in one of its formats.

CatBoost 1.2 is wrong about trees that are not symmetric: where a leaf hangs beside a split, it leaves the split out of
the game, and what it gives does not add up to its own prediction. For these the contributions are computed here by
their definition, from the model as the library writes it in JSON.
"""

import copy
import importlib
import itertools
import json
import math
import pathlib
import sys

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden"
FOLDERS = {
    "xgboost": ["1.7", "3.2", "categories-1.7", "categories-3.2"],
    "xgboost-3.4": ["3.4", "categories-3.4"],
    "lightgbm": ["lightgbm-3.3", "lightgbm-4.7"],
    "catboost": ["catboost"],
}
# Of the older version those that may differ in what the file says.
OLD = ["binary.txt", "category-sets.txt", "dart-multiclass.txt", "missing-mixed.txt", "rf-multiclass.txt"]


def read_rows(path, dtype):
    rows = json.loads(path.read_text())
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=dtype)


def xgboost(folder):
    xgb = importlib.import_module("xgboost")
    rows = read_rows(folder / "rows.json", np.float32)
    models = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.split(".")[0]
        # What was never boosted the library does not explain, or as another version would.
        if path.name == "rows.json" or ".expected." in path.name or stem.startswith("unfitted"):
            continue
        if any(known.startswith(f"{stem}.") for known in models):
            continue
        booster = xgb.Booster(model_file=path)
        if stem.startswith("vector-") and folder.name == "3.2":
            booster = xgb.Booster(model_file=bytearray(parted(booster)))
        names = {"feature_names": booster.feature_names, "feature_types": booster.feature_types}
        best = booster.attr("best_iteration")
        until = 0 if best is None else int(best) + 1
        matrix = xgb.DMatrix(rows, **names, enable_categorical=True)
        made = booster.predict(matrix, pred_contribs=True, iteration_range=(0, until))
        models[path.name] = np.asarray(made, dtype=np.float32).reshape(len(rows), -1, rows.shape[1] + 1)
    return models


def parted(booster):
    """A model whose leaves are vectors as one with a tree for each output: the others the library does not explain."""
    document = json.loads(booster.save_raw("json"))
    model = document["learner"]["gradient_booster"]["model"]
    outputs, trees = int(model["trees"][0]["tree_param"]["size_leaf_vector"]), []
    for tree in model["trees"]:
        numbers = np.array(tree.pop("leaf_weights")).reshape(-1, outputs)
        leaves = [node for node, child in enumerate(tree["left_children"]) if child == -1]
        for output in range(outputs):
            own = copy.deepcopy(tree)
            own["id"], own["tree_param"]["size_leaf_vector"] = len(trees), "1"
            own["base_weights"] = [0.0] * len(own["left_children"])
            for leaf in leaves:
                own["split_conditions"][leaf] = float(numbers[tree["right_children"][leaf], output])
                own["right_children"][leaf] = -1
            trees.append(own)
    model["gbtree_model_param"]["num_trees"] = str(len(trees))
    model["iteration_indptr"] = list(range(0, len(trees) + 1, outputs))
    model["tree_info"] = list(range(outputs)) * len(model["trees"])
    model["trees"] = trees
    return json.dumps(document).encode()


def lightgbm(folder):
    lgb = importlib.import_module("lightgbm")
    models = {}
    for path in sorted(folder.glob("*.txt")):
        # The library does not explain linear trees.
        if "linear" in path.name or (folder.name.endswith("3.3") and path.name not in OLD):
            continue
        booster = lgb.Booster(model_file=str(path))
        file = "codes.json" if path.name.startswith("category") else "rows.json"
        rows = read_rows(folder / file, np.float64)[:, : booster.num_feature()]
        made = booster.predict(rows, pred_contrib=True).reshape(len(rows), -1, rows.shape[1] + 1)
        margins = booster.predict(rows, raw_score=True).reshape(len(rows), -1)
        assert np.allclose(made.sum(axis=2), margins, rtol=0, atol=1e-9)
        if path.name.startswith("rf-"):
            # Both are sums, and a forest predicts from the mean over its iterations.
            made /= booster.current_iteration()
        models[path.name] = made
    return models


def catboost(folder):
    library = importlib.import_module("catboost")
    models = {}
    for path in sorted(folder.glob("*.cbm")):
        expected = json.loads((folder / f"{path.stem}.expected.json").read_text())
        model = library.CatBoost()
        model.load_model(str(path))
        scale, bias = model.get_scale_and_bias()
        # The library takes no other scale; the contributions are those of the sums, scaled.
        model.set_scale_and_bias(1, bias)
        texts = model.get_cat_feature_indices()
        rows = [
            [v if i in texts else np.nan if v is None else float(v) for i, v in enumerate(row)]
            for row in expected["rows"]
        ]
        made = model.get_feature_importance(library.Pool(rows, cat_features=texts), type="ShapValues")
        # Of a model of a mean and its uncertainty the library explains the mean.
        made = made.reshape(len(rows), -1, made.shape[-1])
        bias = np.atleast_1d(bias)[: made.shape[1]]
        made[:, :, :-1] *= scale
        made[:, :, -1] = (made[:, :, -1] - bias) * scale + bias
        margins = np.array(expected["raw"]).reshape(len(rows), -1)[:, : made.shape[1]]
        document = json.loads((folder / f"{path.stem}.json").read_text())
        if np.allclose(made.sum(axis=2), margins, rtol=0, atol=1e-9):
            models[path.name] = made
        elif not texts:
            above = [
                feature["has_nans"] and feature["nan_value_treatment"] == "AsTrue"
                for feature in document["features_info"]["float_features"]
            ]
            # A missing value is compared as one above all borders, or as one below.
            rows = [
                [(np.inf if high else -np.inf) if np.isnan(v) else v for v, high in zip(row, above)] for row in rows
            ]
            made = np.array([by_definition(document["trees"], document["scale_and_bias"], row) for row in rows])
            assert np.allclose(made.sum(axis=2), margins, rtol=0, atol=1e-9), path
            models[path.name] = made
    return models


def by_definition(trees, scale_and_bias, row):
    """Shapley values of a row in trees of CatBoost's JSON that ask about numbers: [margin][feature]."""
    scale, bias = scale_and_bias

    def weight(node):
        return node["weight"] if "split" not in node else weight(node["left"]) + weight(node["right"])

    def value(node, known):
        if "split" not in node:
            return np.atleast_1d(np.array(node["value"], float))
        split = node["split"]
        feature, sides = split["float_feature_index"], [node["left"], node["right"]]
        if feature in known:
            return value(sides[int(row[feature] > split["border"])], known)
        weights = [weight(side) for side in sides]
        shares = np.array(weights) / sum(weights) if sum(weights) else [0.5, 0.5]
        return sum(share * value(side, known) for share, side in zip(shares, sides))

    width = len(row)
    values = {
        known: scale * sum(value(tree, known) for tree in trees) + bias
        for size in range(width + 1) for known in itertools.combinations(range(width), size)
    }
    made = [
        sum(
            (values[tuple(sorted({*known, feature}))] - values[known]) / (width * math.comb(width - 1, len(known)))
            for known in values if feature not in known
        )
        for feature in range(width)
    ]
    return np.array([*made, values[()]]).T


def number(value):
    """With as many digits as an f32 has; null where it is infinite."""
    return float(f"{value:.9g}" if isinstance(value, np.float64) else str(value)) if np.isfinite(value) else None


def main(library):
    (GOLDEN / "contributions").mkdir(exist_ok=True)
    for folder in FOLDERS[library]:
        explain = {"xgboost": xgboost, "lightgbm": lightgbm, "catboost": catboost}[library.split("-")[0]]
        models = explain(GOLDEN / folder)
        listed = {name: [[[number(v) for v in m] for m in row] for row in made] for name, made in models.items()}
        text = json.dumps(listed, separators=(",", ":"))
        (GOLDEN / "contributions" / f"{folder}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
