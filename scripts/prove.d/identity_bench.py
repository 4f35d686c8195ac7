"""What tokens, passwords, and users and keys by the hundred thousand cost.

Two servers run side by side, one all but empty and one full, and are loaded in turns, one at a time.
"""

import base64
import hashlib
import http.client
import json
import sqlite3
import statistics
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from load import rate
from server import Server

ROUNDS = 10
ROUND_S = 3
RATIO_MIN = 0.93
MANY = 100_000
PAGE = 100
ENDS = 50  # pages at each end of the list that are compared
TURNS = 5  # each of them is asked for so often
KNOWN_S = 30
DEPTH_MAX = 1.5  # the last pages to the first ones
TIMEOUT_S = 30
USERNAME, PASSWORD = "scientist", "correct horse battery staple"
BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

SETTINGS = {
    "AUSPEX__SERVER__RATE_LIMIT__MAX": "1000000000",
    "AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "1000000000",
    "AUSPEX__TELEMETRY__ACCESS_LOG": "off",
}


class Api:
    """One kept connection, as the administrator's."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
        self.headers = {"X-API-Key": server.key, "Content-Type": "application/json"}

    def ask(self, method, path, body=None):
        """The status and the text of an answer."""
        self.connection.request(method, path, json.dumps(body) if body is not None else None, self.headers)
        response = self.connection.getresponse()
        return response.status, response.read()

    def create(self, path, body):
        status, text = self.ask("POST", path, body)
        equal(status, 201, f"{path}, {text[:300]!r}")
        return json.loads(text)


def headers_of(server):
    """The three ways to be known: a key, a token, a password."""
    api = Api(server)
    status, text = api.ask("POST", "/v1/auth/login", {"username": USERNAME, "password": PASSWORD})
    equal(status, 200, f"login, {text[:300]!r}")
    basic = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    return {
        "key": f"X-API-Key: {server.key}",
        "token": f"Authorization: Bearer {json.loads(text)['access_token']}",
        "password": f"Authorization: Basic {basic}",
    }


def prepare(server):
    """A user to predict as, and a user and a key to be copied."""
    api = Api(server)
    user = {"name": "Data Scientist", "email": "scientist@example.org", "username": USERNAME, "password": PASSWORD}
    api.create("/v1/users", user | {"roles": ["data-scientist"]})
    copied = {"name": "Copied User", "email": "copied@example.org", "username": "copied", "roles": ["viewer"]}
    api.create("/v1/users", copied)
    api.create("/v1/api-keys", {"name": "copied", "scopes": ["predict"]})


def base32(number, length):
    return "".join(BASE32[number >> 5 * place & 31] for place in reversed(range(length)))


def key_text(number):
    """A key as the server makes them, though anybody could guess it."""
    text = f"ax_{number:030d}"
    rest, check = zlib.crc32(text.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        check = BASE62[digit] + check
    return text + check


def copies(connection, table, name):
    """Copies the row called `name` MANY times, with values of their own where the table wants them unique."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    unique = {row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[5]}
    for index in connection.execute(f"PRAGMA index_list({table})").fetchall():
        if index[2]:
            unique |= {row[2] for row in connection.execute(f"PRAGMA index_info({index[1]})")}
    unique |= {column.removesuffix("_key") for column in unique} & set(columns)
    (row,) = connection.execute(f"SELECT * FROM {table} WHERE name = ?", (name,)).fetchall()
    template = dict(zip(columns, row, strict=True))

    def value(column, number):
        was = template[column]
        if column in unique and isinstance(was, bytes):
            return hashlib.sha256(key_text(number).encode()).digest()
        if column == "id":
            return base32(number, len(was))
        if column in unique:
            return f"{number}.{was}"
        if column == "created_at":
            return was - 1_000_000 * (MANY - number)
        return was

    places = ", ".join("?" * len(columns))
    rows = ([value(column, number) for column in columns] for number in range(MANY))
    connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def fill(server):
    """MANY users and keys, written beside the server, which is told as other processes tell it."""
    began = time.monotonic()
    connection = sqlite3.connect(server.data / "auspex.db", timeout=TIMEOUT_S, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    copies(connection, "identity_users", "Copied User")
    copies(connection, "identity_api_keys", "copied")
    # A change whose predecessors are gone: the server must load everything anew.
    connection.execute("UPDATE identity_key_sets SET generation = generation + 1000")
    connection.execute(
        "INSERT INTO identity_changes (generation, kind, subject, at) "
        "SELECT generation, 'key', ?, ? FROM identity_key_sets",
        (base32(0, 16), time.time_ns() // 1000),
    )
    connection.execute("COMMIT")
    connection.close()
    print(
        f"       filled in {time.monotonic() - began:.1f} s; {server.rss_mb():.0f} MB before it is known", flush=True
    )
    api = Api(server)
    for number in (0, MANY // 2, MANY - 1):
        api.headers["X-API-Key"] = key_text(number)
        ends = time.monotonic() + KNOWN_S
        while api.ask("POST", "/predict", {})[0] == 401:  # known at last, it says what the record lacks
            true(time.monotonic() < ends, f"the keys are not known after {KNOWN_S} s")
            time.sleep(0.1)
    status, text = Api(server).ask("GET", "/v1/users?page=1&per_page=1")
    equal(status, 200, f"the list, {text[:300]!r}")
    true(json.loads(text)["pagination"]["total"] > MANY, f"users: {text[-200:]!r}")
    print(f"       {server.rss_mb():.0f} MB afterwards", flush=True)


def measure(servers, headers):
    """Predictions per second by server and way, a list of one for each round."""
    rates = {(size, way): [] for size in servers for way in headers[size]}
    for number in range(ROUNDS):
        for size, server in servers.items():
            for way, header in headers[size].items():
                rates[size, way].append(rate(server, ROUND_S, header, warmup=0.5))
        line = ", ".join(f"{size} {way} {values[-1]:.0f}" for (size, way), values in rates.items())
        print(f"       round {number + 1}: {line}", flush=True)
    return rates


def ratio(rates, one, other):
    """The median of the rounds' own ratios."""
    found = statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))
    print(f"       {found:.3f}: {' '.join(one)} to {' '.join(other)}")
    true(found >= RATIO_MIN, f"{found:.3f} of the predictions, less than {RATIO_MIN}")


def pages(server):
    """Every page of users by cursor; then the first and the last in turns, which must take as long."""
    api, path = Api(server), f"/v1/users?limit={PAGE}"
    paths, seen = [], set()
    while path:
        status, text = api.ask("GET", path)
        equal(status, 200, f"{path}, {text[:300]!r}")
        page = json.loads(text)
        seen |= {user["id"] for user in page["data"]}
        paths.append(path)
        path = page["pagination"]["links"]["next"]
        true(len(paths) <= 2 * MANY / PAGE, "pages without end")
    true(len(seen) > MANY, f"only {len(seen)} users")
    seconds = {"first": [], "last": []}
    full = paths[1:-1]
    for first, last in list(zip(full[:ENDS], full[-ENDS:], strict=True)) * TURNS:
        for end, path in (("first", first), ("last", last)):
            began = time.perf_counter()
            api.ask("GET", path)
            seconds[end].append(time.perf_counter() - began)
    first, last = (statistics.median(values) for values in seconds.values())
    print(f"       {len(paths)} pages: {1000 * first:.2f} ms for the first, {1000 * last:.2f} ms for the last")
    true(last <= DEPTH_MAX * first, f"{last / first:.2f} times as long, more than {DEPTH_MAX}")


def main():
    checks = Checks()
    with Server(**SETTINGS) as small, Server(**SETTINGS) as large:
        servers = {"empty": small, "full": large}
        ready = all([checks.run(f"the {size} server has users", prepare, one) for size, one in servers.items()])
        if ready and checks.run(f"one has {MANY} users and keys", fill, large):
            checks.run("pages of users take as long at the end as at the beginning", pages, large)
            rates = {}

            def load():
                rates.update(measure(servers, {size: headers_of(one) for size, one in servers.items()}))

            if checks.run("every prediction was right", load):
                for size in servers:
                    for way in ("token", "password"):
                        name = f"a {way} costs predictions no more than a key, {size} database"
                        checks.run(name, ratio, rates, (size, way), (size, "key"))
                for way in ("key", "token", "password"):
                    name = f"{MANY} users and keys cost predictions by {way} nothing"
                    checks.run(name, ratio, rates, ("full", way), ("empty", way))
        for size, one in servers.items():
            checks.run(f"the {size} server still runs", true, one.running(), "it has ended")
    checks.finish()


main()
