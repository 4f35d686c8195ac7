//! The real binary, started as its users start it, asked over real sockets.

mod browser;
mod certificates;
mod client;
mod server;

mod architecture;
mod audit;
mod auth;
mod backup;
mod cli;
mod database;
mod dialogues;
mod doctor;
mod edge;
mod forgery;
mod gateway;
mod hostile;
mod idempotency;
mod jobs;
mod jobs_bounds;
mod keys;
mod lifecycle;
mod limits;
mod logging;
mod matrix;
mod oauth;
mod observe;
mod openapi;
mod overview;
mod predict;
mod proxied;
mod reload;
mod replicas;
mod tls;
mod tokens;
mod users;
