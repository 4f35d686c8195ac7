"""More estimators of scikit-learn as pickles, and what scikit-learn predicts with them.

    venv/bin/python make_sklearn_estimators.py

Uses the data of make_sklearn.py and writes to the same folder.
"""

import numpy as np
import pandas as pd
from make_sklearn import COUNT, HOLES, MIXED, NUMBERS, REVIEWS, SCORE, THREE, TWO, VERSION, random, save, titanic
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
    f_regression,
)
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    ExpSineSquared,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.impute import KNNImputer
from sklearn.linear_model import (
    ARDRegression,
    ElasticNet,
    GammaRegressor,
    Lars,
    Lasso,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    OrthogonalMatchingPursuit,
    PassiveAggressiveClassifier,
    PassiveAggressiveRegressor,
    QuantileRegressor,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    TheilSenRegressor,
)
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeRegressor

SCALED = (NUMBERS - NUMBERS.mean()) / NUMBERS.std()
# Columns of which some tell nothing, and some the same.
MANY = NUMBERS.assign(
    noise=random.normal(size=COUNT).round(3),
    late=(NUMBERS.age * 2).round(),
    same=NUMBERS.age,
    few=random.integers(0, 2, COUNT).astype(float),
    none=1.0,
)


def bayes():
    for name, model in {
        "gaussian": GaussianNB(),
        "multinomial": MultinomialNB(),
        "complement": ComplementNB(),
        "complement-norm": ComplementNB(norm=True),
        "bernoulli": BernoulliNB(binarize=20.0),
    }.items():
        save(f"{name}-2", model.fit(NUMBERS, TWO), NUMBERS)
        save(f"{name}-3", model.fit(NUMBERS, THREE), NUMBERS)
    counts = make_pipeline(CountVectorizer(binary=True), BernoulliNB(binarize=None))
    save("bernoulli-counts", counts.fit(REVIEWS, THREE), REVIEWS)
    coded = make_pipeline(OrdinalEncoder(), CategoricalNB())
    texts = MIXED[["sex", "port", "rooms"]]
    save("categorical-2", coded.fit(texts, TWO), texts)
    save("categorical-3", coded.fit(texts, THREE), texts)


def reductions():
    for name, step in {
        "pca": PCA(),
        "pca-whiten": PCA(2, whiten=True),
        "pca-share": PCA(0.9, svd_solver="full"),
        "pca-parts": IncrementalPCA(2, batch_size=40),
        "svd": TruncatedSVD(2, random_state=0),
        "k-means-steps": KMeans(3, n_init=2, random_state=0),
        "mini-batch-k-means-steps": MiniBatchKMeans(4, n_init=2, random_state=0),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(NUMBERS, SCORE), NUMBERS)
    letters = TfidfVectorizer(analyzer="char", ngram_range=(1, 2))
    save("svd-text", make_pipeline(letters, TruncatedSVD(3, random_state=0), Ridge()).fit(REVIEWS, SCORE), REVIEWS)
    save("k-means", make_pipeline(StandardScaler(), KMeans(4, n_init=2, random_state=0)).fit(NUMBERS), NUMBERS)
    save("mini-batch-k-means", MiniBatchKMeans(3, n_init=2, random_state=0).fit(NUMBERS), NUMBERS)


def selections():
    forest = RandomForestClassifier(3, max_depth=2, random_state=0)
    boosting = GradientBoostingClassifier(n_estimators=3, max_depth=2, random_state=0)
    extra = ExtraTreesRegressor(3, max_depth=2, random_state=0)
    for name, step in {
        "best": SelectKBest(f_regression, k=3),
        "best-all": SelectKBest(f_regression, k="all"),
        "best-share": SelectPercentile(f_regression, percentile=40),
        "best-tied": SelectPercentile(f_regression, percentile=13),
        "best-fpr": SelectFpr(f_regression, alpha=0.01),
        "best-fdr": SelectFdr(f_regression, alpha=0.05),
        "best-fwe": SelectFwe(f_regression, alpha=0.05),
        "best-generic": GenericUnivariateSelect(f_regression, mode="k_best", param=2),
        "best-generic-fdr": GenericUnivariateSelect(f_regression, mode="fdr", param=0.2),
        "variance": VarianceThreshold(),
        "variance-much": VarianceThreshold(2.0),
        "from-lasso": SelectFromModel(Lasso(alpha=0.1)),
        "from-elastic-net": SelectFromModel(ElasticNet(alpha=0.1, l1_ratio=1.0)),
        "from-tree": SelectFromModel(DecisionTreeRegressor(max_depth=3, random_state=0)),
        "from-extra-trees": SelectFromModel(extra, threshold="0.5*median"),
        "from-most": SelectFromModel(Ridge(), max_features=2, threshold=-np.inf),
        "eliminated": RFE(Ridge(), n_features_to_select=3),
        "sequential": SequentialFeatureSelector(Ridge(), n_features_to_select=2, cv=3),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(MANY, SCORE), MANY)
    for name, step in {
        "from-forest": SelectFromModel(forest, threshold="1.25*mean"),
        "from-boosting": SelectFromModel(boosting, threshold="median"),
        "from-logistic": SelectFromModel(LogisticRegression(), norm_order=2),
        "from-logistic-zeros": SelectFromModel(LogisticRegression(penalty="l1", C=0.1, solver="saga"))
        if VERSION < (1, 8)
        else SelectFromModel(LogisticRegression(l1_ratio=1.0, C=0.1, solver="saga")),
    }.items():
        save(name, make_pipeline(step, LogisticRegression()).fit(MANY.to_numpy(), THREE), MANY)
    save("eliminated-3", RFE(LogisticRegression(), n_features_to_select=2).fit(SCALED, THREE), SCALED)
    save("eliminated-cv", RFECV(forest, cv=3).fit(MANY, TWO), MANY)


