"""Judge: nginx and HAProxy in front, an attacker and an owner behind them: each pays for what they did.

With TLS, HTTP/2 and the PROXY protocol: whatever a proxy speaks to its clients and to the server, the
server knows each client by their address.
"""

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

# HAProxy connects from an address of its own to the server that expects a header first.
ANNOUNCED = {
    "AUSPEX__SERVER__TRUSTED_PROXIES": '["127.0.0.9"]',
    "AUSPEX__SERVER__PROXY_PROTOCOL": "true",
}

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
    server {{
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {folder}/pem; ssl_certificate_key {folder}/pem;
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

HAPROXY = """
defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen h2
    mode http
    option forwardfor
    bind 127.0.0.1:{h2} ssl crt {folder}/pem alpn h2,http/1.1
    server auspex 127.0.0.1:{behind} proto h2
listen v1
    mode tcp
    bind 127.0.0.1:{v1} ssl crt {folder}/pem alpn http/1.1
    server auspex 127.0.0.1:{announced} source 127.0.0.9 send-proxy
listen v2
    mode tcp
    bind 127.0.0.1:{v2} ssl crt {folder}/pem alpn h2,http/1.1
    server auspex 127.0.0.1:{announced} source 127.0.0.9 send-proxy-v2
"""


class From(HTTPAdapter):
    """Connects from an address of its own."""

    def __init__(self, address):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **more):
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **more)


class Client:
    def __init__(self, url, address, pem=None, **headers):
        self.url = url
        self.session = requests.Session()
        self.session.mount("http://", From(address))
        self.session.mount("https://", From(address))
        self.session.trust_env = False  # a certificate authority of this machine's would win over ours
        self.session.verify = str(pem)
        self.session.headers.update(headers)

    def get(self, path, **headers):
        return self.session.get(self.url + path, headers=headers, timeout=TIMEOUT_S).status_code

    def read(self, path):
        return self.session.get(self.url + path, timeout=TIMEOUT_S).json()

    def post(self, path, body, **headers):
        return self.session.post(self.url + path, json=body, headers=headers, timeout=TIMEOUT_S)

    def log_in(self, password, name=OWNER, **headers):
        return self.post("/v1/auth/login", {"username": name, "password": password}, **headers).status_code


def main():
    need = 'source scripts/lib/steps.sh; need "nginx -v" nginx-light; need "haproxy -v" haproxy; need "curl -V" curl'
    subprocess.run(["bash", "-c", need], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    checks = Checks()
    with (
        Server(**SETTINGS) as server,
        Server(**SETTINGS | ANNOUNCED) as announced,
        tempfile.TemporaryDirectory() as folder,
    ):
        ports = {name: free_port() for name in ("port", "tls", "h2", "v1", "v2")}
        words = ports | {"folder": folder, "behind": server.port, "announced": announced.port}
        pem = make_certificate(Path(folder))
        (Path(folder) / "nginx.conf").write_text(NGINX.format(**words))
        (Path(folder) / "haproxy.cfg").write_text(HAPROXY.format(**words))
        nginx = ["nginx", "-p", folder, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        proxies = []
        try:
            proxies.append(subprocess.Popen(nginx))
            proxies.append(subprocess.Popen(["haproxy", "-f", f"{folder}/haproxy.cfg", "-db"]))
            url = f"http://127.0.0.1:{ports['port']}"
            wait_for(url)
            run(checks, server, url)
            for number, (name, port, version, behind) in enumerate(
                (
                    ("nginx, TLS and HTTP/2 in front, HTTP/1.1 behind", "tls", "2", server),
                    ("HAProxy, TLS and HTTP/2 in front, HTTP/2 behind", "h2", "2", server),
                    ("HAProxy, TLS in front, PROXY protocol 1 and HTTP/1.1 behind", "v1", "1.1", announced),
                    ("HAProxy, TLS in front, PROXY protocol 2 and HTTP/2 behind", "v2", "2", announced),
                ),
                start=1,
            ):
                url = f"https://127.0.0.1:{ports[port]}"
                wait_for(url, pem)
                run_front(checks, name, behind, url, pem, version, number)
        finally:
            for proxy in proxies:
                proxy.terminate()
                proxy.wait(10)
    checks.finish()


def make_certificate(folder):
    """A certificate for 127.0.0.1 with its key, in one file as HAProxy wants it."""
    key, certificate, both = (folder / name for name in ("key", "certificate", "pem"))
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    both.write_text(certificate.read_text() + key.read_text())
    return both


def wait_for(url, pem=None):
    ends = time.monotonic() + 10
    while True:
        try:
            return requests.get(url + "/health/live", timeout=1, verify=str(pem))
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


def run_front(checks, name, server, url, pem, version, number):
    """The same behind another front. Clients have addresses that no other front saw, and so does the record."""
    near, far = f"127.0.{number}.2", f"127.0.{10 + number}.3"
    key = {"X-API-Key": server.key}
    owner_name = f"owner{number}@example.org"
    attacker = Client(url, near, pem)
    admin = Client(url, near, pem, **key)
    user = admin.post("/v1/users", {"name": "Owner", "email": owner_name, "password": PASSWORD}).json()

    def speaks():
        ask = ["curl", "--silent", "--cacert", pem, "--write-out", "%{http_version} %{http_code}", "--output", "/dev/null"]
        said = subprocess.run([*ask, f"{url}/health/live"], capture_output=True, text=True, timeout=TIMEOUT_S)
        equal(said.stdout, f"{version} 200", "version and status")

    def guesses():
        answers = [attacker.log_in("wrong", f"nobody{i}") for i in range(21)]
        equal((answers.count(401), answers[-1]), (20, 429), "answers to the attacker")
        spoofed = attacker.log_in("wrong", "nobody", **{"X-Forwarded-For": far, "Forwarded": f"for={far}"})
        equal(spoofed, 429, "with the address of another")

    def is_known():
        equal(Client(url, far, pem).log_in("wrong", "nobody"), 401, "a wrong password from elsewhere")
        for address in (near, far):
            client = Client(url, address, pem)
            equal(client.log_in(PASSWORD, owner_name), 200, f"a right password from {address}")
            equal(admin.get("/v1/models"), 200, "a key at the attacker's address")
        logins = admin.read(f"/v1/users/{user['id']}/logins")["data"]
        seen = sorted(login["address"] for login in logins)
        equal(seen, sorted([f"127.0.{number}.0/24", f"127.0.{10 + number}.0/24"]), "where the logins came from")
        denied = admin.read("/v1/audit?outcome=denied&limit=1000")["data"]
        true(
            any(event["address"] == f"127.0.{number}.0/24" for event in denied),
            "the record does not have the attacker's address",
        )

    checks.run(f"{name}: clients are served, HTTP/{version}", speaks)
    checks.run(f"{name}: an attacker is slowed down by address, whatever they write into headers", guesses)
    checks.run(f"{name}: who has the password or a key gets in from any address, and the record has it", is_known)


if __name__ == "__main__":
    main()
