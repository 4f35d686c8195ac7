"""Judge: does a grpcio server behind the gateway answer clients that know only JSON?

The service is the one of crates/gateway/tests/grpc/scores.proto, with the code that protoc makes of it.
"""

import base64
import importlib
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import google.api
import grpc
import grpc_tools
import jwt
import requests
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from checks import Checks, equal, true
from server import ROOT, Server

PROTO = ROOT / "crates/gateway/tests/grpc"
TIMEOUT_S = 30
HTTP_OF = {
    "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400,
    "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503,
    "DATA_LOSS": 500, "UNAUTHENTICATED": 401,
}  # fmt: skip
SETTINGS = """
[gateway.services.scores]
endpoints = ["http://127.0.0.1:{port}"]
protocol = "http2"
timeout_ms = 5000
circuit_breaker = {{ failure_threshold = 1000 }}
[[gateway.routes]]
path = "/grpc/{{*rest}}"
service = "scores"
scopes = ["predict"]
strip_prefix = "/grpc"
transcode = {{ descriptor = "{descriptor}" }}
"""


def generated(folder):
    """The modules that protoc makes, and the descriptor set as the documentation says to make it."""
    imports = [PROTO, Path(list(google.api.__path__)[0]).parents[1], Path(grpc_tools.__file__).parent / "_proto"]
    descriptor = folder / "scores.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", *(f"--proto_path={one}" for one in imports)]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    command += ["--include_imports", f"--descriptor_set_out={descriptor}", "scores.proto"]
    subprocess.run(command, check=True, timeout=60)
    sys.path.insert(0, str(folder))
    return importlib.import_module("scores_pb2"), importlib.import_module("scores_pb2_grpc"), descriptor


