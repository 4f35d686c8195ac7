"""PostgreSQL, Redis and RabbitMQ go away in turn under two replicas; what was acknowledged is there afterwards.

    outages.py

Each of the three is killed, stopped in order and frozen, for ten seconds or more, while clients of both replicas predict, log in,
submit jobs, and hand in dialogues with consent. Predictions go on without an error all the while; what needs the server that
is away is answered 503 in time; two seconds after its return everything works again. In the end every job that was
acknowledged has each row once, and every consent its texts.
"""

import base64
import collections
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from backends import Postgres, RabbitMQ, Redis
from checks import Checks, equal, true
from server import BINARY, MODELS, RECORDS, Server
from traffic import Client, Traffic

AWAY_S = 10
WORKS_S = 2  # after the return
CALM_S = 10  # what /health says of the database is up to five seconds old
SETTLED_S = 60
PREDICTED_S = 1  # on a machine under load
# storage.call_timeout_ms and redis.timeout_ms, with what a machine under load adds. What RabbitMQ does not take within 2 s stays in the database alone.
ANSWERED_S = {"database": 5 + 2, "redis": 0.25 + 2, "rabbitmq": 2 + 2}
GOOD = {"predict": 200, "login": 200, "job": 202, "text": 200, "decision": 200}
NEEDS = {"database": {"login", "job", "text", "decision"}, "redis": {"text", "decision"}, "rabbitmq": set()}
RECORD = (RECORDS / "records.jsonl").read_text().splitlines()[0].encode()
USER = {"name": "Ann", "email": "ann@example.org", "username": "ann", "password": "correct horse battery"}
TEXTS = ["one", "two", "three"]
ROWS, INPUTS = 120, 5


def inputs(client):
    """Bodies of jobs with the results that `auspex predict` gives."""
    features = client.ask("GET", "/v1/models/mean-score/schema")[1]
    features = list(json.loads(features)["properties"])
    draw = random.Random(7)
    made = []
    for _ in range(INPUTS):
        rows = [json.dumps({name: round(draw.uniform(0, 10), 6) for name in features}) for _ in range(ROWS)]
        text = "".join(f"{row}\n" for row in rows).encode()
        command = [BINARY, "predict", MODELS / "mean-score" / "1"]
        made.append((text, subprocess.run(command, input=text, capture_output=True, check=True, timeout=60).stdout))
    return made


class Work:
    """What the clients do, and what they were promised."""

    def __init__(self, known):
        self.known, self.numbers, self.seen = known, itertools.count(), []
        self.jobs, self.consents, self.time = {}, {}, "in between"

    def predict(self, client):
        client.ask("POST", "/predict", RECORD, kind="predict")

    def log_in(self, client):
        login = {"username": USER["username"], "password": USER["password"]}
        client.ask("POST", "/v1/auth/login", login, kind="login")

    def submit(self, client):
        number = next(self.numbers)
        body = self.known[number % INPUTS][0]
        kind = {"Content-Type": "application/x-ndjson"}
        status, job = client.ask("POST", "/v1/jobs?model=mean-score", body, kind="job", **kind)
        if status == 202:
            self.jobs[job["id"]] = number % INPUTS, self.time

    def talk(self, client):
        """A dialogue, given up where a text is refused; a decision is repeated until it is carried out or nothing is known of it."""
        name = f"dialogue-{next(self.numbers)}"
        for text in TEXTS:
            body = {"text": text, "language": "en"}
            if client.ask("POST", f"/data/customer/{name}", body, kind="text")[0] != 200:
                return
        status = None
        while status not in (200, 404):
            if status is not None:
                time.sleep(0.2)
            status, answer = client.ask("POST", f"/consents/{name}", True, kind="decision")
        if status == 200:
            self.consents[name] = answer["texts"]


class Outages:
    def __init__(self, backends, servers, work):
        self.backends, self.servers, self.work = backends, servers, work

    def run(self, name, how):
        backend = self.backends[name]
        leave = {"killed": backend.kill, "stopped": backend.stop, "frozen": backend.freeze}[how]
        began, self.work.time = time.monotonic(), f"{name} {how}"
        leave()
        time.sleep(max(0, began + AWAY_S - time.monotonic()))
        meanwhile = [health(server, name) for server in self.servers]
        backend.thaw() if how == "frozen" else backend.start()
        back, self.work.time = time.monotonic(), "in between"
        while time.monotonic() < back + CALM_S:
            time.sleep(1)
            afterwards = [health(server, name) for server in self.servers]
        seen = [one for one in list(self.work.seen) if one.ended >= began]
        report(seen, began, back)
        wrong = [str(one) for one in seen if not is_right(one, name, how, began, back)]
        true(not wrong, "\n       ".join([f"{len(wrong)} answers are wrong, such as", *wrong[:6]]))
        for kind in NEEDS[name] - {"decision"}:
            true(
                any(one.kind == kind and one.status == 503 for one in seen),
                f"{kind} was never refused, so nothing was away",
            )
        true("healthy" not in meanwhile, f"/health said {meanwhile} while it was away")
        equal(afterwards, ["healthy"] * len(self.servers), f"/health {CALM_S} s after the return")


