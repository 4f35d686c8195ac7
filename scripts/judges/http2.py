"""Judge: frames of HTTP/2 that a hostile client sends, made with hyperframe and hpack (PyPI).

A request that is malformed (RFC 9113, 8.1.1) must not reach the service behind the gateway, neither as one request
nor as two: what the service received is what counts. A connection that breaks the rules, or only
costs, is let go within bounds, and a client beside it notices nothing.
"""

import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from checks import Checks, equal, true
from server import Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER_S = 10
FLOOD = 20_000
MEMORY_MB_MAX = 100
"""More than before a flood, while it goes on."""
ANSWERS_MIN = 5
"""To a client beside a flood."""
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
COMPRESSION_ERROR = 9
HEAD_S = 3


class Backend:
    """A service of HTTP/1.1 that keeps every byte it gets."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.seen, self.lock = [], threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            while head := self._read_head(connection):
                fields = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if ": " in line)
                body = self._read_body(connection, fields)
                if body is None:
                    return
                if "/ok" not in head.split("\r\n")[0]:
                    with self.lock:
                        self.seen.append((head, body))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def _read_head(self, connection):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            if not byte:
                if head:
                    with self.lock:
                        self.seen.append((head.decode("latin-1"), "a torn head"))
                return None
            head += byte
        return head.decode("latin-1")

    def _read_body(self, connection, fields):
        """The whole body; None where it is cut off, as that of a request without an end must be."""
        stream = connection.makefile("rb", buffering=0)
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := stream.readline():
                length = int(size, 16)
                piece = b""
                while len(piece) < length + 2:
                    more = stream.read(length + 2 - len(piece))
                    if not more:
                        return None
                    piece += more
                body += piece[:-2]
                if length == 0:
                    return body
            return None
        left, body = int(fields.get("content-length", 0)), b""
        while len(body) < left:
            more = stream.read(left - len(body))
            if not more:
                return None
            body += more
        return body

    def taken(self):
        """What has come since the last time."""
        with self.lock:
            seen, self.seen = self.seen, []
        return seen


class Client:
    """A connection that sends frames as they are told, and collects what comes back."""

    def __init__(self, server, settings=None):
        self.server, self.encoder, self.decoder = server, Encoder(), Decoder()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_S)
        self.received, self.statuses, self.resets, self.went = b"", {}, {}, None
        self.ended, self.is_closed, self.settings_seen = set(), False, 0
        self.send(PREFACE, SettingsFrame(0, settings=settings or {}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        """False when the server has gone."""
        parts = [frame if isinstance(frame, bytes) else frame.serialize() for frame in frames]
        try:
            self.socket.sendall(b"".join(parts))
        except OSError:
            self.is_closed = True
        return not self.is_closed

    def head(self, fields, stream=1, end=True, whole=True):
        block = self.encoder.encode(fields)
        flags = ["END_HEADERS"] * whole + ["END_STREAM"] * end
        return HeadersFrame(stream, data=block, flags=flags)

    def request(self, path="/ok", method="GET", more=(), **options):
        fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)]
        fields += [("x-api-key", self.server.key), *more]
        return self.head(fields, **options)

    def listen(self, until, limit_s=ANSWER_S):
        """Reads frames until `until()`, the end of the connection or the end of the time."""
        ends = time.monotonic() + limit_s
        while not until() and not self.is_closed and time.monotonic() < ends:
            self.socket.settimeout(max(0.01, min(0.2, ends - time.monotonic())))
            try:
                received = self.socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                received = b""
            self.is_closed = not received
            self.received += received
            self._parse()
        return until()

    def _parse(self):
        while len(self.received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.received[:9]))
            if len(self.received) < 9 + length:
                return
            frame.parse_body(memoryview(self.received[9 : 9 + length]))
            self.received = self.received[9 + length :]
            self._note(frame)

    def _note(self, frame):
        if isinstance(frame, SettingsFrame):
            self.settings_seen += 1
            if "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, HeadersFrame):
            fields = dict(self.decoder.decode(frame.data))
            self.statuses[frame.stream_id] = int(fields[":status"])
        elif isinstance(frame, RstStreamFrame):
            self.resets[frame.stream_id] = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.went = frame.error_code
        if "END_STREAM" in frame.flags:
            self.ended.add(frame.stream_id)

    def is_over(self, stream=1):
        return stream in self.ended or stream in self.resets or self.went is not None


# --- requests that are malformed


def fields(**changed):
    found = {":method": "GET", ":scheme": "http", ":authority": "x", ":path": "/case"}
    return [(name, value) for name, value in (found | changed).items() if value is not None]


TAIL = "\r\nHost: x\r\n\r\nGET /smuggled HTTP/1.1\r\nX: "
MALFORMED = {
    "no :method": fields(**{":method": None}),
    "no :path": fields(**{":path": None}),
    "no :scheme": fields(**{":scheme": None}),
    "an empty :path": fields(**{":path": ""}),
    "a :path without a slash": fields(**{":path": "case"}),
    "two :path": [*fields(), (":path", "/case2")],
    "two :method": [*fields(), (":method", "POST")],
    "two :authority": [*fields(), (":authority", "y")],
    "an unknown pseudo-header": [*fields(), (":user", "admin")],
    "the pseudo-header of an answer": [*fields(), (":status", "200")],
    "a pseudo-header behind a header": [("a", "b"), *fields()],
    "a name in capitals": [*fields(), ("X-Name", "a")],
    "an empty name": [*fields(), ("", "a")],
    "a name with a colon": [*fields(), ("a:b", "c")],
    "a name with a blank": [*fields(), ("a b", "c")],
    "a name with a line end": [*fields(), ("a\r\nb", "c")],
    "a value with a line end": [*fields(), ("a", "b\r\nx-admin: 1")],
    "a value with a line feed": [*fields(), ("a", "b\nx-admin: 1")],
    "a value with a zero": [*fields(), ("a", "b\0c")],
    "a path with a request in it": fields(**{":path": f"/case HTTP/1.1{TAIL}"}),
    "a path with a blank": fields(**{":path": "/case x"}),
    "a method with a request in it": fields(**{":method": f"GET /case HTTP/1.1{TAIL}"}),
    "a method with a blank": fields(**{":method": "GET /other"}),
    "an authority with a request in it": fields(**{":authority": f"x{TAIL}"}),
    "an authority with a path": fields(**{":authority": "x/y"}),
    "an authority with a user": fields(**{":authority": "user@x"}),
    "a host that differs": [*fields(), ("host", "y")],
    "Connection": [*fields(), ("connection", "keep-alive")],
    "Keep-Alive": [*fields(), ("keep-alive", "timeout=5")],
    "Proxy-Connection": [*fields(), ("proxy-connection", "keep-alive")],
    "Transfer-Encoding": [*fields(), ("transfer-encoding", "chunked")],
    "Upgrade": [*fields(), ("upgrade", "websocket")],
    "TE other than trailers": [*fields(), ("te", "gzip")],
    "a Content-Length that is none": [*fields(), ("content-length", "+2")],
    "two Content-Length": [*fields(), ("content-length", "0"), ("content-length", "2")],
    "a scheme with a request in it": fields(**{":scheme": f"http://x/case HTTP/1.1{TAIL}"}),
    "CONNECT with a path": fields(**{":method": "CONNECT"}),
}


def refused(server, backend, sent):
    """Nothing of it reaches the service, and the connection or the stream ends."""
    with Client(server) as client:
        client.send(client.head([*sent, ("x-api-key", server.key)]))
        true(client.listen(client.is_over), "there is no end")
        equal(backend.taken(), [], "what reached the service")
        status = client.statuses.get(1)
        true(status is None or 400 <= status < 500, f"status {status}")


def body(server, backend, length, pieces):
    """A body whose length is not the stated one: the service gets nothing, or what was stated and not more."""
    with Client(server) as client:
        stated = [("content-length", str(length))]
        client.send(client.request("/case", "POST", stated, end=False))
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            client.send(DataFrame(1, data=piece, flags=["END_STREAM"] * last))
        true(client.listen(client.is_over), "there is no end")
        time.sleep(0.1)
        # What came first may have gone on before the rest was there.
        stated = b"".join(pieces)[:length]
        seen = [sent for _, sent in backend.taken()]
        true(seen in ([], [stated]) and (not seen or len(stated) == length), f"the service has got {seen}")


def reaches_as_one(server, backend):
    """A proper request reaches the service as one, without what belongs to HTTP/2"""
    with Client(server) as client:
        cookies = [("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers"), ("x-name", "v")]
        client.send(client.request("/case", "POST", cookies, end=False))
        client.send(DataFrame(1, data=b"GET /smuggled HTTP/1.1\r\n\r\n", flags=["END_STREAM"]))
        true(client.listen(client.is_over), "there is no end")
        equal(client.statuses, {1: 200}, "status")
        [(head, sent)] = backend.taken()
        equal(sent, b"GET /smuggled HTTP/1.1\r\n\r\n", "the body")
        equal(head.split("\r\n")[0], "POST /case HTTP/1.1", "the first line")
        true("x-name: v" in head.lower() and "\n:" not in head and "x-api-key" not in head.lower(), head)


# --- connections that break the rules


def bare(kind, flags, stream, payload=b"", length=None):
    """A frame as no library makes it."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
