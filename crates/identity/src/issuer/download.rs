//! Fetches a key set over HTTP from an address that an operator configured, and from nowhere else; see
//! [`auspex_kernel::outward`].

use std::time::Duration;

use auspex_kernel::outward::{self, chain};
use http::{StatusCode, header};

use super::IssuerConfig;
use super::key_set::KeySetError;

const BODY_BYTES_MAX: usize = 256 * 1024;

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    /// No connection, no answer in time, or no valid one.
    #[error("{}", chain(.0))]
    Http(reqwest::Error),
    /// An answer other than 200; redirects are not followed.
    #[error("the answer is {0}; only 200 is taken, and redirects are not followed")]
    Status(StatusCode),
    /// More than any key set has.
    #[error("the answer is longer than 256 KiB")]
    TooLong,
    /// Not a key set.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl From<reqwest::Error> for DownloadError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// A client for one issuer.
#[derive(Clone, Debug)]
pub(super) struct Download {
    client: reqwest::Client,
    url: String,
}

impl Download {
    /// # Errors
    /// The TLS library cannot be set up.
    pub(super) fn new(config: &IssuerConfig, timeout: Duration) -> Result<Self, String> {
        let client = outward::client(config.allow_private_addresses, timeout)
            .map_err(|error| format!("issuer {}: {error}", config.issuer))?;
        Ok(Self {
            client,
            url: config.jwks_url.clone(),
        })
    }

    /// # Errors
    /// [`DownloadError`].
    pub(super) async fn get(&self) -> Result<Vec<u8>, DownloadError> {
        let request = self.client.get(&self.url);
        let request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(DownloadError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(DownloadError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
