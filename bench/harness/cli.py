"""The command: options, the order of rounds, and what is printed when."""

import argparse
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from . import report, servers, setup
from .measure import ServerError, measure
from .paths import FIXTURES, MODEL, RESULTS
from .setup import SetupError, say


@dataclass
class Load:
    """What every server is asked, and what it must answer."""

    loadgen: str
    records: Path
    expected: Path
    first_record: bytes
    first_expected: list


def number(kind, least, most):
    def parse(text):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}")
        return value

    return parse


def listed(parse):
    return lambda text: [parse(part) for part in text.split(",")]


def server_name(text):
    if text not in servers.NAMES:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(servers.NAMES)}")
    return text


def options():
    parser = argparse.ArgumentParser(prog="bench/run", description="Auspex against its peers.")
    option = parser.add_argument
    option("--rounds", type=number(int, 1, 100), default=3, help="default 3")
    option("--seconds", type=number(float, 0.1, 3600), default=10, help="per load; default 10")
    option("--warmup", type=number(float, 0, 600), default=2, help="seconds per load; default 2")
    option("--connections", type=listed(number(int, 1, 4096)), default=[1, 32], help="default 1,32")
    option("--only", type=listed(server_name), default=list(servers.NAMES), metavar="A,B",
           help=f"of {', '.join(servers.NAMES)}; default all")  # fmt: skip
    option("--auspex", type=Path, metavar="BINARY", help="measure this one instead of building")
    option("--model", type=Path, default=MODEL, help="the peers' model; default: the repository's")
    option("--records", type=Path, default=FIXTURES / "records.jsonl")
    option("--expected", type=Path, default=FIXTURES / "expected.jsonl")
    return parser.parse_args()


def prepare(settings):
    """Installs and builds what the chosen servers need: the servers and the load."""
    for file in (settings.model, settings.records, settings.expected):
        if not file.is_file():
            raise SetupError(f"{file} is missing")
    loadgen = setup.build_own("loadgen")
    chosen = []
    programs = None
    with open(settings.records, "rb") as records, open(settings.expected, "rb") as expected:
        first = records.readline().strip(), json.loads(expected.readline())
    if set(settings.only) - {servers.OURS, servers.LIMIT}:
        programs = setup.install_peers()
    for name in dict.fromkeys(settings.only):
        if name == servers.OURS:
            chosen.append(servers.auspex(settings.auspex or setup.build_auspex()))
        elif name == servers.LIMIT:
            body = json.dumps({"predictions": [first[1]]}, separators=(",", ":"))
            chosen.append(servers.constant(body))
        elif name == servers.BY_HAND:
            model = setup.convert_model(settings.model, settings.records, settings.expected)
            library = setup.onnxruntime_library(programs)
            chosen.append(servers.axum_ort(setup.build_axum_ort(), library, model))
        elif name == "flask-xgboost":
            chosen.append(servers.flask(settings.model, programs))
        elif name == "fastapi-xgboost":
            peer = (name, "FastAPI + xgboost", "fastapi_xgboost", settings.model)
            chosen.append(servers.fastapi(*peer, "xgboost-cpu", programs))
        else:
            model = setup.convert_model(settings.model, settings.records, settings.expected)
            peer = (name, "FastAPI + onnxruntime", "fastapi_onnxruntime", model)
            chosen.append(servers.fastapi(*peer, "onnxruntime", programs))
    return chosen, Load(loadgen, settings.records, settings.expected, *first)


def run_rounds(chosen, load, settings):
    """{name: [figures of each round]} and {name: why it was given up}."""
    rounds = {server.name: [] for server in chosen}
    failures = {}
    for round_number in range(1, settings.rounds + 1):
        for server in chosen:
            if server.name in failures:
                continue
            say(f"round {round_number} of {settings.rounds}: {server.title} …")
            try:
                figures = measure(server, load, settings)
            except ServerError as error:
                say(f"  {server.title} is left out: {error}")
                failures[server.name] = str(error)
                continue
            rounds[server.name].append(figures)
            for count, found in figures["load"].items():
                say(f"  {count} connections: {found['requests_per_s']:,.0f} req/s, "
                    f"p50 {found['latency_us']['p50']} µs")  # fmt: skip
    return rounds, failures


def main():
    # As for Ctrl-C: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = options()
    try:
        chosen, load = prepare(settings)
        rounds, failures = run_rounds(chosen, load, settings)
    except SetupError as error:
        say(f"bench/run: {error}")
        return 2
    except KeyboardInterrupt:
        say("bench/run: interrupted; all servers are stopped")
        return 130
    results = report.collect(chosen, rounds, failures, settings)
    text = report.markdown(results)
    RESULTS.mkdir(exist_ok=True)
    RESULTS.joinpath("latest.json").write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.joinpath("latest.md").write_text(text)
    sys.stdout.write(text)
    say(f"written to {os.path.relpath(RESULTS)}/latest.md and latest.json")
    return 1 if failures else 0
