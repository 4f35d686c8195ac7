"""Pipelines as people fit them: mixed columns, missing values, rare categories, texts.

    python3 -m venv venv && venv/bin/pip install -r requirements-onnx.txt
    venv/bin/python make_pipelines.py

Writes to crates/engine/tests/golden/pipelines, for each a pickle, what scikit-learn predicts (predict_proba, or predict
without it) for rows that were not fitted, and the same in ONNX where skl2onnx converts it. All data comes from a
seeded generator.
"""

import json
import pathlib
import pickle
import warnings

import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import xgboost
from onnx import helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

warnings.simplefilter("ignore")

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/engine/tests/golden/pipelines"
FITTED, ASKED = 220, 12

random = np.random.default_rng(30)
COUNT = FITTED + ASKED


def chosen(texts, shares):
    return pd.Series(random.choice(texts, COUNT, p=shares)).astype(object)


def holes(column, share):
    return column.mask(random.random(COUNT) < share, np.nan)


def logistic(score):
    return random.random(COUNT) < 1 / (1 + np.exp(-score))


def passengers():
    table = pd.DataFrame({
        "class": random.integers(1, 4, COUNT),
        "sex": chosen(["female", "male"], [0.36, 0.64]),
        "age": random.gamma(6, 5, COUNT).round(1),
        "relatives": random.poisson(0.9, COUNT),
        "port": chosen(["Cherbourg", "Queenstown", "Southampton", "Belfast"], [0.2, 0.08, 0.7, 0.02]),
    })
    table["fare"] = (random.gamma(2, 40, COUNT) / table["class"]).round(2)
    survived = logistic((table.sex == "female") * 2.5 - table["class"] + 1 - (table.age - 30) / 40)
    table["age"] = holes(table.age, 0.2)
    return table, survived.astype(int)


def loans():
    table = pd.DataFrame({
        "amount": random.lognormal(8, 0.8, COUNT).round(),
        "months": random.choice([6, 12, 24, 36, 48], COUNT),
        "age": random.integers(19, 75, COUNT),
        "years_employed": random.exponential(6, COUNT).round(1),
        "purpose": chosen(["car", "furniture", "radio/tv", "education", "boat", "façade"], [0.4, 0.3, 0.2, 0.07, 0.02, 0.01]),
        "housing": chosen(["own", "rent", "free"], [0.6, 0.3, 0.1]),
        "savings": chosen(["none", "little", "some", "much"], [0.4, 0.3, 0.2, 0.1]),
    })
    risk = table.amount / 5000 + table.months / 40 - table.years_employed / 8 - (table.savings == "much") - 1
    table["years_employed"] = holes(table.years_employed, 0.1)
    return table, np.where(logistic(risk), "bad", "good")


def subscribers():
    table = pd.DataFrame({
        "tenure": random.integers(0, 72, COUNT),
        "monthly": random.uniform(18, 118, COUNT).round(2),
        "contract": chosen(["month-to-month", "one year", "two year"], [0.55, 0.2, 0.25]),
        "payment": chosen(["card", "transfer", "check", "cash"], [0.4, 0.35, 0.23, 0.02]),
        "senior": random.integers(0, 2, COUNT),
    })
    table["total"] = holes((table.tenure * table.monthly * random.uniform(0.9, 1.1, COUNT)).round(2), 0.15)
    gone = logistic(1.5 * (table.contract == "month-to-month") - table.tenure / 20 + table.monthly / 80)
    return table, np.where(gone, "yes", "no")


def reviews():
    good = "great lovely works perfect fast friendly again recommend".split()
    bad = "broken late awful refund never rude missing waste".split()
    plain = "the a it order parcel box shop phone café größe and was very 2 days".split()
    pleased = random.random(COUNT) < 0.55
    words = [
        random.choice(good if ok else bad, random.integers(1, 4)).tolist() + random.choice(plain, random.integers(2, 9)).tolist()
        for ok in pleased
    ]
    for each in words:
        random.shuffle(each)
    table = pd.DataFrame({
        "text": pd.Series([" ".join(each).capitalize() + "." for each in words]).astype(object),
        "department": chosen(["books", "kitchen", "toys", "garden"], [0.4, 0.35, 0.23, 0.02]),
        "words": [len(each) for each in words],
        "price": holes(pd.Series(random.gamma(2, 12, COUNT).round(2)), 0.1),
    })
    stars = np.clip(pleased * 2.6 + random.normal(2, 0.8, COUNT), 1, 5)
    return table, stars


