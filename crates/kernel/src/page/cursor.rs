//! Cursors: positions in a list, opaque to clients, and refused unless this server issued them for
//! the same list.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// HMAC cut short, as RFC 2104 §5 allows.
const MAC_BYTES: usize = 16;
/// Longer cursors were not issued, and are not worth a hash.
const CURSOR_CHARS_MAX: usize = 1024;

/// Signs cursors. All processes on the same database need the same key.
#[derive(Clone)]
pub struct CursorKey(pub [u8; 32]);

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey(…)")
    }
}

/// The position of an entry in its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Position {
    /// By number.
    Number(i64),
    /// By text.
    Text(String),
}

impl Position {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }
}

impl From<&str> for Position {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Position {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Position {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// The direction in which a list continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the following entries.
    Next,
    /// To the preceding entries.
    Prev,
}

/// A position in a list, from which it continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The last entry seen.
    pub last_id: Position,
    /// The direction.
    pub direction: Direction,
}

impl Cursor {
    /// The URL-safe base64 (RFC 4648 §5, without padding) of a keyed hash and the JSON, for the
    /// list of this name.
    ///
    /// # Panics
    /// Never: a cursor is JSON.
    pub fn encode(&self, key: &CursorKey, list: &str) -> String {
        let json = serde_json::to_vec(self).expect("text and numbers");
        let mut bytes = mac(key, list, &json).finalize().into_bytes()[..MAC_BYTES].to_vec();
        bytes.extend(json);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor that was encoded with this key for the list of this name.
    pub fn decode(text: &str, key: &CursorKey, list: &str) -> Option<Self> {
        if text.len() > CURSOR_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tag, json) = bytes.split_at_checked(MAC_BYTES)?;
        mac(key, list, json).verify_truncated_left(tag).ok()?;
        serde_json::from_slice(json).ok()
    }
}

/// The JSON contains no bare line feed, so there is only one way to split name and JSON.
fn mac(key: &CursorKey, list: &str, json: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::new_from_slice(&key.0).expect("HMAC takes keys of any length");
    mac.chain_update(list).chain_update("\n").chain_update(json)
}
