"""Judge: a data scientist's own program, written with `requests` against what the API promises."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import requests

from checks import Checks, equal, true
from server import RECORDS, Server

TOLERANCE = 1e-6
TIMEOUT_S = 10
TYPED = "/v1/models/santander/predict"


def json_lines(name):
    return [json.loads(line) for line in (RECORDS / name).read_text().splitlines()]


records = json_lines("records.jsonl")
expected = json_lines("expected.jsonl")


class Api:
    """A session with a key, as clients keep one."""

    def __init__(self, server, key):
        self.server = server
        self.session = requests.Session()
        self.session.headers["X-API-Key"] = key

    def get(self, path, **more):
        return self.session.get(self.server.url + path, timeout=TIMEOUT_S, **more)

    def post(self, path, body=None, **more):
        return self.session.post(self.server.url + path, json=body, timeout=TIMEOUT_S, **more)

    def predict(self, body, path=TYPED):
        answer = self.post(path, body)
        equal(answer.status_code, 200, f"status of {answer.text[:300]}")
        return answer.json()


def close(found, wanted, where):
    equal(len(found), len(wanted), f"{where}: how many numbers")
    worst = max(abs(f - w) for f, w in zip(found, wanted))
    true(worst <= TOLERANCE, f"{where}: off by {worst}")


def prediction_of(one, probabilities, labels, where):
    """The label and probability of an answer agree with its probabilities."""
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    equal(one["prediction"], labels[best], f"{where}: prediction")
    close([one["probability"]], [probabilities[best]], f"{where}: probability")
    close(one["probabilities"], probabilities, where)


def refused(answer, status, code, where=""):
    """The one shape of all errors; gives the wrong fields."""
    equal(answer.status_code, status, f"status {where}, {answer.text[:300]}")
    equal(answer.headers["Content-Type"].split(";")[0], "application/json", "content type")
    equal(list(answer.json()), ["error"], "keys of the envelope")
    error = answer.json()["error"]
    equal(error["code"], code, "code")
    true(error["message"], "the message is empty")
    equal(error["request_id"], answer.headers["X-Request-Id"], "request id")
    for detail in error["details"]:
        equal(sorted(detail), ["field", "message"], "keys of a detail")
    return {detail["field"]: detail["message"] for detail in error["details"]}


# Predictions


def single_records(api):
    """All records one by one, by /predict"""
    equal(len(records), 201, "records")
    for number, (record, wanted) in enumerate(zip(records, expected, strict=True)):
        answer = api.predict(record, "/predict")
        equal(list(answer), ["predictions"], "keys")
        equal(len(answer["predictions"]), 1, "rows")
        close(answer["predictions"][0], wanted, f"record {number}")


def typed_records(api):
    """All records one by one, by the model's own path, with labels"""
    for number, (record, wanted) in enumerate(zip(records, expected, strict=True)):
        answer = api.predict(record)
        equal((answer["model"], len(answer["labels"])), ("santander", len(wanted)), "model, labels")
        prediction_of(answer, wanted, answer["labels"], f"record {number}")


def one_list(api):
    """All records as one list"""
    answer = api.predict(records)
    equal(len(answer["predictions"]), len(expected), "rows")
    for number, (one, wanted) in enumerate(zip(answer["predictions"], expected)):
        prediction_of(one, wanted, answer["labels"], f"record {number}")
    rows = api.predict(records, "/predict")["predictions"]
    for number, (row, wanted) in enumerate(zip(rows, expected, strict=True)):
        close(row, wanted, f"record {number} by /predict")


def by_position(api):
    """Values by position, in the order of the schema, one row and many"""
    schema = api.get("/v1/models/santander/schema")
    equal(schema.status_code, 200, "status of the schema")
    # The schema lists the fields the model uses first, in its order, then those it only accepts.
    width = None
    names = list(schema.json()["properties"])
    refusal = api.post(TYPED, {"features": []})
    for word in refused(refusal, 422, "VALIDATION_ERROR")["features"].split():
        width = width or (int(word) if word.isdigit() else None)
    true(width is not None, "the refusal of an empty list does not say how many values there must be")
    names = names[:width]
    rows = [[record.get(name) for name in names] for record in records]
    one = api.predict({"features": rows[0], "model_version": "latest"})
    close(one["probabilities"], expected[0], "the first record")
    many = api.predict({"features": rows})
    for number, (answer, wanted) in enumerate(zip(many["predictions"], expected, strict=True)):
        close(answer["probabilities"], wanted, f"record {number}")


def pinned_version(api):
    """A version asked for by name answers like the latest"""
    model = api.get("/v1/models/santander").json()
    for path in ("/v1/models/santander/versions/1/predict", "/v1/models/santander/versions/latest/predict"):
        answer = api.predict(records[0], path)
        equal(answer["model_version"], "1", f"{path}: version ({json.dumps(model)[:200]})")
        close(answer["probabilities"], expected[0], path)