PASSENGERS, SURVIVED = passengers()
LOANS, RISK = loans()
SUBSCRIBERS, GONE = subscribers()
REVIEWS, STARS = reviews()
PLEASED = np.where(STARS > 3.2, "pleased", "not")
MOOD = np.array(["bad", "fair", "good"])[np.digitize(STARS, [2.4, 4.1])]
# Texts that may be missing, which ONNX has nothing for.
GAPS = PASSENGERS.assign(port=holes(PASSENGERS.port, 0.1), cabin=holes(chosen(list("ABCDT"), [0.3, 0.3, 0.2, 0.19, 0.01]), 0.7))

IS_NUMBER, IS_TEXT = make_column_selector(dtype_exclude=object), make_column_selector(dtype_include=object)


def columns(numbers=None, texts=None):
    """The usual two parts of a table."""
    return ColumnTransformer([
        ("numbers", numbers or make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), IS_NUMBER),
        ("texts", texts or OneHotEncoder(handle_unknown="ignore"), IS_TEXT),
    ])


def filled(fill="most_frequent"):
    texts = SimpleImputer(strategy="constant", fill_value="none") if fill == "none" else SimpleImputer(strategy=fill)
    return columns(texts=make_pipeline(texts, OneHotEncoder(handle_unknown="ignore")))


def coded():
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


def rare(**options):
    return OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist", **options)


def written(value):
    return None if value is None or value != value else value


def save(name, model, table, target):
    fitted = model.fit(table[:FITTED]) if target is None else model.fit(table[:FITTED], target[:FITTED])
    rows = table[FITTED:]
    if target is None:
        predictions = np.c_[fitted.predict(rows), fitted.decision_function(rows)]
    else:
        predictions = (fitted.predict_proba if hasattr(fitted, "predict_proba") else fitted.predict)(rows)
    expected = {
        "rows": [[written(value) for value in (row if isinstance(row, list) else [row])] for row in rows.values.tolist()],
        "predictions": np.asarray(predictions).tolist(),
    }
    (FOLDER / f"{name}.pkl").write_bytes(pickle.dumps(fitted))
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / f"{name}.expected.json").write_text(text + "\n")
    if isinstance(table, pd.Series):
        return
    try:
        made = in_onnx(fitted, rows, np.asarray(predictions))
        (FOLDER / f"{name}.onnx").write_bytes(made)
    except Exception as error:
        print(f"{name}: not in ONNX, {type(error).__name__}: {str(error).splitlines()[0][:90]}")


def in_onnx(fitted, rows, wanted):
    """A pipeline as ONNX, if it is converted, and rightly."""
    texts = [column for column in rows if rows[column].dtype == object]
    if rows[texts].isna().any().any():
        raise ValueError("missing texts")
    kinds = [(column, (StringTensorType if column in texts else FloatTensorType)([None, 1])) for column in rows]
    options = {"zipmap": False} if hasattr(fitted, "predict_proba") else {}
    made = to_onnx(fitted, initial_types=kinds, options=options, target_opset={"": 21, "ai.onnx.ml": 3})
    if made.functions:
        raise ValueError("functions of the model's own")
    for node in made.graph.node:
        # Machines without English have it too.
        if node.op_type == "StringNormalizer":
            node.attribute.append(helper.make_attribute("locale", "C.UTF-8"))
    given = {column: rows[[column]].to_numpy(object if column in texts else np.float32) for column in rows}
    session = onnxruntime.InferenceSession(made.SerializeToString())
    outputs = session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
    numbers = outputs[1 if hasattr(fitted, "predict_proba") else 0].reshape(-1)
    if wanted.dtype.kind == "f" and not np.allclose(numbers, wanted.reshape(-1)[: numbers.size], 1e-4, 1e-4):
        raise ValueError("other predictions")
    return made.SerializeToString()


