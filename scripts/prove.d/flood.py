"""Hostile connections by the thousand, while one well-behaved client must not notice.

Each attack runs for some seconds against a server whose time limits are shortened, so that it must
let go within the attack. The client predicts all the while on connections of its own, an old one it
keeps and new ones, and compares every answer. At the end memory must be within its bound, the
attackers' connections gone, and the server must stop cleanly.
"""

import asyncio
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from server import RECORDS, Server

CONNECTIONS = 4000
CONNECTIONS_MAX = 5000  # of the server
HEAD_S = 3
BODY_S = 3
IDLE_S = 3
LETS_GO_S = 12  # how long after its limit a connection may still be there
CLIENT_S = 5  # the longest the client waits for an answer
RSS_MAX_MB = 500
SEED = 7

SETTINGS = {
    "AUSPEX__SERVER__CONNECTIONS_MAX": str(CONNECTIONS_MAX),
    "AUSPEX__SERVER__HEAD_TIMEOUT_MS": str(HEAD_S * 1000),
    "AUSPEX__SERVER__BODY_TIMEOUT_MS": str(BODY_S * 1000),
    "AUSPEX__SERVER__IDLE_TIMEOUT_MS": str(IDLE_S * 1000),
    "AUSPEX__SERVER__REQUEST_TIMEOUT_MS": str(BODY_S * 1000),
    # All come from one address, the client too.
    "AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "1000000000",
    "AUSPEX__TELEMETRY__ACCESS_LOG": "off",
}

chance = random.Random(SEED)


class Client:
    """Asks again and again, on one kept connection and on a new one each time."""

    def __init__(self, server):
        self.server = server
        lines = (RECORDS / "records.jsonl").read_text().splitlines()
        self.bodies = [line.encode() for line in lines]
        self.expected = [json.loads(line) for line in (RECORDS / "expected.jsonl").read_text().splitlines()]
        self.answered = 0
        self.problems = []
        self.slowest = 0.0

    async def ask(self, reader, writer, number):
        body = self.bodies[number]
        head = (
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {self.server.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        length = next(
            int(line.split(b":")[1])
            for line in answer.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        text = await reader.readexactly(length)
        true(status == 200, f"status {status}: {text[:200]!r}")
        found, wanted = json.loads(text)["predictions"][0], self.expected[number]
        true(max(abs(f - w) for f, w in zip(found, wanted, strict=True)) <= 1e-6, "a wrong answer")

    async def work(self, until, kept):
        """Asks until the event `until` is set."""
        connection, number = None, 0
        while not until.is_set():
            began = time.monotonic()
            number = (number + 1) % len(self.bodies)
            try:
                async with asyncio.timeout(CLIENT_S):
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", self.server.port)
                    await self.ask(*connection, number)
                self.answered += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            except Exception as error:
                self.problems.append(f"{'kept' if kept else 'new'} connection: {type(error).__name__} {error}")
                kept_now = False
            else:
                kept_now = kept
            if connection and not kept_now:
                connection[1].close()
                connection = None
            await asyncio.sleep(0.02)
        if connection:
            connection[1].close()


async def connect(port):
    """A connection, or None where the server takes no more."""
    try:
        async with asyncio.timeout(20):
            return await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return None


async def until_closed(reader, longest_s):
    """What the server says until it closes the connection; None if it does not."""
    said = b""
    try:
        async with asyncio.timeout(longest_s):
            while part := await reader.read(65_536):
                said = (said + part)[:4096]
    except ConnectionError:
        pass
    except TimeoutError:
        return None
    return said


async def drip(writer, parts, pause_s):
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
    except ConnectionError:
        pass


async def slow_head(server):
    """A head that comes letter by letter"""
    return await attack(server, [b"GET /health HTTP/1.1\r\nHost: x\r\n"] + [b"X-A: b\r\n"] * 60, 0.5, HEAD_S)


async def silence(server):
    """Connections that say nothing"""
    return await attack(server, [], 0, HEAD_S)


async def half_body(server):
    """Half of a body, and then nothing"""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.key}\r\nContent-Length: 100000\r\n\r\n"
    return await attack(server, [head.encode() + b"[" * 50_000], 0, BODY_S)


async def slow_body(server):
    """A body that comes byte by byte"""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.key}\r\nContent-Length: 100000\r\n\r\n"
    return await attack(server, [head.encode()] + [b" "] * 60, 0.5, BODY_S)


async def anonymous_body(server):
    """Half of a body without a key, which is refused but read out a little"""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
    return await attack(server, [head + b"{" * 10_000], 0, BODY_S)


async def garbage(server):
    """Bytes that are no HTTP"""
    return await attack(server, [chance.randbytes(chance.randrange(1, 2000))], 0, HEAD_S)


async def torn_http2(server):
    """The preface of HTTP/2 and then garbage"""
    return await attack(server, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(500)], 0, HEAD_S)


async def endless_head(server):
    """A head without an end"""
    said = await attack(server, [b"GET / HTTP/1.1\r\n"] + [b"X-Long: " + b"a" * 8000 + b"\r\n"] * 32, 0, HEAD_S)
    true(said is None or not said or b" 431 " in said.split(b"\r\n")[0] + b" ", f"not 431: {said[:80]!r}")
    return said


