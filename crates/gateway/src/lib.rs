//! One door for what stands behind it: requests of routes that the settings declare are passed on to other
//! servers, and their answers back.
//!
//! The edge has done its part before: the caller is known, may call, and is within their limits. A
//! request is passed on by the thread of its connection, over connections that belong to that
//! thread, so nothing here is shared that would have to be waited for.

mod audit;
mod balance;
mod circuit;
mod config;
mod counts;
mod discovery;
mod error;
mod exchange;
mod headers;
mod http;
mod journal;
mod live;
mod load;
mod metrics;
mod migration;
mod path;
mod patience;
mod plan;
mod proxy;
mod registry;
mod retry;
mod service;
mod source;
mod store;
mod trial;
mod upstream;
mod watch;
mod websocket;
mod window;

pub use config::{
    CircuitBreakerConfig, Config, ProtocolConfig, RetryConfig, RouteConfig, RouteLimit,
    ServiceBreakerConfig, ServiceConfig, ServiceRetryConfig, TlsConfig,
};
pub use service::GatewayService;
