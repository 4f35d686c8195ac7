"""Fits the pipelines that bench/sklearn compares, on invented data, and writes them with rows to predict.

    train_sklearn.py FOLDER

A pipeline `NAME` becomes `NAME.joblib`, `NAME.data` (1,000 rows as its own calls take them) and `NAME.jsonl` (the same for
the engine: a list of values a line). `customers.jsonl` has those of the pipeline that is served, as records.
"""

import json
import sys
import warnings
from pathlib import Path

import joblib
import numpy
import pandas
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

FITTED, ASKED = 5_000, 1_000
COUNT = FITTED + ASKED
NUMBERS = ["tenure", "monthly", "total", "age", "calls", "late_payments"]
CATEGORIES = ["contract", "payment", "region", "internet", "channel"]
WORDS_IN_TEXTS = 20_000

# `SVC(probability=True)` will end; files that have it are what is compared.
warnings.simplefilter("ignore")


def customers(random):
    """A table of numbers with gaps and of categories, and who leaves."""

    def one_of(*texts):
        return random.choice(texts, COUNT, p=random.dirichlet(numpy.full(len(texts), 4)))

    table = pandas.DataFrame({
        "tenure": random.integers(0, 72, COUNT),
        "monthly": random.uniform(18, 118, COUNT).round(2),
        "contract": one_of("month-to-month", "one year", "two years"),
        "payment": one_of("card", "transfer", "check", "cash"),
        "region": one_of(*(f"region {number}" for number in range(20))),
        "internet": one_of("fibre", "dsl", "none"),
        "channel": one_of("shop", "web", "phone", "partner"),
        "age": random.normal(47, 15, COUNT).round(),
        "calls": random.poisson(2, COUNT),
        "late_payments": random.poisson(0.4, COUNT),
    })
    table["total"] = (table.tenure * table.monthly * random.uniform(0.9, 1.1, COUNT)).round(2)
    score = 1.5 * (table.contract == "month-to-month") + 0.5 * (table.internet == "fibre") + table.monthly / 60
    score += 0.4 * table.late_payments + 0.2 * table.calls - table.tenure / 18 - (table.age - 40) / 50
    leaves = random.random(COUNT) < 1 / (1 + numpy.exp(-score))
    for column in ("total", "age"):
        table[column] = table[column].mask(random.random(COUNT) < 0.08)
    return table, numpy.where(leaves, "yes", "no")


def messages(random):
    """Texts of some 60 words, most of them rare, and what they are about."""
    words = numpy.array([f"{first}{second}{third}" for first in "bdfgklmnprst" for second in ("an", "el", "io", "ur", "ost", "ema")
                         for third in (f"{a}{b}" for a in "aeiouy" for b in "bcdfghjklmnpqrstvwxz")])  # fmt: skip
    shares = 1 / numpy.arange(3, len(words) + 3)
    shares /= shares.sum()
    topics = random.integers(0, 5, COUNT)
    texts = []
    for topic in topics:
        common = random.choice(words, random.integers(30, 90), p=shares)
        own = random.choice(words[topic * 40 : topic * 40 + 40], 6)
        each = numpy.concatenate([common, own])
        random.shuffle(each)
        texts.append(" ".join(each).capitalize() + ".")
    return texts, topics


def measurements(random, width):
    x = random.normal(size=(COUNT, width))
    y = numpy.sin(x[:, :4] * 2).sum(axis=1) + x[:, 4] * x[:, 5] + random.normal(size=COUNT) * 0.3
    return x, y


def columns(numbers, categories):
    return ColumnTransformer([("numbers", numbers, NUMBERS), ("categories", categories, CATEGORIES)])


def scaled():
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


def one_hot(**options):
    return OneHotEncoder(handle_unknown="ignore", **options)


def coded():
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


def written(value):
    return None if value != value else value


def save(folder, name, pipeline, rows, target):
    pipeline.fit(rows[:FITTED], target[:FITTED])
    asked = rows[FITTED:]
    joblib.dump(pipeline, folder / f"{name}.joblib")
    joblib.dump(asked, folder / f"{name}.data")
    lists = [[text] for text in asked] if isinstance(asked, list) else getattr(asked, "values", asked).tolist()
    with open(folder / f"{name}.jsonl", "w") as file:
        file.writelines(json.dumps([written(value) for value in row]) + "\n" for row in lists)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(7)
    table, leaves = customers(random)

    def of_columns(name, last, numbers=None, categories=None):
        pipeline = make_pipeline(columns(numbers or scaled(), categories or one_hot()), last)
        save(folder, name, pipeline, table, leaves)

    filled = SimpleImputer(strategy="median")
    of_columns("boosting", GradientBoostingClassifier(random_state=0), filled)
    of_columns("histogram", HistGradientBoostingClassifier(early_stopping=False, random_state=0), "passthrough", coded())
    of_columns("logistic", LogisticRegression(max_iter=1000))
    of_columns("forest", RandomForestClassifier(min_samples_leaf=2, random_state=0), filled, coded())
    of_columns("calibrated", CalibratedClassifierCV(LinearSVC()))
    dense = one_hot(sparse_output=False)
    members = [("logistic", LogisticRegression(max_iter=1000)), ("forest", RandomForestClassifier(50, max_depth=8, random_state=0)),
               ("bayes", GaussianNB())]  # fmt: skip
    of_columns("voting", VotingClassifier(members, voting="soft"), None, dense)
    with open(folder / "customers.jsonl", "w") as file:
        for record in table[FITTED:].to_dict("records"):
            file.write(json.dumps({name: written(value) for name, value in record.items()}) + "\n")

    texts, topics = messages(random)
    words = {"max_features": WORDS_IN_TEXTS}
    is_first = numpy.where(topics < 2, "urgent", "normal")
    save(folder, "text-logistic", make_pipeline(TfidfVectorizer(**words), LogisticRegression()), texts, is_first)
    pairs = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, **words)
    save(folder, "text-machine", make_pipeline(pairs, LinearSVC()), texts, topics)

    x, y = measurements(random, 20)
    half, thirds = numpy.digitize(y, [0]), numpy.digitize(y, numpy.quantile(y, [1 / 3, 2 / 3]))
    save(folder, "machine", make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)), x, half)
    save(folder, "network", make_pipeline(StandardScaler(), MLPClassifier((64, 32), random_state=0)), x, thirds)
    save(folder, "bayes", GaussianNB(), x, thirds)
    x, y = measurements(random, 8)
    save(folder, "neighbors", make_pipeline(StandardScaler(), KNeighborsClassifier()), x, numpy.digitize(y, [0]))


if __name__ == "__main__":
    main()
