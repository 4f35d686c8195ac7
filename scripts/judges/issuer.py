"""Judge: oidc-provider, which we did not write, as an issuer that the server is told to trust.

It runs on a loopback port (issuer.mjs). Its tokens open what its roles are mapped to; its keys change
while the server runs; and forged or borrowed tokens are refused.
"""

import base64
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import node
from checks import Checks, equal, true
from forms import Browser
from server import RECORDS, STOP_S, Server, free_port

TIMEOUT_S = 10
READY_S = 15
TTL_S = 300  # how long the server takes the issuer's keys for fresh
COOL_DOWN_S = 30  # between two looks for an unknown key
SLACK_S = 5
# Waiting for keys to grow old takes ten minutes; `scripts/prove issuer` does it.
PATIENT = bool(os.environ.get("ISSUER_PATIENT"))
AUDIENCE = "https://api.example.org"
ELSEWHERE = "https://client.example.org/callback"
SECRET = "a secret for this test"
STRANGER = rsa.generate_private_key(65537, 2048)
RECORD = json.loads((RECORDS / "records.jsonl").read_text().splitlines()[0])


def settings(issuer, jwks_path="/jwks", allow_private_addresses=True):
    return f"""
[[identity.issuers]]
issuer = "{issuer}"
jwks_url = "{issuer}{jwks_path}"
audience = "{AUDIENCE}"
allow_private_addresses = {str(allow_private_addresses).lower()}
types = ["at+jwt", "JWT", ""]
scope_claim = "scope"
roles_claim = "roles"
roles = {{ "ml-team" = "data-scientist" }}
"""


class Issuer:
    """The other server: started with some keys, restarted with others on the same port."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.child = None

    def start(self, *kids):
        self.stop()
        with open(self.folder / "log", "ab") as log:
            self.child = subprocess.Popen(
                node.command("issuer.mjs", str(self.port), str(self.folder), ",".join(kids)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        ends = time.monotonic() + READY_S
        while True:
            try:
                if requests.get(f"{self.url}/fetches", timeout=TIMEOUT_S).ok:
                    return
            except requests.ConnectionError:
                pass
            true(self.child.poll() is None and time.monotonic() < ends, f"the issuer is not ready: {self.log()}")
            time.sleep(0.05)

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(STOP_S)

    def log(self):
        return (self.folder / "log").read_text(errors="replace")[-600:]

    def token(self, client="ml-job", resource=AUDIENCE, scope=None):
        """An access token by client credentials, as a job gets it."""
        session = OAuth2Session(client, SECRET, scope=scope)
        return session.fetch_token(f"{self.url}/token", grant_type="client_credentials", resource=resource)[
            "access_token"
        ]

    def id_token(self, client):
        """An ID token, for which somebody logs in."""
        session = OAuth2Session(
            *(client, SECRET, "client_secret_post"),
            scope="openid",
            redirect_uri=ELSEWHERE,
            code_challenge_method="S256",
        )
        verifier = "v" * 43
        url, state = session.create_authorization_url(f"{self.url}/auth", code_verifier=verifier, nonce="n" * 20)
        browser = Browser(self.url)
        page = browser.open(url)
        page = browser.send(page.forms[0], login="somebody", password="anything")
        back = browser.send(page.forms[0])
        tokens = session.fetch_token(
            f"{self.url}/token", authorization_response=back, code_verifier=verifier, state=state
        )
        return tokens["id_token"]

    def mint(self, header=None, **changes):
        """A token like its own, signed with its key, with some claims changed; None takes one away."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "ml-job",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 600,
            "jti": str(time.time_ns()),
        }
        claims |= {"client_id": "ml-job", "scope": "predict", "roles": ["ml-team"]} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        body = {"header": {"typ": "at+jwt"} | (header or {}), "claims": claims}
        return requests.post(f"{self.url}/mint", json=body, timeout=TIMEOUT_S).json()["token"]

    def control(self, jwks):
        requests.post(f"{self.url}/control", json={"jwks": jwks}, timeout=TIMEOUT_S).raise_for_status()

    def fetches(self):
        return requests.get(f"{self.url}/fetches", timeout=TIMEOUT_S).json()


class World:
    def __init__(self, server, issuer):
        self.server, self.issuer = server, issuer

    def status(self, token, path="/predict"):
        headers = {"Authorization": f"Bearer {token}"}
        if path == "/predict":
            return requests.post(self.server.url + path, json=RECORD, headers=headers, timeout=TIMEOUT_S).status_code
        return requests.get(self.server.url + path, headers=headers, timeout=TIMEOUT_S).status_code

    def until(self, status, token, seconds):
        """Waits until the token is answered so."""
        ends = time.monotonic() + seconds
        while (found := self.status(token)) != status:
            true(time.monotonic() < ends, f"{found} and not {status} after {seconds} s")
            time.sleep(0.1)


