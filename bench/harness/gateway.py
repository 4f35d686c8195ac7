"""The gateway under load, beside nginx and HAProxy, in front of one backend."""

import argparse
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

from . import servers, setup
from .nginx import nginx_command, program, version
from .paths import RESULTS, ROOT
from .process import ServerProcess
from .setup import SetupError, say

BODY = '{"id":7,"customer":"c-1042","state":"shipped","items":[{"sku":"A-1","count":2},{"sku":"B-7","count":1}],"total":"128.40"}'
PATH = "/orders/7"
MANY = 1000
"""Routes or endpoints of the variants that have many."""
USUAL_KEEPALIVE = 32
"""What nginx takes since 1.29.7 where nothing is set; before that none was kept."""
READY_S = 20
IDLE_CONNECTIONS = 1000
REQUESTS_RATIO_MIN = {32: 0.8, 256: 1.3}
P99_RATIO_MAX = 1.5
IDLE_KB_MAX = 16


class Failed(Exception):
    """A server did not do its part; the message says how."""


@dataclass
class Proxy:
    name: str
    title: str
    command: Callable
    """(port, folder, ports of the backend) -> list of arguments."""
    base: servers.Server | None = None
    endpoints: int = 1

    def environment(self):
        return self.base.environment() if self.base else {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def headers(self, folder):
        return self.base.headers(folder / "data") if self.base else {}


def options():
    parser = argparse.ArgumentParser(prog="bench/gateway", description="The gateway against nginx and HAProxy.")
    option = parser.add_argument
    option("--rounds", type=int, default=5)
    option("--seconds", type=float, default=5, help="per load; default 5")
    option("--connections", type=lambda text: [int(part) for part in text.split(",")], default=[1, 32, 256])
    option("--only", type=lambda text: text.split(","), default=None, metavar="A,B")
    option("--auspex", type=Path, metavar="BINARY", help="measure this one instead of building")
    return parser.parse_args()


# --- servers


NGINX_PROXY = """
    upstream orders {{
{servers}
        keepalive {keepalive};
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location /orders/ {{
            proxy_pass http://orders;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
"""

HAPROXY = """
global
    nbthread 2
    maxconn 8192
defaults
    mode http
    timeout connect 2s
    timeout client 300s
    timeout server 30s
    http-reuse always
    option forwardfor
frontend door
    bind 127.0.0.1:{port}
    default_backend orders
backend orders
    server one 127.0.0.1:{backend}
"""


def nginx(keepalive):
    """With so many connections at rest in each of its processes."""

    def command(port, folder, backends):
        listed = "\n".join(f"        server 127.0.0.1:{backend};" for backend in backends)
        kept = max(keepalive, len(backends))
        return nginx_command(folder, 2, NGINX_PROXY.format(port=port, servers=listed, keepalive=kept))

    return command


def haproxy(port, folder, backends):
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(port=port, backend=backends[0]))
    return [program("haproxy"), "-db", "-f", file]


def relay(binary):
    return lambda port, folder, backends: [binary, port, backends[0]]


def backend_command(folder, ports):
    listens = "".join(f"        listen 127.0.0.1:{port};\n" for port in ports)
    answer = f"        default_type application/json;\n        location / {{ return 200 '{BODY}'; }}\n"
    return nginx_command(folder, 1, f"    server {{\n{listens}{answer}    }}")


def auspex_command(base, routes=1):
    def command(port, folder, backends):
        data = folder / "data"
        data.mkdir(mode=0o700)
        lines = []
        for number in range(1, routes):
            lines.append(f'[[gateway.routes]]\npath = "/other{number}/{{*rest}}"\nservice = "orders"\nscopes = ["predict"]')
        limit = "rate_limit = { max = 1000000000, window_s = 60 }"
        lines.append(f'[[gateway.routes]]\npath = "/orders/{{*rest}}"\nservice = "orders"\nscopes = ["predict"]\n{limit}')
        urls = ", ".join(f'"http://127.0.0.1:{backend}"' for backend in backends)
        lines.append(f"[gateway.services.orders]\nendpoints = [{urls}]\n")
        file = folder / "auspex.toml"
        file.write_text("\n".join(lines))
        binary, serve, *rest = base.command(port, data)
        return [binary, "--config", file, serve, *rest]

    return command


