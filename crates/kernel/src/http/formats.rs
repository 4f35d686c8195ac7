//! Lists in other forms than JSON.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};

/// The content type of CSV with a header line (RFC 4180).
pub const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8; header=present");

/// Whether `Accept` names this media type. Tools that take anything do not.
pub fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    weight(headers, wanted) > 0
}

/// The form of which `Accept` names the media type with the most weight, the first of several; `None` where it names
/// none of them.
pub fn preferred<'f, T>(headers: &HeaderMap, forms: &'f [(&str, T)]) -> Option<&'f T> {
    let weights = forms
        .iter()
        .map(|(kind, form)| (weight(headers, kind), form));
    let named = weights.rev().filter(|(weight, _)| *weight > 0);
    let heaviest = named.max_by_key(|(weight, _)| *weight);
    heaviest.map(|(_, form)| form)
}

/// The weight that `Accept` gives to this media type (RFC 9110 §12.4.2), in thousandths; 0: it does not name it, or
/// refuses it.
fn weight(headers: &HeaderMap, wanted: &str) -> u16 {
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges = values.filter_map(|value| value.to_str().ok());
    let weights = ranges.flat_map(|text| text.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        is_wanted.then(|| weight.map_or(1000, thousandths))
    });
    weights.max().unwrap_or(0)
}

/// Of a weight that is not a number from 0 to 1 nothing is known but that the type was named.
fn thousandths(weight: &str) -> u16 {
    match weight.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u16,
        _ => 1000,
    }
}

/// A text that others chose, as no program for tables takes it for a formula.
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        true => format!("'{text}").into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_names_csv_gets_it() {
        let of = |accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            weight(
                &HeaderMap::from_iter([(header::ACCEPT, accept)]),
                "text/csv",
            )
        };
        let names = |accept| of(accept) > 0;
        assert_eq!(of("text/csv;header=present;Q=0.25"), 250);
        assert!(names("Text/CSV") && names("application/json, text/csv;q=0.5"));
        assert!(!names("*/*") && !names("text/csv;q=0") && !names("application/json"));
        assert!(!names("text/csv; q=0.000") && names("text/csv;q=much"));
    }
}
