"""Jobs survive the death of their server: every one succeeds, every result has each row exactly once.

    jobs.py [--jobs COUNT] [--rows COUNT] [SCENARIO...]

    kill      COUNT jobs (1,000) of 1,000 rows, submitted and carried out while the server is killed by
              kill -9 again and again; every result must be what `auspex predict` writes, byte for byte
    large     one job of COUNT rows (1,000,000); its result is read in ranges, memory stays small
"""

import argparse
import collections
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from server import BINARY, MODELS, Server

ROWS = 1_000
INPUTS = 20
WRITERS = 8
ANSWER_S = 30
IN_TIME_S = 3_000
# A lease must be over soon after a restart, and a job must have several chunks to be killed amid.
KILLED = {"AUSPEX__JOBS__LEASE_S": "2", "AUSPEX__JOBS__CHUNK_ROWS_MAX": "250"}
GROWTH_MAX_MB = 150


class Away(Exception):
    """The server did not answer."""


def ask(server, method, path, body=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_S)
    try:
        connection.request(method, path, body, {"X-API-Key": server.key} | headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Away from error
    finally:
        connection.close()


def patiently(ends, what, work):
    """What `work` gives, once the server answers."""
    while True:
        try:
            found = work()
            if found is not None:
                return found
        except Away:
            pass
        true(time.monotonic() < ends, f"{what}: not in time")
        time.sleep(0.05)


def inputs(server):
    """Files of records with their predictions, some rows of them wrong."""
    features = json.loads(ask(server, "GET", "/v1/models/mean-score/schema")[2])["properties"]
    draw = random.Random(7)
    made = []
    for _ in range(INPUTS):
        rows = []
        for number in range(ROWS):
            record = {name: round(draw.uniform(0, 10), 6) for name in features}
            if number % 97 == 0:
                record[next(iter(record))] = "no number"
            rows.append(json.dumps(record))
        text = "\n".join(rows) + "\n"
        made.append((text.encode(), predicted(text)))
    return made


def predicted(text):
    """What `auspex predict` makes of it; its exit code tells of the wrong rows."""
    command = [BINARY, "predict", MODELS / "mean-score" / "1"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    lines = done.stdout.encode()
    equal(lines.count(b"\n"), ROWS, "predictions of the command")
    return lines


class Killer:
    """Kills the server and starts it again, until it is told to stop."""

    def __init__(self, server):
        self.server, self.kills, self.stop = server, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.failure = None

    def run(self):
        try:
            while not self.stop.wait(random.uniform(0.3, 2.0)):
                self.server.kill_and_start()
                self.kills += 1
        except Exception as error:
            self.failure = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def submit(server, number, text, ends):
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"job-{number}"}

    def once():
        status, _, body = ask(server, "POST", "/v1/jobs?model=mean-score", text, **headers)
        if status == 202:
            return json.loads(body)["id"]
        true(status in (409, 500, 503), f"status {status}: {body[:300]}")
        return None

    return patiently(ends, f"job {number} is submitted", once)


def states(server):
    status, _, body = ask(server, "GET", "/v1/jobs/states")
    return {one["status"]: one["count"] for one in json.loads(body)["data"]} if status == 200 else None


def kill(count, _):
    """Every job succeeds and every result has each row once, although the server is killed again and again"""
    with Server(**KILLED) as server:
        known = inputs(server)
        ends = time.monotonic() + IN_TIME_S
        began = time.monotonic()
        with Killer(server) as killer:
            with ThreadPoolExecutor(WRITERS) as pool:
                one = lambda number: submit(server, number, known[number % INPUTS][0], ends)
                ids = list(pool.map(one, range(count)))
            equal(len(set(ids)), count, "jobs that were submitted")

            def over():
                found = states(server)
                return found if found and not found["queued"] and not found["running"] else None

            found = patiently(ends, "all jobs end", over)
        if killer.failure:
            raise killer.failure
        took = time.monotonic() - began
        equal(found, dict.fromkeys(found, 0) | {"succeeded": count}, "jobs by state")
        wrong = collections.Counter()
        for number, id in enumerate(ids):
            status, _, lines = ask(server, "GET", f"/v1/jobs/{id}/result")
            equal(status, 200, f"status of result {number}")
            wrong[lines == known[number % INPUTS][1]] += 1
        equal(wrong[False], 0, "results that differ from those of `auspex predict`")
        print(f"       {count} jobs of {ROWS} rows, {killer.kills} kills, {took:.0f} s", flush=True)


class Rows:
    """A body of many records that is made while it is sent."""

    def __init__(self, record, count):
        self.block, self.count = (json.dumps(record) + "\n").encode() * 1_000, count // 1_000

    def __iter__(self):
        return iter([self.block] * self.count)


def santander(server):
    schema = json.loads(ask(server, "GET", "/v1/models/santander/schema")[2])
    return schema["examples"][0]


def large(_, rows):
    """A million rows are taken in, predicted and read without holding them in memory"""
    with Server(AUSPEX__JOBS__CALLBACKS__TIMEOUT_MS="10000") as server:
        record = santander(server)
        single = json.loads(server.command("bench", str(MODELS / "santander" / "1"), "--json"))
        before, most, stop = server.rss_mb(), [0], threading.Event()

        def watch():
            while not stop.wait(0.05):
                most[0] = max(most[0], server.rss_mb())

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
            headers = {"X-API-Key": server.key, "Content-Type": "application/x-ndjson"}
            connection.request("POST", "/v1/jobs?model=santander", iter(Rows(record, rows)), headers, encode_chunked=True)
            answer = connection.getresponse()
            body = answer.read()
            equal(answer.status, 202, f"status ({body[:300]})")
            job = json.loads(body)
            equal(job["progress"]["total"], rows, "rows")
            sent = time.monotonic() - began

            def over():
                found = json.loads(ask(server, "GET", f"/v1/jobs/{job['id']}")[2])
                return found if found["ended_at"] else None

            ended = patiently(began + IN_TIME_S, "the job ends", over)
            took = time.monotonic() - began
            equal((ended["status"], ended["progress"]["errors"]), ("succeeded", 0), "end")
            lines = read_in_ranges(server, job["id"])
            read = time.monotonic() - began - took
        finally:
            stop.set()
            watching.join()
        equal(lines, rows, "lines of the result")
        growth = most[0] - before
        print(f"       {rows} rows: sent in {sent:.0f} s, done after {took:.0f} s ({rows / took:,.0f} rows/s), read in {read:.0f} s")
        print(f"       {growth:.0f} MB more memory at most; the engine alone: {json.dumps(single)}", flush=True)
        true(growth < GROWTH_MAX_MB, f"memory grew by {growth:.0f} MB")


def read_in_ranges(server, id):
    """Reads a result in pieces that end anywhere; how many lines it has."""
    at, total, lines = 0, None, 0
    while total is None or at < total:
        end = at + random.randrange(1 << 20, 64 << 20)
        status, headers, piece = ask(server, "GET", f"/v1/jobs/{id}/result", Range=f"bytes={at}-{end}")
        equal(status, 206, "status")
        total = int(headers["Content-Range"].rsplit("/", 1)[1])
        equal(headers["Content-Range"], f"bytes {at}-{min(end + 1, total) - 1}/{total}", "Content-Range")
        at += len(piece)
        lines += piece.count(b"\n")
    return lines


SCENARIOS = {"kill": kill, "large": large}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    given = parser.parse_args()
    checks = Checks()
    for name in given.scenarios or SCENARIOS:
        function = SCENARIOS[name]
        checks.run(function.__doc__, function, given.jobs, given.rows)
    checks.finish()


main()
