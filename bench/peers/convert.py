"""Converts the XGBoost model to ONNX and checks that it still says the same.

usage: convert.py MODEL.ubj RECORDS.jsonl EXPECTED.jsonl OUT.onnx
"""

import json
import os
import sys

import numpy as np
import onnxmltools
import onnxruntime
import xgboost
from customer import FEATURES, Customer, to_row
from onnxmltools.convert.common.data_types import FloatTensorType

TOLERANCE = 1e-5


def main(model_path, records_path, expected_path, out_path):
    model = xgboost.Booster(model_file=model_path)
    assert model.feature_names == [name for name, _ in FEATURES], "the peers' columns differ"
    model.feature_names = [f"f{index}" for index in range(len(FEATURES))]  # the converter's demand
    onnx = onnxmltools.convert_xgboost(
        model, initial_types=[("input", FloatTensorType([None, len(FEATURES)]))]
    )

    with open(records_path, encoding="utf-8") as records:
        rows = [to_row(Customer.model_validate_json(record)) for record in records]
    with open(expected_path, encoding="utf-8") as lines:
        expected = np.array([json.loads(line) for line in lines])
    session = onnxruntime.InferenceSession(onnx.SerializeToString())
    (got,) = session.run(["probabilities"], {"input": np.array(rows, dtype=np.float32)})
    worst = float(np.abs(got - expected).max())
    assert worst <= TOLERANCE, f"the converted model is off by {worst}"

    with open(out_path + ".part", "wb") as out:
        out.write(onnx.SerializeToString())
    os.replace(out_path + ".part", out_path)
    print(f"converted, at most {worst:.1e} off over {len(rows)} records")


if __name__ == "__main__":
    main(*sys.argv[1:])
