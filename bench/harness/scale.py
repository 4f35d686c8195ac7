"""What scaling out costs on this machine, with its targets."""

import argparse
import http.client
import json
import sys
import threading
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

from . import setup, trees
from .paths import FIXTURES, MODELS, RESULTS, ROOT

sys.path.insert(0, str(ROOT / "scripts" / "lib"))

from backends import Redis  # noqa: E402
from load import predictions  # noqa: E402
from server import Server  # noqa: E402

PIECE_ROWS = 1_000
FEATURES = 20  # of the model of bench/trees
IN_TIME_S = 1_800
JOB_RATIO_MIN = 0.7
QUOTA_RATIO_MAX = 1.3
GROWTH_MAX_MB = 150
OUT_OF_REACH = {"AUSPEX__SERVER__RATE_LIMIT__MAX": "1000000000"}


class Failed(Exception):
    """A server did not do its part; the message says how."""


@dataclass
class Subject:
    """A model, and records for it."""

    name: str
    served: Path
    package: Path
    records: list[bytes]


def santander():
    records = (FIXTURES / "records.jsonl").read_bytes().splitlines()
    return Subject("santander", MODELS, MODELS / "santander" / "1", records)


def regression():
    """LightGBM's 1,000 trees of bench/trees: a model whose predictions take longer than their records."""
    trees.train(setup.install("trees", trees.REQUIREMENTS) / "python")
    shape = next(shape for shape in trees.SHAPES if shape.name == "regression")
    values = array("d", shape.rows.read_bytes()[: PIECE_ROWS * FEATURES * 8])
    rows = [values[first : first + FEATURES] for first in range(0, len(values), FEATURES)]
    # What is not equal to itself is missing.
    records = [{f"f{at}": value if value == value else None for at, value in enumerate(row)} for row in rows]
    return Subject(shape.name, shape.model, shape.model, [json.dumps(record).encode() for record in records])


class Input:
    """The records in turn, made while they are sent."""

    def __init__(self, records, rows):
        each = [records[number % len(records)] for number in range(PIECE_ROWS)]
        self.piece, self.count = b"\n".join(each) + b"\n", rows // PIECE_ROWS

    def __iter__(self):
        return iter([self.piece] * self.count)


def ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    try:
        connection.request(method, path, body, {"X-API-Key": server.key} | headers, encode_chunked=bool(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def job(subject, rows):
    """Seconds from the first byte of a job to its end and to the last byte of its result, and what memory it took in MB."""
    with Server(models=subject.served) as server:
        before, most, over = server.rss_mb(), [0.0], threading.Event()

        def watch():
            while not over.wait(0.05):
                most[0] = max(most[0], server.rss_mb())

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            began = time.monotonic()
            headers = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
            status, body = ask(server, "POST", f"/v1/jobs?model={subject.name}", iter(Input(subject.records, rows)), **headers)
            if status != 202:
                raise Failed(f"the job was answered {status}: {body[:300]}")
            sent = time.monotonic() - began
            path = f"/v1/jobs/{json.loads(body)['id']}"
            while not (found := json.loads(ask(server, "GET", path)[1]))["ended_at"]:
                if time.monotonic() - began > IN_TIME_S:
                    raise Failed(f"the job is not done: {found}")
                time.sleep(0.02)
            done = time.monotonic() - began
            if (found["status"], found["progress"]["errors"]) != ("succeeded", 0):
                raise Failed(f"the job ended as {found}")
            lines = count_lines(server, f"{path}/result")
            read = time.monotonic() - began
        finally:
            over.set()
            watching.join()
        if lines != rows:
            raise Failed(f"the result has {lines} rows")
        return {"sent_s": sent, "done_s": done, "read_s": read, "growth_mb": most[0] - before}


def count_lines(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("GET", path, headers={"X-API-Key": server.key})
    answer, lines = connection.getresponse(), 0
    while piece := answer.read(1 << 20):
        lines += piece.count(b"\n")
    connection.close()
    return lines


def engine(subject):
    """What `auspex bench` says of the model."""
    with Server() as server:
        return json.loads(server.command("bench", str(subject.package), "--json"))


def quotas(seconds, rounds):
    """Medians over the rounds of p50 and p99, in microseconds, with quotas here and in Redis, by number of connections."""
    found = {}
    with Redis() as redis:
        for _ in range(rounds):
            for where, settings in (("here", {}), ("in Redis", {"AUSPEX__REDIS__URL": redis.url})):
                with Server(**OUT_OF_REACH, **settings) as server:
                    for connections in (1, 32):
                        code, report = predictions(server, seconds, f"X-API-Key: {server.key}", connections)
                        if code != 0:
                            raise Failed(f"not every prediction was right: {report}")
                        found.setdefault((connections, where), []).append(report["latency_us"])
    median = lambda reports, name: sorted(report[name] for report in reports)[len(reports) // 2]
    return {key: (median(reports, "p50"), median(reports, "p99")) for key, reports in found.items()}


def main():
    parser = argparse.ArgumentParser(prog="bench/scale", description=__doc__)
    option = parser.add_argument
    option("--rows", type=int, default=1_000_000)
    option("--seconds", type=int, default=5, help="per load of predictions")
    option("--rounds", type=int, default=3, help="of predictions")
    option("--only", choices=["jobs", "quotas"])
    options = parser.parse_args()
    lines = []
    try:
        if options.only != "quotas":
            for subject in (santander(), regression()):
                lines += jobs_section(subject, options.rows)
        if options.only != "jobs":
            lines += quotas_section(options)
    except (Failed, setup.SetupError) as failure:
        print(f"bench/scale: {failure}", file=sys.stderr)
        return 1
    said = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scale.md").write_text(said)
    print(said)
    return 0


def verdict(holds):
    return "held" if holds else "missed"


def jobs_section(subject, rows):
    alone, found = engine(subject), job(subject, rows)
    batch, done = 1e6 / alone["batch_us_per_row"], rows / found["done_s"]
    return [
        f"# A job of {rows:,} rows of NDJSON for {subject.name}",
        "",
        f"- the engine alone, batches of {alone['batch_rows']} on one thread: {batch:,.0f} rows/s ({alone['engine']})",
        f"- from JSON to JSON without a server, on one thread: {1e6 / alone['request_us']:,.0f} rows/s",
        f"- the job, from its first byte to its end: {found['done_s']:.1f} s, {done:,.0f} rows/s; sent after {found['sent_s']:.1f} s, "
        f"its result read after {found['read_s']:.1f} s",
        f"- of the engine's rate: {done / batch:.2f}, target at least {JOB_RATIO_MIN}: {verdict(done / batch >= JOB_RATIO_MIN)}",
        f"- more memory at most: {found['growth_mb']:.0f} MB, target {GROWTH_MAX_MB}: {verdict(found['growth_mb'] <= GROWTH_MAX_MB)}",
        "",
    ]


def quotas_section(options):
    found = quotas(options.seconds, options.rounds)
    lines = [
        "# A prediction with its quota here, and in Redis",
        "",
        "| connections | here, p50 and p99 in µs | in Redis | p50 of that | target |",
        "|---:|---:|---:|---:|---|",
    ]
    for connections in (1, 32):
        here, there = found[connections, "here"], found[connections, "in Redis"]
        ratio = there[0] / here[0]
        held = verdict(ratio <= QUOTA_RATIO_MAX)
        shown = [f"{one[0]:.0f}, {one[1]:.0f}" for one in (here, there)]
        lines.append(f"| {connections} | {shown[0]} | {shown[1]} | × {ratio:.2f} | at most × {QUOTA_RATIO_MAX}: {held} |")
    return [*lines, ""]
