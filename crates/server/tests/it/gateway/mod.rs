//! Requests that are passed on to servers behind the gateway, and what reaches those.

mod aggregate;
pub(crate) mod backend;
mod balancing;
mod cache;
mod circuit;
mod dns;
mod failing;
mod faults;
mod health;
mod hostile;
mod http2;
mod passing;
mod registry;
mod reload;
mod retrying;
mod routing;
mod telling;
mod tls;
mod trace;
mod transcode;
mod watching;
mod websocket;

use std::net::SocketAddr;
use std::path::Path;

use crate::client::Answer;
use crate::server::{Server, auspex};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server whose `auspex.toml` holds this.
pub(crate) fn start(settings: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    std::fs::write(&file, settings).expect("written");
    start_from(folder, &file, &[])
}

/// The same with a file in its folder, and with variables.
fn start_from(folder: tempfile::TempDir, file: &Path, variables: &[(&str, &str)]) -> Server {
    let mut command = auspex();
    command.arg("--config").arg(file);
    Server::start_by(command, folder, variables)
}

/// One that passes `/orders/…` on, for callers with `predict`, and goes on however much fails; `more` are further
/// lines of the route.
fn in_front_of(address: SocketAddr, more: &str) -> Server {
    start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{address}\"]\ntimeout_ms = 500\n\
         circuit_breaker = {{ failure_threshold = 100 }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\n\
         scopes = [\"predict\"]\n{more}\n"
    ))
}

/// Why the gateway could not pass a request on: status, code and reason.
fn refusal(answer: &Answer) -> (u16, String, String) {
    let code = answer.error_code();
    let details = &answer.json()["error"]["details"];
    let reason = details[0]["message"].as_str().unwrap_or("-").to_owned();
    (answer.status, code, reason)
}
