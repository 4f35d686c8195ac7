"""scikit-learn's side of bench/sklearn: the commands of bench/walker, through its own predict_proba or predict.

    time_sklearn.py MODEL DATA

Rows are a pandas frame where columns are chosen by name, else numpy's, or texts, and are made before. Nothing of a call is
checked that need not be: numbers are taken to be finite and parameters to be right. All work is done by one thread.
"""

import json
import sys
import warnings

import joblib
import numpy
import sklearn
from time_trees import each_us

# Models of today that will warn tomorrow.
warnings.simplefilter("ignore")


def main():
    model, rows = (joblib.load(path) for path in sys.argv[1:3])
    jobs = {name: 1 for name in model.get_params() if name.split("__")[-1] == "n_jobs"}
    model.set_params(**jobs)
    predict = getattr(model, "predict_proba", model.predict)
    print(json.dumps({"description": f"scikit-learn {sklearn.__version__}"}), flush=True)
    prepared = {}
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for line in sys.stdin:
            what, count, *rest = line.split()
            count = int(count)
            if what == "answers":
                print(json.dumps(answers(model, predict(rows[:count]))), flush=True)
                continue
            if what not in prepared:
                parts = [rows[place : place + 1] for place in range(count)] if what == "one" else [rows[:count]]
                prepared[what] = [lambda part=part: predict(part) for part in parts], len(parts[0])
            calls, of_each = prepared[what]
            print(json.dumps({predict.__name__: each_us(calls, of_each, float(rest[0]))}), flush=True)


def answers(model, found):
    """As the engine answers: of two classes the second one's probability, a class by its place."""
    if found.ndim == 1:
        return numpy.searchsorted(model.classes_, found).astype(float).tolist()
    return (found[:, 1] if found.shape[1] == 2 else found).ravel().tolist()


if __name__ == "__main__":
    main()
