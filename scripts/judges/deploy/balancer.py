"""The balancer of `deploy/compose.yaml` with two servers on one PostgreSQL and one Redis. Part of the judge `deploy`."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from checks import equal, true
from server import BINARY, ROOT, Server, environment, free_port

POSTGRES = os.environ.get("AUSPEX_TEST_POSTGRES_URL")  # set by scripts/test
MASTER_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
CLIENTS = 4
PAUSE_S = 0.01
DIALOGUES = 12
BOTH_KNOWN_S = 10
RECORD = json.dumps({"f0": 0.5, "f1": 1.2, "f2": -0.3, "f3": 0.8})


class Deployment:
    """`with Deployment() as deployment:` balancer, servers and databases, without Docker."""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            names = {name: f"deploy_{name}_{os.getpid()}" for name in ("main", "keys")}
            stack.callback(sql, *[f"drop database if exists {name} with (force)" for name in names.values()])
            sql(*[f"create database {name}" for name in names.values()])
            base = POSTGRES.rsplit("/", 1)[0]
            settings = {
                "DATABASE_URL": f"{base}/{names['main']}",
                "AUSPEX__DIALOGUES__KEYS_URL": f"{base}/{names['keys']}",
                "AUSPEX__DIALOGUES__MASTER_KEY": MASTER_KEY,
                "AUSPEX__SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
            }
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.key = commands_of_a_first_start(settings, folder / "data")
            settings["AUSPEX__REDIS__URL"] = stack.enter_context(redis(folder))
            with ThreadPoolExecutor() as pool:
                self.servers = list(pool.map(stack.enter_context, [OnPostgres(**settings) for _ in range(2)]))
            self.port = free_port()
            (folder / "haproxy.cfg").write_text(self.balancer_settings())
            self.balancer = subprocess.Popen(["haproxy", "-db", "-q", "-f", folder / "haproxy.cfg"])
            stack.callback(self.balancer.wait, 10)
            stack.callback(self.balancer.terminate)
            self.wait_for_both()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def balancer_settings(self):
        """haproxy.cfg as it is, with addresses of this machine in place of those of Docker's DNS."""
        text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
        text = text.replace("bind :8080", f"bind 127.0.0.1:{self.port}")
        text = text.replace(" resolvers docker init-addr none", "")
        text = re.sub(r"resolvers docker\n(?: .*\n)+", "", text)
        lines = "".join(f"    server s{place} 127.0.0.1:{one.port}\n" for place, one in enumerate(self.servers))
        text, count = re.subn(r" +server-template auspex \d+ auspex:8080\n", lines, text)
        equal(count, 1, "backends of haproxy.cfg")
        return text

    def wait_for_both(self):
        ends = time.monotonic() + BOTH_KNOWN_S
        answering = 0
        while answering < 10:
            true(time.monotonic() < ends, "the balancer reached no server")
            try:
                answering = answering + 1 if self.ask("GET", "/health/ready")[0] == 200 else 0
            except OSError:
                answering = 0
            time.sleep(0.05)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            return exchange(connection, self.key, method, path, body)
        finally:
            connection.close()


@contextlib.contextmanager
def redis(folder):
    """A Redis with the settings of `deploy/redis`, and its URL."""
    port = free_port()
    command = ["redis-server", ROOT / "deploy/redis/redis.conf", "--port", str(port), "--bind", "127.0.0.1"]
    with open(folder / "redis.log", "wb") as log:
        child = subprocess.Popen([*command, "--requirepass", "secret", "--dir", folder], stdout=log)
    try:
        yield f"redis://:secret@127.0.0.1:{port}/0"
    finally:
        child.terminate()
        child.wait(10)


class OnPostgres(Server):
    """A server whose first key is not in its folder: another made it."""

    def _start(self, log_mode):
        started = super()._start(log_mode)
        (self.data / "admin.key").touch()
        return started


