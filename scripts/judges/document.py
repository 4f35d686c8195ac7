"""Judge: the OpenAPI document is a valid one, and the same from the server and the command line."""

import json
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from openapi_spec_validator import OpenAPIV31SpecValidator

from checks import Checks, equal, true
from server import Server


def main():
    checks = Checks()
    with Server() as server:
        with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=10) as answer:
            served = json.load(answer)

        def valid():
            true(served["openapi"].startswith("3.1."), f"version {served['openapi']}, not 3.1")
            errors = [
                f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
                for error in OpenAPIV31SpecValidator(served).iter_errors()
            ]
            true(not errors, "\n       ".join(errors))

        def unique_ids():
            ids = [op["operationId"] for _, _, op in operations(served)]
            doubled = sorted({name for name in ids if ids.count(name) > 1})
            equal(doubled, [], "operation ids used twice")

        def same_from_the_command_line():
            printed = json.loads(server.command("openapi"))
            # Only the address differs: the command does not listen anywhere.
            equal(without_servers(printed), without_servers(served), "auspex openapi")

        def described():
            bare = [f"{m} {p}" for p, m, op in operations(served) if not op.get("summary")]
            equal(bare, [], "operations without a summary")

        checks.run("openapi-spec-validator finds no error (OpenAPI 3.1)", valid)
        checks.run("operation ids are unique", unique_ids)
        checks.run("every operation has a summary", described)
        checks.run("`auspex openapi` prints what the server serves", same_from_the_command_line)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


def operations(document):
    methods = ("get", "put", "post", "delete", "patch", "options", "head", "trace")
    for path, item in document["paths"].items():
        for method in methods:
            if method in item:
                yield path, method, item[method]


def without_servers(document):
    return {name: part for name, part in document.items() if name != "servers"}


main()
