//! Clients that speak HTTP/2: what differs there from HTTP/1.1.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};

use crate::gateway::start;
use crate::server::Server;

const SOON: Duration = Duration::from_secs(10);

/// With one connection, over which everything is asked.
fn with_client<F: Future>(server: &Server, ask: impl FnOnce(SendRequest<Bytes>) -> F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("runs");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address).await;
        let (client, connection) = h2::client::handshake(stream.expect("connects"))
            .await
            .expect("speaks");
        tokio::spawn(connection);
        tokio::time::timeout(SOON, ask(client)).await.expect("soon")
    })
}

fn request(server: &Server, method: Method, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", server.address))
        .header("x-api-key", &server.key)
        .body(())
        .expect("valid")
}

#[test]
fn the_answer_to_head_has_no_body_and_the_length_of_one() {
    let server = start(
        "[gateway.services.away]\nendpoints = [\"http://127.0.0.1:1\"]\nretry = { retries_max = 0 }\n\
         [[gateway.routes]]\npath = \"/away\"\nservice = \"away\"\npublic = true\n\
         [[gateway.routes]]\npath = \"/parts\"\npublic = true\n\
         aggregate = [ { name = \"a\", service = \"away\", path = \"/a\", optional = true } ]\n",
    );
    with_client(&server, async |mut client| {
        for (path, wanted) in [
            ("/health", 200),
            ("/v1/models", 200),
            ("/parts", 200),
            ("/nowhere", 404),
            ("/v1/models/customer/predict", 405),
            ("/away", 502),
        ] {
            client = client.ready().await.expect(path);
            let (answer, _) = client
                .send_request(request(&server, Method::HEAD, path), true)
                .expect(path);
            let (head, mut body) = answer.await.expect(path).into_parts();
            assert_eq!(head.status.as_u16(), wanted, "{path}");
            assert!(body.data().await.is_none(), "{path} has a body");
            assert!(head.headers["content-length"].len() > 1, "{path}: {head:?}");
        }
    });
}

#[test]
fn an_answer_that_needs_no_body_does_not_end_the_stream_of_whoever_sends_one() {
    let server = start(
        "[gateway.services.away]\nendpoints = [\"http://127.0.0.1:1\"]\nretry = { retries_max = 0 }\n\
         circuit_breaker = { failure_threshold = 100 }\n\
         [[gateway.routes]]\npath = \"/away\"\nservice = \"away\"\npublic = true\n",
    );
    with_client(&server, async |client| {
        let mut client = client.ready().await.expect("there");
        let asked = request(&server, Method::PUT, "/away");
        let (answer, mut sending) = client.send_request(asked, false).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let mut left = 3_000_000;
        while left > 0 {
            sending.reserve_capacity(left);
            let room = poll_fn(|cx| sending.poll_capacity(cx)).await;
            let room = room.expect("not ended").expect("goes on");
            sending
                .send_data(vec![b'x'; room].into(), room == left)
                .expect("goes on");
            left -= room;
        }
    });
}
