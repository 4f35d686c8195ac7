"""Is the connection to PostgreSQL what `sslmode` promises?

The server takes connections over TLS alone, with a certificate of an authority of its own for the name `localhost`.
"""

import base64
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from backends import Postgres
from checks import Checks, equal, true
from server import RECORDS, Server
from traffic import Client

RECORD = (RECORDS / "records.jsonl").read_text().splitlines()[0].encode()
PASSWORD = "correct-horse-battery"
MASTER_KEY = base64.b64encode(bytes(32)).decode()


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def authority(folder, name):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(folder, "req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem")


class OverTls(Postgres):
    def prepare(self):
        authority(self.folder, "own")
        authority(self.folder, "other")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "server.key"]
        openssl(self.folder, "req", *key, "-subj", "/CN=database", "-out", "server.csr")
        (self.folder / "names").write_text("subjectAltName = DNS:localhost")
        signed = ["-CA", "own.pem", "-CAkey", "own.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl(self.folder, "x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem")
        # PostgreSQL takes no key that others may read, and runs as another user.
        files = [self.folder / name for name in ("server.key", "server.pem")]
        for file in files:
            file.chmod(0o600)
            if self.user:
                subprocess.run(["chown", f"{self.user}:", file], check=True)
        self.folder.chmod(0o755)
        super().prepare()
        (self.folder / "data" / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 trust\n")

    def command(self):
        return [*super().command(), "-c", "ssl=on", "-c", "ssl_cert_file=../server.pem", "-c", "ssl_key_file=../server.key"]

    def query(self, text, database="test"):
        address = f"postgres://postgres@/{database}?host={self.folder}&port={self.port}"
        return self._run("psql", "--no-align", "--tuples-only", address, "--command", text).stdout.strip()

    def settings(self, query, host="localhost"):
        url = f"postgres://postgres:{PASSWORD}@{host}:{self.port}/test?{query}"
        return {"AUSPEX__STORAGE__URL": url, "AUSPEX__DIALOGUES__MASTER_KEY": MASTER_KEY}

    def pem(self, name="own"):
        return f"sslrootcert={self.folder / name}.pem"


def predicts(settings, key=None):
    """Whether a server with these settings starts and predicts; its key."""
    with Server(key=key, **settings) as server:
        equal(Client(server.port, server.key).ask("POST", "/predict", RECORD)[0], 200, "a prediction")
        return server.key


def refusal(settings):
    """What the server says that does not start."""
    try:
        with Server(**settings):
            raise AssertionError("it started")
    except SystemExit as said:
        text = str(said)
    true(PASSWORD not in text, f"the password is told: {text}")
    return text


def verified(postgres):
    """With `verify-full` and the authority's certificate everything works, over TLS alone"""
    with Server(**postgres.settings(f"sslmode=verify-full&{postgres.pem()}")) as server:
        client = Client(server.port, server.key)
        equal(client.ask("POST", "/predict", RECORD)[0], 200, "a prediction")
        status, job = client.ask("POST", "/v1/jobs?model=santander", RECORD, **{"Content-Type": "application/x-ndjson"})
        equal(status, 202, "a job")
        equal(client.ask("GET", f"/v1/jobs/{job['id']}")[0], 200, "its state")
        postgres.key = server.key
        ours = "from pg_stat_ssl join pg_stat_activity using (pid) where application_name <> 'psql' and datname = 'test'"
        equal(postgres.query(f"select count(*) > 0 and bool_and(ssl) {ours}"), "t", "TLS")
        true("ok" in server.command("doctor"), "the doctor")


def preferred(postgres):
    """Without `sslmode` TLS is spoken where the server does, whoever signed its certificate"""
    for query in ("", "sslmode=prefer", "sslmode=require"):
        predicts(postgres.settings(query, "127.0.0.1"), postgres.key)


def strangers(postgres):
    """A certificate of another authority is refused, and it is said what to look at"""
    for mode in ("verify-full", "verify-ca"):
        for authority in ("", postgres.pem("other")):
            said = refusal(postgres.settings(f"sslmode={mode}&{authority}"))
            true("UnknownIssuer" in said and "sslrootcert" in said, f"{mode}, {authority!r}: {said}")


def another_name(postgres):
    """A certificate for another name is refused by `verify-full`, and taken by `verify-ca`"""
    said = refusal(postgres.settings(f"sslmode=verify-full&{postgres.pem()}", "127.0.0.1"))
    true("sslmode" in said, said)
    predicts(postgres.settings(f"sslmode=verify-ca&{postgres.pem()}", "127.0.0.1"), postgres.key)


def without(postgres):
    """`disable` speaks no TLS, and the server's refusal is told"""
    said = refusal(postgres.settings("sslmode=disable"))
    true("no encryption" in said, said)


def nothing_to_speak():
    """Where PostgreSQL speaks no TLS, `require` is refused, and a password does not go out"""
    with Postgres() as plain:
        address = f"postgres://postgres:{PASSWORD}@127.0.0.1:{plain.port}/test"
        for mode in ("require", "verify-full"):
            said = refusal({"AUSPEX__STORAGE__URL": f"{address}?sslmode={mode}"})
            true("TLS" in said and "sslmode" in said, said)
        predicts({"AUSPEX__STORAGE__URL": address})


def main():
    checks = Checks()
    with OverTls() as postgres:
        checks.run_all([verified, preferred, strangers, another_name, without], postgres)
    checks.run_all([nothing_to_speak])
    checks.finish()


main()
