"""Steady load for a while: no error, no wrong answer, and memory that does not grow.

    soak.py MINUTES

The load generator checks every answer. Memory is read each second; after the first fifth of the
time, which caches and allocators may use to fill up, it may grow by a tenth at most.
"""

import json
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from load import predictions
from server import Server

CONNECTIONS = 32
ROUND_S = 600  # the load generator runs for an hour at most
GROWTH_MAX = 0.10
SLACK_MB = 4  # of a server this small a tenth is next to nothing


def watch(server, samples, stop):
    while not stop.wait(1):
        samples.append((time.monotonic(), server.rss_mb()))


def main():
    total = int(sys.argv[1]) * 60
    checks = Checks()
    reports, samples, stop = [], [], threading.Event()
    # Every request counts against the limiter, which must be out of reach for hours.
    with Server(AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as server:
        watcher = threading.Thread(target=watch, args=(server, samples, stop), daemon=True)
        watcher.start()
        left = total
        while left > 0:
            code, report = predictions(server, min(ROUND_S, left), f"X-API-Key: {server.key}", CONNECTIONS)
            reports.append((code, report))
            print(f"{total - left:6d} s  {server.rss_mb():7.1f} MB  {json.dumps(report)}", flush=True)
            left -= ROUND_S
        stop.set()
        watcher.join()

        def memory():
            first, last = samples[0][0], samples[-1][0]
            fifth = (last - first) / 5
            early = statistics.median(mb for at, mb in samples if first + fifth <= at < first + 2 * fifth)
            late = statistics.median(mb for at, mb in samples if at >= last - fifth)
            grown = late - early
            print(f"       {early:.1f} MB early, {late:.1f} MB late, {max(mb for _, mb in samples):.1f} MB at most")
            true(grown <= max(early * GROWTH_MAX, SLACK_MB), f"memory grew by {grown:.1f} MB")

        checks.run("every answer was right", equal, [code for code, _ in reports], [0] * len(reports), "exit codes")
        checks.run("memory did not grow", memory)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
