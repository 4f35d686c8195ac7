//! AWS Lambda: what it asks of a program (the [runtime API]), and requests and answers as its events have them.
//!
//! Not by the crate `lambda_http`: it puts the stage in front of the path, keeps one of several headers of a name, decodes
//! the queries of load balancers twice, and panics where the environment or a path is not as it expects.
//!
//! [runtime API]: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

pub(crate) mod event;

use std::time::Duration;

use auspex_kernel::Timestamp;

use bytes::Bytes;
use reqwest::Response;
use serde_json::json;

const RUNTIME: &str = "2018-06-01/runtime";
const EXTENSION: &str = "2020-01-01/extension";
const EXTENSION_ID: &str = "Lambda-Extension-Identifier";
/// Of calls that are answered at once: the other end is on this machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The API by which Lambda hands out events.
pub(crate) struct RuntimeApi {
    client: reqwest::Client,
    /// With a slash at the end.
    url: String,
}

/// An event that waits for its answer.
pub(crate) struct Invocation {
    id: String,
    /// When Lambda gives it up.
    pub(crate) deadline: Timestamp,
    pub(crate) event: Bytes,
}

impl RuntimeApi {
    /// The one at this `host:port`.
    pub(crate) fn new(address: &str) -> reqwest::Result<Self> {
        // It is on this machine, without TLS.
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let client = client.build()?;
        let url = format!("http://{address}/");
        Ok(Self { client, url })
    }

    /// Asks to be told of the end: without an extension Lambda sends no SIGTERM.
    pub(crate) async fn register(&self) -> reqwest::Result<()> {
        let register = self
            .client
            .post(format!("{}{EXTENSION}/register", self.url));
        let register = register.header("Lambda-Extension-Name", "auspex");
        let registered = call(register.body(r#"{"events":[]}"#)).await?;
        let next = format!("{}{EXTENSION}/event/next", self.url);
        let id = said(&registered, EXTENSION_ID);
        let next = self.client.get(next).header(EXTENSION_ID, id);
        // To ask for an event says that it is ready. None ever comes, for it wants none.
        tokio::spawn(next.send());
        Ok(())
    }

    /// Waits for the next event.
    pub(crate) async fn next(&self) -> reqwest::Result<Invocation> {
        let next = format!("{}{RUNTIME}/invocation/next", self.url);
        let given = self.client.get(next).send().await?.error_for_status()?;
        let deadline_ms: i64 = said(&given, "Lambda-Runtime-Deadline-Ms")
            .parse()
            .unwrap_or(0);
        Ok(Invocation {
            id: said(&given, "Lambda-Runtime-Aws-Request-Id").to_owned(),
            deadline: Timestamp(deadline_ms.saturating_mul(1_000)),
            event: given.bytes().await?,
        })
    }

    /// Answers an event.
    pub(crate) async fn respond(&self, to: &Invocation, answer: Vec<u8>) -> reqwest::Result<()> {
        let url = format!("{}{RUNTIME}/invocation/{}/response", self.url, to.id);
        call(self.client.post(url).body(answer)).await.map(drop)
    }

    /// Says why an event has no answer; without one, why the program does not start.
    pub(crate) async fn fail(
        &self,
        event: Option<&Invocation>,
        reason: &str,
    ) -> reqwest::Result<()> {
        let what = match event {
            Some(event) => format!("invocation/{}/error", event.id),
            None => "init/error".to_owned(),
        };
        let url = format!("{}{RUNTIME}/{what}", self.url);
        let said = json!({"errorType": "Auspex.Error", "errorMessage": reason});
        let post = self.client.post(url).body(said.to_string());
        let post = post.header("Lambda-Runtime-Function-Error-Type", "Auspex.Error");
        call(post).await.map(drop)
    }
}

async fn call(request: reqwest::RequestBuilder) -> reqwest::Result<Response> {
    let answered = request.timeout(CALL_TIMEOUT).send().await?;
    answered.error_for_status()
}

/// A header of an answer, or nothing.
fn said<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
