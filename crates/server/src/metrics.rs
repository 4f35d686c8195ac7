//! Counters for Prometheus. Every handle is looked up once, at start; labels are bounded. What was
//! counted can also be read in the process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use auspex_kernel::durations::{DurationCounts, Durations};
use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, String); 2];
type ClassLabels = [(&'static str, String); 3];
/// Template and method.
pub(crate) type RouteName = (String, String);
/// Of requests for which no route was found.
const UNMATCHED: (&str, &str) = ("(none)", "(any)");

/// The registry and the families of the server itself.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<ClassLabels, Counter>,
    seconds: Family<Labels, Durations>,
    connections: Gauge,
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    served: BTreeMap<RouteName, RouteMetrics>,
    /// What was counted of those that are not served any more.
    ended: Traffic,
}

/// The handles of one route. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteMetrics {
    /// 1xx to 5xx.
    classes: [Counter; 5],
    seconds: Durations,
}

impl RouteMetrics {
    pub(crate) fn observe(&self, status: StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.classes[class].inc();
        self.seconds.observe(elapsed);
    }

    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            classes: std::array::from_fn(|class| self.classes[class].get()),
            durations: self.seconds.counts(),
        }
    }
}

/// What was counted of requests until now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    classes: [u64; 5],
    durations: DurationCounts,
}

impl Traffic {
    /// Answered requests.
    pub(crate) fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Those with a status of this class, 1 to 5.
    pub(crate) fn of_class(&self, class: usize) -> u64 {
        self.classes[class - 1]
    }

    /// As of [`DurationCounts::within_s`].
    pub(crate) fn within_s(&self, share: f64) -> Option<f64> {
        self.durations.within_s(share)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            classes: std::array::from_fn(|class| self.classes[class] + other.classes[class]),
            durations: self.durations.plus(&other.durations),
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("auspex");
        let requests = Family::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let seconds = Family::default();
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
            routes: Mutex::default(),
        }
    }

    /// For the parts that count for themselves.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The handles of one route, always the same ones.
    pub(crate) fn route(&self, template: &str, method: &str) -> RouteMetrics {
        let name = (template.to_owned(), method.to_owned());
        let mut routes = self.routes.lock();
        let handles = || self.new_route(template, method);
        routes.served.entry(name).or_insert_with(handles).clone()
    }

    /// Those of requests for which no route was found.
    pub(crate) fn unmatched(&self) -> RouteMetrics {
        self.route(UNMATCHED.0, UNMATCHED.1)
    }

    /// Ends the series of routes that are not among these, which are served now.
    pub(crate) fn retain(&self, served: &BTreeSet<RouteName>) {
        let mut routes = self.routes.lock();
        let Routes { served: all, ended } = &mut *routes;
        all.retain(|name, handles| {
            let is_kept = served.contains(name) || (&*name.0, &*name.1) == UNMATCHED;
            if !is_kept {
                *ended = std::mem::take(ended).plus(handles.read());
                self.end_route(name);
            }
            is_kept
        });
    }

    fn end_route(&self, (template, method): &RouteName) {
        let labels = [
            ("route", template.to_owned()),
            ("method", method.to_owned()),
        ];
        self.seconds.remove(&labels);
        let [route, method] = labels;
        for class in 1..=5 {
            let status = ("status", format!("{class}xx"));
            self.requests
                .remove(&[route.clone(), method.clone(), status]);
        }
    }

    fn new_route(&self, template: &str, method: &str) -> RouteMetrics {
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

    /// What was counted of all routes together.
    pub(crate) fn traffic(&self) -> Traffic {
        let routes = self.routes.lock();
        let each = routes.served.values().map(RouteMetrics::read);
        each.fold(routes.ended.clone(), Traffic::plus)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_read_and_is_rendered_alike() {
        let metrics = Metrics::new();
        let one = metrics.route("/x", "GET");
        let again = metrics.route("/x", "GET");
        let other = metrics.route("/y", "POST");
        for _ in 0..98 {
            one.observe(StatusCode::OK, Duration::from_micros(80));
        }
        again.observe(StatusCode::NOT_FOUND, Duration::from_millis(3));
        other.observe(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(60));
        let traffic = metrics.traffic();
        assert_eq!(traffic.requests(), 100);
        assert_eq!([2, 4, 5].map(|class| traffic.of_class(class)), [98, 1, 1]);
        assert_eq!(traffic.within_s(0.5), Some(8e-5));
        assert_eq!(traffic.within_s(0.99), Some(3e-3));
        assert_eq!(traffic.within_s(1.0), Some(60.0));
        assert_eq!(Metrics::new().traffic().within_s(0.5), None);
        let text = metrics.render();
        for line in [
            r#"auspex_http_requests_total{route="/x",method="GET",status="2xx"} 98"#,
            r#"auspex_http_request_duration_seconds_bucket{le="0.0001",route="/x",method="GET"} 98"#,
            r#"auspex_http_request_duration_seconds_bucket{le="+Inf",route="/x",method="GET"} 99"#,
            r#"auspex_http_request_duration_seconds_count{route="/x",method="GET"} 99"#,
            r#"auspex_http_request_duration_seconds_sum{route="/y",method="POST"} 60.0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn the_series_of_a_route_end_with_it_and_what_it_counted_stays_in_the_whole() {
        let metrics = Metrics::new();
        metrics
            .unmatched()
            .observe(StatusCode::NOT_FOUND, Duration::ZERO);
        for path in ["/x", "/y"] {
            let route = metrics.route(path, "GET");
            route.observe(StatusCode::OK, Duration::from_millis(1));
        }
        metrics.retain(&BTreeSet::from([("/x".to_owned(), "GET".to_owned())]));
        let text = metrics.render();
        assert!(text.contains("route=\"/x\"") && text.contains("route=\"(none)\""));
        assert!(!text.contains("route=\"/y\""), "{text}");
        assert_eq!(metrics.traffic().requests(), 3);
        metrics
            .route("/y", "GET")
            .observe(StatusCode::OK, Duration::ZERO);
        assert!(
            metrics
                .render()
                .contains(r#"auspex_http_requests_total{route="/y",method="GET",status="2xx"} 1"#)
        );
        assert_eq!(metrics.traffic().requests(), 4);
    }
}
