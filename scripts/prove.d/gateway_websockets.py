"""Idle WebSockets through the gateway: what each costs in memory, and that all of them are there.

    gateway_websockets.py COUNT

The service sends back what comes. When all are open and silent the memory of the server is measured; then each
sends something and gets it back.
"""

import asyncio
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from server import Server

MB_MAX_EACH = 0.02  # 100 MB for 5,000
AT_ONCE = 64
OPEN_S = 120
SETTLE_S = 3
ECHO_S = 60
# Ours and those of the service are in one process.
SPARE_FILES = 256

AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
ASKED = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Service(asyncio.Protocol):
    """Agrees to WebSocket, then sends back what comes."""

    def connection_made(self, transport):
        self.transport, self.head = transport, b""

    def data_received(self, data):
        if self.head is None:
            self.transport.write(data)
            return
        self.head += data
        if self.head.endswith(b"\r\n\r\n"):
            self.head = None
            self.transport.write(AGREED)


class Client(asyncio.Protocol):
    """Asks for a WebSocket. `agreed` is the status line, `back` what came back of what was sent."""

    def __init__(self):
        self.agreed, self.back = (asyncio.get_running_loop().create_future() for _ in range(2))
        self.received = b""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(ASKED)

    def data_received(self, data):
        self.received += data
        if not self.agreed.done():
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if end:
                self.received = rest
                self.agreed.set_result(head.split(b"\r\n")[0])
        elif len(self.received) >= 5 and not self.back.done():
            self.back.set_result(self.received)

    def connection_lost(self, error):
        for waiting in (self.agreed, self.back):
            if not waiting.done():
                waiting.set_exception(error or ConnectionError("closed"))
                waiting.exception()  # it is looked at where it is awaited


async def open_all(port, count):
    loop, places = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)

    async def open_one():
        async with places:
            _, client = await loop.create_connection(Client, "127.0.0.1", port)
            line = await client.agreed
            equal(line, b"HTTP/1.1 101 Switching Protocols", "status line")
            return client

    return await asyncio.wait_for(asyncio.gather(*(open_one() for _ in range(count))), OPEN_S)


async def echo_all(clients):
    for client in clients:
        client.transport.write(b"hello")
    backs = await asyncio.wait_for(asyncio.gather(*(client.back for client in clients)), ECHO_S)
    equal(set(backs), {b"hello"}, "what came back")


def settings(port, count):
    return (
        f"[server]\nconnections_max = {2 * count + 1000}\n"
        f'[gateway.services.chat]\nendpoints = ["http://127.0.0.1:{port}"]\n'
        '[[gateway.routes]]\npath = "/chat"\nservice = "chat"\npublic = true\n'
    )


def check_memory(grown_mb, count):
    print(f"       {grown_mb:.1f} MB for {count} idle WebSockets: {grown_mb * 1e3 / count:.1f} KB each")
    true(grown_mb <= MB_MAX_EACH * count, f"more than {MB_MAX_EACH * count:.0f} MB")


async def prove(checks, count):
    loop = asyncio.get_running_loop()
    service = await loop.create_server(Service, "127.0.0.1", 0, backlog=1024)
    port = service.sockets[0].getsockname()[1]
    limits = {"AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "4000000000", "AUSPEX__TELEMETRY__ACCESS_LOG": "off"}
    with Server(settings(port, count), **limits) as server:
        # What is there once and for all is not counted.
        await echo_all(await open_all(server.port, 10))
        before = server.rss_mb()
        clients = await open_all(server.port, count)
        checks.run(f"{count} WebSockets are open", equal, len(clients), count, "WebSockets")
        await asyncio.sleep(SETTLE_S)
        checks.run("idle ones cost little memory", check_memory, server.rss_mb() - before, count)
        await echo_all(clients)
        checks.run("each still works", true, True, "")
        for client in clients:
            client.transport.close()
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    service.close()


def main():
    count = int(sys.argv[1])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + SPARE_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        raise SystemExit(f"the limit of open files is {most}, and this needs {wanted}; raise it with ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    checks = Checks()
    asyncio.run(prove(checks, count))
    checks.finish()


main()
