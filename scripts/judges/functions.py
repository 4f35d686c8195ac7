"""Judge: the same program as a function of AWS Lambda, in a small Lambda of this judge's own (scripts/lib/functions.py)."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qsl

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import requests

from checks import Checks, equal, true
from functions import ANSWER_BYTES_MAX, FORMS, Function, as_http, http_api
from server import BINARY, RECORDS, Server, environment

RECORD = (RECORDS / "records.jsonl").read_bytes().splitlines()[0]
JSON = ("Content-Type", "application/json")
END_S = 0.5  # Lambda gives an internal extension no more
SINGLE = "load balancer of single headers"
COLD_STARTS = 5
COLD_START_S = 5  # far above what is measured; it is printed
# Of an answer: what differs from one to the next, and what whoever hands it on writes.
OWN = {"x-request-id", "date", "content-length", "connection", "server-timing", "x-process-time", "x-auspex-instance"}


def requests_of(key):
    """(method, path, query, headers, body) of requests of all kinds."""
    known = ("X-API-Key", key)
    listed = "limit=1&name=a%26b%3Dc+d%20%C3%A9&sort="
    return [
        ("POST", "/predict", "", [known, JSON], RECORD),
        ("POST", "/v1/models/santander/predict", "", [("Authorization", f"Bearer {key}"), JSON], RECORD),
        ("POST", "/predict", "", [known, JSON], b'{"features": {"age": 256, "\xc3\xa9": 1}}'),
        ("POST", "/predict", "", [known, JSON], b"\xff\xfe{"),
        ("POST", "/predict", "", [known, ("Content-Type", "text/csv")], b"a,b\n"),
        ("POST", "/predict", "", [known, JSON], b'{"x": "' + b"x" * (3 << 20) + b'"}'),
        ("POST", "/predict", "", [JSON], RECORD),
        ("POST", "/predict", "", [("X-API-Key", "nobody"), JSON], RECORD),
        ("POST", "/predict", "", [known, ("Authorization", f"Bearer {key}"), JSON], RECORD),
        ("GET", "/v1/models/santander/schema", "", [known], b""),
        ("GET", "/v1/users", listed, [known], b""),
        ("GET", "/v1/users", "limit=1&limit=2", [known], b""),
        ("GET", "/v1/models/a%20b%2Fc", "", [known], b""),
        ("GET", "/v1/models/a b\u00e9", "", [known], b""),
        ("GET", "/nowhere", "", [], b""),
        ("PUT", "/predict", "", [known], b""),
        ("OPTIONS", "/predict", "", [("Origin", "https://elsewhere.example"), ("Access-Control-Request-Method", "POST")], b""),
        ("HEAD", "/health/live", "", [], b""),
        ("GET", "/health/live", "", [], b""),
        ("GET", "/docs/favicon-32x32.png", "", [], b""),
        ("GET", "/docs/swagger-ui.css", "", [("Accept-Encoding", "gzip")], b""),
    ]


def comparable(status, headers, body, with_body=True):
    body = re.sub(rb'"request_id":"[^"]*"', b"", body)
    # What a client may not tell apart: one value with commas, or several.
    joined = {}
    for name, value in headers:
        if name not in OWN and not name.startswith("x-ratelimit"):
            joined.setdefault(name, []).extend(part.strip() for part in value.split(","))
    return status, {name: sorted(values) for name, values in joined.items()}, body if with_body else b""


def over_http(server, method, path, query, headers, body):
    session = requests.Session()
    url = f"{server.url}{path}?{query}" if query else f"{server.url}{path}"
    request = requests.Request(method, url, data=body or None, headers=dict(headers)).prepare()
    answer = session.send(request, stream=True, timeout=30)
    pairs = [(name.lower(), value) for name, value in answer.raw.headers.items()]
    return answer.status_code, pairs, answer.raw.read(decode_content=False)


def answered(function, event):
    end, body, _ = function.invoke(event)
    equal(end, "response", f"end ({body})")
    return as_http(body)


class Folder:
    """A data folder with a key, and what a server answered there to all kinds of requests."""

    def __init__(self, folder):
        self.data = folder / "data"
        with Server(data=self.data) as server:
            self.key = server.key
            self.known = [(request, over_http(server, *request)) for request in requests_of(self.key)]


def is_said_twice(pairs):
    return len(dict(pairs)) < len(pairs)


def same_as_over_http(folder, form):
    with Function(folder.data) as function:
        for request, answer in folder.known:
            method, path, query, headers, body = request
            if is_said_twice(headers) or (form == SINGLE and is_said_twice(parse_qsl(query, keep_blank_values=True))):
                continue
            event = FORMS[form](method, path, query, headers, body)
            found, wanted = (comparable(*one, with_body=method != "HEAD") for one in (answered(function, event), answer))
            equal(found, wanted, f"{method} {path}?{query} with {[name for name, _ in headers]}")
        equal(function.stop()[0], 0, "exit code")


def bytes_come_back_as_they_are(folder):
    """Bytes that are no text come back as they are"""
    with Function(folder.data) as function:
        end, body, _ = function.invoke(http_api("GET", "/docs/favicon-32x32.png"))
        true(body["isBase64Encoded"], "base64")
        equal(as_http(body)[2][:8], b"\x89PNG\r\n\x1a\n", "the beginning of a PNG")
        equal(function.invoke(http_api("GET", "/openapi.json"))[1]["isBase64Encoded"], False, "base64 of JSON")


def it_listens_nowhere(folder):
    """It listens nowhere, and asks to be told of its end"""
    with Function(folder.data) as function:
        function.extension_waits.wait(5)
        equal(function.extension, ("auspex", {"events": []}), "extension")
        own = {os.readlink(f"/proc/{function.child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{function.child.pid}/fd")}
        listening = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{function.child.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    listening.add(f"socket:[{fields[9]}]")
        true(listening, "somebody listens on this machine")
        equal(own & listening, set(), "its listening sockets")


def cookies_are_several(folder):
    """A login page sets its cookie, and is given it back, in every form"""
    settings = {"AUSPEX__SERVER__PUBLIC_URL": "https://functions.example.org"}
    with Function(folder.data, **settings) as function:
        for form, event in FORMS.items():
            status, headers, _ = answered(function, event("GET", "/oauth2/login"))
            cookies = [value.split(";")[0] for name, value in headers if name == "set-cookie"]
            equal((status, len(cookies)), (200, 1), f"{form}: status and cookies")
            given = [("Cookie", f"theme=dark; {cookies[0]}")]
            _, headers, _ = answered(function, event("GET", "/oauth2/login", headers=given))
            again = [value.split(";")[0] for name, value in headers if name == "set-cookie"]
            true(again in ([], cookies), f"{form}: it does not know its cookie")


def clients_are_told_apart(folder):
    """Limits count the address that the front of the function saw, in every form"""
    limits = {"AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "3"}
    with Function(folder.data, **limits) as function:
        for number, event in enumerate(FORMS.values()):
            one, other = f"203.0.113.{number}", f"192.0.2.{number}"
            ask = lambda source: answered(function, event("GET", "/openapi.json", source=source))[0]
            equal([ask(one) for _ in range(4)], [200, 200, 200, 429], f"{one}")
            equal(ask(other), 200, f"{other}")


def what_others_did_while_it_stood_still(folder):
    """A key that was revoked while it stood still is refused by the next request"""
    with Function(folder.data) as function:
        command = lambda *more: subprocess.run(
            [BINARY, *more, "--data-dir", folder.data], env=environment(), capture_output=True, text=True, check=True
        ).stdout.strip()
        key = command("keys", "create", "--name", "shop", "--scope", "predict")
        event = http_api("POST", "/predict", headers=[("X-API-Key", key), JSON], body=RECORD)
        time.sleep(0.3)
        equal(answered(function, event)[0], 200, "status before")
        for receipt_s in [0] * 8 + [0.2] * 2:
            function.receipt_s = receipt_s
            equal(answered(function, event)[0], 200, "status before")
            os.kill(function.child.pid, signal.SIGSTOP)
            time.sleep(0.3)
            command("keys", "revoke", "shop")
            os.kill(function.child.pid, signal.SIGCONT)
            equal(answered(function, event)[0], 401, "status after")
            key = command("keys", "create", "--name", "shop", "--scope", "predict")
            event = http_api("POST", "/predict", headers=[("X-API-Key", key), JSON], body=RECORD)
            time.sleep(0.3)
            equal(answered(function, event)[0], 200, "status of the next key")


def events_that_are_none(folder):
    """What is no event gets an error, says nothing of what it was, and the next one is answered"""
    whole = http_api("GET", "/health/live")
    wrong = [
        *(b"", b"null", b"[]", b"{}", b'{"secret": ', b"\xff", b'{"requestContext": {}}', b"[" * 100_000),
        whole | {"rawPath": None},
        whole | {"body": "no base64!", "isBase64Encoded": True},
        whole | {"headers": {"a b": "secret"}},
        whole | {"requestContext": {"http": {"method": "G T", "sourceIp": "203.0.113.7"}}},
    ]
    with Function(folder.data) as function:
        for event in wrong:
            end, body, _ = function.invoke(event)
            equal(end, "error", f"end of {str(event)[:80]} ({body})")
            true("secret" not in json.dumps(body), "it repeats what it got")
            equal(answered(function, whole)[0], 200, "status of the next one")
        true("secret" not in function.log(), "the log repeats what it got")


def a_long_answer(folder):
    """An answer of more than 6 MB is an error that says what to do, and a long one below that goes through"""
    row = json.loads(RECORD)
    rows = json.dumps([row] * 30_000).encode()
    settings = {"AUSPEX__SERVER__BODY_BYTES_MAX": "33554432", "AUSPEX__INFERENCE__INSTANCES_MAX": "100000"}
    with Function(folder.data, **settings) as function:
        headers = [("X-API-Key", folder.key), JSON]
        status, _, body = answered(function, http_api("POST", "/predict", headers=headers, body=rows))
        error = json.loads(body)["error"]
        equal((status, error["code"]), (501, "ANSWER_TOO_LONG"), "status and code")
        some = json.dumps([row] * 16_000).encode()
        status, _, body = answered(function, http_api("POST", "/predict", headers=headers, body=some))
        equal(status, 200, "status")
        true(2 << 20 < len(body) < ANSWER_BYTES_MAX, f"{len(body)} bytes")


def what_does_not_end(folder):
    """A stream ends with the time that the function has, and what has come of it is answered"""
    with Function(folder.data) as function:
        known = ("X-API-Key", folder.key)
        equal(answered(function, http_api("GET", "/v1/jobs", headers=[known]))[0], 404, "status of jobs, which are left to servers")
        events = http_api("GET", "/v1/gateway/events", headers=[known])
        end, body, took = function.invoke(events, timeout_s=1.5)
        equal(end, "response", f"end ({body})")
        true(1 < took < 1.5, f"after {took:.2f} s")
        true("data:" in body["body"], f"events: {body['body']!r}")


def it_does_not_start(_):
    """A start that fails is told to Lambda, and one outside of Lambda says what to do"""
    elsewhere = {"AUSPEX__STORAGE__URL": "postgres://nobody@127.0.0.1:1/none"}
    failures = [
        (elsewhere | {"AUSPEX__DIALOGUES__MASTER_KEY": base64.b64encode(bytes(32)).decode()}, 1, "127.0.0.1"),
        # The key that it would make goes with its folder.
        (elsewhere, 2, "dialogues.master_key"),
        ({"AUSPEX__SERVER__ROLES": '["jobs"]'}, 2, "server.roles"),
    ]
    for settings, code, reason in failures:
        with tempfile.TemporaryDirectory() as empty:
            function = Function(Path(empty) / "data", **settings)
            function.start()
            equal(function.child.wait(30), code, f"exit code with {settings}")
            true(reason in function.init_error["errorMessage"], f"error: {function.init_error}")
            function.stop()
    done = subprocess.run([BINARY, "lambda"], env=environment(), capture_output=True, text=True)
    true("auspex serve" in done.stderr and done.returncode == 1, f"{done.returncode}: {done.stderr}")


def cold_starts(folder):
    """From nothing to the first answer, and from SIGTERM to the end"""
    starts, firsts, ends = [], [], []
    for number in range(COLD_STARTS):
        # An empty /tmp, as each new instance of a function finds it.
        with tempfile.TemporaryDirectory() as empty:
            with Function(Path(empty) / "data") as function:
                starts.append(function.init_s)
                firsts.append(function.invoke(http_api("GET", "/v1/models"))[2])
                code, took = function.stop()
                equal(code, 0, "exit code")
                ends.append(took)
    show = lambda times: f"{sorted(times)[len(times) // 2] * 1e3:.0f} ms (at most {max(times) * 1e3:.0f})"
    print(f"       start {show(starts)}, first answer {show(firsts)}, end {show(ends)}", flush=True)
    true(max(starts) < COLD_START_S, f"a start took {max(starts):.2f} s")
    true(max(ends) < END_S, f"an end took {max(ends):.2f} s")


def main():
    checks = Checks()
    where = Path(tempfile.mkdtemp(prefix="auspex-functions-"))
    try:
        folder = Folder(where)
        for form in FORMS:
            checks.run(f"All kinds of requests are answered as over HTTP: {form}", same_as_over_http, folder, form)
        checks.run_all(
            [
                *(bytes_come_back_as_they_are, it_listens_nowhere, cookies_are_several, clients_are_told_apart),
                *(what_others_did_while_it_stood_still, events_that_are_none, a_long_answer, what_does_not_end),
                *(it_does_not_start, cold_starts),
            ],
            folder,
        )
    finally:
        shutil.rmtree(where, ignore_errors=True)
    checks.finish()


main()