def machines():
    few, score = SCALED[:60], SCORE[:60]
    two, three = TWO[:60], THREE[:60]
    five = pd.cut(score, 5, labels=list("abcde")).astype(str)
    for name, model in {
        "svc": SVC(),
        "svc-linear": SVC(kernel="linear", probability=True, random_state=0),
        "svc-poly": SVC(kernel="poly", degree=2, coef0=0.5, gamma=0.3),
        "svc-sigmoid": SVC(kernel="sigmoid", gamma="auto", decision_function_shape="ovo"),
        "svc-ties": SVC(C=0.1, break_ties=True),
        "nu-svc": NuSVC(nu=0.2, probability=True, random_state=0),
    }.items():
        save(f"{name}-2", model.fit(few, two), few)
        save(f"{name}-3", model.fit(few, three), few)
    save("svc-ties-5", SVC(C=0.05, break_ties=True).fit(few, five), few)
    save("svc-5", SVC(probability=True, random_state=0).fit(few, five), few)
    for name, model in {
        "svr": SVR(),
        "svr-linear": SVR(kernel="linear"),
        "svr-poly": SVR(kernel="poly"),
        "svr-wide": SVR(epsilon=99.0),
        "nu-svr": NuSVR(gamma=0.2),
    }.items():
        save(name, model.fit(few, score), few)
    words = REVIEWS[:60]
    save("svc-words", make_pipeline(TfidfVectorizer(), SVC(kernel="linear")).fit(words, three), words)
    chances = SVC(probability=True, random_state=0)
    save("svc-words-chances", make_pipeline(TfidfVectorizer(), chances).fit(words, two), words)
    save("svr-words", make_pipeline(TfidfVectorizer(), SVR(gamma=0.5)).fit(words, score), words)
    for name, model in {
        "quadratic": QuadraticDiscriminantAnalysis(),
        "quadratic-regular": QuadraticDiscriminantAnalysis(reg_param=0.2),
    }.items():
        save(f"{name}-2", model.fit(NUMBERS, TWO), NUMBERS)
        save(f"{name}-3", model.fit(NUMBERS, THREE), NUMBERS)


def processes():
    few, score, noise = SCALED[:25], SCORE[:25], WhiteKernel()
    for name, kernel in {
        "process-sum": RBF([1.0, 2.0, 3.0]) + noise,
        "process-half": Matern(nu=0.5) + noise,
        "process-matern": ConstantKernel(2.0) * Matern([1.0, 1.0, 2.0]) + noise,
        "process-smooth": Matern(nu=2.5) + noise,
        "process-smoothest": Matern(nu=np.inf) + noise,
        "process-rational": RationalQuadratic() + noise,
        "process-products": DotProduct() ** 2 + noise,
        "process-periodic": ExpSineSquared() * RBF() + noise,
    }.items():
        save(name, GaussianProcessRegressor(kernel, random_state=0).fit(few, score), SCALED)
    save("process-default", GaussianProcessRegressor(alpha=0.2).fit(few, score), SCALED)
    both = GaussianProcessRegressor(RBF() + noise, normalize_y=True, random_state=0)
    save("process-scaled", both.fit(few, score), SCALED)
    save("process-two-targets", both.fit(few, np.c_[score, few.age * 3 + score]), SCALED)
    two, three = TWO[:25], THREE[:25]
    for name, kernel in {"process": None, "process-dots": Matern() + DotProduct()}.items():
        model = GaussianProcessClassifier(kernel, random_state=0)
        save(f"{name}-2", model.fit(few, two), SCALED)
        save(f"{name}-3", model.fit(few, three), SCALED)


