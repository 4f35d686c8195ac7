//! The fastest reader: records as most programs write them.
//!
//! It takes records and lists of them whose texts have no escapes and whose numbers have no
//! exponent and no more digits than a float holds exactly; anything else is left to the JSON
//! library. It reads keys by comparing them with the ones expected, so that a key in its usual place
//! costs one comparison.

use std::sync::atomic::Ordering;

use auspex_engine::{RowBuffer, Texts};

use super::{Plan, Scratch, Shape};
use crate::schema::Field;

/// Powers of ten that a float holds exactly.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];
/// An integer of this many digits always fits into 64 bits.
const INTEGER_DIGITS_MAX: usize = 18;
/// An integer of this many digits is always exact as a float; divided by one of [`POWERS`] it is the
/// nearest float to the decimal (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990).
const DECIMAL_DIGITS_MAX: usize = 15;

/// Reads a whole body, or gives up.
pub(super) fn scan(
    plan: &Plan,
    text: &str,
    rows_max: usize,
    scratch: &mut Scratch,
) -> Option<Shape> {
    let mut text = Cursor { text, at: 0 };
    text.skip_space();
    let shape = if text.take(b'[') {
        list(plan, &mut text, rows_max, scratch)?;
        Shape::Records
    } else {
        record(plan, &mut text, scratch)?;
        Shape::Record
    };
    text.skip_space();
    (text.at == text.text.len()).then_some(shape)
}

fn list(plan: &Plan, text: &mut Cursor<'_>, rows_max: usize, scratch: &mut Scratch) -> Option<()> {
    for _ in 0..rows_max {
        text.skip_space();
        record(plan, text, scratch)?;
        text.skip_space();
        match text.next()? {
            b',' => {}
            b']' => return Some(()),
            _ => return None,
        }
    }
    None
}

fn record(plan: &Plan, text: &mut Cursor<'_>, scratch: &mut Scratch) -> Option<()> {
    let RowBuffer { values, texts } = &mut scratch.rows;
    let begin = values.len();
    values.extend_from_slice(&plan.template);
    let row = &mut values[begin..];
    let seen = &mut scratch.seen[..plan.required.len()];
    seen.fill(0);
    let mut at = plan.names.len();
    text.take(b'{').then_some(())?;
    loop {
        text.skip_space();
        at = key(plan, text, at)?;
        let bit = 1 << (at % 64);
        if seen[at / 64] & bit != 0 {
            return None;
        }
        seen[at / 64] |= bit;
        text.skip_space();
        text.take(b':').then_some(())?;
        text.skip_space();
        let field = plan.fields.get(at);
        let coded = value(field, text, texts)?;
        if field.is_some() {
            row[at] = coded;
        }
        text.skip_space();
        match text.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    seen.iter()
        .zip(&plan.required)
        .all(|(seen, all)| seen & all == *all)
        .then_some(())
}

/// The field a key names, guessing that it is the one that followed field `at` the last time.
#[inline]
fn key(plan: &Plan, text: &mut Cursor<'_>, at: usize) -> Option<usize> {
    let guess = plan.next[at].load(Ordering::Relaxed) as usize;
    let quoted = &*plan.quoted[guess];
    if text.rest().starts_with(quoted) {
        text.at += quoted.len();
        return Some(guess);
    }
    text.take(b'"').then_some(())?;
    plan.find(text.string()?, at)
}

/// What a value is worth; that of an unused field is skipped.
#[inline]
fn value(field: Option<&Field>, text: &mut Cursor<'_>, texts: &mut Texts) -> Option<f64> {
    match text.peek()? {
        b'"' => {
            text.at += 1;
            let string = text.string()?;
            field.map_or(Some(0.0), |field| field.text(string, texts))
        }
        b'0'..=b'9' | b'-' => {
            let number = text.number()?;
            field.map_or(Some(0.0), |field| match number {
                Number::Integer { size, is_negative } => field.integer(size, is_negative, texts),
                Number::Decimal(value) => field.number(value),
            })
        }
        b't' => text.word("true", || {
            field.map_or(Some(0.0), |field| field.boolean(true, texts))
        }),
        b'f' => text.word("false", || {
            field.map_or(Some(0.0), |field| field.boolean(false, texts))
        }),
        b'n' => text.word("null", || field.map_or(Some(0.0), Field::null)),
        _ => None,
    }
}

/// A number as it is written.
enum Number {
    Integer { size: u64, is_negative: bool },
    Decimal(f64),
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    #[inline]
    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, worth: impl FnOnce() -> Option<f64>) -> Option<f64> {
        self.rest().starts_with(word.as_bytes()).then_some(())?;
        self.at += word.len();
        worth()
    }

    /// The rest of a string, after its opening quote, if there is nothing special in it.
    #[inline]
    fn string(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | ..0x20))?;
        if rest[end] != b'"' {
            return None;
        }
        let string = self.text.get(self.at..self.at + end);
        self.at += end + 1;
        string
    }

    /// A number that can be read without rounding twice.
    #[inline]
    fn number(&mut self) -> Option<Number> {
        let is_negative = self.take(b'-');
        let begin = self.at;
        let mut digits = self.digits(0);
        let (whole, mut scale) = (self.at - begin, 0);
        let is_padded = whole > 1 && self.text.as_bytes()[begin] == b'0';
        if whole == 0 || whole > INTEGER_DIGITS_MAX || is_padded {
            return None;
        }
        if self.take(b'.') {
            let begin = self.at;
            digits = self.digits(digits);
            scale = self.at - begin;
            if scale == 0 || whole + scale > DECIMAL_DIGITS_MAX {
                return None;
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            return None;
        }
        if scale == 0 {
            let size = digits;
            return Some(Number::Integer { size, is_negative });
        }
        let size = digits as f64 / POWERS[scale];
        Some(Number::Decimal(if is_negative { -size } else { size }))
    }

    /// Reads digits after those before; the caller counts them and refuses what overflows.
    #[inline]
    fn digits(&mut self, mut before: u64) -> u64 {
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            before = before
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        before
    }
}
