//! The exponential function of many numbers below 0 at once, which kernels of many vectors mostly consist of.

use crate::forest::widest::{Work, run_widest};

/// Below it what would come out is less than the least normal number, and 0 is.
const LEAST: f64 = -708.0;

/// ln 2 in two parts, of which the first has so few digits that its products with whole numbers are exact.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// What added to a number leaves its nearest whole number in the last bits.
const ROUNDING: f64 = 1.5 * (1u64 << 52) as f64;

/// The bits before the exponent of an `f64`, and the exponent of 1.
const MANTISSA_BITS: u32 = 52;
const EXPONENT_OF_ONE: u64 = 1023;

/// Terms of the power series; the next one would be less than the last bit of 1 up to half of ln 2.
const TERMS: usize = 14;
const FACTORS: [f64; TERMS] = factors();

const fn factors() -> [f64; TERMS] {
    let mut factors = [1.0; TERMS];
    let (mut term, mut factorial) = (1, 1.0);
    while term < TERMS {
        factorial *= term as f64;
        factors[term] = 1.0 / factorial;
        term += 1;
    }
    factors
}

/// Replaces each number, none above 0, by the exponential function of it; in the last two bits it may differ from `f64::exp`.
pub(super) fn decay(numbers: &mut [f64]) {
    run_widest(Decay(numbers));
}

struct Decay<'a>(&'a mut [f64]);

impl Work for Decay<'_> {
    #[inline(always)]
    fn run(self) {
        for number in self.0 {
            *number = exponential(*number);
        }
    }
}

/// With the nearest multiple of ln 2 taken away, by the power series of the rest.
#[inline(always)]
fn exponential(number: f64) -> f64 {
    let shifted = number.max(LEAST) * std::f64::consts::LOG2_E + ROUNDING;
    let multiple = shifted - ROUNDING;
    let rest = (number.max(LEAST) - multiple * LN_2_HIGH) - multiple * LN_2_LOW;
    let mut sum = FACTORS[TERMS - 1];
    let mut term = TERMS - 1;
    while term > 0 {
        term -= 1;
        sum = sum * rest + FACTORS[term];
    }
    let exponent = shifted.to_bits().wrapping_add(EXPONENT_OF_ONE);
    let scaled = sum * f64::from_bits(exponent << MANTISSA_BITS);
    if number < LEAST { 0.0 } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_library_but_for_the_last_bits() {
        let mut numbers: Vec<f64> = (0..200_000)
            .map(|step| f64::from(step) * -0.003_54)
            .collect();
        numbers.extend([
            0.0,
            -0.0,
            -1e-300,
            -1e-17,
            LEAST,
            -0.5 * std::f64::consts::LN_2,
        ]);
        let wanted: Vec<f64> = numbers.iter().map(|number| number.exp()).collect();
        decay(&mut numbers);
        for (made, wanted) in numbers.iter().zip(wanted) {
            assert!(
                (made - wanted).abs() <= 4e-16 * wanted,
                "{made} is not {wanted}"
            );
        }
        let mut beyond = [-708.5, -1e6, f64::NEG_INFINITY];
        decay(&mut beyond);
        assert_eq!(beyond, [0.0; 3]);
    }
}
