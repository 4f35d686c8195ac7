"""Judge: Authlib and PyJWT, with a browser that has no scripts, as clients of the authorization server."""

import json
import re
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import jwt
import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc8414 import get_well_known_url as oauth_url
from authlib.oidc.discovery import OpenIDProviderMetadata
from authlib.oidc.discovery import get_well_known_url as openid_url

from checks import Checks, equal, true
from forms import Browser, Page
from server import RECORDS, Server

TIMEOUT_S = 10
LOOPBACK = "http://127.0.0.1:49152/callback"  # nobody listens: the address alone is enough
ELSEWHERE = "https://client.example.org/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
USERNAME, PASSWORD = "scientist", "correct horse battery staple"
RECORD = json.loads((RECORDS / "records.jsonl").read_text().splitlines()[0])


class World:
    """The server, whom it knows, and what one check leaves for the next."""

    def __init__(self, server):
        self.server = server
        self.metadata = None
        self.public = self.dashboard = self.service = None
        self.tokens = None

    def api(self, method, path, token=None, **more):
        headers = {"Authorization": f"Bearer {token}"} if token else {"X-API-Key": self.server.key}
        return requests.request(method, self.server.url + path, headers=headers, timeout=TIMEOUT_S, **more)

    def status(self, token, path="/v1/me"):
        return self.api("GET", path, token).status_code

    def endpoint(self, name):
        true(self.metadata, "there is no metadata: a check before this one failed")
        return self.metadata[f"{name}_endpoint"]

    def session(self, client, **more):
        true(client, "the client is not there: a check before this one failed")
        return OAuth2Session(client["client_id"], client.get("client_secret"), code_challenge_method="S256", **more)

    def log_in(self, client, redirect_uri, scope, **more):
        """A session after the way through the pages, its tokens, and the code they came from."""
        session = self.session(client, scope=scope, redirect_uri=redirect_uri, **more)
        verifier = generate_token(48)
        url, state = session.create_authorization_url(
            self.endpoint("authorization"), code_verifier=verifier, nonce=generate_token()
        )
        back = Browser(self.server.url).authorize(url, USERNAME, PASSWORD)
        true(back.startswith(redirect_uri + "?"), f"sent to {back.split('?')[0]}")
        query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
        equal((query.get("state"), query.get("iss")), (state, self.server.url), "state, iss")
        tokens = session.fetch_token(
            self.endpoint("token"), authorization_response=back, code_verifier=verifier, state=state
        )
        return session, tokens, query["code"], verifier


def failed_with(error, function, *arguments, **more):
    """The call is refused with this OAuth error."""
    try:
        function(*arguments, **more)
    except OAuthError as refusal:
        equal(refusal.error, error, "error")
    else:
        raise AssertionError(f"not refused, instead of {error}")


def oauth_error(answer, status, error):
    """An answer in the shape of RFC 6749, section 5.2, which no cache keeps."""
    equal((answer.status_code, answer.json().get("error")), (status, error), f"answer {answer.text[:200]}")
    true(set(answer.json()) <= {"error", "error_description", "error_uri"}, f"members {sorted(answer.json())}")
    equal(answer.headers["Cache-Control"], "no-store", "Cache-Control")


def prepared(world):
    """A user and three clients are made"""
    user = {"name": "Data Scientist", "email": "scientist@example.org", "username": USERNAME, "password": PASSWORD}
    equal(world.api("POST", "/v1/users", json=user | {"roles": ["data-scientist"]}).status_code, 201, "user")

    def client(**asked):
        answer = world.api("POST", "/v1/oauth-clients", json=asked)
        equal(answer.status_code, 201, f"client: {answer.text[:300]}")
        true(answer.headers.get("Location"), "no Location")
        return answer.json()

    world.public = client(
        name="Notebook",
        redirect_uris=["http://127.0.0.1/callback"],
        grant_types=["authorization_code", "refresh_token"],
        scopes=["openid", "email", "offline_access", "predict"],
        public=True,
    )
    world.dashboard = client(
        name="Dashboard",
        redirect_uris=[ELSEWHERE],
        grant_types=["authorization_code", "refresh_token"],
        scopes=["openid", "predict", "models:read"],
        public=False,
    )
    world.service = client(
        name="Nightly job",
        redirect_uris=[],
        grant_types=["client_credentials"],
        scopes=["predict", "models:read"],
        public=False,
    )
    listed = world.api("GET", "/v1/oauth-clients").json()["data"]
    equal(len(listed), 3, "clients in the list")
    true(not any(one.get("client_secret") for one in listed), "secrets in the list")


