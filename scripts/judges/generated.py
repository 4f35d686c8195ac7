"""Judge: makers of clients take the OpenAPI document, and a client that one of them made works."""

import importlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from server import RECORDS, TARGET, Server

TIMEOUT_S = 120
TOOLS = Path(sys.executable).parent
NODE_TOOLS = TARGET / "judges-node" / "node_modules" / ".bin"
PACKAGE = "made_client"
RECORD = json.loads((RECORDS / "records.jsonl").read_text().splitlines()[0])
EXPECTED = json.loads((RECORDS / "expected.jsonl").read_text().splitlines()[0])


def made(*command, cwd):
    ended = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)
    said = ended.stdout + ended.stderr
    equal(ended.returncode, 0, f"exit code, {said[-2000:]}")
    return said


def main():
    checks = Checks()
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=10) as answer:
            (folder / "openapi.json").write_bytes(answer.read())

        def python_client():
            said = made(
                TOOLS / "openapi-python-client", "generate", "--path", "openapi.json", "--output-path", PACKAGE,
                "--meta", "none", cwd=folder,
            )
            # OpenMetrics is text for Prometheus; no client needs it. The client submits jobs in JSON alone.
            left_out = [line for line in said.splitlines() if line.startswith("WARNING parsing")]
            known = ["WARNING parsing GET /metrics within system.", *["WARNING parsing POST /v1/jobs within jobs."] * 2]
            equal(left_out, known, f"operations left out: {said[:2000]}")
            true("submit_job" in "".join(map(str, (folder / PACKAGE).rglob("*.py"))), "jobs cannot be submitted")

        def python_models():
            made(
                TOOLS / "datamodel-codegen", "--input", "openapi.json", "--input-file-type", "openapi",
                "--output", "made_models.py", "--output-model-type", "pydantic_v2.BaseModel", cwd=folder,
            )
            models = importlib.import_module("made_models")
            body = models.SantanderRecord.model_validate(RECORD)
            equal(body.age, RECORD["age"], "age")

        def types():
            made(NODE_TOOLS / "openapi-typescript", "openapi.json", "-o", "made.d.ts", cwd=folder)
            made(NODE_TOOLS / "tsc", "--noEmit", "--strict", "--skipLibCheck", "false", "made.d.ts", cwd=folder)

        def fetch_client():
            made(NODE_TOOLS / "openapi-ts", "-i", "openapi.json", "-o", "made", "--no-log-file", cwd=folder)
            made(
                NODE_TOOLS / "tsc", "--noEmit", "--strict", "--target", "es2022", "--module", "esnext",
                "--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable", "made/index.ts", cwd=folder,
            )

        def predicts():
            api = importlib.import_module(f"{PACKAGE}.api.predictions.predict_santander")
            record = importlib.import_module(f"{PACKAGE}.models").SantanderRecord.from_dict(RECORD)
            answer = api.sync(client=client(server), body=record).to_dict()
            worst = max(abs(got - wanted) for got, wanted in zip(answer["probabilities"], EXPECTED, strict=True))
            true(worst <= 1e-6, f"off by {worst}")

        def lists_users():
            create = importlib.import_module(f"{PACKAGE}.api.users.create_user")
            user = {"name": "Data Scientist", "email": "user@example.org"}
            user = importlib.import_module(f"{PACKAGE}.models").UserCreate.from_dict(user)
            made = create.sync(client=client(server), body=user).to_dict()
            api = importlib.import_module(f"{PACKAGE}.api.users.list_users")
            users = api.sync(client=client(server), limit=10).to_dict()
            equal(users.get("data"), [made], f"users, {users}")

        sys.path.insert(0, str(folder))
        checks.run("openapi-python-client makes a client", python_client)
        checks.run("its client predicts", predicts)
        checks.run("its client makes a user and lists them", lists_users)
        checks.run("datamodel-code-generator makes models, which take a record", python_models)
        checks.run("openapi-typescript makes types, which compile", types)
        checks.run("@hey-api/openapi-ts makes a client, which compiles", fetch_client)
    checks.finish()


def client(server):
    made_client = importlib.import_module(PACKAGE)
    return made_client.AuthenticatedClient(
        base_url=server.url, token=server.key, prefix="", auth_header_name="X-API-Key", raise_on_unexpected_status=True
    )


if __name__ == "__main__":
    main()
