"""The engine beside scikit-learn, one call after the other, and Auspex beside FastAPI and joblib; answers checked."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from . import servers, setup
from .cli import Load, listed, run_rounds
from .paths import BENCH, PEERS, RESULTS, VENV
from .report import commit, machine, medians
from .setup import SetupError, say
from .trees import BATCH_ROWS, Side, by_turns, check, table

REQUIREMENTS = BENCH / "requirements-sklearn.txt"
TRAINING = PEERS / "train_sklearn.py"
TIMING = PEERS / "time_sklearn.py"
MODELS = VENV / "sklearn-models"
SERVED = "boosting"
CUSTOMERS = MODELS / "customers.jsonl"
RECORDS_SERVED = 200
ONE_ROWS = 64
PRECISION = 1e-9
"""How far numbers may be from the library's, relative to those where they are above 1."""
REQUESTS_RATIO_MIN = 15
CONNECTIONS = (1, 32)
KINDS = ("calls", "requests")
# Libraries of linear algebra begin with as many threads as there are cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class Pipeline:
    name: str
    title: str
    one_max: float = 0.05
    batch_max: float = 0.7
    """Ratios to the library's time that are wanted at most."""
    figures: dict = field(default_factory=dict)

    def file(self, ending):
        return MODELS / f"{self.name}.{ending}"


PIPELINES = [
    Pipeline("boosting", "ColumnTransformer, GradientBoosting, 100 trees"),
    Pipeline("histogram", "ColumnTransformer, HistGradientBoosting, 100 trees"),
    Pipeline("logistic", "ColumnTransformer, LogisticRegression"),
    Pipeline("forest", "ColumnTransformer, RandomForest, 100 trees"),
    Pipeline("calibrated", "ColumnTransformer, LinearSVC, calibrated in 5 parts"),
    Pipeline("voting", "ColumnTransformer, a vote of three models"),
    Pipeline("text-logistic", "TfidfVectorizer, LogisticRegression"),
    Pipeline("text-machine", "TfidfVectorizer of pairs, LinearSVC, 5 classes"),
    Pipeline("machine", "StandardScaler, SVC, 20 features"),
    Pipeline("network", "StandardScaler, MLP of 64 and 32, 20 features"),
    Pipeline("neighbors", "StandardScaler, 5 of 5,000 neighbors, 8 features"),
    Pipeline("bayes", "GaussianNB, 20 features, 3 classes"),
]


def options():
    parser = argparse.ArgumentParser(prog="bench/sklearn", description="The engine and Auspex against scikit-learn.")
    option = parser.add_argument
    option("--turns", type=int, default=5, help="of each side and pipeline; default 5, the medians count")
    option("--seconds", type=float, default=0.3, help="per turn; default 0.3")
    option("--only", type=listed(str), metavar="A,B", help="names of pipelines")
    option("--measure", choices=KINDS, nargs="+", default=KINDS, help="default all")
    option("--rounds", type=int, default=3, help="of requests; default 3")
    option("--load-seconds", type=float, default=5, help="per load; default 5")
    option("--auspex", type=Path, metavar="BINARY", help="measure this one instead of building")
    return parser.parse_args()


def train(python):
    stamp = MODELS / "stamp"
    wanted = setup.fingerprint(REQUIREMENTS, TRAINING)
    if not setup.stamped(stamp, wanted):
        say("fitting the pipelines …")
        setup.run_step("fitting", [python, TRAINING, MODELS], env=os.environ | ONE_THREAD)
        stamp.write_text(wanted)


def answers(side, rows):
    return side.ask("answers", rows)


def compare(pipeline, walker, python, settings):
    """Both sides take turns."""
    commands = [walker, pipeline.file("joblib"), pipeline.file("jsonl")], [python, TIMING, pipeline.file("joblib"), pipeline.file("data")]
    with Side(commands[0]) as ours, Side(commands[1], env=os.environ | ONE_THREAD) as theirs:
        pipeline.figures["engine"] = ours.greeting["description"]
        mine, wanted = answers(ours, BATCH_ROWS), answers(theirs, BATCH_ROWS)
        pipeline.figures["difference"] = check(pipeline, "answers", mine, wanted, PRECISION)
        for what, rows in (("one", ONE_ROWS), ("batch", BATCH_ROWS)):
            pipeline.figures[what] = by_turns(ours, theirs, what, rows, settings)


