//! The real binary, started as its users start it, asked over real sockets.

mod client;
mod server;

mod architecture;
mod auth;
mod cli;
mod edge;
mod hostile;
mod keys;
mod lifecycle;
mod limits;
mod matrix;
mod observe;
mod openapi;
mod predict;
mod users;
