//! The table of routes, without requests.

use auspex_kernel::service::{Boxed, Documented};
use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::edge::tests::alone;

const LIMITS: Limits = Limits {
    body_bytes_max: 100,
    body_timeout: Duration::from_secs(30),
    request_timeout: Duration::from_secs(60),
};

impl RouteTable {
    /// The route of a request without host and headers.
    pub(crate) fn find_plain(&self, method: &Method, path: &str) -> Result<&Arc<Route>, ApiError> {
        self.find(Target {
            method,
            path,
            host: None,
            headers: &HeaderMap::new(),
        })
    }
}

fn usual(limits: Limits, quotas: &Quotas) -> Usual<'_> {
    Usual { limits, quotas }
}

fn routes() -> Routes {
    let documented = Documented::new(utoipa::openapi::OpenApi::default());
    Routes::new(axum::Router::new(), documented).with_pages(&["/docs/{*rest}"])
}

fn table(
    routes: &Routes,
    document: &Value,
    previous: Option<&RouteTable>,
) -> Result<RouteTable, RouteError> {
    let metrics = |_: &str, _: &str| RouteMetrics::default();
    let quotas = alone();
    RouteTable::new(
        declared(routes, document)?,
        usual(LIMITS, &quotas),
        previous,
        metrics,
    )
}

#[test]
fn routes_come_from_the_document() {
    let document = json!({"paths": {
        "/health": {"get": {"security": [{}]}},
        "/v1/me": {"get": {"security": [{"api_key": []}, {"bearer": []}]}},
        "/v1/models/{model}": {
            "get": {"security": [{"api_key": ["models:read"]}, {"bearer": ["models:read"]}]},
            "delete": {"security": [{"api_key": ["models:write"]}]}},
        "/v1/jobs": {"post": {"security": [{"bearer": ["jobs:write", "predict"]}]}},
    }});
    let table = table(&routes(), &document, None).expect("valid");
    let access = |method: Method, path| table.find_plain(&method, path).map(|r| r.access).ok();
    assert_eq!(access(Method::GET, "/health"), Some(Access::Public));
    assert_eq!(access(Method::HEAD, "/health"), Some(Access::Public));
    assert_eq!(
        access(Method::GET, "/v1/me"),
        Some(Access::Scopes(ScopeSet::default()))
    );
    let scope = Some(Access::Scopes(ScopeSet::from_iter([Scope::ModelsWrite])));
    assert_eq!(access(Method::DELETE, "/v1/models/x"), scope);
    let both = ScopeSet::from_iter([Scope::JobsWrite, Scope::Predict]);
    let both = Some(Access::Scopes(both));
    assert_eq!(access(Method::POST, "/v1/jobs"), both);
    assert_eq!(
        access(Method::GET, "/docs/index.html"),
        Some(Access::Public)
    );
    let refused =
        |method: Method, path| table.find_plain(&method, path).map(|_| ()).expect_err("no");
    assert_eq!(refused(Method::GET, "/nowhere").status(), 404);
    assert_eq!(refused(Method::POST, "/v1/models/x").status(), 405);
    assert_eq!(refused(Method::OPTIONS, "/v1/models/x").status(), 405);
}

#[test]
fn an_operation_without_an_access_rule_is_an_error() {
    for operation in [
        json!({}),
        json!({"security": [{"bearer": ["nonsense"]}]}),
        json!({"security": [{"bearer": ["predict", "nonsense"]}]}),
        json!({"security": [{"bearer": ["predict"]}, {"api_key": ["predict", "models:read"]}]}),
        json!({"security": [{"bearer": ["predict"]}, {"api_key": ["models:read"]}]}),
    ] {
        let document = json!({"paths": {"/x": {"get": operation}}});
        assert!(table(&routes(), &document, None).is_err());
    }
}

#[test]
fn a_policy_overrides_limits_and_must_name_an_operation() {
    let document = json!({"paths": {"/x": {
        "get": {"operationId": "get_x", "security": []},
        "post": {"operationId": "post_x", "security": []},
    }}});
    let short = Policy {
        body_bytes_max: Some(7),
        ..Policy::default()
    };
    let table_with = |id| table(&routes().with_policy(&[id], short), &document, None);
    let table = table_with("post_x").expect("valid");
    let max = |method| {
        table
            .find_plain(&method, "/x")
            .map(|r| r.limits.body_bytes_max)
    };
    assert_eq!(max(Method::POST).expect("found"), 7);
    assert_eq!(max(Method::GET).expect("found"), 100);
    let error = table_with("put_x").expect_err("no such operation");
    assert!(error.to_string().contains("put_x"), "{error}");
}

