//! The body of an answer, read as a whole where it is short.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;

/// How far a body has been read.
#[derive(Debug)]
pub(crate) enum End {
    /// To its end.
    Whole,
    /// There is more than was asked for.
    TooLong,
    /// It broke off.
    Broken(axum::Error),
}

/// Reads the pieces of a body until it ends, or they come to more than `bytes_max`. Whoever stops waiting has what came.
pub(crate) async fn gather(body: &mut Body, pieces: &mut Vec<Bytes>, bytes_max: usize) -> End {
    let mut length: usize = pieces.iter().map(Bytes::len).sum();
    loop {
        if length > bytes_max {
            return End::TooLong;
        }
        match body.frame().await {
            None => return End::Whole,
            Some(Err(error)) => return End::Broken(error),
            // Trailers are for the next hop alone.
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    length += piece.len();
                    pieces.push(piece);
                }
            }
        }
    }
}
