//! Lists in other forms than JSON.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};

/// The content type of CSV with a header line (RFC 4180).
pub const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8; header=present");

/// Whether `Accept` names this media type. Tools that take anything do not.
pub fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges = values.filter_map(|value| value.to_str().ok());
    ranges.flat_map(|text| text.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_wanted = parts
            .next()
            .is_some_and(|kind| kind.eq_ignore_ascii_case(wanted));
        is_wanted && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
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
        let names = |accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            accepts(
                &HeaderMap::from_iter([(header::ACCEPT, accept)]),
                "text/csv",
            )
        };
        assert!(names("Text/CSV") && names("application/json, text/csv;q=0.5"));
        assert!(!names("*/*") && !names("text/csv;q=0") && !names("application/json"));
    }
}
