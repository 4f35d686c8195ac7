"""pgbouncer in transaction mode between two replicas and PostgreSQL: either everything works, or the start refuses it by name.

    pgbouncer.py
"""

import base64
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from backends import Backend, Postgres
from checks import Checks, equal, true
from server import RECORDS, Server
from traffic import Client

REVOKED_S = 1
ROUNDS = 20  # so that connections of pgbouncer change hands
# What every driver sends and pgbouncer does not know has to be named; its manual does so for the first.
IGNORED = {"as it is installed": "", "that ignores what it does not know": "extra_float_digits,options"}
RECORD = (RECORDS / "records.jsonl").read_text().splitlines()[0].encode()
USER = {"name": "Ann", "email": "ann@example.org", "username": "ann", "password": "correct horse battery"}


class PgBouncer(Backend):
    user = Postgres.user

    def __init__(self, database, ignored):
        self.database, self.ignored = database, ignored

    def prepare(self):
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/test"
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        (self.folder / "pgbouncer.ini").write_text(f"""
[databases]
test = host=127.0.0.1 port={self.database.port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = {self.ignored}
""")

    def command(self):
        return [shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", "pgbouncer.ini"]

    def serves(self):
        done = self.database._run("pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self.port}", check=False)
        return done.returncode == 0


def works(servers):
    first, second = clients = [Client(server.port, servers[0].key) for server in servers]
    equal(first.ask("POST", "/v1/users", USER | {"roles": ["service"]})[0], 201, "a user")
    login = {"username": USER["username"], "password": USER["password"]}
    jobs = []
    for turn in range(ROUNDS):
        for client in clients:
            equal(client.ask("POST", "/predict", RECORD)[0], 200, "a prediction")
            equal(client.ask("POST", "/v1/auth/login", login)[0], 200, "a login")
            status, job = client.ask("POST", "/v1/jobs?model=santander", RECORD, **{"Content-Type": "application/x-ndjson"})
            equal(status, 202, "a job")
            jobs.append(job["id"])
        equal(first.ask("POST", f"/data/ann/turn-{turn}", {"text": "one", "language": "en"})[0], 200, "a text")
        equal(first.ask("POST", f"/consents/turn-{turn}", True)[0], 200, "a decision")
    time.sleep(2)
    ended = {second.ask("GET", f"/v1/jobs/{id}")[1]["status"] for id in jobs}
    equal(ended, {"succeeded"}, "jobs")
    status, lines = second.ask("GET", "/v1/messages", Accept="application/x-ndjson")
    equal((status, len(lines.splitlines())), (200, ROUNDS), "texts")
    status, made = first.ask("POST", "/v1/api-keys", {"name": "short", "scopes": ["predict"]})
    equal(status, 201, "a key")
    time.sleep(REVOKED_S)
    anybody = Client(servers[1].port, made["key"])
    equal(anybody.ask("POST", "/predict", RECORD)[0], 200, "with the key")
    equal(first.ask("DELETE", f"/v1/api-keys/{made['id']}")[0], 204, "its revocation")
    time.sleep(REVOKED_S)
    equal(anybody.ask("POST", "/predict", RECORD)[0], 401, "with the revoked key")


def start_or_refusal(ignored):
    with Postgres() as database, PgBouncer(database, ignored) as pgbouncer, ExitStack() as stack:
        settings = {
            "AUSPEX__STORAGE__URL": pgbouncer.url,
            "AUSPEX__DIALOGUES__MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
            "AUSPEX__SERVER__PUBLIC_URL": "http://localhost:8080",
        }
        try:
            first = stack.enter_context(Server(**settings))
        except SystemExit as refusal:
            true("pgbouncer" in str(refusal).lower(), f"the start does not name it: {refusal}")
            print("       refused by name")
            return
        works([first, stack.enter_context(Server(key=first.key, **settings))])
        print("       works")


def main():
    checks = Checks()
    for name, ignored in IGNORED.items():
        checks.run(f"pgbouncer {name} works or is refused by name", start_or_refusal, ignored)
    checks.finish()


main()