def exchange(connection, key, method, path, body=None):
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def commands_of_a_first_start(settings, data):
    """`auspex migrate` and `auspex keys create`, as docs/OPERATIONS.md has them for Docker Compose."""
    def run(*command):
        done = subprocess.run(
            [BINARY, *command, "--data-dir", data],
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
        equal(done.returncode, 0, f"auspex {command[0]}: {done.stderr}")
        return done.stdout.strip()

    run("migrate")
    return run("keys", "create", "--name", "admin", "--role", "admin")


def sql(*statements):
    """Carries out statements beside each other: to drop a database is to wait for a checkpoint."""
    children = [
        subprocess.Popen(["psql", "-q", POSTGRES, "-c", statement], stderr=subprocess.PIPE, text=True)
        for statement in statements
    ]
    for statement, child in zip(statements, children):
        said = child.communicate(timeout=60)[1]
        equal(child.returncode, 0, f"{statement}: {said}")


def metrics_are_not_for_everybody(deployment):
    """The balancer hands on no request for metrics."""
    equal([deployment.ask("GET", path)[0] for path in ("/metrics", "/v1/metrics")], [403, 403], "statuses")


def dialogues_go_on_at_any_server(deployment):
    """Requests about a dialogue go to both servers, by old and new paths, and no text is lost."""
    text = json.dumps({"text": "My card does not work", "language": "en"})
    for number in range(DIALOGUES):
        dialogue = f"d{number}"
        made = deployment.ask("POST", f"/data/customer/{dialogue}", text)
        equal(made[0], 200, f"first text of {dialogue}: {made[1]}")
        made = deployment.ask("POST", f"/v1/customers/customer/dialogues/{dialogue}/messages", text)
        equal(made[0], 200, f"second text of {dialogue}: {made[1]}")
        # Once more for every other, or else the balancer's turns would give all decisions to the same server.
        for _ in range(1 + number % 2):
            status, body = deployment.ask("GET", f"/v1/dialogues/{dialogue}")
            equal((status, json.loads(body)["texts"]), (200, 2), f"{dialogue}")
        status, body = deployment.ask("POST", f"/consents/{dialogue}", "true")
        equal((status, json.loads(body)["texts"]), (200, 2), f"decision about {dialogue}")
    stored = [texts_stored(server, deployment.key) for server in deployment.servers]
    equal(sum(stored), 2 * DIALOGUES, "texts that were stored")
    true(all(stored), f"one server got all of them: {stored}")


def texts_stored(server, key):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    text = exchange(connection, key, "GET", "/metrics")[1].decode()
    connection.close()
    return int(re.search(r"(?m)^auspex_texts_stored_total (\d+)", text)[1])


def rolling_restart_loses_nothing(deployment):
    """Both servers are replaced one after the other under load, and every request is answered."""
    over = threading.Event()
    counts = [[] for _ in range(CLIENTS)]
    clients = [threading.Thread(target=load, args=(deployment, over, counts[place])) for place in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for server in deployment.servers:
            server.stop()
            equal(server.exit_code, 0, "exit code")
            server.start_again()
            time.sleep(1.2)  # until the balancer has seen it: it looks once a second
    finally:
        over.set()
        for client in clients:
            client.join(30)
    answers = [answer for one in counts for answer in one]
    others = [answer for answer in answers if answer != 200]
    true(len(answers) > 100, f"only {len(answers)} requests were sent")
    equal(others, [], f"failures among {len(answers)} requests")


def load(deployment, over, answers):
    connection = http.client.HTTPConnection("127.0.0.1", deployment.port, timeout=20)
    while not over.is_set():
        try:
            answers.append(exchange(connection, deployment.key, "POST", "/v1/models/mean-score/predict", RECORD)[0])
        except (OSError, http.client.HTTPException) as error:
            answers.append(repr(error))
            connection.close()
        time.sleep(PAUSE_S)
    connection.close()


CHECKS = [metrics_are_not_for_everybody, dialogues_go_on_at_any_server, rolling_restart_loses_nothing]
