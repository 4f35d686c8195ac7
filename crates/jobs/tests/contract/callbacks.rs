//! Requests that tell of the end of a job, received by a small server.

use auspex_jobs::{CallbackState, CallbacksConfig, Config, Jobs};
use auspex_kernel::id::JobId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::store::execute;
use crate::{ME, Store, config, get, new_job, submit_new, work};

contract! {
    the_end_of_a_job_is_told_once_and_signed
    a_callback_is_sent_again_and_given_up_in_the_end
    callbacks_do_not_follow_redirects_and_do_not_go_inside
    a_callback_whose_sender_died_is_sent_by_another
    of_each_owner_one_callback_is_on_its_way_at_a_time
}

fn allowing(allow: bool) -> Config {
    Config {
        callbacks: CallbacksConfig {
            allow_private_addresses: allow,
            attempts_max: 3,
            timeout_ms: 2_000,
        },
        ..config()
    }
}

/// Takes one request and answers it; what was sent.
async fn receive(listener: TcpListener, status: &'static str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).await.unwrap();
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = header(head, "content-length").parse::<usize>().unwrap();
        if read == 0 || body.len() >= length {
            break;
        }
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    found.next().map_or("", |(_, value)| value)
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    (listener, url)
}

async fn ended(jobs: &Jobs, url: String) -> JobId {
    let id = submit_new(jobs, new_job(ME, Some(url)), &["1"])
        .await
        .unwrap();
    work(jobs, &id).await;
    id
}