def by_command(world):
    """`auspex clients create` makes a client beside the server, and prints its id and secret"""
    said = world.server.command(
        *("clients", "create", "--name", "Weekly job"),
        *("--grant-type", "client_credentials", "--scope", "predict"),
    )
    listed = world.api("GET", "/v1/oauth-clients").json()["data"]
    (job,) = [one for one in listed if one["name"] == "Weekly job"]
    words = re.split(r"[\s\",=:]+", said)
    true(job["client_id"] in words, "the client's id is not printed")
    secret = max((word for word in words if word != job["client_id"]), key=len)
    session = world.session({"client_id": job["client_id"], "client_secret": secret}, scope="predict")
    tokens = session.fetch_token(world.endpoint("token"), grant_type="client_credentials")
    equal(world.api("POST", "/predict", tokens["access_token"], json=RECORD).status_code, 200, "a prediction")


def discovered(world):
    """Authlib accepts both discovery documents"""
    issuer = world.server.url
    documents = []
    for url, kind in (
        (openid_url(issuer, external=True), OpenIDProviderMetadata),
        (oauth_url(issuer, external=True), AuthorizationServerMetadata),
    ):
        answer = requests.get(url, timeout=TIMEOUT_S)
        equal(answer.status_code, 200, url)
        document = kind(answer.json())
        for name in kind.REGISTRY_KEYS:
            # OpenID Connect wants RS256 offered; a server whose keys are Ed25519 cannot, and says so.
            if name != "id_token_signing_alg_values_supported":
                getattr(document, f"validate_{name}")()
        equal(document["issuer"], issuer, "issuer")
        documents.append(document)
    world.metadata = documents[0]
    both = set(documents[0]) & set(documents[1])
    equal(
        [name for name in sorted(both) if documents[0][name] != documents[1][name]], [], "what they tell differently"
    )


def logged_in(world):
    """A code and PKCE, through the pages, without scripts"""
    _, world.tokens, _, _ = world.log_in(world.public, LOOPBACK, "openid email offline_access predict")
    equal(world.status(world.tokens["access_token"]), 200, "/v1/me")
    true(world.tokens.get("refresh_token"), "no refresh token")


def verified(world):
    """PyJWT verifies the access token and the ID token by the key set"""
    true(world.tokens, "there are no tokens: a check before this one failed")
    keys = jwt.PyJWKClient(world.metadata["jwks_uri"], timeout=TIMEOUT_S)
    for name, audience, required in (
        ("access_token", None, ["sub", "iss", "aud", "exp", "iat", "nbf", "jti", "scope"]),
        ("id_token", world.public["client_id"], ["sub", "iss", "aud", "exp", "iat", "nonce"]),
    ):
        token = world.tokens[name]
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(
            *(token, key),
            algorithms=[key.algorithm_name],
            audience=audience,
            issuer=world.server.url,
            options={"require": required, "verify_aud": audience is not None},
        )
        true(all(isinstance(claims[at], int) for at in ("exp", "iat")), "times that are no integers")
        typ = jwt.get_unverified_header(token).get("typ")
        equal(typ == "at+jwt", name == "access_token", f"typ of the {name}, {typ}")
    equal(world.status(world.tokens["id_token"]), 401, "the ID token as a key to the API")


def forged(world):
    """Tokens that were tampered with are refused"""
    true(world.tokens, "there are no tokens: a check before this one failed")
    token = world.tokens["access_token"]
    head, body, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    other = jwt.encode(
        claims,
        "a secret of somebody else, long enough",
        "HS256",
        {"typ": "at+jwt", "kid": jwt.get_unverified_header(token)["kid"]},
    )
    none = jwt.encode(claims, None, "none", {"typ": "at+jwt"})
    flipped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    for what, bad in (
        ("another signature", f"{head}.{body}.{flipped}"),
        ("no signature", f"{head}.{body}."),
        ("another head", f"{none.split('.')[0]}.{body}.{signature}"),
        ("alg none", none),
        ("alg HS256", other),
        ("9 KB", token + "A" * 9000),
    ):
        equal(world.status(bad), 401, what)


def userinfo(world):
    """userinfo says what the scopes allow and no more"""
    true(world.tokens, "there are no tokens: a check before this one failed")
    answer = world.api("GET", urlsplit(world.endpoint("userinfo")).path, world.tokens["access_token"])
    equal(answer.status_code, 200, "status")
    equal(answer.json().get("email"), "scientist@example.org", "email")
    true("name" not in answer.json(), "the name, for which nobody asked (scope profile)")


def refreshed(world):
    """Refresh tokens rotate; an old one ends its family"""
    session, tokens, _, _ = world.log_in(world.public, LOOPBACK, "openid offline_access predict")
    url, first = world.endpoint("token"), tokens["refresh_token"]
    second = session.refresh_token(url, refresh_token=first)["refresh_token"]
    true(second != first, "the refresh token is the same")
    third = session.refresh_token(url, refresh_token=second)
    equal(world.status(third["access_token"]), 200, "/v1/me")
    failed_with("invalid_grant", session.refresh_token, url, refresh_token=first)
    failed_with("invalid_grant", session.refresh_token, url, refresh_token=third["refresh_token"])