#[test]
fn strangers_may_send_less() {
    let document = json!({"paths": {"/x": {
        "get": {"operationId": "get_x", "security": []},
        "post": {"operationId": "post_x", "security": [{"bearer": []}]},
    }}});
    let limits = |bytes| {
        let limits = Limits {
            body_bytes_max: bytes,
            ..LIMITS
        };
        let declared = declared(&routes(), &document).expect("rules");
        let metrics = |_: &str, _: &str| RouteMetrics::default();
        let quotas = alone();
        let usual = usual(limits, &quotas);
        let table = RouteTable::new(declared, usual, None, metrics).expect("valid");
        [Method::GET, Method::POST].map(|method| {
            let route = table.find_plain(&method, "/x").expect("found");
            route.limits.body_bytes_max
        })
    };
    assert_eq!(limits(1 << 20), [PUBLIC_BODY_BYTES_MAX, 1 << 20]);
    assert_eq!(limits(100), [100, 100]);
}

#[test]
fn two_policies_for_an_operation_and_a_limit_of_nothing_are_errors() {
    let document = json!({"paths": {"/x": {"get": {"operationId": "x", "security": []}}}});
    let twice = routes().with_policy(&["x", "x"], Policy::default());
    let error = table(&twice, &document, None).expect_err("two");
    assert!(matches!(error, RouteError::TwoPolicies("x")), "{error}");
    let nothing = Some(RateLimit {
        max: 0,
        window_s: 60,
        callers_max: 10,
    });
    let of_callers = Policy {
        caller_limit: nothing,
        ..Policy::default()
    };
    let of_addresses = Policy {
        address_limit: nothing,
        ..Policy::default()
    };
    for policy in [of_callers, of_addresses] {
        let routes = routes().with_policy(&["x"], policy);
        let error = table(&routes, &document, None).expect_err("nothing");
        assert!(error.to_string().contains("at least 1"), "{error}");
    }
}

#[test]
fn counts_of_a_route_go_on_in_the_next_table_while_its_limit_is_the_same() {
    let document = json!({"paths": {"/x": {"get": {"operationId": "x", "security": []}}}});
    let next = |max, previous: Option<&RouteTable>| {
        let address_limit = Some(RateLimit {
            max,
            window_s: 60,
            callers_max: 10,
        });
        let policy = Policy {
            address_limit,
            ..Policy::default()
        };
        let routes = routes().with_policy(&["x"], policy);
        table(&routes, &document, previous).expect("valid")
    };
    let window = |table: &RouteTable| {
        let route = table.find_plain(&Method::GET, "/x").expect("found");
        route.addresses.clone().expect("its own")
    };
    let (first, other) = (next(1, None), next(2, None));
    assert!(Arc::ptr_eq(
        &window(&first),
        &window(&next(1, Some(&first)))
    ));
    assert!(!Arc::ptr_eq(
        &window(&first),
        &window(&next(1, Some(&other)))
    ));
}

#[test]
fn a_route_that_is_declared_twice_is_an_error() {
    let document = json!({"paths": {"/docs/{*rest}": {"get": {"security": []}}}});
    assert!(table(&routes(), &document, None).is_err());
}

/// Answers nothing that anybody looks at.
struct Unasked;

impl Handle for Unasked {
    fn handle(self: Arc<Self>, _: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async { Response::default() })
    }
}

fn undocumented(path: &str, methods: &[Method], access: Access) -> UndocumentedRoute {
    UndocumentedRoute {
        key: "gateway.routes[0].path".to_owned(),
        path: path.to_owned(),
        methods: methods.to_vec(),
        conditions: Conditions::default(),
        access,
        policy: Policy::default(),
        handler: Arc::new(Unasked),
    }
}

fn with_undocumented(added: Vec<UndocumentedRoute>) -> Result<RouteTable, RouteError> {
    let document = json!({"paths": {
        "/v1/models/{model}/predict": {"post": {"security": [{"bearer": ["predict"]}]}},
        "/v1/models": {"get": {"security": [{"bearer": ["models:read"]}]}},
    }});
    table(&routes().with_undocumented(added), &document, None)
}

