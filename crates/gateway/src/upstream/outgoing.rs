//! A request as its service gets it. Its fields are a list: those of a short one are written and never looked up.

use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::Upload;

/// Header fields in the order in which they are sent.
pub(crate) type Fields = Vec<(HeaderName, HeaderValue)>;

/// A request on its way.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Uri,
    /// `Host` among them.
    pub(crate) fields: Fields,
    pub(crate) body: Upload,
}

impl Outgoing {
    /// As hyper takes it.
    pub(super) fn into_request(self) -> Request<Upload> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target;
        request.headers_mut().extend(self.fields);
        request
    }
}
