"""Dialogues under load: texts, consents, and what was allowed read again."""

import argparse
import http.client
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import servers, setup
from .paths import PEERS, RESULTS, ROOT
from .process import ServerProcess
from .setup import SetupError, say

TEXTS_PER_DIALOGUE = 20
TEXTS_OF_MANY = 200
"""In each dialogue of a large database, which is filled faster like that."""
WORDS = "the order did not arrive and my account shows another address than the one that i gave you".split()
LANGUAGES = ("de", "en", "es", "pt-BR")
RARE = "is"
AT_ONCE = 64
"""Dialogues whose texts come in turn, as those of many customers do."""
READY_S = 60
LOAD_S_MAX = 1200
PAGE_ROUNDS = 200


class Failed(Exception):
    """A server did not do its part; the message says how."""


def options():
    parser = argparse.ArgumentParser(prog="bench/dialogues", description="Dialogues against a peer.")
    option = parser.add_argument
    option("--rounds", type=int, default=3)
    option("--dialogues", type=int, default=10_000, help="of 20 texts, in each round; the peer gets a tenth")
    option("--connections", type=int, default=32)
    option("--auspex", type=Path, metavar="BINARY", help="measure this one instead of building")
    option("--many", type=int, default=0, metavar="TEXTS", help="measure a first page at so many texts too, and at 5,000")
    return parser.parse_args()


# --- what is sent


def dialogues(count, first=0):
    """[(customer, dialogue)]; each customer has two of them."""
    return [(f"customer-{number // 2}", f"dialogue-{number}") for number in range(first, first + count)]


def text(chance):
    return " ".join(chance.choices(WORDS, k=16))


def pushes(pairs, seed, language=None, texts=TEXTS_PER_DIALOGUE):
    """The lines that hand in the texts of these dialogues, and the bytes of texts and names in them."""
    chance, held = random.Random(seed), 0
    for block in (pairs[begin : begin + AT_ONCE] for begin in range(0, len(pairs), AT_ONCE)):
        for _ in range(texts):
            for customer, dialogue in block:
                words = text(chance)
                held += len(words)
                body = {"text": words, "language": language or chance.choice(LANGUAGES)}
                yield f"POST /data/{customer}/{dialogue} {json.dumps(body)}", held
        held += sum(len(customer) + len(dialogue) for customer, dialogue in block)


def consents(pairs):
    return (f"POST /consents/{dialogue} true" for _, dialogue in pairs)


# --- servers


def flask(programs):
    return servers.Server(
        name="flask-dialogues",
        title="Flask + gunicorn + SQLite",
        packages=("Flask", "gunicorn"),
        command=lambda port, data: [
            *(programs / "gunicorn", "flask_dialogues:app", "--bind", f"127.0.0.1:{port}"),
            *("--workers", "1", "--worker-class", "gthread", "--threads", "8"),
            *("--log-level", "warning", "--env", f"DIALOGUES_DATABASE={data}/dialogues.db"),
        ],
        cwd=PEERS,
    )


def echo():
    binary = Path(setup.build_own("echo"))
    command = lambda port, data: [binary, str(port)]  # noqa: E731
    return servers.Server(name="echo", title="axum echo", packages=(), command=command, cwd=ROOT)