BROKEN = {
    "DATA on an idle stream": (lambda client: [bare(DATA, 0, 5, b"x")], {PROTOCOL_ERROR, STREAM_CLOSED}),
    "DATA on stream 0": (lambda client: [bare(DATA, 0, 0, b"x")], {PROTOCOL_ERROR}),
    "HEADERS on stream 0": (lambda client: [bare(HEADERS, 4, 0, b"\x82")], {PROTOCOL_ERROR}),
    "HEADERS on an even stream": (lambda client: [client.request(stream=2)], {PROTOCOL_ERROR}),
    "a stream that was passed over": (
        lambda client: [client.request(stream=5), client.request(stream=3)],
        {PROTOCOL_ERROR, STREAM_CLOSED},
    ),
    "a frame that is too long": (lambda client: [bare(DATA, 0, 1, b"", 1 << 20), bytes(1 << 15)], {FRAME_SIZE_ERROR}),
    "a PING of 7 bytes": (lambda client: [bare(PING, 0, 0, bytes(7))], {FRAME_SIZE_ERROR}),
    "a PING on a stream": (lambda client: [bare(PING, 0, 1, bytes(8))], {PROTOCOL_ERROR}),
    "SETTINGS on a stream": (lambda client: [bare(SETTINGS, 0, 1)], {PROTOCOL_ERROR}),
    "SETTINGS of 5 bytes": (lambda client: [bare(SETTINGS, 0, 0, bytes(5))], {FRAME_SIZE_ERROR}),
    "an acknowledgement of SETTINGS with a body": (lambda client: [bare(SETTINGS, 1, 0, bytes(6))], {FRAME_SIZE_ERROR}),
    "ENABLE_PUSH of 2": (lambda client: [SettingsFrame(0, settings={2: 2})], {PROTOCOL_ERROR}),
    "a window beyond 2^31": (lambda client: [SettingsFrame(0, settings={4: 1 << 31})], {FLOW_CONTROL_ERROR}),
    "a maximal frame size below 2^14": (lambda client: [SettingsFrame(0, settings={5: 100})], {PROTOCOL_ERROR}),
    "WINDOW_UPDATE of 0 on the connection": (lambda client: [bare(WINDOW, 0, 0, bytes(4))], {PROTOCOL_ERROR}),
    "a connection's window that overflows": (
        lambda client: [bare(WINDOW, 0, 0, struct.pack(">I", (1 << 31) - 1))] * 2,
        {FLOW_CONTROL_ERROR},
    ),
    "WINDOW_UPDATE on an idle stream": (
        lambda client: [bare(WINDOW, 0, 7, struct.pack(">I", 1))],
        {PROTOCOL_ERROR},
    ),
    "RST_STREAM on an idle stream": (lambda client: [RstStreamFrame(9, 8)], {PROTOCOL_ERROR}),
    "RST_STREAM of 3 bytes": (lambda client: [client.request(), bare(RST, 0, 1, bytes(3))], {FRAME_SIZE_ERROR}),
    "PUSH_PROMISE of a client": (lambda client: [client.request(), bare(PUSH, 4, 1, bytes(4))], {PROTOCOL_ERROR}),
    "CONTINUATION without HEADERS": (lambda client: [bare(CONTINUATION, 4, 1, b"\x82")], {PROTOCOL_ERROR}),
    "another frame between HEADERS and CONTINUATION": (
        lambda client: [client.request(whole=False), PingFrame(0, opaque_data=b"8 bytes.")],
        {PROTOCOL_ERROR},
    ),
    "CONTINUATION of another stream": (
        lambda client: [client.request(whole=False), ContinuationFrame(3, data=b"", flags=["END_HEADERS"])],
        {PROTOCOL_ERROR},
    ),
    "padding that is longer than its frame": (lambda client: [bare(HEADERS, 0x0D, 1, b"\xff\x82")], {PROTOCOL_ERROR}),
    "an index of HPACK that is none": (lambda client: [bare(HEADERS, 5, 1, b"\xff\xff\x7f")], {COMPRESSION_ERROR}),
    "a table of HPACK that is too large": (
        lambda client: [bare(HEADERS, 5, 1, b"\x3f\xe1\xff\xff\x7f")],
        {COMPRESSION_ERROR},
    ),
    "text of HPACK that is cut off": (lambda client: [bare(HEADERS, 5, 1, b"\x00\x0aabc")], {COMPRESSION_ERROR}),
    "a Huffman code that is none": (
        lambda client: [bare(HEADERS, 5, 1, b"\x00\x84\xff\xff\xff\xff\x01a")],
        {COMPRESSION_ERROR},
    ),
}