def requests(programs, settings):
    """Both servers under the same load, in rounds: {name: medians} of those that answered rightly."""
    folder = VENV / "sklearn-served"
    models = folder / "models"
    package = models / "churn" / "1"
    shutil.rmtree(folder, ignore_errors=True)
    package.mkdir(parents=True)
    model = MODELS / f"{SERVED}.joblib"
    shutil.copy(model, package / "model.joblib")
    records, expected = folder / "records.jsonl", folder / "expected.jsonl"
    lines = CUSTOMERS.read_text().splitlines(keepends=True)[:RECORDS_SERVED]
    records.write_text("".join(lines))
    with Side([programs / "python", TIMING, model, MODELS / f"{SERVED}.data"], env=os.environ | ONE_THREAD) as library:
        shares = answers(library, RECORDS_SERVED)
    expected.write_text("".join(f"{json.dumps([1 - share, share])}\n" for share in shares))
    load = Load(setup.build_own("loadgen"), records, expected, lines[0].strip().encode(), [1 - shares[0], shares[0]])
    binary = settings.auspex or setup.build_auspex()
    peer = ("fastapi-sklearn", "FastAPI + joblib", "fastapi_sklearn", model, "scikit-learn", programs)
    chosen = [servers.auspex(binary, models), servers.fastapi(*peer)]
    asked = SimpleNamespace(rounds=settings.rounds, connections=CONNECTIONS, seconds=settings.load_seconds, warmup=2)
    rounds, failures = run_rounds(chosen, load, asked)
    if failures:
        raise SetupError("; ".join(f"{name}: {why}" for name, why in failures.items()))
    return {server.title: medians(rounds[server.name]) for server in chosen}


def requests_table(found):
    ours, theirs = found.values()
    lines = ["", "| server | requests/s at 1 | p50 µs | requests/s at 32 | p50 µs | memory MB |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for title, server in found.items():
        cells = [title]
        for count in CONNECTIONS:
            load = server["load"][count]
            cells += [f"{load['requests_per_s']:,.0f}", f"{load['p50_us']:,.0f}"]
        lines.append(f"| {' | '.join([*cells, format(server['rss_mb'], ',.0f')])} |")
    said = []
    for count in CONNECTIONS:
        ratio = ours["load"][count]["requests_per_s"] / theirs["load"][count]["requests_per_s"]
        missed = f" ✗ (≥ {REQUESTS_RATIO_MIN})" if ratio < REQUESTS_RATIO_MIN else ""
        said.append(f"**{ratio:.1f}**{missed} times the requests at {count}")
    return [*lines, "", f"{' and '.join(said)} connections."]


def markdown(pipelines, served):
    here = machine()
    lines = [
        f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB, Linux {here['kernel']}; commit {commit()}",
        *table(pipelines, "pipeline", ("one", "one_max"), ("batch", "batch_max")),
    ]
    if pipelines:
        worst = max(pipeline.figures["difference"] for pipeline in pipelines)
        lines += ["", f"µs a row on one thread; a batch has {BATCH_ROWS:,} rows. Answers differ by {worst:.1e} at most."]
    if served:
        lines += requests_table(served)
    return "\n".join(lines) + "\n"


def main():
    # As for Ctrl-C: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = options()
    chosen = [pipeline for pipeline in PIPELINES if settings.only is None or pipeline.name in settings.only]
    chosen = chosen if "calls" in settings.measure else []
    served = None
    try:
        programs = setup.install("sklearn", REQUIREMENTS)
        train(programs / "python")
        if chosen:
            setup.build("-p", "walker")
            walker = os.path.join(setup.target_dir(), "release", "walker")
        for pipeline in chosen:
            say(f"{pipeline.name} …")
            compare(pipeline, walker, programs / "python", settings)
        if "requests" in settings.measure:
            served = requests(programs, settings)
    except (SetupError, subprocess.CalledProcessError) as error:
        say(f"bench/sklearn: {error}")
        return 2
    except KeyboardInterrupt:
        say("bench/sklearn: interrupted")
        return 130
    text = markdown(chosen, served)
    RESULTS.mkdir(exist_ok=True)
    figures = {"machine": machine(), "commit": commit(), "requests": served,
               "pipelines": {pipeline.name: pipeline.figures for pipeline in chosen}}  # fmt: skip
    RESULTS.joinpath("sklearn.json").write_text(json.dumps(figures, indent=1) + "\n")
    RESULTS.joinpath("sklearn.md").write_text(text)
    sys.stdout.write(text)
    return 0
