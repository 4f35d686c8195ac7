"""Judge: an administrator's and a user's own programs, written with `requests`: users, logins, API keys."""

import json
import sys
import time
from pathlib import Path
from urllib.parse import urljoin

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import requests

from checks import Checks, equal, short, true
from server import RECORDS, Server

TIMEOUT_S = 10
NOTICED_S = 1  # a change made beside the server is known there within this
RECORD = json.loads((RECORDS / "records.jsonl").read_text().splitlines()[0])
PASSWORD = "correct horse battery staple"
USER = {"id", "name", "email", "email_verified", "username", "age", "roles", "disabled", "created_at", "last_login_at", "login_count"}


class Api:
    """The server, and who asks it by default: the key for everything."""

    def __init__(self, server):
        self.server = server
        self.secrets = []  # nothing of this may be in the log
        self.made = 0

    def ask(self, method, path, body=None, key=None, token=None, basic=None, **headers):
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif not basic:
            headers["X-API-Key"] = key or self.server.key
        return requests.request(
            method, urljoin(self.server.url, path), json=body, headers=headers, auth=basic, timeout=TIMEOUT_S
        )

    def user(self, **more):
        """A new user, as the server shows them, with PASSWORD unless that is None."""
        self.made += 1
        body = {"name": "Data Scientist", "email": f"user{self.made}@example.org", "password": PASSWORD} | more
        self.secrets += [body["email"], PASSWORD]
        given = {name: value for name, value in body.items() if value is not None}
        return answered(self.ask("POST", "/v1/users", given), 201)

    def log_in(self, username, password=PASSWORD, status=200):
        answer = requests.post(
            f"{self.server.url}/v1/auth/login", json={"username": username, "password": password}, timeout=TIMEOUT_S
        )
        body = answered(answer, status)
        if status == 200:
            self.secrets += [body["access_token"], body["refresh_token"]]
        return body


def answered(answer, status, what="status"):
    """The body of an answer that has this status."""
    equal(answer.status_code, status, f"{what}, {answer.text[:300]}")
    return answer.json() if answer.content else None


def refused(answer, status, code, what="status"):
    """An error in the one shape of all; gives the fields that are wrong."""
    error = answered(answer, status, what)["error"]
    equal(sorted(error), ["code", "details", "message", "request_id"], "members of the error")
    equal(error["code"], code, "code")
    return sorted(detail["field"] for detail in error["details"] or [])


# Users


def seed_users(api):
    """POST /users with name and email alone creates a user"""
    answer = api.ask("POST", "/users", {"name": "Charlie", "email": "charlie@example.com"})
    made = answered(answer, 201)
    api.secrets.append("charlie@example.com")
    equal(
        (made["name"], made["email"], made["username"]),
        ("Charlie", "charlie@example.com", "charlie@example.com"),
        "user",
    )
    equal((made["age"], made["last_login_at"], made["login_count"]), (None, None, 0), "age, last login, logins")
    equal(answered(api.ask("GET", answer.headers["Location"]), 200), made, "the user at Location")
    equal(answered(api.ask("GET", f"/users/{made['id']}"), 200), made, "the user by the path of the seed")
    true(any(one["id"] == made["id"] for one in answered(api.ask("GET", "/users"), 200)["data"]), "not in GET /users")
    refused(api.ask("GET", "/users/999"), 404, "NOT_FOUND")


def one_user(api):
    """A user is made, read, changed and deleted"""
    made = api.user(username="changeable", age=41, roles=["viewer"])
    true(USER <= set(made), f"missing members: {sorted(USER - set(made))}")
    true(not {"password", "password_hash", "hash"} & set(made), f"secrets among {sorted(made)}")
    path = f"/v1/users/{made['id']}"
    equal((made["age"], made["roles"], made["disabled"]), (41, ["viewer"], False), "age, roles, disabled")
    changed = answered(api.ask("PATCH", path, {"name": "Another Name"}), 200)
    equal(
        changed,
        made | {"name": "Another Name"} | {k: changed[k] for k in changed if k == "updated_at"},
        "after PATCH",
    )
    whole = {"name": "Third Name", "email": "third@example.org", "username": "changeable", "roles": ["operator"]}
    api.secrets.append("third@example.org")
    put = answered(api.ask("PUT", path, whole), 200)
    equal(
        (put["name"], put["email"], put["age"], put["roles"]),
        ("Third Name", "third@example.org", None, ["operator"]),
        "after PUT",
    )
    equal(api.ask("DELETE", path).status_code, 204, "DELETE")
    for method in ("GET", "DELETE"):
        refused(api.ask(method, path), 404, "NOT_FOUND", f"{method} afterwards")


