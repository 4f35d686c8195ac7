//! Points and weights of Gauss–Legendre quadrature on the interval from 0 to 1.

use std::sync::LazyLock;

pub(super) static POINTS: LazyLock<Points> = LazyLock::new(Points::new);

/// Rules of several sizes; one of `n` points is exact for polynomials up to degree `2n - 1`.
#[derive(Debug)]
pub(super) struct Points {
    pub(super) two: Rule<2>,
    pub(super) three: Rule<3>,
    pub(super) four: Rule<4>,
    pub(super) eight: Rule<8>,
    pub(super) sixteen: Rule<16>,
}

/// `N` points.
#[derive(Debug)]
pub(super) struct Rule<const N: usize> {
    pub(super) points: [f64; N],
    pub(super) weights: [f64; N],
}

impl Points {
    fn new() -> Self {
        Self {
            two: Rule::new(),
            three: Rule::new(),
            four: Rule::new(),
            eight: Rule::new(),
            sixteen: Rule::new(),
        }
    }
}

impl<const N: usize> Rule<N> {
    /// The roots of the Legendre polynomial, by Newton's method.
    fn new() -> Self {
        let mut rule = Self {
            points: [0.0; N],
            weights: [0.0; N],
        };
        for index in 0..N {
            let guess = (index as f64 + 0.75) / (N as f64 + 0.5);
            let mut root = (std::f64::consts::PI * guess).cos();
            let mut slope = 0.0;
            // It converges in fewer than ten steps from this guess.
            for _ in 0..20 {
                let value;
                (value, slope) = legendre(N, root);
                root -= value / slope;
            }
            rule.points[index] = (1.0 - root) / 2.0;
            rule.weights[index] = 1.0 / ((1.0 - root * root) * slope * slope);
        }
        rule
    }
}

/// Value and slope of the Legendre polynomial of a degree.
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for n in 2..=degree {
        let n = n as f64;
        (before, value) = (
            value,
            ((2.0 * n - 1.0) * x * value - (n - 1.0) * before) / n,
        );
    }
    (value, degree as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const N: usize>(rule: &Rule<N>) {
        for degree in 0..2 * N {
            let terms = rule.points.iter().zip(rule.weights);
            let integral: f64 = terms.map(|(p, w)| w * p.powi(degree as i32)).sum();
            let exact = 1.0 / (degree as f64 + 1.0);
            assert!(
                (integral - exact).abs() < 1e-15,
                "{N} points, degree {degree}"
            );
        }
    }

    #[test]
    fn polynomials_are_integrated_exactly() {
        let points = &*POINTS;
        check(&points.two);
        check(&points.three);
        check(&points.four);
        check(&points.eight);
        check(&points.sixteen);
    }
}