def proxies(settings):
    base = servers.auspex(settings.auspex or setup.build_auspex())
    ours = Proxy("auspex", "Auspex, all layers on", auspex_command(base), base)
    nginx_title = f"nginx {version('nginx', '-v')}"
    theirs = Proxy("nginx", nginx_title, nginx(256))
    usual = Proxy("nginx-usual", f"{nginx_title}, keepalive {USUAL_KEEPALIVE}", nginx(USUAL_KEEPALIVE))
    known = [
        ours,
        theirs,
        usual,
        Proxy("haproxy", f"HAProxy {version('haproxy', '-v')}", haproxy),
        Proxy("relay", "bare hyper proxy", relay(setup.build_own("relay"))),
        replace(ours, name="auspex-routes", title=f"Auspex, {MANY:,} routes", command=auspex_command(base, MANY)),
        replace(ours, name="auspex-endpoints", title=f"Auspex, {MANY:,} endpoints", endpoints=MANY),
        replace(theirs, name="nginx-endpoints", title=f"nginx, {MANY:,} endpoints", endpoints=MANY),
    ]
    wanted = settings.only or [proxy.name for proxy in known]
    if unknown := set(wanted) - {proxy.name for proxy in known}:
        raise SetupError(f"unknown: {', '.join(unknown)}")
    return [proxy for proxy in known if proxy.name in wanted]


class Running:
    """A process that is asked until it answers."""

    def __init__(self, title, command, environment, folder, port, headers):
        RESULTS.mkdir(exist_ok=True)
        log = RESULTS / f"{title.split()[0].lower()}-gateway.log"
        self.title, self.port, self.folder, self._headers = title, port, folder, headers
        self.process = ServerProcess([str(part) for part in command], environment, ROOT, log)
        ends = time.monotonic() + READY_S
        while (problem := self._problem()) is not None:
            if time.monotonic() > ends or not self.process.running():
                self.process.stop()
                raise Failed(f"{title} did not start ({problem}); see {log}")
            time.sleep(0.05)

    def _problem(self):
        self.headers = self._headers()
        if self.headers is None:
            return "it has no key yet"
        try:
            status, body = self.ask()
        except OSError as error:
            return str(error)
        return None if (status, body) == (200, BODY) else f"{status} {body[:200]}"

    def ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", PATH, headers=self.headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()

    def load(self, loadgen, connections, seconds):
        requests = self.folder / "requests"
        requests.write_text(f"GET {PATH} \n")
        command = [
            *(loadgen, "--json", "--url", f"http://127.0.0.1:{self.port}/"),
            *("--requests", requests, "--contains", BODY, "--repeat"),
            *("--connections", connections, "--duration-s", seconds, "--warmup-s", 1),
        ]
        for name, value in self.headers.items():
            command += ["--header", f"{name}: {value}"]
        before = self.process.cpu_s()
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{self.title}: {done.stdout.strip()[:600]} {done.stderr.strip()[:600]}")
        found = json.loads(done.stdout)
        # The warm-up is short and not counted among the requests; its time is.
        cpu_us = (self.process.cpu_s() - before) * 1e6 / (found["requests_per_s"] * (seconds + 1))
        return {"rps": found["requests_per_s"], "p99": found["latency_us"]["p99"], "cpu_us": cpu_us}

    def idle_kb(self):
        """Memory of a connection that has asked once and waits."""
        self.process.settle()
        before = self.process.memory_mb()["pss"]
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()
        held = []
        try:
            for _ in range(IDLE_CONNECTIONS):
                one = socket.create_connection(("127.0.0.1", self.port), timeout=10)
                held.append(one)
                one.sendall(request)
                received = b""
                while BODY.encode() not in received:
                    received += one.recv(65536) or b"closed"
                    if b"closed" in received:
                        raise Failed(f"{self.title} closed an idle connection")
            self.process.settle()
            return (self.process.memory_mb()["pss"] - before) * 1e3 / IDLE_CONNECTIONS
        finally:
            for one in held:
                one.close()