def predicted(world):
    """A job predicts with a token of the issuer"""
    token = world.issuer.token(scope="predict")
    equal(jwt.decode(token, options={"verify_signature": False})["aud"], AUDIENCE, "aud")
    equal(world.status(token), 200, "prediction")
    equal(world.status(token, "/v1/models"), 403, "/v1/models, which its scope does not have")
    equal(world.status(token, "/v1/users"), 403, "/v1/users")


def role_alone(world):
    """A token without scopes has those of its role, and a role without a mapping has none"""
    token = world.issuer.token()
    true("scope" not in jwt.decode(token, options={"verify_signature": False}), "it has scopes")
    equal(world.status(token), 200, "prediction")
    equal(world.status(token, "/v1/models"), 200, "/v1/models")
    equal(world.status(token, "/v1/users"), 403, "/v1/users, which the role does not have")
    equal(world.status(world.issuer.token("other-job", scope="predict")), 403, "prediction with a role of no mapping")


def kinds_of_tokens(world):
    """Access tokens as other issuers write them are accepted"""
    for what, header, changes in (
        ("at+jwt", {"typ": "at+jwt"}, {}),
        ("JWT, as Keycloak has it", {"typ": "JWT"}, {"typ": "Bearer", "azp": "ml-job"}),
        ("several audiences", {}, {"aud": ["https://other.example.org", AUDIENCE]}),
    ):
        equal(world.status(world.issuer.mint(header, **changes)), 200, what)


def wrong_audience(world):
    """A token for another API is refused"""
    equal(
        world.status(world.issuer.token(resource="https://other.example.org", scope="predict")), 401, "aud of another"
    )
    for what, audience in (
        ("a longer one", f"{AUDIENCE}.evil"),
        ("a shorter one", AUDIENCE[:-1]),
        ("none", None),
        ("empty", []),
        ("a number", 7),
    ):
        equal(world.status(world.issuer.mint(aud=audience)), 401, f"aud: {what}")


def id_tokens(world):
    """An ID token is no access token, even where its audience is the API"""
    for client in ("some-app", AUDIENCE):
        token = world.issuer.id_token(client)
        claims = jwt.decode(token, options={"verify_signature": False})
        true(claims["aud"] == client and "nonce" in claims, f"no ID token for {client}")
        equal(world.status(token), 401, f"ID token of {client}")
    keycloak = world.issuer.mint({"typ": "JWT"}, typ="ID", nonce="n", at_hash="h", auth_time=int(time.time()))
    equal(world.status(keycloak), 401, "ID token as Keycloak marks it")


def wrong_claims(world):
    """Claims that do not hold are refused"""
    now = int(time.time())
    for what, changes in (
        ("another iss", {"iss": "https://issuer.example.org"}),
        ("iss with a slash", {"iss": world.issuer.url + "/"}),
        ("no iss", {"iss": None}),
        ("expired", {"iat": now - 7200, "exp": now - 3600}),
        ("no exp", {"exp": None}),
        ("exp as text", {"exp": str(now + 600)}),
        ("expired by a fraction", {"iat": now - 60, "exp": now - 0.5}),
        ("not yet", {"nbf": now + 3600}),
        ("nbf as text", {"nbf": str(now - 60)}),
    ):
        equal(world.status(world.issuer.mint(**changes)), 401, what)
    fractions = {"iat": now - 0.5, "nbf": now - 0.5, "exp": now + 600.5}
    equal(world.status(world.issuer.mint(**fractions)), 200, "times with fractions")
    for what, header in (
        ("a typ of something else", {"typ": "logout+jwt"}),
        ("a crit that nobody knows", {"crit": ["exotic"], "exotic": 1}),
    ):
        equal(world.status(world.issuer.mint(header)), 401, what)


def forged(world):
    """Tokens signed by anybody else are refused, wherever they say their key is"""
    true_token = world.issuer.mint()
    claims = jwt.decode(true_token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(true_token)["kid"]
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key()))
    other = f"{world.issuer.url}/other-keys"
    for what, more in (
        ("the issuer's kid", {"kid": kid}),
        ("its own key in the header", {"kid": kid, "jwk": public}),
        ("an address of its keys", {"kid": "mine", "jku": other}),
        ("an address of its certificate", {"kid": "mine", "x5u": other}),
        ("a path as kid", {"kid": "../../../../dev/null"}),
        ("a query as kid", {"kid": "' OR 1=1 --"}),
    ):
        equal(world.status(jwt.encode(claims, STRANGER, "RS256", {"typ": "at+jwt"} | more)), 401, what)
    equal(world.issuer.fetches()["other"], 0, "visits to an address out of a token")
    equal(world.status(jwt.encode(claims, None, "none", {"typ": "at+jwt", "kid": kid})), 401, "alg none")

    keys = requests.get(f"{world.issuer.url}/jwks", timeout=TIMEOUT_S).json()["keys"]
    public = jwt.PyJWK(next(key for key in keys if key["kid"] == kid)).key

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    for encoding in (Encoding.PEM, Encoding.DER):  # PyJWT would not do this
        secret = public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        head = {"alg": "HS256", "typ": "at+jwt", "kid": kid}
        text = part(json.dumps(head).encode()) + b"." + part(json.dumps(claims).encode())
        token = text + b"." + part(hmac.digest(secret, text, "sha256"))
        equal(world.status(token.decode()), 401, "HS256 with the public key as the secret")


