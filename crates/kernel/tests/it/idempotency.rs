//! Requests with a key are carried out once.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use auspex_kernel::db::{Db, DbError, Limits, Transaction};
use auspex_kernel::idempotency::{Answer, Idempotency, Kept, Keyed, Receipt};
use auspex_kernel::{ApiError, Clock, Timestamp};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sea_orm::ConnectionTrait as _;
use tokio::sync::Semaphore;

use crate::on_every_database;
use crate::store::{Store, execute};

const START: Timestamp = Timestamp(1_769_335_200_000_000);

on_every_database! {
    equal_requests_at_once_are_carried_out_once
    answers_are_given_again_for_a_day
    a_step_of_the_clock_repeats_nothing_before_its_date
    without_a_key_each_request_is_carried_out
    a_key_belongs_to_caller_method_path_and_body
    credentials_are_not_kept
    failures_free_the_key
    what_was_not_committed_is_not_remembered
    what_was_committed_is_remembered_whatever_comes_after
    who_fails_because_another_was_faster_gets_its_answer
    a_failure_takes_no_second_turn_at_the_database
    malformed_keys_are_refused
    expired_keys_are_forgotten
}

/// A service that makes numbered things.
struct Service {
    idempotency: Idempotency,
    db: Db,
    clock: Clock,
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
        let db = store.db().await;
        execute(
            &db,
            "CREATE TABLE IF NOT EXISTS things (number INTEGER)".into(),
        )
        .await;
        let clock = Clock::manual(START);
        Self {
            idempotency: Idempotency::new(db.clone(), clock.clone()),
            db,
            clock,
        }
    }

    /// How many things there are.
    async fn made(&self) -> i64 {
        count(&self.db, "things").await
    }

    async fn run(
        &self,
        ask: Ask,
        work: impl AsyncFnOnce(Receipt<i64>) -> Result<Kept, ApiError>,
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
        let render = |number: &i64| created(*number);
        let once = self.idempotency.once(request, ask.answer, render, work);
        once.await
    }

    /// Makes a thing.
    async fn create(&self, ask: Ask) -> Result<Response, ApiError> {
        let work = async |receipt: Receipt<i64>| {
            let made = self
                .db
                .write(async |transaction| make(transaction, receipt).await);
            Ok(made.await?)
        };
        self.run(ask, work).await
    }
}

async fn make(transaction: &Transaction, receipt: Receipt<i64>) -> Result<Kept, DbError> {
    let number = next(transaction).await?;
    receipt.keep(transaction, &number).await
}

/// Makes a thing and remembers nothing.
async fn next(transaction: &Transaction) -> Result<i64, DbError> {
    let sql = "INSERT INTO things SELECT COUNT(*) + 1 FROM things";
    transaction.execute_unprepared(sql).await?;
    let sql = "SELECT COUNT(*) FROM things";
    let statement = sea_orm::Statement::from_string(transaction.get_database_backend(), sql);
    let row = transaction.query_one_raw(statement).await?;
    Ok(row.unwrap().try_get_by_index::<i64>(0)?)
}

fn created(number: i64) -> Response {
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
    let processes = [Service::new(store).await, Service::new(store).await].map(Arc::new);
    let ask = |n: usize| {
        let service = Arc::clone(&processes[n % 2]);
        tokio::spawn(async move { shown(service.create(ASK).await).await })
    };
    let asking: Vec<_> = (0..10).map(ask).collect();
    let mut first = 0;
    for asked in asking {
        let answer = asked.await.unwrap();
        first += usize::from(answer == is(201, "{\"id\":1}", false));
        assert_eq!((answer.0, &*answer.1), (201, "{\"id\":1}"));
    }
    assert_eq!((first, processes[0].made().await), (1, 1));
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
}

