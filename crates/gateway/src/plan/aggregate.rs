//! Routes whose answers are made of parts.

use std::collections::BTreeMap;

use auspex_kernel::config::ConfigError;

use super::{Key, ServicePlan, check_service};
use crate::aggregate::{Aggregate, Part};
use crate::config::RouteConfig;
use crate::proxy::Proxy;
use crate::template::{Template, parameters};

/// More requests for one are for whoever asks.
const PARTS_MAX: usize = 16;
const PART_BYTES_MAX: usize = 64 << 20;

/// The parts of the answers of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AggregatePlan {
    parts: Vec<PartPlan>,
    bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PartPlan {
    name: String,
    service: String,
    template: Template,
    is_optional: bool,
}

impl AggregatePlan {
    /// # Errors
    /// [`ConfigError::wrong`] with the whole key.
    pub(super) fn new(
        at: &Key,
        route: &RouteConfig,
        services: &BTreeMap<String, ServicePlan>,
        bytes_max: usize,
    ) -> Result<Self, ConfigError> {
        let given = route.aggregate.as_deref().unwrap_or_default();
        if !(1..=PARTS_MAX).contains(&given.len()) {
            return Err(at.wrong("aggregate", format!("must have 1 to {PARTS_MAX} parts")));
        }
        if route
            .methods
            .as_ref()
            .is_some_and(|methods| methods != &["GET"])
        {
            let reason = "must be [\"GET\"] or left out, for the parts of an answer are only read";
            return Err(at.wrong("methods", reason));
        }
        if !route.strip_prefix.is_empty() {
            let reason = "does not go together with aggregate, whose parts have paths of their own";
            return Err(at.wrong("strip_prefix", reason));
        }
        if !(1..=PART_BYTES_MAX).contains(&bytes_max) {
            let reason = format!("must be between 1 and {PART_BYTES_MAX}");
            return Err(ConfigError::wrong("gateway.part_bytes_max", reason));
        }
        if route.transcode.is_some() {
            let reason = "is for routes with service; its parts answer with JSON already";
            return Err(at.wrong("transcode", reason));
        }
        let known = parameters(&route.path);
        let mut parts: Vec<PartPlan> = Vec::new();
        for (index, part) in given.iter().enumerate() {
            let at = Key(format!("{}.aggregate[{index}]", at.0));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !(1..=64).contains(&part.name.len()) || !part.name.bytes().all(is_plain) {
                return Err(at.wrong("name", "must be 1 to 64 letters, digits, - and _"));
            }
            if parts.iter().any(|other| other.name == part.name) {
                return Err(at.wrong("name", "is that of another part; choose one of its own"));
            }
            check_service(&at, &part.service, services)?;
            let template = Template::new(&part.path, &known);
            parts.push(PartPlan {
                name: part.name.clone(),
                service: part.service.clone(),
                template: template.map_err(|why| at.wrong("path", why))?,
                is_optional: part.optional,
            });
        }
        Ok(Self { parts, bytes_max })
    }

    /// What answers the route of this path. `proxy` leads to a service.
    pub(crate) fn handler(&self, path: &str, proxy: impl Fn(&str) -> Proxy) -> Aggregate {
        let parts = self.parts.iter().map(|part| Part {
            name: part.name.clone(),
            proxy: proxy(&part.service),
            template: part.template.clone(),
            is_optional: part.is_optional,
        });
        Aggregate::new(path, parts.collect(), self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::{LeadsTo, Plan};

    const SERVICES: &str = "[gateway.services.users]\nendpoints = [\"http://127.0.0.1:9001\"]\n\
        [[gateway.routes]]\npath = \"/overview/{id}\"\npublic = true\n";
    const USER: &str = "{ name = \"user\", service = \"users\", path = \"/users/{id}\" }";

    fn plan(parts: &str, more: &str) -> Result<Plan, auspex_kernel::config::ConfigError> {
        Plan::of(&format!("{SERVICES}aggregate = [{parts}]\n{more}\n"))
    }

    #[test]
    fn a_route_may_be_made_of_parts() {
        let plan = plan(USER, "").expect("valid");
        assert_eq!(plan.routes[0].methods, ["GET"]);
        let LeadsTo::Aggregate(aggregate) = &plan.routes[0].leads_to else {
            panic!("of parts")
        };
        assert_eq!(aggregate.bytes_max, 1 << 20);
        let [part] = &aggregate.parts[..] else {
            panic!("one part")
        };
        assert!(!part.is_optional);
    }

    #[test]
    fn what_is_wrong_with_a_part_is_named_by_its_key() {
        let other = |from: &str, to: &str| USER.replace(from, to);
        for (parts, more, key) in [
            (String::new(), "", "aggregate"),
            (format!("{USER}, {USER}"), "", "aggregate[1].name"),
            (other("\"user\"", "\"a b\""), "", "aggregate[0].name"),
            (other("\"users\"", "\"none\""), "", "aggregate[0].service"),
            (other("{id}", "{name}"), "", "aggregate[0].path"),
            (USER.into(), "service = \"users\"", "aggregate"),
            (USER.into(), "methods = [\"POST\"]", "methods"),
            (USER.into(), "strip_prefix = \"/overview\"", "strip_prefix"),
        ] {
            let error = plan(&parts, more).expect_err(&parts).to_string();
            let key = format!("gateway.routes[0].{key}\" ");
            assert!(error.contains(&key), "{parts} {more}: {error}");
        }
    }
}