def networks():
    size = dict(hidden_layer_sizes=(5, 4), max_iter=150, random_state=0)
    for name, model in {
        "network": MLPClassifier(**size),
        "network-tanh": MLPClassifier(activation="tanh", **size),
    }.items():
        save(f"{name}-2", model.fit(SCALED, TWO), SCALED)
        save(f"{name}-3", model.fit(SCALED, THREE), SCALED)
    size = dict(hidden_layer_sizes=4, max_iter=150, random_state=0)
    for name, model in {
        "network-logistic": MLPRegressor(activation="logistic", **size),
        "network-identity": MLPRegressor(activation="identity", **size),
    }.items():
        save(name, model.fit(SCALED, SCORE), SCALED)
    save("network-two-targets", MLPRegressor(**size).fit(SCALED, np.c_[SCORE, SCALED.age]), SCALED)
    if VERSION >= (1, 7):
        save("network-poisson", MLPRegressor(loss="poisson", **size).fit(SCALED, np.exp(SCORE / 2)), SCALED)


def neighbors():
    # None of the rows is as far from two of those that were fitted: which of them counts is left to chance.
    data = SCALED.assign(rooms=MANY.noise)
    few, score, two, three = data[40:100], SCORE[40:100], TWO[40:100], THREE[40:100]
    for name, options in {
        "nearest": {},
        "nearest-weighed": dict(weights="distance"),
        "nearest-manhattan": dict(p=1, n_neighbors=4),
        "nearest-chebyshev": dict(metric="chebyshev", weights="distance"),
        "nearest-minkowski": dict(p=3, weights="distance", algorithm="ball_tree"),
        "nearest-cosine": dict(metric="cosine", weights="distance"),
        "nearest-brute": dict(algorithm="brute", weights="distance"),
    }.items():
        save(f"{name}-2", KNeighborsClassifier(**options).fit(few, two), data)
        save(f"{name}-3", KNeighborsClassifier(**options).fit(few, three), data)
        save(f"{name}-regressor", KNeighborsRegressor(**options).fit(few, score), data)
    same = KNeighborsClassifier(3, weights="distance")
    save("nearest-itself", same.fit(few, three), few)
    save("nearest-two-targets", KNeighborsRegressor(3).fit(few, np.c_[score, few.age]), data)
    longer = REVIEWS.str.split().str.len() > 5
    words = REVIEWS[longer].reset_index(drop=True)
    for metric in ["euclidean", "cosine"]:
        model = make_pipeline(TfidfVectorizer(), KNeighborsClassifier(4, weights="distance", metric=metric))
        save(f"nearest-words-{metric}", model.fit(words[15:], TWO[longer][15:]), words)
    numbers = HOLES[["age", "fare"]].assign(noise=MANY.noise * 10)
    numbers.loc[4::9, "fare"] = np.nan
    numbers.loc[3, :] = np.nan
    for name, step in {
        "donors": KNNImputer(n_neighbors=3),
        "donors-weighed": KNNImputer(n_neighbors=4, weights="distance", add_indicator=True),
    }.items():
        save(name, make_pipeline(step, Ridge()).fit(numbers[20:90], SCORE[20:90]), numbers)
    empty = numbers.assign(nothing=np.nan)
    save("donors-empty", make_pipeline(KNNImputer(n_neighbors=2), Ridge()).fit(empty[20:60], SCORE[20:60]), empty)
    coded = KNNImputer(missing_values=-1, n_neighbors=3, keep_empty_features=True)
    empty = empty.fillna(-1.0)
    save("donors-code", make_pipeline(coded, Ridge()).fit(empty[20:60], SCORE[20:60]), empty)


