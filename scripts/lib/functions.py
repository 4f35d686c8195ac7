"""`auspex lambda` in a small AWS Lambda: the runtime API and the extensions API, as far as a function uses them, on loopback.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html says what they are.
"""

import base64
import json
import queue
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from server import BINARY, MODELS, NO_LIMITS, environment

READY_S = 20
ANSWER_BYTES_MAX = 6 << 20
EXTENSION_ID = "e-1"


class Api(BaseHTTPRequestHandler):
    """What the function asks of Lambda."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        function = self.server.function
        if self.path == "/2020-01-01/extension/event/next":
            function.extension_waits.set()
            function.ended.wait()  # it wants no events
            return
        assert self.path == "/2018-06-01/runtime/invocation/next", self.path
        function.is_ready.set()
        invocation = function.queue.get()
        if invocation is None:
            return
        invocation.handed_out = time.monotonic()
        deadline = int((time.time() + invocation.timeout_s) * 1000)
        self.reply(
            200,
            invocation.event,
            Lambda_Runtime_Aws_Request_Id=invocation.id,
            Lambda_Runtime_Deadline_Ms=deadline,
            Lambda_Runtime_Invoked_Function_Arn="arn:aws:lambda:us-east-1:123456789012:function:auspex",
        )

    def do_POST(self):
        function = self.server.function
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/2020-01-01/extension/register":
            function.extension = (self.headers["Lambda-Extension-Name"], json.loads(body))
            return self.reply(200, b"{}", Lambda_Extension_Identifier=EXTENSION_ID)
        what = self.path.removeprefix("/2018-06-01/runtime/")
        if what == "init/error":
            function.init_error = json.loads(body)
            return self.reply(202)
        kind, id, end = what.split("/")
        invocation = function.pending.pop(id)
        assert kind == "invocation" and end in ("response", "error"), self.path
        is_too_long = len(body) > ANSWER_BYTES_MAX
        if is_too_long:
            end, body = "error", b'{"errorType":"Function.ResponseSizeTooLarge"}'
        invocation.done(end, json.loads(body))
        time.sleep(function.receipt_s)
        self.reply(413 if is_too_long else 202)


class Invocation:
    def __init__(self, event, timeout_s):
        self.id, self.event, self.timeout_s = str(uuid.uuid4()), event, timeout_s
        self.handed_out, self.ended = None, threading.Event()

    def done(self, end, body):
        self.took_s = time.monotonic() - self.handed_out
        self.end, self.body = end, body
        self.ended.set()


class Function:
    """`with Function(data) as function:` one execution environment, whose folder of data is `data`."""

    def __init__(self, data, models=MODELS, **settings):
        self.data, self.models = data, models
        self.env = environment(**(NO_LIMITS | settings))
        self.queue, self.pending = queue.Queue(), {}
        self.is_ready, self.extension_waits, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.extension = self.init_error = None
        self.receipt_s = 0  # until the process learns that its answer has come, which is there before

    def start(self):
        """Starts it, without waiting for anything."""
        self.api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self.api.daemon_threads, self.api.function = True, self
        threading.Thread(target=self.api.serve_forever, args=(0.02,), daemon=True).start()
        self.env["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self.api.server_port}"
        self.began = time.monotonic()
        self.child = subprocess.Popen(
            [BINARY, "lambda", "--data-dir", self.data, "--models", self.models],
            env=self.env,
            cwd=self.data.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self.reading = threading.Thread(target=lambda: self.lines.extend(self.child.stdout), daemon=True)
        self.reading.start()

    def wait_until_ready(self):
        """Until it asks for its first event; the seconds that took."""
        if not self.is_ready.wait(READY_S):
            raise AssertionError(f"it asks for no event; it said:\n{self.log()}")
        return time.monotonic() - self.began

    def __enter__(self):
        self.start()
        self.init_s = self.wait_until_ready()
        return self

    def invoke(self, event, timeout_s=10):
        """("response" or "error", what it said, seconds) for one event."""
        event = event if isinstance(event, bytes) else json.dumps(event).encode()
        invocation = Invocation(event, timeout_s)
        self.pending[invocation.id] = invocation
        self.queue.put(invocation)
        if not invocation.ended.wait(timeout_s):
            raise AssertionError(f"no answer within {timeout_s} s; it said:\n{self.log()}")
        return invocation.end, invocation.body, invocation.took_s

    def stop(self):
        """As Lambda ends it: SIGTERM. Exit code, and the seconds that took."""
        began = time.monotonic()
        self.child.terminate()
        try:
            self.exit_code = self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.exit_code = self.child.wait()
        self.end_s = time.monotonic() - began
        self.ended.set()
        self.queue.put(None)
        self.api.shutdown()
        self.api.server_close()
        self.reading.join(5)
        return self.exit_code, self.end_s

    def __exit__(self, *_):
        if not self.ended.is_set():
            self.stop()

    def log(self):
        return "".join(self.lines[-40:])


# The same request as each of them puts it into an event.


def http_api(method, path, query="", headers=(), body=b"", source="203.0.113.7"):
    """Of an HTTP API, or a function URL (payload format 2.0)."""
    joined = {}
    for name, value in headers:
        if name.lower() != "cookie":
            joined[name.lower()] = ",".join(filter(None, [joined.get(name.lower()), value]))
    cookies = [value for name, value in headers if name.lower() == "cookie"]
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "cookies": cookies,
        "headers": {"host": "functions.example.org", "x-forwarded-proto": "https"} | joined,
        "requestContext": {
            "domainName": "functions.example.org",
            "stage": "$default",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": source, "userAgent": "judge"},
        },
        **of_body(body),
    }


def http_api_in_a_stage(method, path, *arguments, **named):
    """The same in a stage that is not the default one, whose name is in front of the path."""
    event = http_api(method, f"/prod{path}", *arguments, **named)
    event["requestContext"]["stage"] = "prod"
    return event


def rest_api(method, path, query="", headers=(), body=b"", source="203.0.113.7"):
    """Of a REST API, in a stage, with the query decoded."""
    headers = [("Host", "functions.example.org"), ("X-Forwarded-Proto", "https"), *headers]
    pairs = parse_qsl(query, keep_blank_values=True)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": many(headers),
        "queryStringParameters": dict(pairs) or None,
        "multiValueQueryStringParameters": many(pairs) or None,
        "pathParameters": {"proxy": path[1:]},
        "stageVariables": None,
        "requestContext": {"stage": "prod", "path": f"/prod{path}", "identity": {"sourceIp": source}},
        **of_body(body),
    }


def balancer(method, path, query="", headers=(), body=b"", source="203.0.113.7", has_many=True):
    """Of a load balancer, with the query as the client wrote it."""
    headers = [
        ("host", "functions.example.org"),
        ("x-forwarded-for", f"198.51.100.1, {source}"),
        ("x-forwarded-proto", "https"),
        *((name.lower(), value) for name, value in headers),
    ]
    pairs = [tuple(pair.partition("=")[::2]) for pair in query.split("&") if pair]
    target = {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/auspex/6d0ecf831eec9f09"}
    said = {"headers": dict(headers), "queryStringParameters": dict(pairs)}
    if has_many:
        said = {"multiValueHeaders": many(headers), "multiValueQueryStringParameters": many(pairs)}
    return {"requestContext": {"elb": target}, "httpMethod": method, "path": path, **said, **of_body(body)}


def balancer_of_single_headers(*arguments, **named):
    return balancer(*arguments, has_many=False, **named)


FORMS = {
    "HTTP API": http_api,
    "HTTP API in a stage": http_api_in_a_stage,
    "REST API": rest_api,
    "load balancer": balancer,
    "load balancer of single headers": balancer_of_single_headers,
}


def many(pairs):
    found = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def of_body(body):
    if not body:
        return {"body": None, "isBase64Encoded": False}
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def as_http(answer):
    """(status, headers as pairs in lower case, body) of an answer in any form."""
    headers = [(name.lower(), value) for name, value in (answer.get("headers") or {}).items()]
    for name, values in (answer.get("multiValueHeaders") or {}).items():
        headers += [(name.lower(), value) for value in values]
    headers += [("set-cookie", value) for value in answer.get("cookies") or []]
    body = answer["body"]
    body = base64.b64decode(body) if answer["isBase64Encoded"] else body.encode()
    return answer["statusCode"], headers, body
