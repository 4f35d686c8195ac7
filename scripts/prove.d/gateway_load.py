"""What the gateway stands: bodies of a gigabyte in constant memory, slow clients by the hundred
(slowhttptest), HTTP/2 with many streams (h2load), and a client that works on beside them.

    gateway_load.py

slowhttptest and h2load (nghttp2-client) are Debian packages.
"""

import http.client
import http.server
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from server import Server

GIGABYTE = 1 << 30
PIECE = b"\x5a" * (1 << 20)
GROWTH_MB_MAX = 16
SLOW_CLIENTS = 500
SLOW_S = 25
CLIENT_S = 3
"""The longest that the client beside a flood waits for an answer."""
H2_REQUESTS = 50_000


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/big/download":
            self.send_response(200)
            self.send_header("Content-Length", str(GIGABYTE))
            self.end_headers()
            for _ in range(GIGABYTE // len(PIECE)):
                self.wfile.write(PIECE)
            return
        self.answer(b"ok")

    def do_PUT(self):
        left, seen, is_right = self.length(), 0, True
        while part := self.rfile.read(min(left - seen, len(PIECE))):
            seen += len(part)
            is_right = is_right and part.count(b"\x5a") == len(part)
        self.answer(f"{seen} {is_right}".encode())

    def length(self):
        return int(self.headers["Content-Length"])

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """A client that has left is no news."""


def backend():
    server = QuietServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Peak:
    """The most memory that the server had meanwhile."""

    def __init__(self, server):
        self.server, self.most, self.stop = server, 0.0, threading.Event()

    def __enter__(self):
        self.before = self.server.rss_mb()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.watcher.join()

    def _watch(self):
        while not self.stop.wait(0.05):
            self.most = max(self.most, self.server.rss_mb())

    def check(self):
        print(f"       {self.before:.0f} MB before, {self.most:.0f} MB at most")
        true(self.most - self.before <= GROWTH_MB_MAX, f"memory grew by {self.most - self.before:.0f} MB")


class Client:
    """Asks for a small thing again and again."""

    def __init__(self, server):
        self.server, self.answered, self.slowest, self.wrong = server, 0, 0.0, []
        self.stop = threading.Event()

    def __enter__(self):
        self.worker = threading.Thread(target=self._work, daemon=True)
        self.worker.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.worker.join()

    def _work(self):
        while not self.stop.wait(0.02):
            began = time.monotonic()
            try:
                status, body = ask(self.server, "GET", "/big/small", timeout=CLIENT_S)
            except (OSError, http.client.HTTPException) as error:
                status, body = 0, repr(error)
            if (status, body) != (200, b"ok"):
                self.wrong.append((status, body))
            self.answered += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def check(self):
        print(f"       {self.answered} right answers meanwhile, the slowest after {self.slowest * 1e3:.0f} ms")
        true(not self.wrong, f"{len(self.wrong)} wrong answers: {self.wrong[:3]}")
        true(self.answered >= 20, f"only {self.answered} answers")


def ask(server, method, path, body=None, headers={}, timeout=120):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def upload(server):
    """A gigabyte goes up in constant memory"""
    pieces = (PIECE for _ in range(GIGABYTE // len(PIECE)))
    began = time.monotonic()
    with Peak(server) as peak:
        found = ask(server, "PUT", "/big/upload", pieces, {"Content-Length": str(GIGABYTE)})
    print(f"       {GIGABYTE / 1e6 / (time.monotonic() - began):.0f} MB/s")
    equal(found, (200, f"{GIGABYTE} True".encode()), "what the service saw")
    peak.check()


def download(server):
    """A gigabyte comes down in constant memory"""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(b"GET /big/download HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    seen, began = 0, time.monotonic()
    with Peak(server) as peak, connection:
        while part := connection.recv(1 << 20):
            seen += part.count(b"\x5a")
    print(f"       {seen / 1e6 / (time.monotonic() - began):.0f} MB/s")
    # A head may hold the letter too.
    true(GIGABYTE <= seen <= GIGABYTE + 50, f"{seen} bytes came")
    peak.check()


def stalled_download(server):
    """A reader who stalls makes the gateway hold next to nothing"""
    with socket.socket() as connection, Peak(server) as peak:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /big/download HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(3)
    peak.check()


SLOW = {
    "slow heads (slowloris)": ["-H"],
    "slow bodies": ["-B", "-t", "PUT"],
    "slow readers": ["-X", "-w", "32", "-y", "64", "-n", "5", "-z", "8"],
}


def slow(server, options):
    folder = Path(tempfile.mkdtemp(prefix="slow-"))
    try:
        command = [
            *(program("slowhttptest", "slowhttptest"), *options, "-c", SLOW_CLIENTS, "-r", 200, "-i", 2),
            *("-l", SLOW_S, "-p", CLIENT_S, "-u", f"http://127.0.0.1:{server.port}/big/small"),
        ]
        with Client(server) as client:
            done = subprocess.run(
                [str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=SLOW_S * 4
            )
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        available = re.findall(r"service available:\s+(\w+)", text)
        print(f"       {SLOW_CLIENTS} connections; slowhttptest found the service available {available.count('YES')} "
              f"times of {len(available)}")  # fmt: skip
        true(available and "NO" not in available, "slowhttptest found the service away")
        client.check()
    finally:
        shutil.rmtree(folder)


def http2(server):
    """HTTP/2 to the gateway: 20 streams on each of 5 connections"""
    h2load(server, "/big/small", 5, 20)


def http2_itself(server):
    """HTTP/2 to the server itself: 100 streams on each of 20 connections"""
    h2load(server, "/health/live", 20, 100)


def h2load(server, path, connections, streams):
    command = [
        *(program("h2load", "nghttp2-client"), "-n", H2_REQUESTS, "-c", connections, "-m", streams, "-t", 1),
        f"http://127.0.0.1:{server.port}{path}",
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    line = next((line for line in done.stdout.splitlines() if line.startswith("requests:")), done.stderr[:300])
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    print(f"       {line}; {rate[1] if rate else '?'} requests/s")
    true(f"{H2_REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in line, line)


def program(name, package):
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing: apt-get install {package}")
    return found


def main():
    settings = (
        f'[gateway.services.big]\nendpoints = ["http://127.0.0.1:{backend()}"]\n'
        '[[gateway.routes]]\npath = "/big/{*rest}"\nservice = "big"\npublic = true\n'
    )
    times = {
        "AUSPEX__SERVER__HEAD_TIMEOUT_MS": "5000",
        "AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "4000000000",
        "AUSPEX__TELEMETRY__ACCESS_LOG": "off",
    }
    checks = Checks()
    with Server(settings, **times) as server:
        # What the first requests make it load is not what is measured.
        for _ in range(50):
            ask(server, "PUT", "/big/upload", PIECE)
        checks.run_all([upload, download, stalled_download], server)
        for name, options in SLOW.items():
            checks.run(name, slow, server, options)
        checks.run_all([http2, http2_itself], server)
        checks.run("the server still runs", true, server.running(), "it has ended")
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
