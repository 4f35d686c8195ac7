//! Passwords as fields of a body.

use auspex_kernel::fields::{Kind, Opaque, Wrong, opaque};
use serde_json::{Value, json};

use super::{CHARS, Password};

/// A password to be compared with a stored one.
pub(crate) fn presented(chars_max: usize) -> Presented {
    Presented(opaque(chars_max).password())
}

/// A password to be chosen. That it differs from the username is for the body to check, by
/// [`Password::check_choice`].
pub(crate) fn chosen() -> Chosen {
    Chosen
}

/// See [`presented`].
pub(crate) struct Presented(Opaque);

/// See [`chosen`].
pub(crate) struct Chosen;

impl Kind for Presented {
    type Value = Password;

    fn read(&self, value: &Value) -> Result<Password, Wrong> {
        self.0.read(value).map(Password::from)
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}

impl Kind for Chosen {
    type Value = Password;

    fn read(&self, value: &Value) -> Result<Password, Wrong> {
        let password = Password::from(value.as_str().ok_or("must be text")?);
        match password.check_choice("") {
            Ok(_) => Ok(password),
            Err(wrong) => Err(wrong.message.into()),
        }
    }

    fn schema(&self) -> Value {
        let (low, high) = (CHARS.start(), CHARS.end());
        json!({"type": "string", "format": "password", "minLength": low, "maxLength": high})
    }
}