def broken(server, backend, frames, codes):
    """The connection ends with one of these codes."""
    with Client(server) as client:
        client.listen(lambda: client.settings_seen > 1, 5)
        client.send(*frames(client))
        true(client.listen(lambda: client.went is not None or client.is_closed), "the connection is still there")
        # The library of the server names no other code for what a frame or a header block got wrong.
        allowed = codes | {PROTOCOL_ERROR}
        true(client.went is None or client.went in allowed, f"GOAWAY with {client.went} instead of {allowed}")
        seen = [head for head, _ in backend.taken() if "/ok" not in head]
        equal(seen, [], "what reached the service")


def starts_otherwise(server, backend):
    """A preface that goes on with anything but SETTINGS, and no request"""
    with socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_S) as connection:
        connection.sendall(PREFACE + PingFrame(0, opaque_data=b"8 bytes.").serialize())
        while connection.recv(65536):
            pass


# --- floods


class Beside:
    """A client that asks on a connection of its own while something goes on."""

    def __init__(self, server):
        self.server, self.stop, self.problems, self.answered = server, threading.Event(), [], 0
        self.before, self.most = server.rss_mb(), 0

    def __enter__(self):
        self.worker = threading.Thread(target=self._work, daemon=True)
        self.worker.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.worker.join()

    def _work(self):
        with Client(self.server) as client:
            stream = 1
            while not self.stop.wait(0.02):
                client.send(client.request(stream=stream))
                if not client.listen(lambda at=stream: client.is_over(at)) or client.statuses.get(stream) != 200:
                    self.problems.append((client.statuses.get(stream), client.resets.get(stream), client.went))
                    return
                self.answered, stream = self.answered + 1, stream + 2
                self.most = max(self.most, self.server.rss_mb())

    def check(self):
        print(f"       {self.answered} answers beside it, {self.before:.0f} MB before and {self.most:.0f} MB at most")
        equal(self.problems, [], "problems of the client beside it")
        true(self.answered >= ANSWERS_MIN, f"only {self.answered} answers")
        true(self.most <= self.before + MEMORY_MB_MAX, "memory")


