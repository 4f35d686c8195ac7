//! OAuth 2.0 from outside: the way to a token, and every way around it that we know of.

mod claims;
mod clients;
mod device;
mod in_browsers;
mod limits;
mod logout;
mod own;
mod pages;
mod people;
mod tokens;

use serde_json::{Value, json};

use crate::browser::{Browser, encode, hidden, location};
use crate::client::Answer;
use crate::server::Server;

const PASSWORD: &str = "correct horse battery";
const CALLBACK: &str = "https://app.example.org/cb";
const LOOPBACK: &str = "http://127.0.0.1/cb";
const STATE: &str = "a b&c=d/\"<script>\r\nSet-Cookie: x=1 \u{f1}";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct World {
    server: Server,
    user: String,
    /// Id and secret.
    app: (String, String),
    notebook: String,
}

impl World {
    fn start() -> Self {
        let server = Server::start();
        let user = json!({"name": "Ann <i>", "email": "ann@example.org", "username": "ann",
            "password": PASSWORD, "roles": ["data-scientist"]});
        let user = made(&server, "/v1/users", &user);
        let app = json!({"name": "App <b>\"'", "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "refresh_token", "client_credentials"],
            "scopes": ["openid", "email", "predict", "models:read", "users:write"]});
        let app = made(&server, "/v1/oauth-clients", &app);
        let notebook = json!({"name": "Notebook", "redirect_uris": [LOOPBACK],
            "grant_types": ["authorization_code"], "scopes": ["openid", "predict"], "public": true});
        let notebook = made(&server, "/v1/oauth-clients", &notebook);
        assert_eq!(notebook["client_secret"], Value::Null);
        Self {
            user: text(&user["id"]),
            app: (text(&app["client_id"]), text(&app["client_secret"])),
            notebook: text(&notebook["client_id"]),
            server,
        }
    }

    fn browser(&self) -> Browser {
        Browser::new(self.server.address)
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// An authorization request with these parameters instead of the usual ones; empty ones are left
    /// out.
    fn request(&self, changes: &[(&str, &str)]) -> String {
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", self.app.0.as_str()),
            ("redirect_uri", CALLBACK),
            ("scope", "openid predict"),
            ("state", STATE),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for change in changes {
            match fields.iter_mut().find(|(name, _)| *name == change.0) {
                Some(field) => field.1 = change.1,
                None => fields.push(*change),
            }
        }
        fields.retain(|(_, value)| !value.is_empty());
        format!("/oauth2/authorize?{}", encode(&fields))
    }

    /// Logs in; the answer is what comes after.
    fn log_in(&self, browser: &mut Browser, request: &str) -> Answer {
        let page = browser.get(request);
        assert_eq!(page.status, 200, "{}", page.text());
        let answer = submit_login(browser, &page, "ann", PASSWORD);
        assert_eq!(answer.status, 303, "{}", answer.text());
        browser.get(answer.header("location").expect("a place"))
    }

    /// Logs in and agrees; the parameters that come back.
    fn authorize(&self, browser: &mut Browser, request: &str) -> Vec<(String, String)> {
        let page = self.log_in(browser, request);
        // The user is asked once.
        let answer = match page.status {
            200 => submit_consent(browser, &page, "allow"),
            _ => page,
        };
        assert_eq!(answer.status, 303, "{}", answer.text());
        location(&answer).1.into_iter().collect()
    }

    fn code(&self) -> String {
        let back = self.authorize(&mut self.browser(), &self.request(&[]));
        value(&back, "code").expect("a code").to_owned()
    }

    /// Asks an endpoint as the confidential client.
    fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let own = [
            ("client_id", self.app.0.as_str()),
            ("client_secret", self.app.1.as_str()),
        ];
        self.browser().post(path, &[fields, &own].concat())
    }

    fn redeem(&self, code: &str, verifier: &str) -> Answer {
        self.ask(
            "/oauth2/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", verifier),
            ],
        )
    }

    fn refresh(&self, token: &str, scope: &str) -> Answer {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("scope", scope),
        ];
        self.ask("/oauth2/token", &fields)
    }

    fn tokens(&self) -> (String, String) {
        let answer = self.redeem(&self.code(), VERIFIER);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = answer.json();
        (
            text(&tokens["access_token"]),
            text(&tokens["refresh_token"]),
        )
    }

    fn status_with(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        self.server
            .connect()
            .send("GET", "/oauth2/userinfo", &headers, b"")
            .status
    }
}

fn made(server: &Server, path: &str, body: &Value) -> Value {
    let answer = server.post(path, body.to_string());
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    answer.json()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

fn value<'p>(parameters: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let mut found = parameters.iter().filter(|(known, _)| known == name);
    found.next().map(|(_, value)| value.as_str())
}

fn submit_login(browser: &mut Browser, page: &Answer, username: &str, password: &str) -> Answer {
    let fields = [
        ("csrf_token", &*hidden(page, "csrf_token")),
        ("request", &*hidden(page, "request")),
        ("username", username),
        ("password", password),
    ];
    browser.post("/oauth2/login", &fields)
}

fn submit_consent(browser: &mut Browser, page: &Answer, decision: &str) -> Answer {
    let fields = [
        ("csrf_token", &*hidden(page, "csrf_token")),
        ("request", &*hidden(page, "request")),
        ("decision", decision),
    ];
    browser.post("/oauth2/consent", &fields)
}

fn error_of(answer: &Answer) -> String {
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    text(&answer.json()["error"])
}
