"""`auspex serve` in one process beside `auspex lambda` in as many as there are requests at once: the same binary, the same load."""

import argparse
import http.client
import json
import math
import platform
import queue
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .paths import FIXTURES, ROOT

sys.path.insert(0, str(ROOT / "scripts" / "lib"))

from functions import Function, as_http, http_api  # noqa: E402
from server import Server  # noqa: E402

PAGE = ROOT / "docs" / "FUNCTIONS.md"
BEGIN, END = "<!-- bench/functions -->\n", "<!-- end of bench/functions -->\n"
RECORDS = (FIXTURES / "records.jsonl").read_bytes().splitlines()
EXPECTED = [json.loads(line) for line in (FIXTURES / "expected.jsonl").read_text().splitlines()]
PROBABILITY_DIFFERS_MAX = 1e-5
WORKERS = 64

# List prices of us-east-1 for Linux on x86, in US dollars, without free tiers, savings plans and data transfer, as they stood
# in November 2026.
PRICES = {
    "a million invocations": (0.20, "https://aws.amazon.com/lambda/pricing/"),
    "a GB-second of a function": (0.0000166667, "https://aws.amazon.com/lambda/pricing/"),
    "a million requests of an HTTP API": (1.00, "https://aws.amazon.com/api-gateway/pricing/"),
    "a million of them beyond 300 million a month": (0.90, "https://aws.amazon.com/api-gateway/pricing/"),
    "a vCPU-hour of Fargate": (0.04048, "https://aws.amazon.com/fargate/pricing/"),
    "a GB-hour of Fargate": (0.004445, "https://aws.amazon.com/fargate/pricing/"),
    "an hour of a load balancer": (0.0225, "https://aws.amazon.com/elasticloadbalancing/pricing/"),
    "an hour of a load balancer's capacity unit": (0.008, "https://aws.amazon.com/elasticloadbalancing/pricing/"),
}
MONTH_DAYS = 30
FUNCTION_GB = 1.769  # with which a function has one vCPU, says AWS
CONTAINER = (2, 4)  # vCPU and GB: the least memory that Fargate has with two
UNIT_GB_PER_HOUR = 1  # what passes a load balancer for one unit; it is what binds here
KB_OF_A_REQUEST = 1.5  # with heads and answer, as OPERATIONS.md counts
LOADS = [("1,000 an hour", 24_000, 10), ("1 million a day", 1_000_000, 5), ("1 billion a day", 1_000_000_000, 3)]


class Container:
    """The one process, asked over connections that stay open."""

    def __init__(self, server):
        self.server, self.idle = server, queue.LifoQueue()
        self.headers = {"X-API-Key": server.key, "Content-Type": "application/json"}

    def ask(self, number):
        try:
            connection = self.idle.get_nowait()
        except queue.Empty:
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        connection.request("POST", "/predict", RECORDS[number % len(RECORDS)], self.headers)
        answer = connection.getresponse()
        body = answer.read()
        self.idle.put(connection)
        check(number, answer.status, body)

    def close(self):
        while not self.idle.empty():
            self.idle.get().close()


class Functions:
    """As Lambda does it: a request gets an instance that has nothing to do, or else a new one."""

    def __init__(self, data, key):
        self.data, self.key = data, key
        self.idle, self.all, self.lock = queue.LifoQueue(), [], threading.Lock()
        self.took_s = []

    def ask(self, number):
        try:
            function = self.idle.get_nowait()
        except queue.Empty:
            function = self.begin()
        headers = [("X-API-Key", self.key), ("Content-Type", "application/json")]
        event = http_api("POST", "/predict", headers=headers, body=RECORDS[number % len(RECORDS)])
        end, said, took = function.invoke(event, timeout_s=30)
        self.idle.put(function)
        self.took_s.append(took)
        status, _, body = as_http(said) if end == "response" else (502, [], str(said).encode())
        check(number, status, body)

    def begin(self):
        with self.lock:
            function = Function(copy_of(self.data, len(self.all)))
            self.all.append(function)
        function.start()
        function.init_s = function.wait_until_ready()
        return function

    def close(self):
        for function in self.all:
            function.stop()


