"""Wrong passwords: what they reveal to those who try them, and what they cost everybody else.

The attackers come from all over 127.0.0.0/8, so that no limit of one address stops them.
"""

import asyncio
import base64
import http.client
import itertools
import json
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from load import rate
from server import Server

TIMEOUT_S = 15
PASSWORD = "correct horse battery staple"
OWNER, OWNER_ADDRESS = "owner", "127.0.0.9"
SHARED_ADDRESS = "127.0.0.10"

GROUP = 100  # names of each kind
DIFFERENCE_MAX = 0.05

GUESSES = 1000
GUESSERS = 32
OWNER_MAX_S = 1.0
OWNER_EVERY_S = 0.1

SHARED_GUESSES = 300
NEWCOMERS = 10
NEWCOMER_MAX_S = 5.0

ROUNDS = 3
ROUND_S = 8
FLOOD_CONNECTIONS = 32
FLOOD_PER_S = 10  # requests a second and connection: the flood must not need the processors itself
LEFT_MIN = 0.70

SETTINGS = {
    "AUSPEX__SERVER__RATE_LIMIT__MAX": "1000000000",
    "AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "1000000000",
    "AUSPEX__TELEMETRY__ACCESS_LOG": "off",
}

chance = random.Random(7)
numbers = itertools.count(65_536)


def address():
    """One that nobody has used."""
    number = next(numbers)
    return f"127.{1 + number // 64_516 % 250}.{1 + number // 254 % 254}.{1 + number % 254}"


class Answer:
    def __init__(self, response, seconds):
        self.status, self.seconds = response.status, seconds
        self.text = response.read().decode()
        self.headers = sorted(name.lower() for name, _ in response.getheaders())


