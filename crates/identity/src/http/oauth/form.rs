//! Form bodies.

use auspex_kernel::{ApiError, body};
use axum::body::Body;
use axum::http::{HeaderMap, header};

use crate::oauth::{Malformed, Parameters};

const BYTES_MAX: usize = 64 << 10;

/// Reads a form. A body that is not a form, or has a parameter twice, is [`Malformed`].
///
/// # Errors
/// 413 for a body that is too long, 408 for one that is too slow.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
) -> Result<Result<Parameters, Malformed>, ApiError> {
    let bytes = body::read(body).await?;
    if bytes.len() > BYTES_MAX {
        return Err(ApiError::payload_too_large(format!(
            "the form is longer than {BYTES_MAX} bytes"
        )));
    }
    let stated = headers.get(header::CONTENT_TYPE);
    let stated = stated
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = stated.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Err(Malformed));
    }
    let parameters = Parameters::parse(&bytes);
    Ok(
        parameters.and_then(|parameters| match parameters.has_repeated() {
            true => Err(Malformed),
            false => Ok(parameters),
        }),
    )
}
