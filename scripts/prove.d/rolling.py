"""Three replicas behind the gateway are replaced one after the other, and share what they have to share.

    rolling.py

No request, by HTTP/1.1 or HTTP/2, fails while each of them is stopped and started again, twice round. What is revoked at one is
refused by the others within a second. A limit of 1,000 a minute holds over all three: it is neither exceeded nor undershot by
more than 2 %. A dialogue that begins at one is decided at another.
"""

import collections
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from replicas import PREFIXES, replicas
from server import RECORDS
from traffic import Client, Traffic

ROUNDS = 2
CLIENTS = 8
KEYS = 80  # so that the load stays below the limit of each
REVOCATIONS = 10
REVOKED_S = 1
LIMIT, WINDOW_S = 1_000, 60
UNDERSHOT_MAX = 0.02
PACES = (25, 12, 3)  # requests a second at each replica: together more than the limit lets pass, and nowhere as many
RECORD = (RECORDS / "records.jsonl").read_text().splitlines()[0].encode()
USER = {"name": "Ann", "email": "ann@example.org", "username": "ann", "password": "correct horse battery"}
GOOD = {"predict": 200, "login": 200, "job": 202, "text": 200, "decision": 200}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def new_key(client, *scopes):
    status, made = client.ask("POST", "/v1/api-keys", {"name": "load", "scopes": scopes})
    equal(status, 201, "a key is made")
    return made


class Load:
    """What clients of the gateway do, each with many keys in turn."""

    def __init__(self, front, keys):
        self.front, self.seen = front, []
        self.keys, self.numbers = itertools.cycle(keys), itertools.count()
        self.prefixes = itertools.cycle(PREFIXES.values())

    def client(self):
        return Client(self.front.port, seen=self.seen)

    def ask(self, client, path, body, kind):
        client.headers["X-API-Key"] = next(self.keys)
        return client.ask("POST", next(self.prefixes) + path, body, kind=kind)

    def predict(self, client):
        self.ask(client, "/predict", RECORD, "predict")

    def log_in(self, client):
        self.ask(client, "/v1/auth/login", {"username": USER["username"], "password": USER["password"]}, "login")

    def submit(self, client):
        self.ask(client, "/v1/jobs", {"model": "santander", "records": [json.loads(RECORD)] * 10}, "job")

    def talk(self, client):
        name = f"dialogue-{next(self.numbers)}"
        for text in ("one", "two", "three"):
            self.ask(client, f"/data/customer/{name}", {"text": text, "language": "en"}, "text")
        self.ask(client, f"/consents/{name}", True, "decision")


def replace(load, servers):
    """Every replica is replaced twice under load, and no request fails"""
    exit_codes = []
    with Traffic() as traffic:
        for work, pause_s in [(load.predict, 0.005)] * CLIENTS + [
            (load.log_in, 0.2),
            (load.submit, 0.1),
            (load.talk, 0.05),
        ]:
            traffic.add(partial(work, load.client()), pause_s)
        began = time.monotonic()
        for server in servers * ROUNDS:
            time.sleep(1)
            server.stop()
            exit_codes.append(server.exit_code)
            server.start_again()
        time.sleep(1)
        took = time.monotonic() - began
    counts = collections.Counter(one.kind for one in load.seen)
    slowest = max(load.seen, key=lambda one: one.took_s)
    print(
        f"       {len(servers) * ROUNDS} replacements in {took:.0f} s; {sum(counts.values())} requests {dict(counts)}, the slowest {slowest.took_s:.2f} s"
    )
    wrong = [str(one) for one in load.seen if one.status != GOOD[one.kind]]
    true(not wrong, "\n       ".join([f"{len(wrong)} requests failed, such as", *wrong[:6]]))
    equal(exit_codes, [0] * len(exit_codes), "exit codes")
    equal(set(counts), set(GOOD), "kinds of requests")


def refused_after(clients, headers, revoke):
    """Seconds until the others refuse what one of them revokes."""
    for client in clients:
        equal(client.ask("POST", "/predict", RECORD, **headers)[0], 200, "before it is revoked")
    revoke(clients[0])
    began = time.monotonic()
    for client in clients[1:]:
        while client.ask("POST", "/predict", RECORD, **headers)[0] != 401:
            true(time.monotonic() < began + 10 * REVOKED_S, "it is not refused at all")
    return time.monotonic() - began


def revoke_key(turn, admins, anybody):
    made = new_key(admins[turn % 3], "predict")
    time.sleep(REVOKED_S)  # the others know it

    def revoke(_):
        equal(admins[turn % 3].ask("DELETE", f"/v1/api-keys/{made['id']}")[0], 204, "a key is revoked")

    return refused_after(anybody, {"X-API-Key": made["key"]}, revoke)


