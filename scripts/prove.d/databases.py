"""A streaming standby of PostgreSQL that answers lists, and jobs and texts that move to databases of their own as the manual says.

    databases.py
"""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from backends import Postgres
from checks import Checks, equal, true
from server import BINARY, RECORDS, Server
from traffic import Client

LAG_S = 5
AWAY_S = 8  # a standby that did not answer is left alone for five seconds, and /health is a second old
RECORD = (RECORDS / "records.jsonl").read_text().splitlines()[0].encode()
NDJSON = {"Content-Type": "application/x-ndjson"}
ONCE = NDJSON | {"Idempotency-Key": "one"}
OURS = {
    "AUSPEX__DIALOGUES__MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
    "AUSPEX__SERVER__PUBLIC_URL": "http://localhost:8080",
}


class Standby(Postgres):
    """A streaming one of `primary`."""

    def __init__(self, primary):
        self.primary = primary

    def fill(self):
        source = f"--dbname=postgres://postgres@127.0.0.1:{self.primary.port}/postgres"
        self._run("pg_basebackup", source, "--pgdata=data", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")


def soon(what, wanted, limit_s=LAG_S):
    ends = time.monotonic() + limit_s
    while not wanted():
        true(time.monotonic() < ends, f"not within {limit_s} s: {what}")
        time.sleep(0.05)


def health(client, name):
    return client.ask("GET", "/health")[1]["services"].get(name)


def names(client):
    return {key["name"] for key in client.ask("GET", "/v1/api-keys")[1]["data"]}


def make_key(client, name):
    equal(client.ask("POST", "/v1/api-keys", {"name": name, "scopes": ["predict"]})[0], 201, "a key")


def standby_answers():
    with Postgres() as primary, Standby(primary) as standby:
        settings = OURS | {"AUSPEX__STORAGE__URL": primary.url, "AUSPEX__STORAGE__STANDBYS__MAIN": standby.url}
        with Server(**settings) as server:
            client = Client(server.port, server.key)
            make_key(client, "one")
            soon("the standby has it", lambda: "one" in names(client))
            reads = "select count(*) from pg_stat_activity where datname = 'test' and query like '%identity_api_keys%'"
            true(int(standby.query(reads, "postgres")) > 0, "the standby was not asked")
            status, job = client.ask("POST", "/v1/jobs?model=santander", RECORD, **NDJSON)
            equal(status, 202, "a job")
            soon("it is listed", lambda: client.ask("GET", "/v1/jobs")[1]["data"])
            true(client.ask("GET", "/v1/audit")[1]["data"], "nothing is recorded")
            equal(health(client, "standby"), "healthy", "/health")
            standby.kill()
            make_key(client, "two")
            true("two" in names(client), "the primary did not answer")
            soon("/health tells", lambda: health(client, "standby") == "degraded", AWAY_S)
            equal(client.ask("GET", "/health/ready")[0], 200, "it is ready")
            standby.start()
            soon("/health tells of the return", lambda: health(client, "standby") == "healthy", AWAY_S)
            soon("it has caught up", lambda: "two" in names(client))
            # From here on it has a life of its own, and would show what was for ever.
            standby.query("select pg_promote()", "postgres")
            make_key(client, "three")
            soon("the primary answers", lambda: "three" in names(client))
            soon("/health tells of it", lambda: health(client, "standby") == "degraded", AWAY_S)
    with Postgres() as primary, Postgres() as other:
        with Server(**OURS, AUSPEX__STORAGE__URL=other.url):
            pass
        try:
            with Server(**OURS, AUSPEX__STORAGE__URL=primary.url, AUSPEX__STORAGE__STANDBYS__MAIN=other.url):
                true(False, "a database that is no standby was taken")
        except SystemExit as refusal:
            true("is no standby of it" in str(refusal), f"the start does not say so: {refusal}")


def shell(command, **settings):
    done = subprocess.run(["bash", "-c", command], env=os.environ | settings, capture_output=True, text=True, timeout=120)
    equal(done.returncode, 0, f"{command}: {done.stderr}")


def tables_move():
    with Postgres() as old, Postgres() as new:
        old.query("create database jobs", "postgres")
        jobs_url = old.url.removesuffix("/test") + "/jobs"
        before = OURS | {"AUSPEX__STORAGE__URL": old.url}
        with Server(**before) as server:
            client, key = Client(server.port, server.key), server.key
            status, job = client.ask("POST", "/v1/jobs?model=santander", RECORD, **ONCE)
            equal(status, 202, "a job")
            secret = client.ask("GET", "/v1/jobs/callback-secret")
            path = f"/v1/jobs/{job['id']}"
            soon("it ends", lambda: client.ask("GET", path)[1]["status"] == "succeeded", 20)
            result = client.ask("GET", f"{path}/result")[1]
            equal(client.ask("POST", "/data/ann/one", {"text": "good morning", "language": "en"})[0], 200, "a text")
            equal(client.ask("POST", "/consents/one", True)[0], 200, "a decision")
        after = before | {
            "AUSPEX__STORAGE__SERVICES__JOBS": jobs_url,
            "AUSPEX__STORAGE__SERVICES__DIALOGUES": new.url,
        }
        try:
            with Server(key=key, **after):
                true(False, "tables were left behind in silence")
        except SystemExit as refusal:
            true("--create" in str(refusal), f"the start does not say what to do: {refusal}")
        shell(f"{BINARY} migrate --create --data-dir {old.folder}/data-of-auspex", **after)
        moved = {jobs_url: "--table 'jobs_*' --table kernel_idempotency_keys", new.url: "--table 'dialogues_*'"}
        for url, tables in moved.items():
            dump = f"pg_dump --data-only {tables} --exclude-table '*_migrations' {old.url}"
            shell(f"set -o pipefail; {dump} | psql --quiet --single-transaction --set ON_ERROR_STOP=1 {url}")
        texts = "dialogues messages sealed consents withdrawals erased statistics keys key_secrets erasures"
        texts = ", ".join(f"dialogues_{name}" for name in texts.split())
        jobs = ", ".join(f"jobs_{name}" for name in "jobs chunks inputs results owners".split())
        for tables in (jobs, texts):
            old.query(f"truncate {tables}", "test")
        with Server(key=key, **after) as server:
            client = Client(server.port, key)
            equal(client.ask("GET", f"{path}/result")[1], result, "the result")
            equal(client.ask("GET", "/v1/jobs/callback-secret"), secret, "the secret of callbacks")
            again = client.ask("POST", "/v1/jobs?model=santander", RECORD, **ONCE)[1]
            equal(again["id"], job["id"], "the job of an Idempotency-Key")
            texts = client.ask("GET", "/v1/messages")[1]["data"]
            equal([text["text"] for text in texts], ["good morning"], "texts")
            equal(client.ask("DELETE", path)[0], 204, "the job is deleted")
            lines = lambda: client.ask("GET", "/v1/audit?action=job.delete")[1]["data"]
            soon("it is recorded with all else", lines)


def main():
    checks = Checks()
    checks.run("a streaming standby answers lists, and the primary while it is away", standby_answers)
    checks.run("jobs and texts move to databases of their own", tables_move)
    checks.finish()


main()
