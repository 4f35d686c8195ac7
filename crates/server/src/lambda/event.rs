//! Events of API Gateway (REST and HTTP APIs), function URLs and application load balancers, and the answers that they take.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use auspex_kernel::OverTls;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::Serializer;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header, response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What a path or a query may not hold as it is. Some of these events have decoded paths.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
const UNSAFE_IN_PATH: &AsciiSet = &UNSAFE.add(b'?');

type One = BTreeMap<String, String>;
type Many = BTreeMap<String, Vec<String>>;

/// A request, in any of these forms.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    request_context: Context,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
    headers: Option<One>,

    // HTTP APIs and function URLs.
    raw_path: Option<String>,
    raw_query_string: Option<String>,
    cookies: Option<Vec<String>>,

    // REST APIs and load balancers.
    http_method: Option<String>,
    path: Option<String>,
    multi_value_headers: Option<Many>,
    query_string_parameters: Option<One>,
    multi_value_query_string_parameters: Option<Many>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    /// Of HTTP APIs and function URLs.
    http: Option<Http>,
    /// Of REST APIs.
    identity: Option<Source>,
    /// Of load balancers.
    elb: Option<serde::de::IgnoredAny>,
    domain_name: Option<String>,
    stage: Option<String>,
}

#[derive(Deserialize)]
struct Http {
    method: String,
    #[serde(flatten)]
    source: Source,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    source_ip: Option<String>,
}

/// The form of an event's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// API Gateway's REST APIs.
    Rest,
    /// API Gateway's HTTP APIs, and function URLs.
    Http,
    /// Application load balancers, which say several headers of one name or not.
    Balancer { has_many: bool },
}

impl Event {
    /// # Errors
    /// What is wrong with it, without anything of it.
    pub(crate) fn read(event: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(event).map_err(|error| {
            format!(
                "the event is none of API Gateway, a function URL or a load balancer (line {}, column {})",
                error.line(),
                error.column()
            )
        })
    }

    /// The request, the address that it came from, and the form of its answer.
    ///
    /// # Errors
    /// As of [`Event::read`].
    pub(crate) fn into_request(self) -> Result<(Request<Body>, IpAddr, Form), String> {
        let (form, method, path, query) = match (&self.request_context.http, &self.http_method) {
            (Some(http), _) => {
                let query = self.raw_query_string.clone().unwrap_or_default();
                (Form::Http, &http.method, &self.raw_path, query)
            }
            (None, Some(method)) if self.request_context.elb.is_some() => {
                let has_many = self.multi_value_headers.is_some();
                let form = Form::Balancer { has_many };
                // It hands on names and values as the client wrote them.
                let pairs = self.query().map(|(name, value)| format!("{name}={value}"));
                let query = pairs.collect::<Vec<_>>().join("&");
                (form, method, &self.path, query)
            }
            (None, Some(method)) => {
                let mut query = Serializer::new(String::new());
                query.extend_pairs(self.query());
                (Form::Rest, method, &self.path, query.finish())
            }
            (None, None) => return Err("the event has no method of HTTP".into()),
        };
        let path = path.as_deref().filter(|path| path.starts_with('/'));
        let path = path.ok_or("the event has no path")?;
        let path = match &self.request_context.stage {
            Some(stage) if form == Form::Http => without_stage(path, stage),
            _ => path,
        };
        let mut uri = utf8_percent_encode(path, UNSAFE_IN_PATH).to_string();
        if !query.is_empty() {
            uri.push('?');
            uri.extend(utf8_percent_encode(&query, UNSAFE));
        }
        let uri: Uri = uri.parse().map_err(|_| "the event has a wrong path")?;
        let method = method.parse::<Method>();
        let method = method.map_err(|_| "the event has a wrong method")?;
        let headers = self.headers()?;
        let source = self.source(form, &headers);
        let is_secured = headers
            .get(X_FORWARDED_PROTO)
            .is_some_and(|scheme| scheme == "https");
        let body = match (self.body, self.is_base64_encoded) {
            (Some(text), true) => STANDARD
                .decode(text)
                .map_err(|_| "the body of the event is not base64")?,
            (body, _) => body.unwrap_or_default().into_bytes(),
        };

        let length = body.len();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        if length > 0 {
            let headers = request.headers_mut();
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if is_secured {
            request.extensions_mut().insert(OverTls);
        }
        Ok((request, source, form))
    }

    /// Names and values of the query.
    fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(
            self.query_string_parameters.as_ref(),
            self.multi_value_query_string_parameters.as_ref(),
        )
    }

    fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs(self.headers.as_ref(), self.multi_value_headers.as_ref()) {
            let name = name.parse::<HeaderName>().ok();
            let value = HeaderValue::from_bytes(value.as_bytes()).ok();
            let (Some(name), Some(value)) = (name, value) else {
                return Err("the event has a header that is none of HTTP".into());
            };
            headers.append(name, value);
        }
        // These are about a connection that ends before it gets here.
        for name in [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::EXPECT,
        ] {
            headers.remove(name);
        }
        if let Some(cookies) = &self.cookies
            && !cookies.is_empty()
            && let Ok(value) = HeaderValue::try_from(cookies.join("; "))
        {
            headers.insert(header::COOKIE, value);
        }
        if let Some(domain) = &self.request_context.domain_name
            && let Ok(value) = HeaderValue::try_from(domain)
        {
            headers.entry(header::HOST).or_insert(value);
        }
        Ok(headers)
    }

    /// Whom the request came from, as what took it in says; nobody, where it says none, as in the tests of its console.
    fn source(&self, form: Form, headers: &HeaderMap) -> IpAddr {
        let Context { http, identity, .. } = &self.request_context;
        let stated = match form {
            Form::Http => http
                .as_ref()
                .and_then(|http| http.source.source_ip.as_deref()),
            Form::Rest => identity
                .as_ref()
                .and_then(|source| source.source_ip.as_deref()),
            // It appends the address to what the client said.
            Form::Balancer { .. } => {
                let hops = headers.get_all(X_FORWARDED_FOR).iter().next_back();
                hops.and_then(|hops| hops.to_str().ok()?.rsplit(',').next())
            }
        };
        let stated = stated.unwrap_or_default().trim();
        let with_port = || Some(stated.parse::<SocketAddr>().ok()?.ip());
        let address = stated.parse().ok().or_else(with_port);
        address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }
}

/// HTTP APIs alone put the name of a stage in front of the path, unless it is the default one.
fn without_stage<'a>(path: &'a str, stage: &str) -> &'a str {
    let rest = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(stage));
    match rest {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// What is said several times is said in `many`, where there is one.
fn pairs<'a>(
    one: Option<&'a One>,
    many: Option<&'a Many>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let one = one.filter(|_| many.is_none()).into_iter().flatten();
    let one = one.map(|(name, value)| (name.as_str(), value.as_str()));
    let many = many.into_iter().flatten();
    let many = many.flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| (name.as_str(), value.as_str()))
    });
    one.chain(many)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<One>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<Many>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<Vec<String>>,
    body: String,
    is_base64_encoded: bool,
}

