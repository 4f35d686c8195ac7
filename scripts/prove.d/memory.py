"""Long bodies from many clients at once: memory stays within a bound and is given back.

    memory.py

Each client sends bodies of 2 MB on a connection of its own, good ones and such as cost the most to refuse.
Afterwards the connections stay open, and within a minute the process must be back near what it took before.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, true
from server import RECORDS, Server

CLIENTS = 112
LOAD_S = 20
BACK_S = 60
BODY_BYTES = 2_000_000
PEAK_MAX_MB = 400  # docs/OPERATIONS.md asks for 512
BACK_FACTOR = 1.5


def bodies():
    record = (RECORDS / "records.jsonl").read_text().splitlines()[0]
    many = f"[{','.join([record] * 1000)}]"
    return [body.ljust(BODY_BYTES).encode() for body in (
        many,
        "[" + ",".join(["{}"] * (BODY_BYTES // 3 - 1)) + "]",
        '{"features": [' + ",".join(["[]"] * (BODY_BYTES // 3 - 10)) + "]}",
        json.dumps({f"f{n}": n for n in range(BODY_BYTES // 18)}),
    )]


class Client(threading.Thread):
    def __init__(self, server, own, ends):
        super().__init__(daemon=True)
        self.server, self.own, self.ends = server, own, ends
        self.statuses, self.problem = {}, None

    def run(self):
        headers = {"X-API-Key": self.server.key, "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        while time.monotonic() < self.ends:
            try:
                self.connection.request("POST", "/predict", self.own, headers)
                answer = self.connection.getresponse()
                answer.read()
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            except (OSError, http.client.HTTPException) as error:
                self.problem = repr(error)
                self.connection.close()


def status_mb(server, name):
    for line in Path("/proc", str(server.child.pid), "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the server has gone")


def load(server):
    """All clients for a while; every answer is one of those that a client can deal with."""
    kinds = bodies()
    ends = time.monotonic() + LOAD_S
    clients = [Client(server, kinds[n % len(kinds)], ends) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    statuses = {}
    for client in clients:
        for status, count in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    problems = [client.problem for client in clients if client.problem]
    print(f"       {statuses}, {len(problems)} broken connections {problems[:1]}")
    true(set(statuses) <= {200, 400, 413, 422, 503}, "unexpected answers")
    true(statuses.get(200, 0) > 0, "no prediction succeeded")
    return clients


def back(server, bound):
    """Memory comes back while the connections are still open."""
    ends = time.monotonic() + BACK_S
    while (now := server.rss_mb()) > bound:
        true(time.monotonic() < ends, f"{now:.0f} MB after {BACK_S} s, more than {bound:.0f}")
        time.sleep(1)
    print(f"       {now:.0f} MB after {BACK_S - (ends - time.monotonic()):.0f} s")


def main():
    checks = Checks()
    with Server() as server:
        warm = http.client.HTTPConnection("127.0.0.1", server.port)
        record = (RECORDS / "records.jsonl").read_text().splitlines()[0]
        for _ in range(200):
            warm.request("POST", "/predict", record, {"X-API-Key": server.key})
            warm.getresponse().read()
        idle = server.rss_mb()
        print(f"       {idle:.0f} MB idle, {status_mb(server, 'VmSize'):.0f} MB of addresses")
        held = []
        checks.run(f"{CLIENTS} clients with bodies of 2 MB are answered", lambda: held.extend(load(server)))
        peak = status_mb(server, "VmHWM")
        print(f"       {peak:.0f} MB at most, {server.rss_mb():.0f} MB now, {status_mb(server, 'VmPeak'):.0f} MB of addresses")
        checks.run(f"memory stayed below {PEAK_MAX_MB} MB", true, peak < PEAK_MAX_MB, f"{peak:.0f} MB")
        checks.run("memory came back", back, server, BACK_FACTOR * idle)
    checks.finish()


main()
