//! Requests with a key are carried out once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::idempotency::{Answer, Idempotency, Keyed};
use auspex_kernel::{ApiError, Clock, Timestamp};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

use crate::on_every_database;
use crate::store::{Store, execute};

const START: Timestamp = Timestamp(1_769_335_200_000_000);

on_every_database! {
    equal_requests_at_once_are_carried_out_once
    answers_are_given_again_for_a_day
    without_a_key_each_request_is_carried_out
    a_key_belongs_to_caller_method_path_and_body
    credentials_are_not_kept
    failures_free_the_key
    work_goes_on_when_its_client_leaves
    a_claim_left_behind_frees_itself
    malformed_keys_are_refused
    expired_keys_are_forgotten
}

/// A service that counts how often it did its work.
struct Service {
    idempotency: Idempotency,
    clock: Clock,
    done: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct Ask {
    caller: &'static str,
    method: &'static Method,
    path: &'static str,
    key: Option<&'static str>,
    body: &'static str,
    answer: Answer,
}

const ASK: Ask = Ask {
    caller: "user:1",
    method: &Method::POST,
    path: "/v1/users",
    key: Some("k"),
    body: "{}",
    answer: Answer::Stored,
};

impl Service {
    async fn new(store: &Store) -> Self {
        let clock = Clock::manual(START);
        Self {
            idempotency: Idempotency::new(store.db().await, clock.clone()),
            clock,
            done: Arc::default(),
        }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    async fn run(
        &self,
        ask: Ask,
        work: impl Future<Output = Result<Response, ApiError>> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = ask.key {
            headers.insert("idempotency-key", HeaderValue::from_static(key));
        }
        let request = Keyed {
            caller: ask.caller,
            method: ask.method,
            path: ask.path,
            headers: &headers,
            body: ask.body.as_bytes(),
        };
        self.idempotency.once(request, ask.answer, work).await
    }

    /// Creates a thing, numbered.
    async fn create(&self, ask: Ask) -> Result<Response, ApiError> {
        let done = Arc::clone(&self.done);
        self.run(ask, async move {
            Ok(created(done.fetch_add(1, Ordering::SeqCst) + 1))
        })
        .await
    }
}

fn created(number: usize) -> Response {
    let headers = [
        ("location", format!("/v1/users/{number}")),
        ("etag", format!("\"{number}\"")),
        ("content-type", "application/json".into()),
        ("x-other", "not kept".into()),
    ];
    (StatusCode::CREATED, headers, format!("{{\"id\":{number}}}")).into_response()
}

/// Status, code or body, and whether it is a replay.
async fn shown(result: Result<Response, ApiError>) -> (u16, String, bool) {
    let response = match result {
        Ok(response) => response,
        Err(error) => return (error.status().as_u16(), error.code().into(), false),
    };
    let status = response.status().as_u16();
    let replayed = response.headers().contains_key("idempotency-replayed");
    let body = auspex_kernel::body::read(response.into_body())
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap(), replayed)
}

fn is(status: u16, text: &str, replayed: bool) -> (u16, String, bool) {
    (status, text.to_owned(), replayed)
}

async fn equal_requests_at_once_are_carried_out_once(store: &Store) {
    let mut processes = Vec::new();
    let (clock, done) = (Clock::manual(START), Arc::new(AtomicUsize::new(0)));
    for _ in 0..2 {
        let idempotency = Idempotency::new(store.db().await, clock.clone());
        let (clock, done) = (clock.clone(), Arc::clone(&done));
        processes.push(Arc::new(Service {
            idempotency,
            clock,
            done,
        }));
    }
    let ask = |n: usize| {
        let service = Arc::clone(&processes[n % 2]);
        tokio::spawn(async move { shown(service.create(ASK).await).await })
    };
    let asking: Vec<_> = (0..10).map(ask).collect();
    let mut first = 0;
    for asked in asking {
        let answer = asked.await.unwrap();
        first += usize::from(answer == is(201, "{\"id\":1}", false));
        let others = [is(201, "{\"id\":1}", true), is(409, "CONFLICT", false)];
        assert!(
            answer == is(201, "{\"id\":1}", false) || others.contains(&answer),
            "{answer:?}"
        );
    }
    assert_eq!((first, done.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(
        shown(processes[1].create(ASK).await).await,
        is(201, "{\"id\":1}", true)
    );
}

async fn answers_are_given_again_for_a_day(store: &Store) {
    let service = Service::new(store).await;
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":1}", false)
    );
    service.clock.advance(Duration::from_secs(86_399));
    let again = service.create(ASK).await.unwrap();
    let header = |name: &str| again.headers()[name].to_str().unwrap();
    assert_eq!(again.status(), 201);
    assert_eq!(
        [header("location"), header("etag"), header("content-type")],
        ["/v1/users/1", "\"1\"", "application/json"]
    );
    assert_eq!(header("idempotency-replayed"), "true");
    assert!(!again.headers().contains_key("x-other"));
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":2}", false)
    );
    let empty = Ask {
        path: "/v1/empty",
        ..ASK
    };
    for replayed in [false, true] {
        let answer = service.run(empty, async { Ok(StatusCode::NO_CONTENT.into_response()) });
        assert_eq!(shown(answer.await).await, is(204, "", replayed));
    }
}

