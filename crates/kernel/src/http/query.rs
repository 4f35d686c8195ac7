use form_urlencoded::Parse;
use percent_encoding::percent_decode_str;

use crate::ApiError;

/// The names and values of a query, decoded.
///
/// # Errors
/// 400 if they are not UTF-8 then. Reading on would put other characters in their place.
pub fn pairs(query: &str) -> Result<Parse<'_>, ApiError> {
    match percent_decode_str(query).decode_utf8() {
        Ok(_) => Ok(form_urlencoded::parse(query.as_bytes())),
        Err(_) => Err(ApiError::malformed(
            "the query must be UTF-8, percent-encoded",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_is_no_text_is_refused() {
        let read: Vec<_> = pairs("a=%C3%BC+b&c").unwrap().collect();
        assert_eq!(read, [("a".into(), "ü b".into()), ("c".into(), "".into())]);
        for query in ["a=%ff", "%C3=1", "a=%ED%A0%80"] {
            let refused = pairs(query).err().map(|error| error.status());
            assert_eq!(refused, Some(StatusCode::BAD_REQUEST), "{query}");
        }
    }
}
