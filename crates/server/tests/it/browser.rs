//! A browser as far as the login pages need one: cookies, forms, and redirects that are looked at
//! instead of followed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::client::{Answer, Connection};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

pub(crate) struct Browser {
    address: SocketAddr,
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            cookies: BTreeMap::new(),
        }
    }

    /// One of our cookies, by the word in its name: `session`, `login` or `continue`.
    pub(crate) fn cookie(&self, kind: &str) -> Option<&String> {
        let prefix = format!("auspex_{kind}_");
        let mut cookies = self.cookies.iter();
        cookies.find_map(|(name, value)| name.starts_with(&prefix).then_some(value))
    }

    /// What the names of our cookies end with, once there is one.
    pub(crate) fn installation(&self) -> String {
        let name = self.cookies.keys().find(|name| name.starts_with("auspex_"));
        let end = name.and_then(|name| name.splitn(3, '_').nth(2));
        end.expect("a cookie of ours").to_owned()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    /// Sends a form. Where the page that follows leads on, that is the place of the answer.
    pub(crate) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let answer = self.send("POST", path, &[FORM], &encode(fields));
        let step = answer.header("location").unwrap_or_default();
        if !step.starts_with("/oauth2/continue?") {
            return answer;
        }
        let page = self.get(step);
        assert_eq!(page.status, 200, "{}", page.text());
        answer.with_header("location", &led_to(&page))
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let pairs = self.cookies.iter().map(|(k, v)| format!("{k}={v}"));
        let cookies = pairs.collect::<Vec<_>>().join("; ");
        let mut headers = headers.to_vec();
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        let mut connection = Connection::open(self.address);
        let answer = connection.send(method, path, &headers, body.as_bytes());
        for line in answer.headers("set-cookie") {
            let (pair, rules) = line.split_once(';').expect("rules");
            let (name, value) = pair.split_once('=').expect("a name");
            self.cookies.insert(name.to_owned(), value.to_owned());
            if rules.contains("Max-Age=0") {
                self.cookies.remove(name);
            }
        }
        answer
    }
}

/// A form, or a query.
pub(crate) fn encode(fields: &[(&str, &str)]) -> String {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a string");
        }
        escaped
    })
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: String = rest.by_ref().take(2).map(char::from).collect();
            bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// The value of a hidden field.
pub(crate) fn hidden(page: &Answer, name: &str) -> String {
    let text = page.text();
    let begin = format!("type=\"hidden\" name=\"{name}\" value=\"");
    let from = text
        .find(&begin)
        .unwrap_or_else(|| panic!("no {name}: {text}"))
        + begin.len();
    let rest = &text[from..];
    rest[..rest.find('"').expect("an end")].to_owned()
}

/// Where a page leads on to by itself, which its link says too.
pub(crate) fn led_to(page: &Answer) -> String {
    let text = page.text();
    let between = |begin: &str| {
        let (_, rest) = text.split_once(begin).expect(begin);
        rest.split('"').next().expect("an end")
    };
    let to = between("<meta http-equiv=\"refresh\" content=\"0;url=");
    assert_eq!(between("<a href=\""), to);
    to.replace("&#38;", "&").replace("&#39;", "'")
}

/// Where a redirect leads, and its parameters.
pub(crate) fn location(answer: &Answer) -> (String, BTreeMap<String, String>) {
    let location = answer.header("location");
    let location = location.unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text()));
    let (place, query) = location.split_once('?').unwrap_or((location, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), unescape(value)));
    (place.to_owned(), pairs.collect())
}