def wrong_users(api):
    """An invalid user gets every error at once, and none repeats a value"""
    fields = refused(api.ask("POST", "/v1/users", {}), 422, "VALIDATION_ERROR")
    equal(fields, ["email", "name"], "wrong fields")
    bad = {"name": "", "email": "no-address", "age": -3, "roles": ["emperor"], "shoe_size": 43}
    answer = api.ask("POST", "/v1/users", bad)
    fields = refused(answer, 422, "VALIDATION_ERROR")
    equal(sorted({field.split("[")[0].split(".")[0] for field in fields}), sorted(bad), "wrong fields")
    true(
        not [value for value in ("no-address", "emperor", "43") if value in answer.text],
        f"repeats input: {answer.text}",
    )
    for age in ("40", 40.5, True, 0):
        refused(
            api.ask("POST", "/v1/users", {"name": "A", "email": "a@example.org", "age": age}),
            422,
            "VALIDATION_ERROR",
            f"age {age!r}",
        )
    api.user(username="taken")
    body = {"name": "B", "email": "b@example.org", "username": "taken"}
    refused(api.ask("POST", "/v1/users", body), 409, "CONFLICT", "a name that is taken")
    for own in (
        {"id": "x"},
        {"login_count": 9},
        {"last_login_at": "2026-01-01T00:00:00Z"},
        {"created_at": "2026-01-01T00:00:00Z"},
    ):
        body = {"name": "C", "email": "c@example.org"} | own
        refused(api.ask("POST", "/v1/users", body), 422, "VALIDATION_ERROR", f"with {list(own)}")