def is_right(one, name, how, began, back):
    """Whether an answer may be, to whoever asked at that time."""
    if one.took_s > (PREDICTED_S if one.kind == "predict" else ANSWERED_S[name]):
        return False
    # A Redis that comes back empty knows no dialogue.
    away = {503, 404} if name == "redis" and how != "frozen" else {503}
    excused = one.kind in NEEDS[name] and one.began < back + WORKS_S and one.status in away
    return one.status == GOOD[one.kind] or excused


def report(seen, began, back):
    print(f"       away for {back - began:.1f} s")
    for kind, good in GOOD.items():
        of_kind = [one for one in seen if one.kind == kind]
        refused = [one for one in of_kind if one.status != good]
        last = f", the last {refused[-1].began - back:+.2f} s after the return" if refused else ""
        slowest = max((one.took_s for one in of_kind), default=0)
        print(
            f"       {kind:8} {len(of_kind):5} answers, {len(refused):3} of them errors{last}; the slowest {slowest:.2f} s",
            flush=True,
        )


def health(server, name):
    return Client(server.port).ask("GET", "/health")[1]["services"][name]


def finish_jobs(work, client):
    """Every job that was acknowledged has succeeded, with each row once"""
    ends, waits = time.monotonic() + SETTLED_S, collections.defaultdict(list)
    for id, (number, when) in work.jobs.items():
        while True:
            job = client.ask("GET", f"/v1/jobs/{id}")[1]
            if job["ended_at"]:
                break
            true(time.monotonic() < ends, f"{id} is {job['status']} {SETTLED_S} s after the last outage")
            time.sleep(0.1)
        equal(job["status"], "succeeded", f"job {id}")
        result = client.ask("GET", f"/v1/jobs/{id}/result")[1]
        true(result == work.known[number][1], f"the result of {id} is not that of `auspex predict`")
        waits[when].append(seconds(job["ended_at"]) - seconds(job["created_at"]))
    for when, these in waits.items():
        print(
            f"       {len(these):4} jobs submitted {when}: done after {statistics.median(these):.2f} s (median), {max(these):.1f} s at most"
        )


def seconds(timestamp):
    return datetime.fromisoformat(timestamp).timestamp()


def export(work, client):
    """Every consent that was acknowledged has its texts in the export"""
    status, lines = client.ask("GET", "/v1/messages", Accept="application/x-ndjson")
    equal(status, 200, "status of the export")
    found = collections.defaultdict(list)
    for line in reversed(lines.splitlines()):
        message = json.loads(line)
        found[message["dialog_id"]].append(message["text"])
    wrong = [name for name, count in work.consents.items() if found[name] != TEXTS or count != len(TEXTS)]
    equal(wrong[:5], [], f"dialogues with other texts, of {len(work.consents)} with consent")
    print(f"       {len(work.consents)} dialogues with consent, {len(TEXTS)} texts each")


def main():
    checks = Checks()
    with Postgres() as database, Redis() as redis, RabbitMQ() as rabbitmq:
        settings = {
            "AUSPEX__STORAGE__URL": database.url,
            "AUSPEX__REDIS__URL": redis.url,
            "AUSPEX__JOBS__RABBITMQ__URL": rabbitmq.url,
            "AUSPEX__JOBS__CHUNK_ROWS_MAX": "50",
            "AUSPEX__DIALOGUES__MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
            "AUSPEX__SERVER__PUBLIC_URL": "http://localhost:8080",
        }
        backends = {"database": database, "redis": redis, "rabbitmq": rabbitmq}
        with Server(**settings) as first, Server(key=first.key, **settings) as second:
            servers = [first, second]
            admin = Client(first.port, first.key)
            equal(admin.ask("POST", "/v1/users", USER | {"roles": ["service"]})[0], 201, "a user is made")
            work = Work(inputs(admin))
            outages = Outages(backends, servers, work)
            with Traffic() as traffic:
                for server in servers:
                    for each, pause_s in (
                        (work.predict, 0.01),
                        (work.log_in, 0.5),
                        (work.submit, 0.5),
                        (work.talk, 0.1),
                    ):
                        traffic.add(partial(each, Client(server.port, server.key, work.seen)), pause_s)
                time.sleep(WORKS_S)
                for name, how in itertools.product(backends, ("killed", "stopped", "frozen")):
                    checks.run(f"{name} {how}", outages.run, name, how)
            admin = Client(second.port, first.key)
            checks.run(finish_jobs.__doc__, finish_jobs, work, admin)
            checks.run(export.__doc__, export, work, admin)
    checks.run(
        "SIGTERM ends both replicas with exit code 0", equal, [each.exit_code for each in servers], [0, 0], "exit codes"
    )
    checks.finish()


main()