def serve(pb, pb_grpc, seen):
    class Scores(pb_grpc.ScoresServicer):
        def note(self, request, context):
            seen["request"] = request
            seen["metadata"] = dict(context.invocation_metadata())
            seen["left_s"] = context.time_remaining()

        def GetScore(self, request, context):
            self.note(request, context)
            context.send_initial_metadata((("x-served-by", "scores"),))
            return pb.Score(id=request.id, name=request.user.name, value=0.1, level=pb.HIGH)

        def ListScores(self, request, context):
            self.note(request, context)
            return pb.ListScoresResponse(asked=request)

        def CreateScore(self, request, context):
            self.note(request, context)
            return request

        def UpdateScore(self, request, context):
            self.note(request, context)
            return request.score

        def CancelScore(self, request, context):
            self.note(request, context)
            time.sleep(2 if request.id == 99 else 0)
            return pb.Score(id=request.id, name="cancelled")

        def WatchScores(self, request, context):
            self.note(request, context)
            for number in range(request.count):
                if request.fail_after and number == request.fail_after:
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")
                if number:
                    time.sleep(request.pause_ms / 1000)
                seen["sent"] = number
                yield pb.Score(id=number)
            if request.fail_after < 0:
                context.abort(grpc.StatusCode.NOT_FOUND, "nothing to watch")

        def ListNames(self, request, context):
            return pb.Names(names=["a"] * request.count, comment="unseen")

        def SetNames(self, request, context):
            return request

        def Download(self, request, context):
            data = b"\x00\xff" * 10 if request.path != "large" else b"x" * 5_000_000
            return HttpBody(content_type="image/x-test", data=data)

        def DownloadInPieces(self, request, context):
            for number in range(3):
                yield HttpBody(content_type="text/plain", data=f"{request.path} {number}\n".encode())

        def Upload(self, request, context):
            self.note(request, context)
            return request

        def Fail(self, request, context):
            detail = any_pb2.Any()
            violation = error_details_pb2.BadRequest.FieldViolation(field=request.field, description="is wrong")
            detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
            status = status_pb2.Status(code=request.code, message="Größe: 5 %", details=[detail])
            context.abort_with_status(rpc_status.to_status(status))

    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", -1)])
    pb_grpc.add_ScoresServicer_to_server(Scores(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


class Client:
    def __init__(self, server):
        self.base = f"{server.url}/grpc"
        self.session = requests.Session()
        self.session.headers["X-API-Key"] = server.key

    def ask(self, method, path, **more):
        return self.session.request(method, self.base + path, timeout=TIMEOUT_S, **more)

    def json(self, method, path, **more):
        answer = self.ask(method, path, **more)
        equal((answer.status_code, answer.headers["Content-Type"]), (200, "application/json"), answer.text)
        return answer.json()


def unary(client, seen):
    """A call is asked for by its path, and answered as JSON."""
    answer = client.ask("GET", "/v1/scores/9007199254740993")
    equal(answer.json(), {"id": "9007199254740993", "value": 0.1, "level": "HIGH"})
    equal(answer.headers.get("X-Served-By"), "scores", "metadata")
    equal(client.json("GET", "/v1/users/Ada%20L%2FX/scores/7")["name"], "Ada L/X")
    equal(client.json("POST", "/v1/scores/7:cancel")["name"], "cancelled")
    metadata = seen["metadata"]
    true("x-api-key" not in metadata and client.session.headers["X-API-Key"] not in str(metadata), f"credentials passed: {metadata}")
    # Who calls is told by a token for this service alone.
    token = metadata["authorization"].removeprefix("Bearer ")
    equal(jwt.decode(token, options={"verify_signature": False})["aud"], "scores", "audience")
    equal(metadata["x-real-ip"], "127.0.0.1")


def queries(client, seen):
    """Repeated and nested fields come by the query."""
    query = [("tags", "a&b"), ("tags", "ü"), ("filter.min_value", "1e3"), ("filter.user.age", "-5"),
             ("pageSize", "3"), ("levels", "LOW"), ("after", "2026-01-25T10:00:00.5Z"), ("limit", "7"),
             ("filter.raw", base64.b64encode(b"\xff\xfe\xfd").decode())]  # fmt: skip
    client.json("GET", "/v1/scores", params=query)
    asked = seen["request"]
    equal(list(asked.tags), ["a&b", "ü"])
    equal((asked.filter.min_value, asked.filter.user.age, asked.page_size), (1000.0, -5, 3))
    equal((list(asked.levels), asked.after.nanos, asked.limit.value), ([1], 500_000_000, 7))
    equal(asked.filter.raw, b"\xff\xfe\xfd")


def bodies(client, seen):
    """A body is a message, a field of one, or bytes."""
    score = {"name": "n", "id": "-5", "level": "LOW", "tags": ["x"], "counts": {"a": 1}, "took": "1.500s",
             "createdAt": "2026-01-25T10:00:00Z", "raw": "/w==", "user": {"name": "u"}, "model": "m", "checked": False}  # fmt: skip
    equal(client.json("POST", "/v1/scores", json=score), score)
    true(seen["request"].HasField("checked") and seen["request"].counts["a"] == 1, seen["request"])
    answer = client.json("PATCH", "/v1/scores/7?dry_run=true", json={"value": 2})
    equal(answer, {"name": "scores/7", "value": 2.0})
    true(seen["request"].dry_run, "dry_run was lost")
    equal(client.json("PUT", "/v1/names?comment=c", json=["a", "b"]), {"names": ["a", "b"], "comment": "c"})
    headers = {"Content-Type": "image/x-test"}
    sent = client.ask("POST", "/v1/files/a/b%20c", data=b"\x00\x01", headers=headers)
    equal(sent.status_code, 200, sent.text)
    request = seen["request"]
    equal((request.path, request.file.content_type, request.file.data), ("a/b c", "image/x-test", b"\x00\x01"))


def shapes(client, seen):
    """An answer is a field of the message, or bytes."""
    equal(client.json("GET", "/v1/names?count=2"), ["a", "a"])
    equal(client.json("GET", "/v1/names"), [])
    answer = client.ask("GET", "/v1/files/x")
    equal((answer.headers["Content-Type"], answer.content), ("image/x-test", b"\x00\xff" * 10))
    answer = client.ask("GET", "/v1/pieces/x")
    equal((answer.headers["Content-Type"], answer.text), ("text/plain", "x 0\nx 1\nx 2\n"))


def streams(client, seen):
    """A stream comes as lines or as events, each when it is there."""
    answer = client.ask("GET", "/v1/scores:watch?count=3", stream=True)
    equal(answer.headers["Content-Type"], "application/x-ndjson")
    equal([json.loads(line) for line in answer.iter_lines()], [{}, {"id": "1"}, {"id": "2"}])
    began = time.monotonic()
    answer = client.ask("GET", "/v1/scores:watch?count=3&pause_ms=1000", stream=True)
    lines = answer.iter_lines(chunk_size=1)
    next(lines)
    true(time.monotonic() - began < 1, "the first message waited for the others")
    equal(len(list(lines)), 2)
    events = client.ask("GET", "/v1/scores:watch?count=2", headers={"Accept": "text/event-stream"})
    equal((events.headers["Content-Type"], events.text), ("text/event-stream", 'data: {}\n\ndata: {"id":"1"}\n\n'))
    equal(client.ask("GET", "/v1/scores:watch").text, "")
    true(seen["left_s"] is None or seen["left_s"] > 3600, f"a stream got {seen['left_s']} s")


def streams_that_fail(client, seen):
    """A stream says how it failed, by its status or as its last words."""
    answer = client.ask("GET", "/v1/scores:watch?fail_after=-1")
    equal((answer.status_code, answer.json()["error"]["code"]), (404, "NOT_FOUND"))
    answer = client.ask("GET", "/v1/scores:watch?count=3&fail_after=2")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    equal((answer.status_code, len(lines)), (200, 3))
    equal((lines[2]["error"]["code"], lines[2]["error"]["message"]), ("RESOURCE_EXHAUSTED", "no more"))
    answer = client.ask("GET", "/v1/scores:watch?count=3&fail_after=2", headers={"Accept": "text/event-stream"})
    true("event: error\ndata: {" in answer.text, answer.text)


def clients_that_leave(client, seen):
    """Who leaves a stream ends it at the service."""
    answer = client.ask("GET", "/v1/scores:watch?count=1000&pause_ms=50", stream=True)
    next(answer.iter_lines(chunk_size=1))
    answer.close()
    time.sleep(1)
    sent = seen["sent"]
    time.sleep(1)
    equal(seen["sent"], sent, "messages go on")


def statuses(client, seen):
    """Every status of gRPC is one of HTTP, with message and details."""
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        answer = client.ask("GET", f"/v1/fail/{code.value[0]}?field=user.age")
        error = answer.json()["error"]
        equal((answer.status_code, error["code"]), (HTTP_OF[code.name], code.name))
        equal(error["message"], "Größe: 5 %")
        equal(error["details"], [{"field": "user.age", "message": "is wrong"}])


def refusals(client, seen):
    """What is wrong with a request is said before the service is asked."""
    seen.clear()
    for method, path, more, status, field in [
        ("POST", "/v1/scores", {"json": {"id": "x"}}, 422, "id"),
        ("POST", "/v1/scores", {"json": {"user": {"age": "x"}}}, 422, "user.age"),
        ("POST", "/v1/scores", {"json": {"users": [{"age": 1}, {"age": []}]}}, 422, "users[1].age"),
        ("GET", "/v1/scores/x", {}, 422, "id"),
        ("GET", "/v1/scores?nope=1", {}, 422, "nope"),
        ("POST", "/v1/scores", {"data": "{", "headers": {"Content-Type": "application/json"}}, 400, None),
        ("POST", "/v1/scores", {"data": "x=1", "headers": {"Content-Type": "text/plain"}}, 415, None),
        ("POST", "/v1/scores", {"data": b" " * 1_100_000, "headers": {"Content-Type": "application/json"}}, 413, None),
        ("GET", "/v1/nowhere", {}, 404, None),
        ("DELETE", "/v1/scores", {}, 405, None),
        ("POST", "/v1/collect", {"json": {}}, 501, None),
        ("POST", "/auspex.test.Scores/Hide", {"json": {}}, 404, None),
        ("GET", "/v1/files/a/%2e%2e/b", {}, 400, None),
    ]:
        answer = client.ask(method, path, **more)
        equal(answer.status_code, status, f"{method} {path} {answer.text}")
        if field:
            equal([one["field"] for one in answer.json()["error"]["details"]], [field])
    equal(seen, {}, "reached the service")
    equal(client.ask("GET", "/v1/files/large").status_code, 502, "more than a message may be")


def deadlines(client, seen):
    """A deadline reaches the service, and ends the wait."""
    client.json("GET", "/v1/scores/1")
    true(0 < seen["left_s"] <= 5, f"{seen['left_s']} s")
    began = time.monotonic()
    answer = client.ask("POST", "/v1/scores/99:cancel", headers={"X-Request-Timeout-Ms": "300"})
    equal(answer.status_code, 504, answer.text)
    true(time.monotonic() - began < 1.5, "it waited longer than the client")
    true(0 < seen["left_s"] <= 0.3, f"the service had {seen['left_s']} s")


def many(client, seen):
    """Many at once get each their own."""
    def one(number):
        return client.json("GET", f"/v1/scores/{number}")["id"] == str(number)

    with ThreadPoolExecutor(16) as pool:
        true(all(pool.map(one, range(1, 400))), "answers were mixed up")


def main():
    checks = Checks()
    seen = {}
    with tempfile.TemporaryDirectory(prefix="auspex-grpc-") as folder:
        pb, pb_grpc, descriptor = generated(Path(folder))
        service, port = serve(pb, pb_grpc, seen)
        with Server(config=SETTINGS.format(port=port, descriptor=descriptor)) as server:
            client = Client(server)
            checks.run_all(
                [unary, queries, bodies, shapes, streams, streams_that_fail, clients_that_leave, statuses, refusals,
                 deadlines, many],  # fmt: skip
                client,
                seen,
            )
        service.stop(0)
    checks.finish()


main()
