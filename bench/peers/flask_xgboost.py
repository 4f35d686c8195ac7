"""Flask with xgboost, as in many a first deployment: run by gunicorn with threads."""

import os

import numpy as np
import xgboost
from customer import Customer, to_row
from flask import Flask, jsonify, request
from pydantic import ValidationError

model = xgboost.Booster(model_file=os.environ["MODEL_PATH"])
model.set_param({"nthread": 1})

app = Flask(__name__)


@app.post("/predict")
def predict():
    customer = Customer.model_validate_json(request.get_data())
    row = np.array([to_row(customer)], dtype=np.float32)
    return jsonify(predictions=model.inplace_predict(row, validate_features=False).tolist())


@app.errorhandler(ValidationError)
def invalid(error):
    return jsonify(detail=error.errors(include_url=False, include_input=False)), 422
