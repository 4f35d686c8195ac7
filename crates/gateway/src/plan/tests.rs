use super::*;
use crate::upstream::Place;

const SERVICE: &str = "[gateway.services.orders]\nendpoints = [\"http://127.0.0.1:9001\"]\n";
const ROUTE: &str = "[[gateway.routes]]\nservice = \"orders\"\npath = \"/orders/{*rest}\"\n";

fn plan(settings: &str) -> Result<Plan, ConfigError> {
    Plan::of(settings)
}

#[test]
fn a_route_leads_to_its_service() {
    let more = "scopes = [\"predict\", \"jobs:read\"]\nmethods = [\"GET\", \"PUT\"]\n\
         strip_prefix = \"/orders\"\nrate_limit = { max = 5, window_s = 60 }\n";
    let plan = plan(&[SERVICE, ROUTE, more].concat()).expect("valid");
    let [route] = &plan.routes[..] else {
        panic!("one route")
    };
    let LeadsTo::Service(name) = &route.leads_to else {
        panic!("to a service")
    };
    let service = &plan.services[name];
    let there = Source::Fixed(vec![Place::named("127.0.0.1:9001".into())]);
    assert_eq!(service.source, there);
    assert_eq!(service.timeout, Duration::from_secs(30));
    assert_eq!(route.methods, [Method::GET, Method::PUT]);
    assert_eq!(route.limit.map(|limit| limit.max), Some(5));
    let needs = "predict jobs:read".parse().expect("scopes");
    assert_eq!(route.access, Access::Scopes(needs));
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    let endpoint = |url: &str| SERVICE.replace("http://127.0.0.1:9001", url);
    let route = |more: &str| [SERVICE, ROUTE, more, "\n"].concat();
    let cases = [
        (
            endpoint("https://a\", \"http://a"),
            "gateway.services.orders.endpoints[1]",
        ),
        (
            endpoint("https://a..b"),
            "gateway.services.orders.endpoints[0]",
        ),
        (
            format!("{SERVICE}tls = {{}}"),
            "gateway.services.orders.tls",
        ),
        (
            endpoint("https://a") + "tls = { client_cert_file = \"/a\" }",
            "gateway.services.orders.tls.client_key_file",
        ),
        (
            endpoint("https://a") + "tls = { ca_file = \"/nowhere\" }",
            "gateway.services.orders.tls.ca_file",
        ),
        (
            endpoint("https://a") + "tls = { server_name = \"a b\" }",
            "gateway.services.orders.tls.server_name",
        ),
        (
            endpoint("http://a/b"),
            "gateway.services.orders.endpoints[0]",
        ),
        (
            endpoint("http://u:p@a"),
            "gateway.services.orders.endpoints[0]",
        ),
        (endpoint("a:9001"), "gateway.services.orders.endpoints[0]"),
        (
            "[gateway.services.orders]\nendpoints = []".into(),
            "orders.endpoints",
        ),
        (format!("{SERVICE}dns = \"a:1\""), "gateway.services.orders"),
        (
            "[gateway.services.orders]\ndns = \"a\"".into(),
            "orders.dns",
        ),
        (
            "[gateway.services.orders]\nsrv = \"a b\"".into(),
            "orders.srv",
        ),
        (
            "[gateway]\ndns_servers = [\"10.0.0.2\"]".into(),
            "gateway.dns_servers[0]",
        ),
        (
            "[gateway.services.Identity]\nendpoints = [\"http://a\"]".into(),
            "services.Identity",
        ),
        (
            "[gateway.services.orders]\naddresses_allowed = [\"10.0.0.0/8\", \"x\"]".into(),
            "orders.addresses_allowed[1]",
        ),
        (
            "[gateway.services.orders]\naddresses_allowed = []".into(),
            "orders.addresses_allowed",
        ),
        (
            "[gateway.services.orders]\naddresses_allowed = [\"10.0.0.0/8\", \"169.254.7.0/24\"]"
                .into(),
            "orders.addresses_allowed[1]",
        ),
        (
            "[gateway.services.orders]\naddresses_allowed = [\"fe80::1\"]".into(),
            "orders.addresses_allowed[0]",
        ),
        (
            "[gateway.services.orders]\nendpoints = [\"http://a\", \"http://A:80/\"]".into(),
            "orders.endpoints[1]",
        ),
        (
            "[gateway.services.orders]\nendpoints = [\"http://a:0\"]".into(),
            "orders.endpoints[0]",
        ),
        (
            format!("{SERVICE}addresses_allowed = []"),
            "orders.addresses_allowed",
        ),
        (
            "[gateway.services.\"a b\"]\nendpoints = [\"http://a\"]".into(),
            "services.a b",
        ),
        (
            format!("{SERVICE}timeout_ms = 0"),
            "gateway.services.orders.timeout_ms",
        ),
        (
            "[gateway]\nidle_timeout_ms = 0".into(),
            "gateway.idle_timeout_ms",
        ),
        (
            format!("{SERVICE}circuit_breaker = {{ failure_percent = 101 }}"),
            "gateway.services.orders.circuit_breaker.failure_percent",
        ),
        (
            format!("{SERVICE}retry = {{ retries_max = 11 }}"),
            "gateway.services.orders.retry.retries_max",
        ),
        (
            format!("{SERVICE}retry = {{ base_delay_ms = 0 }}"),
            "gateway.services.orders.retry.base_delay_ms",
        ),
        (format!("{SERVICE}balance = \"random\""), "orders.balance"),
        (
            SERVICE.to_owned() + "balance = \"hash(path.id)\"\n" + ROUTE + "public = true\n",
            "orders.balance",
        ),
        (format!("{SERVICE}requests_max = 0"), "orders.requests_max"),
        (format!("{SERVICE}audience = \"a b\""), "orders.audience"),
        (
            format!("{SERVICE}audience = \"a\"\nidentity_token = false"),
            "orders.audience",
        ),
        (
            format!("{SERVICE}health = {{ path = \"health\" }}"),
            "orders.health.path",
        ),
        (
            format!("{SERVICE}health = {{ path = \"/a b\" }}"),
            "orders.health.path",
        ),
        (
            format!("{SERVICE}health = {{ path = \"/\", interval_ms = 99 }}"),
            "orders.health.interval_ms",
        ),
        (
            format!("{SERVICE}health = {{ path = \"/\", timeout_ms = 5001 }}"),
            "orders.health.timeout_ms",
        ),
        (
            format!("{SERVICE}health = {{ path = \"/\", healthy_after = 0 }}"),
            "orders.health.healthy_after",
        ),
        (route(""), "gateway.routes[0].scopes"),
        (
            route("scopes = [\"nonsense\"]"),
            "gateway.routes[0].scopes[0]",
        ),
        (
            route("scopes = []\npublic = true"),
            "gateway.routes[0].public",
        ),
        (
            route("public = true\nmethods = [\"get\"]"),
            "gateway.routes[0].methods[0]",
        ),
        (
            route("public = true\nmethods = [\"TRACE\"]"),
            "gateway.routes[0].methods[0]",
        ),
        (
            route("public = true\nmethods = []"),
            "gateway.routes[0].methods",
        ),
        (
            route("public = true\nmethods = [\"POST\"]\ncache = { ttl_s = 1 }"),
            "gateway.routes[0].cache",
        ),
        (
            route("public = true\nstrip_prefix = \"/ord\""),
            "gateway.routes[0].strip_prefix",
        ),
        (
            route("public = true\nrate_limit = { max = 0, window_s = 1 }"),
            "gateway.routes[0].rate_limit.max",
        ),
        (
            route("public = true\nhosts = []"),
            "gateway.routes[0].hosts",
        ),
        (
            route("public = true\nhosts = [\"a\", \"A\"]"),
            "gateway.routes[0].hosts[1]",
        ),
        (
            route("public = true\nheaders = { host = \"a\" }"),
            "gateway.routes[0].headers.host",
        ),
        (
            route("public = true\nheaders = { \"a b\" = \"a\" }"),
            "gateway.routes[0].headers.a b",
        ),
        (
            route("public = true\nheaders = { x-a = \"1\", X-A = \"2\" }"),
            "gateway.routes[0].headers.x-a",
        ),
        (
            route("public = true\nheaders = { x-a = \" 1\" }"),
            "gateway.routes[0].headers.x-a",
        ),
        (
            ROUTE.to_owned() + "public = true\n",
            "gateway.routes[0].service",
        ),
        (
            "[[gateway.routes]]\npath = \"/a\"\npublic = true".into(),
            "gateway.routes[0].service",
        ),
    ];
    let unreachable = ["q?x", "a b", "a/../b", "a#b", "%2e%2e/b", "{x}/{x}"].map(|path| {
        let route =
            format!("[[gateway.routes]]\npath = \"/{path}\"\nservice = \"orders\"\npublic = true");
        (format!("{route}\n{SERVICE}"), "gateway.routes[0].path")
    });
    for (settings, key) in cases.into_iter().chain(unreachable) {
        let error = plan(&settings).expect_err(&settings).to_string();
        assert!(error.contains(&format!("{key}\" ")), "{settings}: {error}");
        assert!(!error.contains("u:p"), "{error}");
    }
}
