//! The values of a category: which code each text has.

use serde::de::IgnoredAny;
use serde_json::json;

/// How many categories a message lists, and how many a look-up scans.
const LISTED_MAX: usize = 20;
const SCANNED_MAX: usize = 16;

/// The values of a category, looked up by text.
#[derive(Clone, Debug)]
pub struct Categories {
    values: Vec<String>,
    /// The first eight bytes of each value, padded with zeros: most look-ups end here.
    heads: Vec<u64>,
    /// Indices sorted by value, where there are too many to scan.
    sorted: Vec<u32>,
}

impl Categories {
    /// In the order of their codes.
    pub fn new(values: Vec<String>) -> Self {
        let heads = values.iter().map(|value| head(value.as_bytes())).collect();
        let mut sorted: Vec<u32> = Vec::new();
        if values.len() > SCANNED_MAX {
            sorted = (0..values.len() as u32).collect();
            sorted.sort_by(|a, b| values[*a as usize].cmp(&values[*b as usize]));
        }
        Self {
            values,
            heads,
            sorted,
        }
    }

    /// In the order of their codes.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// The code of a text, if it is one of the values.
    #[inline]
    pub(super) fn code(&self, text: &str) -> Option<f64> {
        if !self.sorted.is_empty() {
            let compare = |index: &u32| self.values[*index as usize].as_str().cmp(text);
            let at = self.sorted.binary_search_by(compare).ok()?;
            return Some(f64::from(self.sorted[at]));
        }
        let wanted = head(text.as_bytes());
        for (index, known) in self.heads.iter().enumerate() {
            if *known == wanted && self.values[index] == text {
                return Some(index as f64);
            }
        }
        None
    }

    /// What is expected, for a message: in quotes where a value might be taken for something else.
    pub(super) fn listed(&self) -> String {
        let shown = &self.values[..self.values.len().min(LISTED_MAX)];
        let mut text = match shown.iter().all(|value| is_plain(value)) {
            true => format!("one of {}", shown.join(", ")),
            false => {
                let quoted = shown.iter().map(|value| json!(value).to_string());
                let quoted: Vec<String> = quoted.collect();
                format!("one of the strings {}", quoted.join(", "))
            }
        };
        if self.values.len() > shown.len() {
            text.push_str(&format!(" … ({} in all)", self.values.len()));
        }
        text
    }
}

/// Whether a value can be nothing but a text, and stands apart from others in a list.
fn is_plain(value: &str) -> bool {
    let is_json = serde_json::from_str::<IgnoredAny>(value).is_ok();
    !is_json && !value.is_empty() && value.trim() == value && !value.contains(',')
}

#[inline]
fn head(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*first);
    }
    let mut padded = 0;
    for byte in bytes.iter().rev() {
        padded = padded << 8 | u64::from(*byte);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_look_like_something_else_are_listed_as_strings() {
        let listed = |values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned());
            Categories::new(values.collect()).listed()
        };
        assert_eq!(listed(&["H", "V"]), "one of H, V");
        for (values, text) in [
            (["15001", "27003"], r#"one of the strings "15001", "27003""#),
            (["a", "-1.5e3"], r#"one of the strings "a", "-1.5e3""#),
            (["true", "null"], r#"one of the strings "true", "null""#),
            (["", "a \"b\""], r#"one of the strings "", "a \"b\"""#),
            (
                ["CORUÑA, A", "B "],
                r#"one of the strings "CORUÑA, A", "B ""#,
            ),
        ] {
            assert_eq!(listed(&values), text);
        }
    }

    #[test]
    fn categories_are_told_apart_beyond_eight_bytes() {
        let few: Vec<String> = ["CORUÑA, A", "CORUÑA, B", "A", "", "01 - TOP"]
            .map(str::to_owned)
            .to_vec();
        let many: Vec<String> = (0..500).map(|i| format!("category number {i}")).collect();
        for values in [few, many] {
            let categories = Categories::new(values.clone());
            for (index, value) in values.iter().enumerate() {
                assert_eq!(categories.code(value), Some(index as f64), "{value}");
            }
            for stranger in ["A\0", "category number 500", "01 - TOP ", "CORUÑA, "] {
                assert_eq!(categories.code(stranger), None);
            }
        }
    }
}
