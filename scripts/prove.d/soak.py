"""Steady load for a while: no error, no wrong answer; memory, open files and latency stay as they are.

    soak.py MINUTES

It is about half of what the server could do here: one connection, whose share of the whole is measured at the start and printed.
The load generator checks every answer. Memory is read each second, the rest each minute.
"""

import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from load import predictions, rate
from memory import Memory
from server import Server

ROUND_S = 60
FULL_S = 5
CONNECTIONS_OF_ALL = 32
FILES_MORE_MAX = 4  # a connection that is not closed yet, and such
LATENCY_GROWTH_MAX = 1.3  # of the median


def open_files(server):
    return len(os.listdir(f"/proc/{server.child.pid}/fd"))


def main():
    rounds = int(sys.argv[1])
    checks = Checks()
    codes, medians, files = [], [], []
    # Every request counts against the limiter, which must be out of reach for hours.
    with Server(AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as server:
        key = f"X-API-Key: {server.key}"
        full = rate(server, FULL_S, key, CONNECTIONS_OF_ALL)
        with Memory(server) as memory:
            for number in range(rounds):
                code, report = predictions(server, ROUND_S - 1, key, connections=1)
                latency = report["latency_us"]
                codes.append(code)
                medians.append(latency["p50"])
                files.append(open_files(server))
                print(
                    f"{number + 1:4d} min  {report['requests_per_s']:8,.0f}/s ({report['requests_per_s'] / full:.0%} of all)  "
                    f"{server.rss_mb():6.1f} MB  {files[-1]} files  p50 {latency['p50']:.0f} µs  p99 {latency['p99']:.0f} µs  "
                    f"p99.9 {latency['p99_9']:.0f} µs  {report['errors_total']} errors",
                    flush=True,
                )

        def flat():
            third = max(1, len(medians) // 3)
            early, late = statistics.median(medians[:third]), statistics.median(medians[-third:])
            print(f"       {early:.0f} µs early, {late:.0f} µs late")
            true(late <= early * LATENCY_GROWTH_MAX, f"the median grew from {early:.0f} to {late:.0f} µs")

        checks.run("every answer was right", equal, codes, [0] * rounds, "exit codes")
        checks.run("memory did not grow", memory.check)
        checks.run("no open files were left behind", true, files[-1] <= files[0] + FILES_MORE_MAX, f"{files}")
        checks.run("the median latency did not grow", flat)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
