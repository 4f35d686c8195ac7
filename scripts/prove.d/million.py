"""A million predictions through the gateway, on two replicas, every answer checked.

million.py COUNT
"""

import collections
import json
import multiprocessing
import re
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from replicas import PREFIXES, replicas
from server import RECORDS
from traffic import Client

PROCESSES, CONNECTIONS = 2, 32
TIMEOUT_S = 10
SHARE_MIN = 0.4
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
BODIES = (RECORDS / "records.jsonl").read_text().splitlines()
EXPECTED = [json.loads(line) for line in (RECORDS / "expected.jsonl").read_text().splitlines()]


def as_floats(numbers):
    return struct.pack(f"{len(numbers)}f", *numbers)


def request(body, key):
    head = f"POST {PREFIXES['http1']}/predict HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def read(connection):
    """Status and body of one answer."""
    text = b""
    while True:
        chunk = connection.recv(65_536)
        if not chunk:
            raise ConnectionError("closed")
        text += chunk
        head, ended, body = text.partition(b"\r\n\r\n")
        if ended and len(body) >= int(LENGTH.search(head)[1]):
            return int(head[9:12]), body


class Driver:
    """Keeps its connections busy until its share of the requests is answered."""

    def __init__(self, port, key):
        self.port, self.requests = port, [request(body, key) for body in BODIES]
        self.right = [None] * len(BODIES)  # bodies that were read and are right
        self.wrong = collections.Counter()
        self.connections = [self.connect() for _ in range(CONNECTIONS)]

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def run(self, count):
        for first in range(0, count, CONNECTIONS):
            asked = range(first, min(first + CONNECTIONS, count))
            for number in asked:
                self.attempt(number, self.send)
            for number in asked:
                self.attempt(number, self.receive)

    def attempt(self, number, step):
        place = number % CONNECTIONS
        try:
            step(self.connections[place], number % len(BODIES))
        except OSError as error:
            self.wrong[type(error).__name__] += 1
            self.connections[place] = self.connect()

    def send(self, connection, record):
        connection.sendall(self.requests[record])

    def receive(self, connection, record):
        status, body = read(connection)
        if status != 200:
            self.wrong[f"status {status}"] += 1
        elif body != self.right[record]:
            if as_floats(json.loads(body)["predictions"][0]) == as_floats(EXPECTED[record]):
                self.right[record] = body
            else:
                self.wrong["another prediction"] += 1


def drive(port, key, count, results):
    driver = Driver(port, key)
    driver.run(count)
    results.put(driver.wrong)


def predicted(server):
    metrics = Client(server.port, server.key).ask("GET", "/metrics")[1].decode()
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("auspex_predictions_total{"))


def million(count, front, servers):
    results, shares = (
        multiprocessing.Queue(),
        [count // PROCESSES + (part < count % PROCESSES) for part in range(PROCESSES)],
    )
    parts = [
        multiprocessing.Process(target=drive, args=(front.port, servers[0].key, share, results)) for share in shares
    ]
    began = time.monotonic()
    for part in parts:
        part.start()
    wrong = sum((results.get() for _ in parts), collections.Counter())
    for part in parts:
        part.join()
    took = time.monotonic() - began
    answered = [predicted(server) for server in servers]
    print(
        f"       {count:,} requests in {took:.1f} s: {count / took:,.0f} a second, {sum(wrong.values())} errors {dict(wrong) or ''}"
    )
    print(f"       of the replicas one answered {answered[0]:,.0f}, the other {answered[1]:,.0f}")
    print("       memory: " + ", ".join(f"{server.rss_mb():.0f} MB" for server in [front, *servers]), flush=True)
    equal(dict(wrong), {}, "errors")
    equal(sum(answered), count, "predictions that the replicas count")
    true(min(answered) >= SHARE_MIN * count, "one of the replicas had less than its share")


def main():
    count, checks = int(sys.argv[1]), Checks()
    with replicas(2, AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as (front, servers):
        checks.run(f"{count:,} requests are answered rightly", million, count, front, servers)
    codes = [server.exit_code for server in (front, *servers)]
    checks.run("SIGTERM ends all three with exit code 0", equal, codes, [0, 0, 0], "exit codes")
    checks.finish()


main()