class Running:
    """A server on an empty folder, asked until it answers at all."""

    def __init__(self, server, loadgen, connections):
        self.server, self.loadgen, self.connections = server, loadgen, connections

    def __enter__(self):
        RESULTS.mkdir(exist_ok=True)
        self.temporary = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self.temporary.name)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        self.port = servers.free_port()
        command = [str(part) for part in self.server.command(self.port, data)]
        log = RESULTS / f"{self.server.name}.log"
        self.process = ServerProcess(command, self.server.environment(), self.server.cwd, log)
        ends = time.monotonic() + READY_S
        while not self._answers(data):
            if time.monotonic() > ends or not self.process.running():
                self.__exit__()
                raise Failed(f"{self.server.title} did not start; see {log}")
            time.sleep(0.05)
        self.process.settle()
        return self

    def _answers(self, data):
        self.headers = self.server.headers(data)
        try:
            return self.headers is not None and self.ask("GET", "/")[0] > 0
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.stop()
        self.temporary.cleanup()

    def ask(self, method, path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers=self.headers | headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def drive(self, lines, contains):
        """Sends each line once over all connections; what the load generator found."""
        requests = self.folder / "requests"
        with open(requests, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
        command = [
            *(self.loadgen, "--json", "--url", f"http://127.0.0.1:{self.port}/"),
            *("--requests", requests, "--contains", contains),
            *("--connections", self.connections, "--duration-s", LOAD_S_MAX),
        ]
        for name, value in self.headers.items():
            command += ["--header", f"{name}: {value}"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{self.server.title}: {done.stdout.strip()[:600]} {done.stderr.strip()[:600]}")
        return json.loads(done.stdout)


# --- what is measured


def measure(running, pairs, seed):
    """Texts and consents per second, and what the buffer weighs between them."""
    title, found, held = running.server.title, {}, 0
    lines, bytes_held = zip(*pushes(pairs, seed), strict=True)
    held = bytes_held[-1]
    before = running.process.memory_mb()["rss"]
    contains = '"text"' if running.server.name == "echo" else "pending"
    report = running.drive(lines, contains)
    found["texts_per_s"] = report["requests_per_s"]
    found["buffer_ratio"] = (running.process.memory_mb()["rss"] - before) * 1e6 / held
    say(f"  {title}: {report['requests_per_s']:,.0f} texts/s, p99 {report['latency_us']['p99']} µs")
    if running.server.name == "echo":
        return found
    report = running.drive(consents(pairs), f'"texts":{TEXTS_PER_DIALOGUE}')
    found["consents_per_s"] = report["requests_per_s"]
    say(f"  {title}: {report['requests_per_s']:,.0f} consents/s, p99 {report['latency_us']['p99']} µs")
    return found


def export(running, texts):
    """Texts per second, decrypted, as curl reads them all as lines of JSON: Python would be slower than the server."""
    exported = running.folder / "exported"
    command = ["curl", "--silent", "--show-error", "--fail", "--output", exported]
    for name, value in running.headers.items():
        command += ["--header", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{running.port}/v1/messages?format=ndjson")
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_S_MAX)
    took_s = time.monotonic() - began
    with open(exported, "rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if done.returncode != 0 or lines != texts:
        raise Failed(f"an export has {lines} lines instead of {texts}; {done.stderr.strip()}")
    return lines / took_s


def first_page_ms(running):
    """Median time of a first page of the rare language, which the 5,000 oldest texts have too."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    times = []
    for _ in range(PAGE_ROUNDS):
        began = time.monotonic()
        connection.request("GET", f"/data/?language={RARE}", headers=running.headers)
        answer = connection.getresponse()
        rows = len(json.loads(answer.read())["data"])
        times.append((time.monotonic() - began) * 1e3)
        if answer.status != 200 or rows != 100:
            raise Failed(f"a page answered {answer.status} with {rows} texts")
    return statistics.median(times)


def grow(running, many):
    """First pages at 5,000 texts and at `many`."""
    few = 5_000 // TEXTS_PER_DIALOGUE
    pairs = dialogues(few)
    running.drive((line for line, _ in pushes(pairs, "few", RARE)), "pending")
    running.drive(consents(pairs), '"texts":20')
    at_few = first_page_ms(running)
    kept = few * TEXTS_PER_DIALOGUE
    while kept < many:
        pairs = dialogues(min(1_000, -(-(many - kept) // TEXTS_OF_MANY)), first=kept)
        running.drive((line for line, _ in pushes(pairs, kept, texts=TEXTS_OF_MANY)), "pending")
        running.drive(consents(pairs), f'"texts":{TEXTS_OF_MANY}')
        kept += len(pairs) * TEXTS_OF_MANY
        say(f"  {kept:,} texts are kept")
    return at_few, first_page_ms(running)


def median(rounds, name):
    values = [found[name] for found in rounds if name in found]
    return statistics.median(values) if values else 0


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = options()
    loadgen = setup.build_own("loadgen")
    ours = servers.auspex(settings.auspex or setup.build_auspex())
    rounds = {server.name: (server, []) for server in (ours, flask(setup.install_peers()), echo())}
    exports = []
    try:
        for number in range(settings.rounds):
            say(f"round {number + 1} of {settings.rounds}")
            for server, found in rounds.values():
                count = settings.dialogues // (10 if server.name == "flask-dialogues" else 1)
                with Running(server, loadgen, settings.connections) as running:
                    found.append(measure(running, dialogues(count), number))
                    if server is ours:
                        exports.append(export(running, count * TEXTS_PER_DIALOGUE))
                        say(f"  {server.title}: {exports[-1]:,.0f} texts/s exported")
        pages = None
        if settings.many:
            with Running(ours, loadgen, settings.connections) as running:
                pages = grow(running, settings.many)
    except (Failed, SetupError) as error:
        say(f"bench/dialogues: {error}")
        return 1
    report(settings, rounds, exports, pages)
    return 0


def report(settings, rounds, exports, pages):
    print(f"\n{settings.connections} connections, dialogues of {TEXTS_PER_DIALOGUE} texts, medians of {settings.rounds} rounds\n")
    print("| server | texts/s | consents/s |\n|---|---:|---:|")
    for server, found in rounds.values():
        print(f"| {server.title} | {median(found, 'texts_per_s'):,.0f} | {median(found, 'consents_per_s'):,.0f} |")
    texts = {name: median(found, "texts_per_s") for name, (_, found) in rounds.items()}
    print(f"\ntexts against Flask (at least 20): {texts['auspex'] / texts['flask-dialogues']:.1f}")
    print(f"texts against the echo (at least 0.5): {texts['auspex'] / texts['echo']:.2f}")
    print(f"exported texts per second (at least 100,000): {statistics.median(exports):,.0f}")
    ratio = median(rounds["auspex"][1], "buffer_ratio")
    print(f"memory of the buffer for each byte it holds (at most 2): {ratio:.2f}")
    if pages:
        few, many = pages
        print(f"first page at 5,000 texts {few:.2f} ms, at {settings.many:,} {many:.2f} ms (at most 2 times): {many / few:.2f}")


if __name__ == "__main__":
    sys.exit(main())