async fn the_end_of_a_job_is_told_once_and_signed(store: &Store) {
    let jobs = store.open(allowing(true)).await;
    let outgoing = jobs.outgoing().unwrap();
    let (listener, url) = listener().await;
    let id = submit_new(&jobs, new_job(ME, Some(url)), &["1", "\"wrong\""])
        .await
        .unwrap();
    assert!(
        !jobs.send_callback(&outgoing).await.unwrap(),
        "it has not ended"
    );
    work(&jobs, &id).await;
    let received = tokio::spawn(receive(listener, "204 No Content"));
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    let request = received.await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(sent["type"], "job.succeeded");
    assert_eq!(sent["data"]["id"], id.as_str());
    assert_eq!(sent["data"]["progress"]["errors"], 1);

    let secret = jobs.secrets().shown(ME);
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let (message, time) = (
        header(head, "webhook-id"),
        header(head, "webhook-timestamp"),
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{message}.{time}.{body}").as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header(head, "webhook-signature"), expected);
    assert_eq!(time, store.clock.now().unix_seconds().to_string());

    assert!(
        !jobs.send_callback(&outgoing).await.unwrap(),
        "it was told once"
    );
    let callback = get(&jobs, &id).await.callback.unwrap();
    assert_eq!(
        (callback.state, callback.attempts),
        (CallbackState::Delivered, 1)
    );
}

async fn a_callback_is_sent_again_and_given_up_in_the_end(store: &Store) {
    let jobs = store.open(allowing(true)).await;
    let outgoing = jobs.outgoing().unwrap();
    let (first, url) = listener().await;
    let address = first.local_addr().unwrap();
    let id = ended(&jobs, url).await;
    let received = tokio::spawn(receive(first, "500 Internal Server Error"));
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    let sent = received.await.unwrap();
    assert!(!jobs.send_callback(&outgoing).await.unwrap(), "it waits");
    let db = store.db().await;
    let due = "UPDATE jobs_jobs SET callback_due = 0 WHERE callback_due IS NOT NULL";
    execute(&db, due).await;
    let second = TcpListener::bind(address).await.unwrap();
    let received = tokio::spawn(receive(second, "503 Service Unavailable"));
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    let again = received.await.unwrap();
    let message = |request: &str| header(request, "webhook-id").to_owned();
    assert_eq!(
        message(&sent),
        message(&again),
        "receivers know it by its id"
    );
    execute(&db, due).await;
    // Nobody listens any more.
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    execute(&db, due).await;
    assert!(!jobs.send_callback(&outgoing).await.unwrap());
    let callback = get(&jobs, &id).await.callback.unwrap();
    assert_eq!(
        (callback.state, callback.attempts),
        (CallbackState::GivenUp, 3)
    );
}

async fn callbacks_do_not_follow_redirects_and_do_not_go_inside(store: &Store) {
    let jobs = store.open(allowing(true)).await;
    let outgoing = jobs.outgoing().unwrap();
    let (target, target_url) = listener().await;
    let (listener, url) = listener().await;
    let redirect: &'static str = format!("307 Temporary Redirect\r\nlocation: {target_url}").leak();
    let id = ended(&jobs, url).await;
    let received = tokio::spawn(receive(listener, redirect));
    jobs.send_callback(&outgoing).await.unwrap();
    received.await.unwrap();
    let callback = get(&jobs, &id).await.callback.unwrap();
    assert_eq!(
        callback.state,
        CallbackState::Due,
        "a redirect is a failure"
    );

    // The same database, with settings that allow less; the name leads to this machine.
    let strict = store.open(allowing(false)).await;
    let outgoing = strict.outgoing().unwrap();
    let port = target.local_addr().unwrap().port();
    for url in [
        format!("https://localhost:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        format!("http://127.0.0.1:{port}/"),
    ] {
        let id = ended(&strict, url.clone()).await;
        assert!(strict.send_callback(&outgoing).await.unwrap());
        let callback = get(&strict, &id).await.callback.unwrap();
        assert_eq!(callback.state, CallbackState::Due, "{url}");
    }
    let accepted = tokio::time::timeout(std::time::Duration::from_millis(50), target.accept());
    assert!(accepted.await.is_err(), "nobody came");
}

async fn a_callback_whose_sender_died_is_sent_by_another(store: &Store) {
    let jobs = store.open(allowing(true)).await;
    let outgoing = jobs.outgoing().unwrap();
    let (listener, url) = listener().await;
    let id = ended(&jobs, url).await;
    let sending = jobs.send_callback(&outgoing);
    // It claims the callback, connects, and is dropped while it waits for the answer.
    let (_stream, listener) = {
        let accepted = async { listener.accept().await.unwrap().0 };
        tokio::select! {
            stream = accepted => (stream, listener),
            _ = sending => panic!("there was no answer"),
        }
    };
    let callback = get(&jobs, &id).await.callback.unwrap();
    assert_eq!((callback.state, callback.attempts), (CallbackState::Due, 1));
    let db = store.db().await;
    execute(
        &db,
        "UPDATE jobs_jobs SET callback_due = 0 WHERE callback_due IS NOT NULL",
    )
    .await;
    let received = tokio::spawn(receive(listener, "200 OK"));
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    received.await.unwrap();
    let callback = get(&jobs, &id).await.callback.unwrap();
    assert_eq!(
        (callback.state, callback.attempts),
        (CallbackState::Delivered, 2)
    );
}

async fn of_each_owner_one_callback_is_on_its_way_at_a_time(store: &Store) {
    let jobs = store.open(allowing(true)).await;
    let outgoing = jobs.outgoing().unwrap();
    let (listener, url) = listener().await;
    for _ in 0..5 {
        ended(&jobs, url.clone()).await;
    }
    // Whoever claims the first waits for its answer, and all others find nothing.
    let sending = |_| jobs.send_callback(&outgoing);
    let mut sending: FuturesUnordered<_> = (0..8).map(sending).collect();
    let others = async {
        for _ in 0..7 {
            let sent = sending.next().await.unwrap();
            assert!(!sent.unwrap(), "another one of this owner is on its way");
        }
    };
    let (connected, ()) = tokio::join!(listener.accept(), others);
    // Another's goes meanwhile.
    let (other, url) = crate::callbacks::listener().await;
    let id = submit_new(&jobs, new_job("user:other", Some(url)), &["1"]).await;
    work(&jobs, &id.unwrap()).await;
    let received = tokio::spawn(receive(other, "204 No Content"));
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    received.await.unwrap();
    // When the first is over, the next one goes.
    drop((sending, connected));
    let received = tokio::spawn(receive(listener, "204 No Content"));
    assert!(jobs.send_callback(&outgoing).await.unwrap());
    received.await.unwrap();
}