#[test]
fn routes_that_no_document_shows_have_rules_of_their_own() {
    let both = Access::Scopes(ScopeSet::from_iter([Scope::Predict, Scope::JobsRead]));
    let table = with_undocumented(vec![
        undocumented("/orders/{*rest}", &[], both),
        undocumented("/news/{id}", &[Method::GET, Method::PUT], Access::Public),
        undocumented("/news/{id}", &[], Access::Scopes(ScopeSet::default())),
    ])
    .expect("no clash");
    let access = |method: Method, path| table.find_plain(&method, path).map(|r| r.access).ok();
    for method in [Method::GET, Method::HEAD, Method::PATCH, Method::OPTIONS] {
        assert_eq!(access(method, "/orders/1"), Some(both));
    }
    assert_eq!(
        access(Method::from_bytes(b"PURGE").unwrap(), "/orders/1"),
        Some(both)
    );
    for refused in [Method::CONNECT, Method::TRACE] {
        assert_eq!(access(refused, "/orders/1"), None);
    }
    assert_eq!(access(Method::HEAD, "/news/1"), Some(Access::Public));
    assert_eq!(access(Method::PUT, "/news/1"), Some(Access::Public));
    let any_caller = Some(Access::Scopes(ScopeSet::default()));
    assert_eq!(access(Method::POST, "/news/1"), any_caller);
    assert_eq!(access(Method::GET, "/orders"), None, "no rule, no route");
    let allow = table.methods("/news/1", None).expect("found");
    assert_eq!(allow, "GET, POST, PUT, PATCH, DELETE, OPTIONS, HEAD");
    assert!(!both.allows(ScopeSet::from_iter([Scope::Predict])));
}

#[test]
fn paths_of_the_server_cannot_be_taken() {
    for (path, own) in [
        ("/v1/models", "/v1/models"),
        ("/v1/models/special/predict", "/v1/models/{model}/predict"),
        ("/v1/models/{name}/predict", "/v1/models/{model}/predict"),
        ("/docs/mine", "/docs/{*rest}"),
    ] {
        let added = undocumented(path, &[Method::DELETE], Access::Public);
        let error = with_undocumented(vec![added]).expect_err(path).to_string();
        assert!(error.contains(path) && error.contains(own), "{error}");
    }
    // What is below or beside them is free.
    for path in ["/v1/models/a/b", "/v1/{*rest}", "/{*rest}"] {
        let added = undocumented(path, &[], Access::Public);
        let table = with_undocumented(vec![added]).expect(path);
        let own = table
            .find_plain(&Method::GET, "/v1/models")
            .expect("its own");
        assert_eq!(own.template, "/v1/models");
    }
}

#[test]
fn undocumented_routes_must_not_clash_and_need_limits() {
    let clash = with_undocumented(vec![
        undocumented("/orders/{id}", &[], Access::Public),
        undocumented("/orders/{order}", &[], Access::Public),
    ]);
    let error = clash.expect_err("two names").to_string();
    assert!(
        error.contains("/orders/{id}") && error.contains("/orders/{order}"),
        "{error}"
    );
    let twice = undocumented("/x", &[Method::GET, Method::GET], Access::Public);
    assert!(matches!(
        with_undocumented(vec![twice]),
        Err(RouteError::Twice { .. })
    ));
    let broken = undocumented("/x/{", &[], Access::Public);
    assert!(matches!(
        with_undocumented(vec![broken]),
        Err(RouteError::Clash { .. })
    ));
    let mut unlimited = undocumented("/x", &[], Access::Scopes(ScopeSet::default()));
    unlimited.policy.is_limited = false;
    assert!(matches!(
        with_undocumented(vec![unlimited]),
        Err(RouteError::Unlimited { .. })
    ));
}

#[test]
fn methods_of_one_route_share_its_count_and_streams_have_no_limit() {
    let mut route = undocumented("/x", &[Method::GET, Method::POST], Access::Public);
    route.policy.streams_body = true;
    route.policy.address_limit = Some(RateLimit {
        max: 1,
        window_s: 60,
        callers_max: 10,
    });
    let table = with_undocumented(vec![route]).expect("valid");
    let route = |method: Method| table.find_plain(&method, "/x").expect("found").clone();
    let window = |method| route(method).addresses.clone().expect("its own");
    assert!(Arc::ptr_eq(&window(Method::GET), &window(Method::POST)));
    assert_eq!(route(Method::POST).limits.body_bytes_max, usize::MAX);
}