impl Form {
    /// The answer in this form, as JSON.
    pub(crate) fn write(self, mut head: response::Parts, body: Vec<u8>) -> Vec<u8> {
        // Whoever hands the answer on writes these.
        for name in [header::CONTENT_LENGTH, header::CONNECTION] {
            head.headers.remove(name);
        }
        let cookies = (self == Self::Http).then(|| {
            let cookies = values(&head.headers, &header::SET_COOKIE);
            head.headers.remove(header::SET_COOKIE);
            cookies
        });
        let names = head.headers.keys();
        let many = names.map(|name| (name.to_string(), values(&head.headers, name)));
        let says_many = matches!(self, Self::Rest | Self::Balancer { has_many: true });
        let (headers, multi_value_headers) = match says_many {
            true => (None, Some(many.collect())),
            false => {
                let one = many.map(|(name, values)| (name, values.join(", ")));
                (Some(one.collect()), None)
            }
        };
        let (body, is_base64_encoded) = match String::from_utf8(body) {
            Ok(text) => (text, false),
            Err(bytes) => (STANDARD.encode(bytes.as_bytes()), true),
        };
        let is_balancer = matches!(self, Self::Balancer { .. });
        let answer = Answer {
            status_code: head.status.as_u16(),
            status_description: is_balancer.then(|| head.status.to_string()),
            headers,
            multi_value_headers,
            cookies,
            body,
            is_base64_encoded,
        };
        serde_json::to_vec(&answer).expect("texts are JSON")
    }
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};
    use serde_json::{Value, json};

    use super::*;

    fn request(event: &Value) -> Result<(Request<Body>, IpAddr, Form), String> {
        Event::read(event.to_string().as_bytes())?.into_request()
    }

    fn http_api(path: &str, query: &str) -> Value {
        json!({
            "version": "2.0", "rawPath": path, "rawQueryString": query,
            "cookies": ["a=1", "b=2"], "headers": {"x-api-key": "k", "content-length": "7"},
            "requestContext": {"domainName": "models.example.org", "stage": "prod",
                "http": {"method": "POST", "path": path, "sourceIp": "203.0.113.7"}},
            "body": "eA==", "isBase64Encoded": true,
        })
    }

    #[test]
    fn an_event_of_an_http_api_is_the_request_that_it_was() {
        let (request, source, form) =
            request(&http_api("/prod/v1/a b/\u{e9}%2F?", "q=%41&r=\u{e9}")).unwrap();
        assert_eq!(request.uri(), "/v1/a%20b/%C3%A9%2F%3F?q=%41&r=%C3%A9");
        assert_eq!((request.method(), form), (&Method::POST, Form::Http));
        assert_eq!(source.to_string(), "203.0.113.7");
        let header = |name| request.headers().get(name).unwrap();
        assert_eq!(header("cookie"), "a=1; b=2");
        assert_eq!(header("host"), "models.example.org");
        assert_eq!(header("content-length"), "1");
        assert!(request.extensions().get::<OverTls>().is_none());
    }

    #[test]
    fn a_stage_is_taken_off_where_it_is_a_part_of_the_path() {
        for (path, wanted) in [
            ("/prod", "/"),
            ("/prod/", "/"),
            ("/prod/prod/x", "/prod/x"),
            ("/product", "/product"),
            ("/v1/prod", "/v1/prod"),
        ] {
            assert_eq!(without_stage(path, "prod"), wanted);
        }
        assert_eq!(without_stage("/x", "$default"), "/x");
    }

    #[test]
    fn several_values_stay_several_and_the_balancer_names_the_client() {
        let event = json!({
            "httpMethod": "GET", "path": "/v1/users",
            "multiValueHeaders": {"X-API-Key": ["a", "b"], "x-forwarded-for": ["1.2.3.4, 203.0.113.7:4711"],
                "x-forwarded-proto": ["https"]},
            "multiValueQueryStringParameters": {"name": ["a%26b", "c"]},
            "requestContext": {"elb": {"targetGroupArn": "arn"}},
        });
        let (request, source, form) = request(&event).unwrap();
        assert_eq!(request.uri(), "/v1/users?name=a%26b&name=c");
        assert_eq!(form, Form::Balancer { has_many: true });
        assert_eq!(request.headers().get_all("x-api-key").iter().count(), 2);
        assert_eq!(source.to_string(), "203.0.113.7");
        assert!(request.extensions().get::<OverTls>().is_some());
    }

    #[test]
    fn a_rest_api_has_decoded_the_query() {
        let event = json!({
            "httpMethod": "GET", "path": "/x", "headers": {"Host": "x"}, "multiValueHeaders": null,
            "queryStringParameters": {"name": "a&b=c d"},
            "requestContext": {"stage": "prod", "identity": {"sourceIp": "test-invoke-source-ip"}},
        });
        let (request, source, form) = request(&event).unwrap();
        assert_eq!(request.uri(), "/x?name=a%26b%3Dc+d");
        assert_eq!((form, source.to_string().as_str()), (Form::Rest, "0.0.0.0"));
    }

    #[test]
    fn what_is_no_event_is_refused_without_repeating_it() {
        let without = |field: &str| {
            let mut event = http_api("/", "");
            event.as_object_mut().unwrap().remove(field);
            event
        };
        let with = |field: &str, value: Value| {
            let mut event = http_api("/", "");
            event[field] = value;
            event
        };
        for event in [
            json!(null),
            json!({"requestContext": {}}),
            json!({"Records": [{"secret": 1}]}),
            without("requestContext"),
            without("rawPath"),
            with("body", json!("secret!")),
            with("headers", json!({"a b": "secret"})),
            with("headers", json!({"a": "secret\n"})),
            with("rawPath", json!("secret")),
        ] {
            let error = request(&event).map(|_| ()).expect_err("no event");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_answer_has_the_form_of_its_event() {
        let write = |form: Form, body: &[u8]| -> Value {
            let head = Response::builder()
                .status(StatusCode::CREATED)
                .header("vary", "a")
                .header("vary", "b")
                .header("set-cookie", "c=1")
                .header("set-cookie", "d=2")
                .header("content-length", "3");
            let (head, ()) = head.body(()).unwrap().into_parts();
            serde_json::from_slice(&form.write(head, body.to_vec())).unwrap()
        };
        let (one, both) = (
            json!({"vary": "a, b"}),
            json!({"vary": ["a", "b"], "set-cookie": ["c=1", "d=2"]}),
        );
        let http = write(Form::Http, b"x");
        assert_eq!(
            http,
            json!({"statusCode": 201, "headers": one, "cookies": ["c=1", "d=2"], "body": "x", "isBase64Encoded": false})
        );
        let rest = write(Form::Rest, b"\xff");
        assert_eq!(
            rest,
            json!({"statusCode": 201, "multiValueHeaders": both, "body": "/w==", "isBase64Encoded": true})
        );
        let balancer = write(Form::Balancer { has_many: true }, b"");
        assert_eq!(balancer["statusDescription"], "201 Created");
        assert_eq!(balancer["multiValueHeaders"], both);
        let single = write(Form::Balancer { has_many: false }, b"");
        assert_eq!(single["headers"]["vary"], "a, b");
    }
}
