//! A run of numbers, left in the file's own bytes until a loader says which type it wants.

use super::Fault;

/// Numbers of one list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numbers<'a> {
    /// A JSON list: what stands between the brackets, checked to be numerals and commas.
    Text(&'a str),
    /// A typed UBJSON array: its type marker and its big-endian elements.
    Packed(Packed, &'a [u8]),
}

/// Element type of a typed UBJSON array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    I8,
    U8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

impl Packed {
    pub(super) fn from_marker(marker: u8) -> Option<Self> {
        Some(match marker {
            b'i' => Self::I8,
            b'U' => Self::U8,
            b'I' => Self::I16,
            b'l' => Self::I32,
            b'L' => Self::I64,
            b'd' => Self::F32,
            b'D' => Self::F64,
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }
}

impl Numbers<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Packed(_, bytes) => bytes.is_empty(),
        }
    }

    pub(crate) fn to_floats(self) -> Result<Vec<f32>, Fault> {
        match self {
            Self::Text(text) => numerals(text).map(parse_float).collect(),
            Self::Packed(Packed::F32, bytes) => Ok(elements(bytes, f32::from_be_bytes).collect()),
            Self::Packed(Packed::F64, bytes) => Ok(elements(bytes, f64::from_be_bytes)
                .map(|value| value as f32)
                .collect()),
            Self::Packed(..) => Ok(self
                .to_integers()?
                .into_iter()
                .map(|value| value as f32)
                .collect()),
        }
    }

    /// The numerals of a JSON list.
    pub(crate) fn as_written(self) -> Result<Vec<String>, Fault> {
        match self {
            Self::Text(text) => Ok(numerals(text).map(str::to_owned).collect()),
            Self::Packed(..) => Err(Fault::new("expected numerals, found packed numbers")),
        }
    }

    pub(crate) fn to_doubles(self) -> Result<Vec<f64>, Fault> {
        match self {
            Self::Text(text) => numerals(text).map(parse_double).collect(),
            Self::Packed(Packed::F64, bytes) => Ok(elements(bytes, f64::from_be_bytes).collect()),
            Self::Packed(Packed::F32, bytes) => {
                Ok(elements(bytes, f32::from_be_bytes).map(f64::from).collect())
            }
            Self::Packed(..) => Ok(self
                .to_integers()?
                .into_iter()
                .map(|value| value as f64)
                .collect()),
        }
    }

    pub(crate) fn to_integers(self) -> Result<Vec<i64>, Fault> {
        Ok(match self {
            Self::Text(text) => return numerals(text).map(parse_integer).collect(),
            Self::Packed(kind, bytes) => match kind {
                Packed::I8 => elements(bytes, i8::from_be_bytes).map(i64::from).collect(),
                Packed::U8 => elements(bytes, u8::from_be_bytes).map(i64::from).collect(),
                Packed::I16 => elements(bytes, i16::from_be_bytes).map(i64::from).collect(),
                Packed::I32 => elements(bytes, i32::from_be_bytes).map(i64::from).collect(),
                Packed::I64 => elements(bytes, i64::from_be_bytes).collect(),
                Packed::F32 | Packed::F64 => {
                    return Err(Fault::new("expected whole numbers, found floats"));
                }
            },
        })
    }
}

fn numerals(text: &str) -> impl Iterator<Item = &str> {
    // An empty list has no numeral, but splitting it would yield an empty one.
    let mut rest = Some(text).filter(|text| !text.trim_ascii().is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        // Most are short, so that this is quicker than a search for a pattern.
        let end = text.bytes().position(|byte| byte == b',');
        rest = end.map(|end| &text[end + 1..]);
        Some(text[..end.unwrap_or(text.len())].trim_ascii())
    })
}

fn elements<const N: usize, T>(
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> impl Iterator<Item = T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(move |chunk| decode(*chunk))
}

/// The nearest `f32`; `NaN`, `Infinity` and `-Infinity` as XGBoost writes them.
pub(super) fn parse_float(text: &str) -> Result<f32, Fault> {
    text.parse()
        .map_err(|_| Fault(format!("`{}` is not a number", shorten(text))))
}

/// The nearest `f64`, written like those.
pub(super) fn parse_double(text: &str) -> Result<f64, Fault> {
    text.parse()
        .map_err(|_| Fault(format!("`{}` is not a number", shorten(text))))
}

pub(super) fn parse_integer(text: &str) -> Result<i64, Fault> {
    text.parse()
        .map_err(|_| Fault(format!("`{}` is not a whole number", shorten(text))))
}

/// Keeps an error message short whatever the file holds.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
