"""The libraries' side of bench/trees: the same commands as bench/walker, through every public call that may be the fastest.

    time_trees.py MODEL ROWS
    time_trees.py --load MODEL

An answer to `one`, `batch`, `threads`, `explain-one` and `explain-batch` has µs a row for each call.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import numpy

CORES = len(os.sched_getaffinity(0))


class XGBoost:
    def __init__(self, model):
        import xgboost

        self.xgboost = xgboost
        self.booster = xgboost.Booster(model_file=model)

    def features(self):
        return self.booster.num_features()

    def dense(self, rows):
        """A call of the C interface with all arguments made before."""
        library = self.xgboost.core._LIB
        rows = numpy.ascontiguousarray(rows, dtype=numpy.float32)
        interface = {"data": [rows.ctypes.data, True], "shape": list(rows.shape), "typestr": "<f4", "version": 3}
        config = {"type": 0, "training": False, "iteration_begin": 0, "iteration_end": 0, "strict_shape": True}
        config |= {"missing": float("nan"), "cache_id": 0}
        arguments = (json.dumps(interface).encode(), json.dumps(config).encode())
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        result = ctypes.POINTER(ctypes.c_float)()
        out = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(result))

        def call():
            _kept = rows
            if library.XGBoosterPredictFromDense(self.booster.handle, *arguments, None, *out) != 0:
                raise RuntimeError("XGBoosterPredictFromDense failed")

        return call

    def calls(self, rows, threads):
        self.booster.set_param({"nthread": threads})
        rows = numpy.ascontiguousarray(rows, dtype=numpy.float32)
        # `predict` of the same DMatrix answers from what it has predicted before.
        return {
            "XGBoosterPredictFromDense": self.dense(rows),
            "inplace_predict": lambda: self.booster.inplace_predict(rows),
        }

    def single_calls(self, row):
        return self.calls(row.reshape(1, -1), 1)

    def explaining_calls(self, rows):
        """Rows are made a DMatrix before."""
        self.booster.set_param({"nthread": 1})
        matrix = self.xgboost.DMatrix(rows, nthread=1)
        library = self.xgboost.core._LIB
        config = {"type": 2, "training": False, "iteration_begin": 0, "iteration_end": 0, "strict_shape": True}
        config = json.dumps(config).encode()
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        result = ctypes.POINTER(ctypes.c_float)()
        out = (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(result))

        def call():
            if library.XGBoosterPredictFromDMatrix(self.booster.handle, matrix.handle, config, *out) != 0:
                raise RuntimeError("XGBoosterPredictFromDMatrix failed")

        return {
            "XGBoosterPredictFromDMatrix": call,
            "predict(pred_contribs=True)": lambda: self.booster.predict(matrix, pred_contribs=True),
        }

    def single_explaining_calls(self, row):
        return self.explaining_calls(row.reshape(1, -1))

    def answers(self, rows):
        return self.booster.inplace_predict(rows.astype(numpy.float32))

    def contributions(self, rows):
        return self.booster.predict(self.xgboost.DMatrix(rows), pred_contribs=True)

    def margins(self, rows):
        return self.booster.predict(self.xgboost.DMatrix(rows), output_margin=True)


class LightGBM:
    PREDICTIONS, CONTRIBUTIONS = 0, 3

    def __init__(self, model):
        import lightgbm

        self.library = lightgbm.basic._LIB
        self.booster = lightgbm.Booster(model_file=model)
        self.handle = self.booster._handle

    def features(self):
        return self.booster.num_feature()

    def outputs(self, count, what):
        per_row = self.booster.num_model_per_iteration()
        if what == self.CONTRIBUTIONS:
            per_row *= self.features() + 1
        return ctypes.c_int64(), numpy.empty(count * per_row)

    def calls(self, rows, threads, what=PREDICTIONS):
        rows = numpy.ascontiguousarray(rows)
        length, out = self.outputs(len(rows), what)
        double, int32 = ctypes.c_int(1), ctypes.c_int32
        arguments = (self.handle, rows.ctypes.data_as(ctypes.c_void_p), double, int32(rows.shape[0]), int32(rows.shape[1]),
                     ctypes.c_int(1), ctypes.c_int(what), ctypes.c_int(0), ctypes.c_int(-1),
                     f"num_threads={threads}".encode(), ctypes.byref(length),
                     out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)))  # fmt: skip

        def call():
            _kept = rows, out
            if self.library.LGBM_BoosterPredictForMat(*arguments) != 0:
                raise RuntimeError("LGBM_BoosterPredictForMat failed")

        return {
            "LGBM_BoosterPredictForMat": call,
            "predict": lambda: self.booster.predict(
                rows, num_threads=threads, pred_contrib=what == self.CONTRIBUTIONS
            ),
        }

    def single_calls(self, row, what=PREDICTIONS):
        """Rows one by one through the interface that LightGBM has for them, prepared once."""
        row = numpy.ascontiguousarray(row)
        length, out = self.outputs(1, what)
        fast = ctypes.c_void_p()
        done = self.library.LGBM_BoosterPredictForMatSingleRowFastInit(
            self.handle, ctypes.c_int(what), ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(1),
            ctypes.c_int32(row.size), b"num_threads=1", ctypes.byref(fast))  # fmt: skip
        if done != 0:
            raise RuntimeError("LGBM_BoosterPredictForMatSingleRowFastInit failed")
        arguments = (fast, row.ctypes.data_as(ctypes.c_void_p), ctypes.byref(length),
                     out.ctypes.data_as(ctypes.POINTER(ctypes.c_double)))  # fmt: skip

        def call():
            _kept = row, out
            if self.library.LGBM_BoosterPredictForMatSingleRowFast(*arguments) != 0:
                raise RuntimeError("LGBM_BoosterPredictForMatSingleRowFast failed")

        return {"LGBM_BoosterPredictForMatSingleRowFast": call}

    def explaining_calls(self, rows):
        return self.calls(rows, 1, self.CONTRIBUTIONS)

    def single_explaining_calls(self, row):
        return self.single_calls(row, self.CONTRIBUTIONS)

    def answers(self, rows):
        return self.booster.predict(rows)

    def contributions(self, rows):
        return self.booster.predict(rows, pred_contrib=True)

    def margins(self, rows):
        return self.booster.predict(rows, raw_score=True)


class CatBoost:
    def __init__(self, model):
        import catboost

        self.catboost = catboost
        self.model = catboost.CatBoostClassifier().load_model(model)

    def features(self):
        return len(self.model.feature_names_)

    def calls(self, rows, threads):
        rows = numpy.ascontiguousarray(rows, dtype=numpy.float32)
        pool = self.catboost.Pool(rows, thread_count=threads)

        def predict(data):
            return lambda: self.model.predict_proba(data, thread_count=threads)

        return {"predict_proba(Pool)": predict(pool), "predict_proba": predict(rows)}

    def single_calls(self, row):
        return self.calls(row.reshape(1, -1), 1)

    def explaining_calls(self, rows):
        pool = self.catboost.Pool(rows.astype(numpy.float32), thread_count=1)

        def explain():
            self.model.get_feature_importance(pool, type="ShapValues", thread_count=1)

        return {"get_feature_importance(Pool)": explain}

    def single_explaining_calls(self, row):
        return self.explaining_calls(row.reshape(1, -1))

    def contributions(self, rows):
        return self.model.get_feature_importance(self.catboost.Pool(rows.astype(numpy.float32)), type="ShapValues")

    def margins(self, rows):
        return self.model.predict(rows.astype(numpy.float32), prediction_type="RawFormulaVal")

    def answers(self, rows):
        answers = self.model.predict_proba(rows)
        return answers[:, 1] if answers.shape[1] == 2 else answers


LIBRARIES = {".txt": LightGBM, ".cbm": CatBoost, ".json": XGBoost, ".ubj": XGBoost}


def each_us(calls, rows_of_each, seconds):
    """µs a row of a list of calls, which are made again and again."""
    begin = time.perf_counter()
    done = 0
    while done == 0 or time.perf_counter() - begin < seconds:
        for call in calls:
            call()
        done += len(calls)
    return (time.perf_counter() - begin) * 1e6 / (done * rows_of_each)


def prepare(library, rows, what, count):
    """{name of the call: calls} and the rows of each."""
    single = {"one": library.single_calls, "explain-one": library.single_explaining_calls}.get(what)
    if single:
        prepared = [single(row) for row in rows[:count]]
        return {name: [calls[name] for calls in prepared] for name in prepared[0]}, 1
    if what == "explain-batch":
        calls = library.explaining_calls(rows[:count])
    else:
        calls = library.calls(rows[:count], {"batch": 1, "threads": CORES}[what])
    return {name: [call] for name, call in calls.items()}, count


def serve(model, rows):
    library = LIBRARIES[Path(model).suffix](model)
    rows = numpy.fromfile(rows, dtype="<f8").reshape(-1, library.features())
    print("{}", flush=True)
    prepared = {}
    for line in sys.stdin:
        what, count, *rest = line.split()
        if what in ("answers", "contributions", "margins"):
            print(json.dumps(getattr(library, what)(rows[: int(count)]).ravel().tolist()), flush=True)
            continue
        # Each has threads of its own: they are set where calls are prepared.
        if what not in prepared:
            prepared = {what: prepare(library, rows, what, int(count))}
        calls, of_each = prepared[what]
        seconds = float(rest[0]) / len(calls)
        print(json.dumps({name: each_us(own, of_each, seconds) for name, own in calls.items()}), flush=True)


def memory_kb(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise RuntimeError(f"no {name}")


def load_once(model):
    library = LIBRARIES[Path(model).suffix]
    import xgboost  # noqa: F401 - what is measured is the model alone

    before = memory_kb("VmHWM")
    begin = time.perf_counter()
    _loaded = library(model)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_kb": memory_kb("VmHWM") - before}))


if __name__ == "__main__":
    if sys.argv[1] == "--load":
        load_once(sys.argv[2])
    else:
        serve(*sys.argv[1:3])
