//! JSON (RFC 8259) with the two liberties XGBoost takes when it writes: `NaN` and `Infinity`.

use super::{Budget, CUT_OFF, Fault, Numbers, Object, Value};
use std::borrow::Cow;

/// Longer than any number, word or escape that XGBoost writes.
const TOKEN_BYTES_MAX: usize = 40;

/// Parses a whole file; anything but white space after the value is an error.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value<'_>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let reason = match error.error_len() {
            None => CUT_OFF,
            Some(_) => "not UTF-8",
        };
        Fault::new(reason).inside(format_args!("byte {}", error.valid_up_to()))
    })?;
    let mut parser = Parser {
        text,
        bytes,
        at: 0,
        budget: Budget::default(),
    };
    let value = parser.value().and_then(|value| {
        parser.skip_spaces();
        match parser.peek() {
            None => Ok(value),
            Some(_) => Err(Fault::new("something follows the end of the document")),
        }
    });
    value.map_err(|fault| fault.inside(format_args!("byte {}", parser.at)))
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    budget: Budget,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        self.at = end_of_spaces(self.bytes, self.at);
    }

    /// Takes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{}`", char::from(byte))))
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        // What may be the beginning of a number, a word or an escape.
        let begins_token = |c: char| c.is_ascii_alphanumeric() || "-+.".contains(c);
        let rest = self.text.get(self.at..).unwrap_or_default();
        match rest.chars().next() {
            Some(found) if rest.len() > TOKEN_BYTES_MAX || !rest.chars().all(begins_token) => {
                Fault(format!("expected {wanted}, found {found:?}"))
            }
            _ => Fault::new(CUT_OFF),
        }
    }

    fn value(&mut self) -> Result<Value<'a>, Fault> {
        self.budget.value()?;
        self.skip_spaces();
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.list(),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => match self.numeral() {
                Some(text) => Ok(Value::Numeral(text)),
                None => Err(self.unexpected("a value")),
            },
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Fault> {
        match self.take_word(word) {
            true => Ok(value),
            false => Err(self.unexpected(&format!("`{word}`"))),
        }
    }

    /// Takes a word if it is next.
    fn take_word(&mut self, word: &str) -> bool {
        let next = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += if next { word.len() } else { 0 };
        next
    }

    /// The numeral that starts here; the position does not move if there is none.
    fn numeral(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at = end_of_numeral(self.bytes, start)?;
        Some(&self.text[start..self.at])
    }

    /// The text of a list of numerals, up to its bracket; `None` if it holds anything else, and the position
    /// does not move then.
    fn numerals(&mut self) -> Option<&'a str> {
        let start = self.at;
        let mut at = start;
        loop {
            at = end_of_spaces(self.bytes, at);
            at = end_of_numeral(self.bytes, at)?;
            at = end_of_spaces(self.bytes, at);
            match self.bytes.get(at)? {
                b',' => at += 1,
                b']' => {
                    self.at = at + 1;
                    return Some(&self.text[start..at]);
                }
                _ => return None,
            }
        }
    }

    fn list(&mut self) -> Result<Value<'a>, Fault> {
        self.expect(b'[')?;
        if let Some(text) = self.numerals() {
            return Ok(Value::Numbers(Numbers::Text(text)));
        }
        self.skip_spaces();
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        self.budget.enter()?;
        loop {
            items.push(self.value()?);
            self.skip_spaces();
            if self.take(b']') {
                break;
            }
            self.expect(b',')?;
        }
        self.budget.leave();
        Ok(Value::List(items))
    }

    fn object(&mut self) -> Result<Value<'a>, Fault> {
        self.expect(b'{')?;
        self.skip_spaces();
        let mut entries = Vec::new();
        if self.take(b'}') {
            return Ok(Value::Object(Object::default()));
        }
        self.budget.enter()?;
        loop {
            self.skip_spaces();
            let key = self.string()?;
            self.skip_spaces();
            self.expect(b':')?;
            entries.push((key, self.value()?));
            self.skip_spaces();
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
        }
        self.budget.leave();
        Object::new(entries).map(Value::Object)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'"')?;
        let mut decoded = String::new();
        loop {
            let start = self.at;
            // Every byte this stops at is ASCII, so the slices below end on character borders.
            while self
                .peek()
                .is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20)
            {
                self.at += 1;
            }
            let plain = &self.text[start..self.at];
            if self.take(b'"') {
                if decoded.is_empty() {
                    return Ok(Cow::Borrowed(plain));
                }
                decoded.push_str(plain);
                return Ok(Cow::Owned(decoded));
            }
            decoded.push_str(plain);
            if !self.take(b'\\') {
                return Err(self.unexpected("the end of a string"));
            }
            decoded.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let plain = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("an escape")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let first = self.hex4()?;
        let code = if (0xD800..0xDC00).contains(&first) {
            self.expect(b'\\')?;
            self.expect(b'u')?;
            let second = self.hex4()?;
            if !(0xDC00..0xE000).contains(&second) {
                return Err(Fault::new("half of a surrogate pair"));
            }
            0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| Fault::new("half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Result<u32, Fault> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let code = digits.and_then(|digits| {
            digits.iter().try_fold(0, |code, &digit| {
                Some(code * 16 + char::from(digit).to_digit(16)?)
            })
        });
        let code = code.ok_or_else(|| self.unexpected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[inline(always)]
fn end_of_spaces(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The end of the numeral that starts here, if one does.
#[inline(always)]
fn end_of_numeral(bytes: &[u8], start: usize) -> Option<usize> {
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    let digits = |at: usize| Some(end_of_digits(bytes, at)).filter(|end| *end > at);
    let first = start + usize::from(is(start, b'-'));
    let Some(mut at) = digits(first) else {
        let rest = &bytes[first..];
        let word = ["NaN", "Infinity"].into_iter();
        let mut found = word.filter(|word| rest.starts_with(word.as_bytes()));
        return found.next().map(|word| first + word.len());
    };
    if is(at, b'.') {
        at = digits(at + 1)?;
    }
    if is(at, b'e') || is(at, b'E') {
        let signed = is(at + 1, b'-') || is(at + 1, b'+');
        at = digits(at + 1 + usize::from(signed))?;
    }
    Some(at)
}

/// The end of the digits that start here, eight bytes at a time.
#[inline(always)]
fn end_of_digits(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        // A byte above 9 after this is no digit. It gets its highest bit set; those before it have no carry.
        let digits = u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030;
        let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
        at += (others.trailing_zeros() / 8) as usize;
        if others != 0 {
            return at;
        }
    }
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().0
    }

    #[test]
    fn reads_every_kind_of_value() {
        let document = parse(
            br#" {"a": [1, -2.5e3, NaN, -Infinity], "b": [true, null, "x"], "c": "\u00e9\n\ud83d\ude00",
                 "d": {}, "e": [], "f": "7", "g": 12} "#,
        )
        .unwrap();
        let object = document.as_object().unwrap();
        let floats = object.floats("a").unwrap();
        assert_eq!(floats[..2], [1.0, -2500.0]);
        assert!(floats[2].is_nan() && floats[3] == f32::NEG_INFINITY);
        assert_eq!(object.list("b").unwrap().len(), 3);
        assert_eq!(object.text("c").unwrap(), "é\n😀");
        assert!(object.floats("e").unwrap().is_empty() && object.list("e").unwrap().is_empty());
        assert_eq!(object.parameter("f").unwrap(), Some(7));
        assert_eq!(object.parameter("g").unwrap(), Some(12));
    }

    #[test]
    fn numerals_become_the_nearest_f32_without_a_detour_through_f64() {
        // Just above the middle of two neighbouring f32, but nearer to the middle than any f64.
        let text = "[1.000000059604644775390625000000001]";
        let value = parse(text.as_bytes()).unwrap().to_floats().unwrap()[0];
        assert_eq!(value.to_bits(), 1.0f32.to_bits() + 1);
    }

    #[test]
    fn numerals_of_any_length_end_where_they_do() {
        for length in 1..40 {
            let digits = "1234567890".repeat(4)[..length].to_owned();
            for after in 0..12 {
                let rest = "é,]e:/aNz 0"[..].chars().take(after).collect::<String>();
                for text in [digits.clone(), format!("-{digits}.{digits}E-{digits}")] {
                    let whole = format!("{text}/{rest}");
                    assert_eq!(end_of_numeral(whole.as_bytes(), 0), Some(text.len()));
                    assert_eq!(end_of_numeral(text.as_bytes(), 0), Some(text.len()));
                }
            }
        }
        let text = "-NaN,-Infinity,1.,1e+,-,12:";
        let ends = [4, 14].map(Some);
        assert_eq!([0, 5].map(|at| end_of_numeral(text.as_bytes(), at)), ends);
        assert_eq!(
            [15, 18, 22].map(|at| end_of_numeral(text.as_bytes(), at)),
            [None; 3]
        );
        assert_eq!(end_of_numeral(text.as_bytes(), text.len()), None);
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        assert_eq!(
            fault(r#"{"a": 1, "b": 2, "a": 3}"#),
            "byte 24: `a` is there twice"
        );
    }

    #[test]
    fn what_follows_the_document_is_refused() {
        assert_eq!(
            fault("{} {}"),
            "byte 3: something follows the end of the document"
        );
    }

    #[test]
    fn truncated_documents_are_refused() {
        let text = r#"{"a": [1, -2.5e3], "b": "c\n\u00e9", "d": [true]}"#;
        for end in 0..text.len() {
            let fault = fault(&text[..end]);
            assert!(fault.contains("the file is cut off here"), "{fault}");
        }
        let half = "{\"é".as_bytes();
        let fault = parse(&half[..half.len() - 1]).unwrap_err().0;
        assert_eq!(fault, format!("byte 2: {CUT_OFF}"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(fault(&"[".repeat(100_000)).contains("nested deeper than 64"));
        assert!(fault(&r#"{"a":"#.repeat(100_000)).contains("nested deeper than 64"));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for text in [
            "",
            "01x",
            "[1,]",
            "[1 2]",
            "{a: 1}",
            "\"\\q\"",
            "\"\\ud800\"",
            "-",
            "1.",
            "1e",
            "nul",
            "\"\n\"",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }
}
