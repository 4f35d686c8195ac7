//! What Prometheus reads. It is put together when it is asked for, so the series of a service end with it.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::circuit::State;
use crate::counts::Counts;
use crate::live::Live;

/// The metrics of all services.
pub(crate) struct ServiceMetrics(pub(crate) Arc<Live>);

impl fmt::Debug for ServiceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceMetrics").finish_non_exhaustive()
    }
}

impl Collector for ServiceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gateway = self.0.now();
        let services = &gateway.services;
        let (name, help) = ("gateway_requests", "Requests passed on, by how they ended");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (service, running) in services {
            for (outcome, count) in running.counts.outcomes() {
                let labels = [("service", service.as_str()), ("outcome", outcome)];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        type Count = fn(&Counts) -> u64;
        let counters: [(&str, &str, Count); 2] = [
            ("gateway_retries", "Requests sent once more", |counts| {
                counts.budget.made()
            }),
            (
                "gateway_retries_refused",
                "Requests not sent once more because the budget was spent",
                |counts| counts.budget.refused(),
            ),
        ];
        for (name, help, count) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (service, running) in services {
                let labels = [("service", service.as_str())];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count(&running.counts), None)?;
            }
        }
        let (name, help) = (
            "gateway_cache",
            "Requests of routes with a cache, by what became of them",
        );
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (service, running) in services {
            for (result, count) in running.counts.cached() {
                let labels = [("service", service.as_str()), ("result", result)];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let (name, help) = ("gateway_cache_bytes", "What the answers take that are kept");
        let mut one = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        one.encode_gauge(&gateway.caches.store.bytes())?;
        let name = "gateway_request_duration_seconds";
        let help = "Until the head of the answer of a service, retries included";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (service, running) in services {
            let labels = [("service", service.as_str())];
            running
                .counts
                .durations
                .encode(family.encode_family(&labels)?)?;
        }
        let name = "gateway_circuit_state";
        let help = "0: closed, 1: one request tries, 2: open";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (service, running) in services {
            for endpoint in running.endpoints().iter() {
                let place = endpoint.place().to_string();
                let labels = [("service", service.as_str()), ("endpoint", place.as_str())];
                let state: i64 = match endpoint.circuit.state() {
                    State::Closed => 0,
                    State::HalfOpen { .. } => 1,
                    State::Open { .. } => 2,
                };
                family.encode_family(&labels)?.encode_gauge(&state)?;
            }
        }
        let name = "gateway_endpoint_healthy";
        let help =
            "What the health checks of an endpoint say, where it is checked: 1: healthy, 0: not";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (service, running) in services {
            for endpoint in running.endpoints() {
                let Some(health) = &endpoint.health else {
                    continue;
                };
                let place = endpoint.place().to_string();
                let labels = [("service", service.as_str()), ("endpoint", place.as_str())];
                let is_healthy = i64::from(!health.is_down());
                family.encode_family(&labels)?.encode_gauge(&is_healthy)?;
            }
        }
        Ok(())
    }
}