def people():
    forest = RandomForestClassifier(8, max_depth=4, random_state=0)
    save("people-logistic", make_pipeline(columns(), LogisticRegression()), PASSENGERS, SURVIVED)
    save("people-forest", make_pipeline(columns(SimpleImputer(strategy="median"), coded()), forest), PASSENGERS, SURVIVED)
    marked = make_pipeline(SimpleImputer(add_indicator=True), MinMaxScaler())
    boosting = GradientBoostingClassifier(n_estimators=10, max_depth=2, random_state=0)
    save("people-boosting", make_pipeline(columns(marked), boosting), PASSENGERS, SURVIVED)
    histogram = HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=6, random_state=0)
    save("people-histogram", make_pipeline(columns("passthrough", coded()), histogram), PASSENGERS, SURVIVED)
    save("people-gaps", make_pipeline(filled(), LogisticRegression()), GAPS, SURVIVED)
    save("people-gaps-forest", make_pipeline(filled("none"), forest), GAPS, SURVIVED)
    save("people-gaps-category", make_pipeline(columns(), LogisticRegression(C=0.3)), GAPS, SURVIVED)
    machine = SVC(probability=True, random_state=0)
    save("people-machine", make_pipeline(columns(), machine), PASSENGERS, SURVIVED)
    near = make_pipeline(KNNImputer(n_neighbors=4), RobustScaler())
    save("people-neighbors", make_pipeline(columns(near), KNeighborsClassifier(7)), PASSENGERS, SURVIVED)
    vote = VotingClassifier([("a", LogisticRegression()), ("b", forest), ("c", GaussianNB())], voting="soft")
    save("people-vote", make_pipeline(columns(texts=OneHotEncoder(handle_unknown="ignore", sparse_output=False)), vote), PASSENGERS, SURVIVED)
    booster = xgboost.XGBClassifier(n_estimators=6, max_depth=3)
    save("people-xgboost", make_pipeline(columns("passthrough", coded()), booster), PASSENGERS, SURVIVED)


def credit():
    save("credit-rare", make_pipeline(columns(texts=rare()), LogisticRegressionCV(cv=3)), LOANS, RISK)
    extra = ExtraTreesClassifier(8, max_depth=4, random_state=0, class_weight="balanced")
    save("credit-extra", make_pipeline(columns(texts=rare(drop="first")), extra), LOANS, RISK)
    save("credit-calibrated", make_pipeline(columns(), CalibratedClassifierCV(LinearSVC(), cv=3)), LOANS, RISK)
    stumps = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=8, random_state=0)
    save("credit-stumps", make_pipeline(columns(texts=coded()), stumps), LOANS, RISK)
    parts = [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3, random_state=0))]
    save("credit-stack", make_pipeline(columns(), StackingClassifier(parts, cv=3)), LOANS, RISK)
    steps = make_pipeline(columns(), SelectKBest(k=6), LogisticRegression())
    search = GridSearchCV(steps, {"selectkbest__k": [4, 6], "logisticregression__C": [0.1, 1.0]}, cv=3)
    save("credit-search", search, LOANS, RISK)
    network = MLPClassifier((6, 4), max_iter=200, random_state=0)
    save("credit-network", make_pipeline(columns(), network), LOANS, RISK)
    ordered = OrdinalEncoder(categories=[["none", "little", "some", "much"]])
    parts = [
        ("money", make_pipeline(SimpleImputer(), StandardScaler(), PCA(2)), ["amount", "months", "years_employed"]),
        ("savings", ordered, ["savings"]),
        ("rest", OneHotEncoder(handle_unknown="ignore"), ["housing"]),
    ]
    save("credit-components", make_pipeline(ColumnTransformer(parts), LinearDiscriminantAnalysis()), LOANS.drop(columns="purpose"), RISK)
    left = LOANS.drop(columns="amount")
    save("credit-amount", make_pipeline(columns(), Ridge()), left, np.log(LOANS.amount))
    forest = RandomForestRegressor(6, max_depth=4, random_state=0)
    save("credit-amount-forest", make_pipeline(columns(SimpleImputer(), coded()), forest), left, LOANS.amount)


