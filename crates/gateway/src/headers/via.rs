//! `Via` (RFC 9110 §7.6.3): by which protocol a request came, and to whom. By it a request is known that comes back.

use std::sync::LazyLock;

use auspex_kernel::ApiError;
use auspex_kernel::random::per_thread;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version};

/// What this process is called. Another gateway of the same product may well be on the way.
pub(super) static PSEUDONYM: LazyLock<String> =
    LazyLock::new(|| format!("gateway-{:016x}", per_thread()));

static ENTRIES: LazyLock<[HeaderValue; 3]> = LazyLock::new(|| {
    ["1.0", "1.1", "2"].map(|version| {
        let entry = HeaderValue::try_from(format!("{version} {}", *PSEUDONYM));
        entry.expect("it is ASCII")
    })
});

/// What is added to a request that came by this version of HTTP.
pub(super) fn entry(version: Version) -> HeaderValue {
    let [old, usual, multiplexed] = &*ENTRIES;
    let entry = match version {
        Version::HTTP_10 => old,
        Version::HTTP_2 => multiplexed,
        _ => usual,
    };
    entry.clone()
}

/// # Errors
/// 508 for a request that this process has passed on before: a service leads back to it.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let values = headers.get_all(header::VIA).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([' ', ',']));
    match words.any(|word| word == *PSEUDONYM) {
        true => Err(ApiError::new(
            StatusCode::LOOP_DETECTED,
            "LOOP_DETECTED",
            "the request came back to this gateway: a service behind it passes its requests on to the gateway again, or the \
             gateway is one of its own endpoints",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_on_is_known_behind_other_proxies_too() {
        let mut headers = HeaderMap::new();
        assert!(check(&headers).is_ok());
        let other = HeaderValue::from_static("1.1 gateway-0123456789abcdef, 2 other");
        headers.append(header::VIA, other);
        assert!(check(&headers).is_ok());
        headers.append(header::VIA, entry(Version::HTTP_2));
        let error = check(&headers).unwrap_err();
        assert_eq!(error.status(), StatusCode::LOOP_DETECTED);
        let joined = format!("1.0 first,{},1.1 last", *PSEUDONYM);
        headers.insert(header::VIA, joined.try_into().expect("ASCII"));
        assert!(check(&headers).is_err());
    }
}