/// A route of a path under certain hosts and with certain headers, which can be told by its key.
fn only(key: &str, path: &str, hosts: &[&str], headers: &[(&str, &str)]) -> UndocumentedRoute {
    let header = |(name, value): &(&str, &str)| {
        let name = name.parse().expect("a name");
        (name, value.parse().expect("a value"))
    };
    UndocumentedRoute {
        key: key.to_owned(),
        conditions: Conditions {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            headers: headers.iter().map(header).collect(),
        },
        ..undocumented(path, &[], Access::Public)
    }
}

/// The key of the route that a request has, or the status of its refusal.
fn found(
    table: &RouteTable,
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
) -> Result<String, u16> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        map.append(name, value.parse().expect("a value"));
    }
    let target = Target {
        method: &method.parse().expect("a method"),
        path,
        host: Some(host),
        headers: &map,
    };
    let route = table
        .find(target)
        .map_err(|error| error.status().as_u16())?;
    Ok(route.key.clone().unwrap_or_else(|| route.template.clone()))
}

#[test]
fn the_route_that_names_its_host_most_exactly_wins() {
    let table = with_undocumented(vec![
        only("any", "/a/{*rest}", &[], &[]),
        only("below", "/a/{*rest}", &["*.example.org"], &[]),
        only("further", "/a/{*rest}", &["*.eu.example.org"], &[]),
        only("one", "/a/{*rest}", &["api.example.org", "[::1]"], &[]),
        only("all", "/{*rest}", &["shop.example.org"], &[]),
    ])
    .expect("told apart");
    let at = |host: &str| found(&table, "GET", "/a/1", host, &[]).expect("a route");
    for (host, expected) in [
        ("api.example.org", "one"),
        ("API.Example.ORG", "one"),
        ("api.example.org:8443", "one"),
        ("api.example.org.", "one"),
        ("api.example.org.:1", "one"),
        ("[::1]:80", "one"),
        ("b.api.example.org", "below"),
        ("a.eu.example.org", "further"),
        ("eu.example.org", "below"),
        ("example.org", "any"),
        ("xexample.org", "any"),
        ("example.org.evil.com", "any"),
        ("shop.example.org", "all"),
        ("", "any"),
        (".example.org", "below"),
        ("a b", "any"),
        ("127.0.0.1", "any"),
    ] {
        assert_eq!(at(host), expected, "{host}");
    }
    let long = format!("{}.example.org", "a".repeat(300));
    assert_eq!(at(&long), "any");
    // A host of its own has all paths but those of the server.
    let shop = |path: &str| found(&table, "GET", path, "shop.example.org", &[]);
    assert_eq!(shop("/x/y"), Ok("all".into()));
    assert_eq!(shop("/v1/models"), Ok("/v1/models".into()));
    assert_eq!(
        found(&table, "GET", "/x/y", "api.example.org", &[]),
        Err(404)
    );
}

#[test]
fn the_route_that_names_most_headers_wins_and_then_the_first() {
    let two = ("x-version", "2");
    let table = with_undocumented(vec![
        only("plain", "/a", &[], &[]),
        only("two", "/a", &[], &[two]),
        only("beta", "/a", &[], &[("x-beta", "yes")]),
        only("both", "/a", &[], &[two, ("x-beta", "yes")]),
        only("host", "/a", &["h"], &[]),
        only("host of three", "/a", &["h"], &[("x-version", "3")]),
    ])
    .expect("told apart");
    let at = |host: &str, headers: &[(&str, &str)]| {
        found(&table, "GET", "/a", host, headers).expect("a route")
    };
    for (headers, expected) in [
        (&[][..], "plain"),
        (&[two], "two"),
        (&[("X-Version", "2")], "two"),
        (&[("x-version", "2 ")], "plain"),
        (&[("x-version", "20")], "plain"),
        (&[("x-version", "1")], "plain"),
        (&[("x-version", "2"), ("x-version", "2")], "plain"),
        (&[("x-version", "2"), ("x-version", "1")], "plain"),
        (&[two, ("x-beta", "no")], "two"),
        (&[("x-beta", "yes"), two], "both"),
        (&[("x-beta", "yes"), ("x-version", "1")], "beta"),
    ] {
        assert_eq!(at("x", headers), expected, "{headers:?}");
    }
    assert_eq!(at("h", &[two]), "host", "the host comes first");
    assert_eq!(at("h", &[("x-version", "3")]), "host of three");
    let told_by_order = with_undocumented(vec![
        only("first", "/a", &[], &[("x-a", "1")]),
        only("second", "/a", &[], &[("x-b", "1")]),
    ]);
    let both = [("x-b", "1"), ("x-a", "1")];
    let told_by_order = told_by_order.expect("told apart");
    assert_eq!(
        found(&told_by_order, "GET", "/a", "x", &both),
        Ok("first".into())
    );
}