def boosted():
    stump, tree = DecisionTreeClassifier(max_depth=1), DecisionTreeClassifier(max_depth=2)
    size = dict(n_estimators=6, random_state=0)
    one = {} if VERSION >= (1, 6) else dict(algorithm="SAMME")
    for name, model in {
        "ada": AdaBoostClassifier(stump, **one, **size),
        "ada-deeper": AdaBoostClassifier(tree, **one, **size),
        "ada-logistic": AdaBoostClassifier(LogisticRegression(), **one, **size),
    }.items():
        save(f"{name}-2", model.fit(NUMBERS, TWO), NUMBERS)
        save(f"{name}-3", model.fit(NUMBERS, THREE), NUMBERS)
    if VERSION < (1, 6):
        save("ada-real-2", AdaBoostClassifier(tree, **size).fit(NUMBERS, TWO), NUMBERS)
        save("ada-real-3", AdaBoostClassifier(tree, **size).fit(NUMBERS, THREE), NUMBERS)
    regressor = AdaBoostRegressor(DecisionTreeRegressor(max_depth=2), **size)
    save("ada-regressor", regressor.fit(NUMBERS, SCORE), NUMBERS)
    for name, options in {
        "isolation": dict(max_samples=60),
        "isolation-share": dict(contamination=0.2, max_samples=30),
        "isolation-columns": dict(max_features=2, max_samples=40),
    }.items():
        save(name, IsolationForest(n_estimators=4, random_state=0, **options).fit(NUMBERS), NUMBERS)
    steps = make_pipeline(StandardScaler(), IsolationForest(n_estimators=3, max_samples=20, random_state=0))
    save("isolation-steps", steps.fit(NUMBERS), NUMBERS)
    if VERSION >= (1, 6):
        holes = HOLES[["age", "fare", "rooms"]]
        missing = IsolationForest(n_estimators=3, max_samples=60, contamination=0.1, random_state=0)
        save("isolation-missing", missing.fit(holes), holes)


def averaged():
    tree, size = DecisionTreeClassifier(max_depth=2, random_state=0), dict(n_estimators=4, random_state=0)
    for name, model in {
        "bagging": BaggingClassifier(tree, **size),
        "bagging-columns": BaggingClassifier(tree, max_features=0.7, max_samples=0.1, **size),
        "bagging-labels": BaggingClassifier(LinearSVC(), **size),
        "vote-soft": VotingClassifier([("a", tree), ("b", GaussianNB())], voting="soft", weights=[2, 1]),
        "vote-hard": VotingClassifier([("a", tree), ("b", GaussianNB()), ("c", RidgeClassifier())]),
    }.items():
        save(f"{name}-2", model.fit(NUMBERS, TWO), NUMBERS)
        save(f"{name}-3", model.fit(NUMBERS, THREE), NUMBERS)
    chances = SVC(probability=True, random_state=0)
    dropped = [("a", "drop"), ("b", chances), ("c", tree), ("d", LogisticRegression())]
    hard = VotingClassifier(dropped, weights=[9, 1, 1.5, 2])
    save("vote-hard-weighed", hard.fit(SCALED[:60], THREE[:60]), SCALED)
    linear = BaggingRegressor(Ridge(), max_features=2, bootstrap_features=True, **size)
    save("bagging-regressor", linear.fit(NUMBERS, SCORE), NUMBERS)
    mean = VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=2))], weights=np.array([1, 3]))
    save("vote-regressor", mean.fit(NUMBERS, SCORE), NUMBERS)
    both = VotingClassifier([("a", titanic(LogisticRegression(max_iter=500))), ("b", titanic(tree))], voting="soft")
    save("vote-steps", both.fit(HOLES, THREE), HOLES)
    words = VotingClassifier([("a", make_pipeline(TfidfVectorizer(), MultinomialNB()))], voting="soft")
    save("vote-words", words.fit(REVIEWS, TWO), REVIEWS)


def stacked():
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    parts = [("a", tree), ("b", LinearSVC()), ("c", titanic(LogisticRegression(max_iter=500)))]
    for name, model in {
        "stack": StackingClassifier(parts[:2], cv=3),
        "stack-passed": StackingClassifier([("a", tree)], tree, cv=3, passthrough=True),
        "stack-decisions": StackingClassifier([("a", LinearSVC()), ("b", SVC())], cv=3),
        "stack-labels": StackingClassifier([("a", LinearSVC()), ("b", tree)], cv=3, stack_method="predict"),
        "stack-last": StackingClassifier([("a", tree)], LinearSVC(), cv=3),
    }.items():
        save(f"{name}-2", model.fit(SCALED[:70], TWO[:70]), SCALED)
        save(f"{name}-3", model.fit(SCALED[:70], THREE[:70]), SCALED)
    save("stack-steps", StackingClassifier(parts[2:], cv=3).fit(HOLES, THREE), HOLES)
    numbers = [("a", LinearRegression()), ("drop", "drop"), ("b", DecisionTreeRegressor(max_depth=2))]
    save("stack-regressor", StackingRegressor(numbers, cv=3).fit(NUMBERS, SCORE), NUMBERS)