def churn():
    save("churn-bagging", make_pipeline(columns(texts=coded()), BaggingClassifier(DecisionTreeClassifier(max_depth=3), 5, random_state=0)), SUBSCRIBERS, GONE)
    stages = np.array(["early", "middle", "late"])[np.digitize(SUBSCRIBERS.tenure, [12, 40])]
    without = SUBSCRIBERS.drop(columns="tenure")
    save("churn-stages", make_pipeline(columns(), LogisticRegression(max_iter=300)), without, stages)
    forest = RandomForestClassifier(6, max_depth=4, random_state=0)
    save("churn-stages-forest", make_pipeline(columns(texts=OneHotEncoder(drop="first")), forest), without, stages)
    scaled = make_pipeline(SimpleImputer(), RobustScaler(), MaxAbsScaler())
    save("churn-descent", make_pipeline(columns(scaled), SGDClassifier(loss="log_loss", random_state=0)), SUBSCRIBERS, GONE)
    save("churn-outliers", make_pipeline(columns(SimpleImputer(), coded()), IsolationForest(n_estimators=6, max_samples=64, random_state=0)), SUBSCRIBERS, None)
    chosen = SelectFromModel(RandomForestClassifier(4, max_depth=3, random_state=0))
    dense = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    save("churn-selected", make_pipeline(columns(texts=dense), chosen, QuadraticDiscriminantAnalysis(reg_param=0.1)), SUBSCRIBERS, GONE)
    parts = [("drop", "drop", [0]), ("texts", coded(), slice(2, 4)), ("total", SimpleImputer(), [-1])]
    tree = DecisionTreeClassifier(max_depth=5, random_state=0)
    save("churn-places", make_pipeline(ColumnTransformer(parts, remainder="passthrough"), tree), SUBSCRIBERS, GONE)
    booster = lightgbm.LGBMClassifier(n_estimators=6, num_leaves=6, verbose=-1)
    save("churn-lightgbm", make_pipeline(columns("passthrough", coded()), booster), SUBSCRIBERS, GONE)
    save("churn-months", make_pipeline(columns(), PoissonRegressor()), without, SUBSCRIBERS.tenure)


def opinions():
    texts = REVIEWS.text
    save("opinions", make_pipeline(TfidfVectorizer(), LogisticRegression()), texts, PLEASED)
    union = FeatureUnion([("words", TfidfVectorizer(ngram_range=(1, 2), min_df=2)), ("letters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), max_features=80))])
    save("opinions-machine", make_pipeline(union, LinearSVC()), texts, MOOD)
    save("opinions-hashed", make_pipeline(HashingVectorizer(n_features=128), SGDClassifier(loss="log_loss", random_state=0)), texts, PLEASED)
    topics = make_pipeline(TfidfVectorizer(), TruncatedSVD(4, random_state=0), RandomForestClassifier(5, max_depth=4, random_state=0))
    save("opinions-topics", topics, texts, MOOD)

    def parts(step):
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        one_hot = OneHotEncoder(handle_unknown="ignore")
        return ColumnTransformer([("text", step, "text"), ("kind", one_hot, ["department"]), ("numbers", numbers, ["words", "price"])])

    save("opinions-stars", make_pipeline(parts(TfidfVectorizer(min_df=2)), Ridge()), REVIEWS, STARS)
    boosting = GradientBoostingRegressor(n_estimators=8, max_depth=2, random_state=0)
    save("opinions-stars-boosting", make_pipeline(parts(CountVectorizer(min_df=2)), boosting), REVIEWS, STARS)
    save("opinions-mood", make_pipeline(parts(CountVectorizer(ngram_range=(1, 2), min_df=3)), LogisticRegression(max_iter=300)), REVIEWS, MOOD)
    counts = ColumnTransformer([("text", CountVectorizer(), "text")])
    save("opinions-bayes", make_pipeline(counts, MultinomialNB()), REVIEWS[["text"]], MOOD)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    people()
    credit()
    churn()
    opinions()
    print(len(list(FOLDER.glob("*.pkl"))), "pipelines,", len(list(FOLDER.glob("*.onnx"))), "in ONNX")
