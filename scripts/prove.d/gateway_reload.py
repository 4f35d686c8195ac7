"""Settings of the gateway replaced again and again under traffic: no failed request, flat memory.

    gateway_reload.py COUNT

Each replacement moves the service to the other of two servers and has a route of its own, so that it can be
seen when it is in force. One in ten is broken first, and what was in force must stay.
"""

import http.client
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from memory import Memory
from server import Server

CLIENTS = 4
IN_FORCE_S = 20


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def backend():
    server = QuietServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def settings(ports, turn):
    route = '[[gateway.routes]]\npath = "{}"\nservice = "orders"\npublic = true\n'
    service = f'[gateway.services.orders]\nendpoints = ["http://127.0.0.1:{ports[turn % 2]}"]\n'
    return service + route.format("/orders") + route.format(f"/turn{turn % 2}")


def replace(server, text):
    hidden = server.folder / "auspex.new"
    hidden.write_text(text)
    hidden.rename(server.folder / "auspex.toml")
    os.kill(server.child.pid, signal.SIGHUP)


def status(connection, path):
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


class Traffic:
    """Clients that ask without a pause, each over a connection of its own."""

    def __init__(self, port):
        self.port, self.asked, self.wrong = port, [0] * CLIENTS, []
        self.stop = threading.Event()

    def __enter__(self):
        self.clients = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(CLIENTS)]
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for client in self.clients:
            client.join()

    def _ask(self, place):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stop.is_set():
            try:
                found = status(connection, "/orders")
            except (OSError, http.client.HTTPException) as error:
                found = repr(error)
                connection.close()
            if found != 200:
                self.wrong.append(found)
            self.asked[place] += 1


def replace_all(server, ports, count):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for turn in range(1, count + 1):
        if turn % 10 == 0:
            replace(server, "[gateway")
            equal(status(connection, "/orders"), 200, "what was in force")
        replace(server, settings(ports, turn))
        ends = time.monotonic() + IN_FORCE_S
        while status(connection, f"/turn{turn % 2}") != 200:
            true(time.monotonic() < ends, f"replacement {turn} was not in force within {IN_FORCE_S} s")
        if turn % 100 == 0:
            print(f"{turn:6d} replaced  {server.rss_mb():7.1f} MB", flush=True)


def main():
    count = int(sys.argv[1])
    checks, ports = Checks(), [backend(), backend()]
    limits = {
        "AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "4000000000",
        "AUSPEX__TELEMETRY__ACCESS_LOG": "off",
    }
    with Server(settings(ports, 0), **limits) as server:
        with Memory(server) as memory, Traffic(server.port) as traffic:
            checks.run(f"the settings were replaced {count} times", replace_all, server, ports, count)
        print(f"       {sum(traffic.asked)} requests meanwhile")
        checks.run("no request failed", equal, traffic.wrong[:5], [], "answers")
        checks.run("every client asked", true, min(traffic.asked) > count, "some client hardly asked")
        checks.run("memory did not grow", memory.check)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