def calibrated():
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    for name, model in {
        "calibrated": CalibratedClassifierCV(LinearSVC(), cv=3),
        "calibrated-isotonic": CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
        "calibrated-tree": CalibratedClassifierCV(tree, cv=2),
        "calibrated-once": CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=3, ensemble=False),
        "calibrated-machine": CalibratedClassifierCV(SVC(), cv=2),
        "calibrated-boosting": CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=2, max_depth=2), cv=2),
        "calibrated-bagging": CalibratedClassifierCV(BaggingClassifier(LinearSVC(), 2, random_state=0), cv=2),
        "calibrated-quadratic": CalibratedClassifierCV(QuadraticDiscriminantAnalysis(), cv=2),
        "calibrated-steps": CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=2),
    }.items():
        save(f"{name}-2", model.fit(SCALED[:80], TWO[:80]), SCALED)
        save(f"{name}-3", model.fit(SCALED[:80], THREE[:80]), SCALED)
    if VERSION >= (1, 8):
        for name, model in {
            "calibrated-temperature": CalibratedClassifierCV(LinearSVC(), method="temperature", cv=2),
            "calibrated-temperature-tree": CalibratedClassifierCV(tree, method="temperature", cv=2),
        }.items():
            save(f"{name}-2", model.fit(SCALED[:80], TWO[:80]), SCALED)
            save(f"{name}-3", model.fit(SCALED[:80], THREE[:80]), SCALED)
    if VERSION >= (1, 6):
        from sklearn.frozen import FrozenEstimator

        frozen = FrozenEstimator(LinearSVC().fit(SCALED[:80], THREE[:80]))
        save("calibrated-frozen", CalibratedClassifierCV(frozen).fit(SCALED[80:], THREE[80:]), SCALED)


def categories():
    size = dict(max_iter=6, max_leaf_nodes=8, min_samples_leaf=4, random_state=0)
    numbers = HOLES[["age", "fare"]].assign(port=pd.factorize(HOLES.port)[0], code=random.integers(0, 12, COUNT))
    numbers = numbers.astype(float).replace({"port": {-1.0: np.nan}})
    mask = [False, False, True, True]
    few = numbers[:120]
    other = numbers.copy()
    other.loc[1:3, "code"] = [77.0, np.nan, 13.0]
    classifier = HistGradientBoostingClassifier(categorical_features=mask, **size)
    save("histogram-codes", classifier.fit(few, TWO[:120]), other)
    save("histogram-codes-3", classifier.fit(few, THREE[:120]), other)
    regressor = HistGradientBoostingRegressor(categorical_features=[2, 3], **size)
    save("histogram-codes-regressor", regressor.fit(few, SCORE[:120]), other)
    coded = make_pipeline(
        ColumnTransformer(
            [("texts", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["sex", "port"])],
            remainder="passthrough",
        ),
        HistGradientBoostingClassifier(categorical_features=[0, 1], **size),
    )
    save("histogram-texts-coded", coded.fit(HOLES, TWO), HOLES)
    if VERSION >= (1, 4):
        model = HistGradientBoostingClassifier(categorical_features=["port", "sex"], **size)
        texts = HOLES.astype({"port": "category", "sex": "category"})
        unknown = HOLES.copy()
        unknown.loc[1, "port"] = "Atlantis"
        save("histogram-texts", model.fit(texts[:120], TWO[:120]), unknown)
        typed = HistGradientBoostingRegressor(categorical_features="from_dtype", **size)
        save("histogram-typed", typed.fit(texts, SCORE), texts)


def lines():
    """What differs from other linear models and trees in how it is fitted alone."""
    for name, model in {
        "ard": ARDRegression(),
        "lars": Lars(),
        "lasso-lars": LassoLars(alpha=0.05),
        "pursuit": OrthogonalMatchingPursuit(),
        "passive-regressor": PassiveAggressiveRegressor(random_state=0),
        "quantile-regressor": QuantileRegressor(alpha=0.05, solver="highs"),
        "theil-sen": TheilSenRegressor(random_state=0),
        "extra-tree-regressor": ExtraTreeRegressor(max_depth=4, random_state=0),
    }.items():
        save(name, model.fit(SCALED, SCORE), SCALED)
    save("gamma", GammaRegressor().fit(SCALED, np.exp(SCALED.age / 3)), SCALED)
    for name, model in {"passive": PassiveAggressiveClassifier(random_state=0), "ridge-cv": RidgeClassifierCV()}.items():
        save(f"{name}-2", model.fit(SCALED, TWO), SCALED)
        save(f"{name}-3", model.fit(SCALED, THREE), SCALED)


if __name__ == "__main__":
    bayes()
    reductions()
    selections()
    machines()
    processes()
    networks()
    neighbors()
    boosted()
    averaged()
    stacked()
    calibrated()
    categories()
    lines()