#[test]
fn a_method_that_one_route_does_not_take_is_looked_for_in_the_next() {
    let mut reads = only("reads", "/a", &["h"], &[]);
    reads.methods = vec![Method::GET];
    let mut writes = only("writes", "/a", &[], &[("x-w", "1")]);
    writes.methods = vec![Method::PUT];
    let table = with_undocumented(vec![reads, writes]).expect("told apart");
    let at = |method: &str, host: &str| found(&table, method, "/a", host, &[("x-w", "1")]);
    assert_eq!(at("HEAD", "h"), Ok("reads".into()));
    assert_eq!(at("PUT", "h"), Ok("writes".into()));
    assert_eq!(at("POST", "h"), Err(405));
    assert_eq!(at("GET", "x"), Err(405));
    assert_eq!(found(&table, "GET", "/a", "x", &[]), Err(404));
    assert_eq!(
        table.methods("/a", Some("h")).expect("some"),
        "GET, PUT, HEAD"
    );
    assert_eq!(table.methods("/a", Some("x")).expect("some"), "PUT");
    assert_eq!(table.methods("/b", Some("h")), None);
}

#[test]
fn routes_that_cannot_be_told_apart_are_an_error_that_names_both() {
    let (a, b) = ([("x-a", "1"), ("x-b", "2")], [("x-b", "2"), ("x-a", "1")]);
    for (one, other) in [
        (
            only("k1", "/a", &["h"], &[]),
            only("k2", "/a", &["i", "h"], &[]),
        ),
        (
            only("k1", "/a", &["*.h"], &a),
            only("k2", "/a", &["*.h"], &b),
        ),
        (only("k1", "/a", &[], &[]), only("k2", "/a", &[], &[])),
    ] {
        let error = with_undocumented(vec![one, other]).expect_err("alike");
        assert_eq!(error.key(), Some("k2"));
        assert!(error.to_string().contains("k1"), "{error}");
    }
    let error = with_undocumented(vec![only("k", "/v1/models", &["h"], &[])]);
    let error = error.expect_err("it is the server's");
    assert_eq!(error.key(), Some("k"));
}

#[test]
fn counts_of_routes_that_differ_in_conditions_alone_are_apart() {
    let limited = |hosts: &[&str]| {
        let mut route = only("k", "/a", hosts, &[]);
        route.policy.address_limit = Some(RateLimit {
            max: 1,
            window_s: 60,
            callers_max: 10,
        });
        route
    };
    let table = with_undocumented(vec![limited(&["h"]), limited(&["i"])]).expect("valid");
    let window = |host| {
        let target = Target {
            method: &Method::GET,
            path: "/a",
            host: Some(host),
            headers: &HeaderMap::new(),
        };
        let route = table.find(target).expect("a route");
        route.addresses.clone().expect("its own")
    };
    assert!(Arc::ptr_eq(&window("h"), &window("H")));
    assert!(!Arc::ptr_eq(&window("h"), &window("i")));
}

/// Trying one after the other would take hundreds of times as long.
#[test]
fn a_thousand_routes_slow_no_request() {
    let time = |table: &RouteTable, path: &str| {
        let run = || {
            let begun = auspex_kernel::clock::monotonic();
            for _ in 0..2_000 {
                let headers = [("x-tenant", "t7")];
                found(table, "GET", path, "h7.example.org", &headers).expect("a route");
            }
            begun.elapsed()
        };
        (0..7).map(|_| run()).min().expect("some")
    };
    let tables = [10, 1_000].map(|count| {
        let mut routes = vec![only("plain", "/plain", &[], &[])];
        for n in 0..count {
            let (host, tenant) = (format!("h{n}.example.org"), format!("t{n}"));
            routes.push(only("host", "/by-host", &[&host], &[]));
            routes.push(only("tenant", "/by-tenant", &[], &[("x-tenant", &tenant)]));
            routes.push(only("path", &format!("/p{n}/{{*rest}}"), &[], &[]));
        }
        with_undocumented(routes).expect("told apart")
    });
    for path in ["/plain", "/by-host", "/by-tenant", "/p7/x"] {
        let [few, many] = tables.each_ref().map(|table| time(table, path));
        assert!(many < 10 * few, "{path}: {few:?}, and {many:?} of 1000");
    }
}
