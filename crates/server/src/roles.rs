//! Which services this process serves, and where the others are.
//!
//! A process that serves the gateway passes the requests of those on, as they came: who may call and how often is decided
//! by the process that serves them, and counted there alone. It knows by the secret of the cluster that the address of the
//! client is true.

use std::collections::BTreeMap;

use auspex_gateway::{RemoteRole, RemoteRoute, ServiceConfig};
use auspex_kernel::config::ConfigError;
use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use crate::config::Config;
use crate::services::{self, Listed};

/// How long the circuit of a role in another process stays open, where the settings do not say it.
const RECOVERY_TIMEOUT_S: u32 = 1;
const ALL: &str = "all";
const GATEWAY: &str = "gateway";
const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: usize = 256;

/// `[cluster]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// By which processes of one server know each other; empty: there is one.
    pub(crate) secret: String,
    /// Where services are that this process does not serve.
    pub(crate) services: BTreeMap<String, ServiceConfig>,
}

/// Whether this process has the routes of a service.
pub(crate) fn are_served(config: &Config, service: &str) -> bool {
    let roles = &config.server.roles;
    roles.iter().any(|role| role == ALL || role == service)
}

/// Whether this process opens a service, for its own routes or for those of others: everybody is known by identity, and
/// jobs are predicted where they are worked on.
pub(crate) fn are_needed(config: &Config, service: &str) -> bool {
    let is_for_others = match service {
        "identity" => true,
        "inference" => are_served(config, "jobs"),
        _ => false,
    };
    is_for_others || are_served(config, service)
}

/// Leaves a role to other processes.
pub(crate) fn leave(config: &mut Config, role: &str) {
    let names = services::ALL.iter().map(|service| service.name());
    let left = names.filter(|name| *name != role && are_served(config, name));
    config.server.roles = left.map(str::to_owned).collect();
}

/// What types alone cannot say.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let names = || services::ALL.iter().map(|service| service.name());
    let known = || names().collect::<Vec<_>>().join(", ");
    let roles = &config.server.roles;
    let is_known = |role: &String| role == ALL || names().any(|name| name == role);
    if roles.is_empty() || !roles.iter().all(is_known) {
        let reason = format!("must be \"all\", or some of {}", known());
        return Err(ConfigError::wrong("server.roles", reason));
    }
    let Cluster { secret, services } = &config.cluster;
    if let Some(name) = services
        .keys()
        .find(|name| !names().any(|one| one == *name))
    {
        let reason = format!("is no role; there are {}", known());
        let key = format!("cluster.services.{name}");
        return Err(ConfigError::wrong(&key, reason));
    }
    // Its servers get credentials and the secret, so they are named here and cannot register themselves.
    let is_open = |there: &ServiceConfig| {
        there.endpoints.is_none() && there.dns.is_none() && there.srv.is_none()
    };
    if let Some((name, _)) = services.iter().find(|(_, there)| is_open(there)) {
        let key = format!("cluster.services.{name}");
        let reason = "needs endpoints, dns or srv";
        return Err(ConfigError::wrong(&key, reason));
    }
    let is_usable = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len())
        && secret.bytes().all(|byte| byte.is_ascii_graphic());
    if !secret.is_empty() && !is_usable {
        let reason = format!(
            "must be {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} characters of ASCII, without blanks"
        );
        return Err(ConfigError::wrong("cluster.secret", reason));
    }
    if secret.is_empty() && !services.is_empty() {
        let reason = "is missing: cluster.services is set, whose processes need it";
        return Err(ConfigError::wrong("cluster.secret", reason));
    }
    Ok(())
}

/// The services that this process passes requests on to.
fn passed_on(config: &Config) -> impl Iterator<Item = (&'static dyn Listed, &ServiceConfig)> {
    let is_gateway = are_served(config, GATEWAY);
    let others = services::ALL
        .iter()
        .filter(move |service| is_gateway && !are_served(config, service.name()));
    others.filter_map(|service| {
        let there = config.cluster.services.get(service.name())?;
        Some((*service, there))
    })
}

/// The same for the gateway. Of settings that are not checked yet.
pub(crate) fn remote_roles(config: &Config) -> Vec<RemoteRole> {
    let Ok(mut secret) = HeaderValue::from_str(&config.cluster.secret) else {
        return Vec::new();
    };
    secret.set_sensitive(true);
    let role = |(service, there): (&'static dyn Listed, &ServiceConfig)| {
        let mut own = there.clone();
        own.timeout_ms
            .get_or_insert(config.server.request_timeout_ms);
        // It starts again within a moment, and there may be no other process that serves it.
        let recovery = &mut own.circuit_breaker.recovery_timeout_s;
        recovery.get_or_insert(RECOVERY_TIMEOUT_S);
        RemoteRole {
            name: service.name(),
            service: own,
            routes: routes(service),
            secret: secret.clone(),
        }
    };
    passed_on(config).map(role).collect()
}

