"""The load generator of the comparison (bench/loadgen), as far as long runs need it."""

import json
import subprocess

from checks import true
from server import RECORDS, TARGET


def predictions(server, seconds, header, connections=32, warmup=1):
    """Predicts for some seconds; gives the load generator's exit code (0: all was right) and its report."""
    done = subprocess.run(
        [
            *(TARGET / "release" / "loadgen", "--url", f"{server.url}/predict"),
            *("--records", RECORDS / "records.jsonl", "--expected", RECORDS / "expected.jsonl"),
            *("--connections", str(connections), "--duration-s", str(seconds), "--warmup-s", str(warmup)),
            *("--header", header, "--json"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + warmup + 60,
    )
    true(done.stdout.strip(), f"the load generator said nothing but: {done.stderr.strip()}")
    return done.returncode, json.loads(done.stdout)


def rate(server, seconds, header, connections=32, warmup=1):
    """Predictions per second, all of them right."""
    code, report = predictions(server, seconds, header, connections, warmup)
    true(code == 0, f"not every prediction was right: {report['errors']} {report['samples']}")
    return report["requests_per_s"]