def revoke_client_token(turn, admins, anybody):
    """Of OAuth's client credentials."""
    wanted = {
        "name": "nightly",
        "grant_types": ["client_credentials"],
        "scopes": ["predict"],
        "redirect_uris": [],
        "public": False,
    }
    status, client = admins[turn % 3].ask("POST", "/v1/oauth-clients", wanted)
    equal(status, 201, f"a client is registered ({client})")
    secret = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    time.sleep(REVOKED_S)
    status, token = anybody[0].ask(
        "POST", "/oauth2/token", urlencode(secret | {"grant_type": "client_credentials"}).encode(), **FORM
    )
    equal(status, 200, f"a token ({token})")

    def revoke(one):
        equal(
            one.ask("POST", "/oauth2/revoke", urlencode(secret | {"token": token["access_token"]}).encode(), **FORM)[0],
            200,
            "a token is revoked",
        )

    return refused_after(anybody, {"Authorization": f"Bearer {token['access_token']}"}, revoke)


def revoke_session(turn, admins, anybody):
    login = {"username": USER["username"], "password": USER["password"]}
    status, token = anybody[1].ask("POST", "/v1/auth/login", login)
    equal(status, 200, "a login")
    bearer = {"Authorization": f"Bearer {token['access_token']}"}

    def revoke(one):
        equal(one.ask("POST", "/v1/auth/logout", **bearer)[0], 204, "a logout")

    return refused_after(anybody, bearer, revoke)


def revocations(servers, what):
    admins, anybody = [Client(one.port, one.key) for one in servers], [Client(one.port) for one in servers]
    times = [what(turn, admins, anybody[turn % 3 :] + anybody[: turn % 3]) for turn in range(REVOCATIONS)]
    print(
        f"       refused by both others after {sorted(times)[len(times) // 2] * 1000:.0f} ms in the middle, {max(times) * 1000:.0f} ms at most"
    )
    true(max(times) < REVOKED_S, f"it took {max(times):.2f} s")


def limit(servers, key):
    """A limit of 1,000 a minute is shared: never exceeded, and not undershot by more than 2 %"""
    seen, began = [], time.monotonic()
    with Traffic() as traffic:
        for server, pace in zip(servers, PACES):
            client = Client(server.port, key, seen)
            traffic.add(partial(client.ask, "POST", "/predict", RECORD), 1 / pace)
        time.sleep(2 * WINDOW_S + 5)
    equal({one.status for one in seen}, {200, 429}, "statuses")
    passed = sorted((one for one in seen if one.status == 200), key=lambda one: one.began)
    # Counted at the server between the two instants that a client knows.
    most = max(
        sum(first.began <= one.began and one.ended <= first.began + WINDOW_S for one in passed) for first in passed
    )
    each = [
        sum(began + turn * WINDOW_S <= one.began < began + (turn + 1) * WINDOW_S for one in passed) for turn in range(2)
    ]
    print(f"       {len(seen)} requests; passed in each minute {each}, at most {most} in any")
    true(most <= LIMIT, f"{most} passed within {WINDOW_S} s")
    true(min(each) >= LIMIT * (1 - UNDERSHOT_MAX), f"only {min(each)} passed within {WINDOW_S} s")


def dialogue(servers):
    """A dialogue that begins at one replica goes on at the second and is decided at the third"""
    clients = [Client(one.port, one.key) for one in servers]
    for turn in range(REVOCATIONS):
        first, second, third = clients[turn % 3 :] + clients[: turn % 3]
        for client, text in ((first, "one"), (second, "two")):
            equal(
                client.ask("POST", f"/data/customer/turn-{turn}", {"text": text, "language": "en"})[0],
                200,
                f"text {text}",
            )
        equal(
            third.ask("POST", f"/consents/turn-{turn}", True),
            (200, {"dialog_id": f"turn-{turn}", "consent": True, "texts": 2}),
            "the decision",
        )
        lines = first.ask("GET", f"/v1/messages?dialog_id=turn-{turn}", Accept="application/x-ndjson")[1]
        equal([json.loads(line)["text"] for line in lines.splitlines()], ["two", "one"], "texts")


def main():
    checks = Checks()
    with replicas(3, AUSPEX__SERVER__RATE_LIMIT__MAX=str(LIMIT)) as (front, servers):
        admin = Client(servers[0].port, servers[0].key)
        equal(admin.ask("POST", "/v1/users", USER | {"roles": ["service"]})[0], 201, "a user is made")
        keys = [new_key(admin, "predict", "jobs:write", "data:write")["key"] for _ in range(KEYS)]
        time.sleep(1)
        checks.run(replace.__doc__, replace, Load(front, keys), servers)
        for name, what in (("key", revoke_key), ("token of OAuth", revoke_client_token), ("session", revoke_session)):
            checks.run(
                f"A {name} that one replica revokes is refused by the others within a second",
                revocations,
                servers,
                what,
            )
        checks.run(dialogue.__doc__, dialogue, servers)
        fresh = new_key(Client(servers[0].port, servers[0].key), "predict")["key"]
        time.sleep(1)
        checks.run(limit.__doc__, limit, servers, fresh)
    checks.finish()


main()
