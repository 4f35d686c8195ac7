"""Judge: Schemathesis sends what the OpenAPI document allows and forbids, and checks the answers.

All its checks, all its phases (examples, coverage, fuzzing, stateful), with a fixed seed. Each
operation counts as one check. A report with every failed request goes to $CARGO_TARGET_DIR/logs.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, true
from server import TARGET, Server

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES_MAX = os.environ.get("CONTRACT_EXAMPLES_MAX", "50")
SEED = os.environ.get("CONTRACT_SEED", "1")
RUN_S = 7_000 if "CONTRACT_EXAMPLES_MAX" in os.environ else 780


def main():
    checks = Checks()
    report = TARGET / "logs" / "contract.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    with Server() as server:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG),
                *("run", f"{server.url}/openapi.json"),
                *("--header", f"X-API-Key: {server.key}"),
                *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--mode", "all", "--max-examples", EXAMPLES_MAX, "--continue-on-failure"),
                *("--seed", SEED, "--generation-database", "none"),
                *("--request-timeout", "10", "--max-response-time", "5"),
                *("--report", "junit", "--report-junit-path", report),
                *("--output-truncate", "false", "--no-color"),
            ],
            cwd=server.folder,
            stdin=subprocess.DEVNULL,
            timeout=RUN_S,
        )
        checks.run("the server still runs", true, server.running(), "it has ended")
    cases = ElementTree.parse(report).getroot().iter("testcase") if report.exists() else ()
    for case in cases:
        problems = [problem.get("message") or "see above" for problem in case if problem.tag != "skipped"]
        checks.run(case.get("name"), true, not problems, "; ".join(problems)[:500])
    if not checks.failed:  # what belongs to no single operation
        checks.run("Schemathesis is content", true, done.returncode == 0, f"exit code {done.returncode}")
    checks.finish()


main()