def copy_of(data, number):
    """A data folder of its own for each instance, with the key that all know."""
    folder = data.parent / f"instance-{number}"
    folder.mkdir()
    for file in data.glob("auspex.db*"):
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o600)
    return folder


def check(number, status, body):
    if status != 200:
        raise AssertionError(f"status {status}: {body[:300]}")
    found = json.loads(body)["predictions"][0]
    wanted = EXPECTED[number % len(EXPECTED)]
    if max(abs(a - b) for a, b in zip(found, wanted, strict=True)) > PROBABILITY_DIFFERS_MAX:
        raise AssertionError(f"record {number} was answered {found}")


@dataclass
class Times:
    """Seconds from the moment a request was due to its answer."""

    seconds: list

    def at(self, share):
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    def row(self):
        shown = [f"{one * 1e3:.1f}" for one in (self.at(0.5), self.at(0.99), max(self.seconds))]
        return " | ".join(shown)


def in_turn(there, count):
    """One request after the other."""
    seconds = []
    for number in range(count):
        began = time.monotonic()
        there.ask(number)
        seconds.append(time.monotonic() - began)
    return Times(seconds)


def at_rate(there, per_s, for_s):
    """Requests that are due at their time, whatever became of those before."""
    began = time.monotonic() + 0.1
    due = [began + number / per_s for number in range(int(per_s * for_s))]

    def one(number):
        time.sleep(max(0, due[number] - time.monotonic()))
        there.ask(number)
        return time.monotonic() - due[number]

    with ThreadPoolExecutor(WORKERS) as pool:
        return Times(list(pool.map(one, range(len(due)))))


def at_once(there, count):
    """So many at the same moment."""
    barrier = threading.Barrier(count)

    def one(number):
        barrier.wait()
        began = time.monotonic()
        there.ask(number)
        return time.monotonic() - began

    with ThreadPoolExecutor(count) as pool:
        return Times(list(pool.map(one, range(count))))


def measure(options, folder):
    """Rows of the table of response times; what invocations took; starts alone."""
    data = folder / "data"
    with Server(data=data) as server:
        key = server.key
    loads = [
        ("one at a time", lambda there: in_turn(there, options.count), True),
        (f"{options.rate} a second", lambda there: at_rate(there, options.rate, options.seconds), False),
        (f"{options.burst} at once, none before", lambda there: at_once(there, options.burst), False),
    ]
    rows, billed = [], None
    for name, load, is_warm in loads:
        with Server(data=copy_of(data, f"server-{len(rows)}"), key=key) as server:
            container = Container(server)
            if is_warm:
                in_turn(container, 50)
            rows.append(("container", name, load(container), 1, server.rss_mb()))
            container.close()
        part = folder / f"functions-{len(rows)}" / "data"
        part.mkdir(parents=True)
        for file in data.glob("auspex.db*"):
            (part / file.name).write_bytes(file.read_bytes())
        functions = Functions(part, key)
        try:
            if is_warm:
                in_turn(functions, 50)
                functions.took_s.clear()
            times = load(functions)
            rss = rss_mb(functions.all[0].child.pid)
            rows.append(("functions", name, times, len(functions.all), rss))
            if is_warm:
                billed = Times(functions.took_s)
        finally:
            functions.close()
    return rows, billed, cold_starts(data, options.starts)


def cold_starts(data, count):
    """(until it asks for the first event, until that is answered) of instances that start alone."""
    starts, firsts = [], []
    for number in range(count):
        with Function(copy_of(data, f"alone-{number}")) as function:
            starts.append(function.init_s)
            firsts.append(function.invoke(http_api("GET", "/v1/models"))[2])
    return Times(starts), Times(firsts)


def rss_mb(pid):
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("it has gone")


