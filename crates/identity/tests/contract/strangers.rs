//! What strangers may cost, and what they may not cost others at their address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{Action, Actor, Identity};
use auspex_kernel::audit::{self, Event};
use auspex_kernel::clock::monotonic;
use auspex_kernel::db::DbError;
use auspex_kernel::{Authenticate as _, Credential, CursorKey, Peer, RequestId, Timestamp};
use axum::Router;
use axum::http::HeaderValue;
use serde_json::json;

use crate::ask::{PEER, as_key, as_operator, ask, ask_router, ask_with};
use crate::person::{PASSWORD, add, basic};
use crate::scopes;
use crate::store::{Store, texts};

contract! {
    attempts_count_from_when_they_begin
    one_wrong_password_many_times_at_once_counts_each_time
    a_guesser_keeps_nobody_at_the_address_out
    wrong_secrets_of_clients_are_throttled_and_counted
    a_day_of_refusals_takes_less_than_20_mb
}

/// The router is made once: that takes longer than a login.
fn router(identity: &Identity) -> Router {
    identity.router(CursorKey([7; 32]))
}

async fn log_in(router: &Router, name: &str, password: &str) -> u16 {
    let nobody = as_key("NOBODY", scopes(""));
    let body = json!({"username": name, "password": password}).to_string();
    let path = "/v1/auth/login";
    let answer = ask_router(router.clone(), &nobody, "POST", path, &body, &[]);
    answer.await.status
}

async fn guess_at_once(router: &Router, count: usize) -> BTreeMap<u16, usize> {
    let mut guesses = tokio::task::JoinSet::new();
    for n in 0..count {
        let router = router.clone();
        // Accounts that exist, and names that are made up.
        let name = match n % 3 {
            0 => "ann".to_owned(),
            1 => "bea".to_owned(),
            _ => format!("nobody {n}"),
        };
        guesses.spawn(async move { log_in(&router, &name, "a guess").await });
    }
    let mut answers = BTreeMap::new();
    for status in guesses.join_all().await {
        *answers.entry(status).or_default() += 1;
    }
    answers
}

async fn attempts_count_from_when_they_begin(store: &Store) {
    let identity = store.identity().await;
    let router = router(&identity);
    add(&identity, "ann", "viewer").await;
    add(&identity, "bea", "viewer").await;
    let answers = guess_at_once(&router, 300).await;
    assert_eq!(answers, BTreeMap::from([(401, 20), (429, 280)]));

    // Some have a line of their own, the rest a count.
    let denied = "action = 'login' AND outcome = 'denied'";
    assert_eq!(store.recorded("detail", denied).await, ["password"; 20]);
    store.clock.advance(Duration::from_mins(10));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    let counted = "action = 'login' AND detail LIKE '% more'";
    let counted = store.recorded("detail || ' ' || address", counted).await;
    assert_eq!(counted, ["password, 280 more 192.0.2.0/24"]);
}

async fn one_wrong_password_many_times_at_once_counts_each_time(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let authenticator = Arc::clone(identity.authenticator());
        requests.spawn(async move {
            let wrong = basic("ann", "a guess");
            let verified = authenticator.verify(Credential::Basic(&wrong), PEER.0);
            verified.await.unwrap_err().status().as_u16()
        });
    }
    let mut answers = BTreeMap::new();
    for status in requests.join_all().await {
        *answers.entry(status).or_default() += 1;
    }
    assert_eq!(answers, BTreeMap::from([(401, 20), (429, 280)]));
    let right = basic("ann", PASSWORD);
    let known = Arc::clone(identity.authenticator()).verify(Credential::Basic(&right), PEER.0);
    assert!(known.await.is_ok(), "whoever knows it");
}