def credentials(world):
    """Client credentials, by client_secret_basic and client_secret_post"""
    for method in ("client_secret_basic", "client_secret_post"):
        session = world.session(world.service, token_endpoint_auth_method=method, scope="predict")
        tokens = session.fetch_token(world.endpoint("token"), grant_type="client_credentials")
        true("refresh_token" not in tokens and "id_token" not in tokens, "more than an access token")
        equal(tokens["token_type"].lower(), "bearer", "token type")
        equal(world.api("POST", "/predict", tokens["access_token"], json=RECORD).status_code, 200, "a prediction")
        equal(world.status(tokens["access_token"], "/v1/models"), 403, "/v1/models, which was not asked for")
        wide = world.session(world.service, token_endpoint_auth_method=method, scope="users:write")
        failed_with("invalid_scope", wide.fetch_token, world.endpoint("token"), grant_type="client_credentials")


def introspected(world):
    """A client learns about its own tokens and of no others"""
    session, tokens, _, _ = world.log_in(world.dashboard, ELSEWHERE, "openid predict models:read")
    url = world.endpoint("introspection")
    known = session.introspect_token(url, token=tokens["access_token"]).json()
    equal((known["active"], known["client_id"]), (True, world.dashboard["client_id"]), "active, client_id")
    true({"predict", "models:read"} <= set(known["scope"].split()), f"scope {known['scope']}")
    true(known["exp"] > time.time(), "exp is past")
    other = world.session(world.service)
    for who, token in (
        (other, tokens["access_token"]),
        (session, "what nobody has issued"),
        (session, world.server.key),
    ):
        equal(who.introspect_token(url, token=token).json(), {"active": False}, "of a token of others")
    oauth_error(requests.post(url, data={"token": tokens["access_token"]}, timeout=TIMEOUT_S), 401, "invalid_client")


def revoked(world):
    """A revoked token stops at once, and its client alone can revoke it"""
    session, tokens, _, _ = world.log_in(world.dashboard, ELSEWHERE, "openid predict models:read")
    url = world.endpoint("revocation")
    world.session(world.service).revoke_token(url, token=tokens["access_token"])
    equal(world.status(tokens["access_token"]), 200, "after another client tried")
    equal(session.revoke_token(url, token=tokens["access_token"]).status_code, 200, "status")
    equal(world.status(tokens["access_token"]), 401, "with the revoked token")
    equal(
        session.introspect_token(world.endpoint("introspection"), token=tokens["access_token"]).json(),
        {"active": False},
        "introspection",
    )
    equal(
        session.revoke_token(url, token=tokens["refresh_token"], token_type_hint="refresh_token").status_code,
        200,
        "status",
    )
    failed_with(
        "invalid_grant", session.refresh_token, world.endpoint("token"), refresh_token=tokens["refresh_token"]
    )


def redeemed_once(world):
    """A code used again is refused and takes back what it gave"""
    session, tokens, code, verifier = world.log_in(world.dashboard, ELSEWHERE, "openid predict")
    failed_with(
        *("invalid_grant", session.fetch_token, world.endpoint("token")),
        **{"grant_type": "authorization_code", "code": code, "code_verifier": verifier, "redirect_uri": ELSEWHERE},
    )
    equal(world.status(tokens["access_token"]), 401, "with what the code gave before")


def endpoint_errors(world):
    """The token endpoint refuses in the words of RFC 6749"""
    url = world.endpoint("token")
    mine = {"client_id": world.public["client_id"]}
    for body, status, error in (
        (
            {"grant_type": "authorization_code", "code": "none", "redirect_uri": LOOPBACK, "code_verifier": "v" * 43}
            | mine,
            400,
            "invalid_grant",
        ),
        ({"grant_type": "refresh_token", "refresh_token": "none"} | mine, 400, "invalid_grant"),
        ({"grant_type": "refresh_token"} | mine, 400, "invalid_request"),
        (
            {"grant_type": "password", "username": USERNAME, "password": PASSWORD} | mine,
            400,
            "unsupported_grant_type",
        ),
        (
            {"grant_type": "client_credentials", "client_id": "nobody", "client_secret": "nothing"},
            401,
            "invalid_client",
        ),
        (mine, 400, "invalid_request"),
    ):
        oauth_error(requests.post(url, data=body, timeout=TIMEOUT_S), status, error)
    twice = requests.post(
        url, data=[("grant_type", "refresh_token"), ("grant_type", "refresh_token"), *mine.items()], timeout=TIMEOUT_S
    )
    oauth_error(twice, 400, "invalid_request")
    basic = requests.post(
        url, data={"grant_type": "client_credentials"}, auth=("nobody", "nothing"), timeout=TIMEOUT_S
    )
    oauth_error(basic, 401, "invalid_client")
    true(basic.headers.get("WWW-Authenticate", "").startswith("Basic"), "no challenge for a client that used Basic")