def ask(server, method, path, body=None, source=None, **headers):
    """One request on a connection of its own, timed from its first byte to the answer's last."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=TIMEOUT_S, source_address=(source or "127.0.0.1", 0)
    )
    try:
        connection.connect()
        began = time.perf_counter()
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = Answer(connection.getresponse(), 0)
        answer.seconds = time.perf_counter() - began
        return answer
    finally:
        connection.close()


def log_in(server, username, password, source):
    body = {"username": username, "password": password}
    return ask(server, "POST", "/v1/auth/login", body, source, **{"Content-Type": "application/json"})


def by_basic(server, username, password, source):
    text = base64.b64encode(f"{username}:{password}".encode()).decode()
    return ask(server, "GET", "/v1/me", None, source, Authorization=f"Basic {text}")


def create(server, username, password=None):
    body = {"name": "A User", "email": f"{username}@example.org", "username": username}
    if password is not None:
        body["password"] = password
    headers = {"X-API-Key": server.key, "Content-Type": "application/json"}
    answer = ask(server, "POST", "/v1/users", body, **headers)
    equal(answer.status, 201, f"a new user, {answer.text[:300]}")
    user = json.loads(answer.text)
    return user, headers


def alike(server, way):
    """Names of every kind, each tried once and from a new address, in turns."""
    kinds = ("unknown", "known", "disabled", "without-password")
    names = {kind: [f"{way.__name__}-{kind}-{number}" for number in range(GROUP)] for kind in kinds}
    for name in names["known"]:
        create(server, name, PASSWORD)
    for name in names["disabled"]:
        user, headers = create(server, name, PASSWORD)
        changed = ask(server, "PATCH", f"/v1/users/{user['id']}", {"disabled": True}, **headers)
        equal(changed.status, 200, f"a user disabled, {changed.text[:300]}")
    for name in names["without-password"]:
        create(server, name)
    for number in range(5):  # whatever is done once is done
        way(server, f"{way.__name__}-first-{number}", "wrong", address())

    seconds, answers = {kind: [] for kind in kinds}, set()
    for number in range(GROUP):
        for kind in chance.sample(kinds, len(kinds)):
            password = PASSWORD if kind == "disabled" else "wrong password"
            answer = way(server, names[kind][number], password, address())
            seconds[kind].append(answer.seconds)
            error = json.loads(answer.text)["error"]
            del error["request_id"]
            answers.add((answer.status, json.dumps(error, sort_keys=True), *answer.headers))
    equal(len(answers), 1, f"kinds of answers, {sorted(answers)}")
    equal(next(iter(answers))[0], 401, "status")
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    print("       " + ", ".join(f"{kind} {1000 * value:.2f} ms" for kind, value in medians.items()))
    difference = max(medians.values()) / min(medians.values()) - 1
    true(difference <= DIFFERENCE_MAX, f"they differ by {100 * difference:.1f} %")


def no_lock_out(server):
    """The owner of an account logs in while others try passwords on it."""
    equal(log_in(server, OWNER, PASSWORD, OWNER_ADDRESS).status, 200, "the owner before")
    statuses, lock, over = {}, threading.Lock(), threading.Event()

    def guess(number):
        try:
            status = log_in(server, OWNER, f"guess {number}", address()).status
        except OSError as error:
            status = type(error).__name__
        with lock:
            statuses[status] = statuses.get(status, 0) + 1

    waits, problems = [], []

    def owner():
        while not over.is_set():
            began = time.monotonic()
            try:
                answer = log_in(server, OWNER, PASSWORD, OWNER_ADDRESS)
                if answer.status != 200:
                    problems.append(f"{answer.status} {answer.text[:200]}")
            except OSError as error:
                problems.append(repr(error))
            waits.append(time.monotonic() - began)
            over.wait(OWNER_EVERY_S)

    began = time.monotonic()
    watcher = threading.Thread(target=owner)
    watcher.start()
    try:
        with ThreadPoolExecutor(GUESSERS) as pool:
            list(pool.map(guess, range(GUESSES)))
    finally:
        over.set()
        watcher.join()
    print(
        f"       {GUESSES} guesses in {time.monotonic() - began:.0f} s: {statuses}; {len(waits)} logins of the "
        f"owner, median {1000 * statistics.median(waits):.0f} ms, slowest {1000 * max(waits):.0f} ms"
    )
    equal(sum(statuses.values()), GUESSES, "guesses")
    equal(sorted(map(str, set(statuses) - {401, 429, 503})), [], "other answers to guesses")
    equal(problems[:3], [], "problems of the owner")
    true(len(waits) >= 5, f"only {len(waits)} logins of the owner")
    true(max(waits) <= OWNER_MAX_S, f"the owner waited {max(waits):.2f} s")


def neighbours(server):
    """Somebody guesses as fast as they can. Others at that address log in with the right password."""
    for number in range(NEWCOMERS):
        create(server, f"newcomer-{number}", PASSWORD)
    equal(log_in(server, OWNER, PASSWORD, SHARED_ADDRESS).status, 200, "the owner before")
    guessed = itertools.cycle(["victim", *(f"made-up-{number}" for number in range(97))])
    create(server, "victim", PASSWORD)

    def guess(_):
        return log_in(server, next(guessed), f"guess {chance.random()}", SHARED_ADDRESS).status

    over, later = threading.Event(), []

    def go_on():
        while not over.is_set():
            later.append(guess(None))

    with ThreadPoolExecutor(SHARED_GUESSES) as pool:
        first = list(pool.map(guess, range(SHARED_GUESSES)))
    counted = {status: first.count(status) for status in set(first)}
    equal(counted, {401: 20, 429: SHARED_GUESSES - 20}, "answers to guesses at once")
    guessers = [threading.Thread(target=go_on) for _ in range(GUESSERS)]
    for guesser in guessers:
        guesser.start()
    try:
        owner, newcomers = [], []
        for number in range(NEWCOMERS):
            owner.append(log_in(server, OWNER, PASSWORD, SHARED_ADDRESS))
            newcomers.append(log_in(server, f"newcomer-{number}", PASSWORD, SHARED_ADDRESS))
    finally:
        over.set()
        for guesser in guessers:
            guesser.join()
    equal({answer.status for answer in owner}, {200}, "answers to somebody who had logged in there")
    equal({answer.status for answer in newcomers}, {200}, "answers to newcomers")
    equal(set(later), {429}, f"answers to {len(later)} more guesses")
    slowest = [max(answer.seconds for answer in answers) for answers in (owner, newcomers)]
    print("       slowest: the owner {:.2f} s, a newcomer {:.2f} s".format(*slowest))
    true(slowest[0] <= OWNER_MAX_S, "the owner waited longer")
    true(slowest[1] <= NEWCOMER_MAX_S, "a newcomer waited longer")


class Flood:
    """`with Flood(server) as flood:` logins all the while, most of them of names that do not exist."""

    def __init__(self, server):
        self.server = server
        self.statuses = {}

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.over = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self._all(),))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join()
        self.loop.close()

    async def _all(self):
        await asyncio.gather(*(self._one() for _ in range(FLOOD_CONNECTIONS)))

    async def _one(self):
        await asyncio.sleep(chance.random() / FLOOD_PER_S)
        while not self.over.is_set():
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", self.server.port, local_addr=(address(), 0)
                    )
                for _ in range(10):  # an address is refused after twenty
                    if self.over.is_set():
                        break
                    began = time.monotonic()
                    async with asyncio.timeout(TIMEOUT_S):
                        self._count(await self._log_in(reader, writer))
                    await asyncio.sleep(max(0, began + 1 / FLOOD_PER_S - time.monotonic()))
                writer.close()
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self._count(type(error).__name__)
                await asyncio.sleep(1 / FLOOD_PER_S)

    def _count(self, status):
        self.statuses[status] = self.statuses.get(status, 0) + 1

    async def _log_in(self, reader, writer):
        name = OWNER if chance.random() < 0.2 else f"nobody-{chance.randrange(10**9)}"
        body = json.dumps({"username": name, "password": f"guess {chance.random()}"})
        writer.write(
            f"POST /v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(
            int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")
        )
        await reader.readexactly(length)
        return int(head.split(" ", 2)[1])


def predictions_go_on(server):
    """A flood of logins leaves most of the predictions."""
    header = f"X-API-Key: {server.key}"
    alone, flooded, statuses = [], [], {}
    for number in range(ROUNDS):
        alone.append(rate(server, ROUND_S, header))
        with Flood(server) as flood:
            flooded.append(rate(server, ROUND_S, header))
        for status, count in flood.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
        print(
            f"       round {number + 1}: {alone[-1]:.0f} predictions/s alone, {flooded[-1]:.0f} in the flood",
            flush=True,
        )
    left = statistics.median(flooded) / statistics.median(alone)
    print(f"       logins: {statuses}; {100 * left:.0f} % are left")
    true(statuses.get(401, 0) >= 50, "hardly a password was checked: this was no flood")
    true(left >= LEFT_MIN, f"only {100 * left:.0f} % are left")


def main():
    checks = Checks()
    for name, function, *arguments in (
        ("no name is known by its answer or its time, POST /v1/auth/login", alike, log_in),
        ("no name is known by its answer or its time, HTTP Basic", alike, by_basic),
        ("strangers lock nobody out", no_lock_out),
        ("a guesser keeps nobody at the address out", neighbours),
        ("a flood of logins leaves predictions", predictions_go_on),
    ):
        with Server(**SETTINGS) as server:
            if checks.run("an owner is made", create, server, OWNER, PASSWORD):
                checks.run(name, function, server, *arguments)
            checks.run("the server still runs", true, server.running(), "it has ended")
    checks.finish()


main()