def rapid_reset(client):
    """20,000 requests, each reset at once (CVE-2023-44487)"""
    for stream in range(1, 2 * FLOOD, 2):
        if not client.send(client.request(stream=stream), RstStreamFrame(stream, 8)):
            return


def endless_head(client):
    """CONTINUATION without end (CVE-2024-27316)"""
    client.send(client.request(whole=False))
    piece = client.encoder.encode([(f"x-{number}", "a" * 100) for number in range(100)])[:16000]
    for _ in range(4000):
        if not client.send(ContinuationFrame(1, data=piece)):
            return


def endless_empty_head(client):
    """CONTINUATION frames without a byte"""
    client.send(client.request(whole=False))
    for _ in range(FLOOD):
        if not client.send(ContinuationFrame(1, data=b"")):
            return


def bomb(client):
    """One long header in HPACK's table, named thousands of times"""
    client.send(client.request(more=[("x-long", "a" * 3900)]))
    for stream in range(3, 403, 2):
        block = client.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/ok")])
        # 62 is the entry that was added last.
        frame = HeadersFrame(stream, data=block + b"\xbe" * 12_000, flags=["END_HEADERS", "END_STREAM"])
        if not client.send(frame):
            return


def settings_flood(client):
    """SETTINGS that nobody reads the acknowledgements of"""
    for _ in range(FLOOD):
        if not client.send(SettingsFrame(0, settings={4: 65_535})):
            return


def ping_flood(client):
    """PING that nobody reads the answers of"""
    for _ in range(FLOOD):
        if not client.send(PingFrame(0, opaque_data=b"8 bytes.")):
            return


