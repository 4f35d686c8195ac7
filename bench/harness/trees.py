"""The engine beside the libraries that train its models, one call after the other, answers checked."""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from statistics import median

from . import setup
from .paths import BENCH, PEERS, RESULTS, VENV
from .report import commit, machine
from .setup import SetupError, say

REQUIREMENTS = BENCH / "requirements-trees.txt"
TRAINING = PEERS / "train_trees.py"
TIMING = PEERS / "time_trees.py"
MODELS = VENV / "trees-models"
ONE_ROWS, BATCH_ROWS, ALL_ROWS = 256, 1_000, 20_000
ANSWERS_PRECISION = {".json": 1e-6, ".txt": 1e-12, ".cbm": 1e-7}
CONTRIBUTIONS_PRECISION, SUMS_PRECISION = 1e-4, 1e-5
"""How far numbers may be from the library's, relative to those where they are above 1."""
EXPLAINED_ONE_ROWS = 64
LOADS = 7
KINDS = ("predictions", "explanations", "loading")


@dataclass
class Shape:
    name: str
    title: str
    ending: str
    one_max: float = 0.3
    batch_max: float = 1.0
    threads_max: float | None = None
    explain_max: float | None = 0.5
    """Ratios to the library's time that are wanted at most."""
    """Nothing is wanted of explanations that the library does not have."""
    figures: dict = field(default_factory=dict)

    @property
    def model(self):
        return MODELS / f"{self.name}{self.ending}"

    @property
    def rows(self):
        return MODELS / f"{self.name}.rows"


SHAPES = [
    Shape("santander-xgboost", "XGBoost, 880 trees of depth 6, 22 classes", ".json", threads_max=0.35),
    Shape("shallow-xgboost", "XGBoost, 100 trees of depth 4, binary", ".json"),
    Shape("wide-xgboost", "XGBoost, 500 trees of depth 6, 500 features", ".json"),
    Shape("santander-lightgbm", "LightGBM, 880 trees of depth 6, 22 classes", ".txt", one_max=0.35, batch_max=0.35),
    Shape("shallow-lightgbm", "LightGBM, 100 trees of 15 leaves, binary", ".txt"),
    Shape("regression", "LightGBM, 1,000 trees of 31 leaves", ".txt"),
    Shape("wide-lightgbm", "LightGBM, 500 trees of 31 leaves, 500 features", ".txt"),
    Shape("linear", "LightGBM, 200 linear trees of 31 leaves", ".txt", explain_max=None),
    Shape("sets", "LightGBM, 500 trees, sets of 1,000 categories", ".txt"),
    Shape("catboost", "CatBoost, 1,000 trees of depth 6, binary", ".cbm"),
    Shape("catboost-classes", "CatBoost, 100 trees of depth 6, 10 classes", ".cbm"),
]
LOADED = MODELS / "loading.json"
LOADING_MAX, PEAK_MAX = 0.35, 4.0


class Side:
    """A program that times predictions as it is told, line by line."""

    def __init__(self, command, **options):
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        self.greeting = self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def answer(self):
        line = self.child.stdout.readline()
        if not line:
            raise SetupError(f"{self.child.args[0]} ended")
        return json.loads(line)

    def ask(self, *words):
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        self.child.stdin.flush()
        return self.answer()


def options():
    parser = argparse.ArgumentParser(prog="bench/trees", description="The engine against the libraries of its models.")
    option = parser.add_argument
    option("--turns", type=int, default=5, help="of each side and model; default 5, the medians count")
    option("--seconds", type=float, default=0.3, help="per turn; default 0.3")
    option("--only", type=lambda text: text.split(","), metavar="A,B", help="names of models")
    option("--measure", choices=KINDS, nargs="+", default=KINDS, help="default all")
    return parser.parse_args()


def train(python):
    stamp = MODELS / "stamp"
    wanted = setup.fingerprint(REQUIREMENTS, TRAINING)
    if not setup.stamped(stamp, wanted):
        say("training the models …")
        setup.run_step("training", [python, TRAINING, MODELS])
        stamp.write_text(wanted)


