//! The wire format of protocol buffers, read in place.
//!
//! A message is a list of numbered fields. Nothing is copied, and no length is believed that the bytes do not have.

use crate::document::{CUT_OFF, Fault};

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Number(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| Fault::new(CUT_OFF))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| Fault::new(CUT_OFF))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Fault::new("a number of more than ten bytes"))
    }

    /// The next field and its number; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Eight(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Four(self.array()?),
            kind => return Err(Fault(format!("a field of the unknown kind {kind}"))),
        };
        Ok(Some((key >> 3, field)))
    }
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Fault::new("a number where a text or a message is expected")),
        }
    }

    pub(super) fn message(self) -> Result<Fields<'a>, Fault> {
        self.bytes().map(Fields)
    }

    pub(super) fn text(self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::new("a text that is not UTF-8"))
    }

    pub(super) fn integer(self) -> Result<i64, Fault> {
        match self {
            Self::Number(number) => Ok(number as i64),
            _ => Err(Fault::new("expected a whole number")),
        }
    }

    pub(super) fn float(self) -> Result<f32, Fault> {
        match self {
            Self::Four(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(Fault::new("expected a number of four bytes")),
        }
    }

    /// Adds whole numbers: one, or many that are packed.
    pub(super) fn integers(self, out: &mut Vec<i64>) -> Result<(), Fault> {
        match self {
            Self::Bytes(bytes) => {
                let mut packed = Fields(bytes);
                while !packed.0.is_empty() {
                    out.push(packed.varint()? as i64);
                }
            }
            one => out.push(one.integer()?),
        }
        Ok(())
    }

    pub(super) fn floats(self, out: &mut Vec<f32>) -> Result<(), Fault> {
        match self {
            Self::Bytes(bytes) => {
                let (numbers, rest) = bytes.as_chunks();
                whole(rest)?;
                out.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            one => out.push(one.float()?),
        }
        Ok(())
    }

    pub(super) fn doubles(self, out: &mut Vec<f64>) -> Result<(), Fault> {
        match self {
            Self::Bytes(bytes) => {
                let (numbers, rest) = bytes.as_chunks();
                whole(rest)?;
                out.extend(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)));
            }
            Self::Eight(bytes) => out.push(f64::from_le_bytes(bytes)),
            _ => return Err(Fault::new("expected a number of eight bytes")),
        }
        Ok(())
    }
}

fn whole(rest: &[u8]) -> Result<(), Fault> {
    match rest {
        [] => Ok(()),
        _ => Err(Fault::new("a list of numbers that ends within one")),
    }
}
