"""FastAPI with xgboost."""

import os

import numpy as np
import xgboost
from customer import Customer, Predictions, to_row
from fastapi import FastAPI

model = xgboost.Booster(model_file=os.environ["MODEL_PATH"])
model.set_param({"nthread": 1})

app = FastAPI()


@app.post("/predict")
async def predict(customer: Customer) -> Predictions:
    row = np.array([to_row(customer)], dtype=np.float32)
    probabilities = model.inplace_predict(row, validate_features=False)
    return Predictions(predictions=probabilities.tolist())
