//! Traces by OTLP: one server span per request, a child of the caller's `traceparent`.

use std::time::SystemTime;

use auspex_kernel::RequestId;
use http::{HeaderMap, StatusCode, Uri};
use opentelemetry::trace::{
    Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

/// Sends spans in batches from its own thread; a dead collector costs a log line but no request.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// When a request began, and the span of its caller.
pub(crate) struct Trace {
    started: SystemTime,
    parent: Option<SpanContext>,
}

impl Trace {
    pub(crate) fn begin(headers: &HeaderMap) -> Self {
        let parent = headers
            .get("traceparent")
            .and_then(|v| v.to_str().ok())
            .and_then(parse);
        #[expect(
            clippy::disallowed_methods,
            reason = "nothing is decided by it; a collector wants wall time"
        )]
        let started = SystemTime::now();
        Self { started, parent }
    }
}

/// W3C Trace Context §3.2: `00-<trace id>-<parent id>-<flags>`.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sized = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    if !sized || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// What is wrong with the URL of a collector.
pub(super) fn check_endpoint(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("must begin with http:// or https://; gRPC is not spoken")?;
    let uri: Uri = url.parse().map_err(|_| "must be a URL")?;
    if uri.host().is_none_or(str::is_empty) {
        return Err("must name a host");
    }
    if !rest.contains('/') {
        return Err("must be the whole URL, which mostly ends with :4318/v1/traces");
    }
    Ok(())
}

impl Traces {
    /// Sends spans to `endpoint`, a full OTLP/HTTP URL. `ratio` is the share of requests sampled among
    /// those whose caller did not decide.
    pub(crate) fn new(endpoint: &str, ratio: f64, instance: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| format!("telemetry.otlp_endpoint: {error}"))?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name("auspex")
            .with_attribute(version)
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("auspex");
        Ok(Self { provider, tracer })
    }

    pub(crate) fn record(
        &self,
        trace: &Trace,
        method: &'static str,
        route: &str,
        status: StatusCode,
        id: &RequestId,
    ) {
        let parent = match &trace.parent {
            Some(parent) => Context::new().with_remote_span_context(parent.clone()),
            None => Context::new(),
        };
        let mut span = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_start_time(trace.started)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route.to_owned()),
                KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
                KeyValue::new("request.id", id.as_str().to_owned()),
            ])
            .start_with_context(&self.tracer, &parent);
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Sends what is left. Blocks for a few seconds at most.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_read_strictly() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(valid).expect("the example of the specification");
        assert!(context.is_sampled() && context.is_remote());
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
