"""Golden explanations: what XGBoost says that each feature added, for the models that make.py has made.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python contributions.py

Writes crates/engine/tests/golden/contributions/<folder>.json: for each model file its contributions as
[row][margin][feature], the base value last. The rows are those of the folder's rows.json. A model is taken
in one of its formats.
"""

import json
import pathlib

import numpy as np
import xgboost as xgb

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden"
FOLDERS = ["1.7", "3.2", "categories-1.7", "categories-3.2"]


def contributions(path, rows):
    booster = xgb.Booster(model_file=path)
    names = {"feature_names": booster.feature_names, "feature_types": booster.feature_types}
    best = booster.attr("best_iteration")
    until = 0 if best is None else int(best) + 1
    matrix = xgb.DMatrix(rows, **names, enable_categorical=True)
    made = booster.predict(matrix, pred_contribs=True, iteration_range=(0, until))
    return np.asarray(made, dtype=np.float32).reshape(len(rows), -1, rows.shape[1] + 1)


def number(value):
    """With the digits that an f32 has; null where it is infinite."""
    return float(str(value)) if np.isfinite(value) else None


def main():
    (GOLDEN / "contributions").mkdir(exist_ok=True)
    for folder in FOLDERS:
        source = GOLDEN / folder
        rows = json.loads((source / "rows.json").read_text())
        rows = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float32)
        models = {}
        for path in sorted(source.iterdir()):
            stem = path.name.split(".")[0]
            # What was never boosted the library does not explain, or as another version would.
            if path.name == "rows.json" or ".expected." in path.name or stem.startswith("unfitted"):
                continue
            if not any(known.startswith(f"{stem}.") for known in models):
                made = contributions(path, rows)
                models[path.name] = [[[number(v) for v in m] for m in row] for row in made]
        text = json.dumps(models, separators=(",", ":"))
        (GOLDEN / "contributions" / f"{folder}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
