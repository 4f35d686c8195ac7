//! Counters for Prometheus. Every handle is looked up once, at start; labels are bounded.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, String); 2];
type ClassLabels = [(&'static str, String); 3];

/// Seconds: from a cached answer to a request that hits its deadline.
const BUCKETS: [f64; 13] = [
    5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 10.0,
];

/// The registry and the families of the server itself.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<ClassLabels, Counter>,
    seconds: Family<Labels, Histogram, fn() -> Histogram>,
    connections: Gauge,
}

/// The handles of one operation.
#[derive(Debug, Clone)]
pub(crate) struct RouteMetrics {
    /// 1xx to 5xx.
    classes: [Counter; 5],
    seconds: Histogram,
}

impl Default for RouteMetrics {
    fn default() -> Self {
        Self {
            classes: Default::default(),
            seconds: histogram(),
        }
    }
}

impl RouteMetrics {
    pub(crate) fn observe(&self, status: StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
        self.seconds.observe(elapsed.as_secs_f64());
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("auspex");
        let requests = Family::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        registry.register(
            "http_request_duration_seconds",
            "From head to answer",
            seconds.clone(),
        );
        let connections = Gauge::default();
        registry.register("http_connections", "Open connections", connections.clone());
        let build: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        registry.register("build_info", "The running version", build);
        Self {
            registry,
            requests,
            seconds,
            connections,
        }
    }

    /// For the parts that count for themselves.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The handles of one operation.
    pub(crate) fn route(&self, template: &str, method: &str) -> RouteMetrics {
        let labels = [
            ("route", template.to_owned()),
            ("method", method.to_owned()),
        ];
        let [route, method] = labels.clone();
        let class = |class: usize| {
            let status = ("status", format!("{}xx", class + 1));
            self.requests
                .get_or_create_owned(&[route.clone(), method.clone(), status])
        };
        RouteMetrics {
            classes: std::array::from_fn(class),
            seconds: self.seconds.get_or_create_owned(&labels),
        }
    }

    /// The gauge of open connections.
    pub(crate) fn connections(&self) -> OpenConnections {
        OpenConnections(self.connections.clone())
    }

    /// OpenMetrics text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => unreachable!("a string takes any text"),
        }
    }
}

/// Counts open connections.
#[derive(Clone)]
pub(crate) struct OpenConnections(Gauge);

impl OpenConnections {
    /// One more, until the guard is dropped.
    pub(crate) fn enter(&self) -> ConnectionGuard {
        self.0.inc();
        ConnectionGuard(self.0.clone())
    }

    pub(crate) fn count(&self) -> i64 {
        self.0.get()
    }
}

pub(crate) struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
