//! Whether an answer is right: a server that is fast and wrong has no throughput.
//!
//! An answer to a record is compared with what the training library says. A body already found right
//! for a record is remembered byte for byte, so that a repetition costs one comparison of memory. An
//! answer to any other request has to contain a given text.

use std::fmt;

use serde_json::Value;

/// How far a probability may be from the expected one.
pub(crate) const TOLERANCE: f64 = 1e-5;

pub(crate) enum Answers {
    /// What the training library says, for each record.
    Predictions {
        expected: Vec<Vec<f64>>,
        verified: Vec<Vec<u8>>,
    },
    /// The same for all requests: a text that the body contains.
    Containing(String),
}

/// What is wrong with an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Wrong {
    NotPredictions,
    Lacks(String),
    Count {
        expected: usize,
        got: usize,
    },
    Number {
        index: usize,
        expected: f64,
        got: f64,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPredictions => {
                out.write_str("not {\"predictions\": [[numbers]]} with one list of numbers")
            }
            Self::Lacks(text) => write!(out, "it does not contain {text}"),
            Self::Count { expected, got } => write!(out, "{got} numbers instead of {expected}"),
            Self::Number {
                index,
                expected,
                got,
            } => {
                write!(out, "number {index} is {got} instead of {expected}")
            }
        }
    }
}

impl Answers {
    /// `expected[i]` are the numbers that answer record `i`.
    pub(crate) fn new(expected: Vec<Vec<f64>>) -> Self {
        let verified = vec![Vec::new(); expected.len()];
        Self::Predictions { expected, verified }
    }

    /// Reads one JSON list of numbers a line.
    pub(crate) fn parse(lines: &str) -> Result<Self, String> {
        let rows = lines
            .lines()
            .filter(|line| !line.trim().is_empty())
            .enumerate();
        rows.map(|(index, line)| {
            serde_json::from_str(line)
                .ok()
                .as_ref()
                .and_then(numbers)
                .ok_or_else(|| format!("expected answer {}: not a list of numbers", index + 1))
        })
        .collect::<Result<_, _>>()
        .map(Self::new)
    }

    /// Whether there is an answer for each of so many requests.
    pub(crate) fn fit(&self, requests: usize) -> bool {
        match self {
            Self::Predictions { expected, .. } => expected.len() == requests,
            Self::Containing(_) => true,
        }
    }

    pub(crate) fn check(&mut self, record: usize, body: &[u8]) -> Result<(), Wrong> {
        let (expected, verified) = match self {
            Self::Predictions { expected, verified } => (&expected[record], &mut verified[record]),
            Self::Containing(text) => return contains(body, text),
        };
        if verified == body && !body.is_empty() {
            return Ok(());
        }
        compare(expected, body)?;
        *verified = body.to_vec();
        Ok(())
    }
}

fn contains(body: &[u8], text: &str) -> Result<(), Wrong> {
    let mut places = body.windows(text.len());
    match places.any(|place| place == text.as_bytes()) {
        true => Ok(()),
        false => Err(Wrong::Lacks(text.to_owned())),
    }
}

fn compare(expected: &[f64], body: &[u8]) -> Result<(), Wrong> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| Wrong::NotPredictions)?;
    let got = match answer
        .get("predictions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        Some([only]) => numbers(only).ok_or(Wrong::NotPredictions)?,
        _ => return Err(Wrong::NotPredictions),
    };
    if got.len() != expected.len() {
        return Err(Wrong::Count {
            expected: expected.len(),
            got: got.len(),
        });
    }
    for (index, (expected, got)) in expected.iter().copied().zip(got).enumerate() {
        if (got - expected).abs() > TOLERANCE {
            return Err(Wrong::Number {
                index,
                expected,
                got,
            });
        }
    }
    Ok(())
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers::parse("[0.25, 0.75]\n\n[1, 0]\n").expect("two rows")
    }

    #[test]
    fn right_answers_pass_however_they_are_written() {
        let mut answers = answers();
        assert!(answers.fit(2) && !answers.fit(3));
        assert_eq!(
            answers.check(0, br#"{"predictions":[[0.25,0.75]]}"#),
            Ok(())
        );
        assert_eq!(
            answers.check(0, br#"{"predictions":[[0.25,0.75]]}"#),
            Ok(())
        );
        assert_eq!(
            answers.check(0, br#"{ "predictions": [[0.250009, 7.5e-1]], "id": 1 }"#),
            Ok(())
        );
        assert_eq!(answers.check(1, br#"{"predictions":[[1.0,0]]}"#), Ok(()));
    }

    #[test]
    fn answer_to_another_record_is_wrong_even_when_seen_before() {
        let mut answers = answers();
        let body = br#"{"predictions":[[0.25,0.75]]}"#;
        assert_eq!(answers.check(0, body), Ok(()));
        let wrong = Wrong::Number {
            index: 0,
            expected: 1.0,
            got: 0.25,
        };
        assert_eq!(answers.check(1, body), Err(wrong));
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let mut answers = answers();
        let count = Err(Wrong::Count {
            expected: 2,
            got: 1,
        });
        assert_eq!(answers.check(0, br#"{"predictions":[[0.25]]}"#), count);
        let number = Err(Wrong::Number {
            index: 1,
            expected: 0.75,
            got: 0.7501,
        });
        assert_eq!(
            answers.check(0, br#"{"predictions":[[0.25,0.7501]]}"#),
            number
        );
        for body in [
            &b""[..],
            b"null",
            b"[[0.25,0.75]]",
            br#"{"predictions":[0.25,0.75]}"#,
            br#"{"predictions":[[0.25,0.75],[0.25,0.75]]}"#,
            br#"{"predictions":[[0.25,null]]}"#,
            br#"{"predictions":[[0.25,NaN]]}"#,
            b"\xff\xfe",
        ] {
            assert_eq!(answers.check(0, body), Err(Wrong::NotPredictions));
        }
    }

    #[test]
    fn other_answers_contain_a_text() {
        let mut answers = Answers::Containing("pending".to_owned());
        assert_eq!(answers.check(7, br#"{"status":"pending"}"#), Ok(()));
        let lacks = Err(Wrong::Lacks("pending".to_owned()));
        assert_eq!(answers.check(7, b"pend"), lacks);
        assert_eq!(answers.check(7, b""), lacks);
    }

    #[test]
    fn expected_rows_must_be_numbers() {
        assert!(Answers::parse("[1]\n[\"a\"]").is_err());
        assert!(Answers::parse("{}").is_err());
    }
}