async fn without_a_key_each_request_is_carried_out(store: &Store) {
    let service = Service::new(store).await;
    let ask = Ask { key: None, ..ASK };
    for number in 1..=2 {
        let body = format!("{{\"id\":{number}}}");
        assert_eq!(
            shown(service.create(ask).await).await,
            is(201, &body, false)
        );
    }
}

async fn a_key_belongs_to_caller_method_path_and_body(store: &Store) {
    let service = Service::new(store).await;
    service.create(ASK).await.unwrap();
    let other_body = Ask { body: "{ }", ..ASK };
    let refused = service.create(other_body).await.unwrap_err();
    assert_eq!(
        (refused.status().as_u16(), refused.code()),
        (422, "VALIDATION_ERROR")
    );
    assert_eq!(refused.details()[0].field, "Idempotency-Key");
    assert_eq!(service.done(), 1);
    for (number, ask) in [
        Ask {
            caller: "user:2",
            ..ASK
        },
        Ask {
            method: &Method::PUT,
            ..ASK
        },
        Ask {
            path: "/v1/users/",
            ..ASK
        },
        Ask {
            key: Some("K"),
            ..ASK
        },
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!("{{\"id\":{}}}", number + 2);
        assert_eq!(
            shown(service.create(ask).await).await,
            is(201, &body, false)
        );
    }
}

async fn credentials_are_not_kept(store: &Store) {
    let service = Service::new(store).await;
    let ask = Ask {
        answer: Answer::Secret,
        ..ASK
    };
    assert_eq!(
        shown(service.create(ask).await).await,
        is(201, "{\"id\":1}", false)
    );
    let again = service.create(ask).await.unwrap_err();
    assert_eq!((again.status().as_u16(), again.code()), (409, "CONFLICT"));
    assert!(
        again.message().contains("carried out"),
        "{}",
        again.message()
    );
    let id = auspex_kernel::RequestId::generate();
    assert_eq!(again.render(&id).headers()["location"], "/v1/users/1");
    assert_eq!(service.done(), 1);
}

async fn failures_free_the_key(store: &Store) {
    let service = Arc::new(Service::new(store).await);
    let refused = service.run(ASK, async { Err(ApiError::conflict("the name is taken")) });
    assert_eq!(shown(refused.await).await, is(409, "CONFLICT", false));
    let refused = service.run(ASK, async { Ok(StatusCode::BAD_GATEWAY.into_response()) });
    assert_eq!(shown(refused.await).await, is(502, "", false));
    let panicking = Arc::clone(&service);
    let panicked = tokio::spawn(async move {
        let work = async { panic!("broken") };
        panicking.run(ASK, work).await.map(|_| ())
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":1}", false)
    );
}