def order_and_extras(api):
    """Fields may come in any order, and keys may be escaped"""
    backwards = dict(reversed(records[0].items()))
    close(api.predict(backwards)["probabilities"], expected[0], "backwards")
    text = json.dumps(records[0]).replace('"age"', '"\\u0061ge"')
    answer = api.post(TYPED, data=text, headers={"Content-Type": "application/json; charset=utf-8"})
    equal(answer.status_code, 200, f"status of {answer.text[:200]}")
    close(answer.json()["probabilities"], expected[0], "escaped key")


# What is wrong


def wrong_fields(api):
    """Every wrong field is named at once, and no value is repeated"""
    record = {k: v for k, v in records[0].items() if k != "antiguedad"}
    record |= {"age": "fifty-six", "sexo": "X-secret", "surprise": 1}
    answer = api.post(TYPED, record)
    fields = refused(answer, 422, "VALIDATION_ERROR")
    equal(sorted(fields), ["age", "antiguedad", "sexo", "surprise"], "fields")
    true("fifty-six" not in answer.text and "X-secret" not in answer.text, "a value is repeated")


def wrong_in_a_list(api):
    """In a list, fields are named with their position"""
    body = [dict(record) for record in records[:5]]
    body[3]["age"] = None if "age" not in records[3] else "old"
    del body[4]["sexo"]
    fields = refused(api.post(TYPED, body), 422, "VALIDATION_ERROR")
    true("[3].age" in fields, f"no [3].age in {fields}")
    true("[4].sexo" in fields, f"no [4].sexo in {fields}")


def wrong_counts(api):
    """No record, too many, too few values"""
    refused(api.post(TYPED, []), 422, "VALIDATION_ERROR", "of an empty list")
    refused(api.post(TYPED, [records[0]] * 1001), 422, "VALIDATION_ERROR", "of 1001 records")
    equal(len(api.predict([records[0]] * 1000)["predictions"]), 1000, "1000 records")
    refused(api.post(TYPED, {"features": [1, 2]}), 422, "VALIDATION_ERROR", "of two values")
    refused(api.post(TYPED, {"features": [1], "model_version": "99"}), 422, "VALIDATION_ERROR", "of version 99")


def malformed(api):
    """Bodies that are not JSON"""
    for body in (b"", b"{", b"not json", b'{"age": NaN}', b'"text"', b"7", b"null", b"\xff\xfe{}", b"{}{}", b"[" * 100_000):
        answer = api.post(TYPED, data=body, headers={"Content-Type": "application/json"})
        refused(answer, 400, "MALFORMED_REQUEST", f"of {body[:20]!r}")
    form = api.post(TYPED, data={"age": 56})
    refused(form, 415, "UNSUPPORTED_MEDIA_TYPE", "of a form")


def too_long(api):
    """A body over the limit, told in time to be seen"""
    answer = api.post(TYPED, data=b"[" + b" " * 3_000_000 + b"]", headers={"Content-Type": "application/json"})
    refused(answer, 413, "PAYLOAD_TOO_LARGE")
    chunks = (b" " * 65_536 for _ in range(64))
    answer = api.post(TYPED, data=chunks, headers={"Content-Type": "application/json"})
    refused(answer, 413, "PAYLOAD_TOO_LARGE", "without a length")


def nowhere(api):
    """Unknown models, versions, paths and methods"""
    for path in ("/v1/models/none/predict", "/v1/models/santander/versions/99/predict", "/nowhere"):
        refused(api.post(path, records[0]), 404, "NOT_FOUND", path)
    for path in ("/v1/models/none", "/v1/models/santander/versions/99", "/v1/models/none/schema"):
        refused(api.get(path), 404, "NOT_FOUND", path)
    answer = api.get("/predict")
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    equal(answer.headers["Allow"], "POST", "Allow")


# Who asks