def stranger_token(world, kid):
    """A token by a key of somebody else."""
    claims = jwt.decode(world.issuer.mint(), options={"verify_signature": False})
    return jwt.encode(claims, STRANGER, "RS256", {"typ": "at+jwt", "kid": kid})


def unknown_keys(world):
    """Unknown keys make the server ask once, not for each token"""
    before, began = world.issuer.fetches()["jwks"], time.monotonic()
    for number in range(60):
        equal(world.status(stranger_token(world, f"unknown-{number}")), 401, "an unknown key")
    asked = world.issuer.fetches()["jwks"] - before
    most = 1 + (time.monotonic() - began) // COOL_DOWN_S
    true(asked <= most, f"asked {asked} times for keys, more than {most:.0f}")


def keys_change(world):
    """A new key is found without a restart, and with it the removal of an old one"""
    seen, unseen = world.issuer.token(scope="predict"), world.issuer.token(scope="predict")
    equal(world.status(seen), 200, "by the first key")
    world.issuer.start("ec-2", "rsa-1")
    second = world.issuer.token(scope="predict")
    equal(jwt.get_unverified_header(second)["kid"], "ec-2", "the key that signs")
    world.until(200, second, COOL_DOWN_S + SLACK_S)
    equal(world.status(seen), 200, "by the first key, which is still published")
    world.issuer.start("rsa-3")
    third = world.issuer.token(scope="predict")
    world.until(200, third, COOL_DOWN_S + SLACK_S)
    equal(world.status(unseen), 401, "by the first key, which is gone")
    if PATIENT:  # a token that was accepted before ends when the keys that spoke for it grow old
        world.until(401, second, TTL_S + COOL_DOWN_S + SLACK_S)
        equal(world.status(seen), 401, "by the first key, accepted before")
        equal(world.status(world.issuer.token(scope="predict")), 200, "by the third key")


def out_of_reach(world):
    """Keys that are known hold while the issuer is out of reach"""
    equal(world.status(world.issuer.mint()), 200, "before")
    world.issuer.control("broken")
    try:
        if PATIENT:
            time.sleep(TTL_S + 1)
        for _ in range(5):
            equal(world.status(stranger_token(world, "unknown")), 401, "a key that cannot be looked for")
            equal(world.status(world.issuer.mint()), 200, "by a known key")
    finally:
        world.issuer.control("ok")


def redirected(world):
    """A redirect from where the keys are is not followed"""
    world.issuer.control("moved")
    try:
        with Server(settings(world.issuer.url)) as server:
            # Without keys nothing can be said of the token.
            equal(World(server, world.issuer).status(world.issuer.mint()), 503, "status")
        equal(world.issuer.fetches()["moved"], 0, "visits where the redirect leads")
    finally:
        world.issuer.control("ok")


def private_addresses(world):
    """Keys are not fetched from a private address unless that is allowed"""
    before = world.issuer.fetches()["jwks"]
    try:
        with Server(settings(world.issuer.url, allow_private_addresses=False)) as server:
            # Without keys nothing can be said of the token.
            equal(World(server, world.issuer).status(world.issuer.mint()), 503, "status")
    except SystemExit as refusal:  # refusing to start is as good
        true("private" in str(refusal), f"it did not start, for another reason: {refusal}")
    equal(world.issuer.fetches()["jwks"], before, "visits to the private address")


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="auspex-issuer-") as folder:
        issuer = Issuer(Path(folder))
        try:
            issuer.start("rsa-1")
            with Server(settings(issuer.url)) as server:
                checks.run_all(
                    (
                        *(predicted, role_alone, kinds_of_tokens, wrong_audience, id_tokens, wrong_claims, forged),
                        *(unknown_keys, keys_change, out_of_reach, redirected, private_addresses),
                    ),
                    World(server, issuer),
                )
                checks.run("the server still runs", true, server.running(), "it has ended")
            checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
        finally:
            issuer.stop()
    checks.finish()


main()