def check(shape, what, mine, wanted, precision):
    """The largest difference, which must be small."""
    if len(mine) != len(wanted):
        raise SetupError(f"{shape.name}: {len(mine)} {what} instead of {len(wanted)}")
    worst = max(abs(a - b) / max(1.0, abs(b)) if math.isfinite(a) else math.inf for a, b in zip(mine, wanted))
    if worst > precision:
        raise SetupError(f"{shape.name}: one of the {what} is {worst:.1e} from the library's")
    return worst


def check_answers(shape, ours, theirs):
    mine, wanted = (side.ask("answers", BATCH_ROWS) for side in (ours, theirs))
    return check(shape, "answers", mine, wanted, ANSWERS_PRECISION[shape.ending])


def check_contributions(shape, ours, theirs):
    """Each contribution, and that those to a margin add up to it."""
    mine, wanted = (side.ask("contributions", BATCH_ROWS) for side in (ours, theirs))
    worst = check(shape, "contributions", mine, wanted, CONTRIBUTIONS_PRECISION)
    margins = theirs.ask("margins", BATCH_ROWS)
    each = len(mine) // len(margins)
    sums = [math.fsum(mine[first : first + each]) for first in range(0, len(mine), each)]
    check(shape, "sums of contributions", sums, margins, SUMS_PRECISION)
    return worst


def compare(shape, walker, python, settings):
    """Both sides take turns. Of the library's calls the fastest counts."""
    with Side([walker, shape.model, shape.rows]) as ours, Side([python, TIMING, shape.model, shape.rows]) as theirs:
        shape.figures["engine"] = ours.greeting["description"]
        kinds = []
        if "predictions" in settings.measure:
            shape.figures["difference"] = check_answers(shape, ours, theirs)
            kinds += [("one", ONE_ROWS), ("batch", BATCH_ROWS)]
            if shape.threads_max is not None:
                kinds.append(("threads", ALL_ROWS))
        if "explanations" in settings.measure and shape.explain_max is not None:
            shape.figures["explained_difference"] = check_contributions(shape, ours, theirs)
            kinds += [("explain-one", EXPLAINED_ONE_ROWS), ("explain-batch", BATCH_ROWS)]
        for what, rows in kinds:
            shape.figures[what] = by_turns(ours, theirs, what, rows, settings)


def by_turns(ours, theirs, what, rows, settings):
    """Medians of what both sides need for so many rows."""
    mine, calls = [], {}
    for turn in range(settings.turns + 1):
        own = ours.ask(what, rows, settings.seconds)
        other = theirs.ask(what, rows, settings.seconds)
        # The first warms caches and prepares calls.
        if turn > 0:
            mine.append(own)
            for call, spent in other.items():
                calls.setdefault(call, []).append(spent)
    medians = {call: median(spent) for call, spent in calls.items()}
    fastest = min(medians, key=medians.get)
    return {"rows": rows, "ours_us": median(mine), "theirs_us": medians[fastest], "call": fastest, "calls_us": medians}


def load(walker, python):
    """Loads in processes of their own, by turns."""

    def run(command):
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(ran.stdout)

    sides = {"ours": [walker, "--load", LOADED], "theirs": [python, TIMING, "--load", LOADED]}
    runs = {side: [] for side in sides}
    for _ in range(LOADS):
        for side, command in sides.items():
            runs[side].append(run(command))
    size = LOADED.stat().st_size
    return {
        "bytes": size,
        "ours_s": median(each["seconds"] for each in runs["ours"]),
        "theirs_s": median(each["seconds"] for each in runs["theirs"]),
        "ours_peak": max(each["peak_kb"] for each in runs["ours"]) * 1024 / size,
        "theirs_peak": max(each["peak_kb"] for each in runs["theirs"]) * 1024 / size,
        "kept_bytes": median(each["kept_kb"] for each in runs["ours"]) * 1024,
        "nodes": nodes(LOADED),
        "engine": runs["ours"][0]["description"],
    }


def nodes(file):
    trees = json.loads(file.read_text())["learner"]["gradient_booster"]["model"]["trees"]
    return sum(int(tree["tree_param"]["num_nodes"]) for tree in trees)