def without_a_key(api):
    """No key, a wrong one, two that differ"""
    url = api.server.url + TYPED
    for headers in ({}, {"X-API-Key": "ax_wrong"}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        answer = requests.post(url, json=records[0], headers=headers, timeout=TIMEOUT_S)
        refused(answer, 401, "UNAUTHENTICATED", f"with {headers}")
        true(answer.headers["WWW-Authenticate"].startswith("Bearer"), "the challenge is not Bearer")
    answer = api.post(TYPED, records[0], headers={"Authorization": "Bearer other"})
    refused(answer, 401, "UNAUTHENTICATED", "with two keys")


def as_bearer(api):
    """The key as a bearer token"""
    headers = {"Authorization": f"Bearer {api.server.key}"}
    answer = requests.post(api.server.url + TYPED, json=records[0], headers=headers, timeout=TIMEOUT_S)
    equal(answer.status_code, 200, "status")


def own_key(api):
    """A new key works within a second, only for its scopes, and not once revoked"""
    key = api.server.command("keys", "create", "--name", "notebook", "--scope", "predict")
    mine = Api(api.server, key)

    def within_a_second(status):
        ends = time.monotonic() + 2
        while (answer := mine.post(TYPED, records[0])).status_code != status:
            true(time.monotonic() < ends, f"still {answer.status_code} instead of {status}")
            time.sleep(0.05)
        return answer

    within_a_second(200)
    answer = mine.get("/v1/models")
    refused(answer, 403, "FORBIDDEN")
    true("models:read" in answer.json()["error"]["message"], "the missing scope is not named")
    api.server.command("keys", "revoke", "notebook")
    refused(within_a_second(401), 401, "UNAUTHENTICATED")


def limited(_):
    """The limit refuses with 429 and says when to come back"""
    with Server(AUSPEX__SERVER__RATE_LIMIT__MAX="5", AUSPEX__SERVER__RATE_LIMIT__WINDOW_S="60") as server:
        api = Api(server, server.key)
        for left in (4, 3, 2, 1, 0):
            answer = api.post(TYPED, records[0])
            equal(answer.status_code, 200, "status")
            equal(answer.headers["X-RateLimit-Limit"], "5", "limit")
            equal(answer.headers["X-RateLimit-Remaining"], str(left), "remaining")
        answer = api.post(TYPED, records[0])
        refused(answer, 429, "RATE_LIMITED")
        # The window has 64 parts, of which the oldest counts whole: 60 s and a little.
        true(1 <= int(answer.headers["Retry-After"]) <= 61, f"Retry-After {answer.headers['Retry-After']}")
        reset = int(answer.headers["X-RateLimit-Reset"]) - time.time()
        true(-1 <= reset <= 62, f"reset in {reset} s")
        equal(api.get("/health").status_code, 200, "health is not limited by the caller")


# What else there is


def headers(api):
    """Request ids, timing and security headers"""
    answer = api.post(TYPED, records[0], headers={"X-Request-Id": "notebook-7"})
    equal(answer.headers["X-Request-Id"], "notebook-7", "request id")
    equal(answer.json()["request_id"], "notebook-7", "request id in the body")
    true(0 <= float(answer.headers["X-Process-Time"]) < 5, "process time")
    equal(answer.headers["X-Content-Type-Options"], "nosniff", "nosniff")
    equal(answer.headers["Cache-Control"], "no-store", "caching")
    made = api.post(TYPED, records[0], headers={"X-Request-Id": "bad id; with spaces"})
    true(made.headers["X-Request-Id"].startswith("req_"), "an id of our own for a bad one")


def catalogue(api):
    """What is loaded, page by page, and copies that are still right"""
    page = api.get("/v1/models").json()
    true("santander" in [model["name"] for model in page["data"]], f"no santander in {page}")
    pages, path = [], "/v1/models?limit=1"
    while path:
        page = api.get(path).json()
        pages += [model["name"] for model in page["data"]]
        path = page["pagination"]["links"]["next"]
        true(len(pages) < 1000, "pages without end")
    equal(pages, sorted(set(pages)), "names page by page")
    for path in ("/v1/models/santander", "/v1/models/santander/versions/1", "/v1/models/santander/schema", "/openapi.json"):
        answer = api.get(path)
        equal(answer.status_code, 200, path)
        again = api.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        equal((again.status_code, again.text), (304, ""), f"{path} again")


def health_and_metrics(api):
    """Health without a key, metrics with one"""
    url = api.server.url
    equal(requests.get(f"{url}/health", timeout=TIMEOUT_S).json()["status"], "healthy", "health")
    for path in ("/health/live", "/health/ready", "/docs/", "/openapi.json"):
        equal(requests.get(url + path, timeout=TIMEOUT_S).status_code, 200, path)
    equal(requests.get(f"{url}/metrics", timeout=TIMEOUT_S).status_code, 401, "metrics without a key")
    text = api.get("/metrics").text
    true("# EOF" in text and "/v1/models/{model}/predict" in text, f"metrics: {text[:500]}")


def main():
    checks = Checks()
    with Server() as server:
        checks.run_all(
            (
                *(single_records, typed_records, one_list, by_position, pinned_version, order_and_extras),
                *(wrong_fields, wrong_in_a_list, wrong_counts, malformed, too_long, nowhere),
                *(without_a_key, as_bearer, own_key, limited),
                *(headers, catalogue, health_and_metrics),
            ),
            Api(server, server.key),
        )
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