async fn a_step_of_the_clock_repeats_nothing_before_its_date(store: &Store) {
    let service = Service::new(store).await;
    service.create(ASK).await.unwrap();
    let (hour, days) = (Duration::from_hours(1), Duration::from_hours(240));
    for now in [START + hour, START - hour, START - days] {
        service.clock.step(now);
        let again = service.create(ASK).await;
        assert_eq!(shown(again).await, is(201, "{\"id\":1}", true));
    }
    service.clock.step(START + days);
    let later = service.create(ASK).await;
    assert_eq!(shown(later).await, is(201, "{\"id\":2}", false));
    // That one was made then, so it still counts when the clock is set right.
    service.clock.step(START);
    let again = service.create(ASK).await;
    assert_eq!(shown(again).await, is(201, "{\"id\":2}", true));
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
    assert_eq!(service.made().await, 1);
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
    assert_eq!(service.made().await, 1);
}

async fn failures_free_the_key(store: &Store) {
    let service = Arc::new(Service::new(store).await);
    let refused = service.run(ASK, async |_| Err(ApiError::conflict("the name is taken")));
    assert_eq!(shown(refused.await).await, is(409, "CONFLICT", false));
    let panicking = Arc::clone(&service);
    let panicked = tokio::spawn(async move {
        let work = async |_| panic!("broken");
        panicking.run(ASK, work).await.map(|_| ())
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":1}", false)
    );
}

async fn what_was_not_committed_is_not_remembered(store: &Store) {
    let service = Service::new(store).await;
    let rolled_back = async |receipt: Receipt<i64>| {
        let failing = service.db.write(async |transaction| {
            let _ = make(transaction, receipt).await?;
            Err::<Kept, _>(DbError::Interrupted)
        });
        Ok(failing.await?)
    };
    assert!(service.run(ASK, rolled_back).await.is_err());
    assert_eq!(service.made().await, 0);

    // As when a process is killed after its work and before the commit.
    let (done, never) = (Semaphore::new(0), Semaphore::new(0));
    let work = async |receipt: Receipt<i64>| {
        let stuck = service.db.write(async |transaction| -> Result<_, DbError> {
            let kept = make(transaction, receipt).await?;
            done.add_permits(1);
            never.acquire().await.unwrap().forget();
            Ok(kept)
        });
        Ok(stuck.await?)
    };
    tokio::select! {
        _ = service.run(ASK, work) => panic!("answered"),
        _ = done.acquire() => {}
    }
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":1}", false)
    );
}

async fn what_was_committed_is_remembered_whatever_comes_after(store: &Store) {
    let service = Service::new(store).await;
    let work = async |receipt: Receipt<i64>| {
        let made = service
            .db
            .write(async |transaction| make(transaction, receipt).await);
        let _ = made.await?;
        Err(ApiError::internal("a reload of what is in force"))
    };
    assert_eq!(
        shown(service.run(ASK, work).await).await,
        is(201, "{\"id\":1}", true)
    );
    assert_eq!(
        shown(service.create(ASK).await).await,
        is(201, "{\"id\":1}", true)
    );
    assert_eq!(service.made().await, 1);
}

async fn who_fails_because_another_was_faster_gets_its_answer(store: &Store) {
    let service = Service::new(store).await;
    // It has looked, and then the other one comes and takes what both want.
    let work = async |_| {
        service.create(ASK).await.unwrap();
        Err(ApiError::conflict("the name is taken"))
    };
    assert_eq!(
        shown(service.run(ASK, work).await).await,
        is(201, "{\"id\":1}", true)
    );
    let work = async |receipt: Receipt<i64>| {
        service
            .create(Ask {
                key: Some("another"),
                ..ASK
            })
            .await
            .unwrap();
        let made = service
            .db
            .write(async |transaction| make(transaction, receipt).await);
        Ok(made.await?)
    };
    let later = Ask {
        key: Some("another"),
        ..ASK
    };
    assert_eq!(
        shown(service.run(later, work).await).await,
        is(201, "{\"id\":2}", true)
    );
    assert_eq!(service.made().await, 2, "the slower one was rolled back");
}