async fn a_guesser_keeps_nobody_at_the_address_out(store: &Store) {
    let identity = store.identity().await;
    for name in ["ann", "bea", "cleo", "dora"] {
        add(&identity, name, "viewer").await;
    }
    let router = router(&identity);
    assert_eq!(log_in(&router, "cleo", PASSWORD).await, 200);
    guess_at_once(&router, 60).await;
    let guesses = guess_at_once(&router, 300);
    let neighbours = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let known = log_in(&router, "cleo", PASSWORD).await;
        assert_eq!(known, 200, "who has logged in from there");
        let newcomer = log_in(&router, "dora", PASSWORD).await;
        assert_eq!(newcomer, 200, "who has not");
    };
    let (guesses, ()) = tokio::join!(guesses, neighbours);
    assert_eq!(guesses, BTreeMap::from([(429, 300)]));

    // A wrong password of somebody known is no exception, and does not tell what it was.
    let began = monotonic();
    let wrong = log_in(&router, "cleo", "a guess").await;
    assert_eq!(wrong, 429);
    assert!(began.elapsed() >= Duration::from_millis(2_500));
}

async fn wrong_secrets_of_clients_are_throttled_and_counted(store: &Store) {
    let identity = store.identity().await;
    let operator = as_operator(scopes("clients:write predict"));
    let body = json!({"name": "app", "redirect_uris": [], "grant_types": ["client_credentials"],
        "scopes": ["predict"], "public": false});
    let path = "/v1/oauth-clients";
    let made = ask(&identity, &operator, "POST", path, &body.to_string()).await;
    let (id, secret) = (made.text("client_id"), made.text("client_secret"));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let try_secret = async |path: &str, secret: &str| {
        let body =
            format!("grant_type=client_credentials&token=x&client_id={id}&client_secret={secret}");
        ask_with(&identity, &operator, "POST", path, &body, &form).await
    };
    let mut refused = Vec::new();
    for n in 0..60 {
        let path = ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"][n % 3];
        refused.push(try_secret(path, &format!("wrong{n}")).await);
    }
    assert!(refused[..20].iter().all(|answer| answer.status == 401));
    for answer in &refused[20..] {
        let error = answer.error.as_ref().unwrap();
        assert_eq!(error.status(), 429);
        assert_eq!(error.headers()["retry-after"], "600");
    }
    assert_eq!(try_secret("/oauth2/token", &secret).await.status, 200);

    let denied = "action = 'client.login' AND outcome = 'denied'";
    assert_eq!(store.recorded("action", denied).await.len(), 20);
    store.clock.advance(Duration::from_mins(10));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    let denied = "action = 'client.login' AND detail IS NOT NULL AND outcome = 'denied'";
    let counted = store.recorded("target || ' ' || detail", denied).await;
    assert_eq!(counted, [format!("client:{id} 40 more")]);
    assert_eq!(try_secret("/oauth2/token", "wrong").await.status, 401);
}

/// The lines that refusals may make are bounded by `audit/refused.rs`; here is what they take.
async fn a_day_of_refusals_takes_less_than_20_mb(store: &Store) {
    const LINES: u32 = 5_000;
    const LINES_A_DAY_MAX: u32 = 144 * (96 + 32 + 1);
    store.identity().await;
    let db = store.db().await;
    let size = async || {
        let sql = match store.url.starts_with("sqlite") {
            true => {
                "SELECT CAST(page_count * page_size AS TEXT) FROM pragma_page_count, pragma_page_size"
            }
            false => "SELECT CAST(pg_total_relation_size('identity_audit') AS TEXT)",
        };
        texts(&db, sql).await[0].parse::<u32>().unwrap()
    };
    let longest = HeaderValue::try_from("x".repeat(64)).unwrap();
    let longest = RequestId::from_client(&longest).unwrap();
    let before = size().await;
    for line in 0..LINES {
        let address = std::net::IpAddr::from([255, 255, (line % 250) as u8, 1]);
        let actor = Actor::anonymous(Peer(address), Some(&longest));
        let target = format!("client:{line:016}");
        let event = Event::denied(Action::ClientLogin, Some(target));
        let event = event.with("password, 1000000 more");
        let (clock, random) = (&store.clock, &store.random);
        store.clock.advance(Duration::from_millis(3));
        db.write(async |transaction| -> Result<_, DbError> {
            audit::record(transaction, &actor, event.clone(), clock, random).await
        })
        .await
        .unwrap();
    }
    let of_a_line = (size().await - before).div_ceil(LINES);
    assert!(of_a_line > 100, "{of_a_line}");
    assert!(
        of_a_line * LINES_A_DAY_MAX <= 20_000_000,
        "{of_a_line} bytes each"
    );
}