def forms_are_guarded(world):
    """Forms that the pages did not give are refused"""

    def login_form():
        browser = Browser(world.server.url)
        session = world.session(world.public, scope="openid predict", redirect_uri=LOOPBACK)
        url, _ = session.create_authorization_url(world.endpoint("authorization"), code_verifier=generate_token(48))
        page = browser.open(url)
        true(isinstance(page, Page) and page.form("/oauth2/login"), "there is no login page")
        form = page.form("/oauth2/login")
        equal(sorted(form["fields"]), ["csrf_token", "password", "request", "username"], "fields")
        return browser, form

    def is_refused(what, browser, form, button=None, **fields):
        place = browser.send(form, button, **fields)
        true(isinstance(place, Page), f"{what}: led elsewhere")
        true(400 <= place.status < 500 and not place.form("/oauth2/consent"), f"{what}: status {place.status}")

    who = {"username": USERNAME, "password": PASSWORD}
    browser, form = login_form()
    is_refused("another csrf_token", browser, form, csrf_token="x" * len(form["fields"]["csrf_token"]), **who)
    is_refused("no csrf_token", browser, form, csrf_token="", **who)
    is_refused("another request", browser, form, request="x" * len(form["fields"]["request"]), **who)
    is_refused("another browser", Browser(world.server.url), form, **who)
    other, _ = login_form()
    is_refused("another browser with cookies of its own", other, form, **who)

    before = {cookie.value for cookie in browser.session.cookies}
    page = browser.send(form, **who)
    true(isinstance(page, Page) and page.form("/oauth2/consent"), "the true form was refused")
    true(
        {cookie.value for cookie in browser.session.cookies} - before,
        "the session is the one from before the login (fixation)",
    )
    consent = page.form("/oauth2/consent")
    is_refused("another csrf_token at the consent", browser, consent, "allow", csrf_token="x")
    is_refused("the consent from another browser", Browser(world.server.url), consent, "allow")
    is_refused("a decision that is none", browser, consent, decision="perhaps")
    for path in ("/oauth2/login", "/oauth2/consent"):
        answer = browser.session.put(world.server.url + path, timeout=TIMEOUT_S)
        equal(answer.status_code, 405, f"PUT {path}")
    back = browser.send(consent, "allow")
    true(isinstance(back, str) and "code=" in back, "the true consent was refused")


def on_a_device(world):
    """A program without a browser gets its tokens by Authlib, once a person has allowed it elsewhere"""
    client = world.api(
        "POST",
        "/v1/oauth-clients",
        json={"name": "Shell", "grant_types": [DEVICE_CODE], "scopes": ["openid", "predict"], "public": True},
    ).json()
    session = world.session(client, token_endpoint_auth_method="none")
    begun = session.post(
        world.endpoint("device_authorization"), data={"client_id": client["client_id"]}, withhold_token=True
    ).json()
    true(begun["verification_uri"].startswith(world.server.url), f"the page is at {begun['verification_uri']}")
    ask = {"grant_type": DEVICE_CODE, "device_code": begun["device_code"]}
    failed_with("authorization_pending", session.fetch_token, world.endpoint("token"), **ask)
    failed_with("slow_down", session.fetch_token, world.endpoint("token"), **ask)
    person = Browser(world.server.url)
    page = person.open(begun["verification_uri_complete"])
    page = person.send(page.form("/oauth2/login"), username=USERNAME, password=PASSWORD)
    true(begun["user_code"] in page.text and "Shell" in page.text, f"the page does not say who asks: {page.text}")
    page = person.send(page.form("/oauth2/device"), "allow")
    equal(page.status, 200, f"status: {page.text}")
    tokens = session.fetch_token(world.endpoint("token"), **ask)
    equal(world.status(tokens["access_token"], "/oauth2/userinfo"), 200, "userinfo")
    true(tokens.get("id_token") and not tokens.get("refresh_token"), f"members {sorted(tokens)}")
    failed_with("invalid_grant", session.fetch_token, world.endpoint("token"), **ask)


def main():
    checks = Checks()
    with Server() as server:
        checks.run_all(
            (
                *(prepared, discovered, by_command, logged_in, verified, forged, userinfo, refreshed),
                *(credentials, introspected, revoked, redeemed_once, endpoint_errors, forms_are_guarded),
                on_a_device,
            ),
            World(server),
        )
        checks.run("the server still runs", true, server.running(), "it has ended")
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