def cost(per_day, peak, billed_ms, per_s_of_container):
    """Dollars a month: functions behind an HTTP API, functions by their URL, containers behind a load balancer, how many."""
    price = lambda name: PRICES[name][0]
    millions = per_day * MONTH_DAYS / 1e6
    by_url = millions * price("a million invocations")
    by_url += millions * 1e6 * billed_ms / 1e3 * FUNCTION_GB * price("a GB-second of a function")
    beyond = max(0, millions - 300)
    api = (millions - beyond) * price("a million requests of an HTTP API")
    api += beyond * price("a million of them beyond 300 million a month")
    replicas = math.ceil(per_day / 86_400 * peak / (per_s_of_container / 2)) + 1
    cpus, memory = CONTAINER
    hour = replicas * (cpus * price("a vCPU-hour of Fargate") + memory * price("a GB-hour of Fargate"))
    units = max(1, per_day / 24 * KB_OF_A_REQUEST / 1e6 / UNIT_GB_PER_HOUR)
    hour += price("an hour of a load balancer") + units * price("an hour of a load balancer's capacity unit")
    return by_url + api, by_url, hour * 24 * MONTH_DAYS, replicas


def dollars(amount):
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def page(rows, billed, alone, per_s_of_container, processor):
    """What goes between the two comments of the page."""
    starts, firsts = alone
    billed_ms = math.ceil(billed.at(0.5) * 1e3)
    lines = [
        f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())} on {processor}, the client on the same machine.",
        "",
        "| load | | median, ms | 99 %, ms | longest, ms | instances | memory of one, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for who, name, times, instances, memory in rows:
        lines.append(f"| {name} | {who} | {times.row()} | {instances} | {memory:.0f} |")
    lines += [
        "",
        f"A start alone on the machine took {starts.at(0.5) * 1e3:.0f} ms until the first event was asked for "
        f"(the longest of {len(starts.seconds)}: {max(starts.seconds) * 1e3:.0f} ms), and the first answer {firsts.at(0.5) * 1e3:.1f} ms.",
        f"An invocation took {billed.at(0.5) * 1e3:.2f} ms in the median, which is billed as {billed_ms} ms.",
        "",
        "| requests | peak, assumed | functions behind an HTTP API, $ a month | functions by their URL | containers behind a balancer | containers |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, per_day, peak in LOADS:
        by_api, by_url, containers, replicas = cost(per_day, peak, billed_ms, per_s_of_container)
        lines.append(f"| {name} | × {peak} | {dollars(by_api)} | {dollars(by_url)} | {dollars(containers)} | {replicas} |")
    even = even_point(billed_ms, per_s_of_container)
    lines += [
        "",
        f"By these figures two containers cost as much as functions behind an HTTP API at {even / 1e6:.1f} million requests a day.",
        "",
        "The prices:",
        "",
        "| what | $ | source |",
        "|---|---:|---|",
    ]
    lines += [f"| {what} | {amount:.10f} | <{source}> |".replace("000000 |", " |") for what, (amount, source) in PRICES.items()]
    return "\n".join(lines) + "\n"


def even_point(billed_ms, per_s_of_container):
    """Requests a day at which both cost the same, with a peak of five times the mean."""
    low, high = 1.0, 1e9
    for _ in range(60):
        middle = (low + high) / 2
        by_api, _, containers, _ = cost(middle, 5, billed_ms, per_s_of_container)
        low, high = (middle, high) if by_api < containers else (low, middle)
    return low


def processor():
    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{len(names)} cores of {names[0] if names else platform.machine()}"


def main():
    parser = argparse.ArgumentParser(prog="bench/functions", description=__doc__)
    option = parser.add_argument
    option("--count", type=int, default=2_000, help="requests one at a time")
    option("--rate", type=int, default=50, help="requests a second")
    option("--seconds", type=int, default=20)
    option("--burst", type=int, default=8, help="requests at once")
    option("--starts", type=int, default=20)
    option("--requests-per-s", type=float, default=45_818, help="of a container, from `auspex bench`; OPERATIONS.md has the default")
    option("--print", action="store_true", help="do not write the page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="auspex-bench-") as folder:
        rows, billed, alone = measure(options, Path(folder))
    said = page(rows, billed, alone, options.requests_per_s, processor())
    print(said)
    if not options.print:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + BEGIN + said + END + after)
    return 0
