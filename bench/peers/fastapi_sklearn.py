"""FastAPI with a pipeline of scikit-learn that joblib has written."""

import os

import joblib
import pandas
import sklearn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
model = joblib.load(os.environ["MODEL_PATH"])

app = FastAPI()


class Customer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    tenure: float
    monthly: float
    contract: str
    payment: str
    region: str
    internet: str
    channel: str
    age: float | None
    calls: float
    late_payments: float
    total: float | None


class Predictions(BaseModel):
    predictions: list[list[float]]


@app.post("/predict")
async def predict(customer: Customer) -> Predictions:
    frame = pandas.DataFrame([customer.__dict__])
    return Predictions(predictions=model.predict_proba(frame).tolist())
