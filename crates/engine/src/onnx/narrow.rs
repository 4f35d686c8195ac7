//! Types of fewer bits. Their values stand in those of the next type that operators compute in, and what is computed
//! is made to fit again, as ONNX Runtime does it.

use super::tensor::Data;
use crate::document::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Narrow {
    Int8,
    Uint8,
    Int16,
    Uint16,
    Half,
}

impl Narrow {
    /// The type that has this number in a file.
    pub(super) fn of(number: i64) -> Option<Self> {
        Some(match number {
            2 => Self::Uint8,
            3 => Self::Int8,
            4 => Self::Uint16,
            5 => Self::Int16,
            10 => Self::Half,
            _ => return None,
        })
    }

    /// The number of the type in a file.
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Uint8 => 2,
            Self::Int8 => 3,
            Self::Uint16 => 4,
            Self::Int16 => 5,
            Self::Half => 10,
        }
    }

    /// The type, as ONNX calls it.
    pub(super) fn element(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Int16 => "int16",
            Self::Uint16 => "uint16",
            Self::Half => "float16",
        }
    }

    /// Whether values of this type stand in such data.
    pub(super) fn stands_in(self, data: &Data) -> bool {
        match self {
            Self::Half => matches!(data, Data::Float(_)),
            _ => matches!(data, Data::Int(_)),
        }
    }

    /// Whole numbers as a cast makes them, which keeps the lowest bits.
    pub(super) fn cut(self, numbers: impl Iterator<Item = i64>) -> Vec<i32> {
        let cut = |number: i64| match self {
            Self::Int8 => i32::from(number as i8),
            Self::Uint8 => i32::from(number as u8),
            Self::Int16 => i32::from(number as i16),
            Self::Uint16 => i32::from(number as u16),
            Self::Half => number as i32,
        };
        numbers.map(cut).collect()
    }

    /// What was computed from values of this type: rounded, and whole numbers refused that do not fit.
    pub(super) fn fit(self, data: &mut Data) -> Result<(), Fault> {
        match data {
            Data::Float(values) => values.iter_mut().for_each(|value| *value = round(*value)),
            Data::Int(values) => {
                let numbers = values.iter().map(|value| i64::from(*value));
                if self.cut(numbers) != *values {
                    return Err(Fault(format!(
                        "a whole number that does not fit {}",
                        self.element()
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The least number of 16 bits that is not rounded to 0, and that from which on they have all their digits.
const LEAST: f32 = 1.0 / 16_777_216.0;
const NORMAL: f32 = 1.0 / 16_384.0;

/// What is rounded to infinity.
const BEYOND: f32 = 65_520.0;

/// The nearest number of 16 bits, of two that with an even last digit.
pub(super) fn round(number: f32) -> f32 {
    if number.is_nan() || number == 0.0 {
        return number;
    }
    if number.abs() >= BEYOND {
        return f32::INFINITY.copysign(number);
    }
    if number.abs() < NORMAL {
        return (number / LEAST).round_ties_even() * LEAST;
    }
    let bits = number.to_bits();
    f32::from_bits((bits + 0x0FFF + (bits >> 13 & 1)) & !0x1FFF)
}

/// The number that 16 bits stand for.
pub(super) fn of_bits(bits: u16) -> f32 {
    let (exponent, digits) = (u32::from(bits >> 10 & 0x1F), u32::from(bits & 0x03FF));
    let number = match exponent {
        0 => digits as f32 * LEAST,
        0x1F if digits == 0 => f32::INFINITY,
        0x1F => f32::NAN,
        _ => f32::from_bits((exponent + 112) << 23 | digits << 13),
    };
    if bits >> 15 == 1 { -number } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_16_bits_are_the_nearest_ones() {
        for bits in 0..=u16::MAX {
            let number = of_bits(bits);
            assert!(round(number) == number || number.is_nan());
            let next = of_bits(bits.wrapping_add(1));
            let is_finite = number.is_finite() && next.is_finite() && bits != 0x7FFF;
            if is_finite {
                let (middle, even) = ((number + next) / 2.0, bits % 2 == 0);
                assert_eq!(round(middle), if even { number } else { next });
                assert_eq!(round(middle.next_up()), number.max(next));
                assert_eq!(round(middle.next_down()), number.min(next));
            }
        }
        assert_eq!(of_bits(0x3555), 0.333_251_95);
        assert_eq!(round(65_519.0), 65_504.0);
        assert_eq!(round(65_520.0), f32::INFINITY);
    }
}
