//! Services whose servers DNS names.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::backend::{Backend, Then};
use super::{OK, refusal, start_from};
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);
const OTHER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother";
const MANY: [(&str, &str); 1] = [("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "1000000")];

/// What a server of names says of every name.
#[derive(Clone, Debug)]
enum Says {
    Addresses(Vec<Ipv4Addr>),
    /// Ports of `host.test`, which is 127.0.0.1, and their priorities.
    Services(Vec<(u16, u16)>),
    Code(u8),
    Nothing,
}

const SERVFAIL: Says = Says::Code(2);
const NXDOMAIN: Says = Says::Code(3);

struct Names {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
}

impl Names {
    fn start(says: Says) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let says = Arc::new(Mutex::new(says));
        let current = says.clone();
        std::thread::spawn(move || {
            let mut question = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let says = current.lock().clone();
                if let Some(answer) = answer(&question[..length], &says) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, says }
    }

    fn say(&self, says: Says) {
        *self.says.lock() = says;
    }
}

/// RFC 1035, 4: the question once more, and records of its name that hold for a second.
fn answer(message: &[u8], says: &Says) -> Option<Vec<u8>> {
    const A: u16 = 1;
    const SRV: u16 = 33;
    let end = 12 + message[12..].iter().position(|byte| *byte == 0)? + 5;
    let question = &message[12..end];
    let kind = u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]]);
    let mut code = 0;
    let records: Vec<Vec<u8>> = match (says, kind) {
        (Says::Nothing, _) => return None,
        (Says::Code(stated), _) => {
            code = *stated;
            Vec::new()
        }
        (Says::Addresses(all), A) => all.iter().map(|one| one.octets().to_vec()).collect(),
        (Says::Services(all), SRV) => {
            let record = |(port, priority): &(u16, u16)| {
                let numbers = [*priority, 1, *port].map(u16::to_be_bytes);
                [&numbers.concat()[..], b"\x04host\x04test\x00"].concat()
            };
            all.iter().map(record).collect()
        }
        (Says::Services(_), A) => vec![Ipv4Addr::LOCALHOST.octets().to_vec()],
        _ => Vec::new(),
    };
    let counts = [1, records.len() as u16, 0, 0]
        .map(u16::to_be_bytes)
        .concat();
    let mut answer = [&message[..2], &[0x81, 0x80 | code], &counts, question].concat();
    for record in records {
        let length = (record.len() as u16).to_be_bytes();
        let kind = kind.to_be_bytes();
        let parts: [&[u8]; 6] = [&[0xc0, 12], &kind, &[0, 1], &[0, 0, 0, 1], &length, &record];
        answer.extend(parts.concat());
    }
    Some(answer)
}

/// Passes `/orders` on to what `source` says.
fn serve(names: &Names, source: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    let settings = format!(
        "[gateway]\ndns_servers = [\"{}\"]\nroutes = [{{ path = \"/orders\", service = \"orders\", \
         public = true }}]\n[gateway.services.orders]\n{source}\n",
        names.address
    );
    std::fs::write(&file, settings).expect("written");
    start_from(folder, &file, &MANY)
}

#[test]
fn a_name_leads_to_its_addresses_and_a_failure_of_dns_changes_nothing() {
    let backend = Backend::saying(OK);
    let names = Names::start(Says::Addresses(vec![Ipv4Addr::LOCALHOST]));
    let port = backend.address.port();
    let server = serve(&names, &format!("dns = \"orders.test:{port}\""));
    assert_eq!(
        server.get("/orders").status,
        200,
        "from the first request on"
    );
    let host = format!("orders.test:{port}");
    assert_eq!(backend.only().header("host"), Some(host.as_str()));
    let shown = server.get("/v1/services/orders").json();
    assert_eq!(shown["source"], "dns");
    assert_eq!(
        shown["servers"][0]["url"],
        format!("http://127.0.0.1:{port}")
    );
    for failure in [SERVFAIL, Says::Nothing] {
        names.say(failure);
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(server.get("/orders").status, 200);
    }
    for none in [NXDOMAIN, Says::Addresses(Vec::new())] {
        names.say(none);
        eventually(SOON, "there are none", || {
            let answer = server.get("/orders");
            answer.status == 503 && refusal(&answer).2 == "no_endpoint"
        });
        names.say(Says::Addresses(vec![Ipv4Addr::LOCALHOST]));
        eventually(SOON, "it is back", || server.get("/orders").status == 200);
    }
    let log = server.stop();
    assert!(
        log.contains("is not answered") && log.contains("is answered again"),
        "{log}"
    );
}

#[test]
fn an_srv_record_names_servers_with_their_ports() {
    let backends = [OK, OTHER].map(Backend::saying);
    let spare = Backend::start(|_, _| Then::Close);
    let [one, two] = backends.each_ref().map(|backend| backend.address.port());
    let all = vec![(one, 1), (two, 1), (spare.address.port(), 2)];
    let names = Names::start(Says::Services(all));
    let server = serve(&names, "srv = \"_http._tcp.orders.test\"");
    for body in ["ok", "other"] {
        eventually(SOON, body, || server.get("/orders").body == body.as_bytes());
    }
    assert_eq!(spare.connections(), 0, "the best priority alone");
    let host = format!("host.test:{one}");
    assert_eq!(backends[0].seen()[0].header("host"), Some(host.as_str()));
    names.say(Says::Services(vec![(two, 1)]));
    eventually(SOON, "one is left", || {
        let shown = server.get("/v1/services/orders").json();
        shown["servers"].as_array().map(Vec::len) == Some(1)
    });
    (0..20).for_each(|_| assert_eq!(server.get("/orders").body, b"other"));
}

#[test]
fn a_server_of_the_next_priority_is_asked_while_the_best_are_away() {
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let spare = Backend::saying(OK);
    let all = vec![(dead, 1), (spare.address.port(), 2)];
    let names = Names::start(Says::Services(all));
    let server = serve(&names, "srv = \"_http._tcp.orders.test\"");
    for _ in 0..20 {
        assert_eq!(server.get("/orders").status, 200);
    }
    assert_eq!(spare.seen().len(), 20);
}