async fn a_failure_takes_no_second_turn_at_the_database(store: &Store) {
    const LIMIT: Duration = Duration::from_millis(800);
    let mut service = Service::new(store).await;
    service.db = Db::open_with(&store.url, Limits::within(LIMIT))
        .await
        .unwrap();
    service.idempotency = Idempotency::new(service.db.clone(), service.clock.clone());

    let invalid = async |_| Err(ApiError::validation(Vec::new()));
    let (status, took) = fail_while_held(store, &service, invalid).await;
    assert!(status == 422 && took < LIMIT / 2, "{status}, {took:?}");

    let slow = async |receipt| {
        let making = service
            .db
            .write(async |transaction| make(transaction, receipt).await);
        Ok(making.await?)
    };
    let (status, took) = fail_while_held(store, &service, slow).await;
    assert!(status == 503 && took < LIMIT * 3 / 2, "{status}, {took:?}");
}

/// The status of work that fails while another process holds up whoever uses the database, and how
/// long it took.
async fn fail_while_held(
    store: &Store,
    service: &Service,
    work: impl AsyncFnOnce(Receipt<i64>) -> Result<Kept, ApiError>,
) -> (u16, Duration) {
    let other = store.db().await;
    let [begin, begun, end] = [0; 3].map(Semaphore::new);
    let holding = async {
        begin.acquire().await.unwrap().forget();
        let held = other.write(async |transaction| -> Result<_, DbError> {
            if transaction.get_database_backend() == sea_orm::DbBackend::Postgres {
                let lock = "LOCK TABLE things, kernel_idempotency_keys IN ACCESS EXCLUSIVE MODE";
                transaction.execute_unprepared(lock).await?;
            }
            begun.add_permits(1);
            end.acquire().await.unwrap().forget();
            Ok(())
        });
        held.await.unwrap();
    };
    let asking = async {
        let work = async |receipt| {
            begin.add_permits(1);
            begun.acquire().await.unwrap().forget();
            work(receipt).await
        };
        let start = monotonic();
        let failed = service.run(ASK, work).await.unwrap_err();
        end.add_permits(1);
        (failed.status().as_u16(), start.elapsed())
    };
    tokio::join!(holding, asking).1
}

async fn malformed_keys_are_refused(store: &Store) {
    let service = Service::new(store).await;
    let work = || async |_: Receipt<()>| -> Result<Kept, ApiError> { panic!("carried out") };
    let once = async |headers: &HeaderMap| {
        let render = |(): &()| Response::default();
        let once = service
            .idempotency
            .once(keyed(headers), Answer::Stored, render, work());
        once.await.unwrap_err().status().as_u16()
    };
    let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
    for key in ["", "a b", "é", "a\tb", long] {
        let mut headers = HeaderMap::new();
        headers.insert(
            "idempotency-key",
            HeaderValue::from_bytes(key.as_bytes()).unwrap(),
        );
        assert_eq!(once(&headers).await, 422, "{key:?}");
    }
    let mut headers = HeaderMap::new();
    for key in ["a", "b"] {
        headers.append("idempotency-key", HeaderValue::from_static(key));
    }
    assert_eq!(once(&headers).await, 422);
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
    let left = async || count(&db, "kernel_idempotency_keys").await;
    assert_eq!(left().await, 3);
    service.clock.step(START + Duration::from_hours(24));
    // Not at every request, but however many there are.
    for (key, expected) in [("d", 4), ("e", 2)] {
        service.clock.advance(Duration::from_secs(30));
        let ask = Ask {
            key: Some(key),
            ..ASK
        };
        service.create(ask).await.unwrap();
        assert_eq!(left().await, expected, "{key}");
    }
}

async fn count(db: &Db, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    db.read(async |connection| -> Result<_, DbError> {
        let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await?;
        Ok(row.unwrap().try_get_by_index::<i64>(0)?)
    })
    .await
    .unwrap()
}