def listed(api):
    """The list of users in all forms of paging"""
    for number in range(5):
        api.user(username=f"listed-{number}", password=None)
    everybody = [one["id"] for one in answered(api.ask("GET", "/v1/users?limit=1000"), 200)["data"]]
    seen, path = [], "/v1/users?limit=2"
    while path and len(seen) < 1000:
        page = answered(api.ask("GET", path), 200)
        seen += [one["id"] for one in page["data"]]
        path = page["pagination"]["links"]["next"]
    equal(seen, everybody, "by cursor")
    pages = [
        answered(api.ask("GET", f"/v1/users?page={n}&per_page=2"), 200) for n in range(1, (len(everybody) + 3) // 2)
    ]
    equal([one["id"] for page in pages for one in page["data"]], everybody, "by page")
    equal(pages[0]["pagination"]["total"], len(everybody), "total")
    part = answered(api.ask("GET", "/v1/users?offset=1&limit=3"), 200)
    equal([one["id"] for one in part["data"]], everybody[1:4], "by offset")
    refused(api.ask("GET", "/v1/users?cursor=invented"), 400, "MALFORMED_REQUEST", "an invented cursor")


# Logins


def logged_in(api):
    """A login gives tokens, is counted, and is kept in the history"""
    user = api.user(username="regular", roles=["data-scientist"])
    tokens = api.log_in("regular")
    equal(tokens["token_type"].lower(), "bearer", "token type")
    true(tokens["expires_in"] > 0, "expires_in")
    me = answered(api.ask("GET", "/v1/me", token=tokens["access_token"]), 200)
    equal(answered(api.ask("GET", "/me", token=tokens["access_token"]), 200), me, "/me")
    answered(api.ask("POST", "/predict", RECORD, token=tokens["access_token"]), 200, "a prediction")
    shown = answered(api.ask("GET", f"/v1/users/{user['id']}"), 200)
    equal(shown["login_count"], 1, "logins")
    true(
        shown["last_login_at"] and shown["last_login_at"] >= user["created_at"],
        f"last login {shown['last_login_at']}",
    )
    (one,) = answered(api.ask("GET", f"/v1/users/{user['id']}/logins"), 200)["data"]
    true("password" in json.dumps(one).lower(), f"no method in {one}")
    true("127.0.0" in json.dumps(one), f"no address prefix in {one}")


def refreshed(api):
    """Refreshing rotates, and logging out ends both tokens"""
    api.user(username="leaving")
    first = api.log_in("leaving")

    def refresh(token):
        return requests.post(f"{api.server.url}/v1/auth/refresh", json={"refresh_token": token}, timeout=TIMEOUT_S)

    second = answered(refresh(first["refresh_token"]), 200)
    api.secrets += [second["access_token"], second["refresh_token"]]
    true(second["refresh_token"] != first["refresh_token"], "the refresh token is the same")
    third = answered(refresh(second["refresh_token"]), 200)
    refused(refresh(first["refresh_token"]), 401, "UNAUTHENTICATED", "an old refresh token")
    refused(refresh(third["refresh_token"]), 401, "UNAUTHENTICATED", "one of the same family")
    refused(refresh("invented"), 401, "UNAUTHENTICATED", "an invented one")

    last = api.log_in("leaving")
    equal(api.ask("POST", "/v1/auth/logout", token=last["access_token"]).status_code, 204, "logout")
    refused(
        api.ask("GET", "/v1/me", token=last["access_token"]),
        401,
        "UNAUTHENTICATED",
        "the access token after the logout",
    )
    refused(refresh(last["refresh_token"]), 401, "UNAUTHENTICATED", "the refresh token after the logout")


def refused_alike(api):
    """Unknown, wrong, disabled and without a password: the same answer"""
    api.user(username="refused-known")
    off = api.user(username="refused-off")
    answered(api.ask("PATCH", f"/v1/users/{off['id']}", {"disabled": True}), 200)
    api.user(username="refused-bare", password=None)
    said = set()
    for username, password in (
        ("refused-known", "another one"),
        ("refused-nobody", PASSWORD),
        ("refused-off", PASSWORD),
        ("refused-bare", PASSWORD),
    ):
        body = {"username": username, "password": password}
        answer = requests.post(f"{api.server.url}/v1/auth/login", json=body, timeout=TIMEOUT_S)
        refused(answer, 401, "UNAUTHENTICATED", username)
        error = answer.json()["error"]
        del error["request_id"]
        said.add(json.dumps(error))
        true(username not in answer.text and password not in answer.text, "repeats input")
        basic = api.ask("GET", "/v1/me", basic=(username, password))
        refused(basic, 401, "UNAUTHENTICATED", f"{username} by Basic")
        true(basic.headers["WWW-Authenticate"].startswith("Bearer"), "a challenge that makes browsers ask")
    equal(len(said), 1, f"different answers, {said}")


def disabled(api):
    """A disabled user is locked out at once, and let in again when enabled"""
    user = api.user(username="blinking")
    path, tokens = f"/v1/users/{user['id']}", api.log_in("blinking")
    basic = ("blinking", PASSWORD)
    answered(api.ask("GET", "/v1/me", basic=basic), 200)
    equal(answered(api.ask("PATCH", path, {"disabled": True}), 200)["disabled"], True, "disabled")
    refused(api.ask("GET", "/v1/me", token=tokens["access_token"]), 401, "UNAUTHENTICATED", "the user's token")
    refused(api.ask("GET", "/v1/me", basic=basic), 401, "UNAUTHENTICATED", "the user's password, which was verified before")
    answered(api.ask("PATCH", path, {"disabled": False}), 200)
    answered(api.ask("GET", "/v1/me", basic=basic), 200)


def by_basic(api):
    """HTTP Basic predicts, for the user's scopes, and not for foreign pages"""
    api.user(username="basic", roles=["data-scientist"])
    basic = ("basic", PASSWORD)
    for _ in range(3):
        rows = answered(api.ask("POST", "/predict", RECORD, basic=basic), 200)["predictions"]
        equal(len(rows), 1, "rows")
    refused(api.ask("GET", "/v1/users", basic=basic), 403, "FORBIDDEN")
    api.user(username="bare")
    refused(api.ask("POST", "/predict", RECORD, basic=("bare", PASSWORD)), 403, "FORBIDDEN", "a user without roles")
    foreign = api.ask("POST", "/predict", RECORD, basic=basic, Origin="https://elsewhere.example.org")
    equal(foreign.status_code, 403, "from a page of somebody else")
    answered(api.ask("POST", "/predict", RECORD, basic=basic, Origin=api.server.url), 200, "from a page of ours")
    colon = api.user(username="with-colon", password="a:b:c:long enough")
    api.secrets.append("a:b:c:long enough")
    equal(answered(api.ask("GET", "/v1/me", basic=("with-colon", "a:b:c:long enough")), 200)["id"], colon["id"], "id")


def own_password(api):
    """Users change their own password, which ends what was logged in"""
    api.user(username="careful")
    tokens = api.log_in("careful")
    new = "another long password"
    api.secrets.append(new)
    wrong = api.ask(
        "PUT", "/v1/me/password", {"current_password": "not it", "new_password": new}, token=tokens["access_token"]
    )
    true(400 <= wrong.status_code < 500, f"with a wrong current one: {wrong.status_code}")
    body = {"current_password": PASSWORD, "new_password": new}
    answer = api.ask("PUT", "/v1/me/password", body, token=tokens["access_token"])
    true(answer.status_code in (200, 204), f"{answer.status_code} {answer.text[:300]}")
    api.log_in("careful", PASSWORD, 401)
    api.log_in("careful", new)


def nobody_promotes_himself(api):
    """Nobody gives themselves a role, and nobody reads others without the scope"""
    user = api.user(username="ambitious", roles=["data-scientist"])
    other = api.user(username="bystander")
    token = api.log_in("ambitious")["access_token"]
    for method, path, body in (
        ("PATCH", f"/v1/users/{user['id']}", {"roles": ["admin"]}),
        ("PATCH", f"/v1/users/{other['id']}", {"disabled": True}),
        ("POST", "/v1/users", {"name": "X", "email": "x@example.org", "roles": ["admin"]}),
        ("GET", f"/v1/users/{other['id']}", None),
        ("GET", "/v1/users", None),
        ("POST", "/v1/api-keys", {"name": "mine", "scopes": ["users:write"]}),
        (
            "POST",
            "/v1/oauth-clients",
            {
                "name": "mine",
                "redirect_uris": [],
                "grant_types": ["client_credentials"],
                "scopes": ["users:write"],
                "public": False,
            },
        ),
    ):
        answer = api.ask(method, path, body, token=token)
        true(answer.status_code in (403, 404), f"{method} {path}: {answer.status_code}")
    equal(answered(api.ask("GET", f"/v1/users/{user['id']}"), 200)["roles"], ["data-scientist"], "roles")


def by_command(api):
    """`auspex users add` adds a user while the server runs, and the user can log in"""
    api.server.command(
        *("users", "add", "--name", "Operator", "--email", "operator@example.org", "--username", "operator"),
        *("--role", "operator", "--password-stdin"),
        said=PASSWORD + "\n",
    )
    api.secrets.append("operator@example.org")
    ends = time.monotonic() + NOTICED_S
    while api.ask("GET", "/v1/me", basic=("operator", PASSWORD)).status_code != 200:
        true(time.monotonic() < ends, f"not known after {NOTICED_S} s")
        time.sleep(0.05)
    equal(answered(api.ask("GET", "/v1/me", basic=("operator", PASSWORD)), 200)["roles"], ["operator"], "roles")


# API keys


def keys(api):
    """Keys are made, listed without their secret, and stop at once when deleted"""
    answer = api.ask("POST", "/v1/api-keys", {"name": "notebook", "scopes": ["predict"]})
    made = answered(answer, 201)
    api.secrets.append(made["key"])
    true(made["key"].startswith("ax_") and len(made["key"]) == 39, "the key's form")
    answered(api.ask("POST", "/predict", RECORD, key=made["key"]), 200, "a prediction")
    refused(api.ask("GET", "/v1/api-keys", key=made["key"]), 403, "FORBIDDEN")
    text = api.ask("GET", "/v1/api-keys").text
    (shown,) = [one for one in json.loads(text)["data"] if one["id"] == made["id"]]
    true(made["key"] not in text and not shown.get("key"), "the list shows the key")
    equal((shown["name"], shown["scopes"]), ("notebook", ["predict"]), "name, scopes")
    equal(api.ask("DELETE", f"/v1/api-keys/{made['id']}").status_code, 204, "DELETE")
    refused(api.ask("POST", "/predict", RECORD, key=made["key"]), 401, "UNAUTHENTICATED", "after DELETE")


def rotated(api):
    """A rotated key overlaps with the new one"""
    made = answered(api.ask("POST", "/v1/api-keys", {"name": "rotating", "scopes": ["predict"]}), 201)
    new = answered(api.ask("POST", f"/v1/api-keys/{made['id']}/rotations"), 201)
    api.secrets += [made["key"], new["key"]]
    true(new["key"] != made["key"], "the same key")
    for key in (made["key"], new["key"]):
        answered(api.ask("POST", "/predict", RECORD, key=key), 200, "during the overlap")


def keys_stay_within(api):
    """A key gives no more than its maker has, and ends when it says"""
    maker = answered(api.ask("POST", "/v1/api-keys", {"name": "maker", "scopes": ["keys:write", "predict"]}), 201)[
        "key"
    ]
    api.secrets.append(maker)
    answered(api.ask("POST", "/v1/api-keys", {"name": "narrow", "scopes": ["predict"]}, key=maker), 201)
    beyond = api.ask("POST", "/v1/api-keys", {"name": "wide", "scopes": ["users:write"]}, key=maker)
    true(beyond.status_code in (403, 422), f"beyond its own scopes: {beyond.status_code}")
    past = {"name": "past", "scopes": ["predict"], "expires_at": "2020-01-01T00:00:00Z"}
    refused(api.ask("POST", "/v1/api-keys", past), 422, "VALIDATION_ERROR", "an end in the past")
    fields = refused(api.ask("POST", "/v1/api-keys", {"name": "", "scopes": ["everything"]}), 422, "VALIDATION_ERROR")
    equal(sorted({field.split("[")[0].split(".")[0] for field in fields}), ["name", "scopes"], "wrong fields")


def audited(api):
    """The audit tells of logins, denials and changes, and of no secret"""
    text = api.ask("GET", "/v1/audit?limit=1000").text
    entries = json.loads(text)["data"]
    true(len(entries) > 10, f"only {len(entries)} entries")
    told = [secret for secret in api.secrets if secret in text]
    equal(len(told), 0, "secrets in the audit")


def silent_log(api):
    """No password, key, token or e-mail is in the log"""
    log = (api.server.folder / "log").read_text(errors="replace")
    true(len(log) > 1000, "the log is all but empty")
    true(len(api.secrets) > 20, "hardly a secret was used")
    told = sorted({short(secret, 6) for secret in [*api.secrets, api.server.key] if secret in log})
    equal(told, [], "secrets in the log, by their first letters")


def main():
    checks = Checks()
    with Server(LOG_LEVEL="debug", AUSPEX__TELEMETRY__ACCESS_LOG="all") as server:
        checks.run_all(
            (
                *(seed_users, one_user, wrong_users, listed),
                *(logged_in, refreshed, refused_alike, disabled, by_basic, own_password, nobody_promotes_himself),
                *(by_command, keys, rotated, keys_stay_within, audited, silent_log),
            ),
            Api(server),
        )
        checks.run("the server still runs", true, server.running(), "it has ended")
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
