"""Judge: nginx in front, an attacker and an owner behind it: each pays for what they did."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import requests
from requests.adapters import HTTPAdapter

from checks import Checks, equal, true
from server import RECORDS, ROOT, Server, free_port

TIMEOUT_S = 20
PASSWORD = "correct horse battery staple"
OWNER = "owner@example.org"
RECORD = json.loads((RECORDS / "records.jsonl").read_text().splitlines()[0])
# As a default installation has it; the server's own limits for callers stay out of reach.
SETTINGS = {"AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "1000", "AUSPEX__SERVER__TRUSTED_PROXIES": '["127.0.0.1"]'}

NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream auspex {{ server 127.0.0.1:{behind}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://auspex;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host:$server_port;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


class From(HTTPAdapter):
    """Connects from an address of its own."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **more):
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **more)


class Client:
    def __init__(self, url, address, **headers):
        self.url = url
        self.session = requests.Session()
        self.session.mount("http://", From(address))
        self.session.headers.update(headers)

    def get(self, path, **headers):
        return self.session.get(self.url + path, headers=headers, timeout=TIMEOUT_S).status_code

    def post(self, path, body, **headers):
        return self.session.post(self.url + path, json=body, headers=headers, timeout=TIMEOUT_S)

    def log_in(self, password, **headers):
        return self.post("/v1/auth/login", {"username": OWNER, "password": password}, **headers).status_code


def main():
    need = ["bash", "-c", 'source scripts/lib/steps.sh; need "nginx -v" nginx-light']
    subprocess.run(need, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    checks = Checks()
    with Server(**SETTINGS) as server, tempfile.TemporaryDirectory() as folder:
        port = free_port()
        conf = Path(folder) / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, port=port, behind=server.port))
        nginx = subprocess.Popen(["nginx", "-p", folder, "-e", f"{folder}/error.log", "-c", conf])
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url)
            run(checks, server, url)
        finally:
            nginx.terminate()
            nginx.wait(10)
    checks.finish()


def wait_for(url):
    ends = time.monotonic() + 10
    while True:
        try:
            return requests.get(url + "/health/live", timeout=1)
        except requests.ConnectionError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)


def run(checks, server, url):
    attacker, owner = Client(url, "127.0.0.2"), Client(url, "127.0.0.3")
    admin = Client(url, "127.0.0.2", **{"X-API-Key": server.key})
    user = {"name": "Owner", "email": OWNER, "password": PASSWORD}
    equal(admin.post("/v1/users", user).status_code, 201, "the owner is made")

    def guesses():
        answers = [attacker.log_in("wrong") for _ in range(23)]
        equal((answers.count(401), answers[20:]), (20, [429] * 3), "answers to the attacker")

    def spoofs():
        for header in ("X-Forwarded-For", "Forwarded"):
            words = "127.0.0.3" if header == "X-Forwarded-For" else "for=127.0.0.3"
            equal(attacker.log_in("wrong", **{header: words}), 429, f"with {header}")

    def logs_in():
        equal(owner.log_in(PASSWORD), 200, "the owner")

    def floods():
        answers = [attacker.get("/v1/models") for _ in range(1100)]
        true(answers[-1] == 429, f"{answers.count(401)} answers were 401, the last {answers[-1]}")
        equal(owner.get("/v1/models"), 401, "the owner without a key")

    def keys_work():
        equal(admin.get("/v1/models"), 200, "the admin key at the attacker's address")
        answer = admin.post("/v1/models/santander/predict", RECORD)
        equal(answer.status_code, 200, "a prediction")

    checks.run("An attacker is refused after 20 wrong passwords", guesses)
    checks.run("What they write into forwarded headers counts for nothing", spoofs)
    checks.run("The owner logs in", logs_in)
    checks.run("1,100 anonymous requests use up the attacker's limit, and nobody else's", floods)
    checks.run("A good key works even at the attacker's address", keys_work)


if __name__ == "__main__":
    main()