def priority_flood(client):
    """PRIORITY of streams that do not exist"""
    for stream in range(1, 2 * FLOOD, 2):
        if not client.send(PriorityFrame(stream, depends_on=0, stream_weight=1)):
            return


def empty_data(client):
    """DATA without a byte and without end"""
    client.send(client.request("/case", "POST", end=False))
    for _ in range(FLOOD):
        if not client.send(DataFrame(1, data=b"")):
            return


def no_window(client):
    """Requests for answers that have no room to be sent"""
    client.send(SettingsFrame(0, settings={4: 0}))
    for stream in range(1, 2 * 1000, 2):
        if not client.send(client.request(stream=stream)):
            return
    time.sleep(2)


def many_streams(client):
    """More requests at once than were allowed"""
    for stream in range(1, 2 * 5000, 2):
        if not client.send(client.request("/case", "POST", stream=stream, end=False)):
            return
    time.sleep(1)


FLOODS = [
    *(rapid_reset, endless_head, endless_empty_head, bomb, settings_flood, ping_flood, priority_flood),
    *(empty_data, no_window, many_streams),
]


def flood(server, backend, attack):
    """Whatever becomes of the flood, a client beside it is served, and memory has a bound."""
    with Beside(server) as beside, Client(server) as client:
        began = time.monotonic()
        client.socket.settimeout(1)
        attack(client)
        while (lasted := time.monotonic() - began) < 1 or (beside.answered < ANSWERS_MIN and lasted < 10):
            time.sleep(0.1)
    end = "was closed" if client.is_closed else "was taken"
    print(f"       the flood {end} after {time.monotonic() - began:.1f} s")
    beside.check()
    backend.taken()


def early_answer():
    """An answer that its service gives before the end of the body is seen, as curl reads it"""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            connection, _ = listener.accept()
            connection.recv(1024)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
            time.sleep(0.2)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    config = (
        f'[gateway.services.early]\nendpoints = ["http://127.0.0.1:{listener.getsockname()[1]}"]\n'
        '[[gateway.routes]]\npath = "/early"\nservice = "early"\npublic = true\n'
    )
    ask = ["curl", "--silent", "--http2-prior-knowledge", "--data-binary", "@-", "--write-out", " %{http_code}"]
    with Server(config) as server:
        sent = subprocess.run([*ask, f"{server.url}/early"], input=bytes(3_000_000), capture_output=True, timeout=60)
    equal(sent.stdout, b"big 413", f"the answer, with exit code {sent.returncode}")


def main():
    checks, backend = Checks(), Backend()
    config = (
        f'[gateway.services.orders]\nendpoints = ["http://127.0.0.1:{backend.port}"]\n'
        'retry = { retries_max = 0 }\ncircuit_breaker = { failure_threshold = 1000000, failure_percent = 100 }\n'
    )
    for path in ("/ok", "/case", "/case2", "/other", "/smuggled"):
        config += f'[[gateway.routes]]\npath = "{path}"\nservice = "orders"\nscopes = []\n'
    bounds = {"AUSPEX__SERVER__HEAD_TIMEOUT_MS": str(HEAD_S * 1000), "AUSPEX__TELEMETRY__ACCESS_LOG": "off"}
    with Server(config, **bounds) as server:
        checks.run(reaches_as_one.__doc__, reaches_as_one, server, backend)
        for name, sent in MALFORMED.items():
            checks.run(f"refused: {name}", refused, server, backend, sent)
        for name, length, pieces in (
            ("a body longer than it says", 2, [b"abcd"]),
            ("a body longer than it says, in pieces", 2, [b"ab", b"cd"]),
            ("a body shorter than it says", 6, [b"abcd"]),
            ("a body where none is stated", 0, [b"GET /smuggled HTTP/1.1\r\n\r\n"]),
        ):
            checks.run(f"refused: {name}", body, server, backend, length, pieces)
        for name, (frames, codes) in BROKEN.items():
            checks.run(f"ended: {name}", broken, server, backend, frames, codes)
        checks.run(f"ended: {starts_otherwise.__doc__}", starts_otherwise, server, backend)
        for attack in FLOODS:
            checks.run(f"stood: {attack.__doc__}", flood, server, backend, attack)
        checks.run("the server still runs", true, server.running(), "it has ended")
    checks.run(early_answer.__doc__, early_answer)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    equal(len(MALFORMED) + 4 + len(BROKEN) + 1 + len(FLOODS), 80, "cases")
    checks.finish()


main()
