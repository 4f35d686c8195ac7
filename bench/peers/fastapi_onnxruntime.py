"""FastAPI with onnxruntime: the fastest common way to serve this model from Python."""

import os

import numpy as np
import onnxruntime
from customer import Customer, Predictions, to_row
from fastapi import FastAPI

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    os.environ["MODEL_PATH"], options, providers=["CPUExecutionProvider"]
)

app = FastAPI()


@app.post("/predict")
async def predict(customer: Customer) -> Predictions:
    row = np.array([to_row(customer)], dtype=np.float32)
    (probabilities,) = session.run(["probabilities"], {"input": row})
    return Predictions(predictions=probabilities.tolist())