def ratio(found, wanted):
    """A ratio, marked where it is more than wanted."""
    if wanted is None:
        return f"{found:.2f}"
    return f"**{found:.2f}** ✗ (≤ {wanted:g})" if found > wanted else f"**{found:.2f}**"


def table(shapes, what, one, batch):
    """Of the models that were measured so; `one` and `batch` are what was measured and the ratio that is wanted."""
    rows = []
    for shape in shapes:
        cells = [shape.title]
        for kind, wanted in (one, batch):
            if found := shape.figures.get(kind):
                theirs, ours = found["theirs_us"], found["ours_us"]
                cells += [f"{theirs:.2f}", f"{ours:.2f}", ratio(ours / theirs, getattr(shape, wanted))]
        if len(cells) > 1:
            rows.append(f"| {' | '.join(cells)} |")
    head = f"| {what} | one row, library | Auspex | ratio | batch, library | Auspex | ratio |"
    return ["", head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows] if rows else []


def markdown(shapes, loading):
    here = machine()
    lines = [
        f"{here['cpu']}, {here['cores']} cores, {here['memory_gb']} GB, Linux {here['kernel']}; commit {commit()}",
        *table(shapes, "predictions", ("one", "one_max"), ("batch", "batch_max")),
        *table(shapes, "explanations", ("explain-one", "explain_max"), ("explain-batch", "explain_max")),
        "",
        f"µs a row on one thread; a batch has {BATCH_ROWS:,} rows.",
        "",
    ]
    for shape in shapes:
        if found := shape.figures.get("threads"):
            theirs, ours = found["theirs_us"], found["ours_us"]
            lines.append(
                f"{ALL_ROWS:,} rows on all cores, {shape.title}: library {theirs * ALL_ROWS / 1e3:.0f} ms ({found['call']}), "
                f"Auspex {ours * ALL_ROWS / 1e3:.0f} ms, ratio {ratio(ours / theirs, shape.threads_max)}."
            )
    if loading:
        size = loading["bytes"]
        lines.append(
            f"Loading {size / 1e6:.1f} MB of XGBoost's JSON: library {loading['theirs_s'] * 1e3:.0f} ms and "
            f"{loading['theirs_peak']:.1f} × the file at its peak, Auspex {loading['ours_s'] * 1e3:.0f} ms and "
            f"{ratio(loading['ours_peak'], PEAK_MAX)} ×, ratio of the times "
            f"{ratio(loading['ours_s'] / loading['theirs_s'], LOADING_MAX)}; {loading['kept_bytes'] / loading['nodes']:.1f} bytes "
            f"a node afterwards ({loading['nodes']:,} nodes, {loading['engine']})."
        )
    return "\n".join(lines) + "\n"


def main():
    # As for Ctrl-C: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = options()
    measured = {"predictions", "explanations"} & set(settings.measure)
    chosen = [shape for shape in SHAPES if measured and (settings.only is None or shape.name in settings.only)]
    loading = None
    try:
        python = setup.install("trees", REQUIREMENTS) / "python"
        train(python)
        setup.build("-p", "walker")
        walker = os.path.join(setup.target_dir(), "release", "walker")
        for shape in chosen:
            say(f"{shape.name} …")
            compare(shape, walker, python, settings)
        if "loading" in settings.measure:
            say("loading …")
            loading = load(walker, python)
    except (SetupError, subprocess.CalledProcessError) as error:
        say(f"bench/trees: {error}")
        return 2
    except KeyboardInterrupt:
        say("bench/trees: interrupted")
        return 130
    text = markdown(chosen, loading)
    RESULTS.mkdir(exist_ok=True)
    figures = {"machine": machine(), "commit": commit(), "loading": loading,
               "models": {shape.name: shape.figures for shape in chosen}}  # fmt: skip
    RESULTS.joinpath("trees.json").write_text(json.dumps(figures, indent=1) + "\n")
    RESULTS.joinpath("trees.md").write_text(text)
    sys.stdout.write(text)
    return 0