/// The documents of what is passed on, as far as they are known without opening anything.
pub(crate) fn documents(config: &Config) -> Vec<OpenApi> {
    passed_on(config)
        .map(|(service, _)| service.operations())
        .collect()
}

/// Every path of a service with its methods, as its document has them.
fn routes(service: &dyn Listed) -> Vec<RemoteRoute> {
    let document = serde_json::to_value(service.operations()).expect("a document is JSON");
    let paths = document["paths"].as_object().into_iter().flatten();
    let policies = service.policies();
    let policy_of = |operation: &Value| {
        let id = operation["operationId"].as_str();
        let (_, policy) = policies.iter().find(|(known, _)| Some(*known) == id)?;
        Some(*policy)
    };
    let route = |(path, item): (&String, &Value)| {
        let operations = || item.as_object().into_iter().flatten();
        let method = |(name, _): (&String, _)| name.to_uppercase().parse().ok();
        RemoteRoute {
            path: path.clone(),
            methods: operations().filter_map(method).collect::<Vec<Method>>(),
            policy: operations()
                .find_map(|(_, operation)| policy_of(operation))
                .unwrap_or_default(),
        }
    };
    paths.map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Overrides, load_text};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn config(text: &str) -> Result<Config, ConfigError> {
        let loaded = load_text(
            Some(text.to_owned()),
            &Overrides::default(),
            Vec::<(String, String)>::new,
        );
        loaded.map(|loaded| loaded.config)
    }

    #[test]
    fn a_role_is_left_to_other_processes() {
        let mut config = config("").expect("defaults");
        leave(&mut config, "jobs");
        assert!(!are_served(&config, "jobs"));
        let others = ["gateway", "inference", "identity", "dialogues"];
        assert!(others.iter().all(|role| are_served(&config, role)));
    }

    fn split(roles: &str) -> Config {
        let text = format!(
            "[server]\nroles = {roles}\n[cluster]\nsecret = \"{SECRET}\"\n\
             [cluster.services.inference]\nendpoints = [\"http://127.0.0.1:1\"]\n\
             [cluster.services.identity]\ndns = \"identity:8080\"\n"
        );
        config(&text).expect("valid")
    }

    #[test]
    fn a_gateway_passes_on_what_it_does_not_serve_itself() {
        let names = |config: &Config| -> Vec<&str> {
            config
                .gateway
                .remote_roles
                .iter()
                .map(|role| role.name)
                .collect()
        };
        assert_eq!(names(&split(r#"["gateway"]"#)), ["inference", "identity"]);
        assert_eq!(names(&split(r#"["gateway", "identity"]"#)), ["inference"]);
        assert!(names(&split(r#"["all"]"#)).is_empty());
        assert!(names(&split(r#"["jobs"]"#)).is_empty(), "it is no gateway");
        let config = split(r#"["gateway"]"#);
        let role = &config.gateway.remote_roles[0];
        assert!(!format!("{role:?}").contains(SECRET));
        let paths = role.routes.iter().map(|route| route.path.as_str());
        assert!(
            paths
                .into_iter()
                .any(|path| path == "/v1/models/{model}/predict")
        );
        let for_clients = config.gateway.remote_roles[1].routes.iter();
        let for_clients = for_clients
            .filter(|route| route.policy.is_for_clients)
            .count();
        assert!((5..=8).contains(&for_clients), "{for_clients}");
    }

    #[test]
    fn what_is_needed_beside_the_routes_of_a_role_is_opened() {
        let config = split(r#"["jobs"]"#);
        assert!(are_needed(&config, "inference") && !are_served(&config, "inference"));
        assert!(are_needed(&config, "identity") && !are_needed(&config, "dialogues"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let elsewhere = "[cluster.services.jobs]\nendpoints = [\"http://127.0.0.1:1\"]\n";
        for (text, key) in [
            ("[server]\nroles = []\n".to_owned(), "server.roles"),
            ("[server]\nroles = [\"predict\"]\n".into(), "server.roles"),
            ("[cluster]\nsecret = \"short\"\n".into(), "cluster.secret"),
            (elsewhere.to_owned(), "cluster.secret"),
            (
                format!("[cluster]\nsecret = \"{SECRET}\"\n[cluster.services.orders]\n"),
                "cluster.services.orders",
            ),
            (
                format!(
                    "[cluster]\nsecret = \"{SECRET}\"\n\
                     [cluster.services.jobs]\naddresses_allowed = [\"10.0.0.0/8\"]\n"
                ),
                "cluster.services.jobs",
            ),
            (
                format!(
                    "[server]\nroles = [\"gateway\"]\n[cluster]\nsecret = \"{SECRET}\"\n\
                     [cluster.services.jobs]\nendpoints = [\"jobs:80\"]\n"
                ),
                "cluster.services.jobs.endpoints[0]",
            ),
        ] {
            let error = config(&text).expect_err(&text).to_string();
            assert!(error.contains(&format!("\"{key}\" ")), "{text}: {error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }
}