def run(proxy, loadgen, backends, settings):
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, port = Path(name), servers.free_port()
        folder.chmod(0o755)
        command = proxy.command(port, folder, backends[: proxy.endpoints])
        with Running(proxy.title, command, proxy.environment(), folder, port, lambda: proxy.headers(folder)) as running:
            idle = running.idle_kb() if proxy.endpoints == 1 else 0
            found = {count: running.load(loadgen, count, settings.seconds) for count in settings.connections}
    for count, figures in found.items():
        say(f"  {proxy.title}: {count:4d} connections {figures['rps']:9,.0f} requests/s, p99 {figures['p99']:7,.0f} µs")
    return found, idle


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = options()
    try:
        loadgen = setup.build_own("loadgen")
        rounds = {proxy.name: (proxy, []) for proxy in proxies(settings)}
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            backends = free_ports(max(proxy.endpoints for proxy, _ in rounds.values()))
            command = backend_command(folder, backends)
            with Running("backend", command, {"PATH": "/usr/sbin:/usr/bin"}, folder, backends[0], dict):
                for number in range(settings.rounds):
                    say(f"round {number + 1} of {settings.rounds}")
                    for proxy, found in rounds.values():
                        found.append(run(proxy, loadgen, backends, settings))
    except (Failed, SetupError) as error:
        say(f"bench/gateway: {error}")
        return 1
    report(settings, rounds)
    return 0


def free_ports(count):
    """All of them at once, so that no two are the same."""
    held = []
    for _ in range(count):
        one = socket.socket()
        one.bind(("127.0.0.1", 0))
        held.append(one)
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def report(settings, rounds):
    def median(name, count, what):
        return statistics.median(found[count][what] for found, _ in rounds[name][1])

    counts = settings.connections
    print(f"\nmedians of {settings.rounds} interleaved rounds of {settings.seconds:g} s, every answer checked\n")
    print("| server | " + " | ".join(f"requests/s, {c} | p99 µs | CPU µs" for c in counts) + " | KB per idle connection |")
    print("|---|" + "---:|" * (3 * len(counts) + 1))
    for name, (proxy, found) in rounds.items():
        cells = []
        for count in counts:
            cells.append(f"{median(name, count, 'rps'):,.0f} | {median(name, count, 'p99'):,.0f} | {median(name, count, 'cpu_us'):.0f}")
        idle = statistics.median(idle for _, idle in found)
        print(f"| {proxy.title} | " + " | ".join(cells) + f" | {f'{idle:.1f}' if idle else ''} |")
    if not {"auspex", "nginx"} <= rounds.keys():
        return
    for name in [name for name in ("nginx", "nginx-usual") if name in rounds]:
        print(f"\nbeside {rounds[name][0].title}")
        for count in counts:
            ratio = median("auspex", count, "rps") / median(name, count, "rps")
            p99 = median("auspex", count, "p99") / median(name, count, "p99")
            least = REQUESTS_RATIO_MIN.get(count)
            wanted = f" (at least {least})" if least else ""
            print(f"{count} connections: {ratio:.2f} times its requests{wanted}, {p99:.2f} times its p99 (at most {P99_RATIO_MAX})")
    print()
    for name in ("auspex-routes", "auspex-endpoints"):
        if name in rounds:
            ratios = ", ".join(f"{median(name, c, 'rps') / median('auspex', c, 'rps'):.2f} at {c}" for c in counts)
            print(f"{rounds[name][0].title}: {ratios} times the requests of plain Auspex")
    if "relay" in rounds:
        for name in [name for name in ("nginx", "nginx-usual") if name in rounds]:
            ratios = ", ".join(f"{median('relay', c, 'rps') / median(name, c, 'rps'):.2f} at {c}" for c in counts)
            print(f"a bare hyper proxy: {ratios} times the requests of {rounds[name][0].title}")
    if "nginx-endpoints" in rounds:
        ratios = ", ".join(f"{median('nginx-endpoints', c, 'rps') / median('nginx', c, 'rps'):.2f} at {c}" for c in counts)
        print(f"nginx, {MANY:,} endpoints: {ratios} times the requests of nginx with one")
    idle = statistics.median(idle for _, idle in rounds["auspex"][1])
    print(f"an idle connection takes {idle:.1f} KB (at most {IDLE_KB_MAX})")


if __name__ == "__main__":
    sys.exit(main())
