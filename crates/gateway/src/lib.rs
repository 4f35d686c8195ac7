//! One door for what stands behind it: requests of routes that the settings declare are passed on to other
//! servers, and their answers back.
//!
//! The edge has done its part before: the caller is known, may call, and is within their limits. A
//! request is passed on by the thread of its connection, over connections that belong to that
//! thread, so nothing here is shared that would have to be waited for.

mod aggregate;
mod audit;
mod balance;
mod cache;
mod check;
mod circuit;
mod config;
mod counts;
mod discovery;
mod error;
mod exchange;
mod gate;
mod gather;
mod headers;
mod health;
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
mod template;
mod transcode;
mod trial;
mod upstream;
mod watch;
mod websocket;
mod window;

pub use config::{
    CacheConfig, CircuitBreakerConfig, Config, HealthConfig, PartConfig, ProtocolConfig,
    RemoteRole, RemoteRoute, RetryConfig, RouteCache, RouteConfig, RouteLimit, RouteTranscode,
    ServiceBreakerConfig, ServiceConfig, ServiceRetryConfig, TlsConfig, X_AUSPEX_CLUSTER,
};
pub use service::GatewayService;
