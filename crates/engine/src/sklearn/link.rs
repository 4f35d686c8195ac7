//! How the sums of a model become its predictions.

use crate::lightgbm::softmax;
use crate::signature::Output;

/// From sums to predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    Identity,
    Exponential,
    /// The logistic function of the sum times a factor: of one sum, the probability of the second class.
    Logistic(f64),
    Softmax,
    /// The logistic function of each sum, made to add up to 1.
    OneVersusRest,
    /// Sums cut to -1 and 1 in place of the logistic function.
    Huber,
    /// The class of the greatest sum; of one sum, the second class if it is above 0.
    Greatest,
}

impl Link {
    /// What it makes of so many sums.
    pub(super) fn output(self, sums: usize) -> Output {
        match (self, sums) {
            (Self::Identity | Self::Exponential, count) => Output::Numbers { count },
            (Self::Greatest, sums) => Output::Class {
                classes: sums.max(2),
            },
            (_, 1) => Output::Binary,
            (_, classes) => Output::Multiclass { classes },
        }
    }

    /// Writes what becomes of a row's sums, which are changed.
    pub(super) fn apply(self, sums: &mut [f64], out: &mut [f64]) {
        match self {
            Self::Identity => {}
            Self::Exponential => sums.iter_mut().for_each(|sum| *sum = sum.exp()),
            Self::Logistic(factor) => sums
                .iter_mut()
                .for_each(|sum| *sum = logistic(factor * *sum)),
            Self::Softmax => softmax(sums),
            Self::OneVersusRest => {
                sums.iter_mut().for_each(|sum| *sum = logistic(*sum));
                share(sums);
            }
            Self::Huber => {
                let cut = |sum: f64| (sum.clamp(-1.0, 1.0) + 1.0) / 2.0;
                sums.iter_mut().for_each(|sum| *sum = cut(*sum));
                share(sums);
            }
            Self::Greatest => {
                out[0] = match sums {
                    [sum] => f64::from(u8::from(*sum > 0.0)),
                    sums => greatest(sums) as f64,
                };
                return;
            }
        }
        out.copy_from_slice(sums);
    }
}

/// Probabilities of so many classes.
pub(super) fn of_classes(count: usize) -> Output {
    match count {
        2 => Output::Binary,
        classes => Output::Multiclass { classes },
    }
}

/// Writes probabilities from logarithms of likelihoods, which are changed: of two classes that of the second.
pub(super) fn probabilities(logarithms: &mut [f64], out: &mut [f64]) {
    softmax(logarithms);
    out.copy_from_slice(&logarithms[logarithms.len() - out.len()..]);
}

pub(super) fn logistic(sum: f64) -> f64 {
    1.0 / (1.0 + (-sum).exp())
}

/// Makes several numbers add up to 1; all the same if they add up to 0.
pub(super) fn share(numbers: &mut [f64]) {
    if numbers.len() == 1 {
        return;
    }
    let all: f64 = numbers.iter().sum();
    let count = numbers.len() as f64;
    let share = |number: f64| {
        if all == 0.0 {
            1.0 / count
        } else {
            number / all
        }
    };
    numbers
        .iter_mut()
        .for_each(|number| *number = share(*number));
}

/// The place of the first of the greatest numbers.
pub(super) fn greatest(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (place, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = place;
        }
    }
    best
}