async fn work_goes_on_when_its_client_leaves(store: &Store) {
    let service = Service::new(store).await;
    let (begun, may_end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let work = {
        let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
        let done = Arc::clone(&service.done);
        async move {
            begun.add_permits(1);
            may_end.acquire().await.unwrap().forget();
            Ok(created(done.fetch_add(1, Ordering::SeqCst) + 1))
        }
    };
    tokio::select! {
        _ = service.run(ASK, work) => panic!("answered"),
        _ = begun.acquire() => {}
    }
    let running = service.create(ASK).await.unwrap_err();
    let id = auspex_kernel::RequestId::generate();
    assert_eq!(
        (running.status().as_u16(), running.code()),
        (409, "CONFLICT")
    );
    assert_eq!(running.render(&id).headers()["retry-after"], "1");
    let other_body = Ask { body: "[]", ..ASK };
    assert_eq!(shown(service.create(other_body).await).await.0, 422);
    may_end.add_permits(1);
    let mut answer = shown(service.create(ASK).await).await;
    for _ in 0..1_000 {
        if answer.0 != 409 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        answer = shown(service.create(ASK).await).await;
    }
    assert_eq!(answer, is(201, "{\"id\":1}", true));
    assert_eq!(service.done(), 1);
}

async fn a_claim_left_behind_frees_itself(store: &Store) {
    let service = Service::new(store).await;
    let db = store.db().await;
    service.create(ASK).await.unwrap();
    // As a process leaves it that is killed while it works.
    let expiry = START.0 + 60_000_000;
    let killed = format!("UPDATE kernel_idempotency_keys SET status = NULL, expires_at = {expiry}");
    execute(&db, killed).await;
    service.clock.advance(Duration::from_secs(59));
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(409, "CONFLICT", false)
    );
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":2}", false)
    );
}

async fn malformed_keys_are_refused(store: &Store) {
    let service = Service::new(store).await;
    let work = || async { Ok(created(1)) };
    let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
    for key in ["", "a b", "é", "a\tb", long] {
        let mut headers = HeaderMap::new();
        headers.insert(
            "idempotency-key",
            HeaderValue::from_bytes(key.as_bytes()).unwrap(),
        );
        let once = service
            .idempotency
            .once(keyed(&headers), Answer::Stored, work());
        assert_eq!(once.await.unwrap_err().status(), 422, "{key:?}");
    }
    let mut headers = HeaderMap::new();
    for key in ["a", "b"] {
        headers.append("idempotency-key", HeaderValue::from_static(key));
    }
    let once = service
        .idempotency
        .once(keyed(&headers), Answer::Stored, work());
    assert_eq!(once.await.unwrap_err().status(), 422);
    let longest = Ask {
        key: Some(&long[1..]),
        ..ASK
    };
    assert_eq!(shown(service.create(longest).await).await.0, 201);
}

fn keyed(headers: &HeaderMap) -> Keyed<'_> {
    Keyed {
        caller: "user:1",
        method: &Method::POST,
        path: "/v1/users",
        headers,
        body: b"",
    }
}

async fn expired_keys_are_forgotten(store: &Store) {
    let service = Service::new(store).await;
    let db = store.db().await;
    let keys: [&'static str; 3] = ["a", "b", "c"];
    for key in keys {
        service
            .create(Ask {
                key: Some(key),
                ..ASK
            })
            .await
            .unwrap();
    }
    assert_eq!(count(&db).await, 3);
    service.clock.advance(Duration::from_secs(86_400));
    service
        .create(Ask {
            key: Some("d"),
            ..ASK
        })
        .await
        .unwrap();
    assert_eq!(count(&db).await, 1);
}

async fn count(db: &Db) -> i64 {
    use sea_orm::ConnectionTrait as _;
    db.read(async |connection| -> Result<_, DbError> {
        let sql = "SELECT COUNT(*) FROM kernel_idempotency_keys";
        let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await?;
        Ok(row.unwrap().try_get_by_index::<i64>(0)?)
    })
    .await
    .unwrap()
}