async def silent_reader(server):
    """Requests by the hundred whose answers nobody reads"""
    request = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    connection = await connect(server.port)
    if connection is None:
        return None
    reader, writer = connection
    writer.transport.pause_reading()
    await drip(writer, [request * 20], HEAD_S)
    writer.transport.abort()
    return b""


async def hang_up(server):
    """Requests whose sender is gone before the answer"""
    request = f"POST /predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.key}\r\nContent-Length: 20\r\n\r\n"
    for _ in range(5):
        connection = await connect(server.port)
        if connection is not None:
            connection[1].write(request.encode() + b"{}" * chance.randrange(0, 10))
            await asyncio.sleep(chance.random() * 0.05)
            connection[1].transport.abort()
    return b""


async def attack(server, parts, pause_s, limit_s):
    """Sends `parts` and waits for the server to let go."""
    connection = await connect(server.port)
    if connection is None:
        return None
    reader, writer = connection
    dripping = asyncio.create_task(drip(writer, parts, pause_s))
    try:
        said = await until_closed(reader, limit_s + IDLE_S + LETS_GO_S)
        true(said is not None, f"still open {limit_s + IDLE_S + LETS_GO_S} s later")
        return said
    finally:
        dripping.cancel()
        writer.transport.abort()


ATTACKS = [
    (silence, CONNECTIONS),
    (slow_head, CONNECTIONS),
    (garbage, CONNECTIONS),
    (torn_http2, CONNECTIONS // 2),
    (endless_head, CONNECTIONS // 4),
    (half_body, CONNECTIONS // 2),
    (slow_body, CONNECTIONS // 2),
    (anonymous_body, CONNECTIONS // 2),
    (silent_reader, CONNECTIONS // 8),
    (hang_up, CONNECTIONS),
]


async def one_attack(server, function, connections):
    """All connections of one attack, begun within about two seconds, and the client beside them."""
    client, over = Client(server), asyncio.Event()
    workers = [asyncio.create_task(client.work(over, kept)) for kept in (True, True, False, False)]
    await asyncio.sleep(0.3)

    async def later(seconds):
        await asyncio.sleep(seconds)
        return await function(server)

    attackers = [asyncio.create_task(later(chance.random() * 2)) for _ in range(connections)]
    peak = 0.0
    while not all(task.done() for task in attackers):
        await asyncio.sleep(0.2)
        peak = max(peak, server.rss_mb())
    over.set()
    await asyncio.gather(*workers)
    errors = [str(task.exception()) for task in attackers if task.exception()]
    print(
        f"       {connections} connections, {client.answered} right answers meanwhile, the slowest after "
        f"{client.slowest * 1000:.0f} ms; {peak:.0f} MB at most"
    )
    true(not client.problems, f"the client had {len(client.problems)} problems: {client.problems[:3]}")
    true(client.answered >= 20, f"the client got only {client.answered} answers")
    true(not errors, f"{len(errors)} attackers were not let go: {errors[:3]}")
    true(peak <= RSS_MAX_MB, f"{peak:.0f} MB of memory, more than {RSS_MAX_MB}")


async def over_the_cap(server):
    """More connections than the server takes: those it has go on, and after them there is room again."""
    client, over = Client(server), asyncio.Event()
    workers = [asyncio.create_task(client.work(over, kept=True)) for _ in range(2)]
    await asyncio.sleep(0.3)
    tasks = [asyncio.create_task(connect(server.port)) for _ in range(CONNECTIONS_MAX + 500)]
    taken = [connection for connection in await asyncio.gather(*tasks) if connection]
    await asyncio.sleep(1)
    over.set()
    await asyncio.gather(*workers)
    for _, writer in taken:
        writer.transport.abort()
    print(f"       {len(taken)} connections, {client.answered} right answers meanwhile; {server.rss_mb():.0f} MB")
    true(not client.problems, f"{len(client.problems)} problems: {client.problems[:3]}")
    true(client.answered >= 20, f"only {client.answered} answers")


async def afterwards(server):
    """A minute later at most, nothing is left of it"""
    ends = time.monotonic() + 60
    while (left := len(os.listdir(f"/proc/{server.child.pid}/fd"))) > 200:
        true(time.monotonic() < ends, f"{left} descriptors are still open")
        await asyncio.sleep(0.5)
    client, over = Client(server), asyncio.Event()
    work = asyncio.create_task(client.work(over, kept=False))
    await asyncio.sleep(2)
    over.set()
    await work
    print(f"       {left} descriptors, {server.rss_mb():.0f} MB, {client.answered} right answers in 2 s")
    true(not client.problems and client.answered >= 20, f"{client.answered} answers, {client.problems[:3]}")


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + 1500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"this needs {wanted} open files (ulimit -n), and only {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    checks = Checks()
    with Server(**SETTINGS) as server:
        print(f"       {server.rss_mb():.0f} MB before")
        for function, connections in ATTACKS:
            checks.run(function.__doc__, asyncio.run, one_attack(server, function, connections))
        for function in (over_the_cap, afterwards):
            checks.run(function.__doc__, asyncio.run, function(server))
        checks.run("the server still runs", true, server.running(), "it has ended")
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
