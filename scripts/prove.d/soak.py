"""Steady load for a while: no error, no wrong answer, and memory that does not grow.

    soak.py MINUTES

The load generator checks every answer; memory is read each second.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal
from load import predictions
from memory import Memory
from server import Server

CONNECTIONS = 32
ROUND_S = 600  # the load generator runs for an hour at most


def main():
    total = int(sys.argv[1]) * 60
    checks = Checks()
    reports = []
    # Every request counts against the limiter, which must be out of reach for hours.
    with Server(AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as server:
        with Memory(server) as memory:
            left = total
            while left > 0:
                code, report = predictions(server, min(ROUND_S, left), f"X-API-Key: {server.key}", CONNECTIONS)
                reports.append((code, report))
                print(f"{total - left:6d} s  {server.rss_mb():7.1f} MB  {json.dumps(report)}", flush=True)
                left -= ROUND_S

        checks.run("every answer was right", equal, [code for code, _ in reports], [0] * len(reports), "exit codes")
        checks.run("memory did not grow", memory.check)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
