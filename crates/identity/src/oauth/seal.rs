//! What travels through a browser and must come back as it was: the request that a page is about, and
//! the proof that a form is from a page that this browser was shown.

use std::time::Duration;

use auspex_kernel::{Clock, Timestamp};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How long somebody may take over one page.
const PAGE_TTL: Duration = Duration::from_mins(30);

/// What a page asks for. What was sealed for one page does not open for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Login,
    Consent,
    Logout,
    /// A request to log out that came as a form; its holder is whom an ID token named.
    EndSession,
    Account,
    /// A login on the way to the page for devices.
    DeviceLogin,
    Device,
    /// To go on from a form.
    Continue,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Purpose::Login => "login",
            Purpose::Consent => "consent",
            Purpose::Logout => "logout",
            Purpose::EndSession => "end session",
            Purpose::Account => "account",
            Purpose::DeviceLogin => "device login",
            Purpose::Device => "device",
            Purpose::Continue => "continue",
        }
    }
}

/// What a page carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The query of the authorization request; checked anew whenever it comes back. For devices:
    /// the user code. To go on from a form: where to.
    pub(crate) query: String,
    /// The scopes that the person was shown.
    pub(crate) scopes: String,
    /// The user that the page was shown to. To go on from a form: by what the browser's ticket is
    /// recognised.
    pub(crate) holder: String,
}

/// Seals and opens, by a key that is the same in every process on one database.
#[derive(Clone)]
pub(crate) struct Seals {
    key: hmac::Key,
    clock: Clock,
}

impl Seals {
    pub(crate) fn new(secret: &[u8], clock: Clock) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { key, clock }
    }

    fn mac(&self, parts: &[&str]) -> hmac::Tag {
        hmac::sign(&self.key, message(parts).as_bytes())
    }

    fn is_mac(&self, parts: &[&str], mac: &str) -> bool {
        let Ok(mac) = URL_SAFE_NO_PAD.decode(mac) else {
            return false;
        };
        hmac::verify(&self.key, message(parts).as_bytes(), &mac).is_ok()
    }

    /// Seals a request for the hidden field of a page.
    pub(crate) fn seal(&self, purpose: Purpose, sealed: &Sealed) -> String {
        let until = (self.clock.now() + PAGE_TTL).0.to_string();
        let text = format!(
            "{until}\n{}\n{}\n{}",
            sealed.scopes, sealed.holder, sealed.query
        );
        let mac = self.mac(&["request", purpose.as_str(), &text]);
        let (text, mac) = (URL_SAFE_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(mac));
        format!("{text}.{mac}")
    }

    /// Opens it, unless it was changed or is too old.
    pub(crate) fn open(&self, purpose: Purpose, text: &str) -> Option<Sealed> {
        let (text, mac) = text.split_once('.')?;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        if !self.is_mac(&["request", purpose.as_str(), &text], mac) {
            return None;
        }
        let mut parts = text.splitn(4, '\n');
        let until = Timestamp(parts.next()?.parse().ok()?);
        let mut part = || parts.next().map(str::to_owned);
        let (scopes, holder, query) = (part()?, part()?, part()?);
        let is_open = self.clock.now().is_during(until - PAGE_TTL, until);
        is_open.then_some(Sealed {
            query,
            scopes,
            holder,
        })
    }

    /// Sets the cookies of one installation apart from those of others: browsers send the cookies of a
    /// host to every port of it. It is the same in every process on one database.
    pub(crate) fn installation(&self) -> String {
        let mut text = URL_SAFE_NO_PAD.encode(self.mac(&["installation"]));
        text.truncate(8);
        text
    }

    /// The hidden field that proves a form to be ours: no other page knows the cookie, which is not
    /// in the field. It is for one user, or for nobody who is logged in; another login of the same
    /// user, as in a second tab, does not end it.
    pub(crate) fn csrf_token(&self, cookie: &str, user: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(&["csrf", cookie, user]))
    }

    /// Whether the field fits cookie and user. Takes one time for all wrong ones.
    pub(crate) fn is_csrf_token(&self, cookie: &str, user: &str, token: &str) -> bool {
        self.is_mac(&["csrf", cookie, user], token)
    }
}

/// No part but the last can hold a NUL, so that parts cannot be cut otherwise.
fn message(parts: &[&str]) -> String {
    parts.join("\0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_769_335_200_000_000);

    fn seals(clock: &Clock) -> Seals {
        Seals::new(&[7; 32], clock.clone())
    }

    fn seals_now() -> Seals {
        seals(&Clock::manual(NOW))
    }

    fn sealed() -> Sealed {
        Sealed {
            query: "client_id=C&state=a\nb".into(),
            scopes: "openid predict".into(),
            holder: "ann".into(),
        }
    }

    #[test]
    fn what_is_sealed_comes_back_for_its_purpose_and_in_time() {
        let clock = Clock::manual(NOW);
        let seals = seals(&clock);
        let text = seals.seal(Purpose::Login, &sealed());
        assert_eq!(seals.open(Purpose::Consent, &text), None);
        let other = Seals::new(&[8; 32], clock.clone());
        assert_eq!(other.open(Purpose::Login, &text), None);
        let last = Duration::from_micros(1);
        clock.advance(PAGE_TTL - last);
        assert_eq!(seals.open(Purpose::Login, &text), Some(sealed()));
        clock.advance(last);
        assert_eq!(seals.open(Purpose::Login, &text), None);
    }

    #[test]
    fn a_changed_seal_does_not_open() {
        let text = seals_now().seal(Purpose::Consent, &sealed());
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of a base64 text may hold bits that stand for nothing; those
            // texts are refused by the decoder.
            assert_eq!(seals_now().open(Purpose::Consent, &changed), None, "{at}");
            assert_eq!(seals_now().open(Purpose::Consent, &text[..at]), None);
        }
    }

    #[test]
    fn csrf_tokens_belong_to_one_cookie_and_one_user() {
        let token = seals_now().csrf_token("cookie", "ann");
        let fits = |cookie, user, token| seals_now().is_csrf_token(cookie, user, token);
        assert!(fits("cookie", "ann", &token));
        for (cookie, user) in [
            ("cookies", "ann"),
            ("cookie", "bob"),
            ("cookie", ""),
            ("", ""),
        ] {
            assert!(!fits(cookie, user, &token), "{cookie} {user}");
        }
        assert!(!fits("cookie", "ann", ""));
        assert!(!token.contains("cookie"));
    }

    proptest! {
        #[test]
        fn garbage_does_not_open(text in "[A-Za-z0-9_.-]{0,200}|.{0,80}") {
            prop_assert_eq!(seals_now().open(Purpose::Login, &text), None);
            prop_assert!(!seals_now().is_csrf_token("cookie", "ann", &text));
        }
    }
}
