//! Universal Binary JSON (ubjson.org, draft 12) as far as XGBoost writes it: every length is an
//! `L` (64-bit) integer unless another integer type says otherwise, numbers are big-endian.

use super::numbers::Packed;
use super::{Budget, CUT_OFF, Fault, Numbers, Object, Value};
use std::borrow::Cow;

/// Parses a whole file; anything after the value is an error.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value<'_>, Fault> {
    let mut parser = Parser {
        bytes,
        at: 0,
        budget: Budget::default(),
    };
    let value = parser
        .marker()
        .and_then(|marker| parser.value(marker))
        .and_then(|value| {
            if parser.at == bytes.len() {
                return Ok(value);
            }
            Err(Fault::new("something follows the end of the document"))
        });
    value.map_err(|fault| fault.inside(format_args!("byte {}", parser.at)))
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    budget: Budget,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        let Some(slice) = rest.get(..length) else {
            return Err(Fault(format!(
                "{CUT_OFF} ({length} bytes are announced, and {} are left)",
                rest.len()
            )));
        };
        self.at += length;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (chunks, _) = self.slice(N)?.as_chunks::<N>();
        Ok(chunks[0])
    }

    fn marker(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        match self.marker()? {
            found if found == byte => Ok(()),
            found => Err(Fault(format!(
                "expected `{}`, found byte 0x{found:02x}",
                char::from(byte)
            ))),
        }
    }

    fn integer(&mut self, marker: u8) -> Result<Option<i64>, Fault> {
        Ok(Some(match marker {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' | b'C' => i64::from(u8::from_be_bytes(self.array()?)),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Ok(None),
        }))
    }

    fn length(&mut self) -> Result<usize, Fault> {
        let marker = self.marker()?;
        let Some(length) = self.integer(marker)? else {
            return Err(Fault(format!(
                "expected a length, found byte 0x{marker:02x}: the file is damaged; copy or save it again"
            )));
        };
        usize::try_from(length).map_err(|_| {
            Fault(format!(
                "a length of {length}: the file is damaged; copy or save it again"
            ))
        })
    }

    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        let length = self.length()?;
        let bytes = self.slice(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::new("text is not UTF-8"))?;
        Ok(Cow::Borrowed(text))
    }

    fn value(&mut self, marker: u8) -> Result<Value<'a>, Fault> {
        self.budget.value()?;
        if let Some(value) = self.integer(marker)? {
            return Ok(Value::Integer(value));
        }
        Ok(match marker {
            b'Z' => Value::Null,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'd' => Value::Float(f64::from(f32::from_be_bytes(self.array()?))),
            b'D' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'S' => Value::Text(self.text()?),
            b'[' => return self.list(),
            b'{' => return self.object(),
            other => return Err(Fault(format!("unknown marker, byte 0x{other:02x}"))),
        })
    }

    fn list(&mut self) -> Result<Value<'a>, Fault> {
        self.budget.enter()?;
        let value = match self.peek() {
            Some(b'$') => self.packed()?,
            Some(b'#') => {
                self.at += 1;
                let length = self.length()?;
                // Not reserved: the announced length is a claim, each item is a fact.
                let mut items = Vec::new();
                for _ in 0..length {
                    let marker = self.marker()?;
                    items.push(self.value(marker)?);
                }
                Value::List(items)
            }
            _ => {
                let mut items = Vec::new();
                loop {
                    match self.marker()? {
                        b']' => break Value::List(items),
                        marker => items.push(self.value(marker)?),
                    }
                }
            }
        };
        self.budget.leave();
        Ok(value)
    }

    fn packed(&mut self) -> Result<Value<'a>, Fault> {
        self.expect(b'$')?;
        let marker = self.marker()?;
        let Some(kind) = Packed::from_marker(marker) else {
            return Err(Fault(format!("unknown element type, byte 0x{marker:02x}")));
        };
        self.expect(b'#')?;
        let length = self.length()?;
        let Some(bytes) = length.checked_mul(kind.bytes()) else {
            return Err(Fault(format!("an array of {length} elements")));
        };
        Ok(Value::Numbers(Numbers::Packed(kind, self.slice(bytes)?)))
    }

    fn object(&mut self) -> Result<Value<'a>, Fault> {
        self.budget.enter()?;
        let mut entries = Vec::new();
        while self.peek() != Some(b'}') {
            let key = self.text()?;
            let marker = self.marker()?;
            entries.push((key, self.value(marker)?));
        }
        self.at += 1;
        self.budget.leave();
        Object::new(entries).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"a": …}` with the given bytes as value.
    fn object(value: &[u8]) -> Vec<u8> {
        [b"{L\0\0\0\0\0\0\0\x01a".as_slice(), value, b"}"].concat()
    }

    fn fault(bytes: &[u8]) -> String {
        parse(bytes).unwrap_err().0
    }

    #[test]
    fn reads_typed_arrays_of_every_type() {
        let cases: [(&[u8], Vec<i64>); 5] = [
            (b"[$i#L\0\0\0\0\0\0\0\x02\xff\x01", vec![-1, 1]),
            (b"[$U#L\0\0\0\0\0\0\0\x02\xff\x01", vec![255, 1]),
            (b"[$I#L\0\0\0\0\0\0\0\x01\xff\xfe", vec![-2]),
            (b"[$l#i\x01\xff\xff\xff\xfd", vec![-3]),
            (b"[$L#U\x01\x00\0\0\x01\0\0\0\0", vec![1 << 32]),
        ];
        for (bytes, expected) in cases {
            let bytes = object(bytes);
            let document = parse(&bytes).unwrap();
            assert_eq!(
                document.as_object().unwrap().integers("a").unwrap(),
                expected
            );
        }
        let bytes = object(b"[$d#L\0\0\0\0\0\0\0\x01\x3f\x80\0\0");
        assert_eq!(
            parse(&bytes)
                .unwrap()
                .as_object()
                .unwrap()
                .floats("a")
                .unwrap(),
            [1.0]
        );
        assert!(
            parse(&bytes)
                .unwrap()
                .as_object()
                .unwrap()
                .integers("a")
                .is_err()
        );
    }

    #[test]
    fn reads_counted_and_open_lists() {
        for bytes in [b"[#L\0\0\0\0\0\0\0\x03Ti\x02F".as_slice(), b"[Ti\x02F]"] {
            let bytes = object(bytes);
            let document = parse(&bytes).unwrap();
            assert_eq!(
                document.as_object().unwrap().integers("a").unwrap(),
                [1, 2, 0]
            );
        }
    }

    #[test]
    fn announced_lengths_are_not_believed() {
        let huge = object(b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff");
        assert!(fault(&huge).contains("an array of"), "{}", fault(&huge));
        let long = object(b"[$U#L\0\0\0\x7f\0\0\0\0");
        assert!(
            fault(&long).contains("bytes are announced"),
            "{}",
            fault(&long)
        );
        let negative = object(b"[#L\xff\xff\xff\xff\xff\xff\xff\xff");
        assert!(
            fault(&negative).contains("a length of -1"),
            "{}",
            fault(&negative)
        );
        assert!(parse(&object(b"[#L\0\0\0\x7f\0\0\0\0TTT")).is_err());
    }

    #[test]
    fn truncated_documents_and_trailing_bytes_are_refused() {
        let whole = object(b"[#L\0\0\0\0\0\0\0\x02S i\x02hi{}");
        let whole = whole
            .iter()
            .copied()
            .filter(|byte| *byte != b' ')
            .collect::<Vec<_>>();
        assert!(parse(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(fault(&whole[..end]).contains(CUT_OFF), "first {end} bytes");
        }
        assert!(fault(&[&whole[..], b"\0"].concat()).contains("something follows"));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        assert!(fault(b"{i\x01aTi\x01aF}").contains("`a` is there twice"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(fault(&b"[".repeat(100_000)).contains("nested deeper than 64"));
        assert!(fault(&b"{i\x01a".repeat(100_000)).contains("nested deeper than 64"));
    }
}
